"""Rainbow on MinAtar, with self-prediction and without: lanes of seeds, how they play, what they know."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax

import envs
from experiments.spr import probe
from experiments.spr.config import Config, TaskConfig
from jaxagent import keys, library
from jaxagent.agents import rainbow
from jaxagent.config import RainbowConfig
from jaxagent.nn.q_network import QNetwork
from jaxagent.study import agents, films, value_agents
from jaxagent.study.study import Fit
from jaxagent.train import parallel

AGENTS = {
    "rainbow + spr": "Rainbow with the self-predictive loss",
    "rainbow": "its twin without it: the same network, data and updates",
}


class Game(NamedTuple):
    """One game and the network that learns it."""

    config: TaskConfig
    env: Any
    task: Any
    network: QNetwork


def game_of(config: TaskConfig) -> Game:
    """Build game and network."""
    env, task = envs.make(config.env)
    return Game(config, env, task, rainbow.network_of(env.obs_shape, env.action_spec, config.rainbow))


def fit_of(config: TaskConfig, name: str) -> RainbowConfig:
    """How one of `AGENTS` is fitted; the twin has the same parameters, and no loss on them."""
    spr = config.rainbow.spr
    weight = spr.weight if name == "rainbow + spr" else 0.0
    return dataclasses.replace(config.rainbow, spr=dataclasses.replace(spr, weight=weight))


def fits_of(config: Config, task: TaskConfig) -> dict[str, Fit]:
    """A lane a seed; agents of a seed begin alike and draw alike. What acts is kept."""
    env, params = envs.make(task.env)

    def one(name: str) -> Fit:
        fit = fit_of(task, name)
        return agents.seeded(
            f"train/{task.name}/{name}",
            value_agents.loop(env, fit),
            params,
            fit,
            config.seeds,
            f"rainbow/{task.name}",
            keep=value_agents.acts_by(fit),
        )

    return {name: one(name) for name in AGENTS}


def evaluate(
    config: Config, task: TaskConfig, fits: dict[str, Fit], folder: Path, place: Path
) -> dict[str, Any]:
    """Returns `[snapshots][seeds]` of both agents in the same episodes, and a film."""
    del place
    game, fit = game_of(task), task.rainbow
    key = keys.derive(0, f"rainbow/{task.name}/evaluate")
    room = agents.room(game.env, game.task, config.seeds, config.episodes, key)
    policy, data = rainbow.policy(game.network, fit), measured_data(config, game)
    returns, numbers = {}, {}
    for name, one in fits.items():
        kept = one.load(folder)
        returns[name] = room.curve(policy, kept, parallel.map_lanes).tolist()
        numbers[name] = diagnoses(game, kept, data)
        last = agents.take(kept, -1, 0)
        about = value_agents.describe(
            game.env, game.network, fit_of(task, name), arm=name, task=task.name, seed=config.seeds.first
        )
        library.save(folder, about, last)
        films.write(folder, f"{name}--{task.name}", game.env, policy, last, game.task, films.key(key))
    steps = [fit.warmup_steps + i * fit.env_steps_per_chunk for i in range(fit.num_chunks + 1)]
    return {"steps": steps, "returns": returns, "diagnoses": numbers}


def measured_data(config: Config, game: Game) -> probe.Measured:
    """States of random play, and what is true of them."""
    sizes = dataclasses.replace(config.probe, env=game.config.env)
    return probe.measured_play(probe.Game(game.env, game.task, sizes), lambda obs: obs)


def diagnoses(game: Game, kept: Any, data: probe.Measured) -> dict[str, Any]:
    """Numbers `[snapshots][seeds]` by name, of networks `[snapshots, seeds]`; probes: `[m]` more.

    They are of the head's hidden units, which are what self-prediction compares; the twin's
    predictor never learns, so that its predictions mean nothing.
    """
    network = game.network

    def one(params: Any) -> dict[str, Any]:
        latent = network.encode(params, data.obs)
        hidden = network.project(params, latent)
        return probe.diagnosed(network, params, params, data, latent, hidden)

    every = jax.jit(lambda kept: jax.lax.map(lambda lanes: jax.lax.map(one, lanes), kept))
    return jax.tree.map(lambda x: x.tolist(), jax.device_get(every(kept)))
