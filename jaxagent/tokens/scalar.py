"""Scalars to bins and back: uniform, quantile and mu-law, all as explicit edges.

Every rule is a monotone warp of the fitted range onto [-1, 1], cut into equal bins there. The
centre of a bin is its middle in the warped space, so a round trip errs by at most half a bin in
that space and inside the fitted range. Values outside go to the end bins.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

MIN_SPREAD = 1e-6  # a constant component gets a range of this size around its value


class Bins(NamedTuple):
    """Bins of C components, fitted on the host, used on the device."""

    edges: np.ndarray | jax.Array  # [C, V + 1] float32, non-decreasing
    centres: np.ndarray | jax.Array  # [C, V] float32


def uniform(low: np.ndarray, high: np.ndarray, num_bins: int) -> Bins:
    """Equal bins on `[low, high]`, each `[C]`."""
    unit = _unit_edges(num_bins)
    return _bins(lambda u: low[:, None] + (u + 1) / 2 * (high - low)[:, None], unit)


def fit_uniform(values: np.ndarray, num_bins: int, max_deviation: float) -> Bins:
    """Equal bins over the range of `values [N, C]`, at most `max_deviation` deviations wide."""
    centre, scale = _centre_and_scale(values, max_deviation)
    return uniform(centre - scale, centre + scale, num_bins)


def fit_mu_law(values: np.ndarray, num_bins: int, max_deviation: float, mu: float) -> Bins:
    """Bins that are narrow near the mean (mu-law companding, ITU-T G.711; Gato, Reed 2022)."""
    centre, scale = _centre_and_scale(values, max_deviation)

    def expand(u: np.ndarray) -> np.ndarray:
        z = np.sign(u) * np.expm1(np.abs(u) * np.log1p(mu)) / mu
        return centre[:, None] + scale[:, None] * z

    return _bins(expand, _unit_edges(num_bins))


def fit_quantile(values: np.ndarray, num_bins: int) -> Bins:
    """Bins of equal mass under `values [N, C]`; ties make bins of zero width, never decreasing."""
    values = np.asarray(values, np.float64)

    def expand(u: np.ndarray) -> np.ndarray:
        return np.quantile(values, (u + 1) / 2, axis=0).T

    return _bins(expand, _unit_edges(num_bins))


def encode(bins: Bins, x: jax.Array) -> jax.Array:
    """Bin of each scalar: `x [..., C]` to int32 `[..., C]`."""
    inner = bins.edges[:, 1:-1]

    def one_component(edges: jax.Array, column: jax.Array) -> jax.Array:
        return jnp.searchsorted(edges, column, side="right", method="compare_all")

    index = jax.vmap(one_component, in_axes=(0, -1), out_axes=-1)(inner, x)
    return index.astype(jnp.int32)


def decode(bins: Bins, index: jax.Array) -> jax.Array:
    """Centre of each bin: int32 `[..., C]` to float32 `[..., C]`."""
    return jax.vmap(lambda c, i: c[i], in_axes=(0, -1), out_axes=-1)(bins.centres, index)


def unit_centres(num_bins: int) -> jax.Array:
    """Bin centres in the warped space, `[V]` in (-1, 1): the same for every rule and component."""
    return (2.0 * jnp.arange(num_bins, dtype=jnp.float32) + 1.0) / num_bins - 1.0


def _unit_edges(num_bins: int) -> np.ndarray:
    return np.linspace(-1.0, 1.0, 2 * num_bins + 1)


def _bins(expand, half_edges: np.ndarray) -> Bins:
    """Edges at the even points of `half_edges [2 V + 1]`, centres at the odd ones."""
    points = np.asarray(expand(half_edges), np.float32)
    return Bins(points[:, ::2], points[:, 1::2])


def _centre_and_scale(values: np.ndarray, max_deviation: float) -> tuple[np.ndarray, np.ndarray]:
    values = np.asarray(values, np.float64)
    centre, deviation = values.mean(0), values.std(0)
    reach = np.abs(values - centre).max(0)
    return centre, np.maximum(np.minimum(reach, max_deviation * deviation), MIN_SPREAD)
