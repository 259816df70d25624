"""Ablations: a grid of configurations of one experiment, run one after another, as one table.

An experiment offers a grid as `ablations(config) -> {name: config}` in its configuration module, and
names the arm that cells are judged by, `ABLATED`. Every cell is a run of its own in `OUT/cells`, so a
stopped grid goes on where it stopped, inside a cell too. All cells share one compilation cache.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from envs.common.names import check_name
from experiments.cli import grids, session
from experiments.cli.grids import BASELINE, folder_of
from experiments.cli.rooms import Room
from jaxagent import folders
from jaxagent.config import differences
from jaxagent.evaluate import statistics
from jaxagent.files import write_json
from jaxagent.folders import Locked, NotOurs
from jaxagent.report.html import write_report
from jaxagent.study.study import costs
from jaxagent.study.verdicts import judged, table
from jaxagent.train import manifest
from jaxagent.train.peak import matmul_rate


def dry_run(room: Room, config: Any, cells: Mapping[str, Any]) -> int:
    """Print what each cell changes of the baseline, and its operations and least time, without running."""
    rate, total, base = matmul_rate(), 0.0, cells.get(BASELINE, config)
    for number, (name, cell) in enumerate(cells.items(), start=1):
        flops = sum(row.flops for row in costs(room.study(cell), with_memory=False))
        total += flops / rate
        changes = differences(config if name == BASELINE else base, cell).items()
        told = "; ".join(f"{path} {_short(old)} -> {_short(new)}" for path, (old, new) in changes)
        cost = f"{flops / 1e9:.1f} GFLOP, {flops / rate:.0f} s"
        print(f"[{number}/{len(cells)}] {name}: {cost}; {told or 'changes nothing'}", flush=True)
    print(f"at least {total:.0f} s in all; environments, what is no product, and compiling come on top")
    return 0


def _short(value: Any, length: int = 40) -> str:
    text = json.dumps(value)
    return text if len(text) <= length else text[: length - 3] + "..."


class CellFailed(RuntimeError):
    """A cell ended with this exit code, its argument, and has said why."""


def run(
    room: Room,
    preset: str,
    config: Any,
    grid: Mapping[str, Any],
    wanted: Mapping[str, Any],
    out: Path,
    command: str,
    *,
    replace: bool = False,
    arm: str | None = None,
) -> int:
    """Run the wanted cells of a grid that are not finished, then write the table of all that are.

    The grid's folder is held all the time, and that of a cell while it runs. What a grid replaces
    is deleted when its last cell is finished. Returns the exit code.
    """
    about = manifest.describe(room.name, room.source, preset, config, command, kind="grid")
    try:
        with _held(out, about, grid, replace=replace):
            _run_cells(room, preset, wanted, out, command)
            finished = {c: x for c, x in grid.items() if (folder_of(out, c) / "summary.json").exists()}
            summary = summarise(out, finished, command, arm or getattr(room.config, "ABLATED", ""))
            write_json(out / "summary.json", summary)
            if len(finished) == len(grid):
                folders.finish(out)
            print(f"\n{table(summary)}\n\n{write_report(out)}")
    except CellFailed as error:
        return error.args[0]
    except (Locked, NotOurs) as error:
        return session.failed(error)
    return 0


@contextmanager
def _held(out: Path, about: Mapping[str, Any], cells: Mapping[str, Any], *, replace: bool) -> Iterator[None]:
    """Hold the grid: the one that `about` describes, begun before, or a new one."""
    goes_on = folders.kind_of(out) == "grid" and not replace
    with folders.hold(out, "grid") if goes_on else folders.begin(out, about, replace=replace):
        if goes_on:
            grids.check_same(out, about["fingerprint"], cells)
        yield


def _run_cells(room: Room, preset: str, cells: Mapping[str, Any], out: Path, command: str) -> None:
    for number, (cell, changed) in enumerate(cells.items(), start=1):
        place = folder_of(out, cell)
        if (place / "summary.json").exists():
            print(f"[{number}/{len(cells)}] {cell}: finished before")
            continue
        print(f"\n[{number}/{len(cells)}] {cell}")
        if folders.kind_of(place):
            code = session.resume(room, place, changed, within=out)
        else:
            code = session.start(room, preset, changed, place, f"{command} --only {cell!r}", within=out)
        if code:
            raise CellFailed(code)


def summarise(out: Path, cells: Mapping[str, Any], command: str, arm: str) -> dict[str, Any]:
    """Scores of an arm of all cells, by default the first, with what each gains on the baseline."""
    summaries = {c: json.loads((folder_of(out, c) / "summary.json").read_text()) for c in cells}
    known = next(iter(summaries.values()))["scores"]
    arm = check_name("arm", arm, known) if arm else next(iter(known))
    tasks = list(next(iter(summaries.values()))["tasks"])
    scores = {c: np.array([s["scores"][arm][t] for t in tasks]) for c, s in summaries.items()}
    about = {c: _about(c, scores, summaries[c], command) for c in cells}
    result = judged(
        claims=[], scores=scores, preconditions=[], preset="smoke", shown=scores, about=about, tasks=tasks
    )
    return result | {
        "score_title": f"The arm {arm!r} of every cell",
        "limits": ["Cells are compared on the same downstream seeds; no claim is made."],
        "cells": {c: {"wall_seconds": s["wall_seconds"]} for c, s in summaries.items()},
    }


def _about(cell: str, scores: Mapping[str, np.ndarray], summary: Mapping[str, Any], command: str) -> str:
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
