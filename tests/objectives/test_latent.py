"""Distances between latent vectors, by hand and in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxagent.objectives.latent import cosine_distance, squared_distance


def vectors(seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(2, 5, 7)), jnp.float32)


def test_squared_distance_by_hand():
    a, b = jnp.array([[1.0, 2.0], [0.0, 0.0]]), jnp.array([[3.0, 2.0], [0.0, 1.0]])
    np.testing.assert_allclose(squared_distance(a, b), [2.0, 0.5])


def test_cosine_distance_by_hand():
    a = jnp.array([[1.0, 0.0], [1.0, 0.0], [2.0, 0.0], [3.0, 3.0]])
    b = jnp.array([[5.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [1.0, 0.0]])
    np.testing.assert_allclose(cosine_distance(a, b), [0.0, 1.0, 2.0, 1.0 - 0.5**0.5], atol=1e-5)


def test_cosine_distance_equals_float64():
    a, b = vectors(0), vectors(1)
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    norms = np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1)
    np.testing.assert_allclose(cosine_distance(a, b), 1.0 - (x * y).sum(-1) / norms, atol=1e-5)
    np.testing.assert_allclose(cosine_distance(10.0 * a, b), cosine_distance(a, b), atol=1e-5)


@pytest.mark.parametrize("distance", [squared_distance, cosine_distance])
def test_descent_brings_vectors_nearer(distance):
    a, b = vectors(0), vectors(1)
    before = distance(a, b)
    after = distance(a - 0.05 * jax.grad(lambda x: jnp.sum(distance(x, b)))(a), b)
    assert (after < before).all()


def test_a_vector_of_zeros_has_a_finite_gradient():
    with jax.debug_nans(True):
        value, slope = jax.value_and_grad(lambda x: cosine_distance(x, jnp.ones(3)))(jnp.zeros(3))
    assert value == 1.0
    assert jnp.isfinite(slope).all()
