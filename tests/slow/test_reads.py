"""No field of an experiment is inert: its smoke run reads every one, or a reason stands here."""

import subprocess
import sys
from pathlib import Path

import pytest

from experiments.cli import rooms

# What smoke presets turn off, so that it is not read there; by the end of its path.
OFF: dict[str, tuple[str, ...]] = {}
WITHOUT = {"atari100k", "populations"}  # extras: emulators, and robots


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*rooms.names()} - WITHOUT))
def test_every_field_of_an_experiment_is_read(name, tmp_path):
    script = Path(__file__).with_name("reads.py")
    run = subprocess.run(
        [sys.executable, str(script), name, str(tmp_path / "run")], capture_output=True, text=True
    )
    told = run.stdout.splitlines()
    first = next((i for i, line in enumerate(told) if line.startswith("exit ")), None)
    assert first is not None, run.stderr
    assert told[first].startswith("exit 0, ")
    unread = [line.removeprefix("unread ") for line in told[first + 1 :]]
    assert [path for path in unread if not path.endswith(OFF.get(name, ("\0",)))] == []
