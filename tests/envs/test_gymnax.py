"""The gymnax adapter against gymnax, classic control against gymnasium, and the overrides."""

import functools

import gymnasium.envs.classic_control as classic
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnax.environments import spaces
from gymnax.environments.environment import EnvParams, EnvState

import envs
from envs.adapters.gymnax import GymnaxEnvironment
from envs.common.foreign import foreign
from envs.common.names import UnknownName
from envs.types import contains, sample_action
from envs.vector import VectorEnv, broadcast_params
from jaxagent.agents.actor_critic import ppo
from jaxagent.config import PPOConfig
from jaxagent.train import loops, optimizer, parallel

CLASSIC = ("CartPole-v1", "Acrobot-v1", "Pendulum-v1", "MountainCar-v0")


def all_names():
    names = [env_id.split("/")[1] for env_id in envs.registered("gymnax")]
    return [pytest.param(n, marks=[] if n in CLASSIC else [pytest.mark.slow]) for n in names]


@functools.cache
def made(name):
    env, params = envs.make(f"gymnax/{name}")
    return env, params, jax.jit(env.reset), jax.jit(env.step)


def assert_same(ours, theirs, name):
    """Equal values; gymnax mixes Python numbers and dtypes, ours must not lose any of them."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape, name
    np.testing.assert_allclose(
        ours.astype(np.float64), theirs.astype(np.float64), rtol=1e-6, atol=1e-6, err_msg=name
    )


def as_vector(obs):
    """FrozenLake shows a number without an axis; ours are vectors, a lone category too."""
    return np.atleast_1d(obs)


@pytest.mark.fast("CartPole-v1", "Pendulum-v1")
@pytest.mark.foreign_oracle
@pytest.mark.parametrize("name", all_names())
def test_step_equals_gymnax(name):
    """Reset and 40 random steps, state included; ours goes on where gymnax would reset."""
    env, params, reset, step = made(name)
    oracle, oracle_params = gymnax.make(name)
    oracle_reset = jax.jit(foreign(oracle.reset_env))
    oracle_step = jax.jit(foreign(oracle.step_env))
    is_truncated = jax.jit(foreign(oracle.is_truncated))
    obs, state = reset(jax.random.key(0), params)
    true_obs, true_state = oracle_reset(jax.random.key(0), oracle_params)
    assert_same(obs, as_vector(true_obs), "first obs")
    for i in range(40):
        for field in true_state.__dataclass_fields__:
            assert_same(getattr(state, field), getattr(true_state, field), f"step {i} {field}")
        action = sample_action(jax.random.key(1000 + i), env.action_spec)
        key = jax.random.key(2000 + i)
        obs, next_state, reward, terminated, truncated, info = step(key, state, action, params)
        true_obs, true_state, true_reward, true_end, true_info = oracle_step(
            jax.random.clone(key), state, action, oracle_params
        )
        assert_same(obs, as_vector(true_obs), f"step {i} obs")
        assert_same(reward, true_reward, f"step {i} reward")
        assert bool(terminated) == bool(true_end)
        assert bool(truncated) == bool(is_truncated(true_state, oracle_params))
        assert set(info) == set(true_info)
        state = next_state


# --- gymnasium: one step from the same state and action -------------------------------------------


def gymnasium_step(name, state, action):
    """Next state, reward and termination of gymnasium's own class, in float64."""
    sims = {
        "CartPole-v1": classic.CartPoleEnv,
        "Acrobot-v1": classic.AcrobotEnv,
        "Pendulum-v1": classic.PendulumEnv,
        "MountainCar-v0": classic.MountainCarEnv,
    }
    sim = sims[name]()
    sim.reset(seed=0)
    sim.state = np.array(state, np.float64)
    obs, reward, terminated, _, _ = sim.step(action)
    return np.asarray(obs, np.float64), float(reward), bool(terminated)


STATE_FIELDS = {
    "CartPole-v1": ("x", "x_dot", "theta", "theta_dot"),
    "Acrobot-v1": ("joint_angle1", "joint_angle2", "velocity_1", "velocity_2"),
    "Pendulum-v1": ("theta", "theta_dot"),
    "MountainCar-v0": ("position", "velocity"),
}
# Ranges wide enough that a step terminates from some states and not from others.
STATE_RANGES = {
    "CartPole-v1": ((-2.39, 2.39), (-3, 3), (-0.205, 0.205), (-2, 2)),
    "Acrobot-v1": ((-3.1, 3.1), (-3.1, 3.1), (-4, 4), (-9, 9)),
    "Pendulum-v1": ((-9.0, 9.0), (-8, 8)),
    "MountainCar-v0": ((-1.2, 0.49), (-0.07, 0.07)),
}


@pytest.mark.fast("CartPole-v1", "Pendulum-v1")
@pytest.mark.parametrize("name", CLASSIC)
def test_one_step_equals_gymnasium(name):
    env, params, reset, step = made(name)
    rng = np.random.default_rng(7)
    _, template = reset(jax.random.key(0), params)
    low, high = np.array(STATE_RANGES[name], np.float64).T
    ends = []
    for _ in range(200):
        values = rng.uniform(low, high).astype(np.float32)
        state = template.replace(
            **{f: jnp.asarray(v) for f, v in zip(STATE_FIELDS[name], values, strict=True)}
        )
        if env.is_discrete:
            action = rng.integers(env.action_spec[0].cardinality)
            ours = jnp.array(action, jnp.int32)
        else:
            action = rng.uniform(-3, 3, (1,)).astype(np.float32)  # the box is [-2, 2]
            ours = jnp.asarray(action)
        obs, next_state, reward, terminated, truncated, _ = step(jax.random.key(0), state, ours, params)
        true_obs, true_reward, true_end = gymnasium_step(name, values, action)
        np.testing.assert_allclose(obs, true_obs, atol=1e-5, rtol=1e-5)
        np.testing.assert_allclose(reward, true_reward, atol=1e-5, rtol=1e-5)
        assert bool(terminated) == true_end
        assert not truncated
        assert int(next_state.time) == 1
        ends.append(true_end)
    assert not all(ends)
    if name != "Pendulum-v1":  # it never terminates
        assert sum(ends) >= 2, "the sampled states must show both values of the flag"


@pytest.mark.fast("CartPole-v1")
@pytest.mark.parametrize("name", CLASSIC)
def test_first_states_have_the_support_of_gymnasium(name):
    env, params, *_ = made(name)
    keys = jax.random.split(jax.random.key(0), 3000)
    _, states = jax.jit(jax.vmap(env.reset, in_axes=(0, None)))(keys, params)
    bounds = {
        "CartPole-v1": [(-0.05, 0.05)] * 4,
        "Acrobot-v1": [(-0.1, 0.1)] * 4,
        "Pendulum-v1": [(-np.pi, np.pi), (-1, 1)],
        "MountainCar-v0": [(-0.6, -0.4), (0, 0)],
    }[name]
    for field, (low, high) in zip(STATE_FIELDS[name], bounds, strict=True):
        values, margin = np.asarray(getattr(states, field)), 0.01 * (high - low)
        assert low - 1e-6 <= values.min() <= low + margin
        assert high - margin <= values.max() <= high + 1e-6


@pytest.mark.parametrize("name", CLASSIC)
def test_time_limit_is_that_of_gymnasium(name):
    env, params, _, step = made(name)
    limit = classic_limit(name)
    assert env.max_steps == limit
    _, state = env.reset(jax.random.key(0), params)
    action = sample_action(jax.random.key(0), env.action_spec)
    for time, truncates in ((limit - 2, False), (limit - 1, True)):
        late = state.replace(time=jnp.array(time, jnp.int32))
        *_, terminated, truncated, _ = step(jax.random.key(0), late, action, params)
        assert bool(truncated) is truncates
        assert not terminated


def classic_limit(name):
    import gymnasium

    return gymnasium.spec(name).max_episode_steps


# --- overrides ------------------------------------------------------------------------------------


def test_overrides_recompute_what_is_derived():
    _, params = envs.make("gymnax/CartPole-v1", length=1.5, masspole=0.3, masscart=2.0)
    np.testing.assert_allclose(params.polemass_length, 0.3 * 1.5, rtol=1e-6)
    np.testing.assert_allclose(params.total_mass, 2.3, rtol=1e-6)
    _, nominal = envs.make("gymnax/CartPole-v1")
    np.testing.assert_allclose(nominal.polemass_length, 0.05, rtol=1e-6)
    np.testing.assert_allclose(nominal.total_mass, 1.1, rtol=1e-6)
    _, given = envs.make("gymnax/CartPole-v1", masspole=0.3, total_mass=5.0)
    np.testing.assert_allclose(given.total_mass, 5.0)
    np.testing.assert_allclose(given.polemass_length, 0.15, rtol=1e-6)


def test_overridden_task_equals_gymnasium():
    """A longer, heavier pole, checked by a simulator that derives its own masses."""
    env, params = envs.make("gymnax/CartPole-v1", length=1.5, masspole=0.3)
    sim = classic.CartPoleEnv()
    sim.reset(seed=0)
    sim.length, sim.masspole = 1.5, 0.3
    sim.total_mass, sim.polemass_length = sim.masspole + sim.masscart, sim.masspole * sim.length
    sim.state = np.array([0.1, 0.2, -0.1, 0.4])
    _, state = env.reset(jax.random.key(0), params)
    names = STATE_FIELDS["CartPole-v1"]
    state = state.replace(**dict(zip(names, jnp.asarray(sim.state, jnp.float32), strict=True)))
    obs = env.step(jax.random.key(0), state, jnp.array(1, jnp.int32), params)[0]
    np.testing.assert_allclose(obs, sim.step(1)[0], atol=1e-6)


def test_overrides_touch_nothing_else():
    _, nominal = envs.make("gymnax/Pendulum-v1")
    env, params = envs.make("gymnax/Pendulum-v1", g=14.0, max_steps_in_episode=50)
    assert env.max_steps == 50
    for field in nominal.__dataclass_fields__:
        changed = {"g": 14.0, "max_steps_in_episode": 50}.get(field, getattr(nominal, field))
        np.testing.assert_array_equal(getattr(params, field), changed)


def test_default_params_are_those_of_make():
    env, params = envs.make("gymnax/CartPole-v1")
    for x, y in zip(jax.tree.leaves(env.default_params), jax.tree.leaves(params), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_allclose(x, y, rtol=1e-6)


def test_unknown_parameter_names_the_nearest():
    with pytest.raises(UnknownName, match=r"lenght.*length"):
        envs.make("gymnax/CartPole-v1", lenght=1.0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("length", -1.0),
        ("length", 0.0),
        ("length", float("nan")),
        ("length", float("inf")),
        ("length", True),
        ("length", "long"),
        ("length", None),
        ("max_steps_in_episode", 0),
        ("max_steps_in_episode", -5),
        ("masspole", float("-inf")),
    ],
)
def test_bad_override_says_what_it_got(field, value):
    with pytest.raises(ValueError, match=f"{field}: got") as caught:
        envs.make("gymnax/CartPole-v1", **{field: value})
    assert "expected" in str(caught.value)


def test_a_negative_value_is_legal_where_the_default_is_not_positive():
    _, params = envs.make("gymnax/MountainCar-v0", goal_velocity=-0.01, min_position=-1.5)
    np.testing.assert_allclose(params.min_position, -1.5)
    np.testing.assert_allclose(params.goal_velocity, -0.01)


@pytest.mark.parametrize("overrides", [{"length": 1}, {"max_steps_in_episode": 100.0}])
def test_overrides_keep_the_dtypes_of_the_task(overrides):
    """Tasks are stacked into lanes and enter compiled programs: their dtypes must agree."""
    _, nominal = envs.make("gymnax/CartPole-v1")
    _, params = envs.make("gymnax/CartPole-v1", **overrides)
    dtypes = [x.dtype for x in jax.tree.leaves(nominal)]
    assert [x.dtype for x in jax.tree.leaves(params)] == dtypes


def test_specs_follow_the_task():
    env, params = envs.make("gymnax/Pendulum-v1", max_torque=4.0, max_speed=12.0)
    assert env.action_spec[0].high == 4.0
    _, state = env.reset(jax.random.key(0), params)
    fast = state.replace(theta_dot=jnp.float32(11.0))
    obs = env.step(jax.random.key(0), fast, jnp.ones((1,)), params)[0]
    assert contains(env.obs_spec, obs)


# --- nested spaces --------------------------------------------------------------------------------


@struct.dataclass
class Sight(EnvState):
    symbol: int
    place: jax.Array


class NestedWorld(gymnax.environments.environment.Environment):
    """As careless with types as gymnax allows; a step moves, the right symbol ends the episode."""

    def reset_env(self, key, params):
        state = Sight(time=0, symbol=jax.random.randint(key, (), 0, 3), place=jnp.zeros(2))
        return self.observe(key, state, None, params), state

    def step_env(self, key, state, action, params):
        symbol, move = action
        assert (symbol.shape, symbol.dtype, move.shape, move.dtype) == ((), jnp.int32, (2, 1), jnp.float32)
        ends = symbol == state.symbol
        state = state.replace(time=state.time + 1, place=state.place + move[:, 0])
        return self.observe(key, state, action, params), state, ends * 1, ends, {}

    def observe(self, key, state, action, params):
        eye = jnp.full((1, 2), 100 * state.symbol, jnp.uint8)
        return {"what": {"symbol": state.symbol, "eye": eye}, "where": (state.place, state.time > 1)}

    def observation_space(self, params):
        what = spaces.Dict({"symbol": spaces.Discrete(3), "eye": spaces.Box(0, 255, (1, 2), jnp.uint8)})
        where = spaces.Tuple([spaces.Box(-jnp.inf, jnp.inf, (2,)), spaces.Discrete(2)])
        return spaces.Dict({"what": what, "where": where})

    def action_space(self, params):
        return spaces.Tuple([spaces.Discrete(3), spaces.Box(-1.0, 1.0, (2, 1))])


def nested():
    params = EnvParams(max_steps_in_episode=jnp.array(3, jnp.int32))
    return GymnaxEnvironment("Nested", NestedWorld(), params), params


def test_nested_spaces_are_flat_lists_by_name():
    env, _ = nested()
    names = ["what.symbol", "what.eye[0]", "what.eye[1]", "where.0[0]", "where.0[1]", "where.1"]
    assert [c.name for c in env.obs_spec] == [f"obs.{name}" for name in names]
    assert [c.cardinality for c in env.obs_spec] == [3, 0, 0, 0, 0, 2]
    assert [c.name for c in env.action_spec] == ["action.0", "action.1[0]", "action.1[1]"]
    assert env.obs_shape == (6,)
    state = Sight(time=jnp.array(0), symbol=jnp.array(1), place=jnp.zeros(2))
    assert env.render(state, None).dtype == np.uint8


@pytest.mark.fast("pool")
@pytest.mark.parametrize("num_lanes", [None, 4], ids=["task a lane", "pool"])
def test_nested_observations_survive_the_auto_reset(num_lanes):
    """Lanes 0 and 1 say the right symbol at once, the others never; all dtypes are ours."""
    env, params = nested()
    vector = VectorEnv(env, num_lanes=num_lanes)
    state = jax.jit(vector.reset)(jax.random.key(0), params if num_lanes else broadcast_params(params, 4))
    step = jax.jit(vector.step)
    for i in range(3):
        symbol = state.obs[:, 0]
        said = jnp.where(jnp.arange(4) < 2, symbol, (symbol + 1.0) % 3)
        action = jnp.stack([said, jnp.full(4, 0.5), jnp.full(4, -0.25)], axis=1)
        state, out = step(jax.random.key(i), state, action)
        np.testing.assert_array_equal(out.terminated, [True, True, False, False])
        np.testing.assert_array_equal(out.truncated, [False, False, i == 2, i == 2])
        np.testing.assert_array_equal(out.reward, [1.0, 1.0, 0.0, 0.0])
        eyes, late = 100.0 * symbol, jnp.full(4, 1.0 if i else 0.0).at[:2].set(0.0)
        moves = jnp.array([1.0, 1.0, i + 1.0, i + 1.0])
        true_last = jnp.stack([symbol, eyes, eyes, 0.5 * moves, -0.25 * moves, late], axis=1)
        np.testing.assert_array_equal(out.final_obs, true_last)
        ended = np.asarray(out.terminated | out.truncated)
        np.testing.assert_array_equal(out.obs[~ended], out.final_obs[~ended])
        np.testing.assert_array_equal(out.obs[ended][:, 3:], 0.0)
        assert [(x.dtype, x.weak_type) for x in (out.obs, out.final_obs, out.reward)] == [
            (np.float32, False)
        ] * 3


def updated_twice(env, params):
    """Metrics of the second of two small updates of PPO."""
    config = PPOConfig(num_envs=8, num_steps=4, num_epochs=1, num_minibatches=1, hidden_size=4)
    agent = ppo(env.obs_spec, env.action_spec, config)
    loop = loops.on_policy(agent, VectorEnv(env), optimizer.adam(1e-3, 1.0), config)
    state = parallel.first_state(*jax.jit(loop.init)(jax.random.key(0), broadcast_params(params, 8)))
    _, report = parallel.chunked(loop, 2, 1)(state, jax.random.key(1))
    return report.metrics


def test_ppo_learns_from_nested_spaces():
    assert np.isfinite(float(updated_twice(*nested())["train/loss/policy"].total))


@pytest.mark.slow
def test_ppo_reads_a_lone_symbol():
    env, params = envs.make("gymnax/FrozenLake-misc")
    assert (env.obs_shape, env.obs_spec[0].name, env.obs_spec[0].cardinality) == ((1,), "obs", 16)
    assert np.isfinite(float(updated_twice(env, params)["train/loss/policy"].total))


def test_spaces_of_another_kind_are_refused_by_name():
    class Odd(NestedWorld):
        def observation_space(self, params):
            return spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Space()})

    with pytest.raises(
        ValueError, match=r"obs\.b: got space .*, expected gymnax Box, Discrete, Dict or Tuple"
    ):
        GymnaxEnvironment("Odd", Odd(), nested()[1])
