"""Seaquest against gymnax (every step, all fields) and against the minatar package."""

import functools
from typing import NamedTuple

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from minatar.environments import seaquest as source

import envs
from envs.common.branch import select
from envs.common.foreign import foreign
from envs.minatar.seaquest import Seaquest, SeaquestDraws, draw, play
from envs.words import lane_words

NUM_LANES, NUM_STEPS = 64, 600
STAY, LEFT, UP, RIGHT, DOWN, FIRE = range(6)
FIELDS = {  # ours -> gymnax's, which are the minatar package's but for the name of `time`
    "y": "sub_y",
    "x": "sub_x",
    "right": "sub_or",
    "oxygen": "oxygen",
    "aboard": "diver_count",
    "surfaced": "surface",
    "shot_timer": "shot_timer",
    "diver_timer": "d_spawn_timer",
    "spawn_timer": "e_spawn_timer",
    "spawn_interval": "e_spawn_speed",
    "move_interval": "move_speed",
    "ramp_index": "ramp_index",
    "time": "time",
}


class Given(Seaquest):
    """Seaquest that takes draws where others take random words."""

    def advance(self, words, state, action, params):
        return play(state, action, words)


class Listing(NamedTuple):
    """A state as lists, oldest first, rows of zeros behind; equal for equal games."""

    scalars: dict
    fish: jax.Array  # int32 [32, 4]: x, y, right, steps until it moves
    subs: jax.Array  # int32 [32, 5]: and until it fires
    divers: jax.Array  # int32 [2, 4]
    bullets: jax.Array  # int32 [2, 3]: x, y, right
    enemy_bullets: jax.Array  # int32 [32]: 1 + 100 right + 10 y + x, descending


def rows(mask, *columns):
    """The rows of a table where `mask` holds, moved to its top."""
    order = jnp.argsort(~mask, stable=True)
    table = jnp.stack([jnp.asarray(c, jnp.int32) for c in columns], axis=-1)
    return jnp.where(mask[:, None], table, 0)[order]


def bullet_codes(mask, x, y, right):
    codes = 1 + 100 * jnp.asarray(right, jnp.int32) + 10 * y + x
    return -jnp.sort(-jnp.where(mask, codes, 0))


def listing(state):
    """Our state of one lane as a `Listing`."""
    fleet = state.fleet

    def bits(word):
        return (word >> jnp.arange(32, dtype=jnp.uint32)) & 1

    def number(words):
        return sum((bits(w) << k for k, w in enumerate(words)), bits(words[0]) * 0).astype(jnp.int32)

    alive, is_sub = bits(fleet.alive) == 1, bits(fleet.is_sub) == 1
    x, y, right, wait = number(fleet.x), number(fleet.y), bits(fleet.right), number(fleet.wait)
    bullets, divers = (
        jax.tree.map(lambda old, new: jnp.stack([old, new]), *reversed(pair))
        for pair in (state.bullets, state.divers)
    )
    return Listing(
        scalars={name: getattr(state, name) for name in FIELDS},
        fish=rows(alive & ~is_sub, x, y, right, wait),
        subs=rows(alive & is_sub, x, y, right, wait, number(fleet.load)),
        divers=rows(divers.alive, divers.x, divers.y, divers.right, divers.wait),
        bullets=rows(bullets.alive, bullets.x, bullets.y, bullets.right),
        enemy_bullets=bullet_codes(bits(fleet.shot) == 1, number(fleet.shot_x), y, right),
    )


def gymnax_listing(state):
    """Gymnax's state of one lane as a `Listing`."""

    def first(buffer, count, size):
        # A list longer than ours shows as a mismatch.
        fits = count <= size
        is_there = (jnp.arange(size) < count) & fits
        return jnp.where(is_there[:, None], buffer[:size], jnp.where(fits, 0, -9))

    shots = state.e_bullets
    codes = bullet_codes(jnp.arange(len(shots)) < state.e_bullet_count, shots[:, 0], shots[:, 1], shots[:, 2])
    return Listing(
        scalars={name: getattr(state, theirs) for name, theirs in FIELDS.items()},
        fish=first(state.e_fish, state.e_fish_count, 32),
        subs=first(state.e_subs, state.e_subs_count, 32),
        divers=first(state.divers, state.divers_count, 2),
        bullets=first(state.f_bullets, state.f_bullet_count, 2),
        enemy_bullets=jnp.where(state.e_bullet_count <= 32, codes[:32], -9),
    )


@foreign
def gymnax_draws(key):
    """What gymnax draws from the key of a step."""
    key_enemy, key_diver = jax.random.split(key)
    key_choice, key_enemy_y = jax.random.split(key_enemy)
    values = jax.random.uniform(key_choice, shape=(2,))
    key_direction, key_diver_y = jax.random.split(key_diver)
    return SeaquestDraws(
        is_sub=values[1] < (1.0 / 3.0),
        enemy_right=values[0] < 0.5,
        enemy_y=jax.random.randint(key_enemy_y, (), 1, 9),
        diver_right=jax.random.bernoulli(key_direction),
        diver_y=jax.random.randint(key_diver_y, (), 1, 9),
    )


@functools.cache
def gymnax_seaquest():
    return gymnax.make("Seaquest-MinAtar")[0]


def choose_action(key, state):
    """Mostly shoot and wander; chase divers; stay down until there is a reason to come up."""
    key_choice, key_random = jax.random.split(key)
    choice = jax.random.randint(key_choice, (NUM_LANES,), 0, 8)
    random = jax.random.randint(key_random, (NUM_LANES,), 0, 6)
    diver = state.divers[:, 0]
    towards = jnp.where(
        diver[:, 1] != state.sub_y,
        jnp.where(diver[:, 1] > state.sub_y, DOWN, UP),
        jnp.where(diver[:, 0] > state.sub_x, RIGHT, LEFT),
    )
    towards = jnp.where(state.divers_count > 0, towards, random)
    action = jnp.where(choice < 4, towards, jnp.where(choice < 6, FIRE, random))
    # Some lanes bob at the surface, which makes enemies frequent.
    bobs = (jnp.arange(NUM_LANES) % 8 == 0) & (choice > 0)
    action = jnp.where(bobs, jnp.where(state.sub_y > 0, UP, DOWN), action)
    drowns = (jnp.arange(NUM_LANES) % 8 == 1) | ((state.diver_count == 0) & ~bobs)
    return jnp.where(drowns & (action == UP) & (state.sub_y == 1), FIRE, action)


def share_a_cell(fish, count):
    """Whether two neighbours of the list are in one cell, bool `[B]`."""
    is_there = jnp.arange(1, fish.shape[1]) < count[:, None]
    return jnp.any(jnp.all(fish[:, 1:, :2] == fish[:, :-1, :2], axis=-1) & is_there, axis=-1)


@jax.jit
def compare_rollouts(key, params, their_params):
    """Step gymnax and ours side by side: mismatches of every kind, events.

    Odd lanes start anew when a game ends, with 0 to 6 divers aboard; even lanes go on until the
    time is up, with gymnax's terminal flag cleared, and so see the late and frequent enemies.
    """
    oracle, ours = gymnax_seaquest(), Given.make("minatar/Seaquest")[0]

    def reset(key):
        theirs = oracle.reset_env(key, their_params)[1]
        mine = ours.first((jnp.uint32(0),), params)
        aboard = jax.random.randint(key, (), 0, 7)
        return theirs.replace(diver_count=aboard), mine._replace(aboard=aboard)

    def differ(a, b):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        return jnp.sum(a != b)

    def step(carry, key):
        theirs, mine = carry
        key_action, key_step, key_reset = jax.random.split(key, 3)
        keys = jax.random.split(key_step, NUM_LANES)
        action = choose_action(key_action, theirs)
        draws = jax.vmap(gymnax_draws)(jax.random.clone(keys))
        obs, after, reward, terminated, _ = jax.vmap(oracle.step_env, (0, 0, 0, None))(
            keys, theirs, action, their_params
        )
        truncated = oracle.is_truncated(after, their_params)
        with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
            out = ours.step_words(draws, mine, action, params)
            our_obs = jnp.moveaxis(ours.observe(out[0], params), -1, 0)
        lists, their_lists = jax.vmap(listing)(out[0]), jax.vmap(gymnax_listing)(after)
        mismatches = jax.tree.map(differ, lists, their_lists)._asdict() | {
            "obs": differ(our_obs, obs),
            "reward": differ(out[1], reward),
            "terminated": differ(out[2], terminated),
            "truncated": differ(out[3], truncated),
        }
        surfaces = (after.sub_y == 0) & ~theirs.surface
        num_enemies = after.e_fish_count + after.e_subs_count
        events = {
            "kills": jnp.sum((reward > 0) & ~surfaces),
            "rescues": jnp.sum(surfaces & (theirs.diver_count == 6) & (reward > 0)),
            "surfacings": jnp.sum(surfaces),
            "surfacings without divers": jnp.sum(surfaces & (theirs.diver_count == 0)),
            "taken aboard": jnp.sum(after.diver_count > theirs.diver_count),
            "drowned": jnp.sum(terminated & (theirs.oxygen <= 0)),
            "touched": jnp.sum(terminated & (theirs.oxygen > 0) & ~surfaces),
            "fish": jnp.sum(after.e_fish_count > theirs.e_fish_count),
            "subs": jnp.sum(after.e_subs_count > theirs.e_subs_count),
            "enemy bullets": jnp.sum(after.e_bullet_count > theirs.e_bullet_count),
            "fastest": jnp.sum((after.e_spawn_speed == 1) & (after.move_speed == 2)),
            "fish in one cell": jnp.sum(share_a_cell(after.e_fish, after.e_fish_count)),
            "truncations": jnp.sum(truncated),
            "many enemies": jnp.sum(num_enemies >= 12),
        }
        fresh = jax.vmap(reset)(jax.random.split(key_reset, NUM_LANES))
        is_mortal = jnp.arange(NUM_LANES) % 2 == 1
        after = after.replace(terminal=after.terminal & is_mortal)
        carry = select(truncated | (terminated & is_mortal), fresh, (after, out[0]))
        return carry, (mismatches, events)

    key_reset, key_steps = jax.random.split(key)
    theirs, mine = jax.vmap(reset)(jax.random.split(key_reset, NUM_LANES))
    # Most of the time limit is behind some lanes.
    time = jnp.where(jnp.arange(NUM_LANES) % 4 == 2, 700, 0)
    first = theirs.replace(time=time), mine._replace(time=time)
    counts = jax.lax.scan(step, first, jax.random.split(key_steps, NUM_STEPS))[1]
    return jax.tree.map(jnp.sum, counts)


@pytest.mark.slow  # the minatar package is an oracle in the fast tier
@pytest.mark.foreign_oracle
def test_every_step_equals_gymnax():
    params = envs.make("minatar/Seaquest")[1]
    mismatches, events = jax.device_get(
        foreign(compare_rollouts)(jax.random.key(0), params, gymnax_seaquest().default_params)
    )
    assert mismatches == jax.tree.map(lambda _: 0, mismatches)
    assert len(jax.tree.leaves(mismatches)) == len(FIELDS) + 9
    at_least = {
        "kills": 200,
        "rescues": 20,
        "surfacings": 1000,
        "surfacings without divers": 5,
        "taken aboard": 300,
        "drowned": 100,
        "touched": 500,
        "fish": 1000,
        "subs": 500,
        "enemy bullets": 1000,
        "fastest": 1000,
        "many enemies": 1000,
        "fish in one cell": 500,
        "truncations": 16,
    }
    assert set(events) == set(at_least)
    assert [n for n, count in events.items() if count < at_least[n]] == []


# --- the minatar package --------------------------------------------------------------------------


class Scripted:
    """The random source of the minatar package, which hands out what it was given."""

    def __init__(self):
        self.values = []

    def rand(self):
        return self.values.pop(0)

    def randint(self, low, high):
        assert (low, high) == (1, 9)
        return self.values.pop(0)


def script(sim, draws):
    """What the package asks for in its next step: an enemy and a diver, if they are due."""
    enemy = [0.0 if draws.enemy_right else 0.9, 0.0 if draws.is_sub else 0.9, draws.enemy_y]
    diver = [0.0 if draws.diver_right else 0.9, draws.diver_y]
    sim.random.values = (enemy if sim.e_spawn_timer == 0 else []) + (diver if sim.d_spawn_timer == 0 else [])


def new_source():
    sim = source.Env()
    sim.random = Scripted()
    return sim


def pair(things, *fields):
    """Two of the player's bullets or divers, younger first, from a list of `[x, y, right, ...]`."""
    absent = {"alive": False, "x": 0, "y": 0, "right": False, "wait": 0}
    tables = [
        {"alive": True, "x": x, "y": y, "right": right, "wait": rest[0] if rest else 0}
        for x, y, right, *rest in reversed(things)
    ]
    return [{f: table[f] for f in fields} for table in (tables + [absent] * 2)[:2]]


def state_of(sim, time):
    """The package's state in our fields; its bullets fly beside enemies that are gone."""
    template = jax.device_get(first_state())
    fleet = dict.fromkeys(("alive", "is_sub", "right", "shot"), 0)
    numbers = {"y": [0] * 4, "x": [0] * 4, "wait": [0] * 3, "load": [0] * 4, "shot_x": [0] * 4}
    fish, subs = ("x", "y", "right", "wait"), ("x", "y", "right", "wait", "load")
    enemies = [{"alive": 1} | dict(zip(fish, e, strict=True)) for e in sim.e_fish]
    enemies += [{"alive": 1, "is_sub": 1} | dict(zip(subs, e, strict=True)) for e in sim.e_subs]
    enemies += [{"shot": 1, "shot_x": x, "y": y, "right": r} for x, y, r in sim.e_bullets]
    assert len(enemies) < 32  # there is room for one more
    for i, enemy in enumerate(enemies, start=32 - len(enemies)):
        for name, value in enemy.items():
            if name in fleet:
                fleet[name] |= int(value) << i
            else:
                for k in range(len(numbers[name])):
                    numbers[name][k] |= (int(value) >> k & 1) << i
    words = {f: np.uint32(w) for f, w in fleet.items()}
    words |= {f: tuple(np.uint32(w) for w in ws) for f, ws in numbers.items()}
    bullets = pair(sim.f_bullets, "alive", "right", "y", "x")
    divers = pair(sim.divers, "alive", "right", "y", "x", "wait")
    scalars = {
        name: np.asarray(time if name == "time" else getattr(sim, theirs)) for name, theirs in FIELDS.items()
    }
    state = template._replace(
        **scalars,
        fleet=template.fleet._replace(**words),
        bullets=tuple(t._replace(**b) for t, b in zip(template.bullets, bullets, strict=True)),
        divers=tuple(t._replace(**d) for t, d in zip(template.divers, divers, strict=True)),
    )
    return jax.tree.map(lambda x, like: np.asarray(x, like.dtype), state, template)


@functools.cache
def first_state():
    env, params = envs.make("minatar/Seaquest")
    return env.first((jnp.uint32(0),), params)


list_state = jax.jit(listing)


@jax.jit
def step_listing(state, action, draws):
    """One step: the listing of the state after it, its observation, reward and terminated."""
    env, params = Given.make("minatar/Seaquest")
    after, reward, terminated, _ = env.step_words(draws, state, action, params)
    return listing(after), env.observe(after, params), reward, terminated


def random_draws(rng):
    return SeaquestDraws(
        is_sub=np.bool_(rng.random() < 1 / 3),
        enemy_right=np.bool_(rng.random() < 0.5),
        enemy_y=np.int32(rng.integers(1, 9)),
        diver_right=np.bool_(rng.random() < 0.5),
        diver_y=np.int32(rng.integers(1, 9)),
    )


def differences(ours, theirs):
    """Names of the parts in which two listings differ."""
    ours, theirs = (jax.device_get(x)._asdict() for x in (ours, theirs))
    parts = [x.pop("scalars") | x for x in (ours, theirs)]
    return {name for name, value in parts[0].items() if not np.array_equal(value, parts[1][name])}


@pytest.mark.slow
def test_every_step_equals_the_minatar_package():
    """One step at a time from the package's own states, in games that start at every pace."""
    rng = np.random.default_rng(0)
    sim, time, counts = new_source(), 0, dict.fromkeys(["kills", "ends", "rescues", "aboard"], 0)
    for _ in range(1200):
        if sim.terminal or time == 150:
            sim, time = new_source(), 0
            sim.ramp_index = int(rng.integers(0, 20))
            sim.e_spawn_speed, sim.move_speed = 20 - sim.ramp_index, max(5 - sim.ramp_index // 2, 2)
            sim.diver_count = int(rng.integers(1, 7))
        before, draws = state_of(sim, time), random_draws(rng)
        # Fire, wander, fetch divers, and come up now and then.
        action = int(rng.choice(6, p=[0.04, 0.16, 0.06, 0.16, 0.18, 0.4]))
        if sim.divers and rng.random() < 0.6:
            x, y, *_ = sim.divers[0]
            action = RIGHT if x > sim.sub_x else LEFT if x < sim.sub_x else FIRE
            action = DOWN if y > sim.sub_y else UP if y < sim.sub_y else action
        if sim.sub_y == 1 and sim.diver_count > 0 and rng.random() < 1 / 3:
            action = UP
        script(sim, draws)
        reward, is_terminal = sim.act(action)
        after, obs, our_reward, terminated = step_listing(before, np.int32(action), draws)
        time += 1
        assert our_reward == reward
        assert terminated == is_terminal
        differing = differences(after, list_state(state_of(sim, time)))
        if sim.sub_y == 0 and before.y > 0 and before.aboard == 0:
            assert differing  # see below
            continue
        assert not differing, differing
        np.testing.assert_array_equal(obs, sim.state())
        surfaces = sim.sub_y == 0 and before.y > 0
        counts["kills"] += reward > 0 and not surfaces
        counts["rescues"] += reward > 0 and surfaces
        counts["ends"] += is_terminal
        counts["aboard"] += sim.diver_count > before.aboard
    assert min(counts.values()) >= 5, counts


def both_steps(sim, action):
    """One step without arrivals of a crafted state: our listing, the package's, the differences."""
    draws = random_draws(np.random.default_rng(0))
    before = state_of(sim, 0)
    reward, is_terminal = sim.act(action)
    after, _, our_reward, terminated = step_listing(before, np.int32(action), draws)
    assert our_reward == reward
    assert terminated == is_terminal
    theirs = list_state(state_of(sim, 1))
    return after, theirs, differences(after, theirs)


@pytest.mark.slow
def test_differs_a_submarine_shot_while_it_moves_does_not_fire():
    sim = new_source()
    sim.e_subs, sim.f_bullets = [[4, 3, True, 0, 0]], [[6, 3, False]]
    ours, theirs, differing = both_steps(sim, STAY)
    assert differing == {"enemy_bullets"}
    assert ours.enemy_bullets[0] == 0
    assert theirs.enemy_bullets[0] == 1 + 100 + 30 + 6


def test_differs_the_older_of_two_divers_takes_the_last_place():
    sim = new_source()
    sim.sub_y, sim.diver_count = 4, 5
    sim.divers = [[5, 4, True, 2], [5, 4, False, 3]]
    ours, theirs, differing = both_steps(sim, STAY)
    assert differing == {"divers"}
    assert ours.divers.tolist() == [[5, 4, 0, 2], [0] * 4]
    assert theirs.divers.tolist() == [[5, 4, 1, 1], [0] * 4]


def test_differs_the_terminal_state_of_a_surfacing_without_divers():
    sim = new_source()
    sim.sub_y, sim.surface, sim.oxygen, sim.ramp_index = 1, False, 60, 1
    ours, _, differing = both_steps(sim, UP)
    paces = {"ramp_index", "spawn_interval", "move_interval"}
    assert differing == {"oxygen", "aboard", "surfaced"} | paces
    assert ours.scalars["aboard"] == -1


def test_the_fleet_has_room_where_an_enemy_comes_in_each_step():
    """Submarines in one row at the fastest pace, against what the rules give for each age."""
    draws = SeaquestDraws(jnp.array(True), jnp.array(True), jnp.int32(3), jnp.array(True), jnp.int32(8))
    state = first_state()._replace(
        spawn_interval=jnp.int32(1), spawn_timer=jnp.int32(0), move_interval=jnp.int32(2)
    )
    step = jax.jit(lambda state: play(state, jnp.int32(STAY), draws)[0])
    for _ in range(100):
        state = step(state)
    ages = np.arange(28, -1, -1)  # steps since they came; at 29 they have left
    expected = [((a + 1) // 3, 3, 1, 2 - (a + 1) % 3, 10 - (a + 1) % 11) for a in ages]
    lists = jax.device_get(list_state(state))
    np.testing.assert_array_equal(lists.subs[:29], expected)
    assert not lists.subs[29:].any()
    # Fired at age 10 from column 3 and at age 21 from column 7.
    columns = [9, 9, 8, 8, 7, 6, 5, 4]
    assert lists.enemy_bullets.tolist() == [1 + 100 + 30 + x for x in columns] + [0] * 24


# --- draws, first states, lanes -------------------------------------------------------------------


def test_draws_are_distributed_as_those_of_gymnax():
    num = 40_000
    ours = jax.jit(lambda key: draw(lane_words(key, num, 1, 0)))(jax.random.key(1))
    theirs = jax.jit(jax.vmap(gymnax_draws))(jax.random.split(jax.random.key(2), num))
    ours, theirs = (jax.tree.map(lambda x: np.asarray(x, np.int64), x) for x in (ours, theirs))
    chances = {"is_sub": [2 / 3, 1 / 3], "enemy_right": [1 / 2] * 2, "diver_right": [1 / 2] * 2}
    chances |= {"enemy_y": [0] + [1 / 8] * 8, "diver_y": [0] + [1 / 8] * 8}
    assert set(chances) == set(SeaquestDraws._fields)
    for name, chance in chances.items():
        table = [np.bincount(getattr(d, name), minlength=len(chance)) for d in (ours, theirs)]
        assert [len(t) for t in table] == [len(chance)] * 2
        drawn = np.array(chance) > 0
        assert np.all(np.array(table)[:, ~drawn] == 0)
        table = np.array(table)[:, drawn]
        assert scipy.stats.chi2_contingency(table).pvalue > 1e-3, name
        assert scipy.stats.chisquare(table[0], num * np.array(chance)[drawn]).pvalue > 1e-3, name
    # All five are independent.
    joint = np.ravel_multi_index(
        [ours.is_sub, ours.enemy_right, ours.enemy_y - 1, ours.diver_right, ours.diver_y - 1], (2, 2, 8, 2, 8)
    )
    expected = num * np.repeat([2 / 3, 1 / 3], 256) / 256
    assert scipy.stats.chisquare(np.bincount(joint, minlength=512), expected).pvalue > 1e-3


@pytest.mark.foreign_oracle
def test_first_states_are_those_of_gymnax():
    env, params = envs.make("minatar/Seaquest")
    oracle = gymnax_seaquest()
    obs, state = jax.jit(oracle.reset_env)(jax.random.key(4), oracle.default_params)
    ours = first_state()
    assert not differences(list_state(ours), jax.jit(gymnax_listing)(state))
    np.testing.assert_array_equal(jax.jit(env.observe)(ours, params), obs)
    np.testing.assert_array_equal(obs, source.Env().state())
    assert not differences(list_state(ours), list_state(state_of(source.Env(), 0)))


def rollout(num_lanes, num_steps):
    """States of random games that never start anew, leaves `[T, B]`."""
    env, params = envs.make("minatar/Seaquest")

    def step(state, words):
        action = (words[1] % 6).astype(jnp.int32)
        state = env.step_words(words[:1], state, action, params)[0]
        return state, state

    keys = jax.random.split(jax.random.key(0), num_steps)
    words = jax.vmap(lambda key: lane_words(key, num_lanes, 2, 0))(keys)
    first = env.first((jnp.zeros(num_lanes, jnp.uint32),), params)
    return words, first, jax.lax.scan(step, first, words)[1]


@pytest.mark.slow
def test_a_batch_equals_its_lanes():
    env, params = envs.make("minatar/Seaquest")
    words, first, states = jax.jit(rollout, static_argnums=(0, 1))(4, 150)

    @jax.jit
    @functools.partial(jax.vmap, in_axes=-1)
    def lane_by_lane(words, state):
        def step(state, words):
            action = (words[1] % 6).astype(jnp.int32)
            return env.step_words(words[:1], state, action, params)[0], None

        state = jax.lax.scan(step, state, words)[0]
        return state, env.observe(state, params)

    lanes, obs = lane_by_lane(words, first)
    last = jax.tree.map(lambda x: x[-1], states)
    for a, b in zip(jax.tree.leaves(lanes), jax.tree.leaves(last), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(np.moveaxis(np.asarray(env.observe(last, params)), -1, 0), obs)


def test_invariants_hold_and_see_what_is_broken():
    env, params = envs.make("minatar/Seaquest")
    invariants = jax.jit(env.invariants)
    states = jax.jit(rollout, static_argnums=(0, 1))(64, 300)[2]
    flat = jax.tree.map(lambda x: x.reshape(-1), states)
    assert [n for n, holds in invariants(flat, params).items() if not np.all(holds)] == []
    state = jax.tree.map(lambda x: x[0], flat)
    one, none = jnp.uint32(1), jnp.uint32(0)
    at_row_1 = state.fleet._replace(alive=jnp.uint32(3), y=(jnp.uint32(3), none, none, none), x=(none,) * 4)
    broken = {
        "player_on_board": {"x": jnp.int32(10)},
        "enemies_on_board": {"fleet": state.fleet._replace(alive=one, x=(none, one, none, one))},
        "rows_are_one_way": {"fleet": at_row_1._replace(right=one)},
        "oxygen_and_crew": {"aboard": jnp.int32(7)},
        "paces": {"move_interval": jnp.int32(1)},
    }
    for name, fields in broken.items():
        checks = invariants(state._replace(**fields), params)
        assert name in [n for n, holds in checks.items() if not holds]
    assert all(invariants(state._replace(fleet=at_row_1), params).values())
