"""Boards of lines: a move is worth what the lines through its cell hold, of either side."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def tic_tac_toe(state: Any, params: Any) -> jax.Array:
    """Cell, int32 `[]`, that wins, else blocks, else has the most open lines: the centre, then a fork."""
    del params
    attack, defence = line_scores(state.game._x, (3, 3), 3)
    free = state.game._x.board < 0
    return jnp.argmax(jnp.where(free, attack + defence, -1)).astype(jnp.int32)


def connect_four(state: Any, params: Any) -> jax.Array:
    """Column, int32 `[]`, that wins, else blocks, else grows the longest lines.

    Not one under a cell with which the other side wins.
    """
    del params
    height, width = 6, 7
    attack, defence = line_scores(state.game._x, (height, width), 4)
    score = (attack + defence).reshape(height, width)
    stones = (state.game._x.board >= 0).reshape(height, width).sum(0)
    row, columns = height - 1 - stones, jnp.arange(width)
    here = score[jnp.maximum(row, 0), columns]
    # What the other side could do on top of the stone.
    above = jnp.where(row > 0, defence.reshape(height, width)[row - 1, columns], 0)
    opens = (above >= THREAT) & (here < THREAT)
    here = jnp.where(opens, here - THREAT, here)
    return jnp.argmax(jnp.where(row >= 0, here, -2 * THREAT)).astype(jnp.int32)


THREAT = 1000  # score of a cell that fills a line of the other side; no sum of others reaches it
WIN = 100 * THREAT  # of a cell that fills a line of one's own


def line_scores(game: Any, shape: tuple[int, int], length: int) -> tuple[jax.Array, jax.Array]:
    """Worth of a stone in each cell for the mover's lines, and against the other's, int32 `[N]` each.

    `game` is pgx's: `board` of -1 (empty), 0 or 1 and `color`, who moves. A line with stones of
    both sides is worth nothing, else four times more with each stone.
    """
    lines = jnp.asarray(lines_of(*shape, length))
    mine = (game.board == game.color)[lines].sum(1)
    other = (game.board == 1 - game.color)[lines].sum(1)
    worth = 4 ** np.arange(length, dtype=np.int32)
    own_worth = jnp.asarray(np.append(worth[:-1], [WIN, 0]), jnp.int32)
    other_worth = jnp.asarray(np.append(worth[:-1] * 3 // 4, [THREAT, 0]), jnp.int32)
    attack = jnp.where(other == 0, own_worth[mine], 0)
    defence = jnp.where(mine == 0, other_worth[other], 0)
    none = jnp.zeros(game.board.shape, jnp.int32)
    return tuple(
        none.at[lines].add(jnp.broadcast_to(value[:, None], lines.shape)) for value in (attack, defence)
    )


def lines_of(height: int, width: int, length: int) -> np.ndarray:
    """The cells of every line of a board, counted row by row: int32 `[N, length]`."""
    steps = np.arange(length)
    return np.array(
        [
            (row + dy * steps) * width + column + dx * steps
            for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1))
            for row in range(height)
            for column in range(width)
            if row + dy * (length - 1) < height and 0 <= column + dx * (length - 1) < width
        ],
        np.int32,
    )
