"""Rainbow on MinAtar, with self-prediction and without: lanes of seeds, how they play, what they know."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import envs
from experiments.spr import probe
from experiments.spr.config import Config, TaskConfig
from jaxagent import keys
from jaxagent.agents import rainbow
from jaxagent.config import RainbowConfig
from jaxagent.nn.q_network import QNetwork
from jaxagent.study import agents, films, value_agents
from jaxagent.study.agents import Fits
from jaxagent.study.study import Player
from jaxagent.train import loops, parallel

PREDICTS = "rainbow + spr"  # the twin's predictor never learns, so that its predictions mean nothing
AGENTS = {
    PREDICTS: "Rainbow with the self-predictive loss",
    "rainbow": "its twin without it: the same network, data and updates",
}


def configs_of(task: TaskConfig) -> dict[str, RainbowConfig]:
    """How each of `AGENTS` is fitted."""
    return {PREDICTS: task.rainbow, "rainbow": value_agents.without_prediction(task.rainbow)}


def fits_of(config: Config, task: TaskConfig) -> Fits:
    """A lane a seed; agents of a seed begin alike and draw alike. What acts is kept."""
    env, params = probe.noisy(*envs.make(task.env), task.noise)
    return {
        name: agents.seeded(
            f"train/{task.name}/{name}",
            value_agents.loop(env, fit),
            params,
            fit,
            config.seeds,
            f"rainbow/{task.name}",
            keep=value_agents.acts_by(fit),
        )
        for name, fit in configs_of(task).items()
    }


def evaluate(config: Config, task: TaskConfig, fits: Fits, folder: Path, place: Path) -> dict[str, Any]:
    """Returns `[snapshots][seeds]` of both agents in the same episodes, and a film."""
    del place
    game = probe.game_of(dataclasses.replace(config.probe, env=task.env, noise=task.noise))
    env, params, data = game.env, game.task, probe.measured_play(game)
    network = rainbow.network_of(env.obs_shape, env.action_spec, task.rainbow)
    key = keys.derive(0, f"rainbow/{task.name}/evaluate")
    arena = agents.arena(env, params, config.seeds, config.episodes, key)
    returns, numbers = {}, {}
    for name, fit in configs_of(task).items():
        kept, player = fits[name].load(folder), value_agents.ValuePlayer(env, network, fit)
        returns[name] = arena.curve(player.policy, kept, parallel.map_lanes).tolist()
        numbers[name] = diagnoses(network, kept, data)
        last = agents.take(kept, -1, 0)
        if not task.noise:  # by its name it would be met on clean boards
            player.save(folder, last, arm=name, task=task.name, seed=config.seeds.first)
        films.write(folder, f"{name}--{task.name}", env, player.policy, last, params, films.key(key))
    steps = agents.env_steps_at(range(task.rainbow.num_chunks + 1), task.rainbow)
    return {"steps": steps, "returns": returns, "diagnoses": numbers}


def player(config: Config, folder: Path, arm: str, task: str) -> Player:
    """An agent as it ended."""
    of = agents.task_of(config.tasks, task)
    env, params = probe.noisy(*envs.make(of.env), of.noise)
    network, fit = rainbow.network_of(env.obs_shape, env.action_spec, of.rainbow), configs_of(of)[arm]
    last = agents.last(fits_of(config, of)[arm].load(folder))
    return Player(env, params, value_agents.ValuePlayer(env, network, fit).policy, last, config.seeds)


def diagnoses(network: QNetwork, kept: Any, data: probe.Measured) -> dict[str, Any]:
    """Numbers `[snapshots][seeds]` by name, of networks `[snapshots, seeds]`; probes: `[m]` more.

    They are of the head's hidden units, which are what self-prediction compares.
    """
    one = partial(probe.diagnosis, network, data, network.project)
    return probe.by_snapshot(one, (kept,), loops.map_in_turn)
