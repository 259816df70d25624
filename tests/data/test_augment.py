"""Augmentation: every shift comes, borders are repeated, a stack is moved as one."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxagent.data import augment


def test_every_shift_comes_equally_often_and_borders_are_repeated():
    size, count = 12, 4000
    frame = np.arange(size * size, dtype=np.uint8).reshape(size, size)
    frames = np.broadcast_to(np.stack([frame, 255 - frame], -1), (count, size, size, 2))
    moved = np.asarray(augment.shift(jnp.asarray(frames), jax.random.key(0)))
    assert moved.dtype == np.uint8
    np.testing.assert_array_equal(moved[..., 1], 255 - moved[..., 0])  # channels move together
    padded = np.pad(frame, augment.SHIFT, mode="edge")
    found = np.zeros((9, 9), int)
    windows = {padded[y : y + size, x : x + size].tobytes(): (y, x) for y in range(9) for x in range(9)}
    for one in moved[..., 0]:
        found[windows[one.tobytes()]] += 1
    expected = count / 81
    assert np.abs(found - expected).max() < 5 * np.sqrt(expected)


def test_brightness_is_one_factor_an_example_within_a_tenth():
    frames = jnp.full((5000, 3, 3, 2), 200, jnp.uint8)
    factor = np.asarray(augment.scale(frames, jax.random.key(0))) * 255 / 200
    assert factor.dtype == np.float32
    np.testing.assert_allclose(np.ptp(factor.reshape(5000, -1), 1), 0.0, atol=1e-6)
    one = factor[:, 0, 0, 0]
    assert (one >= 0.9 - 1e-6).all()
    assert (one <= 1.1 + 1e-6).all()
    # A normal cut at two of its deviations has 0.94 of its spread (2.3 % lie on each end).
    assert abs(one.std() / augment.INTENSITY - 0.959) < 0.03
    assert abs(one.mean() - 1.0) < 0.003


def test_examples_draw_independently_and_floats_keep_their_scale():
    frames = jnp.broadcast_to(jnp.linspace(0, 1, 64).reshape(8, 8, 1), (64, 8, 8, 1))
    seen = augment.shift_and_scale(frames, jax.random.key(0))
    assert len(np.unique(np.asarray(seen).reshape(64, -1), axis=0)) > 60
    assert float(seen.max()) <= 1.1
