"""Everything that waits for an accelerator, most valuable first, in the minutes that there are.

    python -m benchmarks.accelerator --minutes 12 --out FOLDER    # again: goes on where it stopped
    python -m benchmarks.accelerator --rehearse --out FOLDER      # the same path on this CPU, tiny
    python -m benchmarks.accelerator --list                       # steps and their limits
    python -m benchmarks.accelerator --only kernels --out FOLDER  # a step, or all whose names begin so

Steps run one after another, each in a process of its own with a limit (`benchmarks.batch`): its share of the
time that is left, at least what it needs; one that needs more than is left is not begun. Rows are appended to
FOLDER/rows.jsonl as they are measured, with step, device and a digest of the source; FOLDER/summary.md is
written however it ends, and FOLDER/logs holds what the processes said. What is done of this source on this
kind of device is not done again. Rows of rehearsals are marked, and say nothing of speed.

This process starts no backend, so that each step has the whole device. Compiled programs are kept in
JAX_COMPILATION_CACHE_DIR, by default FOLDER/.cache; how much memory JAX takes at once is left as it is set.
"""

import argparse
import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from benchmarks import agenda, batch
from benchmarks.batch import Batch, Step
from jaxagent.train.manifest import ROOT, git

USAGE, FAILED, INTERRUPTED = 2, 1, 130
RESULTS = ROOT / "benchmarks" / "results"
SOURCES = ("jaxagent", "envs", "kernels", "experiments", "benchmarks", "tests/kernels")
SETTINGS = ("pyproject.toml", "tests/conftest.py")
MINUTES, REHEARSED_MINUTES = 12.0, 5.0
ASKED_WITHIN = 90.0  # seconds to import JAX and find the devices
# A rehearsal mostly compiles, and its numbers say nothing.
QUICKLY = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_backend_optimization_level=0"}


class Asked(NamedTuple):
    """What two processes said before the batch: the device, and the kernels that there are to measure."""

    platform: str  # as `kernels.dispatch.platform` has it
    device: str
    kernels: tuple[str, ...]  # first words of the names of their cells


# --- what a batch is ------------------------------------------------------------------------------


def ask(environment: Mapping[str, str]) -> Asked:
    """The device and the kernels, each from a process that ends before a step begins.

    Raises ValueError where the device is not told.
    """
    commands = {"device": agenda.module("device", "--ask"), "kernels": agenda.module("kernels", "--list")}
    asking = {
        name: subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=dict(environment) | ({"JAX_PLATFORMS": "cpu"} if name == "kernels" else {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name, command in commands.items()
    }
    try:
        lines = _said("kernels", asking["kernels"]).splitlines()
    except ValueError as error:  # the rest of the batch does not need to know
        print(f"error: {error}", file=sys.stderr)
        lines = [agenda.ALL]
    names = dict.fromkeys(line.split()[0] for line in lines)
    device = json.loads(_said("device", asking["device"]).splitlines()[-1])
    return Asked(**device, kernels=tuple(names))


def _said(name: str, process: subprocess.Popen) -> str:
    try:
        out, err = process.communicate(timeout=ASKED_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
        raise ValueError(
            f"benchmarks.{name}: no answer within {ASKED_WITHIN:.0f} s; call it alone."
        ) from None
    if process.returncode:
        raise ValueError(f"benchmarks.{name}: exit code {process.returncode}; it said:\n{err[-2000:]}")
    return out


def check(platform: str, folder: Path, is_rehearsal: bool) -> None:
    """Raise ValueError for a batch that would measure nothing, or a rehearsal among results."""
    if platform == "cpu" and not is_rehearsal:
        raise ValueError(
            "got a cpu, expected an accelerator, as everything here waits for one; call it on a machine with "
            "a GPU (pip install 'jaxagent[cuda]') or a TPU ('jaxagent[tpu]'), or rehearse it: --rehearse."
        )
    if is_rehearsal and folder.resolve().is_relative_to(RESULTS):
        raise ValueError(
            f"--out: got {folder}, expected one outside of {RESULTS}; a rehearsal measures nothing."
        )


def source(root: Path) -> str:
    """Digest of what decides rows: the Python files, wherever they come from, and the tests' settings."""
    digest = hashlib.sha256()
    files = [path for name in SOURCES for path in (root / name).rglob("*.py")]
    for path in sorted([*files, *(root / name for name in SETTINGS)]):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def setting() -> str:
    """What beside the source decides rows: versions, and what the environment says of kernels and of XLA."""
    versions = [f"{name} {metadata.version(name)}" for name in ("jax", "jaxlib")]
    said = [f"{name}={os.environ[name]}" for name in ("JAXAGENT_KERNELS", "XLA_FLAGS") if name in os.environ]
    return ", ".join([*versions, *said])


def commit(root: Path) -> str | None:
    """The commit, with + where files differ from it; None where git does not say."""
    with contextlib.suppress(OSError):
        return git(root, "rev-parse", "HEAD") + ("+" if git(root, "status", "--porcelain") else "")
    return None


def environment(folder: Path, is_rehearsal: bool) -> dict[str, str]:
    """What steps run under: compiled programs are kept between them."""
    kept = {
        "JAX_COMPILATION_CACHE_DIR": str(folder / ".cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        "PYTHONUNBUFFERED": "1",  # what a killed process has said is there
    }
    return kept | dict(os.environ) | (QUICKLY if is_rehearsal else {})


def planned(table: Sequence[Step], left: float) -> list[str]:
    """Lines of all steps with their limits, were each to take all of its own."""
    lines = [f"{'step':32s} {'least':>6s} {'share':>6s} {'limit':>6s}  command"]
    for place, step in enumerate(table):
        limit = batch.limit_of(step, table[place + 1 :], left)
        left -= limit
        shown = f"{limit:6.0f}" if limit else f"{'-':>6s}"
        lines.append(
            f"{step.name:32s} {step.least:6.0f} {step.share:6g} {shown}  python {' '.join(step.command)}"
        )
    return lines


def chosen(table: Sequence[Step], only: Sequence[str]) -> list[Step]:
    """Steps of these names, or of names that begin so; all where none is named. Raises ValueError."""
    for name in only:
        if not any(_is_of(step, name) for step in table):
            names = ", ".join(step.name for step in table)
            raise ValueError(f"--only: got {name!r}, expected one of {names}, or what stands before their /.")
    return [step for step in table if not only or any(_is_of(step, name) for name in only)]


def _is_of(step: Step, name: str) -> bool:
    return step.name == name or step.name.startswith(f"{name}/")


# --- the command ----------------------------------------------------------------------------------


def finished(made: Batch, table: Sequence[Step], title: str) -> int:
    """Write and print the summary; 0 where nothing failed and nothing is left, else 1."""
    text = f"# {title}\n\n{batch.summary(made, table)}"
    (made.folder / "summary.md").write_text(text)
    print(f"\n{text}\n{made.folder / batch.ROWS}")
    ends = [batch.endings(made.rows, step.name) for step in table]
    return 0 if all(ended and ended[-1]["status"] in ("done", "not run") for ended in ends) else FAILED


def conducted(made: Batch, table: Sequence[Step], title: str) -> int:
    """Carry a batch out; whatever ends it, its summary is written. Returns the exit code."""
    is_interrupted, code = False, FAILED
    try:
        batch.carry_out(made, table)
    except KeyboardInterrupt:
        is_interrupted = True
    finally:  # whatever ended it, such as a terminal that is gone
        code = finished(made, table, title)
    return INTERRUPTED if is_interrupted else code


def main() -> int:
    """Carry out or list; returns the exit code."""
    began = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    minutes = f"of all steps (default {MINUTES:g}; of a rehearsal {REHEARSED_MINUTES:g})"
    parser.add_argument("--minutes", type=float, help=minutes)
    parser.add_argument("--out", type=Path, help="folder (default runs/accelerator, or runs/rehearsal)")
    parser.add_argument("--rehearse", action="store_true", help="the same path on this CPU, tiny")
    parser.add_argument("--list", action="store_true", help="print steps and their limits, and stop")
    parser.add_argument("--only", action="append", default=[], help="a step, or the first word of some")
    given = parser.parse_args()
    minutes = (REHEARSED_MINUTES if given.rehearse else MINUTES) if given.minutes is None else given.minutes
    folder = (given.out or Path("runs", "rehearsal" if given.rehearse else "accelerator")).absolute()
    try:
        set_up = environment(folder, given.rehearse)
        asked = ask(set_up)
        about = {"source": source(ROOT), "device": asked.device, "rehearsal": given.rehearse}
        about["setting"] = setting()
        runs = folder / "runs" / about["source"]  # other code begins other runs
        table = agenda.steps(asked.kernels, agenda.accelerator_tests(ROOT), runs)
        table = chosen(agenda.rehearsed(table) if given.rehearse else table, given.only)
        if not given.list:
            check(asked.platform, folder, given.rehearse)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE
    if given.list:
        print("\n".join(planned(table, 60 * minutes)))
        return 0
    for number in (signal.SIGTERM, signal.SIGHUP):  # a lease or a connection that ends is an interrupt
        signal.signal(number, signal.default_int_handler)
    folder.mkdir(parents=True, exist_ok=True)
    made = Batch(folder, ROOT, about, {"commit": commit(ROOT)}, set_up, began + 60 * minutes)
    of = "Rehearsal: nothing here is a measurement" if given.rehearse else "Batch"
    return conducted(made, table, f"{of}; {asked.device}, {about['setting']}, source {about['source']}")


if __name__ == "__main__":
    raise SystemExit(main())
