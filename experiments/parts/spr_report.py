"""What spr says: scores of its claims, preconditions, figures, alarms."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from envs.returns import reference
from experiments.configs.spr import ARMS, TRUTHS, Config, TaskConfig
from experiments.parts.rainbow_study import AGENTS
from experiments.parts.spr_study import TRAINED
from jaxagent.evaluate import collapse
from jaxagent.evaluate.claims import Precondition
from jaxagent.evaluate.statistics import normalise
from jaxagent.train.run import read_done

NUMBERS = ("effective_rank", "copy_ratio", "action_sensitivity")  # that claims read
UNTRAINED = {"untrained": "spr", "untrained tokens": "tokens"}  # an arm before its first update
ROOM = 0.9  # of R^2, below which an untrained latent leaves room
SETTINGS = "Settings were chosen on development seeds (1000 and up)."
LIMITS = [
    "The probe's network is small and dense, its observations are standardised cell by cell: raw "
    "boards of mostly constant cells collapse (mean cosine 0.99) with or without a predictor.",
    "Data are of random play alone, and no reward is learned from in the probe.",
    "States that are measured are of other episodes, but Breakout without sticky actions has few: "
    "99 of 100 occur in training too (1,077 boards in 20,000 steps). R^2 says nothing of new ones.",
    "An earlier transformer, 16 wide on patches of 2 x 2 cells, came to R^2 0.60 on seeds 100 to "
    "107; it was changed on development seeds, and all arms have had other claim seeds since.",
    SETTINGS,
]
AGENTS_ABOUT = {
    "rainbow + spr": "Rainbow with the self-predictive loss",
    "rainbow": "its twin without it: the same network, data and updates",
}
CURVES = [
    {
        "metric": "train/loss",
        "stages": ["probe/*"],
        "title": "Self-predictive loss of the probe's arms",
        "x": "windows",
        "x_label": "windows (all seeds)",
        "y_label": "2 - 2 cos",
    }
]


def scores(found: Mapping[str, Any]) -> dict[Any, np.ndarray]:
    """R^2 `[1, seeds]` by arm, numbers by (name, arm), and whether an alarm went off."""
    table: dict[Any, np.ndarray] = {}
    arms = found["arms"]
    for arm in ARMS:
        numbers, at = arms[UNTRAINED.get(arm, arm)], 0 if arm in UNTRAINED else -1
        table[arm] = np.array(numbers["probes"][at]).mean(-1)[None]
        for name in NUMBERS:
            table[name, arm] = np.array(numbers[name][at])[None]
        alarms = alarms_of(numbers, at)
        table["alarm", arm] = np.array([float(bool(a)) for a in alarms])[None]
        # Predictions of a network that learned nothing are bad too; this is about latents alone.
        fallen = [any(name in a for name in collapse.OF_COLLAPSE) for a in alarms]
        table["collapse", arm] = np.array(fallen, float)[None]
    return table


def alarms_of(numbers: Mapping[str, Any], at: int) -> list[dict[str, str]]:
    """Alarms of every seed at a snapshot."""
    names = collapse.Diagnosis._fields
    lanes = zip(*(numbers[name][at] for name in names), strict=True)
    rows = (SimpleNamespace(**dict(zip(names, lane, strict=True))) for lane in lanes)
    return [collapse.alarms(row) for row in rows]


def agent_scores(config: Config, done: Mapping[str, Any]) -> dict[Any, np.ndarray]:
    """Normalised returns `[tasks, seeds]` after all steps, by agent."""
    table = {}
    for name in AGENTS:
        rows = []
        for task in config.tasks:
            ref, returns = reference(task.env), done[task.name]["returns"][name]
            rows.append(normalise(np.array(returns[-1]), ref.random, ref.expert))
        table[name] = np.stack(rows)
    return table


def preconditions(table: Mapping[Any, np.ndarray]) -> list[Precondition]:
    """The untrained latents leave room for the claimed effects, and have not collapsed."""
    return [check for arm in UNTRAINED for check in _before(arm, table)]


def _before(arm: str, table: Mapping[Any, np.ndarray]) -> list[Precondition]:
    first, fallen = (float(table[key].mean()) for key in (arm, ("collapse", arm)))
    return [
        Precondition(
            f"the latent of '{arm}' leaves room", first < ROOM, f"mean R^2 {first:.2f}; expected below {ROOM}"
        ),
        Precondition(
            f"the latent of '{arm}' trips no alarm of collapse",
            fallen == 0.0,
            f"in a share {fallen:.2f} of seeds; expected none",
        ),
    ]


def shown(
    config: Config, table: Mapping[Any, np.ndarray], returns: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """The table of arms: the probe's where there is one, or else the agents'."""
    if config.has_probe:
        tasks = [config.probe.env.split("/")[-1]]
        return {"shown": {arm: table[arm] for arm in ARMS}, "about": ARMS, "tasks": tasks}
    tasks = [task.name for task in config.tasks]
    return {"shown": returns, "about": AGENTS_ABOUT, "tasks": tasks}


def extras(
    config: Config, folder: Path, found: Mapping[str, Any] | None, done: Mapping[str, Any]
) -> dict[str, Any]:
    """Labels, figures, budgets, alarms; what agents scored is a figure and a table a game."""
    probe = _of_probe(config, folder, found) if found else _without_probe()
    return probe | {
        "figures": probe["figures"]
        + [figure for name in done for figure in _of_game(config, name, done[name])],
        "limits": probe["limits"]
        + [line for task in config.tasks for line in _limits_of_agents(task)]
        + [line for name in done for line in _alarm_lines(f"{name}, ", done[name]["diagnoses"], AGENTS[:1])],
        "budgets": probe["budgets"]
        | {
            f"{agent}, {task.name}": _budget(task, agent, folder, done[task.name])
            for task in config.tasks
            for agent in AGENTS
        },
        "agent_scores": _by_task(config, agent_scores(config, done)) if done else {},
    }


def _by_task(config: Config, table: Mapping[str, np.ndarray]) -> dict[str, Any]:
    names = [task.name for task in config.tasks]
    return {a: dict(zip(names, rows.tolist(), strict=True)) for a, rows in table.items()}


def _limits_of_agents(task: TaskConfig) -> list[str]:
    fit = task.rainbow
    ratio = fit.num_gradient_steps / (fit.num_envs * fit.num_steps)
    return [
        f"{task.name} has no sticky actions; agents learn from {ratio:g} minibatches a step, of a "
        f"replay of {fit.capacity:,} steps. Without self-prediction an update is several times as "
        "fast, and no arm is given that time."
    ]


def _without_probe() -> dict[str, Any]:
    label = "normalised return (0: random play, 1: the reference policy)"
    return {"score_label": label, "figures": [], "limits": [SETTINGS], "budgets": {}}


def _of_probe(config: Config, folder: Path, found: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "score_label": "R^2 of linear probes (mean over the true state's numbers)",
        "figures": [
            _curve(found, "probes", "Linear probes: " + ", ".join(TRUTHS[config.probe.env]), "R^2"),
            _curve(found, "effective_rank", "Effective rank", "share of the width"),
            _curve(found, "mean_cosine", "Mean cosine of different states", "cosine"),
            _curve(found, "copy_ratio", "Error over that of 'nothing changes'", "ratio", log=True),
            _curve(found, "action_sensitivity", "Error with others' actions over own", "ratio"),
            _curve(found, "retrieval", "Own future is the nearest", "share of states"),
        ],
        "curves": CURVES,
        "limits": LIMITS + _alarm_lines("", found["arms"], TRAINED),
        "budgets": {arm: read_done(folder, f"probe/{arm}")["summary"] for arm in TRAINED},
    }


def _budget(task: TaskConfig, agent: str, folder: Path, done: Mapping[str, Any]) -> dict[str, Any]:
    """Of one seed, and what it scored in the mean."""
    seconds = round(read_done(folder, f"train/{task.name}/{agent}")["seconds"], 1)
    return {
        "env_steps": done["steps"][-1],
        "updates": task.rainbow.total_gradient_steps,
        "seconds_of_all_seeds": seconds,
        "mean_return": round(float(np.mean(done["returns"][agent][-1])), 3),
        "probes_r2": round(float(np.mean(done["diagnoses"][agent]["probes"][-1])), 4),
    }


def _of_game(config: Config, name: str, done: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns, and what became of the representation, against env steps."""
    found = {"updates": done["steps"], "arms": done["diagnoses"]}
    numbers = partial(_curve, found, arms=AGENTS, x_label="env steps of a seed")
    return [
        _returns(config, name, done),
        numbers("probes", f"Linear probes on {name}: {', '.join(TRUTHS[_env(config, name)])}", "R^2"),
        numbers("effective_rank", f"Effective rank on {name}", "share of the hidden units"),
        numbers("dormant", f"Dormant units on {name}", "share of the hidden units"),
        # The twin's predictor never learns.
        numbers(
            "copy_ratio",
            f"Error over that of 'nothing changes' on {name}",
            "ratio",
            log=True,
            arms=AGENTS[:1],
        ),
        numbers(
            "action_sensitivity", f"Error with others' actions over own on {name}", "ratio", arms=AGENTS[:1]
        ),
    ]


def _env(config: Config, name: str) -> str:
    return next(task.env for task in config.tasks if task.name == name)


def _returns(config: Config, name: str, done: Mapping[str, Any]) -> dict[str, Any]:
    """Returns of snapshots against env steps."""
    series = [
        {"label": agent, "x": done["steps"], "y": returns} for agent, returns in done["returns"].items()
    ]
    return {
        "kind": "curves",
        "title": f"Returns on {name}",
        "caption": f"Snapshots over {config.episodes} episodes; a line an agent, its band the "
        "seeds. " + "; ".join(f"{k}: {v}" for k, v in AGENTS_ABOUT.items()) + ".",
        "x_label": "env steps of a seed",
        "y_label": "return",
        "series": series,
    }


def _alarm_lines(where: str, numbers: Mapping[str, Any], arms: Sequence[str]) -> list[str]:
    """Which alarms went off at the end, of the first seed that has one."""
    lines = []
    for arm in arms:
        seeds = [a for a in alarms_of(numbers[arm], -1) if a]
        if seeds:
            count = len(numbers[arm]["spread"][-1])
            named = "; ".join(seeds[0].values())
            lines.append(f"Alarm, {where}arm '{arm}' ({len(seeds)} of {count} seeds): {named}.")
    return lines


def _curve(
    found: Mapping[str, Any],
    name: str,
    title: str,
    label: str,
    log: bool = False,
    *,
    arms: Sequence[str] = TRAINED,
    x_label: str = "updates",
) -> dict[str, Any]:
    """A number against updates, a line an arm and seed."""
    series = []
    for arm in arms:
        values = np.array(found["arms"][arm][name], float)
        values = values.mean(-1) if name == "probes" else values
        values = np.clip(values, -1.0, None)
        shown = np.log10(np.maximum(values, 1e-6)) if log else values
        series.append({"label": arm, "x": found["updates"], "y": shown.tolist()})
    return {
        "kind": "curves",
        "title": title,
        "caption": "States of other episodes; a line an arm, its band the seeds; below -1 is drawn as -1.",
        "x_label": x_label,
        "y_label": f"log10 of the {label}" if log else label,
        "series": series,
    }
