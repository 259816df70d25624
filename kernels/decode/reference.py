"""The specification of `kernels.decode`: what stands behind the attention of a pre-norm block."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from kernels.mlp.reference import mlp

EPSILON = 1e-6  # of the mean square, as flax has it


class Weights(NamedTuple):
    """Of one block, behind its attention."""

    output: jax.Array  # [D, D]: of heads side by side
    scale: jax.Array  # [D] float32: of the norm
    up: jax.Array  # [D, F]
    down: jax.Array  # [F, D]


def behind(x: jax.Array, mixed: jax.Array, weights: Weights) -> jax.Array:
    """The stream `[N, D]` after a block, from the stream before it and what its heads read, `[N, D]`."""
    x = x + jnp.dot(mixed, weights.output, preferred_element_type=jnp.float32).astype(x.dtype)
    return x + mlp(
        normed(x.astype(jnp.float32), weights.scale[None]).astype(x.dtype), weights.up, weights.down
    )


def normed(x: jax.Array, scale: jax.Array) -> jax.Array:
    """Rows `[N, D]` by their root mean square, float32, times `scale [1, D]`."""
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + EPSILON) * scale
