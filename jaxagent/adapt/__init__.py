"""Adaptation: which parameters move when a pretrained model meets a new task."""
