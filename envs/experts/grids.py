"""Grid worlds: the way to what is to be done next, by a flood of distances from there."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

FAR = 10_000  # cells: not to be reached
STEPS = np.array([[-1, 0], [0, 1], [1, 0], [0, -1]], np.int32)  # up, right, down, left

# xminigrid.core.constants: tiles, and actions in the order of xminigrid.core.actions.
EMPTY, FLOOR, BALL, PYRAMID, GOAL, KEY, LOCKED, CLOSED, OPEN, HEX, STAR = (0, 1, 3, 5, 6, 7, 8, 9, 10, 11, 12)
FORWARD, TURN_RIGHT, TURN_LEFT, PICK_UP, PUT_DOWN, TOGGLE = range(6)
TILE_AT = 5  # xminigrid.core.goals: a tile on a position; the others name a tile only

# gymnax.environments.misc.rooms: x is a wall.
FOUR_ROOMS = """
xxxxxxxxxxxxx
x     x     x
x     x     x
x           x
x     x     x
x     x     x
xx xxxx     x
x     xxx xxx
x     x     x
x     x     x
x           x
x     x     x
xxxxxxxxxxxxx"""


def four_rooms(state: Any, params: Any) -> jax.Array:
    """Go the shortest way to the goal: int32 `[]`."""
    del params
    is_floor = np.array([[c == " " for c in row] for row in FOUR_ROOMS.splitlines()[1:]])
    distance = flood(_at(state.goal, is_floor.shape), jnp.asarray(is_floor))
    return jnp.argmin(_around(distance, state.pos)).astype(jnp.int32)


def memory(state: Any, params: Any) -> jax.Array:
    """Walk to the object that was to be remembered, which the state knows: int32 `[]`."""
    del params
    world = state.world
    target = _at(world.carry.success_pos, world.grid.shape[:2])
    return _approach(world, target, world.grid[..., 0] == FLOOR)


def minigrid(state: Any, params: Any) -> jax.Array:
    """Do what is needed first: clear the way, fetch a key, unlock the door, reach the goal; int32 `[]`.

    It follows from what can be reached: the goal as things are; or the goal with a key, so that is
    fetched; or neither, so something stands in the way and is picked up.
    """
    del params
    world = state.world
    tile, color = (world.grid[..., layer].astype(jnp.int32) for layer in (0, 1))
    pocket, here = world.agent.pocket.astype(jnp.int32), world.agent.position
    is_thing = (tile == KEY) | ((tile >= BALL) & (tile <= PYRAMID)) | (tile >= HEX)
    opens = (tile == LOCKED) & (pocket[0] == KEY) & (pocket[1] == color)
    free = (tile == FLOOR) | (tile == GOAL) | (tile == OPEN) | (tile == CLOSED) | opens
    with_key = free | (tile == LOCKED) | (tile == KEY)
    goal = _goal_cells(world.goal_encoding.astype(jnp.int32), tile, color)

    def meets(target, free):
        return flood(target, free)[here[0], here[1]] < FAR

    is_open = meets(goal & ((tile != LOCKED) | opens), free)
    obstacle = is_thing & (tile != KEY) & ~goal
    other = jnp.where(meets(goal, with_key), tile == KEY, obstacle)
    target = jnp.where(is_open, goal, other)

    # A hand that is needed is emptied, on a cell whose loss cuts nothing off.
    drops = (pocket[0] != EMPTY) & jnp.any(target & is_thing) & ~(is_open & jnp.any(opens))
    front = here + jnp.asarray(STEPS)[world.agent.direction]
    rest = ~_at(front, tile.shape)
    is_harmless = meets(target & rest, free & rest) & meets(goal & rest, with_key & rest)
    can_drop = (tile[front[0], front[1]] == FLOOR) & is_harmless
    drop = jnp.where(can_drop, PUT_DOWN, TURN_RIGHT).astype(jnp.int32)
    return jnp.where(drops, drop, _approach(world, target, free))


def _goal_cells(goal: jax.Array, tile: jax.Array, color: jax.Array) -> jax.Array:
    """The cells, bool `[H, W]`, at which an encoded goal of MiniGrid is reached."""
    is_wanted = (tile == goal[1]) & (color == goal[2])
    return jnp.where(goal[0] == TILE_AT, _at(goal[3:5], tile.shape), is_wanted)


def _approach(world: Any, target: jax.Array, free: jax.Array) -> jax.Array:
    """Turn to the next cell on the way to `target`, open or pick up what is there, or go on."""
    clockwise = (jnp.arange(4) - world.agent.direction) % 4
    turns = jnp.array([0, 1, 2, 1])[clockwise]
    best = jnp.argmin(4 * _around(flood(target, free), world.agent.position) + turns)
    ahead = world.agent.position + jnp.asarray(STEPS)[best]
    tile = world.grid[ahead[0], ahead[1], 0]
    is_shut = (tile == LOCKED) | (tile == CLOSED)
    is_way = (tile == FLOOR) | (tile == GOAL) | (tile == OPEN)
    act = jnp.where(is_shut, TOGGLE, jnp.where(is_way, FORWARD, PICK_UP))
    turn = jnp.where(clockwise[best] == 3, TURN_LEFT, TURN_RIGHT)
    return jnp.where(turns[best] == 0, act, turn).astype(jnp.int32)


def flood(target: jax.Array, free: jax.Array) -> jax.Array:
    """Steps to the nearest of `target`, int32 `[H, W]`, over `free` cells, both bool `[H, W]`."""

    def spread(carry):
        distance, _ = carry
        wide = jnp.pad(distance, 1, constant_values=FAR)
        sides = wide[:-2, 1:-1], wide[1:-1, 2:], wide[2:, 1:-1], wide[1:-1, :-2]
        nearest = jnp.minimum(jnp.minimum(*sides[:2]), jnp.minimum(*sides[2:]))
        new = jnp.where(free, jnp.minimum(distance, nearest + 1), distance)
        return new, jnp.any(new < distance)

    start = jnp.where(target, 0, FAR).astype(jnp.int32)
    return lax.while_loop(lambda carry: carry[1], spread, (start, jnp.array(True)))[0]


def _around(distance: jax.Array, position: jax.Array) -> jax.Array:
    """Distances above, to the right, below and to the left of a position, int32 `[4]`."""
    cells = position[None] + jnp.asarray(STEPS)
    return distance[cells[:, 0], cells[:, 1]]


def _at(position: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The board bool `[H, W]` with one cell set."""
    return jnp.zeros(shape, bool).at[position[0], position[1]].set(True)
