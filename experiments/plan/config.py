"""Configuration and presets of plan, importable without JAX."""

from dataclasses import dataclass, replace
from typing import Annotated

from jaxagent.config import (
    Bound,
    Count,
    FitConfig,
    RuntimeConfig,
    ScalarTokens,
    Share,
    TokenConfig,
    TransformerConfig,
    require,
)
from jaxagent.study.config import (
    ACROBOT,
    CARTPOLE,
    PENDULUM,
    TINY_COLLECT,
    CollectConfig,
    LearnedEnvConfig,
    SeedConfig,
    tiny,
)

DESCRIPTION = "what does search add to a pretrained policy, with the true world or a learned one?"
BELIEF = """
Search over its own samples makes a swing-up of a policy that can hardly swing, with the true world ({P1}) and
as well with one that was learned from the same early trajectories ({P2}); a world that has actions wrong is
of no use to it ({P3}). On CartPole it adds nothing to the policy's most likely actions, whose values, of
early agents, tell good from better too little. Proposals of the policy are worth no more than uniform ones
({P5}), and a tree no more than trying every sample once ({P6}): here the learned values do the work. Tasks in
which a reward lies further ahead than values can tell would change that.
"""


@dataclass(frozen=True)
class ModelConfig:
    """The learned world, and what states are worth in both."""

    fit: FitConfig = FitConfig(
        num_updates=3000, updates_per_chunk=300, batch_size=256, warmup_updates=100, weight_decay=0.0
    )
    hidden_size: Count = 128
    tau: Share = 0.01  # share of the new values in the slow copy, per update


@dataclass(frozen=True)
class PlanConfig:
    """Search at evaluation."""

    simulations: tuple[int, ...] = (8, 32)  # rising; the last ones are judged
    num_samples: Annotated[int, Bound(2)] = 6  # actions of a node, drawn by the policy
    # Difference of values that search weighs in full, as a share of the largest possible value.
    value_range: Share = 0.05
    discount: Share = 0.97  # per env step, of values and search
    episodes: Count = 8  # per arm and seed
    # 100 to 105 were spent on a search that stretched the values of every node.
    seeds: SeedConfig = SeedConfig(200, 12)

    def check(self) -> None:
        """Raise where simulations do not rise."""
        sims, fix = self.simulations, "the last are judged"
        is_rising = list(sims) == sorted(set(sims)) and min(sims, default=0) > 0
        require(is_rising, "PlanConfig.simulations", sims, "rising numbers from 1 on", fix)


@dataclass(frozen=True)
class Config:
    """The study, in the order in which it runs."""

    tasks: tuple[LearnedEnvConfig, ...]
    seed: int = 0  # of the agents and their data
    # So early that the most likely actions leave room, and not so early that they know nothing.
    collect: CollectConfig = CollectConfig(demonstrators=1, max_return=0.4)
    tokens: ScalarTokens = TokenConfig(num_bins=64)
    model: TransformerConfig = TransformerConfig(num_layers=2, context=4)
    pretrain: FitConfig = FitConfig(num_updates=600)
    world: ModelConfig = ModelConfig()
    plan: PlanConfig = PlanConfig()
    runtime: RuntimeConfig = RuntimeConfig()


_CARTPOLE, _ACROBOT, _PENDULUM = (replace(task, change=()) for task in (CARTPOLE, ACROBOT, PENDULUM))
CPU = Config((_CARTPOLE, _PENDULUM), runtime=RuntimeConfig(optimization_level=1))
_TINY = FitConfig(num_updates=4, updates_per_chunk=2, batch_size=4, warmup_updates=1)
SMOKE = Config(
    (tiny(_CARTPOLE), tiny(_PENDULUM)),
    collect=TINY_COLLECT,
    tokens=TokenConfig(num_bins=16),
    model=TransformerConfig(width=16, num_layers=1, num_heads=2, context=2),
    pretrain=_TINY,
    world=ModelConfig(replace(_TINY, batch_size=8), hidden_size=8),
    plan=PlanConfig((2, 4), num_samples=2, episodes=2, seeds=SeedConfig(1000, 2)),
    runtime=RuntimeConfig(chunks_per_save=1, optimization_level=0),
)
# One accelerator: more search, episodes and seeds, a wider model. Never run so far.
GPU = Config(
    (_CARTPOLE, _ACROBOT, _PENDULUM),
    collect=replace(CPU.collect, train_agents=8, lanes=32),
    model=TransformerConfig(width=256, num_layers=4, context=4),
    pretrain=FitConfig(num_updates=10_000, updates_per_chunk=500, batch_size=256),
    plan=PlanConfig((4, 16, 64, 128), num_samples=16, episodes=64, seeds=SeedConfig(100, 8)),
)
PRESETS = {"smoke": SMOKE, "cpu": CPU, "gpu": GPU}
