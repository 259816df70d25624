"""What fits of presets reach on this machine: env steps/s, tokens/s, share of the peak; JSON lines.

    python -m benchmarks.throughput                 # fits of gpu presets
    python -m benchmarks.throughput --only ppo      # pretraining | ppo
    python -m benchmarks.throughput --quick         # the same fits of the smoke presets, on any machine
    python -m benchmarks.throughput --out FILE      # also append the lines to FILE

The program is the study's own: chunks of its loop, of at most 20 updates, with all lanes, shapes and
precision of the preset, on stand-ins for what earlier stages leave. `operations_per_second` are products
counted in the traced update (`jaxagent.train.flops`), forward, backward and acting; `share_of_peak` divides
them by a large product of the same type and precision that is measured in turn with the chunks. `mfu` is told
of fits that tell their operations by a formula (`nn.transformer.flops_per_token`). Medians of seven rounds;
the first chunk, most of which compiles, is apart.
"""

import argparse
import dataclasses
import importlib.util
import statistics
import time
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import jax

from benchmarks.calibrate import alternating
from benchmarks.rows import emit
from experiments.cli import rooms
from jaxagent.study.budget import OF_THE_PEAK
from jaxagent.study.study import Cost, Fit, Lanes, cost
from jaxagent.train import parallel
from jaxagent.train.peak import square_product

UPDATES = 20  # of a timed chunk at most, as those of some presets take ten seconds


class Cell(NamedTuple):
    """One fit of an experiment: the first of its preset's whose stage has a name like `stage`."""

    kind: str
    experiment: str
    preset: str
    stage: str
    dtype: Callable[[Any], str] = lambda config: "float32"  # of its products
    needs: str = ""  # a module that it cannot do without


CELLS = (
    Cell("pretraining", "quickstart", "gpu", "pretrain", lambda config: config.model.dtype),
    Cell("pretraining", "pasta", "gpu-hopper", "pretrain/C-GPT", lambda config: config.network.dtype, "brax"),
    Cell("ppo", "quickstart", "gpu", "agents/*"),
    Cell("ppo", "muzero", "gpu", "train/*/ppo"),
)


def fit_of(cell: Cell) -> tuple[Any, Fit]:
    """The preset's configuration, and the fit."""
    room = rooms.room(cell.experiment)
    config = rooms.preset(room, cell.preset)
    fits = [step for step in room.study(config).steps if isinstance(step, Fit)]
    return config, next(fit for fit in fits if fnmatchcase(fit.name, cell.stage))


def chunks_of(lanes: Lanes, updates: int) -> Callable[[], Any]:
    """A call that runs the next chunk of all lanes and returns its report; snapshots are not kept."""
    plain = dataclasses.replace(lanes, history=False)
    chunk = parallel.chunked(plain.lane_loop, updates, 1, lanes.data)
    state = jax.jit(plain.first)(*lanes.inputs())

    def run() -> Any:
        nonlocal state
        state, report = chunk(state, lanes.key)
        return report

    return run


def measured(cell: Cell, seconds: float) -> dict[str, Any]:
    """The row of a cell, of rounds of about so many seconds."""
    config, fit = fit_of(cell)
    with jax.default_matmul_precision(config.runtime.matmul_precision):
        lanes = fit.lanes(None)
        counted = cost(Fit(fit.name, lambda folder: lanes), with_memory=False)
        row = rates(lanes, counted, cell.dtype(config), seconds)
    return about(cell) | {"stage": fit.name, "precision": config.runtime.matmul_precision} | row


def about(cell: Cell) -> dict[str, str]:
    """What a row is of."""
    return {"row": "throughput", "kind": cell.kind, "experiment": cell.experiment, "preset": cell.preset}


def rates(lanes: Lanes, counted: Cost, dtype: str, seconds: float) -> dict[str, Any]:
    """What all lanes of a fit do in a second, beside products of a type."""
    updates, num_lanes = min(lanes.config.updates_per_chunk, UPDATES), len(jax.tree.leaves(lanes.inputs())[0])
    product, product_operations = square_product(dtype)
    began, run = time.perf_counter(), chunks_of(lanes, updates)
    jax.block_until_ready(run())
    first = time.perf_counter() - began
    times = alternating({"chunk": run, "product": product}, seconds)
    chunk = statistics.median(times["chunk"])
    operations = counted.flops * updates / lanes.config.num_updates
    units = {unit: count * updates * num_lanes for unit, count in lanes.units.items()}
    pairs = list(zip(times["chunk"], times["product"], strict=True))

    def share(done: float) -> float:
        return statistics.median(done * b / (a * product_operations) for a, b in pairs)

    return {
        "lanes": num_lanes,
        "parameters": counted.parameters,
        "updates_of_a_chunk": updates,
        **{f"{unit}_per_second": count / chunk for unit, count in units.items()},
        "operations_per_second": operations / chunk,
        "peak_per_second": product_operations / statistics.median(times["product"]),
        "dtype": dtype,
        "share_of_peak": share(operations),
        **({"mfu": share(units[OF_THE_PEAK])} if OF_THE_PEAK in units else {}),
        "chunk_seconds": chunk,
        "first_chunk_seconds": first,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smoke presets, short rounds")
    parser.add_argument("--only", choices=sorted({cell.kind for cell in CELLS}))
    parser.add_argument("--out", type=Path, help="also append the rows to this file")
    given = parser.parse_args()
    for cell in CELLS:
        if given.only not in (None, cell.kind):
            continue
        if cell.needs and importlib.util.find_spec(cell.needs) is None:
            emit(about(cell) | {"not_run": f"needs {cell.needs}, which is not installed"}, given.out)
        else:
            small = cell._replace(preset="smoke")
            emit(measured(small, 0.02) if given.quick else measured(cell, 0.5), given.out)


if __name__ == "__main__":
    main()
