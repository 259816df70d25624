"""Configuration and presets of icl_rational, importable without JAX."""

import dataclasses
from typing import Literal

from jaxagent.config import (
    FitConfig,
    RuntimeConfig,
    TransformerConfig,
    require_at_least,
    require_at_most,
    require_fits_memory,
    require_positive,
)

DESCRIPTION = "when do models memorise tasks, when generalise: predicted from loss and complexity"


@dataclasses.dataclass(frozen=True)
class PromptConfig:
    """What a prompt is drawn from; pools of several sizes share their first tasks."""

    task: Literal["urn", "mdp"] = "urn"
    sizes: tuple[int, ...] = (4, 16, 64, 256)  # D, tasks in the pool, rising
    num_outcomes: int = 8  # urn: symbols
    num_states: int = 3
    num_actions: int = 2
    num_steps: int = 32
    alpha: float = 1.0  # of the Dirichlet prior


@dataclasses.dataclass(frozen=True)
class TheoryConfig:
    """The rational model and how it is judged."""

    complexity: Literal["analytic", "lzma", "code_x5"] = "analytic"  # bits of the predictors
    share: float = 0.8  # of checkpoints and of sizes that are fitted; the rest is held out
    num_starts: int = 16  # of L-BFGS
    interpolation: float = 0.2  # share of its range below which a model lies between M and G
    least_gap: float = 0.02  # nats between M and G below which a cell says nothing


@dataclasses.dataclass(frozen=True)
class Config:
    """The study, in the order in which it runs."""

    prompts: PromptConfig = PromptConfig()
    model: TransformerConfig = TransformerConfig(
        width=32, num_layers=1, num_heads=1, mlp_factor=4, context=32
    )
    mlp_factors: tuple[int, ...] = (4,)  # widths of the MLP; the claims are about the last
    fit: FitConfig = FitConfig()
    theory: TheoryConfig = TheoryConfig()
    first_seed: int = 0  # claim seeds are 0..n-1; development seeds are 1000 and up
    num_seeds: int = 7  # four gated claims: Holm asks for p < 0.0125
    num_prompts: int = 64  # evaluated, of each kind and size
    runtime: RuntimeConfig = RuntimeConfig()

    def check(self) -> None:
        """Raise ValueError with got / expected / fix for an illegal configuration."""
        p = self.prompts
        for part in (self.model, self.fit, self.runtime):
            part.check()
        require_positive(p, "num_outcomes", "num_states", "num_actions", "alpha")
        require_at_least(p, 2, "num_steps")
        require_at_most(p, self.model.context, "num_steps", "positions of the model (its context)")
        if list(p.sizes) != sorted(set(p.sizes)) or len(p.sizes) < 2 or p.sizes[0] < 1:
            raise ValueError(
                f"PromptConfig.sizes: got {p.sizes}, expected at least two rising sizes from 1 on; "
                "the largest is held out."
            )
        require_positive(self, "num_seeds", "num_prompts")
        require_positive(self.theory, "num_starts", "interpolation", "least_gap")
        require_at_least(self.theory, 0.5, "share")
        require_at_most(self.theory, 0.95, "share", "most that leaves something held out")
        for factor in self.mlp_factors:
            dataclasses.replace(self.model, mlp_factor=factor).check()
        rows = 1 if p.task == "urn" else p.num_states * p.num_actions
        entries = p.sizes[-1] * rows * (p.num_outcomes if p.task == "urn" else p.num_states)
        lanes = self.num_seeds * len(p.sizes)
        require_fits_memory("PromptConfig.sizes", 2 * lanes * entries * 4)


CPU = Config(
    fit=FitConfig(
        num_updates=3000,
        updates_per_chunk=50,
        batch_size=32,
        learning_rate=2e-3,
        warmup_updates=50,
        final_learning_rate=1.0,
        weight_decay=0.0,
    ),
    runtime=RuntimeConfig(lanes_in_turn=True),
)
SMOKE = dataclasses.replace(
    CPU,
    prompts=PromptConfig(sizes=(2, 4, 8), num_outcomes=3, num_steps=6),
    model=TransformerConfig(width=8, num_layers=1, num_heads=1, mlp_factor=1, context=6),
    mlp_factors=(1,),
    fit=dataclasses.replace(CPU.fit, num_updates=20, updates_per_chunk=2, batch_size=8, warmup_updates=1),
    theory=TheoryConfig(num_starts=2, least_gap=1e-4),
    first_seed=1000,
    num_seeds=2,
    num_prompts=8,
    runtime=RuntimeConfig(chunks_per_save=5, optimization_level=1),
)
# One accelerator: the published width and context, nine sizes, three MLPs. Never run so far.
GPU = dataclasses.replace(
    CPU,
    prompts=PromptConfig(sizes=(4, 8, 16, 32, 64, 128, 256, 512, 1024), num_steps=128),
    model=TransformerConfig(width=64, num_layers=1, num_heads=1, mlp_factor=4, context=128),
    mlp_factors=(1, 4, 8),
    fit=dataclasses.replace(CPU.fit, num_updates=30_000, updates_per_chunk=250, learning_rate=5e-4),
    num_seeds=8,
    num_prompts=256,
    runtime=RuntimeConfig(),
)
PRESETS = {"smoke": SMOKE, "cpu": CPU, "gpu": GPU}
