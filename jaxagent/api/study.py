"""Training one agent as a study: one fit, its snapshots played, policies and a film kept."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import envs
from jaxagent import keys
from jaxagent.api.config import AGENTS, TrainConfig
from jaxagent.api.kinds import kind_of, refuse
from jaxagent.report.figure import Curve, curves, line
from jaxagent.study import agents, films
from jaxagent.study.study import Found, Measure, Study
from jaxagent.study.verdicts import Scores

ROWS = 11  # snapshots that are played, evenly spaced, the first and the last among them
CURVE = Curve("train/return", ("train*",), "Return while training", "env_steps", "episode return")


def study(config: TrainConfig) -> Study:
    """The fit, and its snapshots played without chance. Raises ValueError for what the agent cannot read."""
    env, task = envs.make(config.env, **dict(config.change))
    refuse(env, config)
    kind = kind_of(config)
    fit = kind.fit("train", env, task, config, f"train/{config.env}")
    policy = kind.policy(env, config)
    measure = Measure("evaluate", partial(evaluate, config, env, task, fit, policy))
    return Study(
        {config.agent: AGENTS[config.agent]},
        [config.task],
        [fit, measure],
        partial(scores, config),
        [],
        figures=partial(figures, config),
        curves=[CURVE],
        label="episode return of the last snapshot",
        title="Return of the last snapshot",
        scale=None,
        resumes=not env.is_hosted,
    )


def evaluate(
    config: TrainConfig, env: Any, task: Any, fit: Any, policy: Any, folder: Path, place: Path
) -> dict[str, Any]:
    """Returns `[snapshots][seeds]` over the same episodes, after how many env steps, and a film."""
    del place
    key = keys.derive(0, f"evaluate/{config.env}")
    arena, kept = agents.arena(env, task, config.seeds, config.episodes, key), fit.load(folder)
    rows = agents.even_rows(config.fit.num_chunks, ROWS)
    played = arena.history(policy, kept, rows, config.fit)
    best = int(np.argmax(played["returns"][-1]))
    film = agents.take(agents.last(kept), best)
    name = f"{config.agent}--{config.task}"
    try:
        films.write(folder, name, env, policy, film, task, films.key(key))
    except NotImplementedError:  # an environment of one's own that nobody draws
        best = None
    return played | {"filmed": best}


def scores(config: TrainConfig, found: Found) -> Scores:
    """Returns `[1, seeds]` of the last snapshot."""
    return {config.agent: np.array([found["evaluate"]["returns"][-1]])}


def figures(config: TrainConfig, found: Found) -> list[dict[str, Any]]:
    """Returns of the snapshots over env steps, a line a seed."""
    played = found["evaluate"]
    return [snapshots(config, [line(config.agent, played["steps"], played["returns"])])]


def snapshots(config: TrainConfig, lines: list[dict[str, Any]]) -> dict[str, Any]:
    """A figure of returns of snapshots over env steps."""
    told = f"Snapshots without chance over {config.episodes} episodes; a line a seed."
    return curves(f"Return on {config.task}", told, "env steps", "return", lines)
