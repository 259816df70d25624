"""Configuration and presets of memory, importable without JAX."""

import dataclasses

from jaxagent.config import (
    NUM_SHARDS,
    Count,
    PPOConfig,
    RuntimeConfig,
    Share,
    TransformerConfig,
    require_divides,
)
from jaxagent.study.config import ChangedEnvConfig, SeedConfig

DESCRIPTION = "which memory lets PPO act on what it no longer sees: recurrent, stacked or a transformer's?"


@dataclasses.dataclass(frozen=True)
class TaskConfig(ChangedEnvConfig):
    """A memory world, and how every arm learns it."""

    ppo: PPOConfig = PPOConfig()

    def check(self) -> None:
        """Raise where lanes do not make whole minibatches."""
        super().check()
        lanes, fix = self.ppo.num_envs // NUM_SHARDS, "a minibatch has whole segments"
        require_divides(f"{self.name}: ppo.num_envs / shards", self.ppo.num_minibatches, lanes, fix)


@dataclasses.dataclass(frozen=True)
class Config:
    """The study, in the order in which it runs."""

    tasks: tuple[TaskConfig, ...]
    width: Count = 32  # of every memory's features
    stack: Count = 4  # observations that the frame stack holds
    recurrence_layers: Count = 2
    transformer: TransformerConfig = TransformerConfig(width=32, num_layers=2, num_heads=4, context=8)
    forget: Share = 0.3  # of the saboteur's steps: it begins anew
    episodes: Count = 64  # of each arm and seed
    seeds: SeedConfig = SeedConfig(100, 5)  # 0 to 4 were run with six gated claims
    runtime: RuntimeConfig = RuntimeConfig(optimization_level=1)


_PPO = PPOConfig(
    num_envs=64,
    num_steps=16,
    num_epochs=2,
    num_updates=36,
    updates_per_chunk=12,
    learning_rate=2e-3,
    entropy_weight=0.01,
)
_FIRST = TaskConfig("memory/RepeatFirst", (("num_cards", 8),), _PPO)
_MAZE = TaskConfig("memory/TMaze", (("length", 6),), dataclasses.replace(_PPO, num_updates=60))
CPU = Config((_FIRST, _MAZE))

# Two hours and a half at most; never run so far.
_LONG = dataclasses.replace(_PPO, num_updates=240, updates_per_chunk=24, learning_rate=1e-3)
_CONTROL = dataclasses.replace(_LONG, num_steps=32, num_epochs=4, reward_scale=0.1, entropy_weight=0.0)
_LENGTHS = (3, 6, 12, 24)
FULL = Config(
    (
        TaskConfig("memory/RepeatFirst", (), _LONG),
        TaskConfig("memory/RepeatPrevious", (), _LONG),
        TaskConfig("memory/CountRecall", (("num_cards", 8),), _LONG),
        TaskConfig("memory/Autoencode", (("num_cards", 3),), _LONG),
        *(TaskConfig("memory/TMaze", (("length", length),), _LONG) for length in _LENGTHS),
        TaskConfig("memory/PositionCartPole", (), _CONTROL),
        TaskConfig("memory/NoisyPendulum", (), dataclasses.replace(_CONTROL, discount=0.95)),
    ),
    transformer=TransformerConfig(width=32, num_layers=2, num_heads=4, context=32),
)

_TINY = dataclasses.replace(
    _PPO, num_envs=16, num_steps=4, num_updates=2, updates_per_chunk=1, num_minibatches=2
)
_SMALL = TransformerConfig(width=8, num_layers=1, num_heads=2, context=4)
SMOKE = Config(
    (dataclasses.replace(_MAZE, ppo=_TINY),),
    width=8,
    transformer=_SMALL,
    episodes=2,
    seeds=SeedConfig(1000, 2),
    runtime=RuntimeConfig(chunks_per_save=1, optimization_level=1),
)
PRESETS = {"smoke": SMOKE, "cpu": CPU, "cpu-full": FULL}
