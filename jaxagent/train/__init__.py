"""Training: updates, loops, devices, checkpoints and runs."""
