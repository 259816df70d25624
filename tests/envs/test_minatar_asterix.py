"""Asterix against gymnax under gymnax's own draws and against the MinAtar package under ours."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import minatar.environments.asterix as source
import numpy as np
import pytest
import scipy.stats
from gymnax.environments.minatar import asterix as peer

import envs
from envs.common.branch import select
from envs.common.foreign import foreign
from envs.minatar.asterix import Asterix, AsterixDraws, draw, play
from envs.vector import VectorEnv
from envs.words import STEP_STREAM, lane_words

NUM_LANES = 64
TASKS = {
    "default": {},
    # The last pace is reached in 20 steps, so that rows fill up in most episodes.
    "quick": {"ramp_interval": 5, "init_spawn_speed": 3, "init_move_interval": 2, "max_steps": 90},
}
LOW = {"init_move_interval": 1, "ramp_interval": 5}  # gymnax lets it sink to 0


class ToldAsterix(Asterix):
    """Asterix whose words are what chance decided."""

    def advance(self, words, state, action, params):
        return play(state, action, words, params)


class Steps(NamedTuple):
    """A rollout of both, leaves `[T, B]`."""

    mismatches: dict
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    spawns: np.ndarray
    num_free: np.ndarray  # before the step
    num_after: np.ndarray  # things on the board
    spawn_speed: np.ndarray
    move_speed: np.ndarray
    their_move_speed: np.ndarray


def make_both(overrides):
    env, params = ToldAsterix.make("minatar/Asterix", **overrides)
    names = {"max_steps": "max_steps_in_episode"}
    theirs = {names.get(name, name): value for name, value in overrides.items()}
    return env, params, *envs.make("gymnax/Asterix-MinAtar", **theirs)


def nibbles(word):
    """The eight rows of a word: int32 `[B, 8]`."""
    shifts = jnp.arange(0, 32, 4, dtype=jnp.uint32)
    return ((word[:, None] >> shifts[None]) & 15).astype(jnp.int32)


def entities_of(state):
    """`columns`, `rightward` and `gold` as gymnax has them, `[B, 8, 5]`, zeros where nothing is."""
    column, right, gold = (nibbles(w) for w in (state.columns, state.rightward, state.gold))
    is_there = (column > 0).astype(jnp.int32)
    row = jnp.broadcast_to(jnp.arange(1, 9, dtype=jnp.int32), column.shape)
    return jnp.stack([column - 1, row, right & 1, gold & 1, is_there], -1) * is_there[..., None]


def their_draws(keys, entities):
    """What gymnax draws from `keys` for a board of `entities`, as ours takes it."""

    def sample(key):
        key_side, key_gold, key_slot = jax.random.split(key, 3)
        side = jax.random.choice(key_side, jnp.array([1, 0]))
        odds = jnp.array([1 / 3, 2 / 3])
        is_gold = jax.random.choice(key_gold, jnp.array([1, 0]), p=odds)
        return side == 1, is_gold == 1, jax.random.permutation(key_slot, jnp.arange(8))

    goes_right, is_gold, order = foreign(jax.vmap(sample))(jax.random.clone(keys))
    is_free = entities[..., 4] == 0
    in_order = jnp.take_along_axis(is_free, order, axis=1).at[:, 0].set(False)
    finds = jnp.any(in_order, axis=1)
    at = jnp.where(finds, jnp.argmax(in_order, axis=1), 7)
    slot = jnp.take_along_axis(order, at[:, None], axis=1)
    rows = is_free == finds[:, None]  # those in question
    rank = jnp.sum(rows & (jnp.arange(8)[None] < slot), axis=1)
    # The middle of the interval of fractions that pick this rank.
    pick = ((2 * rank + 1) << 15) // jnp.sum(rows, axis=1)
    overlooks = ~finds & jnp.any(is_free, axis=1)
    return AsterixDraws(goes_right, is_gold, pick.astype(jnp.uint32), overlooks)


def clairvoyant(env, draws, state, params, key):
    """A reward if there is one, no end if there is another way; a random action in fifty."""
    key_noise, key_slip, key_random = jax.random.split(key, 3)
    noise = jax.random.uniform(key_noise, (env.num_actions, NUM_LANES))
    scores = []
    for action in range(env.num_actions):
        actions = jnp.full((NUM_LANES,), action, jnp.int32)
        _, reward, ends = env.advance(draws, state, actions, params)
        scores.append(reward - 2 * ends.astype(jnp.float32) + noise[action])
    best = jnp.argmax(jnp.stack(scores), axis=0).astype(jnp.int32)
    any_action = jax.random.randint(key_random, best.shape, 0, env.num_actions, jnp.int32)
    return jnp.where(jax.random.uniform(key_slip, best.shape) < 0.02, any_action, best)


def differences(ours, theirs):
    """How many values differ, by name."""
    assert ours.keys() == theirs.keys()
    return {name: jnp.sum(jnp.asarray(ours[name] != theirs[name])) for name in ours}


def fields_of(state):
    """Our state by gymnax's names; `shot_timer` is never used there."""
    named = state._asdict() | {"entities": entities_of(state)}
    return {name: x for name, x in named.items() if name not in ("columns", "rightward", "gold")}


def their_fields(state):
    fields = {name: getattr(state, name) for name in state.__dataclass_fields__}
    fields["entities"] = fields["entities"] * fields["entities"][..., 4:]
    return {name: x for name, x in fields.items() if name not in ("shot_timer", "terminal")}


def step_both(env, their_env, tasks, starts, states, key):
    """Both from the same draws, each on its own state, reset together."""
    (params, their_params), (state, their_state) = tasks, states
    key_action, key_step = jax.random.split(key)
    keys = jax.random.split(key_step, NUM_LANES)
    draws = their_draws(keys, their_state.entities)
    action = clairvoyant(env, draws, state, params, key_action)
    after, reward, terminated, truncated = env.step_words(draws, state, action, params)
    their_step = jax.vmap(their_env.step, in_axes=(0, 0, 0, None))
    their_obs, their_after, *their_flags, _ = their_step(keys, their_state, action, their_params)
    ours = {"obs": jnp.moveaxis(env.observe(after, params), -1, 0)} | fields_of(after)
    ours |= {"reward": reward, "terminated": terminated, "truncated": truncated}
    theirs = {"obs": their_obs} | their_fields(their_after)
    theirs |= dict(zip(("reward", "terminated", "truncated"), their_flags, strict=True))
    out = Steps(
        mismatches=differences(ours, theirs),
        reward=reward,
        terminated=terminated,
        truncated=truncated,
        spawns=state.spawn_timer == 0,
        num_free=jnp.sum(nibbles(state.columns) == 0, axis=1),
        num_after=jnp.sum(nibbles(after.columns) != 0, axis=1),
        spawn_speed=after.spawn_speed,
        move_speed=after.move_speed,
        their_move_speed=their_after.move_speed,
    )
    return select(terminated | truncated, starts, (after, their_after)), out


@functools.cache
def compiled_rollout():
    """One program for all tasks."""
    env, _, their_env, _ = make_both({})

    def run(keys, tasks, starts):
        step = functools.partial(step_both, env, their_env, tasks, starts)
        return jax.lax.scan(step, starts, keys)[1]

    return jax.jit(run)


@functools.cache
def rollouts(task):
    """How the first states differ, and 1100 steps of both."""
    env, params, their_env, their_params = make_both((TASKS | {"low": LOW})[task])
    start = env.first((jnp.zeros((NUM_LANES,), jnp.uint32),), params)
    keys = jax.random.split(jax.random.key(1), NUM_LANES)
    _, their_start = jax.vmap(their_env.reset, in_axes=(0, None))(keys, their_params)
    keys = jax.random.split(jax.random.key(2), 1100)
    steps = compiled_rollout()(keys, (params, their_params), (start, their_start))
    return jax.device_get((differences(fields_of(start), their_fields(their_start)), steps))


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_every_step_equals_gymnax(task):
    start, steps = rollouts(task)
    assert not any(start.values()), start
    wrong = {name: int(count.sum()) for name, count in steps.mismatches.items()}
    assert set(wrong) > {"obs", "reward", "terminated", "truncated", "entities", "time"}
    assert not any(wrong.values()), wrong
    # What must have happened for the comparison to mean something.
    assert steps.reward.sum() > 500
    assert steps.terminated.sum() > 20
    assert steps.truncated.sum() > 20
    assert (steps.terminated & (steps.reward > 0)).sum() == 0, "one thing a row"
    assert steps.spawn_speed.min() == steps.move_speed.min() == 1
    assert (steps.spawns & (steps.num_free == 0)).sum() > 100
    assert (steps.spawns & (steps.num_free == 1)).sum() > 100


def test_the_default_task_is_that_of_gymnax():
    env, params, _, their_params = make_both({})
    assert env.max_steps == params.max_steps == their_params.max_steps_in_episode == 1000
    for name in ("ramp_interval", "init_spawn_speed", "init_move_interval"):
        assert getattr(params, name) == getattr(their_params, name), name
    assert their_params.ramping


@pytest.mark.slow
def test_a_full_board_loses_something_to_an_arrival():
    _, steps = rollouts("quick")
    calm = (steps.reward == 0) & steps.spawns
    assert (steps.num_after[calm & (steps.num_free == 0)] <= 7).all()


# --- the MinAtar package, under our own draws ----------------------------------------------------

NUMBERS = (
    "player_x",
    "player_y",
    "spawn_speed",
    "spawn_timer",
    "move_speed",
    "move_timer",
    "ramp_timer",
    "ramp_index",
)


class ToldRandom:
    """The random source of the MinAtar package, answering what ours drew."""

    def __init__(self, draws):
        self._uniform = iter([0.0 if draws.goes_right else 0.9, 0.0 if draws.is_gold else 0.9])
        self._pick = int(draws.pick)

    def rand(self):
        return next(self._uniform)

    def randint(self, bound):
        return (self._pick * bound) >> 16


def load_source(state, draws):
    """The MinAtar package in the state of one lane."""
    game = source.Env()
    for name in NUMBERS:
        setattr(game, name, int(getattr(state, name)))
    game.entities = things_of(state)
    game.random = ToldRandom(draws)
    return game


def things_of(state):
    """Things by row as the package lists them: `[x, y, goes right, is treasure]` or None."""
    things = []
    for row in range(8):
        column = (int(state.columns) >> 4 * row) & 15
        right, gold = ((int(w) >> 4 * row) & 1 == 1 for w in (state.rightward, state.gold))
        things.append([column - 1, row + 1, right, gold] if column else None)
    return things


def at(tree, index):
    return jax.tree.map(lambda x: x[index], tree)


@functools.cache
def own_rollout():
    """States before and after, `[T, B]`, of a lucky player under our own words."""
    env, params = ToldAsterix.make("minatar/Asterix", max_steps=10**6)
    start = env.first((jnp.zeros((NUM_LANES,), jnp.uint32),), params)
    # Half of the lanes start at the paces of the default task, half move slowly and fill up.
    lanes = jnp.arange(NUM_LANES, dtype=jnp.int32)
    ramps, is_slow = lanes % 10, lanes >= NUM_LANES // 2
    start = start._replace(
        ramp_index=ramps, spawn_speed=10 - ramps, move_speed=jnp.where(is_slow, 4, 5 - ramps // 2)
    )

    def step(state, key):
        key_words, key_action = jax.random.split(key)
        draws = draw(lane_words(key_words, NUM_LANES, env.num_step_words, STEP_STREAM))
        action = clairvoyant(env, draws, state, params, key_action)
        after, reward, terminated, _ = env.step_words(draws, state, action, params)
        obs = jnp.moveaxis(env.observe(after, params), -1, 0)
        kept = select(terminated, start, after)
        return kept, (state, draws, action, after, reward, terminated, obs)

    keys = jax.random.split(jax.random.key(4), 230)
    return jax.device_get(jax.jit(lambda s: jax.lax.scan(step, s, keys)[1])(start))


def test_every_step_equals_the_source_except_where_it_finds_no_free_row():
    state, draws, action, after, reward, terminated, obs = own_rollout()
    seen = {"same": 0, "wiped": 0, "overlooked": 0, "ended": 0}
    for t, i in np.ndindex(action.shape):
        before, drawn, ours = (at(x, (t, i)) for x in (state, draws, after))
        game = load_source(before, drawn)
        num_free = game.entities.count(None)
        their_reward, their_end = game.act(int(action[t, i]))
        overlooks = num_free == 1 and bool(drawn.overlooks)
        if int(before.spawn_timer) == 0 and (num_free == 0 or overlooks):
            if before.move_timer > 0 and not their_reward and not reward[t, i]:
                seen["overlooked" if overlooks else "wiped"] += 1
                missing = [x for x in game.entities if x not in things_of(ours)]
                assert len(missing) == 1 + overlooks, "the source keeps all, and adds where it can"
                assert all(x in game.entities for x in things_of(ours) if x)
            continue
        seen["same"] += 1
        seen["ended"] += their_end
        assert (their_reward, their_end) == (reward[t, i], terminated[t, i])
        np.testing.assert_array_equal(game.state(), obs[t, i])
        assert game.entities == things_of(ours)
        for name in NUMBERS:
            assert getattr(game, name) == int(getattr(ours, name)), name
    assert min(seen.values()) > 5, seen


@pytest.mark.slow
def test_the_interval_between_moves_ends_at_1_as_in_the_source():
    start, steps = rollouts("low")
    assert not any(start.values()), start
    is_wrong = {name: x > 0 for name, x in steps.mismatches.items()}
    first = min(int(x.argmax()) for x in is_wrong.values() if x.any())
    assert [name for name, x in is_wrong.items() if x[first]] == ["move_speed"]
    assert set(steps.move_speed[first]) == {1}
    assert steps.their_move_speed[first].min() == 0

    state, draws, *_ = at(own_rollout(), (0, 0))
    due = state._replace(ramp_index=1, ramp_timer=-1, spawn_speed=9, move_speed=1)
    game = load_source(due, draws)
    game.act(0)
    assert (game.spawn_speed, game.move_speed) == (8, 1)


# --- draws ---------------------------------------------------------------------------------------

NUM_DRAWS = 20_000
OCCUPIED = {"none": 0b0, "some": 0b00110101, "six": 0b11101110, "seven": 0b11011111, "all": 0xFF}


@functools.cache
def compiled_arrivals():
    """gymnax's and ours, over lanes."""
    spawn = foreign(jax.vmap(peer.spawn_entity, in_axes=(0, None)))
    return jax.jit(spawn), jax.jit(play)


@pytest.mark.slow
@pytest.mark.parametrize("occupied", OCCUPIED.values(), ids=OCCUPIED)
def test_arrivals_are_distributed_as_in_gymnax(occupied):
    """Row, found or not, side and kind together: 64 outcomes, independence included."""
    is_there = np.array([occupied >> row & 1 for row in range(8)])
    entities = np.stack([5 * is_there, range(1, 9) * is_there, *[0 * is_there] * 2, is_there], 1)
    their_env, their_params = envs.make("gymnax/Asterix-MinAtar")
    _, state = their_env.reset(jax.random.key(0), their_params)
    state = state.replace(entities=jnp.asarray(entities, jnp.int32))
    spawn, played = compiled_arrivals()
    entity, slot = spawn(jax.random.split(jax.random.key(6), NUM_DRAWS), state)
    theirs = outcome(slot, entity[:, 4], entity[:, 2], entity[:, 3])

    env, params = envs.make("minatar/Asterix")
    first = env.first((jnp.zeros((NUM_DRAWS,), jnp.uint32),), params)
    columns = jnp.uint32(sum(6 << 4 * row for row in range(8) if is_there[row]))
    first = first._replace(
        columns=first.columns + columns,
        spawn_timer=jnp.zeros_like(first.spawn_timer),
        player_x=first.player_x - 1,
    )
    words = lane_words(jax.random.key(8), NUM_DRAWS, env.num_step_words, STEP_STREAM)
    draws = draw(words)
    after, reward, terminated = played(first, jnp.zeros_like(first.time), draws, params)
    assert not reward.any()
    assert not terminated.any()
    changed = nibbles(after.columns ^ first.columns) != 0
    assert (changed.sum(axis=1) == 1).all()
    row, lanes = jnp.argmax(changed, axis=1), jnp.arange(NUM_DRAWS)
    found = nibbles(after.columns)[lanes, row] != 0
    # An entity that wipes has a side and a kind in gymnax too, which nothing shows.
    right, gold = draws.goes_right, draws.is_gold
    there = [(nibbles(w)[lanes, row] & 1)[found] for w in (after.rightward, after.gold)]
    np.testing.assert_array_equal(there, [right[found], gold[found]])
    ours = outcome(row, found, right, gold)
    table = np.stack([np.bincount(x, minlength=64) for x in (ours, theirs)])
    assert scipy.stats.chi2_contingency(table[:, table.any(axis=0)]).pvalue > 1e-3
    assert np.array_equal(*table.astype(bool)), "the same outcomes are possible"


def outcome(row, found, right, gold):
    parts = (np.asarray(x).astype(int) for x in (row, found, right, gold))
    return np.ravel_multi_index(tuple(parts), (8, 2, 2, 2))


# --- the frame -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_one_lane_equals_many():
    env, params = envs.make("minatar/Asterix", init_spawn_speed=1, init_move_interval=1)
    words = lane_words(jax.random.key(3), 5, env.num_step_words, STEP_STREAM)
    state = env.first(words[:1], params)
    turns = jnp.array([1, 2, 3, 4, 0, 1, 1, 2, 2, 2], jnp.int32)

    def run(words, state, lane):
        def step(state, turn):
            after, *outcome = env.step_words(words, state, (lane + turn) % 5, params)
            return after, (env.observe(after, params), outcome)

        return jax.lax.scan(step, state, turns)

    def check(many, one):
        assert (many.shape, many.dtype) == (one.shape, one.dtype)
        np.testing.assert_array_equal(many, one)

    many = jax.jit(run)(words, state, jnp.arange(5, dtype=jnp.int32))
    single = jax.jit(run)
    singles = [single(*at((words, state), i), jnp.array(i, jnp.int32)) for i in range(5)]
    jax.tree.map(check, many, jax.tree.map(lambda *x: jnp.stack(x, axis=-1), *singles))
    assert many[1][0].sum() > 50 * 1.5, "there was something to see"


def test_invariants_hold_and_see_a_broken_state():
    env, params = envs.make("minatar/Asterix", max_steps=10**6)
    _, _, _, after, *_ = own_rollout()
    for name, holds in env.invariants(after, params).items():
        assert np.asarray(holds).all(), name
    _, good = env.reset(jax.random.key(0), params)
    for broken in (
        good._replace(player_y=jnp.array(9, jnp.int32)),
        good._replace(columns=jnp.uint32(11 << 8)),
        good._replace(move_speed=jnp.array(0, jnp.int32)),
        good._replace(time=jnp.array(-1, jnp.int32)),
    ):
        assert not all(env.invariants(broken, params).values())


@pytest.mark.slow
def test_lanes_reset_to_an_empty_board():
    env, params = envs.make("minatar/Asterix", max_steps=30, init_spawn_speed=2)
    vector = VectorEnv(env, num_lanes=8)
    state = vector.reset(jax.random.key(0), params)
    first = state
    step = jax.jit(vector.step)
    for i in range(30):
        state, out = step(jax.random.key(i), state, jnp.zeros((8,), jnp.int32))
    assert out.truncated.any()
    for lane in np.flatnonzero(out.truncated | out.terminated):
        np.testing.assert_array_equal(out.obs[lane], first.obs[lane])
        assert out.final_obs[lane].sum() > out.obs[lane].sum() == 1


def test_render_shows_what_is_on_the_board():
    env, params = envs.make("minatar/Asterix")
    _, state = env.reset(jax.random.key(0), params)
    empty = env.render(state, params)
    enemy = env.render(state._replace(columns=jnp.uint32(4)), params)
    gold = env.render(state._replace(columns=jnp.uint32(4), gold=jnp.uint32(1)), params)
    pictures = (empty, enemy, gold)
    assert all(p.dtype == np.uint8 and p.shape[-1] == 3 for p in pictures)
    assert len({p.tobytes() for p in pictures}) == 3
