"""The statistics against scipy, hand-computed cases and their own symmetries."""

import itertools

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jaxagent.evaluate import statistics

FEW = settings(max_examples=30, deadline=None, derandomize=True)


def score_arrays(min_runs=1):
    shapes = st.tuples(st.integers(1, 4), st.integers(min_runs, 9))
    return arrays(np.float64, shapes, elements=st.floats(-10, 10, width=32))


# Interquartile mean and normalisation.


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (1, 5), (2, 5), (3, 7), (4, 4), (5, 11)])
def test_iqm_equals_trimmed_mean_of_scipy(shape):
    scores = np.random.default_rng(0).standard_normal(shape)
    oracle = scipy.stats.trim_mean(scores, 0.25, axis=None)
    np.testing.assert_allclose(statistics.pooled_iqm(scores), oracle, rtol=1e-12)
    by_stratum = scipy.stats.trim_mean(scores, 0.25, axis=1).mean()
    np.testing.assert_allclose(statistics.iqm(scores), by_stratum, rtol=1e-12)


def test_iqm_by_hand_ignores_outliers_and_batches():
    scores = np.array([[100.0, 1.0, 2.0, -100.0], [3.0, 4.0, -9.0, 99.0]])
    assert statistics.iqm(scores) == statistics.pooled_iqm(scores) == (1 + 2 + 3 + 4) / 4
    batch = np.stack([scores, scores + 1])
    np.testing.assert_allclose(statistics.iqm(batch), [2.5, 3.5])


@FEW
@given(score_arrays(), st.floats(-5, 5), st.randoms(use_true_random=False))
def test_iqm_is_shift_equivariant_and_ignores_order(scores, shift, random):
    order = list(range(scores.shape[1]))
    random.shuffle(order)
    expected = statistics.iqm(scores) + shift
    np.testing.assert_allclose(statistics.iqm(scores[:, order] + shift), expected, atol=1e-9)
    assert scores.min() - 1e-9 <= statistics.iqm(scores) <= scores.max() + 1e-9


def test_normalise_maps_random_to_zero_and_expert_to_one():
    returns = np.array([[10.0, 20.0, 30.0], [-1.0, 0.0, 1.0]])
    scores = statistics.normalise(returns, random=[10.0, -1.0], expert=[30.0, 1.0])
    np.testing.assert_allclose(scores, [[0.0, 0.5, 1.0], [0.0, 0.5, 1.0]])
    np.testing.assert_allclose(statistics.normalise(returns, 0.0, 10.0), returns / 10.0)
    square = np.array([[0.0, 2.0], [0.0, 8.0]])  # references go along strata, not along runs
    np.testing.assert_allclose(statistics.normalise(square, 0.0, [2.0, 8.0]), [[0, 1], [0, 1]])


@pytest.mark.parametrize(("random", "expert"), [(1.0, 1.0), (0.0, np.nan), ([0, 0, 0], 1.0)])
def test_normalise_refuses_unusable_references(random, expert):
    with pytest.raises(ValueError, match=r"got .*expected .*fix"):
        statistics.normalise(np.zeros((2, 4)), random, expert)


# Bootstraps.


def test_interval_of_iqm_is_close_to_the_bootstrap_of_scipy():
    scores = np.random.default_rng(1).normal(2.0, 1.0, size=(1, 40))
    oracle = scipy.stats.bootstrap(
        (scores[0],),
        lambda x, axis: scipy.stats.trim_mean(x, 0.25, axis=axis),
        method="percentile",
        n_resamples=4000,
        rng=np.random.default_rng(2),
    ).confidence_interval
    ours = statistics.interval_of_iqm(scores, num_samples=4000)
    np.testing.assert_allclose(ours, [oracle.low, oracle.high], atol=0.04)


def test_interval_of_iqm_covers_the_truth_about_as_often_as_it_says():
    generator = np.random.default_rng(3)
    covered = 0
    for k in range(200):
        scores = generator.normal(size=(2, 12))
        lower, upper = statistics.interval_of_iqm(scores, 0.9, num_samples=300, seed=k)
        covered += lower <= 0.0 <= upper
    assert 0.82 <= covered / 200 <= 0.96


def test_bootstrap_is_reproducible_and_leaves_the_global_generator_alone():
    a, b = np.random.default_rng(4).normal(size=(2, 3, 6))
    state = np.random.get_state()[1].copy()
    first = statistics.paired_bootstrap(a, b, num_samples=50, seed=7)
    np.testing.assert_array_equal(first, statistics.paired_bootstrap(a, b, num_samples=50, seed=7))
    assert (first != statistics.paired_bootstrap(a, b, num_samples=50, seed=8)).any()
    np.testing.assert_array_equal(state, np.random.get_state()[1])


def test_pairs_are_kept_together():
    b = np.random.default_rng(5).normal(0.0, 100.0, size=(3, 6))
    differences = statistics.paired_bootstrap(b + 0.25, b, num_samples=100)
    np.testing.assert_allclose(differences, 0.25, atol=1e-9)


def test_paired_bootstrap_equals_its_loop():
    a, b = np.random.default_rng(6).normal(size=(2, 2, 5))
    indices = statistics.bootstrap_indices(a.shape, 20, seed=1)
    loop = [
        np.mean([scipy.stats.trim_mean(a[s, i[s]], 0.25) for s in range(2)])
        - np.mean([scipy.stats.trim_mean(b[s, i[s]], 0.25) for s in range(2)])
        for i in indices
    ]
    np.testing.assert_allclose(statistics.paired_bootstrap(a, b, num_samples=20, seed=1), loop)


@pytest.mark.parametrize("shape", [(4, 6), (4, 3, 2)])
def test_shared_seeds_draw_whole_columns(shape):
    shared = statistics.bootstrap_indices(shape, 10, seed=0, shared_seeds=True)
    own = statistics.bootstrap_indices(shape, 10, seed=0)
    assert shared.shape == own.shape == (10, 4, 6)
    assert (shared == shared[:, :1]).all()
    assert (own != own[:, :1]).any()


def test_shared_seeds_widen_the_interval_of_strata_that_move_together():
    generator = np.random.default_rng(7)
    scores = np.repeat(generator.normal(size=(1, 16)), 8, axis=0)
    own = np.subtract(*statistics.interval_of_iqm(scores))
    shared = np.subtract(*statistics.interval_of_iqm(scores, shared_seeds=True))
    assert abs(shared) > 1.5 * abs(own)


def test_hierarchical_bootstrap_keeps_downstream_seeds_with_their_pretraining_seed():
    indices = statistics.bootstrap_indices((2, 3, 4), 50, seed=0).reshape(50, 2, 3, 4)
    assert (indices // 4 == (indices // 4)[..., :1]).all()  # each block stays in one model
    assert set(np.unique(indices)) == set(range(12))


def test_hierarchical_bootstrap_is_wider_than_one_that_takes_models_for_independent_runs():
    generator = np.random.default_rng(8)
    a = generator.normal(size=(1, 6, 1)) + 0.1 * generator.normal(size=(1, 6, 8))
    b = np.zeros_like(a)
    nested = statistics.hierarchical_bootstrap(a, b)
    flat = statistics.paired_bootstrap(a.reshape(1, -1), b.reshape(1, -1))
    assert nested.std() > 1.5 * flat.std()


def test_one_downstream_seed_reduces_the_hierarchical_bootstrap_to_the_paired_one():
    a, b = np.random.default_rng(9).normal(size=(2, 2, 5))
    nested = statistics.hierarchical_bootstrap(a[..., None], b[..., None], num_samples=40)
    np.testing.assert_allclose(nested, statistics.paired_bootstrap(a, b, num_samples=40))


@FEW
@given(score_arrays(min_runs=2), st.floats(-5, 5))
def test_bootstrap_difference_is_shift_equivariant_and_antisymmetric(a, shift):
    b = a[:, ::-1] * 0.5
    base = statistics.paired_bootstrap(a, b, num_samples=20)
    shifted = statistics.paired_bootstrap(a + shift, b, num_samples=20)
    np.testing.assert_allclose(shifted, base + shift, atol=1e-9)
    np.testing.assert_allclose(statistics.paired_bootstrap(b, a, num_samples=20), -base, atol=1e-9)


@pytest.mark.parametrize("bad", [np.zeros(4), np.zeros((0, 3)), [[np.nan, 1.0]], [[np.inf, 1.0]]])
def test_unusable_scores_are_refused_with_a_fix(bad):
    with pytest.raises(ValueError, match=r"got .*expected .*fix"):
        statistics.interval_of_iqm(bad)


def test_unpaired_shapes_and_nan_are_refused():
    with pytest.raises(ValueError, match=r"got shapes \(2, 3\) and \(2, 4\).*fix"):
        statistics.paired_bootstrap(np.zeros((2, 3)), np.zeros((2, 4)))
    with pytest.raises(ValueError, match="NaN"):
        statistics.iqm([[np.nan, 1.0]])
    with pytest.raises(ValueError, match="NaN"):
        statistics.probability_of_improvement([[np.nan]], [[1.0]])
    with pytest.raises(ValueError, match="strata"):
        statistics.probability_of_improvement(np.zeros((1, 3)), np.zeros((2, 3)))


# Tests of significance.


@pytest.mark.parametrize(
    ("differences", "p_value"),
    [
        ([1, 2, 3, 4, 5], 1 / 32),
        ([1, 1, 1, 1, 1], 1 / 32),
        ([-1, -2, -3], 1.0),
        ([1, -1], 3 / 4),
        ([0, 0, 0], 1.0),
        ([3, 2, -1], 2 / 8),
    ],
)
def test_sign_flips_by_hand(differences, p_value):
    assert statistics.sign_flip_p_value(differences) == p_value


def test_sign_flips_equal_the_permutation_test_of_scipy():
    differences = np.random.default_rng(10).normal(0.3, 1.0, size=7)
    oracle = scipy.stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", alternative="greater"
    ).pvalue
    assert statistics.sign_flip_p_value(differences) == pytest.approx(oracle)


def test_sampled_sign_flips_continue_the_exact_ones():
    differences = np.random.default_rng(11).normal(0.3, 1.0, size=24)
    z_score = differences.sum() / np.sqrt(np.sum(differences**2))
    oracle = scipy.stats.norm.sf(z_score)
    assert statistics.sign_flip_p_value(differences) == pytest.approx(oracle, abs=0.01)


@FEW
@given(arrays(np.float64, st.integers(1, 7), elements=st.integers(-4, 4).map(float)))
def test_sign_flips_equal_their_enumeration(differences):
    patterns = itertools.product((-1, 1), repeat=differences.size)
    sums = [np.dot(pattern, differences) for pattern in patterns]
    expected = np.mean([total >= differences.sum() for total in sums])
    assert statistics.sign_flip_p_value(differences) == expected


def test_probability_of_improvement_equals_mann_whitney():
    generator = np.random.default_rng(12)
    a, b = generator.integers(0, 5, size=(3, 6)), generator.integers(0, 5, size=(3, 4))
    oracle = np.mean([scipy.stats.mannwhitneyu(x, y).statistic / 24 for x, y in zip(a, b, strict=True)])
    assert statistics.probability_of_improvement(a, b) == pytest.approx(oracle)
    reverse = statistics.probability_of_improvement(b, a)
    assert reverse == pytest.approx(1.0 - oracle)


def test_holm_by_hand_and_in_any_order():
    np.testing.assert_allclose(statistics.holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(statistics.holm([0.03, 0.01, 0.04]), [0.06, 0.03, 0.06])
    np.testing.assert_allclose(statistics.holm([0.9, 0.8]), [1.0, 1.0])
    assert statistics.holm([]).shape == (0,)
    with pytest.raises(ValueError, match="fix"):
        statistics.holm([0.1, np.nan])


@FEW
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_nothing_and_bonferroni_and_keeps_the_order(p_values):
    raw, adjusted = np.array(p_values), statistics.holm(p_values)
    assert (adjusted >= raw).all()
    assert (adjusted <= np.minimum(raw * raw.size, 1.0)).all()
    assert (np.diff(adjusted[np.argsort(raw, kind="stable")]) >= 0).all()
    assert adjusted[raw.argmin()] == min(raw.min() * raw.size, 1.0)


# Slopes.


def test_slope_of_a_power_law_is_its_exponent():
    x = np.array([1.0, 3.0, 10.0, 100.0])
    y = 5.0 * x[:, None] ** -0.7 * np.ones((1, 4))
    np.testing.assert_allclose(statistics.log_log_slope(x, y), [-0.7] * 3)


def test_slope_equals_linregress_and_its_interval_holds_the_truth():
    generator = np.random.default_rng(13)
    x = np.array([1.0, 2.0, 4.0, 8.0])
    y = x[:, None] ** 0.5 * np.exp(0.1 * generator.normal(size=(4, 10)))
    slope = statistics.log_log_slope(x, y)
    oracle = scipy.stats.linregress(np.log(x), np.log(y.mean(axis=1))).slope
    assert slope.slope == pytest.approx(oracle)
    assert slope.lower < 0.5 < slope.upper
    assert 0.0 < slope.upper - slope.lower < 0.3


@pytest.mark.parametrize(("x", "y"), [([1, 2], [[1.0], [0.0]]), ([3, 3], [[1.0], [2.0]])])
def test_slope_refuses_what_has_no_logarithm(x, y):
    with pytest.raises(ValueError, match="fix"):
        statistics.log_log_slope(x, y)


def test_the_interval_of_a_mean_is_that_of_its_bootstrap():
    values = np.array([1.0, 2.0, 4.0, 9.0, 3.0])
    found = statistics.interval_of_mean(values)
    oracle = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    np.testing.assert_allclose(found, oracle, atol=0.15)
    assert statistics.interval_of_mean(np.full(4, 2.5)) == (2.5, 2.5)
    with pytest.raises(ValueError, match="got NaN"):
        statistics.interval_of_mean(np.array([1.0, np.nan]))
