"""Stacks of frames, kept a frame at a time: a replay of them is as small as one of frames."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Frames(NamedTuple):
    """The newest frame of an observation, and what it takes to stack the earlier ones on it."""

    newest: jax.Array  # [..., H, W] uint8
    age: jax.Array  # [...] uint8: frames of the same game before it, as far as a stack reaches


def newest(obs: jax.Array, time: jax.Array) -> Frames:
    """Newest frames of stacks `[..., S, H, W]`, oldest frame first, `time [...]` steps into a game.

    Every step must add one frame, and frames before a game's first must be 0, as ALE has it.
    """
    depth = obs.shape[-3]
    return Frames(obs[..., -1, :, :], jnp.minimum(time, depth - 1).astype(jnp.uint8))


def stacks(frames: Frames, depth: int) -> jax.Array:
    """Stacks `[T, b, H, W, depth]` of consecutive frames `[depth - 1 + T, b]`; channels last.

    The first `depth - 1` frames only serve those after them.
    """
    count = frames.newest.shape[0] - depth + 1
    age = frames.age[depth - 1 :]

    def back(steps: int) -> jax.Array:
        """The frames so many steps before; 0 where the game had not begun."""
        start = depth - 1 - steps
        frame = frames.newest[start : start + count]
        return jnp.where((age >= steps)[..., None, None], frame, jnp.zeros((), frame.dtype))

    return jnp.stack([back(steps) for steps in reversed(range(depth))], axis=-1)


def channels_last(stacks: jax.Array) -> jax.Array:
    """Stacks `[..., S, H, W]` as convolutions read them, `[..., H, W, S]`."""
    return jnp.moveaxis(stacks, -3, -1)
