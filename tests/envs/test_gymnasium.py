"""Gymnasium's environments from the host, against single ones; ours as gymnasium's own checks."""

import copy
import functools
import warnings

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

import envs
from envs.adapters import gymnasium as adapter
from envs.adapters.gymnasium import HostVector, export, export_vector, make_host, play
from envs.vector import VectorEnv, broadcast_params

MODES = list(AutoresetMode)


def vector(env_id, num_lanes, mode, **kwargs):
    kwargs = {"vector_kwargs": {"autoreset_mode": mode}} | kwargs
    return gymnasium.make_vec(env_id, num_lanes, vectorization_mode="sync", **kwargs)


class Singles:
    """The specification of HostVector: single environments and a loop."""

    FIELDS = ("obs", "reward", "terminated", "truncated", "final_obs")

    def __init__(self, env_id, num_lanes):
        self.envs = [gymnasium.make(env_id) for _ in range(num_lanes)]

    def reset(self, seed):
        return np.stack([env.reset(seed=seed + i)[0] for i, env in enumerate(self.envs)])

    def step(self, actions):
        rows = []
        for env, action in zip(self.envs, actions, strict=True):
            final_obs, reward, terminated, truncated, _ = env.step(action)
            obs = env.reset()[0] if terminated or truncated else final_obs
            rows.append((obs, reward, terminated, truncated, final_obs))
        return tuple(np.stack(column) for column in zip(*rows, strict=True))


def assert_steps_equal(host, singles, actions):
    """Equal bits in every field of every transition; returns how many episodes ended."""
    np.testing.assert_array_equal(host.reset(seed=7), singles.reset(seed=7))
    num_ends = 0
    for action in actions:
        ours, theirs = host.step(action), singles.step(action)
        for name, x, y in zip(Singles.FIELDS, ours, theirs, strict=False):
            np.testing.assert_array_equal(x, y.astype(x.dtype), err_msg=name)
        done = ours.terminated | ours.truncated
        num_ends += done.sum()
        assert (ours.obs[~done] == ours.final_obs[~done]).all()
        assert not (ours.obs[done] == ours.final_obs[done]).all(-1).any()
    return num_ends


# --- HostVector -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_equals_single_environments(mode):
    """Lanes end at different times: a reset of one must not touch or step the others."""
    rng = np.random.default_rng(0)
    host = HostVector(vector("CartPole-v1", 3, mode))
    actions = rng.integers(2, size=(150, 3))
    num_ends = assert_steps_equal(host, Singles("CartPole-v1", 3), actions)
    assert num_ends > 10


@pytest.mark.parametrize("mode", MODES)
def test_buffers_that_gymnasium_reuses_are_copied(mode):
    source = SyncVectorEnv([lambda: gymnasium.make("CartPole-v1")] * 2, copy=False, autoreset_mode=mode)
    actions = np.random.default_rng(1).integers(2, size=(60, 2))
    assert assert_steps_equal(HostVector(source), Singles("CartPole-v1", 2), actions) > 2


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_worker_processes_equal_single_environments(mode):
    source = AsyncVectorEnv(
        [functools.partial(gymnasium.make, "CartPole-v1")] * 2, context="spawn", autoreset_mode=mode
    )
    host = HostVector(source)
    actions = np.random.default_rng(1).integers(2, size=(60, 2))
    assert assert_steps_equal(host, Singles("CartPole-v1", 2), actions) > 2
    host.close()


@pytest.mark.slow
def test_workers_that_forget_a_masked_reset_are_refused():
    source = AsyncVectorEnv(
        [functools.partial(gymnasium.make, "CartPole-v1")] * 2, context="spawn", shared_memory=False
    )
    with pytest.raises(ValueError, match=r"NEXT_STEP.*expected.*SAME_STEP"):
        HostVector(source)
    source.close()


def test_the_mode_survives_gymnasium_s_shared_metadata():
    """The second vector environment overwrites the mode in the metadata of the first."""
    first = vector("CartPole-v1", 2, AutoresetMode.SAME_STEP)
    vector("CartPole-v1", 2, AutoresetMode.NEXT_STEP)
    assert first.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP  # gymnasium 1.3's mistake
    actions = np.random.default_rng(2).integers(2, size=(60, 2))
    assert assert_steps_equal(HostVector(first), Singles("CartPole-v1", 2), actions) > 2


def test_next_step_without_masks_is_refused_with_the_fix():
    source = gymnasium.make_vec("CartPole-v1", 2, vectorization_mode="vector_entry_point")
    assert source.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    with pytest.raises(ValueError, match=r"got autoreset mode NEXT_STEP.*expected.*SAME_STEP"):
        HostVector(source)


class ForgetsMask(gymnasium.vector.VectorWrapper):
    """A wrapper that resets every lane, whatever it is asked for."""

    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)


def test_a_source_that_resets_other_lanes_is_caught():
    host = HostVector(ForgetsMask(vector("CartPole-v1", 3, AutoresetMode.DISABLED)))
    host.reset(seed=0)
    with pytest.raises(ValueError, match=r"got other lanes reset.*SAME_STEP"):
        play(host, lambda obs: np.array([0, 1, 1]) ^ (obs[:, 2] > 0), num_episodes=1, seed=0)


class LosesFinalObs(gymnasium.vector.VectorWrapper):
    """A wrapper that drops what SAME_STEP promises."""

    def step(self, actions):
        return (*super().step(actions)[:4], {})


def test_a_source_that_loses_the_last_observation_is_caught():
    host = HostVector(LosesFinalObs(vector("CartPole-v1", 2, AutoresetMode.SAME_STEP)))
    host.reset(seed=0)
    with pytest.raises(ValueError, match="the last observation is lost"):
        play(host, lambda obs: np.ones(len(obs), int), num_episodes=1, seed=0)


def test_the_time_limit_is_a_truncation():
    host = make_host("MountainCar-v0", 2)
    host.reset(seed=0)
    for i in range(200):
        transition = host.step(np.array([1, 1]))
        assert not transition.terminated.any()
        assert transition.truncated.all() == transition.truncated.any() == (i == 199)
    assert (transition.obs[:, 1] == 0).all()  # a first state is at rest
    assert (transition.final_obs[:, 1] != 0).all()


def test_a_step_before_the_reset_and_a_wrong_batch_are_refused():
    host = make_host("CartPole-v1", 2)
    with pytest.raises(RuntimeError, match="before the first reset"):
        host.step(np.array([0, 0]))
    host.reset(seed=0)
    with pytest.raises(ValueError, match=r"got actions of shape \(3,\), expected 2 lanes"):
        host.step(np.array([0, 0, 0]))


def test_specs_list_gymnasium_s_spaces():
    host = make_host("Pendulum-v1", 2)
    assert (host.obs_shape, host.obs_dtype) == ((3,), np.float32)
    assert [(c.kind, c.low, c.high) for c in host.obs_spec] == [
        ("real", -1.0, 1.0),
        ("real", -1.0, 1.0),
        ("real", -8.0, 8.0),
    ]
    assert [(c.low, c.high) for c in host.action_spec] == [(-2.0, 2.0)]
    host.reset(seed=0)
    out = host.step(jnp.zeros((2, 1)))
    assert [x.dtype for x in out[:5]] == [np.float32, np.float32, bool, bool, np.float32]
    assert out.valid == ()  # no step was only a reset


class Counter(gymnasium.Env):
    """Categories that do not start at 0; episodes of 1 and 10 steps in turn, a reward a step."""

    observation_space = gymnasium.spaces.Discrete(4, start=2)
    action_space = gymnasium.spaces.Discrete(3, start=5)

    def __init__(self):
        self.num_resets, self.time = 0, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.num_resets, self.time = self.num_resets + 1, 0
        return 2, {}

    def step(self, action):
        assert action in self.action_space
        self.time += 1
        length = 1 if self.num_resets % 2 else 10
        return int(action) - 2, 1.0, self.time == length == 1, self.time == length == 10, {}


def counters(num_lanes):
    return HostVector(SyncVectorEnv([Counter] * num_lanes, autoreset_mode="SameStep"))


def test_categories_count_from_zero():
    host = counters(2)
    assert host.obs_spec[0].cardinality == 4
    assert host.action_spec[0].cardinality == 3
    assert host.obs_shape == (1,)
    np.testing.assert_array_equal(host.reset(seed=0), [[0.0], [0.0]])
    out = host.step(np.array([0, 2]))
    np.testing.assert_array_equal(out.final_obs, [[1.0], [3.0]])  # 5 - 2 - 2 and 7 - 2 - 2
    np.testing.assert_array_equal(out.obs, [[0.0], [0.0]])


class Nested(gymnasium.Env):
    """A number is shown in three forms, and is to be said in two; one step a lane's number is 1 longer."""

    observation_space = gymnasium.spaces.Dict(
        {
            "number": gymnasium.spaces.Discrete(4, start=3),
            "eye": gymnasium.spaces.Box(0, 255, (1, 2, 1), np.uint8),
            "pair": gymnasium.spaces.Tuple(
                [gymnasium.spaces.Box(-9, 9, (), np.float64), gymnasium.spaces.MultiDiscrete([4, 2])]
            ),
        }
    )
    action_space = gymnasium.spaces.Dict(
        hand=gymnasium.spaces.Tuple(
            [gymnasium.spaces.Discrete(4, start=3), gymnasium.spaces.Box(-1, 1, (2,))]
        ),
        flags=gymnasium.spaces.MultiBinary(2),
    )

    def _show(self):
        eye = np.full((1, 2, 1), 60 * self.number, np.uint8)
        pair = (np.array(-1.5 * self.number), np.array([self.number, self.number % 2]))
        return {"pair": pair, "eye": eye, "number": np.int64(self.number + 3)}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.number = 0
        return self._show(), {}

    def step(self, action):
        assert action in self.action_space, action
        said = action["hand"][0] - 3
        reward = float(said == self.number) + float(action["hand"][1][1]) + float(action["flags"][0])
        self.number += 1
        return self._show(), reward, self.number == 3, False, {}


NESTED_NAMES = ["obs.eye[0]", "obs.eye[1]", "obs.number", "obs.pair.0[0]", "obs.pair.1[0]", "obs.pair.1[1]"]
ACTION_NAMES = ["action.hand.0", "action.hand.1[0]", "action.hand.1[1]", "action.flags[0]", "action.flags[1]"]


@pytest.mark.parametrize("mode", MODES)
def test_nested_spaces_are_vectors_from_the_host(mode):
    host = HostVector(SyncVectorEnv([Nested] * 2, autoreset_mode=mode))
    assert [c.name for c in host.obs_spec] == NESTED_NAMES
    assert [c.name for c in host.action_spec] == ACTION_NAMES
    assert (host.obs_shape, host.obs_dtype) == ((6,), np.float32)
    first = np.zeros((2, 6), np.float32)
    np.testing.assert_array_equal(host.reset(seed=0), first)
    for number in range(3):
        action = np.array([[number, 0.0, 0.5, 1.0, 0.0], [3 - number, 0.0, -0.5, 0.0, 1.0]], np.float32)
        out = host.step(action)
        after = number + 1
        seen = np.array([[60 * after, 60 * after, after, -1.5 * after, after, after % 2]] * 2, np.float32)
        np.testing.assert_array_equal(out.final_obs, seen)
        np.testing.assert_array_equal(out.obs, first if after == 3 else seen)
        np.testing.assert_array_equal(out.reward, [2.5, -0.5])
        np.testing.assert_array_equal(out.terminated, after == 3)
        assert out.obs.dtype == out.final_obs.dtype == out.reward.dtype == np.float32
    with pytest.raises(ValueError, match=r"got actions of shape \(2, 4\), expected 2 lanes.*\(2, 5\)"):
        host.step(np.zeros((2, 4)))


def test_play_counts_as_many_episodes_in_every_lane():
    """Four of each lane: 1, 10, 1, 10. The first eight to end would be mostly short ones."""
    episodes = play(counters(3), lambda obs: np.zeros(len(obs), int), num_episodes=4, seed=0)
    expected = np.tile([[1], [10], [1], [10]], (1, 3))
    np.testing.assert_array_equal(episodes.lengths, expected)
    np.testing.assert_array_equal(episodes.returns, expected)
    np.testing.assert_array_equal(episodes.terminated, expected == 1)


def test_play_waits_for_the_slow_lane_and_counts_no_more_of_the_others():
    def policy(obs):
        return np.where(obs[:, 2] + 0.3 * obs[:, 3] > 0, 1, 0) * [1, 0]  # lane 1 falls at once

    episodes = play(make_host("CartPole-v1", 2), policy, num_episodes=2, seed=0)
    assert (episodes.lengths[:, 0] > 3 * episodes.lengths[:, 1]).all()
    assert (episodes.lengths[:, 1] < 15).all()
    np.testing.assert_array_equal(episodes.returns, episodes.lengths)
    with pytest.raises(ValueError, match="at least 1"):
        play(make_host("CartPole-v1", 2), policy, num_episodes=0, seed=0)


# --- export ---------------------------------------------------------------------------------------


@functools.cache
def exported(name, **overrides):
    return export(*envs.make(f"gymnax/{name}", **overrides), render_mode="rgb_array")


def complaints(env):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(env)
    return sorted(str(w.message) for w in caught)


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1"])
def test_gymnasium_s_checker_says_of_ours_what_it_says_of_its_own(name):
    """Two notes on unbounded speeds, one on a torque of 2: both belong to the tasks."""
    ours, theirs = complaints(exported(name)), complaints(gymnasium.make(name).unwrapped)
    own = [text for text in theirs if "Box" in text]
    assert own
    assert ours == own


@pytest.mark.slow
def test_gymnasium_s_checker_accepts_pictures_of_cells():
    assert complaints(exported("Breakout-MinAtar")) == []


def test_made_again_from_its_spec():
    env = exported("CartPole-v1").spec.make(render_mode="rgb_array")
    first, _ = env.reset(seed=4)
    np.testing.assert_array_equal(first, exported("CartPole-v1").reset(seed=4)[0])
    assert env.render().dtype == np.uint8


def balance(obs):
    return int(obs[2] + 0.3 * obs[3] > 0)


def always_right(obs):
    return 1


@pytest.mark.parametrize(("policy", "falls"), [(balance, False), (always_right, True)])
def test_exported_cartpole_equals_gymnasium_s_step_by_step(policy, falls):
    """From the same state at every step, to a fall or to the time limit of 500."""
    ours, sim = exported("CartPole-v1"), gymnasium.make("CartPole-v1")
    assert ours.action_space == sim.action_space
    assert ours.observation_space.shape == sim.observation_space.shape
    obs, _ = ours.reset(seed=3)
    sim.reset(seed=0)
    num_steps, terminated, truncated = 0, False, False
    while not (terminated or truncated):
        sim.unwrapped.state = np.array(obs, np.float64)
        action = policy(obs)
        obs, reward, terminated, truncated, _ = ours.step(action)
        true_obs, true_reward, *true_flags, _ = sim.step(action)
        np.testing.assert_allclose(obs, true_obs, atol=1e-5, rtol=1e-5)
        assert (reward, terminated, truncated) == (true_reward, *true_flags)
        num_steps += 1
    assert (terminated, truncated) == (falls, not falls)
    assert (num_steps < 20) if falls else (num_steps == 500)


def test_step_never_resets_and_the_clock_is_the_task_s():
    env = exported("CartPole-v1", max_steps_in_episode=3)
    env.reset(seed=0)
    flags = [env.step(i % 2)[2:4] for i in range(5)]
    assert flags == [(False, False)] * 2 + [(False, True)] * 3


def test_a_seed_fixes_the_stream_and_no_seed_goes_on():
    env = exported("CartPole-v1")

    def firsts():
        return np.stack([env.reset(seed=11)[0], env.reset()[0], env.reset()[0]])

    once, again = firsts(), firsts()
    np.testing.assert_array_equal(once, again)
    assert len(np.unique(once[:, 0])) == 3
    from_export = export(*envs.make("gymnax/CartPole-v1"), seed=11)
    np.testing.assert_array_equal(from_export.reset()[0], once[0])


@pytest.mark.slow
def test_the_keys_of_the_steps_follow_from_the_seed():
    """Asterix draws at every step: a pure replay of the documented stream meets the same states."""
    pure, params = envs.make("gymnax/Asterix-MinAtar")
    env = export(pure, params)
    obs, _ = env.reset(seed=5)
    seed = int(gymnasium.utils.seeding.np_random(5)[0].integers(2**31))
    key, key_reset = jax.random.split(jax.random.key(seed))
    true_obs, state = jax.jit(pure.reset)(key_reset, params)
    np.testing.assert_array_equal(obs, true_obs)
    step = jax.jit(pure.step)
    for _ in range(12):
        key, key_step = jax.random.split(key)
        true_obs, state, *_ = step(key_step, state, jnp.int32(0), params)
        obs, *_ = env.step(0)
        np.testing.assert_array_equal(obs, true_obs)


def test_types_are_those_of_gymnasium():
    env = exported("Pendulum-v1")
    obs, info = env.reset(seed=0)
    assert (type(obs), obs.dtype, obs.flags.writeable) == (np.ndarray, np.float32, True)
    obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
    assert [type(x) for x in (obs, reward, terminated, truncated)] == [np.ndarray, float, bool, bool]
    assert all(isinstance(x, np.ndarray) for x in info.values())
    picture = env.render()
    assert (picture.dtype, picture.ndim, picture.shape[-1]) == (np.uint8, 3, 3)


def test_order_and_render_mode_are_enforced():
    pure, params = envs.make("gymnax/CartPole-v1")
    env = export(pure, params)
    with pytest.raises(gymnasium.error.ResetNeeded, match="reset"):
        env.step(0)
    with pytest.raises(gymnasium.error.ResetNeeded, match="reset"):
        export(pure, params, render_mode="rgb_array").render()
    with pytest.raises(ValueError, match="got render_mode 'human', expected"):
        export(pure, params, render_mode="human")
    with pytest.warns(UserWarning, match="without a mode"):
        assert env.render() is None


def test_what_gymnasium_cannot_hold_is_refused():
    pure, params = envs.make("gymnax/CartPole-v1")
    impure, game = copy.copy(pure), copy.copy(pure)
    impure.is_pure, game.num_players = False, 2
    for build in (export, functools.partial(export_vector, num_envs=2)):
        with pytest.raises(ValueError, match="got an environment with side effects, expected"):
            build(impure, params)
        with pytest.raises(ValueError, match="got 2 players, expected 1"):
            build(game, params)


def test_legal_actions_are_gymnasium_s_mask():
    pure, params = envs.make("gymnax/CartPole-v1")
    masked = copy.copy(pure)
    masked.has_legal_actions = True
    masked.legal_actions = lambda state, params: jnp.stack([state.time % 2 == 0, state.time >= 0])
    env = export(masked, params)
    _, info = env.reset(seed=0)
    np.testing.assert_array_equal(info["action_mask"], np.array([1, 1], np.int8))
    *_, info = env.step(1)
    np.testing.assert_array_equal(info["action_mask"], np.array([0, 1], np.int8))
    assert {env.action_space.sample(mask=info["action_mask"]) for _ in range(20)} == {1}


# --- export_vector --------------------------------------------------------------------------------


@pytest.mark.slow
def test_exported_lanes_are_those_of_our_vector():
    """There and back: HostVector over the export returns what `VectorEnv` returns."""
    pure, params = envs.make("gymnax/CartPole-v1", max_steps_in_episode=15)
    host = HostVector(export_vector(pure, params, 3))
    obs = host.reset(seed=9)
    seed = int(gymnasium.utils.seeding.np_random(9)[0].integers(2**31))
    key, key_reset = jax.random.split(jax.random.key(seed))
    lanes = VectorEnv(pure)
    state = jax.jit(lanes.reset)(key_reset, broadcast_params(params, 3))
    np.testing.assert_array_equal(obs, state.obs)
    step, rng, ends = jax.jit(lanes.step), np.random.default_rng(0), np.zeros(2, int)
    for _ in range(60):
        action = rng.integers(2, size=3)
        key, key_step = jax.random.split(key)
        state, true = step(key_step, state, jnp.asarray(action, jnp.int32))
        ours = host.step(action)
        for x, y in zip(ours[:5], true[:5], strict=True):
            np.testing.assert_array_equal(x, y)
        ends += [ours.terminated.sum(), ours.truncated.sum()]
    assert (ends > 0).all()


def test_last_observations_stand_where_gymnasium_s_own_stand():
    """Lane 0 falls, lane 1 goes on: an object and None, and a mask, as of SyncVectorEnv."""
    ours = export_vector(*envs.make("gymnax/CartPole-v1"), num_envs=2)
    theirs = vector("CartPole-v1", 2, AutoresetMode.SAME_STEP)
    infos = []
    for source in (ours, theirs):
        obs, _ = source.reset(seed=0)
        assert obs in source.observation_space
        info = {}
        for i in range(30):
            if "final_obs" in info:
                break
            obs, _, terminated, _, info = source.step(np.array([1, i % 2]))
        np.testing.assert_array_equal(terminated, [True, False])
        assert abs(info["final_obs"][0][2]) > 0.2 > abs(obs[0, 2])  # fallen, and standing again
        infos.append(info)
    for name in ("final_obs", "_final_obs"):
        assert infos[0][name].dtype == infos[1][name].dtype
        assert infos[0][name].shape == infos[1][name].shape
    assert infos[0]["final_obs"][1] is infos[1]["final_obs"][1] is None
    assert infos[0]["final_obs"][0].dtype == infos[1]["final_obs"][0].dtype


def test_a_masked_reset_of_exported_lanes_is_refused():
    source = export_vector(*envs.make("gymnax/CartPole-v1"), num_envs=2)
    with pytest.raises(gymnasium.error.ResetNeeded, match="reset"):
        source.step(np.zeros(2, int))
    with pytest.raises(ValueError, match="SAME_STEP"):
        source.reset(options={"reset_mask": np.array([True, False])})


def test_pixels_keep_their_dtype():
    space = adapter.box((adapter.Component("p", "real", 0, 255),) * 12, (2, 2, 3), np.uint8)
    assert (space.dtype, space.shape, space.high.max()) == (np.uint8, (2, 2, 3), 255)


def test_several_categories_are_exported_and_stepped():
    env, params = envs.make("probe/TwoCategories")
    lanes = export_vector(env, params, 3)
    assert lanes.single_action_space == gymnasium.spaces.MultiDiscrete([3, 2])
    lanes.reset(seed=0)
    _, reward, terminated, *_ = lanes.step(lanes.action_space.sample())
    assert set(reward.tolist()) <= {0.0, 0.5, 1.0}
    assert terminated.all()


@pytest.mark.fast("CategoryAndReal")
@pytest.mark.parametrize("name", ["TwoCategories", "CategoryAndReal", "LegalActions"])
def test_gymnasium_s_checker_accepts_categories_of_every_kind(name):
    assert complaints(export(*envs.make(f"probe/{name}"), render_mode="rgb_array")) == []


def test_a_mix_of_actions_is_exported_by_name_and_comes_back():
    """There and back the kinds, bounds and order are ours; only names tell the way they went."""
    env, params = envs.make("probe/CategoryAndReal")
    assert export(env, params).action_space == gymnasium.spaces.Dict(
        [
            ("pointer", gymnasium.spaces.Box(-1.0, 1.0, (), np.float32)),
            ("first", gymnasium.spaces.Discrete(3)),
        ]
    )
    host = HostVector(export_vector(env, params, 3))
    assert [c.name for c in host.action_spec] == ["action.pointer[0]", "action.first"]
    assert [c[1:] for c in host.action_spec] == [c[1:] for c in env.action_spec]
    symbol = host.reset(seed=0)[:, 0]
    right = np.stack([symbol // 3 - 0.5, symbol % 3], axis=1)
    np.testing.assert_allclose(host.step(right).reward, 1.0)
