"""The batch for borrowed accelerators, rehearsed on this CPU: every step, its rows, and resume."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import batch

ROOT = Path(__file__).parents[2]


def rehearse(folder):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("XLA", "JAX"))}
    command = [sys.executable, "-m", "benchmarks.accelerator", "--rehearse", "--minutes", "20"]
    return subprocess.run([*command, "--out", folder], cwd=ROOT, env=env, capture_output=True, text=True)


@pytest.mark.slow
def test_a_rehearsal_does_every_step_once(tmp_path):
    folder = tmp_path / "batch"
    told = rehearse(folder)
    assert told.returncode == 0, told.stdout[-4000:] + told.stderr[-2000:]
    rows = batch.read(folder / batch.ROWS)
    assert all(row["rehearsal"] is True and row["device"] == "cpu" for row in rows)
    ended = {row["step"]: row for row in rows if "status" in row}
    missing = {name for name, row in ended.items() if row["status"] == "not run"}
    assert {row["status"] for row in ended.values()} <= {"done", "not run"}
    silent = {name for name, row in ended.items() if not row.get("rows")} - missing
    assert {name.split("/")[0] for name in silent} == {"tests"}  # their last row counts them
    assert (folder / "summary.md").read_text().startswith("# Rehearsal: nothing here is a measurement")
    assert rehearse(folder).returncode == 0
    after = batch.read(folder / batch.ROWS)
    assert after[: len(rows)] == rows
    assert {row.get("status") for row in after[len(rows) :]} <= {"not run"}
