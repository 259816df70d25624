"""Seaquest: a submarine that shoots fish and submarines, rescues divers and runs out of air."""

import functools
import operator
from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs.minatar.game import SIZE, Game, board_of_groups, cells_of, signed
from envs.words import below

MAX_OXYGEN = 200
MAX_ABOARD = 6  # divers
SPAWN_INTERVAL, MOVE_INTERVAL = 20, 5  # of enemies, at first; env steps as all intervals
MIN_SPAWN_INTERVAL, MIN_MOVE_INTERVAL = 1, 2
DIVER_SPAWN_INTERVAL, DIVER_MOVE_INTERVAL = 30, 5
SHOT_INTERVAL, ENEMY_SHOT_INTERVAL = 5, 10
LEFT, UP, RIGHT, DOWN, FIRE = 1, 2, 3, 4, 5
ALL = 0xFFFFFFFF
DEEPEST = 8  # row; the last one has the gauges

Number = tuple[jax.Array, ...]  # a number an enemy: word k has bit k of all


class SeaquestParams(NamedTuple):
    """The task."""

    max_steps: int = 1000


class Fleet(NamedTuple):
    """The last 32 enemies: bit i of every word, uint32, belongs to enemy i; bit 31 is the youngest.

    Bitwise operations act on all enemies at once. An enemy crosses the board in 60 steps or, when
    one may come each step, in 30, so none is in the water still when its bit is needed again. Its
    bullet, in whose row and direction it flies itself, is gone before it fires the next.
    """

    alive: jax.Array
    is_sub: jax.Array  # not a fish
    right: jax.Array  # its direction
    y: Number
    x: Number
    wait: Number  # steps until it moves
    load: Number  # steps until it fires, if it is a submarine
    shot: jax.Array  # its bullet is in the water, even where it is not any more
    shot_x: Number


class Bullet(NamedTuple):
    """One of the player's; a third is fired only when the first has left the board."""

    alive: jax.Array  # bool
    right: jax.Array  # bool
    y: jax.Array  # int32
    x: jax.Array  # int32


class Diver(NamedTuple):
    """One in the water; the third comes when the first has left the board."""

    alive: jax.Array  # bool
    right: jax.Array  # bool
    y: jax.Array  # int32, as all below
    x: jax.Array
    wait: jax.Array  # steps until it moves


class SeaquestState(NamedTuple):
    """State of one game; timers count env steps down to 0."""

    y: jax.Array  # int32: where the player's submarine is
    x: jax.Array
    right: jax.Array  # bool: where it heads
    oxygen: jax.Array  # int32
    aboard: jax.Array  # int32: divers; negative after a full rescue, as in the source
    surfaced: jax.Array  # bool: it has been at the surface since it came up
    shot_timer: jax.Array  # int32, as all others below
    bullets: tuple[Bullet, Bullet]  # the younger first
    divers: tuple[Diver, Diver]  # the younger first
    diver_timer: jax.Array
    fleet: Fleet
    spawn_timer: jax.Array
    spawn_interval: jax.Array
    move_interval: jax.Array
    ramp_index: jax.Array
    time: jax.Array


class SeaquestDraws(NamedTuple):
    """What chance says of an enemy and a diver that might come."""

    is_sub: jax.Array  # bool
    enemy_right: jax.Array  # bool
    enemy_y: jax.Array  # int32, 1 to 8
    diver_right: jax.Array
    diver_y: jax.Array


class Seaquest(Game):
    """+1 an enemy shot, up to +10 for bringing up six divers, by the oxygen left.

    It ends at the touch of an enemy or its bullet, without oxygen, and at the surface without a
    diver aboard. Each surfacing makes enemies more frequent or faster.
    Source: github.com/kenjyoung/MinAtar, seaquest.py; step by step as in gymnax's.
    Differs: from the source, as gymnax does, in that a submarine shot while it moves does not fire
    any more; of two divers in reach the older comes aboard first; the terminal state of a
    surfacing without divers is that of any surfacing. From gymnax in that a finished game, if
    stepped on, may go on.
    """

    defaults = SeaquestParams()
    channels = (
        "sub_front",
        "sub_back",
        "friendly_bullet",
        "trail",
        "enemy_bullet",
        "enemy_fish",
        "enemy_sub",
        "oxygen_gauge",
        "diver_gauge",
        "diver",
    )
    num_actions = 6  # stay, left, up, right, down, fire
    num_reset_words = 1  # nothing is drawn: the word has the shape of the lanes
    num_step_words = 1

    def first(self, words, params):
        del params
        none = jnp.zeros_like(words[0])
        zero, no = none.astype(jnp.int32), none != none
        bullet = Bullet(alive=no, right=no, y=zero, x=zero)
        diver = Diver(alive=no, right=no, y=zero, x=zero, wait=zero)
        return SeaquestState(
            y=zero,
            x=zero + 5,
            right=no,
            oxygen=zero + MAX_OXYGEN,
            aboard=zero,
            surfaced=~no,
            shot_timer=zero,
            bullets=(bullet, bullet),
            divers=(diver, diver),
            diver_timer=zero + DIVER_SPAWN_INTERVAL,
            fleet=jax.tree.map(lambda _: none, _fleet_of(no, no, zero, zero, zero)),
            spawn_timer=zero + SPAWN_INTERVAL,
            spawn_interval=zero + SPAWN_INTERVAL,
            move_interval=zero + MOVE_INTERVAL,
            ramp_index=zero,
            time=zero,
        )

    def advance(self, words, state, action, params):
        del params
        return play(state, action, draw(words))

    def observe(self, state, params):
        del params
        cell = cells_of(state.x)[:, None]
        row, column = cell // SIZE, cell % SIZE

        def is_at(y, x):
            return (row == y[None, None]) & (column == x[None, None])

        def is_lit(thing, x):
            return is_at(thing.y, x) & thing.alive[None, None]

        enemies = _enemy_planes(state.fleet)
        diver_trail = _any(is_lit(diver, _ahead(diver.x, ~diver.right)) for diver in state.divers)
        is_gauge = row == SIZE - 1
        oxygen = (state.oxygen // (MAX_OXYGEN // SIZE))[None, None]
        aboard = state.aboard[None, None]
        return board_of_groups(
            [
                is_at(state.y, state.x),
                is_at(state.y, _ahead(state.x, ~state.right)),
                _any(is_lit(bullet, bullet.x) for bullet in state.bullets),
                enemies[:, :1] | diver_trail,
                enemies[:, 1:],
                is_gauge & (column < oxygen),
                is_gauge & (column >= 9 - aboard) & (column < 9),
                _any(is_lit(diver, diver.x) for diver in state.divers),
            ]
        )

    def invariants(self, state, params):
        fleet, rows = state.fleet, range(1, DEEPEST + 1)
        in_row = [_equals(fleet.y, jnp.full_like(state.y, y)) & fleet.alive for y in rows]
        is_one_way = [((m & fleet.right) == 0) | ((m & ~fleet.right) == 0) for m in in_row]
        afloat = (fleet.alive & _is_outside(fleet.x)) | (fleet.shot & _is_outside(fleet.shot_x))
        paces = (state.spawn_interval >= MIN_SPAWN_INTERVAL) & (state.move_interval >= MIN_MOVE_INTERVAL)
        return super().invariants(state, params) | {
            "player_on_board": _is_inside(state.x) & (state.y >= 0) & (state.y <= DEEPEST),
            "enemies_on_board": (afloat == 0) & (_any(in_row) == fleet.alive),
            "rows_are_one_way": functools.reduce(operator.and_, is_one_way),
            "oxygen_and_crew": (state.oxygen <= MAX_OXYGEN) & (state.aboard <= MAX_ABOARD),
            "paces": paces & (state.spawn_interval <= SPAWN_INTERVAL),
        }


def draw(words):
    """What chance decides in one step, from one word."""
    (word,) = words

    def is_set(k):
        return ((word >> k) & 1) == 1

    def row(k):
        return 1 + ((word >> k) & 7).astype(jnp.int32)

    return SeaquestDraws(
        is_sub=below(word, 3) == 0,  # of the upper half
        enemy_right=is_set(0),
        enemy_y=row(1),
        diver_right=is_set(4),
        diver_y=row(5),
    )


def play(state, action, draws):
    """What `Seaquest.advance` returns, given what chance decided."""
    state = _spawn_enemy(state, draws)
    state = _spawn_diver(state, draws)
    state = _steer(state, action)
    state, num_shot = _fly_bullets(state)
    state = _move_divers(state)
    state, num_shot_moving, is_hit = _move_fleet(state)
    state, is_hit_by_shot = _fire_fleet(state)
    state, bonus, is_lost = _surface(state)
    reward = (num_shot + num_shot_moving + bonus).astype(jnp.float32)
    return state, reward, is_hit | is_hit_by_shot | is_lost


def _spawn_enemy(state, draws):
    """An enemy comes, unless others cross its row the other way."""
    fleet, is_due = state.fleet, state.spawn_timer == 0
    in_row = _equals(fleet.y, draws.enemy_y) & fleet.alive
    oncoming = in_row & (fleet.right ^ _mask(draws.enemy_right))
    comes = is_due & (oncoming == 0)
    newcomer = _fleet_of(
        draws.is_sub,
        draws.enemy_right,
        draws.enemy_y,
        jnp.where(draws.enemy_right, 0, SIZE - 1),
        state.move_interval,
    )
    return state._replace(
        fleet=jax.tree.map(
            lambda word, new: jnp.where(comes, (word >> 1) | (new << 31), word), fleet, newcomer
        ),
        spawn_timer=jnp.where(is_due, state.spawn_interval, state.spawn_timer),
    )


def _fleet_of(is_sub, right, y, x, wait):
    """A fleet of enemies that are all as given and fire after `ENEMY_SHOT_INTERVAL` steps."""
    return Fleet(
        alive=_mask(is_sub == is_sub),
        is_sub=_mask(is_sub),
        right=_mask(right),
        y=_spread(y, 4),
        x=_spread(x, 4),
        wait=_spread(wait, 3),
        load=_spread(jnp.full_like(y, ENEMY_SHOT_INTERVAL), 4),
        shot=_mask(is_sub != is_sub),
        shot_x=_spread(jnp.zeros_like(x), 4),
    )


def _spawn_diver(state, draws):
    comes = state.diver_timer == 0
    diver = Diver(
        alive=jnp.ones_like(comes),
        right=draws.diver_right,
        y=draws.diver_y,
        x=jnp.where(draws.diver_right, 0, SIZE - 1),
        wait=jnp.full_like(draws.diver_y, DIVER_MOVE_INTERVAL),
    )
    return state._replace(
        divers=_push(comes, diver, state.divers),
        diver_timer=jnp.where(comes, DIVER_SPAWN_INTERVAL, state.diver_timer),
    )


def _steer(state, action):
    """The player moves or fires."""
    goes_left, goes_right = action == LEFT, action == RIGHT
    x = state.x + signed(goes_right, goes_left)
    y = state.y + signed(action == DOWN, action == UP)
    fires = (action == FIRE) & (state.shot_timer == 0)
    bullet = Bullet(alive=fires, right=state.right, y=state.y, x=state.x)
    return state._replace(
        x=jnp.clip(x, 0, SIZE - 1),
        y=jnp.clip(y, 0, DEEPEST),
        right=(state.right & ~goes_left) | goes_right,
        bullets=_push(fires, bullet, state.bullets),
        shot_timer=jnp.where(fires, SHOT_INTERVAL, state.shot_timer),
    )


def _fly_bullets(state):
    """The player's bullets fly one cell and hit fish rather than submarines."""
    bullets = tuple(b._replace(x=_ahead(b.x, b.right)) for b in state.bullets)
    bullets = tuple(b._replace(alive=b.alive & _is_inside(b.x)) for b in bullets)
    state = state._replace(bullets=bullets)
    state, num_fish = _shoot(state, ~state.fleet.is_sub)
    state, num_subs = _shoot(state, state.fleet.is_sub)
    return state, num_fish + num_subs


def _shoot(state, targets):
    """Each bullet takes the oldest of the `targets` in its cell; no two bullets share a cell."""
    fleet, bullets, num_hits = state.fleet, [], 0
    for bullet in state.bullets:
        here = _in_cell(fleet, bullet.y, bullet.x) & targets & _mask(bullet.alive)
        hits = here != 0
        fleet = fleet._replace(alive=fleet.alive & ~(here & -here))
        bullets.append(bullet._replace(alive=bullet.alive & ~hits))
        num_hits = num_hits + hits.astype(jnp.int32)
    return state._replace(fleet=fleet, bullets=tuple(bullets)), num_hits


def _move_divers(state):
    """Divers in the player's cell come aboard, before or after they move."""
    state = _take_aboard(state)
    divers = []
    for diver in state.divers:
        is_due = diver.wait == 0
        x = jnp.where(is_due, _ahead(diver.x, diver.right), diver.x)
        wait = jnp.where(is_due, DIVER_MOVE_INTERVAL, diver.wait - 1)
        divers.append(diver._replace(x=x, wait=wait, alive=diver.alive & _is_inside(x)))
    return _take_aboard(state._replace(divers=tuple(divers)))


def _take_aboard(state):
    younger, older = state.divers
    older, aboard = _take(older, state, state.aboard)
    younger, aboard = _take(younger, state, aboard)
    return state._replace(divers=(younger, older), aboard=aboard)


def _take(diver, state, aboard):
    is_here = diver.alive & (diver.y == state.y) & (diver.x == state.x)
    comes = is_here & (aboard < MAX_ABOARD)
    return diver._replace(alive=diver.alive & ~comes), aboard + comes.astype(jnp.int32)


def _move_fleet(state):
    """Enemies move; the player is hit by one that was or is in its cell; bullets hit again."""
    fleet = state.fleet
    touches = _in_cell(fleet, state.y, state.x)
    is_due = ~_any(fleet.wait)
    x = _sideways(fleet.x, is_due, fleet.right)
    fleet = fleet._replace(
        alive=fleet.alive & ~_is_outside(x),
        x=x,
        wait=_choose(is_due, _spread(state.move_interval, 3), _minus_one(fleet.wait, ~is_due)),
    )
    touches = touches | _in_cell(fleet, state.y, state.x)
    state, num_subs = _shoot(state._replace(fleet=fleet), fleet.is_sub)
    state, num_fish = _shoot(state, ~fleet.is_sub)
    return state, num_subs + num_fish, touches != 0


def _fire_fleet(state):
    """Submarines fire; the player is hit by a bullet that was or is in its cell."""
    fleet = state.fleet
    is_ready = ~_any(fleet.load)
    fires = is_ready & fleet.is_sub & fleet.alive
    shot, shot_x = fleet.shot | fires, _choose(fires, fleet.x, fleet.shot_x)
    in_row = _equals(fleet.y, state.y)
    touches = shot & in_row & _equals(shot_x, state.x)
    shot_x = _sideways(shot_x, shot, fleet.right)
    shot = shot & ~_is_outside(shot_x)
    touches = touches | (shot & in_row & _equals(shot_x, state.x))
    reload = _spread(jnp.full_like(state.y, ENEMY_SHOT_INTERVAL), 4)
    load = _choose(fires, reload, _minus_one(fleet.load, ~is_ready))
    return state._replace(fleet=fleet._replace(shot=shot, shot_x=shot_x, load=load)), touches != 0


def _surface(state):
    """Clocks and oxygen run down; what surfacing costs, brings and makes harder."""
    is_under = state.y > 0
    surfaces = ~is_under & ~state.surfaced
    is_full = state.aboard == MAX_ABOARD
    is_lost = (state.oxygen <= 0) | (surfaces & (state.aboard == 0))
    bonus = jnp.where(surfaces & is_full, state.oxygen // (MAX_OXYGEN // SIZE), 0)
    left = jnp.where(is_full, -1, state.aboard - 1)
    oxygen = state.oxygen - is_under.astype(jnp.int32)

    spawns_later = state.spawn_interval > MIN_SPAWN_INTERVAL
    moves_later = state.move_interval > MIN_MOVE_INTERVAL
    is_odd = (state.ramp_index & 1) == 1
    state = state._replace(
        oxygen=jnp.where(surfaces, MAX_OXYGEN, oxygen),
        aboard=jnp.where(surfaces, left, state.aboard),
        surfaced=~is_under,
        shot_timer=jnp.maximum(state.shot_timer - 1, 0),
        diver_timer=jnp.maximum(state.diver_timer - 1, 0),
        spawn_timer=jnp.maximum(state.spawn_timer - 1, 0),
        spawn_interval=state.spawn_interval - (surfaces & spawns_later).astype(jnp.int32),
        move_interval=state.move_interval - (surfaces & moves_later & is_odd).astype(jnp.int32),
        ramp_index=state.ramp_index + (surfaces & (spawns_later | moves_later)).astype(jnp.int32),
    )
    return state, bonus, is_lost


def _push(is_new, new, pair):
    """The pair `(new, younger)` where something is new, else `(younger, older)`."""
    younger, older = pair

    def pick(a, b):
        return jnp.where(is_new, a, b)

    return jax.tree.map(pick, new, younger), jax.tree.map(pick, younger, older)


def _ahead(x, right):
    return x + jnp.where(right, 1, -1)


def _is_inside(x):
    return (x >= 0) & (x < SIZE)


def _any(masks):
    return functools.reduce(operator.or_, masks)


def _enemy_planes(fleet):
    """Trails, enemy bullets, fish and submarines: bool `[100, 4, ...]`."""
    behind = _sideways(fleet.x, jnp.full_like(fleet.alive, ALL), ~fleet.right)
    x = zip(behind, fleet.shot_x, fleet.x, fleet.x, strict=True)
    kinds = (fleet.alive, fleet.shot, fleet.alive & ~fleet.is_sub, fleet.alive & fleet.is_sub)
    place = jnp.arange(SIZE).reshape((SIZE, 1) + (1,) * fleet.alive.ndim)
    in_row = _equals(tuple(word[None, None] for word in fleet.y), place) & jnp.stack(kinds)[None]
    in_column = _equals(tuple(jnp.stack(words)[None] for words in x), place)
    planes = (in_row[:, None] & in_column[None]) != 0
    return planes.reshape(SIZE * SIZE, *planes.shape[2:])


# --- words with a bit an enemy --------------------------------------------------------------------


def _mask(flag):
    """All 32 bits equal to a flag."""
    return -flag.astype(jnp.uint32)


def _spread(value, num_bits):
    """The number `value` for each of 32 enemies."""
    return tuple(_mask((value >> k) & 1) for k in range(num_bits))


def _in_cell(fleet, y, x):
    """Which enemies are alive and in a cell."""
    return fleet.alive & _equals(fleet.y, y) & _equals(fleet.x, x)


def _equals(number, value):
    """Whose number equals `value`."""
    others = _spread(value, len(number))
    return ~_any(word ^ other for word, other in zip(number, others, strict=True))


def _choose(mask, number, other):
    """`number` of those in `mask`, `other` of the rest."""
    return tuple((a & mask) | (b & ~mask) for a, b in zip(number, other, strict=True))


def _sideways(number, moves, right):
    """Add 1 to the numbers of those who move right, subtract it where they move left."""
    out = []
    for word in number:
        out.append(word ^ moves)
        moves = moves & ~(word ^ right)  # the carry of ones, or the borrow of zeros
    return tuple(out)


def _minus_one(number, moves):
    return _sideways(number, moves, jnp.zeros_like(moves))


def _is_outside(x):
    """Whose column is -1, that is 15, or 10: only these have the bits 8 and 2."""
    return x[3] & x[1]
