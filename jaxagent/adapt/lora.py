"""Low-rank adapters as a second pytree (LoRA, Hu et al. 2022, eq. 3)."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxagent.adapt import paths

EVERYWHERE = ("query", "key", "value", "output", "up", "down")  # the products of a transformer's block


def init(
    key: jax.Array, params: Any, rank: int, targets: Sequence[str] = EVERYWHERE
) -> dict[str, dict[str, jax.Array]]:
    """Adapters, by a kernel's name, of every kernel whose module name is in `targets`.

    A kernel is read as a matrix `[inputs, outputs]`; `down [inputs, rank]` is random and
    `up [rank, outputs]` zero, so adaptation starts at the base model. Raises ValueError where a
    target matches nothing.
    """
    kernels = paths.kernels(params, targets)
    shapes = {name: _matrix_shape(name, kernel) for name, kernel in kernels.items()}
    # One draw for all: every generator in a program costs a quarter of a second of compilation.
    ends = np.cumsum([rows * rank for rows, _ in shapes.values()])
    draws = jnp.split(jax.random.normal(key, (ends[-1],)), ends[:-1])
    return {
        name: {"down": draw.reshape(rows, rank) / math.sqrt(rows), "up": jnp.zeros((rank, columns))}
        for draw, (name, (rows, columns)) in zip(draws, shapes.items(), strict=True)
    }


def merge(params: Any, adapters: dict[str, Any], scale: float = 1.0) -> Any:
    """Base parameters plus `scale * down @ up`; differentiable in the adapters, base untouched.

    The tree and shapes are those of `params`. Raises ValueError for an adapter that fits no parameter.
    """
    known = {paths.name_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)}
    if strangers := sorted(set(adapters) - known):
        raise ValueError(f"adapters: got {strangers[:3]}, expected names among the parameters'.")

    def merged(path: Any, leaf: jax.Array) -> jax.Array:
        adapter = adapters.get(paths.name_of(path))
        if adapter is None:
            return leaf
        return leaf + (scale * (adapter["down"] @ adapter["up"])).reshape(leaf.shape)

    return jax.tree_util.tree_map_with_path(merged, params)


def _matrix_shape(name: str, kernel: jax.Array) -> tuple[int, int]:
    """Attention's output kernel is `[H, D / H, D]`, inputs `[D, H, D / H]`; else `[in, out]`."""
    if name.split("/")[-2] == "output":
        return kernel.size // kernel.shape[-1], kernel.shape[-1]
    return kernel.shape[0], kernel.size // kernel.shape[0]
