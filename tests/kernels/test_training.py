"""A loop that trains by the kernels takes the same steps, to rounding, and its run says so."""

import jax
import numpy as np
import pytest

import envs
from envs.vector import VectorEnv, broadcast_params
from jaxagent.agents import actions, muzero
from jaxagent.agents.actor_critic import ppo, remembering
from jaxagent.config import LatentConfig, MemoryConfig, MuZeroConfig, PPOConfig, SearchConfig, TrunkConfig
from jaxagent.data import replay
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


def searched():
    """Parameters after three updates of MuZero, whose actions and targets are those of searches."""
    env, task = envs.make("classic/CartPole-v1")
    model = LatentConfig(TrunkConfig(width=8, num_blocks=1), num_bins=5, reach=4.0, projection_size=4)
    sizes = {"num_envs": 4, "num_steps": 4, "num_gradient_steps": 2, "batch_size": 4, "capacity": 64}
    sizes["reanalyse"] = 0.0
    config = MuZeroConfig(
        **sizes,
        warmup_steps=32,
        num_updates=3,
        updates_per_chunk=3,
        unroll=2,
        num_td_steps=2,
        model=model,
        search=SearchConfig(num_simulations=4, num_considered=2),
    )
    agent = muzero.muzero(env.obs_shape, env.action_spec, config)
    loop = loops.replay(
        agent,
        VectorEnv(env),
        optimizer.adam(1e-2, 0.5),
        config,
        explore=actions.uniform(env.action_spec),
        as_steps=muzero.as_steps,
        slow=loops.moving_average(lambda p: p, config.tau),
        memory=replay.windows(muzero.window(config)),
        is_normalized=False,
    )
    tasks = broadcast_params(task, config.num_envs)
    state = parallel.first_state(*jax.jit(loop.init)(jax.random.key(0), tasks))
    state, _ = parallel.chunked(loop, 3, 1)(state, jax.random.key(1))
    return state


@pytest.mark.slow
def test_muzero_takes_the_same_steps(monkeypatch):
    """The whole state: parameters, what was played and what was remembered of it."""
    plain = searched()
    monkeypatch.setenv(dispatch.VARIABLE, "xla,search=interpret")
    by_kernel = searched()
    for got, expected in zip(*map(jax.tree.leaves, (by_kernel, plain)), strict=True):
        if jax.dtypes.issubdtype(got.dtype, jax.dtypes.prng_key):
            got, expected = jax.random.key_data(got), jax.random.key_data(expected)
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
