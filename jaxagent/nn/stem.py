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
