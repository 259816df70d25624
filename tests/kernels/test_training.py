"""A loop that trains by the kernels takes the same steps, to rounding, and its run says so."""

import jax
import numpy as np
import pytest

import envs
from envs.vector import VectorEnv, broadcast_params
from jaxagent.agents.actor_critic import ppo, remembering
from jaxagent.config import MemoryConfig, PPOConfig
from jaxagent.train import loops, manifest, optimizer, parallel
from kernels import dispatch

SIZES = {"num_envs": 8, "num_steps": 6, "num_epochs": 1, "num_minibatches": 2, "hidden_size": 8}
CONFIG = PPOConfig(**SIZES, num_updates=2, updates_per_chunk=2)


def learned():
    """Parameters after two updates of PPO, whose policy has a linear recurrence."""
    env, task = envs.make("classic/CartPole-v1")
    judge = remembering(MemoryConfig("lru", 4, num_layers=1), env.obs_spec, env.action_spec, CONFIG)
    agent = ppo(env.obs_spec, env.action_spec, CONFIG, judge=judge)
    loop = loops.on_policy(agent, VectorEnv(env), optimizer.adam(1e-2, 0.5), CONFIG)
    tasks = broadcast_params(task, CONFIG.num_envs)
    state = parallel.first_state(*jax.jit(loop.init)(jax.random.key(0), tasks))
    state, _ = parallel.chunked(loop, 2, 1)(state, jax.random.key(1))
    return state.learner.params


def test_ppo_takes_the_same_steps(monkeypatch):
    plain = learned()
    called = []
    choose = dispatch.choose
    monkeypatch.setattr(dispatch, "choose", lambda *args: called.append(choose(*args)) or called[-1])
    monkeypatch.setenv(dispatch.VARIABLE, "interpret")
    by_kernel = learned()
    assert set(called) == {"interpret"}
    assert len(called) > 1  # the advantages and the memory
    for got, expected in zip(*map(jax.tree.leaves, (by_kernel, plain)), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-5)


def test_a_run_goes_on_by_the_kernels_that_it_began_with(monkeypatch, tmp_path):
    def about():
        return manifest.describe("x", "x", "cpu", CONFIG, "")

    begun = about()
    assert set(begun["kernels"].values()) == {"xla"}
    (tmp_path / manifest.MANIFEST).write_text(manifest.json.dumps(begun))
    manifest.check_same_machine(tmp_path, about())
    monkeypatch.setenv(dispatch.VARIABLE, "interpret")
    with pytest.raises(
        manifest.ManifestError, match=r"scan: was 'xla', is 'interpret'.* \(JAXAGENT_KERNELS is 'interpret'\)"
    ):
        manifest.check_same_machine(tmp_path, about())
    earlier = {key: value for key, value in begun.items() if key != "kernels"}
    (tmp_path / manifest.MANIFEST).write_text(manifest.json.dumps(earlier))
    with pytest.raises(manifest.ManifestError, match="kernel scan: was 'xla'"):
        manifest.check_same_machine(tmp_path, about())
