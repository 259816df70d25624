"""How anything is fitted and run, whatever it is."""

import dataclasses
from typing import Literal

from jaxagent.config.checks import (
    NUM_SHARDS,
    Checked,
    require,
    require_at_least_zero,
    require_divides,
    require_fraction,
    require_positive,
)


@dataclasses.dataclass(frozen=True)
class FitConfig(Checked):
    """A supervised fit: windows, steps and AdamW."""

    num_updates: int = 1000
    updates_per_chunk: int = 100
    batch_size: int = 16  # windows per update (per domain where there are several)
    learning_rate: float = 1e-3
    warmup_updates: int = 50
    final_learning_rate: float = 0.1  # as a share of the peak, at the end of the cosine
    schedule: Literal["cosine", "inverse_sqrt"] = "cosine"  # after the warm-up
    weight_decay: float = 0.01
    max_gradient_norm: float = 1.0

    def check(self) -> None:
        """Raise ValueError for an illegal configuration."""
        require_positive(self, "num_updates", "updates_per_chunk", "batch_size", "learning_rate")
        require_positive(self, "max_gradient_norm")
        require_fraction(self, "final_learning_rate")
        require_at_least_zero(self, "warmup_updates", "weight_decay")
        name = type(self).__name__
        require(
            self.warmup_updates < self.num_updates,
            f"{name}.warmup_updates",
            self.warmup_updates,
            f"fewer than num_updates = {self.num_updates}",
            "shorten the warm-up",
        )
        require_divides(f"{name}.batch_size", NUM_SHARDS, self.batch_size, "one part per shard")
        require_divides(f"{name}.num_updates", self.updates_per_chunk, self.num_updates, "chunks are whole")


@dataclasses.dataclass(frozen=True)
class RuntimeConfig(Checked):
    """What does not belong to the method: devices, precision, saving."""

    devices: int = 1
    matmul_precision: Literal["default", "high", "highest"] = "highest"
    deterministic: bool = False  # accelerator flags for run-to-run equality; the CPU has it anyway
    chunks_per_save: int = 5
    optimization_level: int = 3  # of XLA's code; 1 compiles in two thirds of the time
    lanes_in_turn: bool = False  # seeds one after another, where an experiment has lanes; for CPUs
    needs_accelerator: bool = False  # a CPU is refused: it would run for weeks

    def check(self) -> None:
        """Raise ValueError for an illegal configuration."""
        require_positive(self, "devices", "chunks_per_save")
        level = self.optimization_level
        name = "RuntimeConfig.optimization_level"
        require(level in range(4), name, level, "0, 1, 2 or 3", "3 is XLA's default")
        require(
            NUM_SHARDS % self.devices == 0,
            "RuntimeConfig.devices",
            self.devices,
            f"a divisor of the {NUM_SHARDS} data shards",
            "use 1, 2 or 4 devices per host",
        )
