"""Configuration and presets of icl_bma, importable without JAX."""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from jaxagent.config import Bound, Count, FitConfig, Positive, RuntimeConfig, TransformerConfig, checks
from jaxagent.study.config import SeedConfig

DESCRIPTION = "does in-context learning average over tasks as Bayes' rule would?"
BELIEF = """
A transformer trained on walks through a pool of random MDPs comes near exact Bayesian model averaging:
its KL from it is far below that from the next best predictor where they differ ({B1} of it), and its
regret falls with the length of the walk as it should (slope in log T, {B2}). It is no Bayesian of any
prompt: with permuted outcomes, far from what it was trained on, Bayes' formula does not predict it
(correlation {B5}). A larger pool or a longer training that brings that correlation up would change this.
"""


@dataclass(frozen=True)
class PromptConfig:
    """What a prompt is drawn from."""

    task: Literal["pool", "fresh", "linear"] = "pool"
    num_tasks: Count = 8  # in the pool
    num_states: Count = 3
    num_actions: Count = 2
    num_steps: Annotated[int, Bound(16)] = 32  # transitions, or pairs of a regression
    alpha: Positive = 0.15  # of the Dirichlet rows: the smaller, the more one step says
    prior: Literal["uniform", "zipf"] = "uniform"  # over the pool
    input_size: Count = 4  # linear: size of x
    noise: Positive = 0.25  # linear: standard deviation; weights have 1 / sqrt(input_size)


@dataclass(frozen=True)
class Config:
    """The study, in the order in which it runs."""

    prompts: PromptConfig = PromptConfig()
    model: TransformerConfig = TransformerConfig(mlp_factor=2, context=32)
    depths: tuple[int, ...] = (3,)  # layers of the models; the claims are about the last
    fit: FitConfig = FitConfig()
    saboteur_updates: int = 440  # compared with the model as it was after as many
    seeds: SeedConfig = SeedConfig(0, 6)  # two gated claims: Holm asks for p < 0.025
    num_prompts: Count = 256  # evaluated, for each seed
    runtime: RuntimeConfig = RuntimeConfig()

    @property
    def saboteur_fit(self) -> FitConfig:
        """The fit of the saboteurs: the models', but shorter."""
        return replace(self.fit, num_updates=self.saboteur_updates)

    def check(self) -> None:
        """Raise where prompts are longer than the model, or pools larger than memory."""
        p, at_most = self.prompts, checks.require_at_most
        checks.check(self.saboteur_fit)
        at_most(self, self.fit.num_updates, "saboteur_updates", "updates of the model")
        at_most(p, self.model.context, "num_steps", "positions of the model (its context)")
        for depth in self.depths:
            checks.check(replace(self.model, num_layers=depth))
        # Each lane has its own pool, and its logarithm beside it.
        entries = p.num_tasks * p.num_states**2 * p.num_actions
        checks.require_fits_memory("PromptConfig.num_tasks", 2 * 2 * len(self.seeds) * entries * 4)


_FIT = FitConfig(
    2200, 110, learning_rate=4e-3, warmup_updates=100, final_learning_rate=0.02, weight_decay=0.0
)
CPU = Config(fit=_FIT, runtime=RuntimeConfig(lanes_in_turn=True))
SMOKE = Config(
    PromptConfig(num_tasks=2, num_states=2, num_actions=1, num_steps=16),
    TransformerConfig(width=16, num_layers=1, num_heads=2, mlp_factor=1, context=16),
    depths=(1,),
    fit=FitConfig(num_updates=4, updates_per_chunk=2, batch_size=4, warmup_updates=1),
    saboteur_updates=2,
    seeds=SeedConfig(1000, 2),
    num_prompts=8,
    runtime=RuntimeConfig(chunks_per_save=1, optimization_level=0),
)
# One accelerator: the brief's pool, four depths, a scan over tokens. Never run so far.
GPU = Config(
    PromptConfig(num_tasks=16, num_states=4, num_steps=64, alpha=1.0),
    replace(CPU.model, context=64),
    depths=(1, 2, 3, 4),
    fit=replace(_FIT, num_updates=20_000, updates_per_chunk=500, batch_size=64, learning_rate=2e-3),
    saboteur_updates=5_000,
    seeds=SeedConfig(0, 8),
    num_prompts=2048,
)
PRESETS = {"smoke": SMOKE, "cpu": CPU, "gpu": GPU}
