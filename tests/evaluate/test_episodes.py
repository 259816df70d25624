"""Evaluation episodes by hand on the probes: whole, counted once, under keys of their own."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.vector import broadcast_params
from jaxagent.evaluate.episodes import play, play_lanes
from jaxagent.train import parallel
from jaxagent.types import Policy


def always(action):
    """The policy that takes one action."""

    def act(params, carry, obs, is_first, key):
        del params, is_first, key
        return jnp.full((obs.shape[0],), action, jnp.int32), (), carry

    return Policy(lambda batch_size: (), act)


def coin(sides):
    """A uniformly random policy that draws for all lanes at once."""

    def act(params, carry, obs, is_first, key):
        del params, is_first
        logits = jnp.zeros((obs.shape[0], sides))
        return jax.random.categorical(key, logits).astype(jnp.int32), (), carry

    return Policy(lambda batch_size: (), act)


def episodes(env_id, policy, num=4, key=0, max_steps=None, limit=None, **overrides):
    limit = {} if limit is None else {"max_steps": limit}  # the environment's, not the loop's
    env, task = envs.make(env_id, **limit, **overrides)
    return play(env, policy, (), broadcast_params(task, num), jax.random.key(key), max_steps=max_steps)


@pytest.mark.parametrize(
    ("name", "action", "expected", "length"),
    [
        ("ConstantReward", 0, 1.0, 1),
        ("DelayedReward", 0, 1.0, 2),
        ("ActionReward", 0, -1.0, 1),
        ("ActionReward", 1, 1.0, 1),
        ("TimeLimitTrap", 0, 2.0, 2),
        ("TimeLimitTrap", 1, 10.0, 1),
    ],
)
def test_returns_and_lengths_of_whole_episodes(name, action, expected, length):
    result = episodes(f"probe/{name}", always(action))
    np.testing.assert_array_equal(result.returns, [expected] * 4)
    np.testing.assert_array_equal(result.lengths, [length] * 4)
    assert result.lengths.dtype == jnp.int32


def test_every_lane_plays_its_own_task_and_only_its_first_episode():
    env, task = envs.make("probe/TimeLimitTrap", max_steps=10)
    limits = jnp.array([2, 9, 5], jnp.int32)
    tasks = broadcast_params(task, 3)._replace(max_steps=limits)
    result = play(env, always(0), (), tasks, jax.random.key(0))
    np.testing.assert_array_equal(result.returns, [2.0, 9.0, 5.0])
    np.testing.assert_array_equal(result.lengths, limits)


def test_a_task_may_lengthen_the_time_limit():
    """The loop was once bound by the default task's limit of 2, and 2 counted for the return."""
    env, task = envs.make("probe/TimeLimitTrap")
    assert env.max_steps == 2
    tasks = broadcast_params(task._replace(max_steps=jnp.array(7, jnp.int32)), 3)
    result = play(env, always(0), (), tasks, jax.random.key(0))
    np.testing.assert_array_equal(result.returns, [7.0] * 3)
    np.testing.assert_array_equal(result.lengths, [7] * 3)
    lanes = play_lanes(
        env, always(0), (), jax.tree.map(lambda x: x[0], tasks), jax.random.split(jax.random.key(0), 1), 2
    )
    np.testing.assert_array_equal(lanes, [7.0])


def test_what_a_bound_cuts_is_no_finished_return():
    env, task = envs.make("probe/TimeLimitTrap", max_steps=10)
    tasks = broadcast_params(task, 2)._replace(max_steps=jnp.array([3, 6], jnp.int32))
    result = play(env, always(0), (), tasks, jax.random.key(0), max_steps=4)
    np.testing.assert_array_equal(result.returns, [3.0, np.nan])
    np.testing.assert_array_equal(result.lengths, [3, 4])


def test_stops_with_the_last_episode():
    """Counts the calls of the policy: as many as the longest episode has steps."""
    calls = []

    def act(params, carry, obs, is_first, key):
        del params, key
        jax.debug.callback(lambda first: calls.append(first.tolist()), is_first)
        return jnp.zeros((obs.shape[0],), jnp.int32), (), carry

    env, task = envs.make("probe/TimeLimitTrap", max_steps=10)
    tasks = broadcast_params(task, 2)._replace(max_steps=jnp.array([3, 6], jnp.int32))
    result = play(env, Policy(lambda b: (), act), (), tasks, jax.random.key(0))
    jax.block_until_ready(result)
    jax.effects_barrier()
    assert sorted(calls, reverse=True) == [[True, True]] + [[False, False]] * 5


def test_policy_memory_is_carried_within_the_episode():
    """A policy that cashes at its third step, by counting."""

    def act(params, carry, obs, is_first, key):
        del params, obs, is_first, key
        return (carry == 2).astype(jnp.int32), (), carry + 1

    policy = Policy(lambda batch_size: jnp.zeros((batch_size,), jnp.int32), act)
    result = episodes("probe/TimeLimitTrap", policy, limit=10)
    np.testing.assert_array_equal(result.returns, [12.0] * 4)
    np.testing.assert_array_equal(result.lengths, [3] * 4)


def test_two_policies_meet_the_same_first_states():
    """The reward of this probe is its first observation, whatever is done."""
    first, second = (episodes("probe/ObservedReward", p, num=32) for p in (always(0), coin(1)))
    np.testing.assert_array_equal(first.returns, second.returns)
    assert set(np.asarray(first.returns)) == {-1.0, 1.0}
    other = episodes("probe/ObservedReward", always(0), num=32, key=1)
    assert not np.array_equal(first.returns, other.returns)


def test_first_states_differ_between_lanes():
    def act(params, carry, obs, is_first, key):
        del params, carry, is_first, key
        return jnp.ones((obs.shape[0],), jnp.int32), (), obs  # remembers nothing but its input

    env, task = envs.make("gymnax/CartPole-v1")
    seen = []

    def reset(key, params):
        obs, state = env.reset(key, params)
        jax.debug.callback(lambda x: seen.append(np.asarray(x)), obs)
        return obs, state

    class Watched:
        step = staticmethod(env.step)

    Watched.reset = staticmethod(reset)
    policy = Policy(lambda batch_size: jnp.zeros((batch_size, 4)), act)
    play(Watched, policy, (), broadcast_params(task, 6), jax.random.key(0))
    jax.effects_barrier()
    assert len(np.unique(np.stack(seen).reshape(-1, 4), axis=0)) == 6


@pytest.mark.parametrize("policy", [always(1), coin(2)], ids=["fixed", "random"])
def test_episode_does_not_depend_on_how_many_others_there_are(policy):
    few = episodes("gymnax/CartPole-v1", policy, num=3, max_steps=500)
    many = episodes("gymnax/CartPole-v1", policy, num=7, max_steps=500)
    np.testing.assert_array_equal(few.returns, many.returns[:3])
    np.testing.assert_array_equal(few.lengths, many.lengths[:3])
    np.testing.assert_array_equal(few.returns, few.lengths)  # reward 1 a step


def test_random_episodes_differ():
    result = episodes("gymnax/CartPole-v1", coin(2), num=16, max_steps=500)
    assert len(set(np.asarray(result.lengths).tolist())) > 4
    assert (result.lengths < 500).all()


@pytest.mark.slow
def test_jit_equals_eager():
    env, task = envs.make("probe/ObservedActionReward")
    tasks = broadcast_params(task, 16)
    eager = play(env, coin(2), (), tasks, jax.random.key(2))
    jitted = jax.jit(lambda t, k: play(env, coin(2), (), t, k))(tasks, jax.random.key(2))
    np.testing.assert_array_equal(eager.returns, jitted.returns)
    assert set(np.asarray(eager.returns)) == {-1.0, 1.0}


def test_lanes_play_alike_at_once_and_in_turn(monkeypatch):
    """On an accelerator they are batched; each lane's policy, episodes and mean stay its own."""
    env, task = envs.make("gymnax/CartPole-v1", max_steps_in_episode=60)

    def act(params, carry, obs, is_first, key):
        lean = obs @ params + 0.1 * jax.random.normal(key, (obs.shape[0],))
        return (lean > 0.0).astype(jnp.int32), (), carry

    policy = Policy(lambda batch_size: (), act)
    params = jnp.array([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, -1.0, 0.0], [0.0, 0.0, 1.0, 0.0]])

    def means(over):
        lane_keys = jax.random.split(jax.random.key(3), 3)
        return jax.jit(lambda p, k: play_lanes(env, policy, p, task, k, 4, over=over))(params, lane_keys)

    in_turn = means(jax.lax.map)
    assert len(set(np.asarray(in_turn).tolist())) == 3
    np.testing.assert_array_equal(means(parallel.map_lanes), in_turn)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert "scan" not in str(jax.make_jaxpr(partial(parallel.map_lanes, jnp.sin))(params))
    np.testing.assert_array_equal(means(parallel.map_lanes), in_turn)
