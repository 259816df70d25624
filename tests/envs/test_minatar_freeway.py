"""Freeway against gymnax (every step, all fields) and against the minatar package."""

import functools

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from minatar.environments import freeway as source

import envs
from envs.common.foreign import foreign
from envs.minatar.freeway import Freeway, FreewayState, draw, play
from envs.words import lane_words

NUM_LANES, NUM_STEPS = 64, 2600
STAY, UP, DOWN = 0, 1, 2


class Given(Freeway):
    """Freeway that takes the new speeds where others take random words."""

    def advance(self, words, state, action, params):
        return play(state, action, words, params)


def digits(values):
    """Eight numbers 0 to 15 as the digits of a word."""
    shifts = 4 * jnp.arange(8, dtype=jnp.uint32)
    return jnp.sum(jnp.asarray(values, jnp.uint32) << shifts, axis=-1, dtype=jnp.uint32)


def numbers(word):
    """The eight digits of a word, on the host."""
    return [(int(word) >> (4 * i)) & 15 for i in range(8)]


def speed_digits(speeds):
    """Signed speeds, positive to the right, as `FreewayState.speed`."""
    speeds = jnp.asarray(speeds, jnp.int32)
    return digits(jnp.abs(speeds) + jnp.where(speeds > 0, 8, 0))


def speed_numbers(word):
    return [(d & 7) * (1 if d & 8 else -1) for d in numbers(word)]


def as_ours(state):
    """Gymnax's state in our fields."""
    return FreewayState(
        pos=jnp.asarray(state.pos, jnp.int32),
        move_timer=jnp.asarray(state.move_timer, jnp.int32),
        x=digits(state.cars[:, 0]),
        wait=digits(state.cars[:, 2]),
        speed=speed_digits(state.cars[:, 3]),
        time=jnp.asarray(state.time, jnp.int32),
    )


@foreign
def gymnax_speeds(key):
    """What gymnax draws from the key of a reset or a step, signed."""
    key_speed, key_dirs = jax.random.split(key)
    speeds = jax.random.randint(key_speed, shape=(8,), minval=1, maxval=6)
    return speeds * jax.random.choice(key_dirs, jnp.array([-1, 1]), shape=(8,))


@functools.cache
def gymnax_freeway():
    return gymnax.make("Freeway-MinAtar")[0]


def mostly_up(key):
    """Actions that cross the road often, int32 `[B]`."""
    choice = jax.random.randint(key, (NUM_LANES,), 0, 16)
    return jnp.where(choice == 0, STAY, jnp.where(choice == 1, DOWN, UP))


@jax.jit
def compare_rollouts(key, params, their_params):
    """Step gymnax without resets and ours beside it: mismatches of every kind, events."""
    oracle, ours = gymnax_freeway(), Given.make("minatar/Freeway")[0]
    key_reset, key_steps = jax.random.split(key)

    def differ(a, b):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        return jnp.sum(a != b)

    def step(state, key):
        key_action, key_step = jax.random.split(key)
        keys = jax.random.split(key_step, NUM_LANES)
        action = mostly_up(key_action)
        speed = speed_digits(jax.vmap(gymnax_speeds)(jax.random.clone(keys)))
        obs, after, reward, terminated, _ = jax.vmap(oracle.step_env, (0, 0, 0, None))(
            keys, state, action, their_params
        )
        our_before, our_after = jax.vmap(as_ours)(state), jax.vmap(as_ours)(after)
        with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
            out = ours.step_words(speed, our_before, action, params)
            mismatches = {f: differ(a, getattr(our_after, f)) for f, a in out[0]._asdict().items()} | {
                "obs": differ(jnp.moveaxis(ours.observe(out[0], params), -1, 0), obs),
                "reward": differ(out[1], reward),
                "terminated": differ(out[2], terminated),
                "truncated": differ(out[3], oracle.is_truncated(after, their_params)),
            }
        events = {
            "crossings": jnp.sum(reward == 1),
            "hits": jnp.sum((after.pos == 9) & (state.pos < 8) & (reward == 0)),
            "retreats": jnp.sum((action == DOWN) & (after.pos == state.pos + 1)),
            "truncations": jnp.sum(out[3]),
        }
        return jax.tree.map(lambda new, old: new.astype(old.dtype), after, state), (mismatches, events)

    keys = jax.random.split(key_reset, NUM_LANES)
    first = jax.vmap(oracle.reset_env, (0, None))(keys, their_params)[1]
    first = jax.tree.map(lambda x: jnp.asarray(x, bool if x.dtype == bool else jnp.int32), first)
    counts = jax.lax.scan(step, first, jax.random.split(key_steps, NUM_STEPS))[1]
    return jax.tree.map(jnp.sum, counts)


@pytest.mark.slow
@pytest.mark.foreign_oracle
@pytest.mark.parametrize("player_speed", [3, 1])
def test_every_step_equals_gymnax(player_speed):
    params = envs.make("minatar/Freeway", player_speed=player_speed)[1]
    theirs = gymnax_freeway().default_params.replace(player_speed=jnp.int32(player_speed))
    mismatches, events = jax.device_get(
        foreign(compare_rollouts)(jax.random.key(player_speed), params, theirs)
    )
    assert mismatches == dict.fromkeys(mismatches, 0)
    assert len(mismatches) == 10
    assert events["crossings"] > 1000
    assert events["hits"] > 2000
    assert events["retreats"] > 500
    assert events["truncations"] == NUM_LANES * (NUM_STEPS - 2500 + 1)


class Scripted:
    """The random source of the minatar package, which hands out what it was given."""

    def __init__(self, speeds):
        self.speeds = speeds

    def randint(self, low, high, size):
        assert (low, high, size) == (1, 6, 8)
        return np.abs(self.speeds)

    def rand(self, size):
        assert size == 8
        return np.where(self.speeds > 0, 0.9, 0.1)


def host_word(values):
    return sum(int(v) << (4 * i) for i, v in enumerate(values))


def source_state(sim, time):
    """The minatar package's state in our fields, on the host."""
    cars = np.array(sim.cars)
    speed = abs(cars[:, 3]) + np.where(cars[:, 3] > 0, 8, 0)
    return FreewayState(
        sim.pos, sim.move_timer, host_word(cars[:, 0]), host_word(cars[:, 2]), host_word(speed), time
    )


def test_every_step_equals_the_minatar_package_until_its_later_end():
    env, params = Given.make("minatar/Freeway")
    step, observe = jax.jit(env.step_words), jax.jit(env.observe)
    rng = np.random.default_rng(3)
    num_steps = 2501
    speeds = rng.integers(1, 6, (num_steps + 1, 8)) * rng.choice([-1, 1], (num_steps + 1, 8))
    draws = np.asarray(jax.vmap(speed_digits)(speeds))
    actions = rng.choice(np.arange(3, dtype=np.int32), num_steps + 1, p=[0.06, 0.88, 0.06])
    sim = source.Env()
    sim.random = Scripted(speeds[0])
    sim.reset()
    assert [sim.action_map.index(a) for a in "nud"] == sim.minimal_action_set()
    dtypes = FreewayState(np.int32, np.int32, np.uint32, np.uint32, np.uint32, np.int32)
    state = jax.tree.map(lambda x, dtype: jnp.asarray(x, dtype), source_state(sim, 0), dtypes)
    crossings = 0
    for time in range(1, num_steps + 1):
        sim.random.speeds = speeds[time]
        reward, is_terminal = sim.act(sim.minimal_action_set()[actions[time]])
        state, our_reward, terminated, truncated = step(draws[time], state, actions[time], params)
        assert tuple(jax.device_get(state)) == source_state(sim, time)
        assert our_reward == reward
        crossings += reward
        if time % 10 == 0:
            np.testing.assert_array_equal(observe(state, params), sim.state())
        # Differs: the time limit of gymnax comes a step before the source's terminal.
        assert not terminated
        assert truncated == (time >= 2500)
        assert is_terminal == (time == 2501)
    assert crossings > 10


def test_draws_are_distributed_as_those_of_gymnax():
    num = 20_000
    words = jax.jit(lambda key: draw(lane_words(key, num, 2, 0)))(jax.random.key(1))
    ours = np.stack([speed_numbers(w) for w in np.asarray(words)])
    keys = jax.random.split(jax.random.key(5), num)
    theirs = np.asarray(jax.jit(jax.vmap(gymnax_speeds))(keys))
    assert set(np.unique(ours)) == set(np.unique(theirs)) == {*range(-5, 0), *range(1, 6)}
    for car in range(8):
        table = [np.unique(x[:, car], return_counts=True)[1] for x in (ours, theirs)]
        assert scipy.stats.chi2_contingency(table).pvalue > 1e-3, car
        assert scipy.stats.chisquare(table[0]).pvalue > 1e-3, car
    # Cars are independent, also those that share a word.
    for car, other in [(0, 1), (1, 2), (2, 3), (3, 4), (0, 3), (0, 4), (4, 7)]:
        pairs = 11 * (ours[:, car] + 5) + ours[:, other] + 5
        counts = np.unique(pairs, return_counts=True)[1]
        assert len(counts) == 100
        assert scipy.stats.chisquare(counts).pvalue > 1e-3, (car, other)


@pytest.mark.slow
@pytest.mark.foreign_oracle
def test_first_states_are_those_of_gymnax():
    env, params = envs.make("minatar/Freeway")
    oracle = gymnax_freeway()
    obs, state = jax.jit(oracle.reset_env)(jax.random.key(4), oracle.default_params)
    theirs = jax.jit(as_ours)(state)
    words = (jnp.uint32(0x2468ACE1), jnp.uint32(0x13579BDF))
    ours = env.first(words, params)
    assert ours.speed == draw(words)
    assert numbers(ours.wait) == [abs(s) for s in speed_numbers(ours.speed)]
    assert numbers(theirs.wait) == [abs(s) for s in speed_numbers(theirs.speed)]
    assert ours._replace(speed=theirs.speed, wait=theirs.wait) == theirs
    np.testing.assert_array_equal(env.observe(theirs, params), obs)


def test_a_batch_equals_its_lanes():
    env, params = envs.make("minatar/Freeway")

    @jax.jit
    def play_five(words, action):
        state = env.first(words, params)
        for _ in range(5):
            state = env.step_words(words, state, action, params)[0]
        return state, env.observe(state, params)

    words = lane_words(jax.random.key(0), 5, 2, 0)
    action = jnp.array([UP, DOWN, STAY, UP, UP], jnp.int32)
    states, obs = play_five(words, action)
    assert obs.shape == (10, 10, 7, 5)
    for i in range(5):
        state, lane_obs = play_five(tuple(w[i] for w in words), action[i])
        assert state == jax.tree.map(lambda x, i=i: x[i], states)
        np.testing.assert_array_equal(lane_obs, obs[..., i])


def test_invariants_hold_and_see_what_is_broken():
    env, params = envs.make("minatar/Freeway")
    invariants = jax.jit(env.invariants)
    state = jax.jit(env.first)(lane_words(jax.random.key(0), 64, 2, 0), params)
    assert all(np.all(x) for x in invariants(state, params).values())
    broken = {
        "chicken_on_board": {"pos": jnp.int32(0)},
        "cars_on_road": {"x": jnp.uint32(0x000A0000)},
        "speeds_known": {"speed": jnp.uint32(0xDDDD5055)},
    }
    lane = jax.tree.map(lambda x: x[0], state)
    for name, fields in broken.items():
        checks = invariants(lane._replace(**fields), params)
        assert [n for n, holds in checks.items() if not holds] == [name]


def test_illegal_tasks_are_refused():
    with pytest.raises(ValueError, match="player_speed: got 0"):
        envs.make("minatar/Freeway", player_speed=0)
