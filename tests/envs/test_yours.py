"""Environments of a user's own, by id, by place and as objects."""

import textwrap
from importlib import metadata

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs import registry
from envs.common.names import UnknownName
from envs.probes import ActionReward
from envs.types import Environment

MODULE = """
    from envs.probes import ActionReward

    class Walk(ActionReward):
        pass

    def far(cash=1.0):
        env = Walk()
        return env, env.default_params._replace(cash=cash)
"""


@pytest.fixture(autouse=True)
def own(monkeypatch):
    monkeypatch.setattr(registry, "_own", {})
    monkeypatch.setattr(registry.sys, "path", list(registry.sys.path))


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "walks.py").write_text(textwrap.dedent(MODULE))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry.sys, "path", [p for p in registry.sys.path if p])
    yield "walks"
    registry.sys.modules.pop("walks", None)


def test_a_class_is_registered_listed_and_made():
    envs.register("mine/Walk", ActionReward)
    assert envs.registered()[-1] == "mine/Walk"
    env, task = envs.make("mine/Walk", max_steps=3)
    assert isinstance(env, ActionReward)
    assert task.max_steps == 3
    assert task.max_steps.dtype == jnp.int32
    with pytest.raises(UnknownName, match="max_steps"):
        envs.make("mine/Walk", max_step=3)
    with pytest.raises(UnknownName, match="mine/Walk"):
        envs.make("mine/Wall")


def test_a_place_needs_no_registration_and_the_working_folder_is_looked_in_last(module, tmp_path):
    env, _ = envs.make(f"{module}:Walk")
    assert type(env).__name__ == "Walk"
    assert registry.sys.path[-1] == str(tmp_path)
    _, task = envs.make(f"{module}:far", cash=2.0)
    assert task.cash == 2.0
    envs.register("mine/Far", f"{module}:far")
    assert envs.make("mine/Far")[1].cash == 1.0


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("walks:Run", "got no 'Run'"),
        ("hikes:Walk", "got no module 'hikes', expected one that Python finds, in "),
        (":Walk", "expected MODULE:NAME"),
        ("walks:", "expected MODULE:NAME"),
    ],
)
def test_a_place_that_holds_nothing_is_told(module, place, said):
    with pytest.raises(ValueError, match=said):
        envs.make(place)


@pytest.mark.parametrize("env_id", ["Walk", "minatar/Walk", "/Walk", "mine/"])
def test_an_id_that_is_not_ones_own_is_refused(env_id):
    with pytest.raises(ValueError, match="expected FAMILY/NAME"):
        envs.register(env_id, ActionReward)


def test_what_is_no_environment_is_refused():
    envs.register("mine/Nothing", lambda: 3)
    with pytest.raises(ValueError, match="got int, expected a subclass"):
        envs.make("mine/Nothing")


def test_an_environment_of_gymnax_is_ours_too():
    source, params = gymnax.make("CartPole-v1")
    envs.register("mine/Pole", lambda **overrides: (source, params.replace(**overrides)))
    env, task = envs.make("mine/Pole", length=1.0)
    assert isinstance(env, Environment)
    assert env.obs_shape == (4,)
    ours, nominal = envs.make("gymnax/CartPole-v1", length=1.0)
    both = [e.reset(jax.random.key(0), t)[0] for e, t in ((env, task), (ours, nominal))]
    np.testing.assert_array_equal(*both)


def test_a_package_brings_environments(monkeypatch, module):
    points = [metadata.EntryPoint("theirs/Walk", f"{module}:Walk", registry.ENTRY_POINTS)]
    monkeypatch.setattr(registry.metadata, "entry_points", lambda group: points)
    registry._brought.cache_clear()
    assert "theirs/Walk" in envs.registered()
    assert type(envs.make("theirs/Walk")[0]).__name__ == "Walk"
    registry._brought.cache_clear()
