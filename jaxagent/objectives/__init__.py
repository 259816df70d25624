"""Objectives: arrays in, losses out; no network is known here."""
