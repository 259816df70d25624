"""Configuration and presets of the example, importable without JAX."""

import dataclasses

from jaxagent.config import Count, PPOConfig, RuntimeConfig
from jaxagent.study.config import EnvConfig, SeedConfig

DESCRIPTION = "the worked example: does PPO need to look ahead on CartPole?"
BELIEF = """
Without looking ahead PPO does not learn CartPole: {=ppo} against {=myopic} ({E1}). A task whose reward is
not spread over time would say nothing of the kind.
"""


@dataclasses.dataclass(frozen=True)
class TaskConfig(EnvConfig):
    """An environment and how it is learned."""

    ppo: PPOConfig = PPOConfig()


@dataclasses.dataclass(frozen=True)
class Config:
    """The study. What a type says (`Count`) and what each part knows of itself is checked for you."""

    tasks: tuple[TaskConfig, ...]
    seeds: SeedConfig = SeedConfig(0, 32)
    episodes: Count = 16  # of each arm and seed
    runtime: RuntimeConfig = RuntimeConfig(optimization_level=1)


_PPO = PPOConfig(num_envs=16, num_steps=32, num_updates=30, updates_per_chunk=10, reward_scale=0.1)
CPU = Config((TaskConfig("gymnax/CartPole-v1", _PPO),))
_TINY = dataclasses.replace(_PPO, num_envs=4, num_steps=8, num_updates=2, updates_per_chunk=1)
SMOKE = Config(
    (TaskConfig("gymnax/CartPole-v1", _TINY),),
    SeedConfig(1000, 2),
    episodes=2,
    runtime=RuntimeConfig(optimization_level=0),
)
PRESETS = {"smoke": SMOKE, "cpu": CPU}
