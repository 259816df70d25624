"""Objectives between latent vectors: arrays in, losses out."""

import jax
import jax.numpy as jnp

EPSILON = 1e-6


def squared_distance(predicted: jax.Array, target: jax.Array) -> jax.Array:
    """Mean squared difference `[...]` of vectors `[..., D]`."""
    return jnp.mean(jnp.square(predicted - target), axis=-1)


def cosine_distance(predicted: jax.Array, target: jax.Array) -> jax.Array:
    """`1 - cos` `[...]` of vectors `[..., D]`, in [0, 2] (SPR, Schwarzer et al. 2021, eq. 6, plus one)."""
    return 1.0 - jnp.sum(_direction(predicted) * _direction(target), axis=-1)


def _direction(x: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + EPSILON)
