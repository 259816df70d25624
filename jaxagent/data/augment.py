"""Augmentation of frames (DrQ, Kostrikov et al. 2020, as SPR uses it); draws are per example."""

import jax
import jax.numpy as jnp

SHIFT = 4  # pixels, up to which a frame moves in each direction
INTENSITY = 0.05  # spread of the factor of brightness, cut at two of it


def shift_and_scale(frames: jax.Array, key: jax.Array) -> jax.Array:
    """Frames `[N, H, W, C]`, uint8 or in [0, 1], moved and dimmed; float32, 1 the brightest.

    Every example moves by up to `SHIFT` pixels, its border repeated, and is multiplied by
    `1 + 0.05 clip(N(0, 1), -2, 2)`: one draw for all channels, which are one stack of frames.
    """
    key_shift, key_scale = jax.random.split(key)
    return scale(shift(frames, key_shift), key_scale)


def shift(frames: jax.Array, key: jax.Array, reach: int = SHIFT) -> jax.Array:
    """Frames `[N, H, W, C]` moved by up to `reach` pixels, of the same shape and dtype."""
    edge = (reach, reach)
    padded = jnp.pad(frames, ((0, 0), edge, edge, (0, 0)), mode="edge")
    corner = jax.random.randint(key, (frames.shape[0], 2), 0, 2 * reach + 1)

    def crop(frame: jax.Array, at: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(frame, (at[0], at[1], 0), frames.shape[1:])

    return jax.vmap(crop)(padded, corner)


def scale(frames: jax.Array, key: jax.Array) -> jax.Array:
    """Frames `[N, H, W, C]`, uint8 or in [0, 1], made brighter or darker; float32."""
    unit = 1.0 / 255.0 if jnp.issubdtype(frames.dtype, jnp.integer) else 1.0
    noise = jnp.clip(jax.random.normal(key, (frames.shape[0], 1, 1, 1)), -2.0, 2.0)
    return frames.astype(jnp.float32) * unit * (1.0 + INTENSITY * noise)
