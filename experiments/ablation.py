"""Ablations: a grid of configurations of one experiment, run one after another, as one table.

An experiment offers a grid as `ablations(config) -> {name: config}` in its configuration module;
every cell is a run of its own in `OUT/cells`, so a stopped grid goes on where it stopped, inside a
cell too. All cells share one compilation cache.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments import session
from experiments.parts.comparison import judged, table
from jaxagent.config import fingerprint
from jaxagent.evaluate import statistics
from jaxagent.files import write_json
from jaxagent.report.html import write_report
from jaxagent.train import manifest

ARM, BASELINE = "full", "baseline"  # what a cell is judged by, and compared with


def run(
    name: str, preset: str, config: Any, cells: Mapping[str, Any], out: Path, command: str
) -> int:
    """Run every cell that is not finished, then write the table; returns the exit code."""
    out.mkdir(parents=True, exist_ok=True)
    manifest.write(out, manifest.describe(name, preset, config, command))
    for number, (cell, changed) in enumerate(cells.items(), start=1):
        place = folder_of(out, cell)
        if is_finished(place, changed):
            print(f"[{number}/{len(cells)}] {cell}: finished before")
            continue
        print(f"\n[{number}/{len(cells)}] {cell}")
        code = _go(name, preset, changed, place, f"{command} --only {cell!r}")
        if code:
            return code
    summary = summarise(out, cells, command)
    write_json(out / "summary.json", summary)
    print(f"\n{table(summary)}\n\n{write_report(out)}")
    return 0


def folder_of(out: Path, cell: str) -> Path:
    """The run folder of a cell."""
    return out / "cells" / re.sub(r"[^A-Za-z0-9.-]+", "-", cell)


def is_finished(place: Path, config: Any) -> bool:
    """Whether a cell was run to its end with this very configuration."""
    if not (place / "summary.json").exists():
        return False
    return manifest.read(place)["fingerprint"] == fingerprint(config)


def _go(name: str, preset: str, config: Any, place: Path, command: str) -> int:
    """Continue a cell that was begun with this configuration, else begin it."""
    if (place / "manifest.json").exists():
        if manifest.read(place)["fingerprint"] == fingerprint(config):
            return session.resume(place, config)
        print("its configuration changed: it starts anew")
    return session.start(name, preset, config, place, command, tensorboard=False)


def summarise(out: Path, cells: Mapping[str, Any], command: str) -> dict[str, Any]:
    """Scores of the judged arm of all cells, with what each gains on the baseline."""
    summaries = {c: json.loads((folder_of(out, c) / "summary.json").read_text()) for c in cells}
    tasks = list(next(iter(summaries.values()))["tasks"])
    scores = {c: np.array([s["scores"][ARM][t] for t in tasks]) for c, s in summaries.items()}
    about = {c: _about(c, scores, summaries[c], command) for c in cells}
    result = judged(
        claims=[], scores=scores, preconditions=[], preset="smoke", shown=scores, about=about,
        tasks=tasks,
    )  # fmt: skip
    return result | {
        "score_title": f"The arm {ARM!r} of every cell",
        "limits": ["Cells are compared on the same downstream seeds; no claim is made."],
        "cells": {c: {"wall_seconds": s["wall_seconds"]} for c, s in summaries.items()},
    }


def _about(
    cell: str, scores: Mapping[str, np.ndarray], summary: Mapping[str, Any], command: str
) -> str:
    """The gain on the baseline with its interval, and the command of the cell."""
    redo = f"{command} --only {cell!r}"
    if cell == BASELINE or BASELINE not in scores:
        return redo
    pair = scores[cell], scores[BASELINE]
    gain = float(statistics.difference_of_iqm(*pair))
    interval = statistics.percentile_interval(statistics.paired_bootstrap(*pair))
    return (
        f"{gain:+.2f} [{interval.lower:+.2f}, {interval.upper:+.2f}] on the {BASELINE}, "
        f"{summary['wall_seconds']:.0f} s; {redo}"
    )
