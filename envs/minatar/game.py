"""What the MinAtar games share: a 10 x 10 board of binary channels, rendered when wanted."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from envs import pictures
from envs.types import Component
from envs.words import WordEnvironment

SIZE = 10  # cells a side; cell (y, x) has index 10 y + x


class Game(WordEnvironment):
    """A MinAtar game with the minimal actions of its source.

    A cell is an index `10 y + x`, a set of cells an integer bitmap. `observe` is one comparison of
    every cell and channel with what stands there, so XLA writes the board in one pass.
    Differs: observations are float32 as in gymnax, bool in the source; no sticky actions and the
    time limit of gymnax (`envs.wrappers.sticky_actions` adds the source's).
    """

    channels: tuple[str, ...]
    num_actions: int

    def specify(self, task):
        del task
        self.obs_shape = (SIZE, SIZE, len(self.channels))
        self.obs_spec = tuple(
            Component(f"{channel}[{y},{x}]", "category", cardinality=2)
            for y in range(SIZE)
            for x in range(SIZE)
            for channel in self.channels
        )
        self.action_spec = (Component("move", "category", cardinality=self.num_actions),)

    def painter(self, state: Any, params: Any) -> np.ndarray:
        """The board with a colour a channel, on the host."""
        return pictures.paint_observation(jax.device_get(self.observe(state, params)))


def signed(forward: jax.Array, back: jax.Array) -> jax.Array:
    """+1, -1 or 0, int32, from two bools."""
    return jnp.where(forward, 1, 0) - jnp.where(back, 1, 0)


def cells_of(field: jax.Array) -> jax.Array:
    """All cells, int32 `[100]` beside one lane's `field`, `[100, 1]` beside a batch's."""
    cells = jnp.arange(SIZE * SIZE, dtype=jnp.int32)
    return cells.reshape((-1,) + (1,) * field.ndim)


def board(planes: Sequence[jax.Array]) -> jax.Array:
    """The observation float32 `[10, 10, C, ...]` from a plane bool `[100, ...]` a channel."""
    lit = jnp.stack(planes, axis=1).astype(jnp.float32)
    return lit.reshape(SIZE, SIZE, len(planes), *lit.shape[2:])


def board_of_groups(groups: Sequence[jax.Array]) -> jax.Array:
    """As `board`, from planes bool `[100, k, ...]` for k neighbouring channels each.

    One formula for several channels is computed in one loop; as a plane a channel, what they share
    is computed for each.
    """
    lit = jnp.concatenate(groups, axis=1).astype(jnp.float32)
    return lit.reshape(SIZE, SIZE, *lit.shape[1:])


def plane_of_rows(rows: Sequence[jax.Array]) -> jax.Array:
    """Whether each cell is set, bool `[100, ...]`, from 10 rows: bits 0 to 9 of a uint32 each.

    Rows are stacked first and shifted by the bare column: choosing a word for each cell, or masking
    the shift as `has_bit` does, is two to four times slower where XLA compiles the whole loop over
    steps as one function.
    """
    stacked = jnp.stack(rows)
    column = jnp.arange(SIZE, dtype=jnp.uint32).reshape((1, SIZE) + (1,) * (stacked.ndim - 1))
    is_in = ((stacked[:, None] >> column) & 1) == 1
    return is_in.reshape(SIZE * SIZE, *stacked.shape[1:])


def has_bit(bitmap: jax.Array, index: jax.Array) -> jax.Array:
    """Whether bit `index` of a uint32 is set; the index is taken modulo 32."""
    return ((bitmap >> (index.astype(jnp.uint32) & 31)) & 1) == 1
