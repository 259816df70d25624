"""Scalars to bins and back: uniform, quantile and mu-law, all as explicit edges.

Every rule is a monotone warp of the fitted range onto [-1, 1], cut into equal bins there. The
centre of a bin is its middle in the warped space, so a round trip errs by at most half a bin in
that space and inside the fitted range. Values outside go to the end bins; NaN counts as the largest, as
it does in a sort. What bins are fitted to must be finite: one NaN would put all values into one bin.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxagent.finite import first_not_finite

MIN_SPREAD = 1e-6  # a constant component gets a range of this size around its value
ROUNDING = 2.0**-22  # of a place in [-1, 1] in float32, and a bit


class Bins(NamedTuple):
    """Bins of C components, fitted on the host, used on the device."""

    edges: np.ndarray | jax.Array  # [C, V + 1] float32, non-decreasing
    centres: np.ndarray | jax.Array  # [C, V] float32


def uniform(low: np.ndarray, high: np.ndarray, num_bins: int) -> Bins:
    """Equal bins between `low [C]` and `high [C]`."""
    unit = _unit_edges(num_bins)
    return _bins(lambda u: low[:, None] + (u + 1) / 2 * (high - low)[:, None], unit)


def fit_uniform(values: np.ndarray, num_bins: int, max_deviation: float) -> Bins:
    """Equal bins over the range of `values [N, C]`, at most `max_deviation` deviations wide."""
    centre, scale = _centre_and_scale(values, max_deviation)
    return uniform(centre - scale, centre + scale, num_bins)


def fit_mu_law(values: np.ndarray, num_bins: int, max_deviation: float, mu: float) -> Bins:
    """Bins of `values [N, C]`, narrow near the mean (mu-law, ITU-T G.711; Gato, Reed 2022)."""
    centre, scale = _centre_and_scale(values, max_deviation)

    def expand(u: np.ndarray) -> np.ndarray:
        z = np.sign(u) * np.expm1(np.abs(u) * np.log1p(mu)) / mu
        return centre[:, None] + scale[:, None] * z

    return _bins(expand, _unit_edges(num_bins))


def fit_quantile(values: np.ndarray, num_bins: int) -> Bins:
    """Bins of equal mass under `values [N, C]`; ties make bins of zero width, never decreasing."""
    values = finite(values)

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


def to_unit(bins: Bins, x: jax.Array) -> jax.Array:
    """Place of each scalar in the warped space: `x [..., C]` to `[..., C]` in [-1, 1].

    Linear inside a bin, so that `bin_of(to_unit(x))` is `encode(x)`; what lies outside of the
    fitted range goes to its end.
    """

    def one_component(edges: jax.Array, column: jax.Array) -> jax.Array:
        num_bins = edges.shape[0] - 1
        inner = edges[1:-1]
        index = jnp.searchsorted(inner, column, side="right", method="scan_unrolled")
        low, high = edges[index], edges[index + 1]
        share = (column - low) / jnp.where(high > low, high - low, 1.0)
        # On an edge, rounding could give it to the neighbour.
        margin = num_bins * ROUNDING
        share = jnp.clip(share, margin, 1.0 - margin)
        return 2.0 * (index.astype(jnp.float32) + share) / num_bins - 1.0

    return jax.vmap(one_component, in_axes=(0, -1), out_axes=-1)(bins.edges, x)


def from_unit(bins: Bins, unit: jax.Array) -> jax.Array:
    """The inverse of `to_unit`: `unit [..., C]` in [-1, 1] to scalars `[..., C]`."""
    num_bins = bins.edges.shape[1] - 1
    place = (jnp.clip(unit, -1.0, 1.0) + 1.0) / 2.0 * num_bins
    index = jnp.minimum(place.astype(jnp.int32), num_bins - 1)

    def one_component(edges: jax.Array, i: jax.Array, share: jax.Array) -> jax.Array:
        return edges[i] + share * (edges[i + 1] - edges[i])

    return jax.vmap(one_component, in_axes=(0, -1, -1), out_axes=-1)(
        jnp.asarray(bins.edges), index, place - index.astype(jnp.float32)
    )


def bin_of(unit: jax.Array, num_bins: int) -> jax.Array:
    """Bin int32 `[...]` of a place in the warped space `[...]`."""
    place = jnp.nan_to_num((unit + 1.0) / 2.0 * num_bins, nan=num_bins - 1)
    return jnp.clip(place, 0.0, num_bins - 1.0).astype(jnp.int32)


def two_hot(unit: jax.Array, num_bins: int) -> tuple[jax.Array, jax.Array]:
    """The lower of the two nearest bins int32 `[...]` and the weight of the upper `[...]`.

    The mean of the two centres under these weights is `unit`, but for the outer half bins, which
    have one neighbour (Schrittwieser et al. 2020, appendix F).
    """
    place = jnp.nan_to_num((unit + 1.0) / 2.0 * num_bins - 0.5, nan=num_bins - 1)
    place = jnp.clip(place, 0.0, num_bins - 1.0)
    lower = jnp.minimum(place.astype(jnp.int32), num_bins - 2)
    return lower, place - lower.astype(jnp.float32)


def unit_centres(num_bins: int) -> jax.Array:
    """Bin centres in the warped space, `[V]` in (-1, 1): the same for every rule and component."""
    return (2.0 * jnp.arange(num_bins, dtype=jnp.float32) + 1.0) / num_bins - 1.0


def _unit_edges(num_bins: int) -> np.ndarray:
    return np.linspace(-1.0, 1.0, 2 * num_bins + 1)


def _bins(expand, half_edges: np.ndarray) -> Bins:
    """Edges at the even points of `half_edges [2 V + 1]`, centres at the odd ones."""
    points = np.asarray(expand(half_edges), np.float32)
    return Bins(points[:, ::2], points[:, 1::2])


def finite(values: np.ndarray) -> np.ndarray:
    """`values [N, C]` as float64; raises ValueError where one is not finite, or there are none."""
    values = np.asarray(values, np.float64)
    first = first_not_finite(values)
    if first is not None or not len(values):
        count = np.sum(~np.isfinite(values))
        got = f"{values[tuple(first)]} at {first}, one of {count}" if first else "no values"
        raise ValueError(
            f"bins: got {got}, expected finite values [N, components]; leave out the episodes that diverged."
        )
    return values


def _centre_and_scale(values: np.ndarray, max_deviation: float) -> tuple[np.ndarray, np.ndarray]:
    values = finite(values)
    centre, deviation = values.mean(0), values.std(0)
    reach = np.abs(values - centre).max(0)
    return centre, np.maximum(np.minimum(reach, max_deviation * deviation), MIN_SPREAD)
