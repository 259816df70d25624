"""The projection of return distributions against Bellemare's loop, and its moments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from jaxagent.objectives import distributional as dist

REACH, COUNT = 10.0, 51


def by_loop(reward, discount, probability):
    """Algorithm 1 of Bellemare et al. 2017, one atom at a time, float64."""
    support, gap = np.linspace(-REACH, REACH, COUNT), 2 * REACH / (COUNT - 1)
    out = np.zeros((len(reward), COUNT))
    for i in range(len(reward)):
        for j in range(COUNT):
            place = (np.clip(reward[i] + discount[i] * support[j], -REACH, REACH) + REACH) / gap
            low, high = int(np.floor(place)), int(np.ceil(place))
            if low == high:
                out[i, low] += probability[i, j]
            else:
                out[i, low] += probability[i, j] * (high - place)
                out[i, high] += probability[i, j] * (place - low)
    return out


def draws(size=64):
    rng = np.random.default_rng(0)
    probability = rng.dirichlet(np.full(COUNT, 0.3), size).astype(np.float32)
    reward = rng.normal(0, 6, size).astype(np.float32)
    discount = np.where(rng.random(size) < 0.3, 0, rng.random(size)).astype(np.float32)
    return reward, discount, probability


def test_projection_equals_the_loop():
    reward, discount, probability = draws()
    found = dist.bellman_target(reward, discount, jnp.asarray(probability), REACH)
    np.testing.assert_allclose(found, by_loop(reward, discount, probability), atol=1e-5)


def test_the_mean_is_kept_where_nothing_is_cut():
    reward, discount, probability = draws()
    reward, discount = reward * 0.1, discount * 0.5
    found = dist.bellman_target(reward, discount, jnp.asarray(probability), REACH)
    support = np.linspace(-REACH, REACH, COUNT)
    np.testing.assert_allclose(found.sum(1), 1.0, atol=1e-5)
    np.testing.assert_allclose(found @ support, reward + discount * (probability @ support), atol=1e-4)


def test_an_end_leaves_the_reward_alone():
    probability = jnp.full((1, COUNT), 1.0 / COUNT)
    found = dist.bellman_target(jnp.array([0.4]), jnp.zeros((1,)), probability, REACH)
    assert found[0, 26] == pytest.approx(1.0, abs=1e-5)  # atoms are 0.4 apart; 25 is 0


def test_expected_return_of_a_distribution():
    logits = jnp.log(jnp.asarray(draws()[2]) + 1e-9)
    expected = np.asarray(draws()[2]) @ np.linspace(-REACH, REACH, COUNT)
    np.testing.assert_allclose(dist.expected_return(logits, REACH), expected, atol=1e-4)


def test_divergence_is_kullback_leiblers_with_the_gradient_of_cross_entropy():
    rng = np.random.default_rng(1)
    target = jnp.asarray(draws()[2][:8]).at[:, :20].set(0.0)
    target = target / target.sum(1, keepdims=True)
    logits = jnp.asarray(rng.normal(size=(8, COUNT)), jnp.float32)
    expected = scipy.special.rel_entr(np.asarray(target), scipy.special.softmax(logits, 1)).sum(1)
    np.testing.assert_allclose(dist.divergence(target, logits), expected, rtol=1e-5)
    gradient = jax.grad(lambda x: dist.divergence(target, x).sum())(logits)
    np.testing.assert_allclose(gradient, jax.nn.softmax(logits) - target, atol=1e-6)
    np.testing.assert_allclose(dist.divergence(target, jnp.log(target + 1e-30)), 0.0, atol=1e-5)
