"""Populations: agents of several seeds on every domain, and snapshots of how they learned.

Method. PPO (Schulman et al. 2017) or SAC (Haarnoja et al. 2018b) trains the agents of a domain as
lanes of one program; evenly spaced snapshots of their policies are measured and frozen with a card
(recipe, returns, SHA-256). The committed ones in `experiments/policies` are what studies of
sequences draw their data from, so that those start in seconds.

Claim P1. Training helps: the last snapshot beats the first on every domain taken together.

    jaxagent run populations --preset cpu                  # the cheap domains, two cores
    jaxagent run populations --preset gpu --only hopper    # one robot, one accelerator
    cp runs/populations-gpu-*/stages/freeze/*/*.{npz,json} experiments/policies/
"""

import datetime
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

import envs
from experiments.populations.config import Config, DomainConfig
from jaxagent.evaluate.claims import Claim
from jaxagent.report.figure import return_curve
from jaxagent.study import agents, frozen
from jaxagent.study.study import Fit, Found, Measure, Study
from jaxagent.study.verdicts import Scores

ARMS = {"first": "the policy before training", "last": "the policy after it"}
ROWS = {"first": 0, "last": -1}  # of the snapshots
CURVE = return_curve("agents/*", "Return while training", "agents")


def study(config: Config) -> Study:
    """All agents of a domain in one program; then they are measured and frozen."""
    steps: list[Fit | Measure] = []
    for domain in config.chosen:
        env, task = envs.make(domain.env)
        tasks = [task] * config.num_agents
        fit = agents.population(f"agents/{domain.name}", env, tasks, domain.agent, config.seed)
        steps += [fit, Measure(f"freeze/{domain.name}", partial(freeze, config, domain, fit))]
    claim = Claim("P1", "training helps", "superiority", "last", "first", margin=0.5, gated=False)
    names = [domain.name for domain in config.chosen]
    return Study(
        ARMS,
        names,
        steps,
        partial(scores, names),
        [claim],
        curves=[CURVE],
        label="share of the best agent's gain",
        scale=None,  # the first and the last are its ends
        extras=lambda found, table: {"cards": cards(names, found)},
    )


def freeze(config: Config, domain: DomainConfig, fit: Fit, folder: Path, place: Path) -> dict[str, Any]:
    """Measure and keep even snapshots."""
    recipe = {
        "command": f"jaxagent run populations --only {domain.name}",
        "seed": config.seed,
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "date": datetime.date.today().isoformat(),
    }
    return frozen.freeze(
        place,
        domain.env,
        domain.agent,
        fit.load(folder),
        num_snapshots=config.num_snapshots,
        episodes=config.episodes,
        seed=config.seed,
        recipe=recipe,
    )


def cards(names: list[str], found: Found) -> dict[str, Any]:
    """Of every domain."""
    return {name: found[f"freeze/{name}"] for name in names}


def scores(names: list[str], found: Found) -> Scores:
    """Returns `[domains, agents]` of first and last snapshots, as shares of the best agent's gain."""
    rows = {arm: [] for arm in ARMS}
    for card in cards(names, found).values():
        returns = np.asarray(card["returns"]["sampled"])
        low, gain = returns[0].mean(), max(returns[-1].max() - returns[0].mean(), 1e-9)
        for arm, row in ROWS.items():
            rows[arm].append((returns[row] - low) / gain)
    return {arm: np.stack(values) for arm, values in rows.items()}
