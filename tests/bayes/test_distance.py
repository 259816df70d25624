"""Distances by hand, at zeros, and the ends and the middle of the relative distance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxagent.bayes import distance


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True), jax.debug_nans(True):
        yield


def log_distributions(seed, shape=(4, 5)):
    return jnp.log(jnp.asarray(np.random.default_rng(seed).dirichlet(np.ones(shape[-1]), shape[:-1])))


def test_distances_equal_their_definitions():
    p, q = np.exp(log_distributions(0)), np.exp(log_distributions(1))
    log_p, log_q = jnp.log(p), jnp.log(q)
    forth = scipy.stats.entropy(p, q, axis=-1)
    back = scipy.stats.entropy(q, p, axis=-1)
    np.testing.assert_allclose(distance.kl(log_p, log_q), forth, rtol=1e-10)
    np.testing.assert_allclose(distance.symmetric_kl(log_p, log_q), (forth + back) / 2, rtol=1e-10)
    half = np.abs(p - q).sum(axis=-1) / 2
    np.testing.assert_allclose(distance.total_variation(log_p, log_q), half, rtol=1e-10)
    for d in (distance.kl, distance.symmetric_kl, distance.total_variation):
        np.testing.assert_array_equal(d(log_p, log_p), 0.0)
        assert (np.asarray(d(log_p, log_q)) > 0).all()


def test_zeros():
    p, q = jnp.log(jnp.array([0.5, 0.5, 0.0])), jnp.log(jnp.array([0.25, 0.75, 0.0]))
    full = jnp.log(jnp.array([0.25, 0.25, 0.5]))
    np.testing.assert_allclose(distance.kl(p, q), 0.5 * np.log(4 / 3), rtol=1e-12)
    np.testing.assert_allclose(distance.kl(p, full), np.log(2.0), rtol=1e-12)
    assert distance.kl(full, p) == np.inf
    np.testing.assert_allclose(distance.total_variation(p, full), 0.5)
    gradient = jax.grad(lambda l: distance.kl(p, jax.nn.log_softmax(l)))(jnp.zeros(3))
    np.testing.assert_allclose(gradient, 1 / 3 - np.array([0.5, 0.5, 0.0]), atol=1e-12)


@pytest.mark.parametrize("d", [distance.symmetric_kl, distance.total_variation])
def test_relative_distance_is_one_at_a_minus_one_at_b_and_zero_half_way(d):
    a, b = log_distributions(2), log_distributions(3)

    def relative(h):
        return distance.relative_distance(d(h, b), d(h, a), d(a, b))

    np.testing.assert_allclose(relative(a), 1.0, rtol=1e-12)
    np.testing.assert_allclose(relative(b), -1.0, rtol=1e-12)
    np.testing.assert_allclose(distance.weight_on_a(relative(a)), 1.0, rtol=1e-12)
    np.testing.assert_allclose(distance.weight_on_a(relative(b)), 0.0, atol=1e-12)
    mirror, centre = jnp.log(jnp.array([0.7, 0.2, 0.1])), jnp.log(jnp.array([0.4, 0.2, 0.4]))
    a, b = mirror, mirror[::-1]
    np.testing.assert_allclose(relative(centre), 0.0, atol=1e-12)
    towards = [float(relative(jnp.log(w * jnp.exp(a) + (1 - w) * jnp.exp(b)))) for w in (0.2, 0.5, 0.9)]
    assert -1 < towards[0] < 0 < towards[2] < 1
    np.testing.assert_allclose(towards[1], 0.0, atol=1e-12)


def test_relative_distance_clips_and_gives_zero_where_a_is_b():
    to_b, to_a, between = (jnp.array(v) for v in ([5.0, 0.1, 0.3], [0.1, 5.0, 0.3], [1.0, 1.0, 0.0]))
    np.testing.assert_array_equal(distance.relative_distance(to_b, to_a, between), [1.0, -1.0, 0.0])


def test_total_variation_is_the_weight_of_a_mixture():
    """Disjoint distributions: a mixture with weight w on A lies w from B and 1 - w from A."""
    a, b = jnp.log(jnp.array([1.0, 0.0])), jnp.log(jnp.array([0.0, 1.0]))
    h = jnp.log(jnp.array([0.3, 0.7]))
    d = distance.total_variation
    relative = distance.relative_distance(d(h, b), d(h, a), d(a, b))
    np.testing.assert_allclose(distance.weight_on_a(relative), 0.3, rtol=1e-12)
