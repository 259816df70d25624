"""Foreign code: a scope in which third-party functions may promote dtypes and ranks."""

import functools
from collections.abc import Callable
from typing import TypeVar

import jax

Function = TypeVar("Function", bound=Callable)


def foreign(fn: Function) -> Function:
    """Wrap third-party `fn` so that it traces under JAX's standard promotion rules.

    Our own code in the same trace keeps the strict rules that the tests switch on.
    """

    @functools.wraps(fn)
    def relaxed(*args, **kwargs):
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            return fn(*args, **kwargs)

    return relaxed  # type: ignore[return-value]
