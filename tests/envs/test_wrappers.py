"""Wrappers: each does what it says, they compose, and they map over their own params."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from extras import need
from jax.experimental import checkify

import envs
from envs import wrappers
from envs.common.names import UnknownName
from envs.types import contains, sample_action
from envs.vector import VectorEnv
from envs.wrappers.wrapper import changed, innermost

CARTPOLE, PENDULUM, BREAKOUT = "classic/CartPole-v1", "classic/Pendulum-v1", "minatar/Breakout"


def play(env, params, num_steps=20, seed=0, actions=None):
    """Observations (first one included), steps and states of one episode that is never reset."""
    key_reset, *keys = jax.random.split(jax.random.key(seed), num_steps + 1)
    obs, state = jax.jit(env.reset)(key_reset, params)
    observations, steps, states = [obs], [], [state]
    step = jax.jit(env.step)
    for t, key in enumerate(keys):
        chosen = sample_action(jax.random.key(100 + t), env.action_spec)
        action = chosen if actions is None else actions[t]
        obs, state, *out = step(key, state, action, params)
        observations.append(obs)
        steps.append(out)
        states.append(state)
    return np.stack(observations), steps, states


WRAPPERS = {
    "zero": lambda e, p: wrappers.sensor_failure(e, p, [1, 3], "zero"),
    "mask": lambda e, p: wrappers.sensor_failure(e, p, [1, 3], "mask"),
    "drop": lambda e, p: wrappers.sensor_failure(e, p, [1, 3], "drop"),
    "noise": lambda e, p: wrappers.exogenous_noise(e, p, 0.1, 0.9),
    "more noise": lambda e, p: wrappers.exogenous_noise(e, p, 0.1, 0.0, num_components=3),
    "stack": lambda e, p: wrappers.frame_stack(e, p, 3),
    "flat": wrappers.flat_observations,
    "normalized": lambda e, p: wrappers.normalize_observations(
        e, p, np.arange(4), [1, 2, 3, 4], source="moments"
    ),
    "sticky": lambda e, p: wrappers.sticky_actions(e, p, 0.5),
    "limit": lambda e, p: wrappers.time_limit(e, p, 7),
    "reset-free": lambda e, p: wrappers.reset_free(e, p, 9),
    "checked": wrappers.checked,
    "changed": lambda e, p: wrappers.change_dynamics(e, p, scale={"gravity": 0.5}, length=1.0),
    "all": lambda e, p: wrappers.time_limit(
        *wrappers.frame_stack(
            *wrappers.sticky_actions(
                *wrappers.exogenous_noise(*wrappers.sensor_failure(e, p, [0], "mask"), 0.1, 0.5)
            ),
            2,
        ),
        5,
    ),
}


@pytest.mark.fast("limit")
@pytest.mark.parametrize("name", WRAPPERS)
def test_a_wrapped_environment_keeps_the_contract(name):
    env, params = WRAPPERS[name](*envs.make(CARTPOLE))
    if name == "checked":
        return  # inside of jit it needs checkify, see below
    assert len(env.obs_spec) == int(np.prod(env.obs_shape))
    step = jax.jit(env.step)
    obs, state = env.reset(jax.random.key(0), params)
    before = jax.eval_shape(env.reset, jax.random.key(0), params)
    for t in range(12):
        assert obs.shape == env.obs_shape
        assert obs.dtype == env.obs_dtype
        if name != "noise":
            assert contains(env.obs_spec, obs) or t > 8
        action = sample_action(jax.random.key(t), env.action_spec)
        obs, after, reward, terminated, truncated, info = step(jax.random.key(t), state, action, params)
        assert jax.tree.structure(after) == jax.tree.structure(before[1])
        for x, y in zip(jax.tree.leaves(after), jax.tree.leaves(before[1]), strict=True):
            assert (x.shape, x.dtype, x.weak_type) == (y.shape, y.dtype, False)
        assert (reward.dtype, terminated.dtype, truncated.dtype) == (jnp.float32, bool, bool)
        assert isinstance(info, dict)
        state = after
    assert env.render(jax.device_get(state), params).dtype == np.uint8
    assert all(bool(v) for v in env.invariants(state, params).values())
    assert env.name != CARTPOLE or name == "changed"
    # In a vector environment with auto-reset, under jit.
    vector = VectorEnv(env, num_lanes=3)
    batch = vector.reset(jax.random.key(1), params)
    for t in range(12):
        batch, out = jax.jit(vector.step)(jax.random.key(t), batch, jnp.zeros(3, jnp.int32))
    assert out.obs.shape == (3, *env.obs_shape)


def test_the_task_and_the_state_below_all_wrappers_are_seen_and_changed():
    bare, task = envs.make(PENDULUM)
    env, wrapped = wrappers.sensor_failure(*wrappers.frame_stack(bare, task, 2), [1], "zero")
    assert innermost(wrapped) == innermost(task) == task
    heavy = changed(wrapped, g=np.float32(20.0))
    assert innermost(heavy) == task._replace(g=np.float32(20.0))
    assert jax.tree.structure(heavy) == jax.tree.structure(wrapped)
    _, state = env.reset(jax.random.key(0), wrapped)
    assert type(innermost(state)) is type(bare.reset(jax.random.key(0), task)[1])


@pytest.mark.slow
def test_failed_sensors_read_zero_and_others_are_untouched():
    plain, *_ = play(*envs.make(CARTPOLE))
    zero, *_ = play(*WRAPPERS["zero"](*envs.make(CARTPOLE)), seed=0)
    mask, *_ = play(*WRAPPERS["mask"](*envs.make(CARTPOLE)), seed=0)
    drop, *_ = play(*WRAPPERS["drop"](*envs.make(CARTPOLE)), seed=0)
    assert (np.abs(plain[1:, [1, 3]]) > 0).all()
    np.testing.assert_array_equal(zero[:, [1, 3]], 0)
    assert (zero[1:, [0, 2]] != 0).all()
    np.testing.assert_array_equal(mask[:, :4], zero)
    np.testing.assert_array_equal(mask[:, 4:], np.tile([1, 0, 1, 0], (21, 1)))
    np.testing.assert_array_equal(drop, zero[:, [0, 2]])


@functools.cache
def sensor_tasks():
    env, params = wrappers.sensor_failure(*envs.make(CARTPOLE), [], "zero")
    tasks = jax.vmap(lambda failed: params._replace(own=failed))(jnp.eye(4, dtype=bool))
    return env, tasks


def test_one_program_serves_the_failure_of_every_sensor():
    env, tasks = sensor_tasks()
    axes = tasks._replace(env=jax.tree.map(lambda _: 0, tasks.env), own=0)
    obs, _ = jax.vmap(env.reset, in_axes=(None, axes))(jax.random.key(0), tasks)
    np.testing.assert_array_equal(np.asarray(obs) == 0, np.eye(4, dtype=bool))


def test_a_dropped_sensor_is_dropped_from_the_spec():
    env, _ = wrappers.sensor_failure(*envs.make(CARTPOLE), [1, 3], "drop")
    assert [c.name for c in env.obs_spec] == ["x", "theta"]


def autocorrelation(x):
    x = x - x.mean()
    return float((x[1:] * x[:-1]).mean() / (x * x).mean())


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_noise_has_its_scale_and_correlation(correlation):
    env, params = wrappers.exogenous_noise(
        *envs.make("classic/CartPole-v1"), 2.0, correlation, num_components=64
    )

    def run(key):
        key_reset, key_steps = jax.random.split(key)
        _, state = env.reset(key_reset, params)

        def step(state, key):
            obs, state, *_ = env.step(key, state, jnp.array(0, jnp.int32), params)
            return state, obs[4:]

        return jax.lax.scan(step, state, jax.random.split(key_steps, 800))[1]

    noise = np.asarray(jax.jit(run)(jax.random.key(0)))
    effective = noise.size * (1 - correlation) / (1 + correlation)
    assert abs(noise.std() - 2.0) < 6 * 2.0 / np.sqrt(2 * effective)
    assert abs(noise[0].std() - 2.0) < 1.0, "stationary from the first step on"
    measured = np.mean([autocorrelation(noise[:, i]) for i in range(64)])
    assert abs(measured - correlation) < 0.02
    assert abs(np.corrcoef(noise[:, 0], noise[:, 1])[0, 1]) < 0.5


def test_noise_is_exogenous():
    """Other actions, same noise; the noise does not enter the dynamics."""
    env, params = wrappers.exogenous_noise(*envs.make(CARTPOLE), 1.0, 0.5, num_components=2)
    left, _, states = play(env, params, actions=[jnp.array(0, jnp.int32)] * 20)
    right, *_ = play(env, params, actions=[jnp.array(1, jnp.int32)] * 20)
    np.testing.assert_array_equal(left[:, 4:], right[:, 4:])
    assert (left[5:, :4] != right[5:, :4]).all()
    np.testing.assert_allclose(left[-1, 0], states[-1].env.x, rtol=1e-6)


def test_frames_are_stacked_oldest_first():
    plain, *_ = play(*envs.make(CARTPOLE))
    stacked, *_ = play(*wrappers.frame_stack(*envs.make(CARTPOLE), 3))
    first = stacked[0].reshape(3, 4)
    np.testing.assert_array_equal(first, np.tile(first[0], (3, 1)))
    for t in range(2, 21):
        np.testing.assert_array_equal(stacked[t, :8], stacked[t - 1, 4:])
    assert plain.shape == (21, 4)
    env, _ = wrappers.frame_stack(*envs.make(CARTPOLE), 2)
    assert [c.name for c in env.obs_spec][:5] == ["x@-1", "x_dot@-1", "theta@-1", "theta_dot@-1", "x@0"]


def test_boards_are_stacked_by_channel():
    env, params = wrappers.frame_stack(*envs.make(BREAKOUT), 2)
    assert env.obs_shape == (10, 10, 8)
    obs, *_ = play(env, params, 5)
    np.testing.assert_array_equal(obs[3][..., :4], obs[2][..., 4:])
    names = np.array([c.name for c in env.obs_spec]).reshape(10, 10, 8)
    assert names[2, 3, 3] == "brick[2,3]@-1"
    assert names[2, 3, 7] == "brick[2,3]@0"


def test_flat_boards_are_the_same_numbers_in_the_order_of_the_spec():
    flat, _, states = play(*wrappers.flat_observations(*envs.make(BREAKOUT)), 5)
    game, task = envs.make(BREAKOUT)
    boards = [game.observe(state.env, task) for state in states]
    assert flat.shape[1:] == (400,)
    np.testing.assert_array_equal(flat, np.reshape(boards, (len(boards), -1)))
    env, _ = wrappers.flat_observations(*envs.make(BREAKOUT))
    assert env.obs_spec == envs.make(BREAKOUT)[0].obs_spec


def test_categories_become_numbers_where_they_stood():
    world = envs.make("memory/CountRecall", num_cards=4)
    env, _ = wrappers.one_hot_observations(*world)
    hot, _, states = play(*wrappers.one_hot_observations(*world), 5)
    seen = np.stack([world[0].observe(state.env, world[1]) for state in states])
    sizes = [c.cardinality for c in world[0].obs_spec]
    assert hot.shape[1:] == env.obs_shape == (sum(sizes),) == (len(env.obs_spec),)
    parts = np.split(hot, np.cumsum(sizes)[:-1], axis=1)
    np.testing.assert_array_equal(np.stack([p.argmax(axis=1) for p in parts], axis=1), seen)
    np.testing.assert_array_equal([p.sum(axis=1) for p in parts], np.ones((len(sizes), len(seen))))
    mixed, _ = wrappers.one_hot_observations(*envs.make("memory/PositionCartPole"))  # reals stay
    assert mixed.obs_shape == (2,)
    with pytest.raises(ValueError, match="expected vectors"):
        wrappers.one_hot_observations(*envs.make(BREAKOUT))


@pytest.mark.slow
def test_a_stack_does_not_reach_into_the_last_episode():
    env, params = wrappers.frame_stack(*envs.make(CARTPOLE, max_steps=3), 3)
    vector = VectorEnv(env, num_lanes=2)
    state = vector.reset(jax.random.key(0), params)
    for t in range(3):
        state, out = vector.step(jax.random.key(t), state, jnp.zeros(2, jnp.int32))
    assert out.truncated.all()
    frames = np.asarray(out.obs).reshape(2, 3, 4)
    np.testing.assert_array_equal(frames[:, 0], frames[:, 2])
    assert not np.array_equal(out.final_obs[:, :4], out.final_obs[:, 8:])


@pytest.mark.slow
def test_observations_are_normalized_by_bounds_and_by_moments():
    env, params = wrappers.normalize_observations(*envs.make(PENDULUM))
    obs, *_ = play(env, params, 100)
    assert np.abs(obs).max() <= 1.0
    assert [(c.low, c.high) for c in env.obs_spec] == [(-1.0, 1.0)] * 3
    moments, *_ = play(*WRAPPERS["normalized"](*envs.make(CARTPOLE)))
    raw, *_ = play(*wrappers.time_limit(*envs.make(CARTPOLE), 500))
    np.testing.assert_allclose(moments, (raw - np.arange(4)) / [1, 2, 3, 4], rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="expected real components with bounds"):
        wrappers.normalize_observations(*envs.make(CARTPOLE))


def test_actions_are_normalized_and_clipped():
    env, params = wrappers.normalize_actions(*envs.make(PENDULUM))
    plain, plain_params = envs.make(PENDULUM)
    _, state = env.reset(jax.random.key(0), params)
    for given, meant in ((-1.0, -2.0), (0.5, 1.0), (3.0, 2.0)):
        got = env.step(jax.random.key(1), state, jnp.array([given]), params)
        want = plain.step(jax.random.key(1), state.env, jnp.array([meant]), plain_params)
        np.testing.assert_allclose(got[0], want[0], rtol=1e-6)
    assert (env.action_spec[0].low, env.action_spec[0].high) == (-1.0, 1.0)


def test_discrete_actions_are_all_combinations_of_levels():
    env, params = wrappers.discretize_actions(*envs.make(PENDULUM), num_levels=5)
    plain, plain_params = envs.make(PENDULUM)
    (choice,) = env.action_spec
    assert (choice.kind, choice.cardinality) == ("category", 5)
    _, state = env.reset(jax.random.key(0), params)
    for given, meant in ((0, -2.0), (1, -1.0), (2, 0.0), (4, 2.0)):
        got = env.step(jax.random.key(1), state, jnp.int32(given), params)
        want = plain.step(jax.random.key(1), state.env, jnp.array([meant]), plain_params)
        np.testing.assert_allclose(got[0], want[0], rtol=1e-6)
    need("brax")
    two, _ = wrappers.discretize_actions(*envs.make("brax/reacher"), num_levels=3)
    executed = [two._act(None, (), (), jnp.int32(i)).tolist() for i in (0, 1, 3, 8)]
    assert executed == [[-1, -1], [-1, 0], [0, -1], [1, 1]]
    with pytest.raises(ValueError, match="16777216 combinations, expected at least 2 levels"):
        wrappers.discretize_actions(*envs.make("brax/ant"), num_levels=8)
    with pytest.raises(ValueError, match="got num_levels 1"):
        wrappers.discretize_actions(*envs.make(PENDULUM), num_levels=1)


def test_sticky_actions_repeat_what_was_executed():
    env, params = wrappers.sticky_actions(*envs.make(CARTPOLE), 0.3)

    def run(key, actions):
        key_reset, key_steps = jax.random.split(key)
        _, state = env.reset(key_reset, params)

        def step(state, x):
            key, action = x
            _, state, *_ = env.step(key, state, action, params)
            return state, state.own

        return jax.lax.scan(step, state, (jax.random.split(key_steps, 4000), actions))[1]

    actions = jax.random.randint(jax.random.key(1), (4000,), 0, 2)
    executed = np.asarray(jax.jit(run)(jax.random.key(0), actions))
    actions = np.asarray(actions)
    previous = np.concatenate([[0], executed[:-1]])
    differs = actions != previous
    share = np.mean(executed[differs] == previous[differs])
    assert abs(share - 0.3) < 5 * np.sqrt(0.3 * 0.7 / differs.sum())
    np.testing.assert_array_equal(executed[~differs], actions[~differs])
    assert executed[0] in (0, actions[0])


@pytest.mark.parametrize(("probability", "source"), [(0.0, "chosen"), (1.0, "zero")])
def test_sticky_actions_at_their_limits(probability, source):
    env, params = wrappers.sticky_actions(*envs.make(CARTPOLE), probability)
    _, _, states = play(env, params, actions=[jnp.array(1, jnp.int32)] * 20)
    assert {int(s.own) for s in states[1:]} == {1 if source == "chosen" else 0}


def test_the_time_limit_truncates_and_the_inner_one_still_does():
    env, params = wrappers.time_limit(*envs.make(PENDULUM, max_steps=5), 9)
    _, steps, _ = play(env, params, 12)
    assert [bool(s[2]) for s in steps] == [False] * 4 + [True] * 8
    env, params = wrappers.time_limit(*envs.make(PENDULUM), 3)
    _, steps, _ = play(env, params, 5)
    assert [bool(s[2]) for s in steps] == [False] * 2 + [True] * 3
    assert not any(bool(s[1]) for s in steps)
    assert env.max_steps == 3


@pytest.mark.slow
def test_reset_free_goes_on_from_where_an_episode_would_end():
    env, params = wrappers.reset_free(*envs.make(CARTPOLE), 40)
    plain, plain_params = envs.make(CARTPOLE)
    vector = VectorEnv(env, num_lanes=1)
    state, ends = vector.reset(jax.random.key(0), params), 0
    step, plain_step = jax.jit(vector.step), jax.jit(plain.step)
    for t in range(40):
        before = jax.tree.map(lambda x: x[0], state.env.env)
        right = jnp.ones((1,), jnp.int32)
        state, out = step(jax.random.key(t), state, right)
        want = plain_step(jax.random.key(0), before, right[0], plain_params)
        ends += int(want[3])
        assert not out.terminated[0]
        assert bool(out.truncated[0]) == (t == 39)
        if t < 39:
            np.testing.assert_allclose(out.obs[0], want[0], rtol=1e-5, atol=1e-6)
    assert ends > 10, "a plain environment would have ended"
    _, steps, states = play(env, params, 20, actions=[jnp.array(1, jnp.int32)] * 20)
    ended = [bool(s[3]["ended"]) for s in steps]
    assert sum(ended) > 5
    assert int(states[-1].own.num_ends) == sum(ended)


def test_reset_free_worlds_may_outlive_their_clock():
    env, params = wrappers.reset_free(*envs.make(CARTPOLE, max_steps=5))
    _, steps, states = play(env, params, 8)
    assert not any(bool(s[2]) for s in steps)
    for state in states:
        assert all(bool(v) for v in env.invariants(state, params).values())


def test_changed_dynamics_take_what_follows_from_them_along():
    env, params = envs.make(PENDULUM, m=2.0)
    changed_env, changed = wrappers.change_dynamics(env, params, scale={"g": 0.5}, max_torque=3.0)
    assert (float(changed.g), float(changed.m), float(changed.max_torque)) == (5.0, 2.0, 3.0)
    assert changed_env.action_spec[0].high == 3.0
    assert (float(params.g), env.action_spec[0].high) == (10.0, 2.0)
    assert VectorEnv(changed_env, 2).is_hashed
    longer, _ = wrappers.change_dynamics(*envs.make(CARTPOLE), max_steps=9, x_threshold=10.0)
    assert (longer.max_steps, longer.obs_spec[0].high) == (9, 20.0)


def test_changed_dynamics_derive_what_the_source_stores():
    env, params = envs.make("gymnax/CartPole-v1", length=1.0)
    _, changed = wrappers.change_dynamics(env, params, masspole=1.0)
    assert float(changed.total_mass) == 2.0
    assert float(changed.polemass_length) == 1.0


def test_illegal_dynamics_are_refused():
    env, params = envs.make(PENDULUM)
    with pytest.raises(UnknownName, match="Did you mean"):
        wrappers.change_dynamics(env, params, max_torqe=1.0)
    with pytest.raises(ValueError, match="each field once"):
        wrappers.change_dynamics(env, params, scale={"g": 2.0}, g=1.0)
    for bad in ({"l": -1.0}, {"l": float("nan")}, {"max_steps": 2.7}):
        with pytest.raises(ValueError, match="expected a"):
            wrappers.change_dynamics(env, params, **bad)
    with pytest.raises(ValueError, match="first, then wrap"):
        wrappers.change_dynamics(*wrappers.time_limit(env, params, 5), g=1.0)
    tasks = jax.tree.map(lambda x: jnp.stack([x, x]), params)
    with pytest.raises(ValueError, match="of one task"):
        wrappers.change_dynamics(env, tasks, scale={"g": 2.0})


def test_a_skin_renames_symbols_and_its_inverse_undoes_it():
    plain, plain_params = envs.make(BREAKOUT)
    drawn = wrappers.draw_skin(jax.random.key(1), plain, renames_actions=True)
    flipped = drawn._replace(symbols=jnp.array([[1, 0]], jnp.int32))
    env, params = wrappers.skin(plain, plain_params, flipped)
    obs, state = env.reset(jax.random.key(0), params)
    np.testing.assert_array_equal(obs, 1 - plain.observe(state.env, plain_params))
    for action in range(3):
        got = env.step(jax.random.key(2), state, jnp.array(action, jnp.int32), params)
        meant = flipped.actions[action]
        want = plain.step(jax.random.key(2), state.env, meant, plain_params)
        np.testing.assert_array_equal(got[0], 1 - want[0])
    for outside, inside in ((-1, 0), (9, 2)):
        got, want = (
            env.step(jax.random.key(2), state, jnp.array(a, jnp.int32), params)[0] for a in (outside, inside)
        )
        np.testing.assert_array_equal(got, want)
    twice, twice_params = wrappers.skin(env, params, wrappers.inverse_skin(flipped))
    inverse = wrappers.inverse_skin(flipped)
    np.testing.assert_array_equal(flipped.actions[inverse.actions], jnp.arange(3))
    obs, state = twice.reset(jax.random.key(0), twice_params)
    np.testing.assert_array_equal(obs, plain.observe(state.env.env, plain_params))


@pytest.mark.slow
def test_skins_are_mapped_over():
    plain, plain_params = envs.make(BREAKOUT)
    skins = jax.vmap(lambda k: wrappers.draw_skin(k, plain))(jax.random.split(jax.random.key(0), 8))
    assert len(np.unique(np.asarray(skins.symbols).reshape(8, -1), axis=0)) == 2
    env, params = wrappers.skin(plain, plain_params, jax.tree.map(lambda x: x[0], skins))
    obs = jax.vmap(lambda s: env.reset(jax.random.key(0), params._replace(own=s))[0])(skins)
    is_flipped = np.asarray(skins.symbols)[:, 0, 0] == 1
    np.testing.assert_array_equal(np.asarray(obs).mean((1, 2, 3)) > 0.5, is_flipped)


def test_checked_mode_refuses_what_fast_mode_clips():
    plain, plain_params = envs.make(CARTPOLE)
    env, params = wrappers.checked(plain, plain_params)
    _, state = env.reset(jax.random.key(0), params)
    bad = jnp.array(2, jnp.int32)
    with pytest.raises(ValueError, match=r"got action 2, expected a whole number in \[0, 1\]"):
        env.step(jax.random.key(1), state, bad, params)
    compiled = checkify.checkify(jax.jit(env.step))
    error, _ = compiled(jax.random.key(1), state, bad, params)
    with pytest.raises(checkify.JaxRuntimeError, match="got action 2"):
        error.throw()
    error, out = compiled(jax.random.key(1), state, jnp.array(1, jnp.int32), params)
    error.throw()
    # Fast mode: the nearest category.
    clipped = plain.step(jax.random.key(1), state.env, bad, plain_params)
    np.testing.assert_array_equal(clipped[0], out[0])


@pytest.mark.parametrize(
    ("wrapper", "message"),
    [
        (lambda e, p: wrappers.sensor_failure(e, p, [4]), "expected indices"),
        (lambda e, p: wrappers.sensor_failure(e, p, [1], "zeroed"), "Did you mean zero"),
        (lambda e, p: wrappers.sensor_failure(e, p, range(4), "drop"), "one that stays"),
        (lambda e, p: wrappers.exogenous_noise(e, p, -1.0), "scale >= 0"),
        (lambda e, p: wrappers.exogenous_noise(e, p, 1.0, 1.5), "correlation in"),
        (lambda e, p: wrappers.frame_stack(e, p, 0), "at least 1"),
        (lambda e, p: wrappers.time_limit(e, p, 0), "from 1 on"),
        (lambda e, p: wrappers.time_limit(e, p, 2.5), "from 1 on"),
        (lambda e, p: wrappers.reset_free(e, p, -1), "from 0 on"),
        (lambda e, p: wrappers.sticky_actions(e, p, 1.1), r"in \[0, 1\]"),
        (wrappers.normalize_actions, "real components with bounds"),
        (wrappers.discretize_actions, "real components with bounds"),
        (lambda e, p: wrappers.normalize_observations(e, p, source="moments"), "expected both"),
        (lambda e, p: wrappers.draw_skin(jax.random.key(0), e), "no categorical component"),
    ],
)
def test_illegal_options_are_refused(wrapper, message):
    with pytest.raises(ValueError, match=message):
        wrapper(*envs.make(CARTPOLE))


def test_sticky_actions_refuse_games_of_legal_moves():
    need("pgx")
    with pytest.raises(ValueError, match="expected free actions"):
        wrappers.sticky_actions(*envs.make("pgx/tic_tac_toe"))


def test_an_impure_environment_is_not_wrapped():
    need("ale")
    with pytest.raises(ValueError, match="expected a pure one"):
        wrappers.time_limit(*envs.make("ale/pong"), 5)
