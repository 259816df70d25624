"""Kernels: one folder a hot loop, a Pallas kernel beside its plain XLA twin, which is the specification.

`kernels/README.md` says how to add one.
"""

from kernels import attention, dispatch, linear_recurrence, mlp, rollout, scan, search

ALL = (scan.KERNEL, linear_recurrence.KERNEL, rollout.KERNEL, attention.KERNEL, search.KERNEL, mlp.KERNEL)


def choices() -> dict[str, str]:
    """What runs where `implementation` is "auto", by kernel; raises ValueError as `dispatch.choices`."""
    return dispatch.choices(ALL)
