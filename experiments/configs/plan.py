"""Configuration and presets of plan, importable without JAX."""

import dataclasses

from envs.names import check_name
from envs.registry import registered
from envs.returns import reference
from experiments.configs.quickstart import CPU as QUICKSTART
from experiments.configs.quickstart import SMOKE as QUICKSTART_SMOKE
from experiments.configs.quickstart import CollectConfig, TaskConfig
from jaxagent.config import (
    FitConfig,
    RuntimeConfig,
    TokenConfig,
    TransformerConfig,
    require_at_least,
    require_fraction,
    require_positive,
)

DESCRIPTION = "what does search add to a pretrained policy, with the true world or a learned one?"


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The learned world, and what states are worth in both."""

    fit: FitConfig = FitConfig(
        num_updates=3000,
        updates_per_chunk=300,
        batch_size=256,
        warmup_updates=100,
        learning_rate=1e-3,
        weight_decay=0.0,
    )
    hidden_size: int = 128
    tau: float = 0.01  # share of the new values in the slow copy, per update


@dataclasses.dataclass(frozen=True)
class PlanConfig:
    """Search at evaluation."""

    simulations: tuple[int, ...] = (8, 32)  # rising; the last ones are judged
    num_samples: int = 6  # actions of a node, drawn by the policy
    discount: float = 0.97  # per env step, of values and search
    episodes: int = 8  # per arm and seed
    first_seed: int = 100  # claim seeds are 100..105; development seeds are 1000 and up
    num_seeds: int = 6  # three gated claims: Holm asks for p < 0.017


@dataclasses.dataclass(frozen=True)
class Config:
    """The study, in the order in which it runs."""

    tasks: tuple[TaskConfig, ...]
    seed: int = 0  # of the agents and their data
    collect: CollectConfig = CollectConfig(demonstrators=1)
    tokens: TokenConfig = TokenConfig()
    model: TransformerConfig = TransformerConfig()
    pretrain: FitConfig = FitConfig()
    world: ModelConfig = ModelConfig()
    plan: PlanConfig = PlanConfig()
    runtime: RuntimeConfig = RuntimeConfig()

    def check(self) -> None:
        """Raise ValueError with got / expected / fix for an illegal configuration."""
        for task in self.tasks:
            check_name("environment", task.env, registered())
            task.ppo.check()
            reference(task.env)  # raises where it was never measured
        for part in (self.tokens, self.model, self.pretrain, self.world.fit, self.runtime):
            part.check()
        require_positive(self.collect, *(f.name for f in dataclasses.fields(self.collect)))
        require_fraction(self.collect, "max_return")
        require_positive(self.world, "hidden_size", "tau")
        require_fraction(self.world, "tau")
        require_positive(self.plan, "discount", "episodes", "num_seeds")
        require_fraction(self.plan, "discount")
        require_at_least(self.plan, 2, "num_samples")
        rising = list(self.plan.simulations) == sorted(set(self.plan.simulations))
        if not rising or not self.plan.simulations or self.plan.simulations[0] < 1:
            raise ValueError(
                f"PlanConfig.simulations: got {self.plan.simulations}, expected rising numbers "
                "from 1 on; the last are judged."
            )


def _nominal(task: TaskConfig) -> TaskConfig:
    return dataclasses.replace(task, change=())


CPU = Config(
    tasks=tuple(_nominal(QUICKSTART.tasks[i]) for i in (0, 2)),  # CartPole, Pendulum
    # So early that the most likely actions leave room: with 0.5 they score 0.69 on CartPole.
    collect=CollectConfig(demonstrators=1, max_return=0.3),
    tokens=QUICKSTART.tokens,
    model=QUICKSTART.model,
    pretrain=FitConfig(num_updates=600, updates_per_chunk=100),
    runtime=RuntimeConfig(optimization_level=1),
)
SMOKE = dataclasses.replace(
    CPU,
    tasks=tuple(_nominal(QUICKSTART_SMOKE.tasks[i]) for i in (0, 2)),
    collect=dataclasses.replace(QUICKSTART_SMOKE.collect, demonstrators=1),
    tokens=QUICKSTART_SMOKE.tokens,
    model=QUICKSTART_SMOKE.model,
    pretrain=FitConfig(num_updates=4, updates_per_chunk=2, batch_size=4, warmup_updates=1),
    world=ModelConfig(FitConfig(num_updates=4, updates_per_chunk=2, batch_size=8, warmup_updates=1), 8),
    plan=PlanConfig((2, 4), num_samples=2, episodes=2, first_seed=1000, num_seeds=2),
    runtime=RuntimeConfig(chunks_per_save=1, optimization_level=1),
)
# One accelerator: more search, episodes and seeds, a wider model. Never run so far.
GPU = dataclasses.replace(
    CPU,
    tasks=tuple(_nominal(t) for t in QUICKSTART.tasks),
    collect=dataclasses.replace(CPU.collect, train_agents=8, lanes=32),
    model=TransformerConfig(width=256, num_layers=4, num_heads=4, context=4),
    pretrain=FitConfig(num_updates=10_000, updates_per_chunk=500, batch_size=256),
    plan=PlanConfig((4, 16, 64, 128), num_samples=16, episodes=64, num_seeds=8),
    runtime=RuntimeConfig(),
)
PRESETS = {"smoke": SMOKE, "cpu": CPU, "gpu": GPU}
