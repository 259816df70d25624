"""The in-context experiments as a user runs them: smoke presets, flags, reports, exact resume."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(folder, *arguments):
    command = [sys.executable, "-m", "experiments", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "summary.json").read_text()), done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("icl_bma", ()),
        ("icl_bma", ("--prompts.task", "fresh", "--prompts.prior", "zipf")),
        ("icl_bma", ("--prompts.task", "linear", "--model.attention", "linear")),
        ("icl_bma", ("--depths", "1", "2", "--model.positions", "learned")),
        ("icl_rational", ()),
        ("icl_rational", ("--prompts.task", "mdp", "--theory.complexity", "lzma")),
        ("icl_rational", ("--mlp-factors", "1", "2", "--fit.schedule", "inverse_sqrt")),
    ],
)
def test_smoke_presets_and_flags_run_to_a_report(tmp_path, name, flags):
    folder = tmp_path / "run"
    summary, said = run(folder, "run", name, "--preset", "smoke", "--out", str(folder), *flags)
    assert {c["verdict"] for c in summary["claims"]} <= {
        "VOID",
        "PASS",
        "FAIL",
        "DIRECTIONAL",
        "INCONCLUSIVE",
    }
    assert all(c["id"] in said for c in summary["claims"])
    page = (folder / "report.html").read_text()
    assert "Figures of the paper" in page
    assert "could not be drawn" not in page
    assert "normalised score" not in page.lower()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["icl_bma", "icl_rational"])
def test_a_repeated_run_is_the_same_run(tmp_path, name):
    hashes = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        summary, _ = run(folder, "run", name, "--preset", "smoke", "--out", str(folder))
        hashes.append((summary["state_sha256"], summary["metrics_sha256"]))
    assert hashes[0] == hashes[1]
