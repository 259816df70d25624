"""Configuration and presets of the quickstart, importable without JAX."""

import dataclasses
from typing import Literal

from envs.names import check_name
from envs.registry import registered
from envs.returns import reference
from jaxagent.config import (
    FitConfig,
    PPOConfig,
    RuntimeConfig,
    TokenConfig,
    TransformerConfig,
    require_fraction,
    require_positive,
)

DESCRIPTION = "PPO agents -> early trajectories -> one pretrained transformer -> few-shot cloning"


@dataclasses.dataclass(frozen=True)
class TaskConfig:
    """One environment: nominal for pretraining, changed for the demonstrations and the test."""

    env: str
    change: tuple[tuple[str, float], ...]  # parameters of the changed task
    ppo: PPOConfig
    demonstrations: int  # calibrated on development seeds, then frozen
    cloning: FitConfig
    sampled_demonstrations: bool = False  # the expert draws its actions, or plays their mode
    demonstration_steps: int = 1_000_000  # a demonstration is cut after so many env steps

    @property
    def name(self) -> str:
        """Short name, e.g. CartPole-v1."""
        return self.env.split("/")[-1]

    @property
    def overrides(self) -> dict[str, float]:
        """The change as keyword arguments of `envs.make`."""
        return dict(self.change)


@dataclasses.dataclass(frozen=True)
class CollectConfig:
    """What the trained agents leave behind."""

    train_agents: int = 4  # their early checkpoints are pretrained on
    validation_agents: int = 1  # their early checkpoints measure the pretraining loss
    demonstrators: int = 3  # trained on the changed task; the best one demonstrates
    checkpoints_per_agent: int = 4  # the best ones below the threshold
    max_return: float = 0.5  # normalised return that an early checkpoint may have
    lanes: int = 8  # parallel episodes per checkpoint
    steps: int = 500  # env steps per lane
    demonstration_episodes: int = 64  # pool from which each seed draws its demonstrations
    evaluation_episodes: int = 16  # per checkpoint, to find its return


@dataclasses.dataclass(frozen=True)
class AdaptConfig:
    """The comparison."""

    first_seed: int = 0  # claim seeds are 0..n-1; development seeds are 1000 and up
    num_seeds: int = 5
    lora_rank: int = 2
    lora_learning_rate: float = 5.0  # multiple of the cloning learning rate
    mlp_hidden_size: int = 128
    mlp_learning_rate: float = 5.0  # multiple of the cloning learning rate
    episodes: int = 16  # per seed and arm
    decoding: Literal["argmax", "sample", "mean"] = "sample"  # of every arm
    margin: float = 0.10


@dataclasses.dataclass(frozen=True)
class Config:
    """The quickstart, in the order in which it runs."""

    tasks: tuple[TaskConfig, ...]
    seed: int = 0  # of the agents, their data and the one pretraining
    collect: CollectConfig = CollectConfig()
    tokens: TokenConfig = TokenConfig()
    model: TransformerConfig = TransformerConfig()
    pretrain: FitConfig = FitConfig()
    adapt: AdaptConfig = AdaptConfig()
    runtime: RuntimeConfig = RuntimeConfig()

    def check(self) -> None:
        """Raise ValueError with got / expected / fix for an illegal configuration."""
        for task in self.tasks:
            check_name("environment", task.env, registered())
            task.ppo.check()
            task.cloning.check()
            require_positive(task, "demonstrations", "demonstration_steps")
            for overrides in ({}, task.overrides):
                reference(task.env, overrides)  # raises where it was never measured
        for part in (self.tokens, self.model, self.pretrain, self.runtime):
            part.check()
        require_positive(self.collect, *(f.name for f in dataclasses.fields(self.collect)))
        require_fraction(self.collect, "max_return")
        require_positive(self.adapt, "num_seeds", "lora_rank", "lora_learning_rate", "episodes")
        require_positive(self.adapt, "mlp_hidden_size", "mlp_learning_rate", "margin")


def _cloning(num_updates: int, **changes: float) -> FitConfig:
    defaults = FitConfig(
        num_updates=num_updates,
        updates_per_chunk=num_updates,
        warmup_updates=min(10, num_updates // 3),
        weight_decay=0.0,
    )
    return dataclasses.replace(defaults, **changes)


CPU = Config(
    tasks=(
        TaskConfig(
            env="gymnax/CartPole-v1",
            change=(("length", 1.0),),
            ppo=PPOConfig(num_updates=60, updates_per_chunk=1, reward_scale=0.1),
            demonstrations=4,
            demonstration_steps=100,
            cloning=_cloning(60),
        ),
        TaskConfig(
            env="gymnax/Acrobot-v1",
            change=(("link_mass_2", 1.4),),
            ppo=PPOConfig(num_updates=40, updates_per_chunk=1, reward_scale=0.1),
            # One episode and ten updates already teach a fresh network to push with the velocity,
            # which is nearly all there is to it.
            demonstrations=1,
            cloning=_cloning(4),
        ),
        TaskConfig(
            env="gymnax/Pendulum-v1",
            change=(("g", 2.0),),
            ppo=PPOConfig(num_updates=60, updates_per_chunk=3, num_epochs=8, discount=0.95, reward_scale=0.1),
            demonstrations=20,
            cloning=_cloning(300, learning_rate=3e-3),
            # Whole greedy episodes mostly show balancing at rest, which clones into copying the
            # last action; noise and the first quarter show the way up and the corrections.
            sampled_demonstrations=True,
            demonstration_steps=50,
        ),
    ),
    tokens=TokenConfig(num_bins=64),
    model=TransformerConfig(width=64, num_layers=2, num_heads=4, context=4),
    pretrain=FitConfig(num_updates=1000, updates_per_chunk=100),
    # Half of the run is compilation; on two cores the programs ran as fast as at level 3.
    runtime=RuntimeConfig(optimization_level=1),
)


def _tiny(task: TaskConfig) -> TaskConfig:
    ppo = dataclasses.replace(
        task.ppo, num_envs=4, num_steps=32, num_updates=4, updates_per_chunk=2, num_epochs=1
    )
    return dataclasses.replace(task, ppo=ppo, demonstrations=1, cloning=_cloning(4, batch_size=4))


SMOKE = dataclasses.replace(
    CPU,
    tasks=tuple(_tiny(t) for t in CPU.tasks),
    collect=CollectConfig(
        train_agents=2,
        validation_agents=1,
        demonstrators=1,
        checkpoints_per_agent=1,
        max_return=1.0,
        lanes=2,
        steps=32,
        demonstration_episodes=4,
        evaluation_episodes=2,
    ),
    model=TransformerConfig(width=16, num_layers=1, num_heads=2, context=2),
    tokens=TokenConfig(num_bins=16),
    pretrain=FitConfig(num_updates=6, updates_per_chunk=2, batch_size=4, warmup_updates=2),
    adapt=AdaptConfig(first_seed=1000, num_seeds=2, episodes=2, mlp_hidden_size=16),
    runtime=RuntimeConfig(chunks_per_save=1, optimization_level=1),
)

# One accelerator: more agents, a wider and deeper model, more seeds. Never run so far.
GPU = dataclasses.replace(
    CPU,
    collect=dataclasses.replace(CPU.collect, train_agents=8, demonstrators=4, lanes=32),
    model=TransformerConfig(width=256, num_layers=6, num_heads=8, context=8, dtype="bfloat16"),
    tokens=TokenConfig(num_bins=256),
    pretrain=FitConfig(num_updates=20_000, updates_per_chunk=500, batch_size=256),
    adapt=dataclasses.replace(CPU.adapt, num_seeds=16, episodes=256, lora_rank=1),
    runtime=RuntimeConfig(),
)

PRESETS = {"smoke": SMOKE, "cpu": CPU, "gpu": GPU}
