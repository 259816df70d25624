"""What `vmap` makes of a launch over rows."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap


def over_rows(run: Callable[[Any, Any], jax.Array], rows: Any, weights: Any) -> jax.Array:
    """`run(rows, weights)`, of rows `[N, ...]`.

    Where rows alone are mapped it is one launch of more rows, else one a member.
    """
    call = custom_vmap(run)

    @call.def_vmap
    def _(axis_size: int, is_batched: Any, rows: Any, weights: Any) -> tuple:
        if any(jax.tree.leaves(is_batched[1])):
            axes = jax.tree.map(lambda batched: 0 if batched else None, tuple(is_batched))
            return jax.vmap(run, axes, axis_size=axis_size)(rows, weights), True

        def fold(x: jax.Array, batched: bool) -> jax.Array:
            x = x if batched else jnp.broadcast_to(x, (axis_size, *x.shape))
            return x.reshape(-1, *x.shape[2:])

        made = over_rows(run, jax.tree.map(fold, rows, is_batched[0]), weights)
        return made.reshape(axis_size, -1, *made.shape[1:]), True

    return call(rows, weights)
