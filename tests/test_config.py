"""Configurations are checked when they are made."""

import dataclasses
import inspect

import jax
import pytest

import envs
import jaxagent.config
from envs.vector import VectorEnv, broadcast_params
from jaxagent.agents import actor_critic
from jaxagent.config import Checked, PPOConfig, RainbowConfig, RuntimeConfig, TransformerConfig
from jaxagent.study.config import SeedConfig
from jaxagent.train import loops, optimizer

PARTS = [c for _, c in inspect.getmembers(jaxagent.config, dataclasses.is_dataclass)]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: PPOConfig(num_envs=10), r"PPOConfig.num_envs: got 10, expected a multiple of 4"),
        (lambda: PPOConfig(num_minibatches=5), "expected a multiple of 5"),
        (lambda: PPOConfig(learning_rate=-1.0), "expected a number above 0"),
        (lambda: dataclasses.replace(PPOConfig(), discount=1.5), r"expected a number in \[0, 1\]"),
        (lambda: RainbowConfig(capacity=1000), "RainbowConfig"),
        (lambda: TransformerConfig(width=20, num_heads=3), "rotary"),
        (lambda: RuntimeConfig(devices=3), "use 1, 2 or 4"),
        (lambda: SeedConfig(-1), "SeedConfig.first: got -1, expected at least 0"),
        (lambda: SeedConfig(count=0), "expected a number above 0"),
    ],
    ids=["lanes", "minibatches", "rate", "replaced", "capacity", "width", "devices", "seed", "count"],
)
def test_an_illegal_one_is_not_made(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_every_part_is_checked_and_its_defaults_are_legal():
    assert len(PARTS) > 15
    for part in PARTS:
        assert issubclass(part, Checked), part
        part()


def test_tasks_are_as_many_as_lanes():
    env, task = envs.make("probe/ActionReward")
    config = PPOConfig(num_envs=32)
    agent = actor_critic.ppo(env.obs_spec, env.action_spec, config)
    loop = loops.on_policy(agent, VectorEnv(env), optimizer.adam(1e-3, 1.0), config)
    with pytest.raises(ValueError, match="got 32, expected 16, as many as tasks"):
        jax.eval_shape(loop.init, jax.random.key(0), broadcast_params(task, 16))
