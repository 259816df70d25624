"""Configuration and presets of icl_rational, importable without JAX."""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from jaxagent.config import Bound, Count, FitConfig, Positive, RuntimeConfig, TransformerConfig, checks
from jaxagent.study.config import SeedConfig

DESCRIPTION = "when do models memorise tasks, when generalise: predicted from loss and complexity"
BELIEF = """
Where models stand between memorising tasks and generalising follows from loss and complexity: held-out
cells are predicted (correlation, {R1}), on new tasks too ({R1x}), better than by loss alone ({R2a}) or
complexity alone ({R2b}). That says little for the theory as long as a logistic curve in log N and log D
does as well ({R2c}); cells where both disagree would.
"""


@dataclass(frozen=True)
class PromptConfig:
    """What a prompt is drawn from; pools of several sizes share their first tasks."""

    task: Literal["urn", "mdp"] = "urn"
    sizes: tuple[int, ...] = (4, 16, 64, 256)  # D, tasks in the pool, rising
    num_outcomes: Count = 8  # urn: symbols
    num_states: Count = 3
    num_actions: Count = 2
    num_steps: Annotated[int, Bound(2)] = 32
    alpha: Positive = 1.0  # of the Dirichlet prior


@dataclass(frozen=True)
class TheoryConfig:
    """The rational model and how it is judged."""

    complexity: Literal["analytic", "lzma", "code_x5"] = "analytic"  # bits of the predictors
    share: Annotated[float, Bound(0.5, 0.95)] = 0.8  # of checkpoints and sizes is fitted, the rest held out
    num_starts: Count = 16  # of L-BFGS
    interpolation: Positive = 0.2  # share of its range below which a model lies between M and G
    least_gap: Positive = 0.02  # nats between M and G below which a cell says nothing


@dataclass(frozen=True)
class Config:
    """The study, in the order in which it runs."""

    prompts: PromptConfig = PromptConfig()
    model: TransformerConfig = TransformerConfig(width=32, num_layers=1, num_heads=1, context=32)
    mlp_factors: tuple[int, ...] = (4,)  # widths of the MLP; the claims are about the last
    fit: FitConfig = FitConfig()
    theory: TheoryConfig = TheoryConfig()
    seeds: SeedConfig = SeedConfig(0, 7)  # four gated claims: Holm asks for p < 0.0125
    num_prompts: Count = 64  # evaluated, of each kind and size
    runtime: RuntimeConfig = RuntimeConfig()

    def check(self) -> None:
        """Raise where sizes do not rise, prompts are longer than the model, or pools larger than memory."""
        p, sizes = self.prompts, self.prompts.sizes
        checks.require_at_most(p, self.model.context, "num_steps", "positions of the model (its context)")
        is_rising = list(sizes) == sorted(set(sizes)) and len(sizes) > 1 and sizes[0] > 0
        expected = "at least two rising sizes from 1 on"
        checks.require(is_rising, "PromptConfig.sizes", sizes, expected, "the largest is held out")
        for factor in self.mlp_factors:
            checks.check(replace(self.model, mlp_factor=factor))
        per_task = p.num_outcomes if p.task == "urn" else p.num_states**2 * p.num_actions
        num_bytes = 2 * len(self.seeds) * len(sizes) * max(sizes) * per_task * 4
        checks.require_fits_memory("PromptConfig.sizes", num_bytes)


_FIT = FitConfig(3000, 50, batch_size=32, learning_rate=2e-3, final_learning_rate=1.0, weight_decay=0.0)
CPU = Config(fit=_FIT, runtime=RuntimeConfig(lanes_in_turn=True))
SMOKE = Config(
    PromptConfig(sizes=(2, 4, 8), num_outcomes=3, num_steps=6),
    TransformerConfig(width=8, num_layers=1, num_heads=1, mlp_factor=1, context=6),
    mlp_factors=(1,),
    fit=replace(_FIT, num_updates=20, updates_per_chunk=2, batch_size=8, warmup_updates=1),
    theory=TheoryConfig(num_starts=2, least_gap=1e-4),
    seeds=SeedConfig(1000, 2),
    num_prompts=8,
    runtime=RuntimeConfig(optimization_level=0),
)
# One accelerator: the published width and context, nine sizes, three MLPs. Never run so far.
GPU = Config(
    PromptConfig(sizes=(4, 8, 16, 32, 64, 128, 256, 512, 1024), num_steps=128),
    replace(CPU.model, width=64, context=128),
    mlp_factors=(1, 4, 8),
    fit=replace(_FIT, num_updates=30_000, updates_per_chunk=250, learning_rate=5e-4),
    seeds=SeedConfig(0, 8),
    num_prompts=256,
)
PRESETS = {"smoke": SMOKE, "cpu": CPU, "gpu": GPU}
