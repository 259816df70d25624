"""What muzero says: scores of its claims, preconditions, figures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from envs.returns import reference
from experiments.configs.muzero import Config, TaskConfig
from experiments.parts.muzero_study import TRAINED, steps_to
from jaxagent.evaluate.claims import Precondition
from jaxagent.evaluate.statistics import normalise
from jaxagent.train.run import read_done

ABOUT = {
    "muzero": "search in the learned model, consistency loss on",
    "raw": "the same model's policy head alone",
    "no-consistency": "trained without the consistency loss, acts by search",
    "saboteur": "trained on steps with another lane's actions, acts by search",
    "untrained": "search over the first, random model",
    "ppo": "PPO in the same stretch of env steps",
    "ppo, all steps": "PPO after all of its steps: the anchor",
}
LIMITS = [
    "Windows are drawn uniformly from the replay, not by priority; no value prefix.",
    "A seed's score is the mean over its late snapshots: one alone says little of it.",
    "Settings were chosen on development seeds (1000 and up), as were PPO's of the quickstart.",
    "On CartPole PPO needs no more env steps than MuZero: the task is too easy to need a model.",
]
GAP, CEILING = 0.6, 0.95  # three times the largest margin; of the mean score without search
CURVES = [
    {
        "metric": metric,
        "stages": ["train/*/muzero", "train/*/no-consistency", "train/*/saboteur"],
        "title": title,
        "x": "env_steps",
        "x_label": "env steps (all seeds)",
        "y_label": label,
    }
    for metric, title, label in (
        ("train/loss/policy", "Policy head against search", "cross-entropy, nats"),
        ("train/loss/value", "Value head against returns", "cross-entropy, nats"),
        ("train/loss/consistency", "Latents against the encoder's", "1 - cosine"),
    )
]


def scores(config: Config, done: Mapping[str, Any]) -> dict[Any, np.ndarray]:
    """Scores `[tasks, seeds]` by arm, and env steps to the anchor by ("steps", arm)."""

    def normalised(read: Any) -> np.ndarray:
        rows = []
        for task in config.tasks:
            ref = reference(task.env)
            rows.append(normalise(np.array(read(done[task.name])), ref.random, ref.expert))
        return np.stack(rows)

    arms = [arm for arm in ABOUT if arm != "ppo, all steps"]
    table: dict[Any, np.ndarray] = {arm: normalised(lambda found, a=arm: found["returns"][a]) for arm in arms}
    table["ppo, all steps"] = normalised(lambda found: found["ppo_final"])
    for arm in ("muzero", "ppo"):
        table["steps", arm] = np.stack(
            [
                steps_to(
                    done[t.name]["curves"][arm],
                    _anchor(config, t, done[t.name]),
                    never=max(done[t.name]["curves"]["ppo"]["steps"]),
                )
                for t in config.tasks
            ]
        )
    return table


def _anchor(config: Config, task: TaskConfig, found: Mapping[str, Any]) -> float:
    """The return that both have to reach: a share of the way from random play to PPO's."""
    low = reference(task.env).random
    return low + config.anchor * (float(np.mean(found["ppo_final"])) - low)


def preconditions(config: Config, found: Mapping[Any, np.ndarray]) -> list[Precondition]:
    """PPO learns the tasks in the end, and the untrained model is far below what is claimed."""
    del config
    anchor = float(found["ppo, all steps"].mean())
    first, raw = float(found["untrained"].mean()), float(found["raw"].mean())
    return [
        Precondition(
            "PPO is far above search over an untrained model",
            anchor - first > GAP,
            f"mean scores {anchor:.2f} and {first:.2f}; expected {GAP} between them",
        ),
        Precondition(
            "the policy head alone leaves room",
            raw < CEILING,
            f"mean score {raw:.2f}; expected below {CEILING}",
        ),
    ]


def extras(config: Config, folder: Path, done: Mapping[str, Any]) -> dict[str, Any]:
    """Labels, figures and budgets of the report."""
    return {
        "score_label": "normalised return (0: random, 1: expert)",
        "figures": [_figure(config, task, done[task.name]) for task in config.tasks],
        "curves": CURVES,
        "limits": LIMITS,
        "budgets": {
            f"{name}, {task.name}": _budget(task, name, folder)
            for task in config.tasks
            for name in (*TRAINED, "ppo")
        },
    }


def _figure(config: Config, task: TaskConfig, found: Mapping[str, Any]) -> dict[str, Any]:
    """Returns of snapshots against env steps; PPO's first part, which is comparable."""
    shown = 2 * max(found["curves"]["muzero"]["steps"])
    lines = []
    for arm, curve in found["curves"].items():
        count = sum(step <= shown for step in curve["steps"])
        lines.append({"label": arm, "x": curve["steps"][:count], "y": curve["returns"][:count]})
    ends = [0, max(line["x"][-1] for line in lines)]
    anchor = _anchor(config, task, found)
    lines.append({"label": "anchor", "x": ends, "y": [anchor] * 2, "style": "dashed"})
    return {
        "kind": "curves",
        "title": f"Returns on {task.name}",
        "caption": f"Snapshots over {config.episodes} episodes; a line a seed; dashed: "
        f"{config.anchor:g} of PPO's final return.",
        "x_label": "env steps of a seed",
        "y_label": "return",
        "series": lines,
    }


def _budget(task: TaskConfig, name: str, folder: Path) -> dict[str, Any]:
    """Of one seed of a trained arm; seconds are of all seeds."""
    fit, ppo = task.muzero, task.ppo
    seconds = round(read_done(folder, f"train/{task.name}/{name}")["seconds"], 1)
    if name == "ppo":
        updates = ppo.num_updates * ppo.num_epochs * ppo.num_minibatches
        steps, simulations = ppo.num_updates * ppo.num_envs * ppo.num_steps, 0
    else:
        updates = fit.num_updates * fit.num_gradient_steps
        steps = task.env_steps
        simulations = (steps - fit.warmup_steps) * fit.search.num_simulations
    return {
        "env_steps": steps,
        "simulations": simulations,
        "updates": updates,
        "seconds_of_all_seeds": seconds,
    }
