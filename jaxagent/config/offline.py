"""Configurations of agents that are fitted to stored trajectories."""

import dataclasses
from typing import Literal

from jaxagent.config.checks import Count, require_positive
from jaxagent.config.networks import ScalarTokens, TokenConfig, TransformerConfig
from jaxagent.config.runs import FitConfig


@dataclasses.dataclass(frozen=True)
class CloningConfig(FitConfig):
    """Behavioural cloning by an MLP: actions as bins, of standardised observations."""

    num_updates: int = 2000
    updates_per_chunk: int = 200
    batch_size: int = 64  # windows of `context` steps
    weight_decay: float = 0.0
    hidden_size: Count = 256
    context: Count = 8  # steps of a window that is drawn; the network reads one
    tokens: ScalarTokens = TokenConfig()
    rule: Literal["argmax", "sample", "mean"] = "argmax"  # how an action is chosen of its bins


@dataclasses.dataclass(frozen=True)
class SequenceConfig(FitConfig):
    """The action-state transformer on trajectories: pretrained, cloned, or what was pretrained tuned."""

    num_updates: int = 2000
    updates_per_chunk: int = 200
    batch_size: int = 32  # windows
    model: TransformerConfig = TransformerConfig()
    tokens: ScalarTokens = TokenConfig()
    targets: Literal["all", "actions"] = "all"  # whose next token is learned: all (pretraining), or actions
    tuning: Literal["all", "lora"] = "all"  # of a model that another run pretrained
    rank: Count = 4  # of adapters
    rule: Literal["argmax", "sample", "mean"] = "argmax"

    def check(self) -> None:
        """Raise ValueError for an illegal configuration."""
        super().check()
        require_positive(self, "rank")
