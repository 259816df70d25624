"""Pictures: right size and type, they follow the state and the params, no display and no JAX."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from envs.pictures import PAINTERS, caption, paint_observation

CARTPOLE = {"length": 0.5, "x_threshold": 2.4, "masspole": 0.1}
ACROBOT = {"link_length_1": 1.0, "link_length_2": 1.0, "link_mass_1": 1.0, "link_mass_2": 1.0}
PENDULUM = {"l": 1.0, "m": 1.0, "max_torque": 2.0}
CAR = {"min_position": -1.2, "max_position": 0.6, "goal_position": 0.5}
# id -> params, a state, and one changed leaf
SCENES = {
    "CartPole-v1": (CARTPOLE, {"x": 0.0, "theta": 0.0}, {"theta": 0.2}),
    "Acrobot-v1": (ACROBOT, {"joint_angle1": 0.1, "joint_angle2": 0.2}, {"joint_angle2": 1.0}),
    "Pendulum-v1": (PENDULUM, {"theta": 0.5, "last_u": 0.0}, {"last_u": -1.0}),
    "MountainCar-v0": (CAR, {"position": -0.5}, {"position": -0.3}),
    "MountainCarContinuous-v0": (CAR, {"position": -0.5}, {"position": -0.3}),
}


def paint(name, state, params, size=(240, 180)):
    return PAINTERS[name](SimpleNamespace(**state), SimpleNamespace(**params), size)


def pixels_moved(name, params, state, change):
    before, after = paint(name, state, params), paint(name, {**state, **change}, params)
    return int((before != after).any(axis=-1).sum())


def test_every_painter_has_a_scene():
    assert set(PAINTERS) == set(SCENES)


@pytest.mark.parametrize("name", SCENES)
def test_painter_gives_uint8_of_the_size_and_follows_the_state(name):
    params, state, change = SCENES[name]
    for size in ((240, 180), (96, 96), (61, 200)):
        picture = paint(name, state, params, size)
        assert picture.shape == (size[1], size[0], 3)
        assert picture.dtype == np.uint8
    assert pixels_moved(name, params, state, change) > 20
    np.testing.assert_array_equal(paint(name, state, params), paint(name, state, params))


def test_painter_takes_zero_dimensional_arrays():
    params, state, _ = SCENES["CartPole-v1"]
    leaves = {key: np.float32(value) for key, value in state.items()}
    boxed = {key: np.array(value) for key, value in params.items()}
    np.testing.assert_array_equal(paint("CartPole-v1", leaves, boxed), paint("CartPole-v1", state, params))


@pytest.mark.parametrize(
    ("name", "longer"),
    [("CartPole-v1", {"length": 1.0}), ("Acrobot-v1", {"link_length_2": 1.3}), ("Pendulum-v1", {"l": 1.2})],
)
def test_longer_rod_moves_more_pixels(name, longer):
    params, state, _ = SCENES[name]
    change = {
        "CartPole-v1": {"theta": 0.2},
        "Acrobot-v1": {"joint_angle2": 1.8},
        "Pendulum-v1": {"theta": 2.0},
    }[name]
    usual = pixels_moved(name, params, state, change)
    assert pixels_moved(name, {**params, **longer}, state, change) > 1.1 * usual


def test_pole_leans_to_the_side_of_its_angle():
    orange = np.array([230, 159, 0])

    def pole_center(theta):
        picture = paint("CartPole-v1", {"x": 0.0, "theta": theta}, CARTPOLE).astype(int)
        is_pole = np.abs(picture - orange).sum(axis=-1) < 40
        return np.nonzero(is_pole)[1].mean()

    assert pole_center(0.3) > 122 > 118 > pole_center(-0.3)


def test_a_very_long_pole_stays_inside():
    picture = paint("CartPole-v1", {"x": 0.0, "theta": 0.0}, {**CARTPOLE, "length": 20.0})
    assert (picture[:2] == picture[0, 0]).all()


def test_painters_refuse_batches_and_diverged_states():
    with pytest.raises(ValueError, match=r"shape \(3,\).*expected a scalar.*fix"):
        paint("MountainCar-v0", {"position": np.zeros(3)}, CAR)
    with pytest.raises(ValueError, match=r"got nan in field 'position'.*expected.*fix"):
        paint("MountainCar-v0", {"position": np.nan}, CAR)
    with pytest.raises(ValueError, match=r"got size \(0, 5\).*expected.*fix"):
        paint("MountainCar-v0", {"position": 0.0}, CAR, (0, 5))


@pytest.mark.parametrize(
    "shape", [(), (1,), (4,), (40,), (3000,), (10, 10), (1, 7), (10, 10, 4), (9, 9, 30), (50, 400)]
)
@pytest.mark.parametrize("dtype", [np.float32, bool, np.int32])
def test_observation_of_any_shape(shape, dtype):
    obs = (np.arange(np.prod(shape)).reshape(shape) % 3).astype(dtype)
    picture = paint_observation(obs, (120, 100))
    assert picture.shape == (100, 120, 3)
    assert picture.dtype == np.uint8


def test_observation_survives_extreme_values():
    obs = np.array([0.0, -1e30, 1e300, np.nan, np.inf, -np.inf])
    for shape in ((6,), (2, 3), (1, 2, 3)):
        assert paint_observation(obs.reshape(shape)).shape == (180, 240, 3)


def test_channels_have_distinct_colors():
    obs = np.zeros((1, 24, 24), bool)
    obs[0, np.arange(24), np.arange(24)] = True
    picture = paint_observation(obs, (488, 60))
    centers = picture[30, 4 + 20 * np.arange(24) + 10]
    assert len({tuple(color) for color in centers.tolist()}) == 24


def test_observation_errors_say_what_to_do():
    for obs in (np.zeros((2, 3, 4, 5)), np.zeros((0,)), np.array(["a"])):
        with pytest.raises(ValueError, match=r"got .* expected .* fix"):
            paint_observation(obs)


def test_caption_adds_a_strip_that_depends_on_the_text():
    picture = paint_observation(np.zeros(3))
    first, second = caption(picture, "t=1"), caption(picture, "t=2 " + "long " * 100)
    assert first.shape == second.shape
    assert first.shape[0] > 180
    np.testing.assert_array_equal(first[:180], picture)
    assert (first[180:] != second[180:]).any()
    with pytest.raises(ValueError, match="got a picture of shape"):
        caption(picture.astype(float), "t=1")


def test_pictures_import_no_jax():
    code = "import sys, envs.pictures; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_gymnax_states_are_accepted():
    gymnax = pytest.importorskip("gymnax")
    import jax

    env, params = gymnax.make("Pendulum-v1")
    _, state = env.reset(jax.random.key(0), params)
    assert PAINTERS["Pendulum-v1"](state, params).shape == (180, 240, 3)
