"""Observations as a network of vectors reads them: categories one-hot, reals and bits as they are."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from envs.types import Component

BIT = 2  # cardinality up to which a category is its own feature


def num_features(spec: Sequence[Component]) -> int:
    """Size F of what `features` makes of an observation."""
    return sum(c.cardinality if c.cardinality > BIT else 1 for c in spec)


def features(spec: Sequence[Component], obs: jax.Array) -> jax.Array:
    """Features `[..., F]` of observations `[..., n]`: what stays first, then categories by cardinality.

    Raises ValueError for observations that are no vectors of the components of `spec`.
    """
    if not jnp.issubdtype(obs.dtype, jnp.floating) or obs.ndim < 1 or obs.shape[-1] != len(spec):
        raise ValueError(
            f"observations: got {obs.dtype} {obs.shape}, expected float32 [..., {len(spec)}]; flatten "
            "them in a wrapper, or take an agent that reads boards or frames."
        )
    sizes = sorted({c.cardinality for c in spec if c.cardinality > BIT})
    if not sizes:
        return obs
    places = {size: [i for i, c in enumerate(spec) if c.cardinality == size] for size in sizes}
    parts = [obs[..., jnp.array(plain)]] if (plain := _plain(spec)) else []
    for size, columns in places.items():
        one_hot = jax.nn.one_hot(obs[..., jnp.array(columns)].astype(jnp.int32), size)
        parts.append(one_hot.reshape(*obs.shape[:-1], -1))
    return jnp.concatenate(parts, axis=-1)


def _plain(spec: Sequence[Component]) -> list[int]:
    return [i for i, c in enumerate(spec) if c.cardinality <= BIT]
