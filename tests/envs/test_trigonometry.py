"""Polynomial sine and cosine against float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from envs.trigonometry import sincos, wrap_angle


@pytest.mark.parametrize("limit", [0.25, 4.0, 100.0, 1000.0])
def test_sincos_is_within_2e_7(limit):
    x = np.linspace(-limit, limit, 200_001, dtype=np.float32)
    sine, cosine = sincos(jnp.asarray(x))
    np.testing.assert_allclose(sine, np.sin(x.astype(np.float64)), atol=2e-7)
    np.testing.assert_allclose(cosine, np.cos(x.astype(np.float64)), atol=2e-7)


def test_sincos_keeps_what_is_not_a_number():
    for bad in (np.nan, np.inf, -np.inf):
        assert np.isnan(np.asarray(sincos(jnp.float32(bad)))).all()


def test_wrap_angle_moves_by_whole_turns():
    x = np.linspace(-90, 90, 20_001, dtype=np.float32)
    wrapped = np.asarray(wrap_angle(jnp.asarray(x)), np.float64)
    assert wrapped.min() >= -np.pi - 1e-5
    assert wrapped.max() <= np.pi + 1e-5
    turns = (x.astype(np.float64) - wrapped) / (2 * np.pi)
    np.testing.assert_allclose(turns, np.round(turns), atol=2e-6)
