"""Policy objectives: every case of the clip by hand, limits, gradient signs, divergences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxagent.objectives.policy import approximate_kl, clipped_value_loss, ppo_clip

FEW = settings(max_examples=50, deadline=None, derandomize=True)
RATIOS = [0.5, 0.9, 1.0, 1.1, 2.0]


def surrogate(ratio, advantage, clip=0.2):
    log_prob = jnp.log(jnp.asarray(ratio, jnp.float32))
    return ppo_clip(log_prob, jnp.zeros_like(log_prob), jnp.asarray(advantage, jnp.float32), clip=clip)


def test_ppo_clip_by_hand():
    """A gain counts up to 1.2, a loss down to 0.8; beyond that only what makes it worse counts."""
    positive = surrogate(RATIOS, [3.0] * 5)
    np.testing.assert_allclose(positive, np.multiply([0.5, 0.9, 1.0, 1.1, 1.2], -3), rtol=1e-5)
    negative = surrogate(RATIOS, [-3.0] * 5)
    np.testing.assert_allclose(negative, np.multiply([0.8, 0.9, 1.0, 1.1, 2.0], 3), rtol=1e-5)
    np.testing.assert_array_equal(surrogate(RATIOS, [0.0] * 5), 0.0)


def test_the_ratio_is_new_over_old():
    loss = ppo_clip(jnp.log(jnp.array(0.3)), jnp.log(jnp.array(0.2)), jnp.ones(()), clip=10.0)
    np.testing.assert_allclose(loss, -1.5, rtol=1e-5)


def gradient(ratio, advantage, clip=0.2):
    log_prob = jnp.log(jnp.array(ratio))
    return float(jax.grad(ppo_clip)(log_prob, jnp.zeros(()), jnp.array(advantage), clip=clip))


def test_gradient_signs():
    """Descent raises good actions and lowers bad ones, within the clip."""
    assert gradient(1.0, 2.0) == pytest.approx(-2.0)  # the plain policy gradient at ratio 1
    assert gradient(1.0, -2.0) == pytest.approx(2.0)
    assert gradient(0.5, 2.0) < 0  # moved the wrong way: pulled back
    assert gradient(2.0, -2.0) > 0
    assert gradient(2.0, 2.0) == 0  # moved far enough: left alone
    assert gradient(0.5, -2.0) == 0


@pytest.mark.parametrize("clip", [1e6, float("inf")])
def test_without_a_clip_it_is_importance_sampling(clip):
    advantage = np.array([3.0, -1.0, 2.0, -2.0, 0.5])
    np.testing.assert_allclose(surrogate(RATIOS, advantage, clip), -np.array(RATIOS) * advantage, rtol=1e-5)
    assert gradient(2.0, 2.0, clip) == pytest.approx(-4.0, rel=1e-5)
    assert gradient(0.5, -2.0, clip) == pytest.approx(1.0, rel=1e-5)


@FEW
@given(st.floats(-3, 3), st.floats(-3, 3), st.floats(-5, 5), st.floats(0.01, 0.9))
def test_the_clipped_loss_is_pessimistic(log_prob, old_log_prob, advantage, clip):
    new, old, a = (np.float32(x) for x in (log_prob, old_log_prob, advantage))
    loss = float(ppo_clip(jnp.asarray(new), jnp.asarray(old), jnp.asarray(a), clip=clip))
    ratio = np.exp(np.float64(new) - np.float64(old))
    unclipped, clipped = -ratio * a, -np.clip(ratio, 1 - clip, 1 + clip) * a
    assert loss == pytest.approx(max(unclipped, clipped), rel=1e-4, abs=1e-5)


def test_clipped_value_loss_by_hand():
    # old 0, target 1, clip 0.5: the new value counts as at most 0.5 away from the old.
    value = jnp.array([0.25, 0.75, 1.0, -1.0, 3.0])
    target, old = jnp.ones((5,)), jnp.zeros((5,))
    got = clipped_value_loss(value, old, target, clip=0.5)
    errors = np.array([0.75, 0.5, 0.5, 2.0, 2.0])  # the larger of both
    np.testing.assert_allclose(got, 0.5 * errors**2, rtol=1e-6)


def test_without_a_clip_the_value_loss_is_the_squared_error():
    value, old, target = jax.random.normal(jax.random.key(0), (3, 20))

    def total(x):
        return jnp.sum(clipped_value_loss(x, old, target, clip=float("inf")))

    with jax.debug_nans(True):
        got, slope = jax.value_and_grad(total)(value)
    np.testing.assert_allclose(got, 0.5 * np.sum(np.square(value - target)), rtol=1e-5)
    np.testing.assert_allclose(slope, value - target, rtol=1e-5, atol=1e-5)


def test_a_value_that_went_far_enough_is_left_alone():
    slope = jax.grad(clipped_value_loss)
    far, near = jnp.array(0.8), jnp.array(0.3)
    assert float(slope(far, jnp.zeros(()), jnp.ones(()), clip=0.5)) == 0.0
    assert float(slope(near, jnp.zeros(()), jnp.ones(()), clip=0.5)) == pytest.approx(-0.7)


def test_approximate_kl_is_zero_at_the_old_policy_and_never_negative():
    log_prob = jnp.linspace(-8.0, 3.0, 50)
    old = jnp.full((50,), -1.0)
    kl = np.asarray(approximate_kl(log_prob, old))
    assert (kl >= 0).all()
    assert (kl[np.abs(log_prob + 1) > 0.2] > 0.01).all()
    np.testing.assert_array_equal(approximate_kl(old, old), 0)


def test_approximate_kl_is_unbiased_under_the_old_policy():
    """The expectation over the actions of the old policy is KL(old, new), exactly."""
    old, new = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.2, 0.6])
    estimates = approximate_kl(jnp.log(jnp.asarray(new, jnp.float32)), jnp.log(jnp.asarray(old, jnp.float32)))
    np.testing.assert_allclose(old @ np.asarray(estimates), np.sum(old * np.log(old / new)), rtol=1e-5)
