"""Losses of scalars: by hand, their weights, their empty batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxagent.objectives.sequence import expected_unit, scalar_loss, weighted_mean
from jaxagent.tokens import scalar

PLACES = jnp.array([-0.9, -0.25, 0.1, 0.75])  # of four bins with centres -.75, -.25, .25, .75


def some_logits(seed=2):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(4, 4)), jnp.float32)


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def test_scalar_losses_by_hand():
    logits = some_logits()
    log_probs = log_softmax(logits)
    bins = -log_probs[np.arange(4), [0, 1, 2, 3]]
    np.testing.assert_allclose(scalar_loss(logits, PLACES, "bins"), bins, rtol=1e-5)
    # 0.1 lies 0.7 of the way from the centre of bin 1 to that of bin 2; -0.9 is all of bin 0.
    weights = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0.3, 0.7, 0], [0, 0, 0, 1]])
    two_hot = -(weights * log_probs).sum(-1)
    np.testing.assert_allclose(scalar_loss(logits, PLACES, "two_hot"), two_hot, rtol=1e-5)
    guess = jnp.array([0.1, -0.25, 0.1, -0.25])
    np.testing.assert_allclose(scalar_loss(guess, PLACES, "reals"), [1, 0, 0, 1], atol=1e-6)


def test_a_category_is_scored_at_its_own_id_whatever_the_bins():
    """Of three components, the middle one a category of three: ids 4, 5 and 6 beside four bins."""
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(3, 7)), jnp.float32)
    unit, sizes = jnp.array([-0.25, 2.0, 0.75]), (0, 3, 0)  # centres of bins 1 and 3
    expected = -log_softmax(logits)[np.arange(3), [1, 4 + 2, 3]]
    for values in ("bins", "two_hot"):
        np.testing.assert_allclose(scalar_loss(logits, unit, values, 4, sizes), expected, rtol=1e-5)


def test_extreme_logits_stay_finite():
    logits = 1e4 * jax.nn.one_hot(jnp.array([3, 2, 1, 0]), 4)
    with jax.debug_nans(True):
        loss, slope = jax.value_and_grad(lambda x: jnp.sum(scalar_loss(x, PLACES, "bins")))(logits)
    assert jnp.isfinite(loss)
    assert jnp.isfinite(slope).all()


@pytest.mark.parametrize("values", ["bins", "two_hot"])
def test_the_loss_of_a_scalar_is_least_at_its_own_weights(values):
    """And its gradient there is zero: probability less weight."""
    lower, weight = scalar.two_hot(PLACES, 4)
    if values == "bins":
        weights = jax.nn.one_hot(scalar.bin_of(PLACES, 4), 4)
    else:
        low, high = jax.nn.one_hot(lower, 4), jax.nn.one_hot(lower + 1, 4)
        weights = low + weight[:, None] * (high - low)
    logits = some_logits()
    slope = jax.grad(lambda x: jnp.sum(scalar_loss(x, PLACES, values)))(logits)
    np.testing.assert_allclose(slope, jax.nn.softmax(logits) - weights, atol=1e-5)


def test_the_expected_place_by_hand():
    logits = jnp.log(jnp.array([[0.5, 0.5, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25]]) + 1e-12)
    np.testing.assert_allclose(expected_unit(logits, "bins"), [-0.5, 0.0], atol=1e-6)
    np.testing.assert_allclose(expected_unit(logits, "two_hot"), [-0.5, 0.0], atol=1e-6)
    np.testing.assert_array_equal(expected_unit(jnp.array([-3.0, 0.25, 1.5]), "reals"), [-1.0, 0.25, 1.0])


def test_a_two_hot_prediction_fitted_to_a_place_expects_it():
    """What reals say at once, two-hot logits say in the mean."""
    lower, weight = scalar.two_hot(PLACES, 4)
    low, high = jax.nn.one_hot(lower, 4), jax.nn.one_hot(lower + 1, 4)
    fitted = jnp.log(low + weight[:, None] * (high - low) + 1e-12)
    expected = np.clip(PLACES, -0.75, 0.75)
    np.testing.assert_allclose(expected_unit(fitted, "two_hot"), expected, atol=1e-5)


def test_a_weighted_mean_by_hand_and_of_nothing():
    x = jnp.array([[1.0, 2.0], [3.0, 100.0]])
    flags = jnp.array([[True, True], [True, False]])
    np.testing.assert_allclose(weighted_mean(x, flags), 2.0, rtol=1e-6)
    np.testing.assert_allclose(weighted_mean(x, jnp.array([[1.0, 3.0], [0.0, 0.0]])), 1.75)
    with jax.debug_nans(True):
        value, slope = jax.value_and_grad(weighted_mean)(x, jnp.zeros((2, 2)))
    assert value == 0.0
    np.testing.assert_array_equal(slope, 0.0)
