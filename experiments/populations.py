"""Populations: agents of several seeds on every domain, and snapshots of how they learned.

Method. PPO (Schulman et al. 2017) or SAC (Haarnoja et al. 2018b) trains the agents of a domain as
lanes of one program; evenly spaced snapshots of their policies are measured and frozen with a card
(recipe, returns, SHA-256). The committed ones in `experiments/policies` are what studies of
sequences draw their data from, so that those start in seconds.

Claim P1. Training helps: the last snapshot beats the first on every domain taken together.

    python -m experiments.populations --preset cpu                  # the cheap domains, two cores
    python -m experiments.populations --preset gpu --only hopper    # one robot, one accelerator
    cp runs/populations-gpu/stages/freeze/*/*.{npz,json} experiments/policies/
"""

if __name__ == "__main__":  # the command line is parsed before JAX is imported
    from experiments.cli import run_module

    run_module("populations")

import datetime
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

import envs
from experiments.configs.populations import Config, DomainConfig
from experiments.parts import experts, policies
from experiments.parts.comparison import judged
from experiments.parts.cost import Cost
from jaxagent.evaluate.claims import Claim
from jaxagent.train.run import Stage, Work, read_done, stage_folder

ABOUT = {"first": "the policy before training", "last": "the policy after it"}
CURVES = [
    {
        "metric": "train/return",
        "stages": ["agents/*"],
        "title": "Return while training",
        "x": "env_steps",
        "x_label": "env steps (all agents)",
        "y_label": "episode return",
    }
]


def claims(config: Config) -> list[Claim]:
    """What is claimed."""
    del config
    return [Claim("P1", "training helps", "superiority", "last", "first", margin=0.5, gated=False)]


def stages(config: Config) -> list[Stage]:
    """The run, in order."""
    result = []
    for domain in config.chosen:
        result += [
            Stage(f"agents/{domain.name}", partial(train, config, domain)),
            Stage(f"freeze/{domain.name}", partial(freeze, config, domain)),
        ]
    return result


def train(config: Config, domain: DomainConfig, folder: Path) -> Work:
    """All agents of a domain in one program."""
    del folder
    env, task = envs.make(domain.env)
    tasks = [task] * config.num_agents
    return experts.train(env, tasks, domain.agent, config.seed, config.runtime.devices)


def freeze(config: Config, domain: DomainConfig, folder: Path) -> Work:
    """Measure and keep snapshots."""

    def finish(state: Any, place: Path) -> dict[str, Any]:
        del state
        env, _ = envs.make(domain.env)
        snapshots = experts.load_snapshots(
            stage_folder(folder, f"agents/{domain.name}"), env, domain.agent, config.num_agents
        )
        recipe = {
            "command": f"python -m experiments.populations --only {domain.name}",
            "seed": config.seed,
            "device": jax.devices()[0].device_kind,
            "jax": jax.__version__,
            "date": datetime.date.today().isoformat(),
        }
        return policies.freeze(
            place,
            domain.env,
            domain.agent,
            snapshots,
            num_snapshots=config.num_snapshots,
            episodes=config.episodes,
            seed=config.seed,
            recipe=recipe,
        )

    return Work(finish)


def costs(config: Config) -> list[Cost]:
    """Of every stage, for --dry-run."""
    return [
        experts.cost(f"agents/{d.name}", envs.make(d.env)[0], d.agent, config.num_agents)
        for d in config.chosen
    ]


def summary(config: Config, folder: Path, preset: str) -> dict[str, Any]:
    """Returns of the first and last snapshots, as shares of the best agent's."""
    cards = {d.name: read_done(folder, f"freeze/{d.name}")["summary"] for d in config.chosen}
    returns = {name: np.asarray(card["returns"]["sampled"]) for name, card in cards.items()}
    scale = {n: (r[0].mean(), max(r[-1].max() - r[0].mean(), 1e-9)) for n, r in returns.items()}
    scores = {
        arm: np.stack([(r[row] - scale[n][0]) / scale[n][1] for n, r in returns.items()])
        for arm, row in (("first", 0), ("last", -1))
    }
    return judged(
        claims=claims(config),
        scores=scores,
        preconditions=[],
        preset=preset,
        shown=scores,
        about=ABOUT,
        tasks=list(cards),
    ) | {"cards": cards, "curves": CURVES}
