"""Asterix: a player between eight rows, along which enemies and treasure cross the board."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs.minatar.game import SIZE, Game, board, cells_of, signed
from envs.words import below

# At most one thing is in each of the rows 1 to 8: its column is a nibble of a word, a flag is the
# lowest bit of that nibble, and one addition moves all eight.
FLAGS = 0x11111111


class AsterixParams(NamedTuple):
    """The task; intervals are in env steps."""

    ramp_interval: int = 100  # at max_steps or more the pace never rises
    init_spawn_speed: int = 10  # from one arrival to the next
    init_move_interval: int = 5  # from one move to the next
    max_steps: int = 1000


class AsterixState(NamedTuple):
    """State of one game."""

    player_x: jax.Array  # int32
    player_y: jax.Array  # int32, 1 to 8
    columns: jax.Array  # uint32: a nibble a row, 1 + the column of what is there; 0: nothing is
    rightward: jax.Array  # uint32: a flag a row, free where nothing is
    gold: jax.Array  # uint32: a flag a row, free where nothing is: treasure, not an enemy
    spawn_speed: jax.Array  # int32, as all below; env steps between arrivals
    spawn_timer: jax.Array
    move_speed: jax.Array  # env steps between moves
    move_timer: jax.Array
    ramp_timer: jax.Array
    ramp_index: jax.Array
    time: jax.Array


class AsterixDraws(NamedTuple):
    """What chance decides about an arrival."""

    goes_right: jax.Array  # bool
    is_gold: jax.Array  # bool
    pick: jax.Array  # uint32 below 2^16: which of the rows in question, as a fraction
    overlooks: jax.Array  # bool: a single free row stays unseen


class Asterix(Game):
    """+1 a treasure; it ends at the touch of an enemy; arrivals and moves come faster and faster.

    Source: github.com/kenjyoung/MinAtar, asterix.py; step by step as in gymnax's.
    Differs: from the source, as gymnax does: an arrival that sees no free row wipes out what is in
    a full one, where the source does nothing, and it overlooks a single free row one time in eight.
    From gymnax, as the source does: the interval between moves ends at 1; gymnax's reaches 0 in
    tasks where it starts low (not in the default one), and then nothing moves again.
    """

    defaults = AsterixParams()
    channels = ("player", "enemy", "trail", "gold")
    num_actions = 5  # stay, left, up, right, down
    num_reset_words = 1  # nothing is drawn: the word has the shape of the lanes
    num_step_words = 2

    def first(self, words, params):
        nothing = jnp.zeros_like(words[0])
        zero = nothing.astype(jnp.int32)
        return AsterixState(
            player_x=zero + 5,
            player_y=zero + 5,
            columns=nothing,
            rightward=nothing,
            gold=nothing,
            spawn_speed=zero + params.init_spawn_speed,
            spawn_timer=zero + params.init_spawn_speed,
            move_speed=zero + params.init_move_interval,
            move_timer=zero + params.init_move_interval,
            ramp_timer=zero + params.ramp_interval,
            ramp_index=zero,
            time=zero,
        )

    def advance(self, words, state, action, params):
        return play(state, action, draw(words), params)

    def observe(self, state, params):
        del params
        cell = cells_of(state.player_x)
        row, column = cell // SIZE, cell % SIZE
        is_row = (row >= 1) & (row <= 8)
        shift = jnp.where(is_row, 4 * (row - 1), 0).astype(jnp.uint32)
        here = jnp.where(is_row, column + 1, 16).astype(jnp.uint32)  # no nibble is 16
        occupied = ((state.columns[None] >> shift) & 15) == here
        trail = ((_moved(state.columns, ~state.rightward)[None] >> shift) & 15) == here
        is_gold = ((state.gold[None] >> shift) & 1) == 1
        player = cell == (state.player_y * SIZE + state.player_x)[None]
        return board([player, occupied & ~is_gold, trail, occupied & is_gold])

    def invariants(self, state, params):
        x, y, columns = state.player_x, state.player_y, state.columns
        is_above_10 = (columns >> 3) & ((columns >> 2) | (columns >> 1) & columns) & FLAGS
        on_board = (x >= 0) & (x < SIZE) & (y >= 1) & (y <= 8) & (is_above_10 == 0)
        pace = (state.spawn_speed >= 1) & (state.move_speed >= 1)
        return super().invariants(state, params) | {"on_board": on_board, "pace": pace}


def draw(words):
    """What chance decides in one step, from two words."""
    return AsterixDraws(
        goes_right=(words[0] & 1) == 1,
        is_gold=below(words[1], 3) == 0,
        pick=words[0] >> 16,
        overlooks=((words[0] >> 1) & 7) == 0,
    )


def play(state, action, draws, params):
    """What `Asterix.advance` returns, given what chance decided."""
    spawns, moves = state.spawn_timer == 0, state.move_timer == 0
    columns, rightward, gold = _arrive(state, spawns, draws)
    x = jnp.clip(state.player_x + signed(action == 3, action == 1), 0, SIZE - 1)
    y = jnp.clip(state.player_y + signed(action == 4, action == 2), 1, 8)

    # The player meets what stood there or what moves there, treasure in at most one of the two.
    columns, takes, is_hit = _meet(columns, gold, x, y)
    moved, takes_moved, is_hit_moved = _meet(_clear_exit(_moved(columns, rightward)), gold, x, y)
    reward = takes | (moves & takes_moved)
    terminated = is_hit | (moves & is_hit_moved)

    is_rising = (state.spawn_speed > 1) | (state.move_speed > 1)
    is_waiting = is_rising & (state.ramp_timer >= 0)
    ramps = is_rising & ~is_waiting
    is_odd = (state.ramp_index & 1) == 1
    after = AsterixState(
        player_x=x,
        player_y=y,
        columns=jnp.where(moves, moved, columns),
        rightward=rightward,
        gold=gold,
        spawn_speed=state.spawn_speed - jnp.where(ramps & (state.spawn_speed > 1), 1, 0),
        spawn_timer=jnp.where(spawns, state.spawn_speed, state.spawn_timer) - 1,
        move_speed=state.move_speed - jnp.where(ramps & is_odd & (state.move_speed > 1), 1, 0),
        move_timer=jnp.where(moves, state.move_speed, state.move_timer) - 1,
        ramp_timer=jnp.where(is_waiting, state.ramp_timer - 1, params.ramp_interval),
        ramp_index=state.ramp_index + jnp.where(ramps, 1, 0),
        time=state.time,
    )
    return after, reward.astype(jnp.float32), terminated


def _arrive(state, spawns, draws):
    """`columns`, `rightward`, `gold` with one arrival at the side it comes from, if one is due."""
    full = _flags(state.columns)
    free = full ^ jnp.uint32(FLAGS)
    num_free = _ranks(free) >> 28
    finds = (num_free > 1) | ((num_free == 1) & ~draws.overlooks)
    rows = jnp.where(finds, free, full)
    ranks = _ranks(rows)
    rank = 1 + ((draws.pick * (ranks >> 28)) >> 16)
    is_other = _flags(ranks ^ (rank * jnp.uint32(FLAGS)))
    row = jnp.where(spawns, rows & ~is_other, jnp.uint32(0))
    entry = jnp.where(finds, jnp.where(draws.goes_right, 1, SIZE), 0).astype(jnp.uint32)
    return (
        (state.columns & ~(row * 15)) | (row * entry),
        jnp.where(draws.goes_right, state.rightward | row, state.rightward & ~row),
        jnp.where(draws.is_gold, state.gold | row, state.gold & ~row),
    )


def _meet(columns, gold, x, y):
    """`columns` without the treasure at (y, x), whether there was one, and whether an enemy."""
    shift = (4 * (y - 1)).astype(jnp.uint32)
    touches = ((columns >> shift) & 15).astype(jnp.int32) == x + 1
    is_gold = ((gold >> shift) & 1) == 1
    takes = touches & is_gold
    left = jnp.where(takes, columns & ~(jnp.uint32(15) << shift), columns)
    return left, takes, touches & ~is_gold


def _moved(columns, rightward):
    """All one column on: 0, nothing, if it leaves on the left and 11 if it leaves on the right."""
    full = _flags(columns)
    return columns + (full & rightward) - (full & ~rightward)


def _clear_exit(columns):
    """Without what left on the right."""
    stays = _flags(columns ^ jnp.uint32(0xBBBBBBBB))
    return columns & (stays * 15)


def _flags(nibbles):
    """A flag at every nibble that is not 0."""
    pairs = nibbles | (nibbles >> 2)
    return (pairs | (pairs >> 1)) & FLAGS


def _ranks(flags):
    """In each nibble the number of flags up to it, so in the highest one that of all."""
    return flags * jnp.uint32(FLAGS)
