"""Configuration and presets of muzero, importable without JAX."""

import dataclasses

from envs.names import check_name
from envs.registry import registered
from envs.returns import reference
from jaxagent.config import (
    NUM_SHARDS,
    LatentConfig,
    MuZeroConfig,
    PPOConfig,
    RuntimeConfig,
    SearchConfig,
    TrunkConfig,
    require_at_least,
    require_divides,
    require_fraction,
    require_positive,
)

DESCRIPTION = "does search in a learned latent model learn from fewer steps, and what does it need?"


@dataclasses.dataclass(frozen=True)
class TaskConfig:
    """One environment, learned by both."""

    env: str
    muzero: MuZeroConfig
    ppo: PPOConfig

    @property
    def name(self) -> str:
        """Short name, e.g. CartPole-v1."""
        return self.env.split("/")[-1]

    @property
    def env_steps(self) -> int:
        """Of MuZero's training, the warm-up included."""
        fit = self.muzero
        return fit.warmup_steps + fit.num_updates * fit.num_envs * fit.num_steps

    @property
    def ppo_chunk(self) -> int:
        """Env steps between PPO's snapshots."""
        return self.ppo.updates_per_chunk * self.ppo.num_envs * self.ppo.num_steps


@dataclasses.dataclass(frozen=True)
class Config:
    """The study, in the order in which it runs."""

    tasks: tuple[TaskConfig, ...]
    episodes: int = 16  # of each snapshot and seed
    num_snapshots: int = 8  # of each that is played beside the first, evenly spaced
    num_averaged: int = 4  # of these, the last, whose mean return is a seed's score
    anchor: float = 0.9  # of PPO's final return, which both have to reach
    first_seed: int = 100  # claim seeds are 100..108; development seeds are 1000 and up
    num_seeds: int = 9  # two gated claims: Holm asks for p < 0.025
    runtime: RuntimeConfig = RuntimeConfig()

    def check(self) -> None:
        """Raise ValueError with got / expected / fix for an illegal configuration."""
        for task in self.tasks:
            check_name("environment", task.env, registered())
            reference(task.env)  # raises where it was never measured
            task.muzero.check()
            task.ppo.check()
            # The saboteur remembers the action of the lane beside it.
            require_at_least(task.muzero, 2 * NUM_SHARDS, "num_envs")
            require_divides(
                f"{task.name}: env steps of muzero",
                task.ppo_chunk,
                task.env_steps,
                "PPO needs a snapshot after as many steps; change updates_per_chunk",
            )
            ppo_steps = task.ppo.num_updates * task.ppo.num_envs * task.ppo.num_steps
            if ppo_steps < task.env_steps:
                raise ValueError(
                    f"{task.name}: got {ppo_steps} env steps of PPO, expected at least MuZero's "
                    f"{task.env_steps}; raise ppo.num_updates."
                )
        require_positive(self, "episodes", "num_averaged", "num_seeds")
        require_at_least(self, self.num_averaged, "num_snapshots")
        require_fraction(self, "anchor")
        self.runtime.check()


CPU = Config(
    tasks=(
        TaskConfig(
            "gymnax/CartPole-v1",
            MuZeroConfig(
                num_updates=64,
                updates_per_chunk=8,
                num_td_steps=10,
                discount=0.97,
                # Values are at most 33, squashed 4.9: nothing is clipped, and bins are narrow.
                model=LatentConfig(num_bins=61, reach=6.0),
            ),
            PPOConfig(num_envs=8, num_steps=32, num_updates=320, updates_per_chunk=4, reward_scale=0.1),
        ),
    )
)
SMOKE = dataclasses.replace(
    CPU,
    tasks=(
        TaskConfig(
            "gymnax/CartPole-v1",
            MuZeroConfig(
                num_envs=8,
                num_steps=4,
                num_gradient_steps=1,
                batch_size=16,
                capacity=128,
                warmup_steps=64,
                num_updates=2,
                updates_per_chunk=1,
                unroll=2,
                num_td_steps=2,
                model=LatentConfig(TrunkConfig(width=8, num_blocks=1), num_bins=11),
                search=SearchConfig(num_simulations=4),
            ),
            PPOConfig(num_envs=4, num_steps=4, num_updates=16, updates_per_chunk=1),
        ),
    ),
    episodes=2,
    num_snapshots=2,
    num_averaged=1,
    first_seed=1000,
    num_seeds=2,
    runtime=RuntimeConfig(chunks_per_save=1, optimization_level=1),
)
# One accelerator: MinAtar at 100k steps, convolutions. Never run so far.
_MINATAR = MuZeroConfig(
    num_envs=64,
    num_steps=4,
    num_gradient_steps=32,
    batch_size=128,
    capacity=131_072,
    warmup_steps=4096,
    num_updates=400,
    updates_per_chunk=20,
    discount=0.99,
    model=LatentConfig(
        TrunkConfig(channels=32, width=128, num_blocks=2), num_bins=51, reach=12.0, projection_size=512
    ),
    search=SearchConfig(num_simulations=32),
)
GPU = dataclasses.replace(
    CPU,
    tasks=tuple(
        TaskConfig(
            f"minatar/{name}",
            _MINATAR,
            PPOConfig(
                num_envs=64,
                num_steps=64,
                num_updates=1248,
                updates_per_chunk=13,
                hidden_size=256,
                learning_rate=3e-4,
                entropy_weight=0.01,
            ),
        )
        for name in ("Breakout", "Asterix", "SpaceInvaders", "Freeway")
    ),
    episodes=64,
)
PRESETS = {"smoke": SMOKE, "cpu": CPU, "gpu": GPU}
