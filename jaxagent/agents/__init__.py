"""Agents: what is learned, as functions `init, act, targets, loss`."""
