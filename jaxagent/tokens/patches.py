"""Observations cut into patches, each a token: boards, pixels, and vectors too long for a token a scalar."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

WHITE = 255.0  # of a pixel in 8 bits


class Patches(NamedTuple):
    """How observations of one shape are cut."""

    obs_shape: tuple[int, ...]  # boards [H, W, C], frames of 8 bits [S, H, W], vectors [n]
    side: int  # of a square patch; of a vector, how many numbers are one
    is_pixels: bool = False  # frames come channels first

    @property
    def board(self) -> tuple[int, int, int]:
        """Height, width and channels; a vector is one row."""
        if len(self.obs_shape) == 1:
            return 1, self.obs_shape[0], 1
        first, second, third = self.obs_shape
        return (second, third, first) if self.is_pixels else (first, second, third)

    @property
    def count(self) -> int:
        """Patches of an observation."""
        height, width, _ = self.board
        return math.ceil(height / self.side) * math.ceil(width / self.side)

    @property
    def size(self) -> int:
        """Numbers in a patch."""
        return (self.side if len(self.obs_shape) == 1 else self.side**2) * self.board[2]

    def cut(self, obs: jax.Array) -> jax.Array:
        """Patches float32 `[..., count, size]` of observations `[..., *obs_shape]`, rows first.

        Raises ValueError for observations of another shape.
        """
        lead = obs.shape[: obs.ndim - len(self.obs_shape)]
        if obs.shape[len(lead) :] != self.obs_shape:
            raise ValueError(
                f"patches: got observations {obs.shape}, expected [..., {self.obs_shape}]; they are cut for "
                "one environment."
            )
        flat = obs.reshape(-1, *self.obs_shape).astype(jnp.float32)
        if len(self.obs_shape) == 1:
            flat = jnp.pad(flat, ((0, 0), (0, -self.obs_shape[0] % self.side)))
            return flat.reshape(*lead, self.count, self.size)
        if self.is_pixels:
            flat = jnp.moveaxis(flat, 1, -1) / WHITE
        return of_boards(flat, self.side).reshape(*lead, self.count, self.size)


def of_boards(boards: jax.Array, side: int) -> jax.Array:
    """Boards `[B, H, W, C]` as patches `[B, m, side^2 C]`, rows first.

    Boards are padded with zeros below and to the right where patches do not fit.
    """
    batch, height, width, channels = boards.shape
    below, right = -height % side, -width % side
    boards = jnp.pad(boards, ((0, 0), (0, below), (0, right), (0, 0)))
    rows, columns = (height + below) // side, (width + right) // side
    cells = boards.reshape(batch, rows, side, columns, side, channels).swapaxes(2, 3)
    return cells.reshape(batch, rows * columns, side * side * channels)
