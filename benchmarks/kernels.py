"""Kernels against their XLA references and other libraries, by shape: JSON lines.

    python -m benchmarks.kernels                 # all shapes, medians of 7 alternating rounds
    python -m benchmarks.kernels --quick         # small shapes
    python -m benchmarks.kernels --only scan --out FILE
    python -m benchmarks.kernels --list          # names of kernels

A row has microseconds of the reference, of the kernel where this machine has one ("not run" elsewhere: a
kernel in the interpreter says nothing of its speed), of the kernel's other implementations and of peers
that run here, and how often as fast as the reference each is. A round is `CALLS` calls that wait for each
other on the device alone, so that on an accelerator short kernels are not measured by what launching costs.
`roofline` is the share that the faster of reference and kernel reaches of what the kernel's `cost` allows,
by the bandwidth and the bfloat16 products that are measured here (above 1 where arrays stay in a cache).
`furthest` is how far the kernel's numbers are from the reference's: on a CPU in the interpreter, at a small
size. Compile seconds are apart. Rows of accelerators decide where "auto" takes a kernel (`Kernel.wins_on`).
"""

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.device import bandwidth, product_rate
from benchmarks.kernel_cells import CELLS, Cell
from benchmarks.memory import seconds
from benchmarks.rows import emit
from kernels import dispatch

ROUNDS, CALLS = 7, 8
Ceilings = tuple[float, float]  # operations and bytes a second


def furthest(cell: Cell, how: str) -> float:
    """The largest difference of a number from the reference's."""
    pairs = [jax.tree.leaves(cell.run(*cell.args, implementation=one)) for one in (how, "xla")]
    return max(
        float(jnp.max(jnp.abs(x.astype(jnp.float32) - y.astype(jnp.float32))))
        for x, y in zip(*pairs, strict=True)
    )


def ways(cell: Cell) -> dict[str, Callable]:
    """All that may be timed, by name, jitted."""
    has_kernel = dispatch.platform() in ("cuda", "tpu")
    own = ("xla", "pallas", *cell.also) if has_kernel else ("xla", *cell.also)
    runs = {how: partial(cell.run, implementation=how) for how in own}
    return {name: jax.jit(run) for name, run in (runs | dict(cell.peers)).items()}


def called(run: Callable, args: tuple[Any, ...], num_calls: int) -> None:
    """Call so often, and wait for all."""
    made = None
    for _ in range(num_calls):
        made = run(*args)
    jax.block_until_ready(made)


def timed(cell: Cell) -> tuple[dict[str, float], dict[str, list[float]], dict[str, str]]:
    """Seconds of the first call, of rounds by way, and why what does not run here does not."""
    runs, first, refused = ways(cell), {}, {}
    for name, run in runs.items():
        try:
            first[name] = seconds(partial(called, run, cell.args, 1))
        except Exception as error:  # a peer asks for a device, a library or a shape of its own
            if name in ("xla", "pallas", *cell.also):
                raise
            refused[name] = (str(error).splitlines() or [type(error).__name__])[0][:120]
    num_calls = 1 if dispatch.platform() == "cpu" else CALLS
    rounds: dict[str, list[float]] = {name: [] for name in first}
    for _ in range(ROUNDS):
        for name in first:
            rounds[name].append(seconds(partial(called, runs[name], cell.args, num_calls)) / num_calls)
    return first, rounds, refused


def measured(name: str, cell: Cell, small: Cell, ceilings: Ceilings) -> dict[str, Any]:
    """The row of a cell; `small` is compared where there is no accelerator."""
    first, rounds, refused = timed(cell)
    median = {way: statistics.median(of) for way, of in rounds.items()}
    row: dict[str, Any] = {"kernel": name, **cell.shape}
    row |= {f"{way}_us": round(1e6 * value, 1) for way, value in median.items()}
    row |= {f"{way}_us": f"not run: {why}" for way, why in refused.items()}
    row |= {f"{way}_first_s": round(value, 2) for way, value in first.items()}
    row["ratios"] = {
        way: round(statistics.median(a / b for a, b in zip(rounds["xla"], of, strict=True)), 2)
        for way, of in rounds.items()
        if way != "xla"
    }
    row.setdefault("pallas_us", "not run")
    least = max(cell.num_flops / ceilings[0], cell.num_bytes / ceilings[1])
    row["roofline"] = round(least / min(median[way] for way in ("xla", "pallas") if way in median), 4)
    row["furthest"] = furthest(cell, "pallas") if "pallas" in median else furthest(small, "interpret")
    return row


def main() -> None:
    """Print the rows, and append them to a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small shapes")
    parser.add_argument("--only", default="", help="kernels whose name begins so")
    parser.add_argument("--list", action="store_true", help="print names of kernels")
    parser.add_argument("--out", type=Path, help="also append the rows to this file")
    args = parser.parse_args()
    if args.list:
        print("\n".join(CELLS))
        return
    ceilings = product_rate("bfloat16", "default"), bandwidth()["bytes_per_second"]
    about = {"flops_per_s": round(ceilings[0]), "bytes_per_s": round(ceilings[1])}
    for name, sizes in CELLS.items():
        if name.startswith(args.only):
            cell, small = sizes.make(*(sizes.quick if args.quick else sizes.full)), sizes.make(*sizes.checked)
            emit(measured(name, cell, small, ceilings) | about, args.out)


if __name__ == "__main__":
    main()
