"""Rollouts in probes whose trajectories are known by heart."""

import jax
import jax.numpy as jnp
import numpy as np

from envs import probes
from envs.types import Transition
from envs.vector import VectorEnv, VectorState, broadcast_params
from jaxagent.data.rollout import ActorState, rollout

B = 3


def begin(name, lanes=B, params=None, seed=0, **overrides):
    env, one = probes.make(name, **overrides)
    vector = VectorEnv(env)
    params = broadcast_params(one, lanes) if params is None else params
    state = vector.reset(jax.random.key(seed), params)
    return vector, ActorState(state, jnp.zeros((lanes,), jnp.int32), jnp.ones((lanes,), bool))


def act(carry, obs, is_first, key):
    """Always action 0; the carry counts the steps of the episode, by `is_first` alone."""
    count = jnp.where(is_first, 0, carry)
    extras = {"count": count, "is_first": is_first, "seen": obs}
    return jnp.zeros((obs.shape[0],), jnp.int32), extras, count + 1


def column(x):
    """One lane `[T]`, after checking that all lanes agree."""
    x = np.asarray(x).reshape(len(x), B, -1)
    np.testing.assert_array_equal(x, np.broadcast_to(x[:, :1], x.shape))
    return x[:, 0, 0].tolist()


def test_an_episode_of_two_steps_by_hand():
    """DelayedReward shows the time: 0, then 1."""
    vector, actor = begin("DelayedReward")
    actor, t = rollout(vector, act, jax.random.key(1), actor, 5)
    assert t.obs.shape == t.final_obs.shape == (5, B, 1)
    assert column(t.obs) == [0, 1, 0, 1, 0]
    assert column(t.final_obs) == [1, 1, 1, 1, 1]
    assert column(t.reward) == [0, 1, 0, 1, 0]
    assert column(t.terminated) == [False, True, False, True, False]
    assert not t.truncated.any()
    assert column(t.extras["count"]) == [0, 1, 0, 1, 0]
    assert column(t.extras["is_first"]) == [True, False, True, False, True]
    np.testing.assert_array_equal(t.extras["seen"], t.obs)
    assert not actor.is_first.any()
    np.testing.assert_array_equal(actor.env.obs, 1)


def test_a_time_limit_truncates_and_keeps_the_true_last_observation():
    vector, actor = begin("DelayedReward", max_steps=1)
    _, t = rollout(vector, act, jax.random.key(1), actor, 3)
    assert column(t.truncated) == [True] * 3
    assert not t.terminated.any()
    assert column(t.obs) == [0, 0, 0]
    assert column(t.final_obs) == [1, 1, 1]
    assert column(t.extras["count"]) == [0, 0, 0]


def test_termination_and_truncation_may_meet_and_are_both_recorded():
    vector, actor = begin("DelayedReward", max_steps=2)
    _, t = rollout(vector, act, jax.random.key(1), actor, 4)
    assert column(t.terminated) == column(t.truncated) == [False, True, False, True]


def test_lanes_end_by_their_own_task():
    _, one = probes.make("TimeLimitTrap")
    params = broadcast_params(one, B)._replace(max_steps=jnp.array([1, 2, 3], jnp.int32))
    vector, actor = begin("TimeLimitTrap", params=params)
    actor, t = rollout(vector, act, jax.random.key(1), actor, 6)
    steps = np.arange(1, 7)[:, None]
    np.testing.assert_array_equal(t.truncated, steps % np.array([1, 2, 3]) == 0)
    np.testing.assert_array_equal(t.extras["count"], (steps - 1) % np.array([1, 2, 3]))
    np.testing.assert_array_equal(actor.is_first, [True, True, True])


def test_reward_and_observation_are_of_the_same_step():
    """ObservedReward pays the signal it showed; every lane and episode draws its own."""
    vector, actor = begin("ObservedReward", lanes=32)
    _, t = rollout(vector, act, jax.random.key(1), actor, 8)
    np.testing.assert_array_equal(t.reward, t.obs[..., 0])
    np.testing.assert_array_equal(t.final_obs, t.obs)
    assert t.terminated.all()
    signal = np.asarray(t.obs[..., 0])
    assert set(signal.ravel().tolist()) == {-1.0, 1.0}
    assert abs(signal.mean()) < 0.25
    assert (signal != signal[:, :1]).any()
    assert (signal != signal[:1]).any()


def test_the_action_recorded_is_the_one_that_was_paid():
    def random_act(carry, obs, is_first, key):
        return jax.random.randint(key, (obs.shape[0],), 0, 2, jnp.int32), (), carry

    vector, actor = begin("ActionReward", lanes=16)
    _, t = rollout(vector, random_act, jax.random.key(1), actor, 8)
    np.testing.assert_array_equal(t.reward, 2.0 * np.asarray(t.action) - 1.0)
    assert len({row.tobytes() for row in np.asarray(t.action)}) > 4  # a new key each step
    assert t.extras == ()


def test_a_lane_begins_where_the_step_before_left_it():
    vector, actor = begin("TimeLimitTrap", max_steps=3)

    def sometimes_cashes(carry, obs, is_first, key):
        return jax.random.bernoulli(key, 0.3, (obs.shape[0],)).astype(jnp.int32), (), carry

    after, t = rollout(vector, sometimes_cashes, jax.random.key(1), actor, 10)
    np.testing.assert_array_equal(t.terminated, np.asarray(t.action) == 1)
    done = np.asarray(t.terminated | t.truncated)
    assert done.any()
    assert not done.all()
    kept = ~done[:-1]
    np.testing.assert_array_equal(np.asarray(t.obs)[1:][kept], np.asarray(t.final_obs)[:-1][kept])
    np.testing.assert_array_equal(after.is_first, done[-1])


def test_two_short_rollouts_are_one_long_one():
    """A rollout may end inside an episode; state, memory and `is_first` go on."""
    vector, actor = begin("DelayedReward")
    end, long = rollout(vector, act, jax.random.key(1), actor, 6)
    middle, first = rollout(vector, act, jax.random.key(2), actor, 3)
    again, second = rollout(vector, act, jax.random.key(3), middle, 3)
    joined = jax.tree.map(lambda a, b: np.concatenate([a, b]), first, second)
    jax.tree.map(np.testing.assert_array_equal, joined, long)
    jax.tree.map(np.testing.assert_array_equal, again, end)


def test_a_rollout_is_a_function_of_its_key_and_jit_changes_nothing():
    vector, actor = begin("ObservedReward", lanes=16)
    run = jax.jit(lambda key: rollout(vector, act, key, actor, 4))
    _, first = run(jax.random.key(1))
    _, eager = rollout(vector, act, jax.random.key(1), actor, 4)
    _, other = run(jax.random.key(2))
    jax.tree.map(np.testing.assert_array_equal, first, eager)
    assert (first.obs != other.obs).any()


class LateReset:
    """A vector environment that resets in a step of its own, as ALE does: 2 real steps a game."""

    def step(self, key, state, action):
        del key, action
        resets = state.env == 2
        time = jnp.where(resets, 0, state.env + 1)
        obs = time.astype(jnp.float32)[:, None]
        none = jnp.zeros(time.shape, bool)
        reward = jnp.where(resets, 0.0, 1.0)
        out = Transition(obs, reward, time == 2, none, obs, ~resets)
        return VectorState(obs, time, ()), out


def test_a_step_that_only_reset_is_marked_and_an_episode_begins_behind_it():
    start = VectorState(jnp.zeros((B, 1)), jnp.zeros((B,), jnp.int32), ())
    actor = ActorState(start, jnp.zeros((B,), jnp.int32), jnp.ones((B,), bool))
    actor, t = rollout(LateReset(), act, jax.random.key(1), actor, 7)
    assert column(t.valid) == [True, True, False, True, True, False, True]
    assert column(t.terminated) == [False, True, False, False, True, False, False]
    assert column(t.extras["is_first"]) == [True, False, True, True, False, True, True]
    assert column(t.obs) == [0, 1, 2, 0, 1, 2, 0]


def test_where_every_step_is_real_nothing_is_marked():
    vector, actor = begin("DelayedReward")
    _, t = rollout(vector, act, jax.random.key(1), actor, 3)
    assert t.valid == ()
