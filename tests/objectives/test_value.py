"""Squashing of values: closed forms, an inverse that keeps float32's digits."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxagent.objectives.value import squash, unsquash


def test_by_hand():
    np.testing.assert_allclose(squash(jnp.array([0.0, 3.0, -8.0])), [0.0, 1.003, -2.008], rtol=1e-6)
    np.testing.assert_allclose(unsquash(jnp.array([0.0, 1.003, -2.008])), [0, 3, -8], rtol=1e-6)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.floats(-1e5, 1e5, width=32))
def test_the_inverse_keeps_the_digits(x):
    x = np.float32(x)
    np.testing.assert_allclose(unsquash(squash(jnp.asarray(x))), x, rtol=2e-6, atol=2e-6)
    np.testing.assert_array_equal(squash(jnp.asarray(-x)), -squash(jnp.asarray(x)))


def test_small_values_are_not_lost_and_the_slope_at_zero_is_finite():
    """The textbook inverse gives 0 or twice the value here."""
    small = jnp.array([1e-6, 1e-4])
    np.testing.assert_allclose(unsquash(small), small * 2.0 / 1.002, rtol=1e-3)
    assert np.isfinite(jax.grad(squash)(0.0))
    assert np.isfinite(jax.grad(unsquash)(0.0))
