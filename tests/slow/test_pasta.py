"""The PASTA study and the populations as a user runs them, at their smoke presets."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def run(name, out, *flags):
    command = [sys.executable, "-m", "experiments", "run", name, "--preset", "smoke"]
    command += ["--out", str(out), *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return json.loads((out / "summary.json").read_text())


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    out = tmp_path_factory.mktemp("pasta") / "run"
    return out, run("pasta", out, "--reward.offline", "td3_bc", "iql", "--reward.online")


def test_every_arm_has_a_score_on_every_domain(study):
    _, summary = study
    arms = {"zero-shot", "scratch", "scratch, longer", "full", "last layer", "probe", "lora", "ia3"}
    assert set(summary["arms"]) == arms | {"M-GPT", "saboteur", "renamed", "mlp"}
    assert summary["tasks"] == ["Pendulum-v1", "inverted_pendulum-partial"]
    for by_task in summary["scores"].values():
        assert all(len(scores) == 2 for scores in by_task.values())


def test_claims_of_every_family_are_judged(study):
    _, summary = study
    ids = {c["id"] for c in summary["claims"]}
    assert {"A1a", "A1b", "A2", "A3", "A4", "A8", "A9", "A10", "A11 td3_bc", "A11 online"} <= ids


def test_changed_conditions_are_tested(study):
    out, _ = study
    done = json.loads((out / "stages/evaluate/Pendulum-v1/done.json").read_text())
    tests = done["summary"]["returns"]["full"]
    assert list(tests) == ["nominal", "sensor 0 mean", "sensor 0 mask", "sensor 0 drop"]
    assert len({tuple(v) for v in tests.values()}) > 1, "a failing sensor changes what is done"


def test_the_page_shows_the_data_and_the_budgets(study):
    out, _ = study
    page = (out / "report.html").read_text()
    assert "Returns of the data: Pendulum-v1" in page
    assert "trained below the head" in page


def test_a_second_run_is_the_same_run(study, tmp_path):
    _, first = study
    again = run("pasta", tmp_path / "again", "--reward.offline", "td3_bc", "iql", "--reward.online")
    assert again["state_sha256"] == first["state_sha256"]
    assert again["metrics_sha256"] == first["metrics_sha256"]


@pytest.mark.parametrize("objective", ["bert", "mtm", "smart", "maskdp", "spr"])
def test_every_objective_runs_through_the_study(objective, tmp_path):
    summary = run(
        "pasta",
        tmp_path / "run",
        "--models.0.objective",
        objective,
        "--adapt.arms",
        "scratch",
        "full",
        "lora",
        "ia3",
    )
    assert {"scratch", "full", "lora", "ia3"} == set(summary["arms"])


def test_a_domain_is_held_out(tmp_path):
    summary = run(
        "pasta",
        tmp_path / "run",
        "--models.1.held-out",
        "Pendulum-v1",
        "--models.1.name",
        "without Pendulum-v1",
        "--adapt.arms",
        "scratch",
        "without Pendulum-v1",
    )
    done = tmp_path / "run/stages/evaluate"
    returns = json.loads((done / "Pendulum-v1/done.json").read_text())["summary"]["returns"]
    assert "without Pendulum-v1" in returns
    returns = json.loads((done / "inverted_pendulum-partial/done.json").read_text())["summary"]["returns"]
    assert "without Pendulum-v1" not in returns
    assert set(summary["arms"]) == {"zero-shot", "scratch"}, "the table has arms of all domains"


def test_populations_learn_freeze_and_load_again(tmp_path):
    from jaxagent.study import frozen

    out = tmp_path / "run"
    summary = run("populations", out)
    assert set(summary["arms"]) == {"first", "last"}
    place = out / "stages/freeze/Pendulum-v1"
    population = frozen.load("classic/Pendulum-v1", place)
    assert population.returns.shape == (2, 2)
