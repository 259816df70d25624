"""Observations as a network of vectors reads them: categories one-hot, reals and bits as they are."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from envs.types import Component

BIT = 2  # cardinality up to which a category is its own feature


def num_features(spec: Sequence[Component]) -> int:
    """Size F of what `features` makes of an observation."""
    return sum(c.cardinality if c.cardinality > BIT else 1 for c in spec)


def features(spec: Sequence[Component], obs: jax.Array) -> jax.Array:
    """Features `[..., F]` of observations `[..., n]`: what stays first, then categories by cardinality.

    Raises ValueError as `require_vectors` does.
    """
    require_vectors(len(spec), obs)
    return one_hot([c.cardinality for c in spec], obs)


def one_hot(sizes: Sequence[int], x: jax.Array) -> jax.Array:
    """`features` of scalars `x [..., n]` of components of these cardinalities, 0 of a real."""
    wide = sorted({size for size in sizes if size > BIT})
    if not wide:
        return x
    plain = [i for i, size in enumerate(sizes) if size <= BIT]
    parts = [x[..., jnp.array(plain)]] if plain else []
    for size in wide:
        columns = [i for i, other in enumerate(sizes) if other == size]
        hot = jax.nn.one_hot(x[..., jnp.array(columns)].astype(jnp.int32), size)
        parts.append(hot.reshape(*x.shape[:-1], -1))
    return jnp.concatenate(parts, axis=-1)


def require_vectors(obs_size: int, obs: Any, whose: str = "observations") -> None:
    """Raise ValueError unless `obs`, arrays or their shapes and dtypes, are floats `[..., obs_size]`."""
    shape, dtype = getattr(obs, "shape", ()), getattr(obs, "dtype", None)
    if dtype is not None and jnp.issubdtype(dtype, jnp.floating) and shape[-1:] == (obs_size,):
        return
    got = f"a {type(obs).__name__}" if dtype is None else f"{jnp.dtype(dtype)} {shape}"
    raise ValueError(
        f"{whose}: got {got}, expected float32 [..., {obs_size}]; flatten them "
        "(`envs.wrappers.flat_observations`), or take an agent that reads boards or frames."
    )
