"""Running moments of observations (Welford in parallel form; Chan et al. 1983)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

EPSILON = 1e-8


class Moments(NamedTuple):
    """Count, mean and variance per component; count 0 leaves inputs as they are."""

    count: jax.Array  # float32 []
    mean: jax.Array  # [...]
    variance: jax.Array  # [...]


def init(shape: tuple[int, ...]) -> Moments:
    """Moments of nothing."""
    return Moments(jnp.zeros(()), jnp.zeros(shape), jnp.ones(shape))


def batch_moments(x: jax.Array, num_axes: int) -> tuple[jax.Array, jax.Array]:
    """Mean and mean square over the first `num_axes` axes; both average over shards and devices."""
    axes = tuple(range(num_axes))
    return jnp.mean(x, axes), jnp.mean(jnp.square(x), axes)


def update(moments: Moments, mean: jax.Array, mean_square: jax.Array, count: Any) -> Moments:
    """Merge a batch of `count` items, given its mean and mean square, into the moments."""
    variance = jnp.maximum(mean_square - jnp.square(mean), 0.0)
    total = moments.count + count
    delta = mean - moments.mean
    share = count / total
    merged = (
        moments.variance * (1.0 - share)
        + variance * share
        + jnp.square(delta) * share * (1.0 - share)
    )
    return Moments(total, moments.mean + delta * share, merged)


def apply(moments: Moments, x: jax.Array, clip: float = 10.0) -> jax.Array:
    """Standardise `x [..., C]` and clip it."""
    lead = (None,) * (x.ndim - moments.mean.ndim)
    mean, variance = moments.mean[lead], moments.variance[lead]
    return jnp.clip((x - mean) / jnp.sqrt(variance + EPSILON), -clip, clip)
