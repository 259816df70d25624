"""Our classic control against gymnax and gymnasium, step by step from the same states."""

import functools

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import envs
from envs.types import sample_action

NAMES = ("CartPole-v1", "Acrobot-v1", "Pendulum-v1", "MountainCar-v0", "MountainCarContinuous-v0")
LANES, STEPS = 128, 250
# Other tasks, in the names that ours and gymnax share.
CHANGED = {
    "CartPole-v1": {"gravity": 12.0, "masscart": 2.0, "masspole": 0.3, "length": 0.8, "tau": 0.03},
    "Acrobot-v1": {"link_length_1": 1.3, "link_mass_1": 0.7, "link_mass_2": 1.6, "dt": 0.15},
    "Pendulum-v1": {"g": 6.0, "m": 1.7, "l": 0.8, "max_torque": 3.0, "dt": 0.04},
    "MountainCar-v0": {"force": 0.002, "gravity": 0.003, "max_speed": 0.09},
    "MountainCarContinuous-v0": {"power": 0.002, "gravity": 0.003, "max_speed": 0.09},
}
# Where the state lives in gymnasium's environments.
FIELDS = {
    "CartPole-v1": ("x", "x_dot", "theta", "theta_dot"),
    "Acrobot-v1": ("joint_angle1", "joint_angle2", "velocity_1", "velocity_2"),
    "Pendulum-v1": ("theta", "theta_dot"),
    "MountainCar-v0": ("position", "velocity"),
    "MountainCarContinuous-v0": ("position", "velocity"),
}


@functools.cache
def made(name, changed=False):
    return envs.make(f"classic/{name}", **(CHANGED[name] if changed else {}))


def actions(key, env, num):
    return jax.vmap(functools.partial(sample_action, spec=env.action_spec))(jax.random.split(key, num))


@functools.cache
def rollout(name, changed=False):
    """States before each step, actions and what our step gives: leaves `[T, B, ...]`.

    No reset, so that states far outside of an episode are part of the comparison too; cars start
    all over the valley and acrobots in full swing: random actions alone would not end an episode.
    """
    env, params = made(name, changed)

    def step(state, key):
        key_action, key_step = jax.random.split(key)
        action = actions(key_action, env, LANES)
        keys = jax.random.split(key_step, LANES)
        out = jax.vmap(env.step, in_axes=(0, 0, 0, None))(keys, state, action, params)
        return out[1], (state, action, out[:5])

    def run(key):
        key_reset, key_spread, key_steps = jax.random.split(key, 3)
        _, state = jax.vmap(env.reset, in_axes=(0, None))(jax.random.split(key_reset, LANES), params)
        if name.startswith("MountainCar"):
            position, velocity = jax.random.uniform(key_spread, (2, LANES))
            state = state._replace(position=1.6 * position - 1.2, velocity=0.14 * velocity - 0.07)
        if name == "Acrobot-v1":
            spread = 16 * jax.random.uniform(key_spread, (LANES,)) - 8
            state = state._replace(velocity_1=spread, velocity_2=-2 * spread)
        return jax.lax.scan(step, state, jax.random.split(key_steps, STEPS))[1]

    return jax.device_get(jax.jit(run)(jax.random.key(7)))


def distance_to_threshold(name, state):
    """How far a state is from the nearest threshold of its termination."""
    if name == "CartPole-v1":
        return np.minimum(np.abs(np.abs(state.x) - 2.4), np.abs(np.abs(state.theta) - 12 * 2 * np.pi / 360))
    if name == "Acrobot-v1":
        first, both = state.joint_angle1, state.joint_angle1 + state.joint_angle2
        return np.abs(-np.cos(first) - np.cos(both) - 1.0)
    if name == "Pendulum-v1":
        return np.full(state.theta.shape, np.inf)
    goal = 0.5 if name == "MountainCar-v0" else 0.45
    return np.minimum(np.abs(state.position - goal), np.abs(state.velocity))


@pytest.mark.fast("CartPole-v1-changed")
@pytest.mark.parametrize("changed", [False, True], ids=["nominal", "changed"])
@pytest.mark.parametrize("name", NAMES)
def test_equals_gymnax_step_by_step(name, changed):
    state, action, (obs, after, reward, terminated, truncated) = rollout(name, changed)
    theirs, theirs_params = envs.make(f"gymnax/{name}", **(CHANGED[name] if changed else {}))
    blank = jax.eval_shape(theirs.reset, jax.random.key(0), theirs_params)[1]
    their_state = blank.replace(**{f: getattr(state, f) for f in state._fields})
    step = jax.vmap(jax.vmap(theirs.step, in_axes=(None, 0, 0, None)), in_axes=(None, 0, 0, None))
    want_obs, want, want_reward, want_terminated, want_truncated, _ = jax.device_get(
        jax.jit(step)(jax.random.key(0), their_state, action, theirs_params)
    )
    near = distance_to_threshold(name, after) < 1e-5
    if name == "MountainCarContinuous-v0":  # gymnax stops the car at the goal, not at the wall
        near |= (after.position == np.float32(-1.2)) | (after.position >= 0.45)
        np.testing.assert_allclose(after.position, want.position, atol=1e-6)
    for field in after._fields:
        ok = np.isclose(getattr(after, field), getattr(want, field), rtol=1e-6, atol=1e-5)
        if name == "MountainCarContinuous-v0":
            ok |= near
        assert ok.all(), field
    # Acrobot's angles may wrap at pi on one side only, where the observation is the same.
    ok = np.isclose(obs, want_obs, rtol=1e-6, atol=1e-5).all(-1)
    assert (ok | (near & (name == "MountainCarContinuous-v0"))).all()
    # gymnax's CartPole pays 0 after an end; pendulum's angle is wrapped in float32 there.
    ended = np.abs(state.x) > 2.4 if name == "CartPole-v1" else np.zeros_like(near)
    if name == "CartPole-v1":
        ended |= np.abs(state.theta) > 12 * 2 * np.pi / 360
    ok = np.isclose(reward, want_reward, rtol=1e-5, atol=1e-5)
    if name == "Pendulum-v1":
        ok |= np.abs(state.theta) > 10.0
    assert (ok | ended | near).all()
    np.testing.assert_array_equal(terminated[~near], want_terminated[~near])
    np.testing.assert_array_equal(truncated, want_truncated)
    assert terminated.any() == (name != "Pendulum-v1"), "ends must be part of the comparison"
    assert near.mean() < 0.2


def gymnasium_step(name, reference, values, time, action):
    """One step of gymnasium's simulator from given state values."""
    bare = reference.unwrapped
    state = np.array(values, np.float64)
    bare.state = tuple(state) if name == "CartPole-v1" else state
    if name == "CartPole-v1":
        bare.steps_beyond_terminated = None
    if name == "Pendulum-v1":
        bare.last_u = None
    given = int(action) if np.ndim(action) == 0 else np.asarray(action, np.float64)
    obs, reward, terminated, _, _ = bare.step(given)
    return np.asarray(obs), float(reward), bool(terminated), np.asarray(bare.state, np.float64)


@pytest.mark.fast("CartPole-v1", "Pendulum-v1")
@pytest.mark.parametrize("name", NAMES)
def test_equals_gymnasium_step_by_step(name):
    state, action, (obs, after, reward, terminated, _) = rollout(name)
    reference = gymnasium.make(name)
    reference.reset(seed=0)
    near = distance_to_threshold(name, after) < 1e-5
    rng, seen = np.random.default_rng(0), 0
    for t, lane in zip(rng.integers(0, STEPS, 600), rng.integers(0, LANES, 600), strict=True):
        values = [getattr(state, f)[t, lane] for f in FIELDS[name]]
        want_obs, want_reward, want_terminated, want = gymnasium_step(
            name, reference, values, state.time[t, lane], action[t, lane]
        )
        got = [getattr(after, f)[t, lane] for f in FIELDS[name]]
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-5)
        np.testing.assert_allclose(obs[t, lane], want_obs, rtol=1e-6, atol=1e-5)
        if near[t, lane]:
            continue
        assert bool(terminated[t, lane]) == want_terminated
        np.testing.assert_allclose(reward[t, lane], want_reward, rtol=2e-6, atol=1e-5)
        seen += 1
    assert seen > 500


@pytest.mark.parametrize("name", NAMES)
def test_declares_what_gymnasium_declares(name):
    env, _ = made(name)
    reference = gymnasium.make(name)
    assert env.max_steps == reference.spec.max_episode_steps
    bound = np.float32(1e30)
    for side in ("low", "high"):
        ours = np.clip([getattr(c, side) for c in env.obs_spec], -bound, bound)
        theirs = np.clip(getattr(reference.observation_space, side), -bound, bound)
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    if env.is_discrete:
        assert env.action_spec[0].cardinality == reference.action_space.n
    else:
        assert env.action_spec[0].low == reference.action_space.low[0]
        assert env.action_spec[0].high == reference.action_space.high[0]


@pytest.mark.parametrize("name", NAMES)
def test_first_states_follow_gymnasiums_distribution(name):
    env, params = made(name)
    keys = jax.random.split(jax.random.key(1), 1500)
    obs = np.asarray(jax.jit(jax.vmap(env.reset, in_axes=(0, None)))(keys, params)[0])
    reference = gymnasium.make(name)
    theirs = np.stack([reference.reset(seed=i)[0] for i in range(1500)])
    for i in range(obs.shape[1]):
        if np.ptp(theirs[:, i]) > 0:
            assert scipy.stats.ks_2samp(obs[:, i], theirs[:, i]).pvalue > 1e-3
        else:
            assert np.ptp(obs[:, i]) == 0


@pytest.mark.slow
def test_acrobots_noise_is_drawn_and_bounded():
    env, params = envs.make("classic/Acrobot-v1", torque_noise_max=0.5)
    _, still = made("Acrobot-v1")
    _, state = env.reset(jax.random.key(0), params)
    keys = jax.random.split(jax.random.key(1), 200)
    step = jax.jit(jax.vmap(env.step, in_axes=(0, None, None, None)))
    noisy = step(keys, state, jnp.array(1, jnp.int32), params)[1].velocity_2
    quiet = step(jax.random.clone(keys), state, jnp.array(1, jnp.int32), still)[1].velocity_2
    assert np.ptp(quiet) == 0
    assert len(np.unique(noisy)) > 190
    weaker = still._replace(torque=jnp.array(0.5, jnp.float32))
    low, high = (
        jax.jit(env.step)(jax.random.key(2), state, jnp.array(a, jnp.int32), weaker)[1].velocity_2
        for a in (0, 2)
    )
    assert min(low, high) <= noisy.min()
    assert noisy.max() <= max(low, high)


@pytest.mark.parametrize(
    ("name", "override", "message"),
    [
        ("CartPole-v1", {"length": -1.0}, "expected a positive number"),
        ("CartPole-v1", {"max_steps": 2.5}, "expected a whole number"),
        ("CartPole-v1", {"max_steps": 2**40}, "below 2.31"),
        ("MountainCar-v0", {"goal_position": 0.9}, "goal_position <= max_position"),
        ("MountainCarContinuous-v0", {"min_action": 2.0}, "min_action < max_action"),
        ("Pendulum-v1", {"g": float("nan")}, "expected a finite number"),
        ("Acrobot-v1", {"link_mas_1": 1.0}, "link_mass_1"),
    ],
)
def test_illegal_tasks_are_refused(name, override, message):
    with pytest.raises(ValueError, match=message):
        envs.make(f"classic/{name}", **override)


def test_changed_tasks_change_the_declared_bounds():
    env, params = envs.make("classic/CartPole-v1", x_threshold=1.0, max_steps=7)
    assert env.obs_spec[0].high == 2.0
    assert env.max_steps == 7
    assert float(params.x_threshold) == 1.0
