"""Experiments with models and search as a user runs them: smoke presets, reports, exact resume."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from extras import need

from experiments import results

ROOT = Path(__file__).parents[2]
VERDICTS = {"VOID", "PASS", "FAIL", "DIRECTIONAL", "INCONCLUSIVE"}


def call(*arguments):
    """Under a user's flags, not those of the tests: `smoke.json` was noted so, and a percent is a change."""
    command, env = [sys.executable, "-m", "experiments", *arguments], {**os.environ, "XLA_FLAGS": ""}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("alphazero", ()),
        ("alphazero", ("--games.1.trunk.channels", "8")),
        ("muzero", ()),
        ("muzero", ("--tasks.0.env", "minatar/Breakout", "--tasks.0.muzero.model.trunk.channels", "4")),
        ("plan", ()),
        ("spr", ()),
        ("atari100k", ()),
        ("memory", ()),
        ("reinforce", ()),
        ("pasta", ()),
        ("icl_bma", ()),
        ("icl_rational", ()),
    ],
)
def test_smoke_presets_run_to_a_report(tmp_path, name, flags):
    if name == "atari100k":
        need("ale")
    said = call("run", name, "--preset", "smoke", "--out", str(tmp_path / "run"), *flags)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert {c["verdict"] for c in summary["claims"]} <= VERDICTS
    assert all(c["id"] in said for c in summary["claims"])
    noted = results.smoke_numbers().get(name)
    if noted is not None and not flags:
        assert results.are_alike(results.numbers_of(tmp_path / "run"), noted), results.SMOKE
    page = (tmp_path / "run" / "report.html").read_text()
    assert ("Figures of the paper" in page) == (name not in ("atari100k", "memory"))
    assert "could not be drawn" not in page


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arm"), [("spr", "rainbow + spr"), ("atari100k", "spr"), ("memory", "gated")]
)
def test_what_was_learned_plays_again(tmp_path, name, arm):
    """From the run folder alone, in a pure environment and in an emulator."""
    flags = ("--no-has-probe",) if name == "spr" else ()
    if name == "atari100k":
        need("ale")
    call("run", name, "--preset", "smoke", "--out", str(tmp_path / "run"), *flags)
    said = call("eval", str(tmp_path / "run"), "--episodes", "2")
    assert f"{arm}--" in said
    assert said == call("eval", str(tmp_path / "run"), "--episodes", "2")


@pytest.mark.slow
def test_a_deleted_stage_is_redone_to_the_same_numbers(tmp_path):
    """Search, replay and reanalysis draw from (seed, purpose, step) alone."""
    folder = tmp_path / "run"
    call("run", "muzero", "--preset", "smoke", "--out", str(folder))
    before = json.loads((folder / "summary.json").read_text())
    for stage in ("train/CartPole-v1/muzero", "evaluate/CartPole-v1"):
        (folder / "stages" / stage / "done.json").unlink()
    for path in sorted((folder / "stages/train/CartPole-v1/muzero/checkpoints").rglob("*"))[::-1]:
        path.unlink() if path.is_file() else path.rmdir()
    call("resume", str(folder))
    after = json.loads((folder / "summary.json").read_text())
    assert after["scores"] == before["scores"]
    assert after["state_sha256"] == before["state_sha256"]


@pytest.mark.slow
def test_an_interrupted_emulator_goes_on_to_the_same_end(tmp_path):
    """Frames and games come back from seeds and actions; weights of the replay are saved."""
    need("ale")
    folder = tmp_path / "run"
    call("run", "atari100k", "--preset", "smoke", "--out", str(folder))
    before = json.loads((folder / "summary.json").read_text())
    place = folder / "stages" / "train" / "pong" / "spr"
    for stage in (place, folder / "stages" / "evaluate" / "pong"):
        (stage / "done.json").unlink()
    last = max(place.glob("checkpoints/step_*.json"))  # of the end; the one before stays
    last.unlink()
    call("resume", str(folder))
    after = json.loads((folder / "summary.json").read_text())
    for part in ("state_sha256", "metrics_sha256", "scores"):
        assert after[part] == before[part], part
