"""What plan says: scores of its claims, preconditions, figures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from envs.returns import reference
from experiments.configs.plan import Config
from jaxagent.evaluate.claims import Precondition
from jaxagent.evaluate.statistics import normalise
from jaxagent.train.run import read_done

LIMITS = [
    "The policy begins anew at every state of the tree, so it sees the state alone there.",
    "One set of agents and trajectories: seeds are of pretraining, worlds and episodes.",
    "Values are of what early agents did; search improves on that by as much as it looks ahead.",
    "Simulations, samples and updates were chosen on development seeds (1000 and up).",
]
CURVES = [
    {
        "metric": "train/loss",
        "stages": [stage],
        "title": title,
        "x": x,
        "x_label": f"{x} (all lanes)",
        "y_label": label,
    }
    for stage, title, x, label in (
        ("pretrain", "Pretraining: next-token loss", "tokens", "nats per token"),
        ("world/*", "Learned worlds (with the saboteur's)", "steps", "sum of losses"),
    )
]
BASE_RANGE = (0.02, 0.6)  # of the policy's mean score, where an effect can show


def about(config: Config) -> dict[str, str]:
    """Arms as they appear in tables."""
    arms = {
        "policy": "the pretrained policy as it is, with its memory; draws its actions",
        "mode": "the same, its most likely or mean action",
    }
    for sims in config.plan.simulations:
        arms[f"true {sims}"] = f"{sims} simulations in the true world"
        arms[f"learned {sims}"] = f"{sims} simulations in the learned world"
    most = config.plan.simulations[-1]
    arms["saboteur"] = f"{most} simulations in a world learned from shuffled actions"
    arms["one step"] = "all samples tried once in the true world, judged by values: no tree"
    arms["no prior"] = f"{most} simulations in the true world over uniform proposals"
    return arms


def scores(config: Config, done: Mapping[str, Any]) -> dict[Any, np.ndarray]:
    """Normalised returns `[tasks, seeds]` by arm."""
    table = {}
    for arm in about(config):
        rows = []
        for task in config.tasks:
            ref = reference(task.env)
            returns = np.array(done[task.name]["returns"][arm])
            rows.append(normalise(returns, ref.random, ref.expert))
        table[arm] = np.stack(rows)
    return table


def preconditions(config: Config, folder: Path, found: Mapping[Any, np.ndarray]) -> list[Precondition]:
    """The base policy is neither at floor nor at ceiling, and the tasks can be solved."""
    result, (low, high) = [], BASE_RANGE
    cards = read_done(folder, "collect")["summary"]
    for row, task in enumerate(config.tasks):
        base = max(float(found[arm][row].mean()) for arm in ("policy", "mode"))
        expert = max(cards[task.name]["demonstration"]["scores"])
        result += [
            Precondition(
                f"{task.name}: the policy leaves room",
                low < base < high,
                f"mean score {base:.2f}, drawn or not; expected in ({low}, {high})",
            ),
            Precondition(
                f"{task.name}: an agent solves it", expert > 0.85, f"score {expert:.2f}; expected above 0.85"
            ),
        ]
    return result


def extras(config: Config, folder: Path, done: Mapping[str, Any]) -> dict[str, Any]:
    """Labels, figures and budgets of the report."""
    plan = config.plan
    return {
        "score_label": "normalised return (0: random, 1: expert)",
        "figures": [_figure(config, t.name, done[t.name]["returns"]) for t in config.tasks],
        "curves": CURVES,
        "limits": LIMITS,
        "budgets": {
            t.name: read_done(folder, f"world/{t.name}")["summary"]
            | {"samples_a_node": plan.num_samples, "most_simulations": plan.simulations[-1]}
            for t in config.tasks
        },
    }


def _figure(config: Config, name: str, returns: Mapping[str, Any]) -> dict[str, Any]:
    """Return against simulations; without search at 0."""
    sims = config.plan.simulations
    lines = [
        {
            "label": f"{world} world",
            "x": [0, *sims],
            "y": [returns["policy"], *(returns[f"{world} {n}"] for n in sims)],
        }
        for world in ("true", "learned")
    ]
    for arm in ("mode", "one step", "no prior", "saboteur"):
        level = float(np.mean(returns[arm]))
        lines.append({"label": arm, "x": [0, sims[-1]], "y": [level] * 2, "style": "dashed"})
    return {
        "kind": "curves",
        "title": f"Return against simulations: {name}",
        "caption": f"Means over {config.plan.episodes} episodes; a line a seed; dashed: means of "
        f"other arms with {sims[-1]} simulations.",
        "x_label": "simulations a step (0: the policy as it is)",
        "y_label": "return",
        "series": lines,
    }
