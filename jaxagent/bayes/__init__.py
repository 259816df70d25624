"""Bayes: exact in-context predictors, the references that trained models are compared with."""
