"""Scores of runs, the statistics over them, and the claims that they support."""
