"""Foreign code: a scope in which third-party functions may promote dtypes and ranks."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

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


def as_carry(tree: Any) -> Any:
    """Give every leaf of a third-party pytree its dtype for good: arrays, never weak.

    Python numbers become float32, int32 or bool; then the tree can be a scan carry.
    """

    def strong(x: Any) -> jax.Array:
        x = jnp.asarray(x)
        return jnp.asarray(x, x.dtype)

    return jax.tree.map(strong, tree)


def cast_like(new: Any, old: Any) -> Any:
    """`new` with the dtypes of `old`: what a third-party step returns, as the carry it was."""
    return jax.tree.map(lambda a, b: jnp.asarray(a, b.dtype), new, old)
