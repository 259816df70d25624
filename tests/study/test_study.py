"""The hall: operations are counted, what fits leave comes back, custom steps run."""

import json
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import envs
from jaxagent.config import PPOConfig
from jaxagent.study import agents, verdicts
from jaxagent.study.config import EnvConfig
from jaxagent.study.study import Custom, Fit, Found, Lanes, Measure, Study
from jaxagent.train import loops
from jaxagent.train import run as runs
from jaxagent.train.flops import flops_of
from jaxagent.types import Policy

PPO = PPOConfig(num_envs=4, num_steps=4, num_updates=2, updates_per_chunk=1, hidden_size=8)


def shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


def scanned(x, w):
    return jax.lax.scan(lambda h, _: (h @ w, None), x, None, length=5)[0]


def branched(x, w):
    return jax.lax.cond(x[0, 0] > 0, lambda: (x @ w) @ w, lambda: x)


COUNTED = {
    "a product": (lambda x, w: x @ w, 1),
    "a scan counts as often as it runs": (scanned, 5),
    "of branches the dearest": (branched, 2),
    "a static loop": (lambda x, w: jax.lax.fori_loop(0, 3, lambda i, h: h @ w, x), 3),
    "inside jit": (jax.jit(lambda x, w: x @ w), 1),
    "a gradient: forward, and back to both factors": (jax.grad(lambda x, w: (x @ w).sum(), (0, 1)), 3),
    "a batch": (lambda x, w: jax.vmap(lambda row: row @ w)(x), 1),
    "no product": (lambda x, w: x + 1.0, 0),
}


@pytest.mark.parametrize("name", COUNTED)
def test_products_are_counted(name):
    fn, products = COUNTED[name]
    assert flops_of(fn, shape(3, 4), shape(4, 4)) == products * 2 * 3 * 4 * 4


def test_a_convolution_counts_its_kernel_at_every_place():
    def convolved(x, w):
        return jax.lax.conv_general_dilated(x, w, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    assert flops_of(convolved, shape(2, 5, 5, 3), shape(3, 3, 3, 7)) == 2 * (2 * 3 * 3 * 7) * (3 * 3 * 3)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps({"fingerprint": "a1"}))
    return tmp_path


class Two(NamedTuple):
    """Updates of the smallest fit."""

    num_updates: int = 2
    updates_per_chunk: int = 1


def line(folder):
    """Two lanes that fit a slope, remembered before and after each of two updates."""
    del folder
    loop = loops.supervised(
        lambda w, x, data: (jnp.dot(w * x - 2.0 * x, w * x - 2.0 * x) / 4.0, {}),
        lambda data, key: jax.random.normal(key, (4,)),
        optax.sgd(0.1),
    )
    return Lanes(
        loop,
        lambda: (jnp.array([0.0, 1.0]),),
        Two(),
        jax.random.key(0),
        history=True,
        units={"x": 4},
        before={"x": 3},
    )


def test_what_a_fit_leaves_comes_back_by_both_ways(folder):
    fit = Fit("line", line)
    runs.run(folder, [fit.stage(1)], chunks_per_save=1, quiet=True)
    kept = fit.load(folder)
    assert kept.shape == (3, 2), "two chunks and before, two lanes"
    np.testing.assert_array_equal(kept[0], [0.0, 1.0])
    assert (np.abs(np.diff(np.abs(kept - 2.0), axis=0)) > 0).all()
    np.testing.assert_array_equal(fit.load(folder, lambda key: jnp.zeros(())), kept)
    assert fit.load(None).shape == kept.shape
    summary = runs.read_done(folder, "line")["summary"]
    assert (summary["lanes"], summary["updates"], summary["x"], summary["axes"]) == (2, 2, 3 + 8, [3, 2])
    assert summary["units"] == ["operations", "x"]
    assert summary["operations"] == 2 * 4 * 3 * (2 * 4), (
        "of a lane: updates, shards, the dot and both gradients"
    )


@pytest.mark.slow
def test_agents_come_back_by_both_ways(folder):
    env, task = envs.make("gymnax/CartPole-v1")
    fit = agents.population("agents", env, [task] * 2, PPO, 0)
    runs.run(folder, [fit.stage(1)], chunks_per_save=1, quiet=True)
    kept = fit.load(folder)
    assert {x.shape[:2] for x in jax.tree.leaves(kept)} == {(3, 2)}, "two chunks and before, two agents"
    loop, keep = agents.algorithm(env, PPO)
    tasks = jax.tree.map(lambda x: jnp.broadcast_to(x, (4, *jnp.shape(x))), task)
    again = fit.load(folder, lambda key: keep(loop.init(key, tasks)[0]))
    jax.tree.map(np.testing.assert_array_equal, kept, again)
    zeros = fit.load(None)
    assert jax.tree.map(np.shape, zeros) == jax.tree.map(np.shape, kept)
    summary = runs.read_done(folder, "agents")["summary"]
    assert (summary["lanes"], summary["updates"], summary["env_steps"]) == (2, 2, 32)


def test_custom_steps_and_measures_are_found(folder):
    steps = [
        Custom("own", lambda folder: runs.Work(lambda state, place: {"x": 1})),
        Measure("read", lambda folder, place: {"y": runs.read_done(folder, "own")["summary"]["x"] + 1}),
    ]
    runs.run(folder, [step.stage(1) for step in steps], chunks_per_save=1, quiet=True)
    found = Found(folder, steps)
    assert dict(found) == {"own": {"x": 1}, "read": {"y": 2}}
    assert found.recompiled() == {}


def test_bounds_of_a_check_are_told_as_they_are_kept():
    for value, bounds, passed, told in (
        (0.5, {"high": 0.5}, True, "a 0.10, b 0.50; expected at most 0.5"),
        (0.51, {"high": 0.5}, False, "expected at most 0.5"),
        (0.6, {"low": 0.5}, False, "expected at least 0.5"),  # a is below
        (0.5, {"low": 0.1, "high": 0.8}, True, "expected 0.1 to 0.8"),
        (float("nan"), {"high": 0.8}, False, "b nan"),
    ):
        check = verdicts.all_between("room", {"a": 0.1, "b": value}, **bounds)
        assert check.passed is passed
        assert told in check.detail


def test_the_iqm_of_a_task_is_of_its_seeds():
    scores = np.array([[0.0, 1.0, 1.0, 9.0], [2.0, 2.0, 2.0, 2.0]])
    assert verdicts.iqm_by_task(["a", "b"], scores) == {"a": 1.0, "b": 2.0}


KINDS = (("train", "/a"), ("train", "/b"), ("evaluate", ""))


def test_every_task_has_its_fits_and_then_the_measure_of_them(folder):
    tasks = [EnvConfig("probe/DelayedReward"), EnvConfig("probe/ObservedReward")]

    def fits_of(config, task):
        env, params = envs.make(task.env)
        return {arm: agents.population(f"train/{task.name}/{arm}", env, [params], PPO, 0) for arm in config}

    def evaluate(config, task, fits, folder, place):
        return {"config": config, "task": task.name, "fits": [fit.name for fit in fits.values()]}

    steps = agents.task_steps(("a", "b"), tasks, fits_of, evaluate)
    expected = [f"{kind}/{t.name}{arm}" for t in tasks for kind, arm in KINDS]
    assert [step.name for step in steps] == expected
    found = steps[-1].of(folder, folder)
    assert found["task"] == tasks[1].name
    assert found["fits"] == expected[3:5]


def test_two_steps_of_one_name_are_refused():
    steps = [Measure("evaluate", dict), Measure("evaluate", dict)]
    with pytest.raises(ValueError, match="names of a study's steps"):
        Study({"full": "all"}, ["reach"], steps, dict, [])


def test_a_policy_acts_at_random_where_it_is_told_to():
    env, _ = envs.make("classic/Pendulum-v1")
    still = Policy(lambda batch: (), lambda params, carry, *_: (jnp.full((4, 1), params), (), carry))
    act = agents.or_random(env, still).act
    obs, is_first = jnp.zeros((4, 3)), jnp.zeros((4,), bool)
    own, _, _ = act((jnp.float32(0.5), jnp.array(False)), (), obs, is_first, jax.random.key(0))
    drawn, _, _ = act((jnp.float32(0.5), jnp.array(True)), (), obs, is_first, jax.random.key(0))
    np.testing.assert_array_equal(own, 0.5)
    assert len(np.unique(drawn)) == 4
    assert np.abs(drawn).max() <= 2.0
