"""Training one agent as a study: one fit, its snapshots played, policies and a film kept."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import envs
from jaxagent import keys
from jaxagent.api import offline
from jaxagent.api.config import AGENTS, TrainConfig
from jaxagent.api.kinds import fit_of, kind_of, refuse
from jaxagent.report.figure import Curve, curves, line
from jaxagent.study import agents, films
from jaxagent.study.study import Found, Measure, Step, Study
from jaxagent.study.verdicts import Scores

ROWS = 11  # snapshots that are played, evenly spaced, the first and the last among them
CURVE = Curve("train/return", ("train*",), "Return while training", "env_steps", "episode return")
BY_SEARCH = Curve("train/loss", ("train*",), "Loss of what search found", "env_steps", "loss", "moves")
LOSSES = {
    unit: Curve("train/loss", ("train*",), "Loss while fitting", unit, "loss")
    for unit in ("transitions", "tokens")
}


def study(config: TrainConfig) -> Study:
    """The fit, and its snapshots played without chance. Raises ValueError for what the agent cannot read."""
    env, task = envs.make(config.env, **dict(config.change))
    refuse(env, config)
    fit = fit_of(env, task, config)
    measure = Measure(
        "evaluate", partial(evaluate, config, env, task, fit, kind_of(config).policy(env, config))
    )
    return of_returns(
        config,
        env,
        {config.agent: AGENTS[config.agent]},
        [fit, measure],
        partial(scores, config),
        figures=partial(figures, config),
        limits=offline.limits(config) if config.dataset else (),
        label=f"{kind_of(config).score} of the last snapshot",
    )


def of_returns(
    config: TrainConfig,
    env: Any,
    arms: Mapping[str, str],
    steps: Sequence[Step],
    scores: Callable[[Found], Scores],
    **more: Any,
) -> Study:
    """What trainings, sweeps and searches have in common: returns of last snapshots, and no claim."""
    told = {
        "label": f"mean {kind_of(config.train).score} of the last snapshot",
        "curves": curves_of(config),
    } | more
    title = "Return of the last snapshot"
    shown = {"title": title, "scale": None, "resumes": not env.is_hosted}
    return Study(arms, [config.task], steps, scores, [], **told, **shown)


def curves_of(config: TrainConfig) -> list[Curve]:
    """What is drawn of the training's own metrics."""
    if kind_of(config).reads == "view":
        return [BY_SEARCH]
    if not config.dataset:
        return [CURVE]
    return [LOSSES["transitions" if config.agent in offline.ALGORITHMS else "tokens"]]


def played(config: TrainConfig, arena: agents.Arena, policy: Any, kept: Any) -> dict[str, Any]:
    """Returns `[snapshots][seeds]` of even snapshots, and after how many `config.unit` they were made."""
    rows = agents.even_rows(config.num_chunks, ROWS)
    if config.dataset:
        steps = [config.fit.updates_per_chunk * int(row) for row in rows]
    else:
        steps = agents.env_steps_at(rows, config.fit)
    return {"steps": steps, "returns": arena.curve(policy, agents.take(kept, rows)).tolist()}


def evaluate(
    config: TrainConfig, env: Any, task: Any, fit: Any, policy: Any, folder: Path, place: Path
) -> dict[str, Any]:
    """Returns `[snapshots][seeds]` over the same episodes, after how many env steps, and a film."""
    del place
    key, kind = keys.derive(0, f"evaluate/{config.env}"), kind_of(config)
    arena, kept = kind.arena(env, task, config.seeds, config.episodes, key), fit.load(folder)
    found = played(config, arena, policy, kept)
    best = int(np.argmax(found["returns"][-1]))
    film = agents.take(agents.last(kept), best)
    name = f"{config.agent}--{config.task}"
    try:
        kind.film(folder, name, env, policy, film, task, films.key(key))
    except NotImplementedError:  # an environment of one's own that nobody draws
        best = None
    return found | {"filmed": best}


def scores(config: TrainConfig, found: Found) -> Scores:
    """Returns `[1, seeds]` of the last snapshot."""
    return {config.agent: np.array([found["evaluate"]["returns"][-1]])}


def figures(config: TrainConfig, found: Found) -> list[dict[str, Any]]:
    """Returns of the snapshots over env steps, a line a seed."""
    of = found["evaluate"]
    return [snapshots(config, [line(config.agent, of["steps"], of["returns"])])]


def snapshots(config: TrainConfig, lines: list[dict[str, Any]]) -> dict[str, Any]:
    """A figure of returns of snapshots over `config.unit`."""
    told = f"Snapshots without chance over {config.episodes} episodes; a line a seed."
    return curves(f"Return on {config.task}", told, config.unit, kind_of(config).score, lines)
