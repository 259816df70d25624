"""Kernels: one folder a hot loop, a Pallas kernel beside its plain XLA twin, which is the specification.

`kernels/README.md` says how to add one.
"""

from kernels import attention, decode, dispatch, linear_recurrence, mlp, rollout, scan, search

ALL = tuple(kernel.KERNEL for kernel in (scan, linear_recurrence, rollout, attention, search, decode, mlp))


def choices() -> dict[str, str]:
    """What runs where `implementation` is "auto", by kernel; raises ValueError as `dispatch.choices`."""
    return dispatch.choices(ALL)
