"""Tokens: scalars to bins, transitions to token streams."""
