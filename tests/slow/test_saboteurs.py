"""Every saboteur breaks one thing and loses the effect: small runs on development seeds."""

import json

import numpy as np
import pytest
from test_games_and_models import call

# A preset made smaller, the arm that is whole, and what the saboteur loses at the least.
SMALL = {
    "example": (("--seeds.count", "3"), "ppo", "myopic", 0.2),
    "muzero": (
        ("--seeds.count", "3", "--models", "saboteur", "--simulations", "2", "--episodes", "4"),
        "muzero",
        "saboteur",
        0.1,
    ),
    "alphazero": (("--seeds.count", "2", "--evaluation.rating-games", "2"), "search", "saboteur", 0.05),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_a_saboteur_loses_the_effect(tmp_path, name):
    flags, arm, saboteur, least = SMALL[name]
    command = ("run", name, "--preset", "cpu", "--seeds.first", "1000", *flags)
    call(*command, "--out", str(tmp_path / "run"))
    scores = json.loads((tmp_path / "run" / "summary.json").read_text())["scores"]
    whole, broken = (np.mean([np.mean(row) for row in scores[a].values()]) for a in (arm, saboteur))
    assert whole - broken > least
