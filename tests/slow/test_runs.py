"""Runs of experiments are opened again: every arm of every task plays in the world it was scored in."""

import jax
import numpy as np
import pytest
from test_games_and_models import call

import experiments

ROOMS = ("memory", "quickstart", "muzero", "reinforce", "whole")


@pytest.mark.slow
@pytest.mark.parametrize("name", ROOMS)
def test_every_arm_plays_again(tmp_path, name):
    out = tmp_path / "run"
    call("run", name, "--preset", "smoke", "--out", str(out))
    run = experiments.load(out)
    assert {arm for arm, _ in run.players} == {*run.study.arms}
    for arm, task in run.players:
        player = run.player(arm, task)
        assert {len(leaf) for leaf in jax.tree.leaves(player.params)} == {len(player.seeds)}
        assert np.isfinite(run.evaluate(arm, task, episodes=2)).all()
