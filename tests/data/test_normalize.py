"""Running moments against numpy on all the data at once."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from envs.types import Component
from jaxagent.data import normalize
from jaxagent.types import Masked

FEW = settings(max_examples=25, deadline=None, derandomize=True)


def average(x):
    """Over shards, as `parallel.average_shards` does on one device."""
    return jnp.mean(x, axis=0)


@partial(jax.jit, static_argnums=1)
def batch_moments(batch, num_axes):
    return normalize.batch_moments(batch[None], average, num_axes)


update, apply = jax.jit(normalize.update), jax.jit(normalize.apply)


def merge(batches, num_axes=1):
    moments = normalize.init(batches[0].shape[num_axes:])
    for batch in batches:
        batch = jnp.asarray(batch, jnp.float32)
        count = float(np.prod(batch.shape[:num_axes]))
        moments = update(moments, *batch_moments(batch, num_axes), count)
    return moments


@FEW
@given(
    arrays(np.float32, (12, 2), elements=st.floats(-5, 5, width=32)),
    st.lists(st.sampled_from([1, 2, 5]), min_size=2, max_size=2),
)
def test_merged_moments_equal_numpy_on_all_the_data(values, sizes):
    cuts = np.cumsum(sizes)
    moments = merge(np.split(values, cuts))
    assert float(moments.count) == 12
    np.testing.assert_allclose(moments.mean, values.mean(0, np.float64), atol=1e-5)
    np.testing.assert_allclose(moments.variance, values.var(0, dtype=np.float64), atol=2e-4)


def test_batches_weigh_by_their_count_by_hand():
    moments = merge([np.array([[0.0], [2.0]]), np.array([[8.0]] * 6)])
    np.testing.assert_allclose(moments.mean, [50 / 8])
    np.testing.assert_allclose(moments.variance, [(0 + 4 + 6 * 64) / 8 - (50 / 8) ** 2], rtol=1e-6)


def test_the_first_batch_replaces_the_initial_moments():
    values = np.random.default_rng(0).normal(3.0, 0.1, (50, 2))
    moments = merge([values])
    np.testing.assert_allclose(moments.mean, values.mean(0), rtol=1e-6)
    np.testing.assert_allclose(moments.variance, values.var(0), rtol=1e-2)


def test_several_leading_axes_and_shards_average_to_the_whole():
    """Moments of equal shards may be averaged: that is how devices agree."""
    values = np.random.default_rng(0).normal(size=(4, 5, 6, 3)).astype(np.float32)
    mean, variance = normalize.batch_moments(jnp.asarray(values), average)
    moments = normalize.update(normalize.init((3,)), mean, variance, 4 * 5 * 6)
    flat = values.reshape(-1, 3)
    np.testing.assert_allclose(moments.mean, flat.mean(0), atol=1e-6)
    np.testing.assert_allclose(moments.variance, flat.var(0), rtol=1e-5)
    assert float(moments.count) == 120


def test_a_constant_component_stays_finite():
    moments = merge([np.full((8, 1), 3.0)] * 3)
    assert (np.asarray(moments.variance) >= 0).all()
    with jax.debug_nans(True):
        out = apply(moments, jnp.full((2, 1), 3.0))
    np.testing.assert_allclose(out, 0.0, atol=1e-2)


def test_many_batches_do_not_drift():
    rng = np.random.default_rng(0)
    batches = rng.normal(2.0, 3.0, (300, 16, 1)).astype(np.float32)

    def step(moments, batch):
        return normalize.update(moments, *batch_moments(batch, 1), 16.0), None

    moments, _ = jax.lax.scan(step, normalize.init((1,)), jnp.asarray(batches))
    np.testing.assert_allclose(moments.mean, batches.mean((0, 1), np.float64), rtol=1e-4)
    np.testing.assert_allclose(moments.variance, batches.var((0, 1), dtype=np.float64), rtol=1e-4)


@pytest.mark.parametrize("offset", [3e3, 1e4])
def test_float32_survives_a_large_offset(offset):
    values = np.random.default_rng(0).normal(offset, 1.0, (10, 64, 4)).astype(np.float32)
    moments = merge(list(values))
    expected = values.reshape(-1, 4).var(0, dtype=np.float64)
    np.testing.assert_allclose(moments.variance, expected, rtol=0.05)


def test_apply_standardises_and_clips_by_hand():
    moments = normalize.Moments(jnp.ones(()), jnp.array([1.0, 0.0]), jnp.array([4.0, 0.25]))
    x = jnp.array([[3.0, 1.0], [-1.0, -0.5], [1000.0, -1000.0]])
    got = apply(moments, x)
    np.testing.assert_allclose(got, [[1.0, 2.0], [-1.0, -1.0], [10.0, -10.0]], rtol=1e-6)
    np.testing.assert_allclose(apply(moments, x, clip=1.5)[0], [1.0, 1.5], rtol=1e-6)
    np.testing.assert_array_equal(apply(moments, x[None, None])[0, 0], got)
    np.testing.assert_array_equal(apply(moments, x[0]), got[0])


def test_what_was_seen_comes_out_standard():
    values = np.random.default_rng(0).normal([5.0, -2.0], [0.5, 3.0], (200, 2))
    out = np.asarray(apply(merge([values]), jnp.asarray(values, jnp.float32)))
    np.testing.assert_allclose(out.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(out.std(0), 1, atol=1e-3)


def test_without_data_inputs_pass():
    x = jnp.array([[0.5, -3.0], [9.0, 0.0]])
    np.testing.assert_allclose(apply(normalize.init((2,)), x), x, rtol=1e-6)


def test_categories_stay_and_masks_pass_through():
    spec = (Component("x", "real"), Component("symbol", "category", cardinality=9))
    moments = normalize.Moments(jnp.float32(9), jnp.array([1.0, 4.0]), jnp.array([4.0, 4.0]))
    seen = Masked(jnp.array([[3.0, 7.0]]), jnp.array([[True, False]]))
    shown = normalize.of_spec(spec)(moments, seen)
    np.testing.assert_allclose(shown.obs, [[1.0, 7.0]], rtol=1e-6)
    np.testing.assert_array_equal(shown.legal, seen.legal)
    assert (
        normalize.of_spec(spec[:1])(moments._replace(mean=jnp.ones(1), variance=jnp.ones(1)), seen.obs[:, :1])
        == 2.0
    )
