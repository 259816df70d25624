"""The metrics file: one JSON object per line, the truth of a run.

Every field that depends on the clock has "seconds" or "per_second" in its name, or is "mfu"; all
others are reproducible, and `digest` is over them alone.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from jaxagent.train.parallel import Mean

TIME = "unix_seconds"  # the field that says when a line was written


def append(path: Path, line: dict[str, Any]) -> None:
    """Append one line and flush it; `sync` makes it durable."""
    with open(path, "a") as file:
        file.write(json.dumps(line, allow_nan=False) + "\n")


def sync(path: Path) -> None:
    """Force the file to disk, before a checkpoint, so that none outlives its log."""
    if path.exists():
        with open(path, "a") as file:
            os.fsync(file.fileno())


def read(path: Path) -> list[dict[str, Any]]:
    """Complete lines; a torn last line (a kill) is dropped."""
    if not path.exists():
        return []
    lines = []
    for text in path.read_text().splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines


def truncate(path: Path, stage: str, step: int) -> None:
    """Drop what a resumed stage will say again: its lines after `step`, and torn ones."""
    kept = [x for x in read(path) if x["stage"] != stage or x["step"] <= step]
    partial = path.with_name(path.name + ".partial")
    partial.write_text("".join(json.dumps(x, allow_nan=False) + "\n" for x in kept))
    sync(partial)
    os.replace(partial, path)


def digest(path: Path) -> str:
    """SHA-256 over canonical lines without clock fields."""
    text = "\n".join(json.dumps(_timeless(x), sort_keys=True) for x in read(path))
    return hashlib.sha256(text.encode()).hexdigest()


def values(metrics: dict[str, Mean]) -> dict[str, Any]:
    """Host numbers of a chunk's metrics: one of `[]`, a list of lanes `[N]`, None where nothing was seen."""
    return {name: _number(mean) for name, mean in sorted(metrics.items())}


def _number(mean: Mean) -> Any:
    total, count = np.asarray(mean.total, np.float64), np.asarray(mean.count, np.float64)
    if total.ndim == 0:
        return float(total / count) if count else None
    return [_number(Mean(t, c)) for t, c in zip(total, np.broadcast_to(count, total.shape), strict=True)]


def is_clock(name: str) -> bool:
    """Whether a field depends on the clock."""
    return "seconds" in name or "per_second" in name or name == "mfu"


def _timeless(line: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in line.items() if not is_clock(k)}
