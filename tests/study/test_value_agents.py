"""A replay keeps what the agent saw, whatever it saw."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.vector import broadcast_params
from envs.wrappers import exogenous_noise
from experiments.spr.config import SMOKE
from jaxagent.study import value_agents

AGENT = dataclasses.replace(SMOKE.tasks[0].rainbow, capacity=64, warmup_steps=32, num_envs=4)


@pytest.mark.parametrize("noise", [0.0, 0.25])
def test_boards_are_bits_and_noise_is_kept(noise):
    env, task = envs.make("minatar/Breakout")
    if noise:
        env, task = exogenous_noise(env, task, noise)
    loop = value_agents.loop(env, AGENT)
    tasks = broadcast_params(task, AGENT.num_envs)
    kept = jax.eval_shape(lambda key: loop.init(key, tasks)[1].replay, jax.random.key(0))
    (obs,) = [x for x in jax.tree.leaves(kept) if x.shape[-3:] == env.obs_shape]
    assert obs.dtype == (jnp.float32 if noise else jnp.bool_)


def test_frames_are_kept_as_bytes():
    class Frames:
        obs_spec = tuple(envs.types.Component(f"p{i}", "real", 0.0, 255.0) for i in range(4))
        obs_dtype = np.uint8

    assert value_agents.kept_as(Frames()) == np.uint8
