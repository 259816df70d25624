"""The brax adapter against brax: one step, episode ends, tasks, backends, noise and pictures."""

import functools
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from extras import need

import envs
from envs.common.foreign import foreign
from envs.common.names import UnknownName
from envs.pictures import bodies
from envs.types import sample_action

need("brax")

from envs.adapters import brax as adapter  # isort: skip  # silences what importing brax says
import brax.envs  # isort: skip
import brax.math  # isort: skip

ROOT = Path(__file__).parents[2]
CHEAP = "inverted_pendulum"  # compiles in seconds
NAMES = [env_id.split("/")[1] for env_id in envs.registered("brax")]
TASKS = [pytest.param(n, marks=[] if n == CHEAP else [pytest.mark.slow]) for n in NAMES]


@functools.cache
def made(name, backend=None):
    env, params = envs.make(f"brax/{name}", backend=backend)
    return env, params, jax.jit(env.reset), jax.jit(env.step)


def oracle_of(env, name):
    with adapter._quiet():
        return brax.envs.get_environment(name, **({"backend": env.backend} if env.backend else {}))


def assert_same(ours, theirs, atol=1e-6):
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=1e-5, atol=atol)


def test_the_names_are_brax_s_own_table():
    assert set(NAMES) == set(brax.envs._envs)


# --- one step -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.foreign_oracle
@pytest.mark.parametrize("name", TASKS)
def test_step_equals_brax(name):
    check_steps(name, None)


@pytest.mark.slow
@pytest.mark.foreign_oracle
@pytest.mark.parametrize("backend", ["generalized", "positional", "mjx"])
def test_step_equals_brax_on_every_backend(backend):
    check_steps(CHEAP, backend)


@pytest.mark.slow
@pytest.mark.foreign_oracle
def test_step_equals_brax_where_mjx_has_contacts():
    check_steps("hopper", "mjx")


def check_steps(name, backend):
    """Reset, then 20 random steps, each from our state; rewards, flags and the whole physics."""
    env, params, reset, step = made(name, backend)
    oracle = oracle_of(env, name)
    with adapter._quiet():
        oracle_reset, oracle_step = jax.jit(foreign(oracle.reset)), jax.jit(foreign(oracle.step))
        theirs = oracle_reset(jax.random.key(0))
        obs, state = reset(jax.random.key(0), params)
        assert_same((obs, state.pipeline), (theirs.obs, theirs.pipeline_state))
        for i in range(20):
            action = sample_action(jax.random.key(100 + i), env.action_spec)
            theirs = oracle_step(theirs.replace(pipeline_state=state.pipeline), action)
            out = step(jax.random.key(i), state, action, params)
            obs, state, reward, terminated, truncated, info = out
            # A constant of brax is an argument of ours, so the programs round differently.
            scale = max(1.0, float(np.abs(np.asarray(theirs.obs)).max()))
            assert_same((obs, reward), (theirs.obs, theirs.reward), atol=1e-5 * scale)
            assert bool(terminated) == bool(theirs.done)
            assert not truncated
            # The swimmer lists a forward_reward at reset that no step ever writes.
            assert set(theirs.metrics) - set(info) <= {"forward_reward"}
            metrics = {metric: theirs.metrics[metric] for metric in info}
            assert_same(info, metrics, atol=1e-5 * scale)
    assert int(state.time) == 20
    assert step._cache_size() == 1  # the state is a fixed type: nothing was traced twice


@pytest.mark.slow
@pytest.mark.foreign_oracle
def test_episodes_end_where_brax_s_episode_wrapper_ends_them():
    """1000 steps with a limit of 12: some episodes fall, some run out, one at least does both."""
    env, params, reset, step = made(CHEAP)
    params = params._replace(max_steps=jnp.int32(12))
    oracle = brax.envs.training.EpisodeWrapper(oracle_of(env, CHEAP), 12, action_repeat=1)
    with adapter._quiet():
        oracle_reset, oracle_step = jax.jit(foreign(oracle.reset)), jax.jit(foreign(oracle.step))
        _, state = reset(jax.random.key(0), params)
        theirs = oracle_reset(jax.random.key(0))
        kinds = set()
        rng = np.random.default_rng(0)
        push = 0.0
        for i in range(1000):
            if int(state.time) == 0:
                push = rng.uniform(-1.0, 1.0)  # of one episode, so that some fall in time
            action = jnp.array([push], jnp.float32)
            out = step(jax.random.key(i), state, action, params)
            _, state, _, terminated, truncated, _ = out
            theirs = oracle_step(theirs, action)
            assert bool(terminated | truncated) == bool(theirs.done)
            assert bool(truncated & ~terminated) == bool(theirs.info["truncation"])
            assert int(state.time) == int(theirs.info["steps"])
            kinds.add((bool(terminated), bool(truncated)))
            if terminated | truncated:
                _, state = reset(jax.random.key(5000 + i), params)
                theirs = oracle_reset(jax.random.key(5000 + i))
    assert {(False, False), (True, False), (False, True)} <= kinds


@pytest.mark.slow
def test_a_termination_in_the_last_step_is_also_a_truncation():
    env, params, _, step = made(CHEAP)
    params = params._replace(max_steps=jnp.int32(1))
    fallen = state_at(env, params, angle=0.5)
    _, state, _, terminated, truncated, info = step(jax.random.key(0), fallen, jnp.zeros((1,)), params)
    assert bool(terminated)
    assert bool(truncated)
    assert "time_out" not in info  # brax sets it here, for an end that is no time limit
    assert int(state.time) == 1


# --- tasks ----------------------------------------------------------------------------------------


def state_at(env, params, angle):
    """The inverted pendulum at rest with its pole at `angle`, radians from upright."""
    with adapter._quiet():
        source = env._of_task(params)
        q = jnp.array([0.0, angle], jnp.float32)
        pipeline = foreign(source.pipeline_init)(q, jnp.zeros((2,)))
    return adapter.BraxState(pipeline, jnp.zeros((), jnp.int32))


@pytest.mark.slow
def test_a_pole_falls_in_proportion_to_gravity():
    env, params, _, step = made(CHEAP)
    state = state_at(env, params, angle=0.1)
    speeds = []
    for gravity in (0.0, 4.905, 9.81, 19.62):
        task = params._replace(gravity=jnp.float32(gravity))
        after = state
        for i in range(5):  # the spring backend's joints take a while to turn weight into torque
            _, after, *_ = step(jax.random.key(i), after, jnp.zeros((1,)), task)
        speeds.append(float(after.pipeline.qd[1]))
    np.testing.assert_allclose(speeds[0], 0.0, atol=1e-5)
    np.testing.assert_allclose(np.array(speeds[1:]) / speeds[2], [0.5, 1.0, 2.0], rtol=0.03)
    assert speeds[2] > 0.05


@pytest.mark.slow
def test_gravity_per_lane_under_vmap_equals_a_loop():
    env, _, reset, step = made(CHEAP)
    gravity = jnp.array([0.0, 9.81, 30.0])
    tasks = adapter.BraxParams(gravity, jnp.ones((3,)), jnp.full((3,), 1000, jnp.int32))
    keys = jax.random.split(jax.random.key(3), 3)
    push = jnp.full((1,), 0.2)
    batch_step = jax.jit(jax.vmap(env.step, in_axes=(None, 0, None, 0)))
    _, states = jax.jit(jax.vmap(env.reset))(jax.random.clone(keys), tasks)
    for i in range(8):
        obs, states, reward, *_ = batch_step(jax.random.key(i), states, push, tasks)
    for lane in range(3):
        task = jax.tree.map(lambda x, lane=lane: x[lane], tasks)
        _, state = reset(keys[lane], task)
        for i in range(8):
            one_obs, state, one_reward, *_ = step(jax.random.key(i), state, push, task)
        single = (one_obs, one_reward, state)
        batch = jax.tree.map(lambda x, lane=lane: x[lane], (obs, reward, states))
        assert_same(batch, single, atol=1e-4)
    assert len(set(np.asarray(obs)[:, 1].round(4))) == 3
    # The system that all lanes share is as brax built it: no task and no tracer was left in it.
    assert float(env._source.sys.gravity[2]) == np.float32(-9.81)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["spring", "generalized", "positional", "mjx"])
@pytest.mark.parametrize("gravity", [3.7, 9.81])
def test_an_ant_in_the_air_falls_at_gravity(backend, gravity):
    env, params, _, step = made("ant", backend)
    task = params._replace(gravity=jnp.float32(gravity))
    source = env._of_task(task)
    with adapter._quiet():
        q = source.sys.init_q.at[2].set(5.0)
        pipeline = foreign(source.pipeline_init)(q, jnp.zeros((source.sys.qd_size(),)))
    state = adapter.BraxState(pipeline, jnp.zeros((), jnp.int32))
    _, state, *_ = step(jax.random.key(0), state, jnp.zeros((8,)), task)
    if backend == "mjx":  # its xd is that before the last of the five substeps
        fall = -float(state.pipeline.qd[2])
    else:
        mass = np.asarray(source.sys.link.inertia.mass)
        # Of the whole ant, legs and all: what its joints do inside it does not move it.
        fall = -np.average(np.asarray(state.pipeline.xd.vel)[:, 2], weights=mass)
    np.testing.assert_allclose(fall / float(source.dt), gravity, rtol=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["spring", "generalized", "positional", "mjx"])
def test_an_ant_slides_further_on_ice(backend):
    env, params = envs.make("brax/ant", backend=backend)
    if backend == "mjx":  # brax's own one iteration stops an ant on ice in a single step
        solver = {"opt.iterations": 50, "opt.ls_iterations": 50}
        env._source.sys = env._source.sys.tree_replace(solver)
    step, ways = jax.jit(env.step), []
    for scale in (0.02, 1.0):
        task = params._replace(friction_scale=jnp.float32(scale))
        with adapter._quiet():
            source = env._of_task(task)
            speed = jnp.zeros((source.sys.qd_size(),)).at[0].set(3.0)
            pipeline = foreign(source.pipeline_init)(source.sys.init_q, speed)
        state = adapter.BraxState(pipeline, jnp.zeros((), jnp.int32))
        for i in range(30):
            _, state, *_ = step(jax.random.key(i), state, jnp.zeros((8,)), task)
        ways.append(float(state.pipeline.x.pos[0, 0]))
    assert ways[0] > 1.1 * ways[1]


def test_the_nominal_task_is_that_of_brax():
    env, params, *_ = made(CHEAP)
    assert env.max_steps == 1000
    assert jax.tree.map(float, params) == adapter.BraxParams(float(np.float32(9.81)), 1.0, 1000.0)
    assert [x.dtype for x in params] == [jnp.float32, jnp.float32, jnp.int32]
    for x, y in zip(env.default_params, params, strict=True):
        assert (x.dtype, float(x)) == (y.dtype, float(y))


def test_overrides_keep_the_dtypes_of_the_task():
    env, params = envs.make(f"brax/{CHEAP}", gravity=4, friction_scale=2, max_steps=50.0)
    assert env.max_steps == 50
    assert [x.dtype for x in params] == [jnp.float32, jnp.float32, jnp.int32]
    assert jax.tree.map(float, params) == adapter.BraxParams(4.0, 2.0, 50.0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("gravity", float("nan")),
        ("gravity", True),
        ("gravity", "low"),
        ("friction_scale", 0.0),
        ("friction_scale", -1.0),
        ("max_steps", 0),
        ("max_steps", 2.5),
    ],
)
def test_bad_override_says_what_it_got(field, value):
    with pytest.raises(ValueError, match=f"{field}: got") as caught:
        envs.make(f"brax/{CHEAP}", **{field: value})
    assert "expected" in str(caught.value)


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(UnknownName, match=r"sprin.*spring"):
        envs.make(f"brax/{CHEAP}", backend="sprin")
    with pytest.raises(UnknownName, match=r"gravty.*gravity"):
        envs.make(f"brax/{CHEAP}", gravty=1.0)
    with pytest.raises(UnknownName, match=r"spring.*generalized"):
        envs.make("brax/swimmer", backend="spring")


def test_fast_has_neither_backend_nor_gravity():
    with pytest.raises(ValueError, match=r"got backend 'spring', expected none"):
        envs.make("brax/fast", backend="spring")
    with pytest.raises(UnknownName, match="gravity"):
        envs.make("brax/fast", gravity=1.0)


@pytest.mark.slow
def test_declared_bounds_are_reached_and_kept():
    """The double pendulum's sines and clipped speeds; an unclipped speed would break the bound."""
    env, params, reset, step = made("inverted_double_pendulum")
    _, state = reset(jax.random.key(0), params)
    low = np.array([c.low for c in env.obs_spec])
    high = np.array([c.high for c in env.obs_spec])
    speeds = []
    for i in range(40):
        action = jnp.full((1,), 1.0 if i < 20 else -1.0)
        obs, state, *_ = step(jax.random.key(i), state, action, params)
        assert ((obs >= low) & (obs <= high)).all()
        speeds.append(float(jnp.abs(state.pipeline.qd[1:]).max()))
    assert max(speeds) > 10.0


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in NAMES if n != "fast"])
def test_actions_in_the_unit_box_are_what_the_motors_take(name):
    """Brax scales [-1, 1] to the motors or has motors of that range: none is cut off inside it."""
    env, *_ = made(name)
    limits = np.asarray(env._source.sys.actuator.ctrl_range)
    scaled = {"humanoid", "humanoidstandup", "inverted_pendulum", "pusher"}
    if name not in scaled:
        np.testing.assert_array_equal(limits, np.tile([-1.0, 1.0], (len(limits), 1)))
    assert len(env.action_spec) == len(limits)


# --- noise ----------------------------------------------------------------------------------------


def test_importing_and_building_say_nothing_and_write_nothing(tmp_path):
    """MuJoCo complains about the half cheetah's model on stderr and in a file MUJOCO_LOG.TXT."""
    program = "import envs\nenv, params = envs.make('brax/halfcheetah')\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


# --- pictures -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_fallen_pole_looks_fallen():
    env, params, *_ = made(CHEAP)
    upright = env.render(state_at(env, params, 0.0), params)
    fallen = env.render(state_at(env, params, np.pi / 2), params)
    orange = np.array(bodies.PALETTE[2])

    def extent(picture):
        rows, columns = np.nonzero((np.abs(picture.astype(int) - orange) < 12).all(-1))
        return np.ptp(rows), np.ptp(columns)

    assert extent(upright)[0] > 3 * extent(upright)[1]
    assert extent(fallen)[1] > 3 * extent(fallen)[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in NAMES if n != "fast"])
def test_every_shape_of_every_model_is_drawn(name):
    env, params, reset, _ = made(name)
    model = env._source.sys.mj_model
    kinds = [brax.envs.base.image.mujoco.mjtGeom(k).name for k in model.geom_type]
    assert set(kinds) <= {"mjGEOM_CAPSULE", "mjGEOM_SPHERE", "mjGEOM_PLANE"}
    _, state = reset(jax.random.key(0), params)
    pos, rot = np.asarray(state.pipeline.x.pos), np.asarray(state.pipeline.x.rot)
    assert len(adapter._capsules(model, pos, rot)) == len(kinds) - kinds.count("mjGEOM_PLANE")


def test_limbs_begin_at_roots_and_forks():
    # world, torso, waist, pelvis, two legs of two links, a target that is its own root
    parents = np.array([0, 0, 1, 2, 3, 4, 3, 6, 0])
    assert adapter._limbs(parents) == [0, 1, 2, 2, 3, 3, 4, 4, 5]


@pytest.mark.foreign_oracle
def test_rotation_equals_brax():
    rng = np.random.default_rng(0)
    quaternion = rng.normal(size=4)
    quaternion /= np.linalg.norm(quaternion)
    vector = rng.normal(size=3)
    truth = brax.math.rotate(jnp.asarray(vector, jnp.float32), jnp.asarray(quaternion, jnp.float32))
    np.testing.assert_allclose(adapter._rotate(vector, quaternion), truth, atol=1e-5)


def ball(x, y, z, group, radius=0.3):
    return bodies.Capsule(np.array([x, y, z]), np.array([x, y, z]), radius, group)


def test_the_nearer_body_hides_the_farther():
    view = bodies.View(elevation=0.0, span=4.0)  # looks along +y
    blue, orange = bodies.PALETTE[1:3]
    for order in ((0, 1), (1, 0)):
        capsules = [ball(0, -1, 0, 1), ball(0, 2, 0, 2)]
        picture = bodies.paint_bodies([capsules[i] for i in order], np.zeros(3), view, None)
        middle = picture[95, 120].astype(int)  # below the shine
        assert np.abs(middle - blue).max() < np.abs(middle - orange).max()


def test_the_camera_follows_over_a_floor_that_stays():
    view = bodies.View(elevation=20.0, span=4.0, height=0.5)
    half = bodies.TILES_ACROSS / 2
    at = [np.array([x, 0.0, 0.0]) for x in (0.0, 4.0 / half / 2, 4.0 / half)]
    pictures = [bodies.paint_bodies([ball(*x[:2], 0.5, 1)], x, view) for x in at]
    blue = np.array(bodies.PALETTE[1])
    ours = [(np.abs(p.astype(int) - blue) < 12).all(-1) for p in pictures]
    assert ours[0].sum() > 100
    np.testing.assert_array_equal(ours[0], ours[1])  # the body stands still in the picture
    assert (pictures[0] != pictures[1]).mean() > 0.2  # one tile on: the colours swap
    assert (pictures[0] != pictures[2]).mean() < 0.02  # two tiles on: all as before
