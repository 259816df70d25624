"""Runs of experiments are opened again: every arm of every task plays as it was scored."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_games_and_models import call

import experiments
from experiments.pasta.study import SINGLE
from jaxagent import keys
from jaxagent.study import agents
from jaxagent.study.study import Player
from jaxagent.train.run import stage_folder

ROOMS = ("alphazero", "memory", "muzero", "pasta", "quickstart", "reinforce", "spr", "whole")
OPTIONS = {"spr": ["--no-has-probe"]}  # its agents, in place of the probe
OTHERWISE = {("muzero", "ppo"), ("muzero", "untrained")}  # scores of several snapshots, of the first


def told(folder, name):
    return json.loads((stage_folder(folder, name) / "done.json").read_text())["summary"]


def scored(name, run, arm, task):
    """Returns of the seeds, as the run's evaluation has them of the last snapshot."""
    folder = run.folder
    if name == "quickstart":
        return told(folder, "evaluate")["returns"][arm][task]
    if name == "alphazero":
        return run.scores[arm][task]
    found = told(folder, f"evaluate/{task}")
    if name == "spr":
        return found["returns"][arm][-1]
    if name == "pasta":  # by pretraining
        returns = found["returns"][arm]["nominal"]
        return [returns[seed - run.config.adapt.seeds.first] for seed in run.player(arm, task).seeds]
    return found["curves"][arm]["returns"][-1] if "curves" in found else found["returns"][arm]


def arena(name, config, player: Player, task):
    """Where it was scored: the same episodes."""
    if name == "quickstart":
        env = next(t.env for t in config.tasks if t.name == task)
        lane_keys = jnp.stack([keys.derive(seed, f"evaluate/{env}") for seed in player.seeds])
        return agents.Arena(player.env, player.task, lane_keys, config.adapt.episodes)
    if name == "pasta":
        lane_keys = jnp.stack([keys.derive(seed, f"evaluate/{task}") for seed in player.seeds])
        return agents.Arena(player.env, player.task, lane_keys, config.adapt.episodes)
    if name == "alphazero":
        game = task.split(", ")[0]
        return player.arena(player.seeds, config.evaluation.games, keys.derive(0, f"games/{game}/match"))
    key = keys.derive(0, f"rainbow/{task}/evaluate" if name == "spr" else f"{name}/{task}/evaluate")
    return agents.arena(player.env, player.task, player.seeds, config.episodes, key)


@pytest.mark.slow
@pytest.mark.parametrize("name", ROOMS)
def test_every_arm_plays_again_as_it_was_scored(tmp_path, name):
    out = tmp_path / "run"
    call("run", name, "--preset", "smoke", *OPTIONS.get(name, []), "--out", str(out))
    run = experiments.load(out)
    missing = {*run.study.arms} - {arm for arm, _ in run.players}
    assert missing == ({*SINGLE} if name == "pasta" else set())  # its smoke preset lacks their models
    for arm, task in run.players:
        player = run.player(arm, task)
        assert {len(leaf) for leaf in jax.tree.leaves(player.params)} == {len(player.seeds)}
        if (name, arm) not in OTHERWISE and arm in told_arms(name, out, task):
            with jax.default_matmul_precision(run.precision):
                returns = arena(name, run.config, player, task).returns(player.policy, player.params)
            np.testing.assert_allclose(
                returns, scored(name, run, arm, task), rtol=1e-3, err_msg=f"{arm}, {task}"
            )


def told_arms(name, folder, task):
    """Arms that have a curve of their own."""
    if name == "quickstart":
        return told(folder, "evaluate")["returns"]
    if name == "alphazero":
        return told(folder, f"evaluate/{task.split(', ')[0]}")["points"]
    found = told(folder, f"evaluate/{task}")
    return found.get("curves", found["returns"])
