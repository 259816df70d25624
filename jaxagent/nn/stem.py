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
    sizes = sorted({c.cardinality for c in spec if c.cardinality > BIT})
    if not sizes:
        return obs
    places = {size: [i for i, c in enumerate(spec) if c.cardinality == size] for size in sizes}
    parts = [obs[..., jnp.array(plain)]] if (plain := _plain(spec)) else []
    for size, columns in places.items():
        one_hot = jax.nn.one_hot(obs[..., jnp.array(columns)].astype(jnp.int32), size)
        parts.append(one_hot.reshape(*obs.shape[:-1], -1))
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


def _plain(spec: Sequence[Component]) -> list[int]:
    return [i for i, c in enumerate(spec) if c.cardinality <= BIT]
