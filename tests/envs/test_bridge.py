"""Gymnasium's environments in jitted loops are what they are outside."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

import envs
from envs import registry
from envs.adapters.bridge import HostedEnvironment
from envs.common.names import UnknownName
from envs.vector import VectorEnv, broadcast_params
from envs.wrappers import frame_stack


class Counts(gymnasium.Env):
    """Sees its seed and its time; action 1 ends it, and 5 steps are too many."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        self.seed, self.time = seed % 1000, 0
        return self._obs(), {}

    def step(self, action):
        self.time += 1
        return self._obs(), float(self.time), bool(action), self.time >= 5, {}

    def _obs(self):
        return np.array([self.seed, self.time], np.float32)


@pytest.fixture
def counts():
    return HostedEnvironment("mine/Counts", Counts)


def played(env, actions, tasks, key):
    """Transitions `[T, B]` of actions `[T, B]`."""
    vector = VectorEnv(env)

    def step(state, x):
        return vector.step(x[0], state, x[1])

    key_reset, key_steps = jax.random.split(key)
    state = vector.reset(key_reset, tasks)
    _, out = jax.lax.scan(step, state, (jax.random.split(key_steps, len(actions)), actions))
    return state.obs, out


def test_lanes_end_and_begin_anew_in_the_same_step(counts):
    actions = jnp.zeros((7, 2), jnp.int32).at[2, 1].set(1)
    first, out = jax.jit(lambda k: played(counts, actions, broadcast_params(counts.default_params, 2), k))(
        jax.random.key(0)
    )
    time, final_time = out.obs[..., 1], out.final_obs[..., 1]
    np.testing.assert_array_equal(final_time, np.transpose([[1, 2, 3, 4, 5, 1, 2], [1, 2, 3, 1, 2, 3, 4]]))
    np.testing.assert_array_equal(time, np.transpose([[1, 2, 3, 4, 0, 1, 2], [1, 2, 0, 1, 2, 3, 4]]))
    np.testing.assert_array_equal(out.reward, final_time)
    assert np.argwhere(out.terminated).tolist() == [[2, 1]]
    assert np.argwhere(out.truncated).tolist() == [[4, 0]]
    seeds = np.asarray(out.obs[..., 0])
    assert len({*seeds[:, 0], *seeds[:, 1], *np.asarray(first)[:, 0]}) == 4  # each episode has its own
    assert (out.final_obs[4, 0, 0], out.final_obs[2, 1, 0]) == (first[0, 0], first[1, 0])


def test_the_host_is_called_once_a_step_for_all_lanes_of_all_seeds(counts, monkeypatch):
    sizes, advance = [], counts._advance
    monkeypatch.setattr(counts, "_advance", lambda on, *x: sizes.append(len(x[0])) or advance(on, *x))
    tasks, actions = broadcast_params(counts.default_params, 3), jnp.zeros((4, 3), jnp.int32)
    lanes = jax.jit(jax.vmap(lambda key: played(counts, actions, tasks, key)[1]))
    with jax.debug_key_reuse(False):  # it takes any environment's scan under vmap for a second use
        out = lanes(jax.random.split(jax.random.key(0), 2))
    assert out.obs.shape == (2, 4, 3, 2)
    assert sizes == [6] * 4


def test_the_clock_of_a_task_truncates(counts):
    tasks = broadcast_params(counts.default_params._replace(max_steps=2), 1)
    _, out = played(counts, jnp.zeros((4, 1), jnp.int32), tasks, jax.random.key(0))
    np.testing.assert_array_equal(out.truncated[:, 0], [False, True, False, True])
    assert not out.terminated.any()


def test_an_episode_that_ended_stays_over(counts):
    task = counts.default_params
    _, state = counts.reset(jax.random.key(0), task)
    for number, ends in ((1, False), (2, True), (3, True)):
        _, state, reward, terminated, truncated, _ = counts.step(
            jax.random.key(number), state, jnp.int32(ends), task
        )
        assert (bool(terminated), bool(truncated)) == (ends, False)
    assert reward == 0.0


def test_it_plays_as_gymnasium_does():
    """CartPole from the same seeds, under the same actions."""
    env, task = envs.make("gymnasium/CartPole-v1")
    assert (env.max_steps, env.obs_shape, env.action_spec[0].cardinality) == (500, (4,), 2)
    seeds, begin = [], env._begin
    env._begin = lambda s: seeds.extend(s.tolist()) or begin(s)
    actions = jax.random.randint(jax.random.key(1), (12, 1), 0, 2)
    first, out = played(env, actions, broadcast_params(task, 1), jax.random.key(0))
    twin = gymnasium.make("CartPole-v1")
    obs, _ = twin.reset(seed=seeds[0])
    np.testing.assert_array_equal(first[0], obs)
    for t, action in enumerate(actions[:, 0].tolist()):
        obs, reward, terminated, truncated, _ = twin.step(action)
        np.testing.assert_array_equal(out.final_obs[t, 0], obs)
        assert (out.reward[t, 0], out.terminated[t, 0], out.truncated[t, 0]) == (
            reward,
            terminated,
            truncated,
        )
        if terminated:
            break


def test_actions_are_brought_into_their_space():
    env, task = envs.make("gymnasium/Pendulum-v1")
    seen = []
    _, state = env.reset(jax.random.key(0), task)
    lane = next(iter(env._live.values()))
    step = lane.step
    lane.step = lambda action: seen.append(action) or step(action)
    env.step(jax.random.key(1), state, jnp.array([99.0]), task)
    np.testing.assert_array_equal(seen, [[2.0]])


def test_a_state_of_another_process_is_refused(counts):
    _, state = counts.reset(jax.random.key(0), counts.default_params)
    with pytest.raises(Exception, match="cannot be saved"):
        counts.step(
            jax.random.key(1), state._replace(handle=jnp.int32(7)), jnp.int32(0), counts.default_params
        )


def test_nothing_may_look_ahead(counts):
    """A state is good for one step: two steps from one state are refused, the second."""
    task = counts.default_params
    _, state = counts.reset(jax.random.key(0), task)
    counts.step(jax.random.key(1), state, jnp.int32(0), task)
    with pytest.raises(Exception, match="may look ahead"):
        counts.step(jax.random.key(2), state, jnp.int32(0), task)
    with pytest.raises(ValueError, match="got an environment on the host"):
        frame_stack(counts, task, 2)


def test_one_object_for_two_lanes_is_refused():
    one = Counts()
    env = HostedEnvironment("mine/One", lambda: one)
    with pytest.raises(Exception, match="got one object for two lanes"):
        jax.vmap(env.reset, in_axes=(0, None))(jax.random.split(jax.random.key(0), 2), env.default_params)


class Several(Counts):
    """Pictures as bytes, and two categories at once."""

    observation_space = spaces.Box(0, 255, (2, 2, 1), np.uint8)
    action_space = spaces.MultiDiscrete([2, 3])

    def step(self, action):
        assert self.action_space.contains(action)
        self.time += 1
        return self._obs(), np.array([action.sum()], np.float32), False, self.time >= 5, {}

    def _obs(self):
        return np.full((2, 2, 1), self.time, np.uint8)


def test_pictures_and_several_categories():
    env = HostedEnvironment("mine/Several", Several)
    assert (env.obs_dtype, env.obs_shape) == (np.uint8, (2, 2, 1))
    actions = jnp.array([[[1, 2]], [[0, 1]]], jnp.int32)
    _, out = played(env, actions, broadcast_params(env.default_params, 1), jax.random.key(0))
    assert out.obs.dtype == jnp.uint8
    np.testing.assert_array_equal(out.reward[:, 0], [3, 1])
    np.testing.assert_array_equal(out.final_obs[:, 0, 0, 0, 0], [1, 2])


def test_what_cannot_be_made_is_named(monkeypatch):
    monkeypatch.setattr(registry, "_own", {})
    with pytest.raises(UnknownName, match="CartPol"):
        envs.make("gymnasium/CartPol-v1")
    with pytest.raises(ValueError, match="sutton"):
        envs.make("gymnasium/CartPole-v1", sutton=1)
    assert envs.make("gymnasium/CartPole-v1", max_episode_steps=50.0)[0].max_steps == 50
    envs.register("mine/One", Counts())
    with pytest.raises(ValueError, match="got Counts that gymnasium did not make"):
        envs.make("mine/One")
    envs.register("mine/Many", gymnasium.make_vec("CartPole-v1", 2))
    with pytest.raises(ValueError, match="vector environment"):
        envs.make("mine/Many")
    envs.register("mine/Class", Counts)
    env, _ = envs.make("mine/Class")
    assert isinstance(env, HostedEnvironment)
    assert envs.make("mine/Class", max_steps=3)[1].max_steps == 3
    envs.register("mine/Made", gymnasium.make("CartPole-v1"))
    assert envs.make("mine/Made")[0].max_steps == 500
