"""Configuration and presets of reinforce, importable without JAX."""

import dataclasses

from jaxagent.config import Count, FitConfig, PPOConfig, RuntimeConfig, TokenConfig, TransformerConfig
from jaxagent.config.checks import Positive, Share, require_whole_lanes
from jaxagent.config.networks import ScalarTokens
from jaxagent.study import config as parts

DESCRIPTION = "histories of PPO agents pretrain a transformer; PPO then tunes it on changed dynamics"
BELIEF = """
Histories of weak agents give PPO a head start on changed dynamics ({Z1}), and it is the order of steps
that does it (over shuffled ones, {Z2}). Staying near the pretrained policy costs nothing ({Z3}). That
adapters are enough we cannot say ({Z4}). All of it is of one pretrained model: five pretrainings, or a
task that the histories do not resemble, could change it.
"""


@dataclasses.dataclass(frozen=True)
class TaskConfig(parts.LearnedEnvConfig):
    """One environment: nominal for pretraining, changed for what is learned by reinforcement."""

    tuning: PPOConfig = PPOConfig()  # of every arm on the changed task

    def check(self) -> None:
        """Raise where lanes do not make whole minibatches."""
        super().check()
        require_whole_lanes(self.tuning)


@dataclasses.dataclass(frozen=True)
class Config:
    """The study, in the order in which it runs."""

    tasks: tuple[TaskConfig, ...]
    seed: int = 0  # of the agents, their data and the one pretraining
    collect: parts.CollectConfig = parts.CollectConfig(
        demonstrators=1, demonstration_episodes=1, max_return=0.2
    )
    tokens: ScalarTokens = TokenConfig(num_bins=64)
    model: TransformerConfig = TransformerConfig(width=32, num_layers=2, num_heads=4, context=4)
    pretrain: FitConfig = FitConfig(num_updates=1000, updates_per_chunk=100, learning_rate=2e-3)
    lora_rank: Count = 4
    anchor_weight: Positive = 0.2  # VPT's
    anchor_decay: Share = 0.9  # an update
    episodes: Count = 8  # of each snapshot and seed
    snapshots: Count = 6  # of each curve
    seeds: parts.SeedConfig = parts.SeedConfig(0, 32)
    runtime: RuntimeConfig = RuntimeConfig(optimization_level=1)


_TUNING = PPOConfig(
    num_envs=32, num_steps=16, num_updates=10, updates_per_chunk=1, learning_rate=1e-3, reward_scale=0.1
)
CARTPOLE = TaskConfig(**vars(parts.CARTPOLE), tuning=_TUNING)
CPU = Config((CARTPOLE,))
# Episodes of the other two are long: they take more steps to say anything. Never run so far.
_LONG = dataclasses.replace(_TUNING, num_updates=120, updates_per_chunk=6)
FULL = Config(
    (
        TaskConfig(**vars(parts.CARTPOLE), tuning=_LONG),
        TaskConfig(**vars(parts.ACROBOT), tuning=_LONG),
        TaskConfig(**vars(parts.PENDULUM), tuning=dataclasses.replace(_LONG, discount=0.95)),
    ),
    snapshots=11,
)
_TINY = dataclasses.replace(_TUNING, num_envs=8, num_steps=4, num_updates=2, updates_per_chunk=1)
SMOKE = Config(
    (dataclasses.replace(parts.tiny(CARTPOLE), tuning=dataclasses.replace(_TINY, num_minibatches=2)),),
    collect=parts.TINY_COLLECT,
    tokens=TokenConfig(num_bins=16),
    model=TransformerConfig(width=8, num_layers=1, num_heads=2, context=2),
    pretrain=FitConfig(num_updates=2, updates_per_chunk=1, batch_size=4, warmup_updates=1),
    episodes=2,
    snapshots=2,
    seeds=parts.SeedConfig(1000, 2),
    runtime=RuntimeConfig(chunks_per_save=1, optimization_level=0),
)
PRESETS = {"smoke": SMOKE, "cpu": CPU, "cpu-full": FULL}
