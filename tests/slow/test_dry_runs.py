"""Every experiment tells what it costs before it runs."""

import pytest

from experiments import cli
from experiments.cli import rooms


@pytest.mark.slow
@pytest.mark.parametrize("name", rooms.names())
def test_a_dry_run_counts_every_fit(name, capsys):
    assert cli.main(["run", name, "--preset", "smoke", "--dry-run"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert len(told) > 2
    assert told[-1].startswith("at least ")
