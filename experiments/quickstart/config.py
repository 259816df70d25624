"""Configuration and presets of the quickstart, importable without JAX."""

import dataclasses
from typing import Literal

from jaxagent.config import (
    Count,
    FitConfig,
    Positive,
    RuntimeConfig,
    ScalarTokens,
    TokenConfig,
    TransformerConfig,
)
from jaxagent.study import config as parts

DESCRIPTION = "PPO agents -> early trajectories -> one pretrained transformer -> few-shot cloning"
BELIEF = """
Pretraining on early trajectories helps to clone a changed task from few demonstrations ({Q1}: {=finetune}
against {=scratch} from scratch), and what helps is the order of steps ({Q2}) and what values mean ({Q3}). It
is worth this to a network that reads tokens: an MLP on raw observations has {=mlp}. Tasks where it fails
would change this.
"""


@dataclasses.dataclass(frozen=True)
class TaskConfig(parts.LearnedEnvConfig):
    """One environment: nominal for pretraining, changed for the demonstrations and the test."""

    demonstrations: Count = 1  # calibrated on development seeds, then frozen
    cloning: FitConfig = FitConfig()
    demonstration_steps: Count = 1_000_000  # a demonstration is cut after so many env steps


@dataclasses.dataclass(frozen=True)
class AdaptConfig:
    """The comparison."""

    # 0 to 4 were seen in another quickstart, of three tasks, 100 to 107 before claims were frozen.
    seeds: parts.SeedConfig = parts.SeedConfig(200, 8)
    lora_rank: Count = 2
    lora_learning_rate: Positive = 5.0  # multiple of the cloning learning rate
    mlp_hidden_size: Count = 128
    mlp_learning_rate: Positive = 5.0  # multiple of the cloning learning rate
    mlp_updates: Count = 300  # on every task: in a network's few updates an MLP learns nothing
    episodes: Count = 16  # per seed and arm
    decoding: Literal["argmax", "sample", "mean"] = "sample"  # of every arm
    margin: Positive = 0.15  # what eight development seeds show


@dataclasses.dataclass(frozen=True)
class Config:
    """The quickstart, in the order in which it runs."""

    tasks: tuple[TaskConfig, ...]
    seed: int = 0  # of the agents, their data and the one pretraining
    collect: parts.CollectConfig = parts.CollectConfig()
    tokens: ScalarTokens = TokenConfig()
    model: TransformerConfig = TransformerConfig()
    pretrain: FitConfig = FitConfig()
    adapt: AdaptConfig = AdaptConfig()
    runtime: RuntimeConfig = RuntimeConfig()


def _cloning(updates: int, **changes: float) -> FitConfig:
    return FitConfig(updates, updates, warmup_updates=min(10, updates // 3), weight_decay=0.0, **changes)


def _task(task: parts.LearnedEnvConfig, demonstrations: int, cloning: FitConfig, **cut: int) -> TaskConfig:
    return TaskConfig(**vars(task), demonstrations=demonstrations, cloning=cloning, **cut)


CPU = Config(
    tasks=(
        _task(parts.CARTPOLE, 4, _cloning(60), demonstration_steps=100),
        # The first quarter of an episode shows the way up.
        _task(parts.PENDULUM, 10, _cloning(140, learning_rate=3e-3), demonstration_steps=50),
    ),
    tokens=TokenConfig(num_bins=64),
    model=TransformerConfig(width=64, num_layers=2, num_heads=4, context=4),
    pretrain=FitConfig(num_updates=700, updates_per_chunk=100),
    # Half of the run is compilation; on two cores the programs ran as fast as at level 3.
    runtime=RuntimeConfig(optimization_level=1),
)
_FEW = {"demonstrations": 1, "cloning": _cloning(4, batch_size=4)}
SMOKE = Config(
    tuple(dataclasses.replace(parts.tiny(task), **_FEW) for task in CPU.tasks),
    collect=parts.TINY_COLLECT,
    model=TransformerConfig(width=16, num_layers=1, num_heads=2, context=2),
    tokens=TokenConfig(num_bins=16),
    pretrain=FitConfig(num_updates=6, updates_per_chunk=2, batch_size=4, warmup_updates=2),
    adapt=AdaptConfig(parts.SeedConfig(1000, 2), episodes=2, mlp_hidden_size=16, mlp_updates=4),
    runtime=RuntimeConfig(chunks_per_save=1, optimization_level=0),
)
# One accelerator: more agents, a wider and deeper model, more seeds. Never run so far.
GPU = Config(
    CPU.tasks,
    collect=parts.CollectConfig(train_agents=8, demonstrators=4, lanes=32),
    model=TransformerConfig(width=256, num_layers=6, num_heads=8, context=8, dtype="bfloat16"),
    tokens=TokenConfig(num_bins=256),
    pretrain=FitConfig(num_updates=20_000, updates_per_chunk=500, batch_size=256),
    adapt=AdaptConfig(parts.SeedConfig(0, 16), episodes=256, lora_rank=1),
)
PRESETS = {"smoke": SMOKE, "cpu": CPU, "gpu": GPU}
