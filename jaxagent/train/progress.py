"""The live progress line: stage, share done, rates, ETA, compile seconds."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxagent.train.clock import CompileClock

SHOWN = ("train/return", "train/loss")
SHOWN_ABOVE_ZERO = ("train/skipped",)


class Progress:
    """One line per stage, rewritten in a terminal, printed anew elsewhere."""

    def __init__(self, stage: str, num_updates: int, clock: CompileClock, quiet: bool = False):
        self.stage, self.num_updates, self.clock, self.quiet = stage, num_updates, clock, quiet
        self.is_terminal = sys.stdout.isatty()
        self.first_step: int | None = None
        self.started = time.perf_counter()
        self._say("starting")

    def update(self, line: dict[str, Any]) -> None:
        """Show a metrics line."""
        self._say(self._describe(line))

    def close(
        self, seconds: float, compile_seconds: float, recompiled: int = 0, pictures: Sequence[Path] = ()
    ) -> None:
        """End the stage's line; `recompiled` counts programs compiled after the first chunk."""
        text = f"done in {seconds:.1f} s (compiling {compile_seconds:.1f} s)"
        if recompiled:
            text += f"; {recompiled} programs were compiled after the first chunk"
        if pictures:
            more = f" and {len(pictures) - 1} more" if len(pictures) > 1 else ""
            text += f"; see {pictures[0]}{more}"
        self._say(text, end="\n")

    def _describe(self, line: dict[str, Any]) -> str:
        step, now = line["step"], time.perf_counter()
        if self.first_step is None:  # the first chunk compiles: rate and ETA count from its end
            self.first_step, self.started = step, now
        parts = [f"{step}/{self.num_updates}"]
        parts += [
            f"{name.removesuffix('_per_second').replace('_', ' ')}/s {_short(value)}"
            for name, value in line.items()
            if name.endswith("_per_second")
        ]
        if "mfu" in line:
            parts.append(f"MFU {line['mfu']:.2f}")
        shown = [n for n in SHOWN if n in line] + [n for n in SHOWN_ABOVE_ZERO if np.any(line.get(n, 0.0))]
        parts += [f"{n.removeprefix('train/')} {_mean(line[n])}" for n in shown]
        if step > self.first_step:
            per_update = (now - self.started) / (step - self.first_step)
            parts.append(f"ETA {per_update * (self.num_updates - step):.0f} s")
        parts.append(f"compiled {self.clock.seconds:.0f} s")
        return "  ".join(parts)

    def _say(self, text: str, end: str = "") -> None:
        if self.quiet:
            return
        line = f"[{self.clock.wall_seconds:6.1f} s] {self.stage:24s} {text}"
        if self.is_terminal:
            print(f"\r\x1b[2K{line}", end=end, flush=True)
        else:
            print(line, flush=True)


def _short(value: float) -> str:
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.1f}{suffix}"
    return f"{value:.0f}"


def _mean(value: Any) -> str:
    numbers = [v for v in (value if isinstance(value, list) else [value]) if v is not None]
    return f"{sum(numbers) / len(numbers):.3g}" if numbers else "-"
