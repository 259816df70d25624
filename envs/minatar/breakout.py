"""Breakout: a paddle, a ball on diagonals and three rows of bricks."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs.minatar.game import SIZE, Game, board, cells_of, has_bit, plane_of_rows, signed

FULL_WALL = (1 << 30) - 1  # rows 1 to 3
PADDLE_ROW = 9


class BreakoutParams(NamedTuple):
    """The task."""

    max_steps: int = 1000


class BreakoutState(NamedTuple):
    """State of one game."""

    ball_y: jax.Array  # int32, as all below
    ball_x: jax.Array
    ball_dir: jax.Array  # 0 up-left, 1 up-right, 2 down-right, 3 down-left
    pos: jax.Array  # column of the paddle
    bricks: jax.Array  # uint32: bit 10 (y - 1) + x is the brick at row y in 1..3, column x
    strike: jax.Array  # bool: the ball is inside bricks, which then count once
    last_y: jax.Array  # where the trail is
    last_x: jax.Array
    time: jax.Array


class Breakout(Game):
    """+1 a brick; it ends when the ball passes the paddle; a cleared wall comes back.

    Source: github.com/kenjyoung/MinAtar, breakout.py; step by step as in gymnax's.
    """

    defaults = BreakoutParams()
    channels = ("paddle", "ball", "trail", "brick")
    num_actions = 3  # stay, left, right
    is_step_random = False
    num_reset_words = 1

    def first(self, words, params):
        del params
        starts_left = (words[0] >> 31) == 0
        ball_x = jnp.where(starts_left, 0, SIZE - 1).astype(jnp.int32)
        row = jnp.full_like(ball_x, 3)
        return BreakoutState(
            ball_y=row,
            ball_x=ball_x,
            ball_dir=jnp.where(starts_left, 2, 3).astype(jnp.int32),
            pos=jnp.full_like(ball_x, 4),
            bricks=jnp.full_like(words[0], FULL_WALL),
            strike=jnp.zeros_like(starts_left),
            last_y=row,
            last_x=ball_x,
            time=jnp.zeros_like(ball_x),
        )

    def advance(self, words, state, action, params):
        del words, params
        pos = jnp.clip(state.pos + signed(action == 2, action == 1), 0, SIZE - 1)
        x, y, direction = _fly(state.ball_x, state.ball_y, state.ball_dir)

        # A brick is broken once, on entering the bricks; the ball goes back up or down.
        row = y - 1
        in_rows = (row >= 0) & (row <= 2)
        brick = row * SIZE + x
        hits = in_rows & has_bit(state.bricks, brick)
        breaks = hits & ~state.strike
        mask = jnp.uint32(1) << (brick.astype(jnp.uint32) & 31)
        bricks = jnp.where(breaks, state.bricks & ~mask, state.bricks)
        y = jnp.where(breaks, state.ball_y, y)
        direction = jnp.where(breaks, 3 - direction, direction)

        # At the bottom the paddle sends it back: straight from where it was, or from where it is.
        at_bottom = ~hits & (y == PADDLE_ROW)
        bricks = jnp.where(at_bottom & (bricks == 0), jnp.uint32(FULL_WALL), bricks)
        bounces = at_bottom & (state.ball_x == pos)
        deflects = at_bottom & ~bounces & (x == pos)
        direction = jnp.where(bounces, 3 - direction, direction)
        direction = jnp.where(deflects, direction ^ 2, direction)
        y = jnp.where(bounces | deflects, state.ball_y, y)
        after = BreakoutState(
            ball_y=y,
            ball_x=x,
            ball_dir=direction,
            pos=pos,
            bricks=bricks,
            strike=hits,
            last_y=state.ball_y,
            last_x=state.ball_x,
            time=state.time,
        )
        return after, breaks.astype(jnp.float32), at_bottom & ~bounces & ~deflects

    def observe(self, state, params):
        del params
        cell = cells_of(state.pos)
        none = jnp.zeros_like(state.bricks)
        wall = [state.bricks >> (SIZE * row) for row in range(3)]
        return board(
            [
                cell == (PADDLE_ROW * SIZE + state.pos)[None],
                cell == (state.ball_y * SIZE + state.ball_x)[None],
                cell == (state.last_y * SIZE + state.last_x)[None],
                plane_of_rows([none, *wall, *(none,) * 6]),
            ]
        )


def _fly(x, y, direction):
    """One diagonal step with reflection from the side walls and the ceiling."""
    goes_right = (direction == 1) | (direction == 2)
    x = x + jnp.where(goes_right, 1, -1)
    y = y + jnp.where(direction >= 2, 1, -1)
    hits_side = (x < 0) | (x >= SIZE)
    direction = jnp.where(hits_side, direction ^ 1, direction)
    hits_ceiling = y < 0
    direction = jnp.where(hits_ceiling, 3 - direction, direction)
    return jnp.clip(x, 0, SIZE - 1), jnp.maximum(y, 0), direction
