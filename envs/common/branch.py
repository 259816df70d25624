"""Branches: one that stays a branch under `vmap`, one that ends a fusion."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def when(predicate: jax.Array, update: Callable, value: Any, *args: Any) -> Any:
    """`update(value, *args)` where `predicate` (bool `[]`) holds, else `value`.

    Under `vmap` a `lax.cond` becomes a select and pays for both sides in every step. This one runs
    the batched update when any example wants it, keeps the others' values, and so equals a loop.
    `update` closes over no traced value.
    """

    @jax.custom_batching.custom_vmap
    def branch(predicate, value, args):
        return jax.lax.cond(predicate, lambda v, a: update(v, *a), lambda v, _: v, value, args)

    @branch.def_vmap
    def _(axis_size, in_batched, predicate, value, args):
        predicate, value, args = jax.tree.map(
            lambda x, is_batched: x if is_batched else jnp.broadcast_to(x, (axis_size, *x.shape)),
            (predicate, value, args),
            tuple(in_batched),
        )

        def update_wanted(value, predicate, args):
            new = jax.vmap(lambda v, a: update(v, *a))(value, args)
            return select(predicate, new, value)

        out = when(jnp.any(predicate), update_wanted, value, predicate, args)
        return out, jax.tree.map(lambda _: True, out)

    return branch(predicate, value, args)


def computed_once(tree: Any, is_any: jax.Array) -> Any:
    """`tree`, of which XLA:CPU makes only one copy; `is_any [...]` holds somewhere, unknown to XLA.

    XLA:CPU has no fusion of several outputs: it would compute a whole step anew for every field
    that a reset selects and for every cell of a board that shows it (Breakout: 20 times slower,
    Seaquest: 20 times the operations). A branch, here one that changes nothing, ends a fusion;
    `optimization_barrier` does not. Elsewhere nothing is done: on a GPU a branch waits for the
    host.
    """

    def branch(is_any, tree):
        keep = jnp.any(is_any)
        return jax.lax.cond(keep, lambda x: x, lambda x: jax.tree.map(jnp.zeros_like, x), tree)

    return jax.lax.platform_dependent(is_any, tree, cpu=branch, default=lambda _, x: x)


def select(mask: jax.Array, new: Any, old: Any) -> Any:
    """Per example `new` where `mask` `[B]` holds, else `old`; leaves `[B, ...]`."""

    def pick(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.where(mask.reshape(mask.shape + (1,) * (a.ndim - mask.ndim)), a, b)

    return jax.tree.map(pick, new, old)
