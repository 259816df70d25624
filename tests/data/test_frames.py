"""Stacks of frames from single ones, against stacks pushed a frame at a time."""

import jax.numpy as jnp
import numpy as np

from jaxagent.data import frames

DEPTH = 4


def pushed(time, rng):
    """Stacks `[T, b, S, 2, 3]` as an emulator makes them: zeros, and a frame at every step."""
    stacks = np.zeros((*time.shape, DEPTH, 2, 3), np.uint8)
    for t, row in enumerate(time):
        for lane, age in enumerate(row):
            if age:
                stacks[t, lane, :-1] = stacks[t - 1, lane, 1:]
            stacks[t, lane, -1] = rng.integers(1, 256, (2, 3))
    return stacks


def test_stacks_are_as_they_were_pushed():
    rng = np.random.default_rng(0)
    # Games of many lengths, one step long too.
    time = np.stack(
        [
            np.concatenate([np.arange(n) for n in lengths])[:40]
            for lengths in ([1, 1, 2, 3, 40], [4, 5, 40], [40], [2] * 20)
        ],
        axis=1,
    )
    stacks = pushed(time, rng)
    kept = frames.newest(jnp.asarray(stacks), jnp.asarray(time))
    assert kept.newest.dtype == kept.age.dtype == jnp.uint8
    found = np.asarray(frames.stacks(kept, DEPTH))
    expected = np.moveaxis(stacks[DEPTH - 1 :], 2, -1)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


def test_what_lies_before_the_first_game_does_not_matter():
    rng = np.random.default_rng(1)
    time = np.arange(6)[:, None]
    stacks = pushed(time, rng)
    kept = frames.newest(jnp.asarray(stacks), jnp.asarray(time))
    garbage = frames.Frames(
        jnp.full((DEPTH - 1, 1, 2, 3), 77, jnp.uint8), jnp.full((DEPTH - 1, 1), 3, jnp.uint8)
    )
    both = frames.Frames(*(jnp.concatenate(x) for x in zip(garbage, kept, strict=True)))
    np.testing.assert_array_equal(frames.stacks(both, DEPTH), np.moveaxis(stacks, 2, -1))
