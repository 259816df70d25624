"""A scan of a few steps, written out where launching kernels costs more than compiling them."""

from collections.abc import Callable
from typing import Any

import jax


def short_scan(step: Callable, carry: Any, xs: Any) -> tuple[Any, Any]:
    """`jax.lax.scan` for a handful of steps K, with leaves `[K, ...]` in `xs` and in the outputs.

    On a GPU a loop keeps XLA from recording the kernels of its steps as one graph, and the host
    launches each by itself: an update of SPR took 27 ms with loops of 2 and 5 steps and 21 without
    (H100). On a CPU only the time to compile would grow.
    """
    return jax.lax.scan(step, carry, xs, unroll=jax.default_backend() != "cpu")
