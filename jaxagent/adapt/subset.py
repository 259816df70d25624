"""Subsets: which of a model's own parameters an adaptation may move, as masks of zeros and ones."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxagent.adapt.paths import name_of


def nothing(params: Any) -> Any:
    """The mask of a probe, 0 `[]` a parameter: the model stays, only what is put on top of it learns."""
    return jax.tree.map(lambda x: jnp.zeros(()), params)


def everything(params: Any) -> Any:
    """The mask of full fine-tuning, 1 `[]` a parameter."""
    return jax.tree.map(lambda x: jnp.ones(()), params)


def last_layer(params: Any) -> Any:
    """The mask, 1 `[]` a parameter, of the last block of the trunk and the norm behind it; else 0.

    Raises ValueError for a model without blocks.
    """
    names = [name_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    numbers = [int(m.group(1)) for n in names if (m := re.search(r"(?:^|/)block_(\d+)/", n))]
    if not numbers:
        raise ValueError(f"last layer: got parameters {names[:3]}, expected some of block_0 on.")
    last, norm = f"block_{max(numbers)}/", "trunk/norm/"

    def mask(path: Any, leaf: jax.Array) -> jax.Array:
        del leaf
        name = name_of(path) + "/"
        return jnp.ones(()) if last in name or norm in name else jnp.zeros(())

    return jax.tree_util.tree_map_with_path(mask, params)


SUBSETS: dict[str, Callable[[Any], Any]] = {"probe": nothing, "last_layer": last_layer, "full": everything}


def moving(params: Any, mask: Any) -> Any:
    """`params` whose gradient is stopped where `mask`, a tree alike of scalars `[]`, is 0."""

    def one(leaf: jax.Array, share: jax.Array) -> jax.Array:
        fixed = jax.lax.stop_gradient(leaf)
        return fixed + share * (leaf - fixed)

    return jax.tree.map(one, params, mask)


def count(params: Any, mask: Any) -> int:
    """Number of scalars in `params` that move, those of leaves where `mask` is above 0."""
    sizes = jax.tree.map(lambda x, share: x.size * int(share > 0), params, jax.device_get(mask))
    return sum(jax.tree.leaves(sizes))
