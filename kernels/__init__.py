"""Kernels: one folder a hot loop, a Pallas kernel beside its plain XLA twin (none so far)."""
