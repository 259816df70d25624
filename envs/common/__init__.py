"""Shared parts of environments and agents: names and their errors, branches, foreign code."""
