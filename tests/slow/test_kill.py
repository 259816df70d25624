"""SIGKILL at random moments of a whole run: the final state and metrics are bitwise the same."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KILLS = 10


def environment(cache: Path) -> dict[str, str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("XLA", "JAX"))}
    return env | {"JAX_COMPILATION_CACHE_DIR": str(cache)}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "experiments", *arguments]


def hashes(run: Path) -> tuple[str, str, dict]:
    summary = json.loads((run / "summary.json").read_text())
    return summary["state_sha256"], summary["metrics_sha256"], summary["scores"]


@pytest.mark.slow
def test_kill_9_at_random_moments_changes_nothing(tmp_path):
    env = environment(tmp_path / "cache")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    arguments = {"cwd": ROOT, "env": env, "stdout": subprocess.DEVNULL}
    start = command("run", "quickstart", "--preset", "smoke", "--out")
    subprocess.run([*start, str(whole)], check=True, **arguments)
    began = time.perf_counter()
    subprocess.run([*start, str(tmp_path / "warm")], check=True, **arguments)
    warm_seconds = time.perf_counter() - began
    assert hashes(tmp_path / "warm") == hashes(whole)

    moments = random.Random(0)
    kills, next_command = 0, [*start, str(killed)]
    for _ in range(100):
        process = subprocess.Popen(next_command, **arguments)
        # Long enough to pass the imports, short enough that ten kills fall inside one run.
        wait = 4.0 + moments.uniform(0.0, 2.5 * warm_seconds / KILLS)
        try:
            assert process.wait(timeout=wait) == 0
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
        if (killed / "manifest.json").exists():
            next_command = command("resume", str(killed))
    else:
        subprocess.run(command("resume", str(killed)), check=True, **arguments)
    assert kills >= KILLS
    assert hashes(killed) == hashes(whole)
