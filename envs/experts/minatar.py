"""MinAtar: the games imagined some steps ahead with their own rules, in which nothing new comes."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from envs.minatar import asterix as asterix_game
from envs.minatar import seaquest as seaquest_game
from envs.minatar.game import SIZE
from envs.minatar.space_invaders import SpaceInvaders

HORIZON = 20  # env steps that a plan looks ahead
PATIENCE = 0.9  # value of a goal one step later, relative to now
SIDE = np.minimum(np.arange(SIZE), SIZE - 1 - np.arange(SIZE)).astype(np.int32)  # columns to it


def breakout(state: Any, params: Any) -> jax.Array:
    """Stand where the ball will be, reflections from the walls included: int32 `[]`.

    The paddle may catch it at row 8 or at row 9, which turns it differently; changing between the
    two leaves the cycles that a deterministic game falls into.
    """
    del params
    falls = state.ball_dir >= 2
    goes_right = (state.ball_dir == 1) | (state.ball_dir == 2)
    row = 8 + state.time // 13 % 2
    distance = jnp.where(falls, row - state.ball_y, 0)
    target = _reflected(state.ball_x + jnp.where(goes_right, distance, -distance))
    return jnp.where(target < state.pos, 1, jnp.where(target > state.pos, 2, 0)).astype(jnp.int32)


def _reflected(x: jax.Array) -> jax.Array:
    """A column in 0..9 after flights beyond the walls, where the ball spends two steps."""
    folded = jnp.mod(x, 20)
    return jnp.where(folded > 9, 19 - folded, folded)


def freeway(state: Any, params: Any) -> jax.Array:
    """Go up, always, int32 `[]`: a collision costs less than waiting."""
    del params
    return jnp.ones_like(state.time)


def space_invaders(state: Any, params: Any) -> jax.Array:
    """Try going to each column and shooting there, at once or later; begin the best of these.

    Returns int32 `[]`. The game has no chance in it, so what is tried is what would happen.
    """
    game = SpaceInvaders()
    column, delay = (x.reshape(-1) for x in jnp.meshgrid(jnp.arange(SIZE), jnp.arange(6)))

    def score(column, delay):
        def step(carry, t):
            state, weight, total = carry
            action = _shoot_at(state, column, t >= delay)
            state, reward, is_lost = game.advance((), state, action, params)
            total = total + weight * jnp.where(is_lost, -10.0, reward)
            return (state, jnp.where(is_lost, 0.0, 0.97 * weight), total), None

        start = state, jnp.ones(()), jnp.zeros(())
        return lax.scan(step, start, jnp.arange(HORIZON))[0][2]

    best = jnp.argmax(jax.vmap(score)(column, delay))
    return _shoot_at(state, column[best], delay[best] == 0)


def _shoot_at(state: Any, column: jax.Array, fires: jax.Array) -> jax.Array:
    """Go to a column of Space Invaders, shoot there and step aside where a bullet comes down."""
    bullets = jnp.pad(state.enemy_bullets[2] >> (2 * SIZE + jnp.arange(SIZE, dtype=jnp.uint32)), 1)
    move = jnp.where(column < state.pos, 1, 2)
    wanted = jnp.where(column != state.pos, move, jnp.where(fires, 3, 0))
    actions = jnp.append(jnp.arange(3), wanted)[jnp.array([3, 0, 1, 2])]
    reached = jnp.clip(state.pos + jnp.array([0, -1, 1, 0])[actions], 0, SIZE - 1)
    is_free = (bullets[reached + 1] & 1) == 0
    return actions[jnp.argmax(is_free)].astype(jnp.int32)


def asterix(state: Any, params: Any) -> jax.Array:
    """Take the soonest treasure on a way without enemies or newcomers at the sides: int32 `[]`."""
    nothing = jnp.zeros((), jnp.uint32)
    draws = asterix_game.draw((nothing, nothing))
    quiet = state._replace(spawn_timer=jnp.full_like(state.spawn_timer, 2 * HORIZON))
    now, after = _imagine(lambda s: asterix_game.play(s, jnp.zeros((), jnp.int32), draws, params)[0], quiet)

    def boards(state):
        shift = 4 * jnp.arange(8, dtype=jnp.uint32)
        column = ((state.columns >> shift) & 15).astype(jnp.int32) - 1
        is_gold = ((state.gold >> shift) & 1) == 1
        here = column[:, None] == jnp.arange(SIZE)[None]
        return here & is_gold[:, None], here & ~is_gold[:, None], column < 0

    gold_now, enemy_now, is_free = jax.vmap(boards)(now)
    gold_after, enemy_after, _ = jax.vmap(boards)(after)
    # Whoever comes stands at a side, or one further if it moves at once.
    reach = jnp.where(now.move_timer == 0, 1, 0)
    comes = _arrivals(state.spawn_timer, state.spawn_speed, reach) & is_free[:, :, None]
    safe = ~(enemy_now | enemy_after | comes)
    # Without treasure wait where newcomers do not come.
    waiting = jnp.asarray(0.02 * np.minimum(SIDE, 4), jnp.float32)
    goal = jnp.where(gold_now | gold_after, 1.0, waiting)
    score = _plan(safe[:, None], goal[:, None])
    choices = jnp.stack([o[0, state.player_y - 1, state.player_x] for o in _options(score)])
    return jnp.argmax(choices).astype(jnp.int32)


def seaquest(state: Any, params: Any) -> jax.Array:
    """Shoot, fetch divers and come up for air on ways without enemies or bullets: int32 `[]`."""
    del params
    draws = seaquest_game.draw((jnp.zeros((), jnp.uint32),))
    never = jnp.full_like(state.spawn_timer, 2 * HORIZON)
    quiet = state._replace(spawn_timer=never, diver_timer=never)

    def play(state, action):
        return seaquest_game.play(state, jnp.asarray(action, jnp.int32), draws)

    now, after = _imagine(lambda s: play(s, 0)[0], quiet)
    safe, goal = _waters(state, now, after)
    score = _plan(safe, goal)
    face = state.right.astype(jnp.int32)
    moves = jnp.stack([o[face, state.y, state.x] for o in _options(score)])
    gain = _kills(play, play(quiet, seaquest_game.FIRE)) - _kills(play, play(quiet, 0))
    fire = moves[0] + jnp.where((gain > 0) & (state.shot_timer == 0), 1.0, -1.0)
    return jnp.argmax(jnp.append(moves, fire)).astype(jnp.int32)


def _waters(state: Any, now: Any, after: Any) -> tuple[jax.Array, jax.Array]:
    """Safe cells and goals of the player in Seaquest's next steps, `[T, 2, 9, 10]` each."""
    danger = jax.vmap(_threats)(now) | jax.vmap(_threats)(after)
    rises = (state.aboard != 0) & (state.oxygen <= state.y + 12)
    rises = rises | (state.aboard == seaquest_game.MAX_ABOARD)
    surface = (jnp.arange(9) == 0)[None, :, None]
    comes = _arrivals(state.spawn_timer, state.spawn_interval, jnp.zeros(HORIZON, jnp.int32))
    safe = ~danger & ~(surface & (state.y > 0) & ~rises) & (surface | ~comes)

    divers = jax.vmap(_divers)(now) | jax.vmap(_divers)(after)
    divers = divers & (state.aboard < seaquest_game.MAX_ABOARD)
    fetch = jnp.where(divers, jnp.where(state.aboard > 0, 1.5, 3.0), 0.0)
    air = jnp.where(surface & rises, 10.0, 0.0)
    is_loaded = state.shot_timer <= 1 + jnp.arange(HORIZON)
    shoot = jax.vmap(_sights)(after) & is_loaded[:, None, None, None]
    goal = jnp.maximum(jnp.maximum(fetch, air)[:, None], jnp.where(shoot, 1.0, 0.0))
    return jnp.broadcast_to(safe[:, None], goal.shape), goal


def _threats(state: Any) -> jax.Array:
    """Cells of Seaquest's enemies and their bullets, bool `[9, 10]`."""
    return _enemies(state) | _marked(
        _number(state.fleet.y), _number(state.fleet.shot_x), _bits(state.fleet.shot)
    )


def _enemies(state: Any) -> jax.Array:
    fleet = state.fleet
    return _marked(_number(fleet.y), _number(fleet.x), _bits(fleet.alive))


def _divers(state: Any) -> jax.Array:
    fields = (jnp.stack(field) for field in zip(*state.divers, strict=True))
    alive, _, y, x, _ = fields
    return _marked(y, x, alive)


def _sights(state: Any) -> jax.Array:
    """From where an enemy is straight ahead, facing left and facing right: bool `[2, 9, 10]`."""
    enemies = _enemies(state).astype(jnp.int32)
    to_left = jnp.cumsum(enemies, axis=1) - enemies
    to_right = jnp.sum(enemies, axis=1, keepdims=True) - to_left - enemies
    return jnp.stack([to_left, to_right]) > 0


def _marked(y: jax.Array, x: jax.Array, exists: jax.Array) -> jax.Array:
    """The board bool `[9, 10]` of things `[N]`."""
    column = jnp.where(exists.astype(bool), x, SIZE)
    return jnp.zeros((9, SIZE), bool).at[y, column].set(True, mode="drop")


def _bits(word: jax.Array) -> jax.Array:
    """A word of Seaquest's fleet as a flag an enemy, int32 `[32]`."""
    return ((word >> jnp.arange(32, dtype=jnp.uint32)) & 1).astype(jnp.int32)


def _number(words: tuple[jax.Array, ...]) -> jax.Array:
    """A number an enemy, int32 `[32]`."""
    return sum(_bits(word) << k for k, word in enumerate(words))


def _kills(play: Callable, first: tuple) -> jax.Array:
    """Reward of a first step and of waiting after it."""
    state, reward, _ = first

    def step(state, _):
        state, reward, _ = play(state, 0)
        return state, reward

    return reward + jnp.sum(lax.scan(step, state, None, HORIZON // 2)[1])


def _arrivals(timer: jax.Array, interval: jax.Array, reach: jax.Array) -> jax.Array:
    """Columns to which newcomers at either side may come in each step, bool `[T, 1, X]`.

    They come in step `timer` and every `interval` steps from then, and go on by `reach` `[T]`.
    """
    late = jnp.arange(HORIZON) - timer
    is_due = (late >= 0) & (late % interval == 0)
    return (jnp.asarray(SIDE)[None] <= jnp.where(is_due, reach, -1)[:, None])[:, None]


def _imagine(advance: Callable, state: Any) -> tuple[Any, Any]:
    """The states before and after each of the next steps, `[T]`."""

    def step(state, _):
        after = advance(state)
        return after, (state, after)

    return lax.scan(step, state, None, HORIZON)[1]


def _plan(safe: jax.Array, goal: jax.Array) -> jax.Array:
    """Score of being in each cell after the first step: survive first, then reach a goal soon.

    `safe` bool and `goal` float32 `[T, F, Y, X]` speak of cells after step t; a goal counts where
    the rest of the horizon can be survived.
    """

    def back(later, now):
        (life, value), (safe, goal, steps) = later, now
        life = jnp.where(safe, 1.0 + _best(life), 0.0)
        value = jnp.where(life == steps, jnp.maximum(goal, PATIENCE * _best(value)), 0.0)
        return (life, value), None

    none = jnp.zeros(goal.shape[1:])
    steps = HORIZON - jnp.arange(HORIZON, dtype=jnp.float32)
    life, value = lax.scan(back, (none, none), (safe, goal, steps), reverse=True)[0]
    return 5.0 * life + value


def _best(value: jax.Array) -> jax.Array:
    """The best value that one move leads to."""
    stay, left, up, right, down = _options(value)
    return jnp.maximum(jnp.maximum(jnp.maximum(stay, left), jnp.maximum(up, right)), down)


def _options(value: jax.Array) -> tuple[jax.Array, ...]:
    """Values that staying and going left, up, right and down lead to, `[F, Y, X]` each.

    F is 2 where the player faces left or right, which sideways moves decide; the border stops it.
    """
    wide = jnp.pad(value, ((0, 0), (1, 1), (1, 1)), mode="edge")
    left, right = wide[:1, 1:-1, :-2], wide[-1:, 1:-1, 2:]
    left, right = (jnp.broadcast_to(side, value.shape) for side in (left, right))
    return value, left, wide[:, :-2, 1:-1], right, wide[:, 2:, 1:-1]
