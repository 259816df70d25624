"""Our Breakout against gymnax's and the MinAtar package, state by state: not one mismatch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.common.branch import select
from envs.minatar.breakout import FULL_WALL, BreakoutState
from envs.vector import broadcast_params

LANES, STEPS = 128, 1500


def compact(state):
    """gymnax's state (one lane) as ours."""
    rows = state.brick_map[1:4].reshape(-1).astype(jnp.uint32)
    fields = {f: getattr(state, f) for f in BreakoutState._fields if f != "bricks"}
    bits = rows << jnp.arange(30, dtype=jnp.uint32)
    return BreakoutState(bricks=jnp.sum(bits, dtype=jnp.uint32), **fields)


@functools.cache
def comparison():
    """Both simulators from the same states, `[T]` counts: mismatches, bricks, ends, best wall."""
    env, params = envs.make("minatar/Breakout")
    theirs, their_params = envs.make("gymnax/Breakout-MinAtar")
    # Half of the lanes have a short clock, half the time to clear a wall.
    limits = jnp.where(jnp.arange(LANES) % 2 == 0, 40, 1000).astype(jnp.int32)
    params = broadcast_params(params, LANES)._replace(max_steps=limits)
    their_params = broadcast_params(their_params, LANES).replace(max_steps_in_episode=limits)

    def follow(key, state):
        # Following the ball reaches cleared walls, which random play never does.
        wanted = jnp.where(state.ball_x > state.pos, 2, jnp.where(state.ball_x < state.pos, 1, 0))
        key_choice, key_random = jax.random.split(key)
        noise = jax.random.randint(key_random, (LANES,), 0, 3)
        return jnp.where(jax.random.bernoulli(key_choice, 0.96, (LANES,)), wanted, noise)

    def step(state, key):
        key_action, key_step, key_reset = jax.random.split(key, 3)
        action = follow(key_action, state)
        keys = jax.random.split(key_step, LANES)
        in_axes = (0, 0, 0, 0)
        ours = jax.vmap(env.step, in_axes)(keys, jax.vmap(compact)(state), action, params)
        want = jax.vmap(theirs.step, in_axes)(jax.random.clone(keys), state, action, their_params)
        expected = (want[0], jax.vmap(compact)(want[1]), *want[2:5])
        bad = jax.tree.leaves(jax.tree.map(lambda a, b: jnp.sum(a != b), ours[:5], expected))
        _, first = jax.vmap(theirs.reset)(jax.random.split(key_reset, LANES), their_params)
        terminated, truncated = want[3:5]
        counts = sum(bad), want[2].sum(), terminated.sum(), truncated.sum()
        refilled = (ours[1].bricks == FULL_WALL) & (state.brick_map.sum((1, 2)) == 0)
        state = select(terminated | truncated, first, want[1])
        return state, (*counts, refilled.sum())

    def run(key):
        key_reset, key_steps = jax.random.split(key)
        _, state = jax.vmap(theirs.reset)(jax.random.split(key_reset, LANES), their_params)
        return jax.lax.scan(step, state, jax.random.split(key_steps, STEPS))[1]

    return [int(x.sum()) for x in jax.device_get(jax.jit(run)(jax.random.key(0)))]


@pytest.mark.slow
def test_equals_gymnax_state_by_state():
    mismatches, bricks, ends, limits, refills = comparison()
    assert mismatches == 0
    assert bricks > 5000
    assert ends > 100
    assert limits > 50
    assert refills > 5, "a cleared wall must be part of the comparison"


def test_equals_the_minatar_package():
    from minatar.environments.breakout import Env

    env, params = envs.make("minatar/Breakout", max_steps=100_000)
    step = jax.jit(env.step)
    reference = Env()
    rng = np.random.default_rng(3)
    obs, state = env.reset(jax.random.key(0), params)
    bricks_broken, num_ends = 0, 0
    for i in range(1500):
        reference.ball_y, reference.ball_x = int(state.ball_y), int(state.ball_x)
        reference.ball_dir, reference.pos = int(state.ball_dir), int(state.pos)
        reference.last_x, reference.last_y = int(state.last_x), int(state.last_y)
        reference.strike, reference.terminal = bool(state.strike), False
        bits = (int(state.bricks) >> np.arange(30)) & 1
        reference.brick_map = np.zeros((10, 10))
        reference.brick_map[1:4] = bits.reshape(3, 10)
        np.testing.assert_array_equal(obs, reference.state().astype(np.float32))
        follow = int(np.sign(int(state.ball_x) - int(state.pos)))
        action = {0: 0, -1: 1, 1: 2}[follow] if rng.random() < 0.9 else int(rng.integers(3))
        obs, state, reward, terminated, _, _ = step(
            jax.random.key(i), state, jnp.array(action, jnp.int32), params
        )
        want_reward, want_terminated = reference.act([0, 1, 3][action])
        assert (float(reward), bool(terminated)) == (want_reward, want_terminated)
        np.testing.assert_array_equal(obs, reference.state().astype(np.float32))
        bricks_broken += int(want_reward)
        if want_terminated:
            num_ends += 1
            obs, state = env.reset(jax.random.key(10_000 + i), params)
    assert bricks_broken > 60
    assert num_ends > 2


def test_both_starts_are_drawn_equally_often():
    env, params = envs.make("minatar/Breakout")
    keys = jax.random.split(jax.random.key(5), 2000)
    obs, state = jax.jit(jax.vmap(env.reset, in_axes=(0, None)))(keys, params)
    starts = np.unique(np.stack([state.ball_x, state.ball_dir]), axis=1)
    np.testing.assert_array_equal(starts, [[0, 9], [2, 3]])
    assert abs(np.mean(np.asarray(state.ball_x) == 0) - 0.5) < 5 * 0.5 / np.sqrt(2000)
    assert np.asarray(obs).sum((1, 2)).tolist() == [[1, 1, 1, 30]] * 2000


@pytest.mark.parametrize("lanes", [(), (4,), (3, 2)])
def test_the_board_has_its_lanes_last(lanes):
    env, params = envs.make("minatar/Breakout")
    words = (jnp.zeros(lanes, jnp.uint32),)
    assert env.observe(env.first(words, params), params).shape == (10, 10, 4, *lanes)
