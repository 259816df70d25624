"""Data: rollouts, the trajectory store, samplers and normalisers."""
