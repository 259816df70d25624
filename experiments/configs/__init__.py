"""Configurations of the experiments, importable without JAX."""
