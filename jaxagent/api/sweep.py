"""A sweep as a study: all combinations as lanes of one program, in parts, then ranked."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import envs
from jaxagent import keys
from jaxagent.api import study as training
from jaxagent.api.config import SweepConfig, TrainConfig
from jaxagent.api.kinds import Kind, fit_of, kind_of, refuse
from jaxagent.evaluate import statistics
from jaxagent.report.figure import line
from jaxagent.study import agents, sweeps
from jaxagent.study.study import Found, Lanes, Measure, Step, Study, cost
from jaxagent.study.verdicts import Scores

LIMITS = (
    "Settings were compared on the seeds that they were chosen on: train the best on others before a claim.",
)


def study(config: SweepConfig) -> Study:
    """The parts of a sweep, each fitted and played. Raises ValueError for what the agent cannot read."""
    train = config.train
    env, task = envs.make(train.env, **dict(train.change))
    refuse(env, train)
    kind = kind_of(train)
    lanes_of = partial(lanes, train, env, task)
    require_lanes(lanes_of, {field: values[0] for field, values in config.grid})
    steps: list[Step] = []
    for number, names in enumerate(parts(config)):
        values = {f: [config.combinations[name][f] for name in names] for f, _ in config.grid}
        own = partial(_as_given, values)
        fit = sweeps.fit(f"train/{number}", lanes_of, own, list(train.seeds), f"train/{train.env}")
        steps += [fit, Measure(f"evaluate/{number}", partial(evaluate, config, kind, env, task, fit, names))]
    return training.of_returns(
        train,
        env,
        dict.fromkeys(config.combinations, ""),
        steps,
        partial(scores, config),
        figures=partial(figures, config),
        limits=LIMITS,
        extras=lambda found, table: {"ranking": ranking(table)},
    )


def require_lanes(lanes_of: Callable, values: Mapping[str, float]) -> None:
    """Raise ValueError, before anything runs, for a number that no lane can have of its own."""
    for field, value in values.items():
        one = partial(_as_given, {field: [value]})
        cost(sweeps.fit("try", lanes_of, one, [0], "try"), with_memory=False)


def _as_given(values: Mapping[str, Sequence[float]], folder: Any) -> Mapping[str, Sequence[float]]:
    del folder
    return values


def parts(config: SweepConfig) -> list[list[str]]:
    """Combinations by name, as many together as make `at_once` agents."""
    names, size = list(config.combinations), max(1, config.at_once // len(config.train.seeds))
    return [names[i : i + size] for i in range(0, len(names), size)]


def lanes(train: TrainConfig, env: Any, task: Any, values: Mapping[str, Any]) -> Lanes:
    """An agent's with numbers of its own, which may be traced."""
    return fit_of(env, task, changed(train, values)).lanes(None)


def changed(train: TrainConfig, values: Mapping[str, Any]) -> TrainConfig:
    """A training with numbers of its own."""
    return sweeps.with_values(train, {"fit": sweeps.with_values(train.fit, values)})


def evaluate(
    config: SweepConfig,
    kind: Kind,
    env: Any,
    task: Any,
    fit: Any,
    names: list[str],
    folder: Path,
    place: Path,
) -> dict[str, Any]:
    """Returns `[snapshots][seeds]` of every combination of a part, over the same episodes."""
    del place
    values = [config.combinations[name] for name in names]
    return dict(zip(names, play_all(config.train, kind, env, task, fit.load(folder), values), strict=True))


def play_all(
    train: TrainConfig, kind: Kind, env: Any, task: Any, kept: Any, values: Sequence[Mapping[str, float]]
) -> list[dict[str, Any]]:
    """What `training.played` says of each of N values, whose agents `kept [snapshots, N seeds, ...]` are."""
    seeds, key = list(train.seeds), keys.derive(0, f"evaluate/{train.env}")
    told = []
    for number, one in enumerate(values):
        own = slice(number * len(seeds), (number + 1) * len(seeds))
        arena = kind.arena(env, task, seeds, train.episodes, key)
        policy = kind.policy(env, changed(train, one))
        told.append(training.played(train, arena, policy, agents.take(kept, slice(None), own)))
    return told


def _played(config: SweepConfig, found: Found) -> dict[str, Any]:
    parts_found = [found[f"evaluate/{number}"] for number in range(len(parts(config)))]
    return {name: played for part in parts_found for name, played in part.items()}


def scores(config: SweepConfig, found: Found) -> Scores:
    """Returns `[1, seeds]` of the last snapshot by combination."""
    return {name: np.array([played["returns"][-1]]) for name, played in _played(config, found).items()}


def figures(config: SweepConfig, found: Found) -> list[dict[str, Any]]:
    """Returns of the snapshots over env steps, a line a combination and seed."""
    lines = [line(name, p["steps"], p["returns"]) for name, p in _played(config, found).items()]
    return [training.snapshots(config.train, lines)]


def ranking(table: Scores) -> list[dict[str, Any]]:
    """Combinations by their mean return, best first, each with its interval over seeds.

    `is_apart`: the paired interval of the best one's lead excludes 0. With one seed there is neither.
    """
    order = sorted(table, key=lambda name: -float(np.mean(table[name])))
    rows = []
    for name in order:
        returns, lead = table[name][0], (table[order[0]] - table[name])[0]
        is_known = len(returns) > 1
        interval = [*statistics.interval_of_mean(returns)] if is_known else []
        is_apart = bool(is_known and statistics.interval_of_mean(lead).lower > 0.0)
        rows.append(
            {"name": name, "mean": float(np.mean(returns)), "interval": interval, "is_apart": is_apart}
        )
    return rows


def ranked(rows: list[dict[str, Any]]) -> list[str]:
    """Lines of a `ranking`."""
    lines = []
    for place, row in enumerate(rows, start=1):
        interval = "[{:.4g}, {:.4g}]".format(*row["interval"]) if row["interval"] else "one seed"
        told = "" if place == 1 else "behind the best" if row["is_apart"] else "not told apart from the best"
        lines.append(f"{place:3d}  {row['mean']:10.4g}  {interval:20s}  {row['name']}  {told}".rstrip())
    return lines
