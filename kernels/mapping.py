"""What launches share: whole tiles, rows under `vmap`, gradients by the reference, references by part."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap


def split(values: Sequence[Any], counts: Sequence[int]) -> list[list]:
    """Parts of so many, and the rest."""
    ends = list(itertools.accumulate(counts, initial=0))
    return [list(values[low:high]) for low, high in zip(ends, [*ends[1:], len(values)], strict=True)]


def filled(x: jax.Array, size: int, axis: int = 0, value: float = 0.0) -> jax.Array:
    """`x` with an axis filled up to whole tiles of a size."""
    more = -x.shape[axis] % size
    widths = [(0, more if i == axis else 0) for i in range(x.ndim)]
    return jnp.pad(x, widths, constant_values=x.dtype.type(value)) if more else x


def recomputed(
    run: Callable[..., jax.Array], reference: Callable[..., jax.Array]
) -> Callable[..., jax.Array]:
    """`run`, whose gradient is that of its reference, computed anew."""

    @jax.custom_vjp
    def call(*args: Any) -> jax.Array:
        return run(*args)

    call.defvjp(lambda *args: (call(*args), args), lambda args, of: jax.vjp(reference, *args)[1](of))
    return call


def over_rows(run: Callable[[Any, Any], Any], rows: Any, weights: Any) -> Any:
    """`run(rows, weights)`, of rows `[N, ...]` in and out.

    Where rows alone are mapped it is one launch of more rows, else one a member.
    """
    call = custom_vmap(run)

    @call.def_vmap
    def _(axis_size: int, is_batched: Any, rows: Any, weights: Any) -> tuple:
        if any(jax.tree.leaves(is_batched[1])):
            axes = jax.tree.map(lambda batched: 0 if batched else None, tuple(is_batched))
            made = jax.vmap(run, axes, axis_size=axis_size)(rows, weights)
            return made, jax.tree.map(lambda _: True, made)

        def fold(x: jax.Array, batched: bool) -> jax.Array:
            x = x if batched else jnp.broadcast_to(x, (axis_size, *x.shape))
            return x.reshape(-1, *x.shape[2:])

        made = over_rows(run, jax.tree.map(fold, rows, is_batched[0]), weights)
        made = jax.tree.map(lambda x: x.reshape(axis_size, -1, *x.shape[1:]), made)
        return made, jax.tree.map(lambda _: True, made)

    return call(rows, weights)
