"""The smoke preset as a user runs it: files, resume refusals, eval, library, devices."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from jaxagent import library

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def call(*arguments: str, **extra: str):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("XLA", "JAX"))}
    env["JAX_COMPILATION_CACHE_DIR"] = os.environ["JAX_COMPILATION_CACHE_DIR"]
    return subprocess.run(
        [sys.executable, "-m", "experiments", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=env | extra,
        check=False,
        timeout=900,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "smoke"
    done = call("run", "quickstart", "--preset", "smoke", "--out", str(folder))
    assert done.returncode == 0, done.stderr
    return folder


def test_the_summary_is_complete(run):
    summary = json.loads((run / "summary.json").read_text())
    for field in (
        "arms",
        "scores",
        "claims",
        "budgets",
        "wall_seconds",
        "compile_seconds",
        "versions",
        "command",
    ):
        assert summary[field], field
    arms = {"zero-shot", "scratch", "finetune", "lora", "saboteur", "renamed", "mlp"}
    assert set(summary["scores"]) == arms
    assert all(np.isfinite(v).all() for arm in summary["scores"].values() for v in arm.values())
    for claim in summary["claims"]:
        assert {"id", "statement", "verdict", "difference", "interval", "margin", "seeds"} <= set(claim)
    assert summary["budgets"]["clone/CartPole-v1/lora"]["parameters"] < 10_000
    assert (run / "report.html").read_text().startswith("<!")
    assert len(list((run / "pictures").glob("*.gif"))) == 21


def test_a_second_start_is_refused_and_a_changed_machine_too(run):
    again = call("run", "quickstart", "--preset", "smoke", "--out", str(run))
    assert again.returncode == 2
    assert "resume" in again.stderr
    elsewhere = call("resume", str(run), XLA_FLAGS="--xla_force_host_platform_device_count=2")
    assert elsewhere.returncode == 1
    assert "xla_flags" in elsewhere.stderr


def test_resume_of_a_finished_run_changes_nothing(run):
    before = json.loads((run / "summary.json").read_text())
    assert call("resume", str(run)).returncode == 0
    after = json.loads((run / "summary.json").read_text())
    assert before == after


def test_eval_and_report(run):
    played = call("eval", str(run), "--episodes", "4")
    assert played.returncode == 0, played.stderr
    assert "finetune, CartPole-v1" in played.stdout
    assert call("report", str(run), "--logger", "tensorboard").returncode == 0
    assert list((run / "tensorboard").glob("events.*"))


def test_a_corrupt_shard_is_named(run, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    shard = copy / "stages/collect/store/shard_0000.npz"
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    resumed = call("resume", str(copy))
    assert resumed.returncode == 1
    assert "shard_0000.npz" in resumed.stderr


@pytest.mark.parametrize("arm", ["finetune", "lora", "mlp"])
@pytest.mark.parametrize("task", ["CartPole-v1", "Pendulum-v1"])
def test_a_policy_loads_and_acts(run, arm, task):
    policy = library.load(run, task, arm)
    env, params = envs.make(policy.description.env, **policy.description.overrides)
    obs, _ = env.reset(jax.random.key(0), params)
    carry = policy.init(2)
    is_first = jnp.ones((2,), bool)
    for step in range(3):
        act = jax.jit(policy.act)  # as the README promises
        action, carry = act(carry, jnp.stack([obs, obs]), is_first, jax.random.key(step))
        assert np.isfinite(np.asarray(action)).all()
        assert action.shape[0] == 2
        is_first = jnp.zeros((2,), bool)


def test_an_unknown_policy_names_the_nearest(run):
    with pytest.raises(ValueError, match="finetune--CartPole-v1"):
        library.load(run, "CartPole-v1", "finetuned")


def test_four_fake_devices_give_the_same_scores(run, tmp_path):
    folder = tmp_path / "four"
    done = call("run", "quickstart", "--preset", "smoke", "--devices", "4", "--out", str(folder))
    assert done.returncode == 0, done.stderr
    one, four = (json.loads((f / "summary.json").read_text()) for f in (run, folder))
    assert one["tasks"] == four["tasks"]
    lines = [[json.loads(x) for x in (f / "metrics.jsonl").read_text().splitlines()] for f in (run, folder)]
    for a, b in zip(*lines, strict=True):
        if a["stage"] == "agents/CartPole-v1":
            np.testing.assert_allclose(a["train/loss"], b["train/loss"], rtol=1e-3)


def test_dry_run_prints_costs_and_writes_nothing(tmp_path):
    folder = tmp_path / "dry"
    done = call("run", "quickstart", "--preset", "cpu", "--dry-run", "--out", str(folder))
    assert done.returncode == 0, done.stderr
    assert "pretrain" in done.stdout
    assert "at least" in done.stdout
    assert not folder.exists()
