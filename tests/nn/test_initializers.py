"""Orthogonal weights against jax's, which take them from LAPACK."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxagent import keys
from jaxagent.nn.initializers import orthogonal, orthonormalise

SHAPES = [(64, 64), (4, 64), (64, 2), (1, 8), (8, 1), (1, 1)]


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_qr_of_jax(shape):
    ours = jax.jit(orthogonal(1.5), static_argnums=1)(keys.derive(0, "weights"), shape)
    theirs = jax.nn.initializers.orthogonal(1.5)(keys.derive(0, "weights"), shape)
    np.testing.assert_allclose(ours, theirs, atol=2e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_shorter_side_is_orthonormal(shape):
    w = np.asarray(orthogonal(1.0)(keys.derive(1, "weights"), shape), np.float64)
    gram = w @ w.T if shape[0] < shape[1] else w.T @ w
    np.testing.assert_allclose(gram, np.eye(min(shape)), atol=2e-6)


def test_nearly_parallel_rows_stay_orthogonal():
    """One projection loses all digits here; the second one restores them."""
    first = jnp.array([1.0, 2.0, 3.0, 4.0])
    rows = jnp.stack([first, first + jnp.array([1e-4, 0.0, 0.0, 0.0])])
    basis = np.asarray(orthonormalise(rows), np.float64)
    np.testing.assert_allclose(basis @ basis.T, np.eye(2), atol=1e-6)


def test_no_call_of_lapack_is_left_in_lanes():
    """Two batched LAPACK calls in one program can wait for each other for ever on a CPU."""

    def two_layers(key):
        key_a, key_b = jax.random.split(key)
        return orthogonal(1.0)(key_a, (8, 8)), orthogonal(1.0)(key_b, (8, 8))

    lane_keys = keys.per_index(keys.derive(0, "lanes"), jnp.arange(4))
    text = jax.jit(jax.vmap(two_layers)).lower(lane_keys).as_text()
    assert "lapack" not in text
