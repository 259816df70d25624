"""Running moments of observations (Welford in parallel form; Chan et al. 1983)."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.types import Component
from jaxagent.finite import first_not_finite
from jaxagent.types import Masked

EPSILON = 1e-8


class Moments(NamedTuple):
    """Count, mean and variance per component; count 0 leaves inputs as they are."""

    count: jax.Array  # float32 []
    mean: jax.Array  # [...]
    variance: jax.Array  # [...]


def init(shape: tuple[int, ...]) -> Moments:
    """Moments of no observations yet, of one's `shape`."""
    return Moments(jnp.zeros(()), jnp.zeros(shape), jnp.ones(shape))


def batch_moments(x: jax.Array, average: Callable, num_axes: int = 2) -> tuple[jax.Array, jax.Array]:
    """Mean and variance `[...]` of `x [s, T, b, ...]` over shards and `num_axes` axes: time and lanes.

    `average` means over all shards, wherever they are. Two passes: the mean square minus the
    squared mean would cancel in float32.
    """
    axes = tuple(range(1, num_axes + 1))
    mean = average(jnp.mean(x, axes))
    centred = x - mean[(None,) * (num_axes + 1)]
    return mean, average(jnp.mean(jnp.square(centred), axes))


def moments_of(obs: Any) -> Moments:
    """Moments of stored observations `[N, ...]`, of the array's own kind: numpy's or JAX's.

    Raises ValueError where numpy's are not finite: the moments would standardise everything to NaN.
    """
    first = first_not_finite(obs) if isinstance(obs, np.ndarray) else None
    if first is not None:
        raise ValueError(f"moments: got {obs[tuple(first)]} at {first}, expected finite observations.")
    return Moments(np.float32(len(obs)), obs.mean(0), obs.var(0))


def update(moments: Moments, mean: jax.Array, variance: jax.Array, count: Any) -> Moments:
    """Merge a batch of `count` items, given its mean and variance `[...]`, into the moments."""
    total = moments.count + count
    delta = mean - moments.mean
    share = count / total
    merged = moments.variance * (1.0 - share) + variance * share + jnp.square(delta) * share * (1.0 - share)
    return Moments(total, moments.mean + delta * share, merged)


def apply(moments: Moments, x: jax.Array, clip: float = 10.0) -> jax.Array:
    """Standardise `x [..., C]` by moments `[C]` and clip it at `clip` deviations."""
    lead = (None,) * (x.ndim - moments.mean.ndim)
    mean, variance = moments.mean[lead], moments.variance[lead]
    return jnp.clip((x - mean) / jnp.sqrt(variance + EPSILON), -clip, clip)


def of_spec(spec: Sequence[Component]) -> Callable:
    """A function as `apply`, for observations `[..., *shape]` of `spec`, that leaves categories alone.

    Of what is `types.Masked` it standardises the observation.
    """
    is_real = np.array([c.kind == "real" for c in spec])

    def standardise(moments: Moments, seen: Any) -> Any:
        if isinstance(seen, Masked):
            return seen._replace(obs=standardise(moments, seen.obs))
        if is_real.all():
            return apply(moments, seen)
        shape = moments.mean.shape
        mask = jnp.asarray(is_real.reshape(shape))[(None,) * (seen.ndim - len(shape))]
        return jnp.where(mask, apply(moments, seen), seen)

    return standardise
