"""Bins against float64 closed forms: half a bin of error in the warped space, end bins outside."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jaxagent.tokens import scalar

FEW = settings(max_examples=25, deadline=None, derandomize=True)
RULES = ("uniform", "mu_law", "quantile")
encode, decode = jax.jit(scalar.encode), jax.jit(scalar.decode)
MU = 100.0


def fit(rule, values, num_bins, max_deviation=10.0):
    if rule == "uniform":
        return scalar.fit_uniform(values, num_bins, max_deviation)
    if rule == "mu_law":
        return scalar.fit_mu_law(values, num_bins, max_deviation, MU)
    return scalar.fit_quantile(values, num_bins)


def oracle(rule, column, max_deviation, u):
    """The value at `u` in [-1, 1] of the warped space, one column, float64."""
    column = np.asarray(column, np.float64)
    if rule == "quantile":
        points = np.linspace(-1.0, 1.0, len(column))
        return np.interp(u, points, np.sort(column)) if len(column) > 1 else column[0] + 0.0 * u
    middle = column.mean()
    reach = min(max(column.max() - middle, middle - column.min()), max_deviation * column.std())
    reach = max(reach, scalar.MIN_SPREAD)
    z = u if rule == "uniform" else np.sign(u) * ((1.0 + MU) ** np.abs(u) - 1.0) / MU
    return middle + reach * z


def rounding(*values):
    """A few units in the last place of float32 at the largest magnitude."""
    largest = max(np.max(np.abs(v)) for v in values)
    return 4.0 * np.spacing(np.float32(max(largest, 1e-30))) + 1e-12


def value_arrays():
    ordinary = st.floats(-1e3, 1e3, width=32)
    special = st.sampled_from([0.0, 1.0, -1.0, 1e6, -1e6])  # ties, constant columns and outliers
    shapes = st.sampled_from([(1, 2), (2, 2), (7, 2)])
    return shapes.flatmap(lambda s: arrays(np.float32, s, elements=ordinary | special))


@pytest.mark.parametrize("rule", RULES)
@FEW
@given(value_arrays(), st.sampled_from([2, 5, 16]), st.sampled_from([0.5, 2.0, 10.0]))
def test_a_round_trip_errs_by_at_most_half_a_bin(rule, values, num_bins, max_deviation):
    bins = fit(rule, values, num_bins, max_deviation)
    num_components = values.shape[1]
    columns = [lambda u, c=c: oracle(rule, values[:, c], max_deviation, u) for c in range(num_components)]
    # Points of the fitted range, between the edges and on them.
    inside = np.stack([f(np.linspace(-1.0, 1.0, 41)) for f in columns], axis=1).astype(np.float32)
    token = np.asarray(encode(bins, jnp.asarray(inside)))
    decoded = np.asarray(decode(bins, jnp.asarray(token)))

    assert token.dtype == np.int32
    assert decoded.dtype == np.float32
    assert token.min() >= 0
    assert token.max() < num_bins
    for c, value_at in enumerate(columns):
        tolerance = rounding(inside[:, c], value_at(np.array([-1.0, 1.0])))
        low = value_at(2.0 * token[:, c] / num_bins - 1.0)
        middle = value_at((2.0 * token[:, c] + 1.0) / num_bins - 1.0)
        high = value_at((2.0 * token[:, c] + 2.0) / num_bins - 1.0)
        assert (low - tolerance <= inside[:, c]).all()
        assert (inside[:, c] <= high + tolerance).all()
        np.testing.assert_allclose(decoded[:, c], middle, rtol=0, atol=tolerance)


@pytest.mark.parametrize("rule", RULES)
@FEW
@given(value_arrays(), st.sampled_from([2, 5, 16]))
def test_edges_and_centres_interleave_and_outliers_go_to_the_end_bins(rule, values, num_bins):
    bins = fit(rule, values, num_bins, 2.0)
    edges, centres = np.asarray(bins.edges), np.asarray(bins.centres)
    assert edges.shape == (values.shape[1], num_bins + 1)
    assert centres.shape == (values.shape[1], num_bins)
    assert (edges[:, :-1] <= centres).all()
    assert (centres <= edges[:, 1:]).all()
    far = jnp.full((values.shape[1],), 1e30)
    assert (np.asarray(encode(bins, -far)) == 0).all()
    assert (np.asarray(encode(bins, far)) == num_bins - 1).all()


@pytest.mark.parametrize("rule", RULES)
def test_the_error_in_the_warped_space_reaches_half_a_bin_and_no_more(rule):
    values = np.random.default_rng(0).normal(3.0, 2.0, (500, 1)).astype(np.float32)
    num_bins = 8
    bins = fit(rule, values, num_bins)
    fine = np.linspace(-1.0, 1.0, 20_001)
    inside = oracle(rule, values[:, 0], 10.0, fine)[:, None].astype(np.float32)
    token = encode(bins, jnp.asarray(inside))
    error = np.abs(np.asarray(scalar.unit_centres(num_bins)[token[:, 0]]) - fine)
    assert error.max() <= 1.0 / num_bins + 1e-4
    assert error.max() >= 1.0 / num_bins - 1e-3


def test_uniform_by_hand():
    bins = scalar.uniform(np.array([0.0, -1.0]), np.array([4.0, 1.0]), 4)
    np.testing.assert_array_equal(bins.edges, [[0, 1, 2, 3, 4], [-1, -0.5, 0, 0.5, 1]])
    np.testing.assert_array_equal(bins.centres, [[0.5, 1.5, 2.5, 3.5], [-0.75, -0.25, 0.25, 0.75]])
    x = jnp.array([-9.0, 0.0, 0.99, 1.0, 2.5, 3.99, 4.0, 9.0], jnp.float32)
    token = encode(bins, jnp.stack([x, x], axis=1))
    np.testing.assert_array_equal(token[:, 0], [0, 0, 0, 1, 2, 3, 3, 3])
    np.testing.assert_array_equal(token[:, 1], [0, 2, 3, 3, 3, 3, 3, 3])


def test_mu_law_by_hand():
    # With mu = 255, u = 1/4, 1/2, 3/4 expand to (256^u - 1) / 255 = 3/255, 15/255, 63/255.
    bins = scalar.fit_mu_law(np.array([[1.0], [-1.0]]), 4, 10.0, 255.0)
    edges = np.array([[-255.0, -15.0, 0.0, 15.0, 255.0]]) / 255.0
    centres = np.array([[-63.0, -3.0, 3.0, 63.0]]) / 255.0
    np.testing.assert_allclose(bins.edges, edges, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(bins.centres, centres, rtol=1e-6)


def test_quantile_bins_hold_equal_mass_and_survive_ties():
    values = np.random.default_rng(1).lognormal(size=(1000, 1))
    bins = scalar.fit_quantile(values, 10)
    token = np.asarray(encode(bins, jnp.asarray(values, jnp.float32)))
    np.testing.assert_allclose(np.bincount(token[:, 0], minlength=10), 100, atol=1)
    ties = scalar.fit_quantile(np.array([[5.0]] * 9 + [[6.0]]), 4)
    np.testing.assert_array_equal(ties.edges[0, :4], 5.0)
    assert (np.diff(np.asarray(ties.edges)) >= 0).all()


def test_the_range_covers_the_data_up_to_the_allowed_deviations():
    values = np.array([[-1.0], [1.0]] * 50 + [[1000.0]])
    wide, narrow = (scalar.fit_uniform(values, 4, d).edges[0] for d in (1e9, 2.0))
    assert wide[-1] >= 1000.0
    half_width = (narrow[-1] - narrow[0]) / 2
    np.testing.assert_allclose(half_width, 2.0 * values.std(), rtol=1e-5)
    np.testing.assert_allclose((narrow[-1] + narrow[0]) / 2, values.mean(), rtol=1e-4)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_fits_no_bins(rule, bad):
    """One such value put all others into one bin, and the loss stayed finite."""
    values = np.ones((5, 2))
    values[3, 1] = bad
    with pytest.raises(ValueError, match=rf"got {bad} at \[3, 1\], one of 1, expected finite"):
        fit(rule, values, 4)
    with pytest.raises(ValueError, match="got no values"):
        fit(rule, values[:0], 4)


@pytest.mark.parametrize("rule", RULES)
def test_what_is_not_finite_has_the_same_bin_either_way(rule):
    bins = fit(rule, np.random.default_rng(0).normal(size=(50, 1)), 8)
    x = jnp.array([[np.nan], [np.inf], [-np.inf]], jnp.float32)
    np.testing.assert_array_equal(encode(bins, x)[:, 0], [7, 7, 0])
    unit = to_unit(bins, x)
    np.testing.assert_array_equal(scalar.bin_of(unit, 8)[:, 0], [7, 7, 0])
    lower, weight = scalar.two_hot(unit, 8)
    np.testing.assert_array_equal(np.asarray(lower + weight.round().astype(int))[:, 0], [7, 7, 0])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("value", [0.0, 1.0, -273.15, 1e6])
def test_a_constant_column_comes_back(rule, value):
    bins = fit(rule, np.full((5, 1), value, np.float32), 16)
    x = jnp.full((1,), value, jnp.float32)
    decoded = decode(bins, encode(bins, x))
    np.testing.assert_allclose(decoded, x, rtol=2e-7, atol=scalar.MIN_SPREAD)


@pytest.mark.parametrize("rule", RULES)
def test_columns_do_not_mix(rule):
    """Fitting and encoding columns together or one by one is the same."""
    values = np.random.default_rng(2).normal([0.0, 50.0, -3.0], [1.0, 9.0, 0.1], (40, 3))
    together = fit(rule, values, 6)
    x = jnp.asarray(values, jnp.float32)
    token = encode(together, x)
    decoded = decode(together, token)
    for c in range(3):
        alone = fit(rule, values[:, c : c + 1], 6)
        np.testing.assert_array_equal(together.edges[c], alone.edges[0])
        np.testing.assert_array_equal(token[:, c], encode(alone, x[:, c : c + 1])[:, 0])
        np.testing.assert_array_equal(decoded[:, c], together.centres[c][token[:, c]])


@pytest.mark.slow
def test_any_leading_axes_and_jit_give_the_same_tokens():
    values = np.random.default_rng(3).normal(size=(24, 2)).astype(np.float32)
    bins = scalar.fit_uniform(values, 8, 10.0)
    flat = scalar.encode(bins, jnp.asarray(values))
    shaped = scalar.encode(bins, jnp.asarray(values).reshape(2, 3, 4, 2))
    np.testing.assert_array_equal(shaped.reshape(24, 2), flat)
    np.testing.assert_array_equal(jax.jit(scalar.encode)(bins, jnp.asarray(values)), flat)
    np.testing.assert_array_equal(scalar.encode(bins, jnp.asarray(values[0])), flat[0])
    np.testing.assert_array_equal(scalar.decode(bins, shaped).reshape(24, 2), scalar.decode(bins, flat))


@pytest.mark.parametrize("rule", RULES)
def test_every_bin_is_reached_from_its_own_centre(rule):
    values = np.random.default_rng(4).normal(size=(300, 2))
    bins = fit(rule, values, 32)
    token = scalar.encode(bins, bins.centres.T)
    np.testing.assert_array_equal(token, np.arange(32)[:, None].repeat(2, 1))


def test_unit_centres_by_hand():
    np.testing.assert_allclose(scalar.unit_centres(4), [-0.75, -0.25, 0.25, 0.75])


# --- places in the warped space -------------------------------------------------------------------

to_unit, from_unit = jax.jit(scalar.to_unit), jax.jit(scalar.from_unit)


@pytest.mark.parametrize("rule", RULES)
@FEW
@given(value_arrays(), st.sampled_from([2, 5, 16]))
def test_a_place_lies_in_the_bin_of_its_value(rule, values, num_bins):
    bins = fit(rule, values, num_bins, 2.0)
    far = jnp.full((1, values.shape[1]), 1e30)
    x = jnp.concatenate([jnp.asarray(values), bins.edges.T, bins.centres.T, far, -far])
    unit = to_unit(bins, x)
    assert (np.abs(unit) <= 1.0).all()
    np.testing.assert_array_equal(scalar.bin_of(unit, num_bins), encode(bins, x))
    # Back inside the fitted range, up to the rounding of a place.
    low, high = np.asarray(bins.edges)[:, 0], np.asarray(bins.edges)[:, -1]
    widest = np.diff(np.asarray(bins.edges), axis=1).max(1)
    tolerance = 2e-5 * widest + 4 * np.spacing(np.maximum(np.abs(low), np.abs(high)))
    gap = np.abs(np.asarray(from_unit(bins, unit)) - np.clip(np.asarray(x), low, high))
    assert (gap <= tolerance).all()


@pytest.mark.fast("5", "1024")
@pytest.mark.parametrize("num_bins", [5, 100, 1024, 4096])
def test_no_edge_is_rounded_into_the_neighbour(num_bins):
    """A value on an edge and the one just below it, of any number of bins."""
    bins = scalar.uniform(np.array([-1.0, 0.0]), np.array([1.0, 30.0]), num_bins)
    below = np.nextafter(bins.edges, np.float32(-9.0))
    x = jnp.asarray(np.concatenate([bins.edges, below], axis=1).T)
    unit = to_unit(bins, x)
    np.testing.assert_array_equal(scalar.bin_of(unit, num_bins), encode(bins, x))
    half_bin = 1.0 / num_bins
    assert np.abs(scalar.unit_centres(num_bins)[encode(bins, x)] - unit).max() <= half_bin + 1e-6


def test_places_of_uniform_bins_by_hand():
    bins = scalar.uniform(np.array([0.0]), np.array([4.0]), 4)
    x = jnp.array([[-9.0], [0.5], [1.5], [2.0], [3.75], [9.0]])
    unit = np.array([[-1.0], [-0.75], [-0.25], [0.0], [0.875], [1.0]])
    np.testing.assert_allclose(to_unit(bins, x), unit, atol=1e-5)
    np.testing.assert_array_equal(scalar.bin_of(jnp.asarray(unit, jnp.float32), 4)[:, 0], [0, 0, 1, 2, 3, 3])
    back = from_unit(bins, jnp.array([[-1.0], [-0.75], [0.0], [0.875], [1.0], [7.0]]))
    np.testing.assert_allclose(back, [[0.0], [0.5], [2.0], [3.75], [4.0], [4.0]], atol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_places_grow_with_their_values(rule):
    values = np.random.default_rng(5).normal(size=(300, 1))
    bins = fit(rule, values, 16)
    x = jnp.linspace(-4.0, 4.0, 2001)[:, None]
    unit = np.asarray(to_unit(bins, x))
    assert (np.diff(unit[:, 0]) >= 0).all()
    assert unit.min() == pytest.approx(-1.0, abs=1e-4)
    assert unit.max() == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("num_bins", [2, 7, 64, 1024])
def test_two_hot_has_the_exact_mean_of_a_place(num_bins):
    """Between the outer centres; beyond them there is one neighbour."""
    unit = np.linspace(-1.0, 1.0, 4001).astype(np.float32)
    lower, weight = (np.asarray(x) for x in scalar.two_hot(jnp.asarray(unit), num_bins))
    assert lower.dtype == np.int32
    assert lower.min() >= 0
    assert lower.max() <= num_bins - 2
    assert (weight >= 0).all()
    assert (weight <= 1).all()
    centres = (2.0 * np.arange(num_bins) + 1.0) / num_bins - 1.0
    mean = (1.0 - weight) * centres[lower] + weight * centres[lower + 1]
    np.testing.assert_allclose(mean, np.clip(unit, centres[0], centres[-1]), atol=5e-7)
    # On a centre all weight is its bin's.
    place = sum(np.asarray(x) for x in scalar.two_hot(jnp.asarray(centres, jnp.float32), num_bins))
    np.testing.assert_allclose(place, np.arange(num_bins), atol=1e-3)
