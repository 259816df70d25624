"""Scores of arms over tasks and seeds: normalised, checked, judged, and shown as a table."""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from operator import getitem
from typing import Any

import numpy as np

from envs.returns import Reference
from jaxagent.evaluate import claims as harness
from jaxagent.evaluate import statistics
from jaxagent.evaluate.claim import DEFAULT_METRIC
from jaxagent.evaluate.claims import Claim, Precondition
from jaxagent.report.fields import effects_by_task
from jaxagent.study.config import EnvConfig

# arm, or (metric, arm) -> [tasks, seeds], or [tasks, pretrainings, seeds] where seeds share pretrainings
Scores = Mapping[Any, np.ndarray]


def normalised(returns: Mapping[str, Sequence[float]], references: Mapping[str, Reference]) -> np.ndarray:
    """Scores `[tasks, seeds]` of `returns[task] [seeds]`: 0 is random play, 1 the reference policy."""
    return np.stack(
        [
            statistics.normalise(np.asarray(returns[task]), reference.random, reference.expert)
            for task, reference in references.items()
        ]
    )


def of_tasks(
    found: Mapping[str, Any], tasks: Sequence[EnvConfig], arms: Iterable[str]
) -> dict[Any, np.ndarray]:
    """Scores `[tasks, seeds]` by arm of the "returns", `{arm: [seeds]}`, of the steps `evaluate/TASK`."""
    references = {task.name: task.reference for task in tasks}
    done = {name: found[f"evaluate/{name}"]["returns"] for name in references}
    return {arm: normalised({n: returns[arm] for n, returns in done.items()}, references) for arm in arms}


def of_seeds(rows: Iterable[Any], *path: Any) -> np.ndarray:
    """Scores `[1, seeds]` of the only task: what each seed's row, nested JSON, holds at `path`."""
    return np.array([[reduce(getitem, path, row) for row in rows]])


def iqm_by_task(tasks: Iterable[str], scores: np.ndarray) -> dict[str, float]:
    """IQM over seeds of scores `[tasks, seeds]` or `[tasks, pretrainings, seeds]`, by task."""
    return {task: float(statistics.iqm(row[None])) for task, row in zip(tasks, _flat(scores), strict=True)}


def all_between(
    name: str, values: Mapping[str, float], low: float = -math.inf, high: float = math.inf
) -> Precondition:
    """The check that every number of several tasks lies between bounds, which are included."""
    told = ", ".join(f"{task} {value:.2f}" for task, value in values.items())
    passed = all(low <= value <= high for value in values.values())
    return Precondition(name, passed, f"{told}; expected {_range(low, high)}")


def _range(low: float, high: float) -> str:
    if math.isinf(high):
        return f"at least {low:g}"
    return f"at most {high:g}" if math.isinf(low) else f"{low:g} to {high:g}"


def judged(
    *,
    claims: Sequence[Claim],
    scores: Mapping[Any, np.ndarray],
    preconditions: Sequence[Precondition],
    preset: str,
    shown: Mapping[str, np.ndarray],
    about: Mapping[str, str],
    tasks: Sequence[str],
    shared_seeds: bool = False,
    scale: tuple[float, float] | None = harness.SCALE,
) -> dict[str, Any]:
    """Verdicts on `scores` (see `claims.judge`) and the table of arms `shown`, rows by task.

    `shared_seeds`: one training gives a seed's scores of all tasks. `scale`: the ends of scores.
    """
    options = {"preset": preset, "tasks": tasks, "scale": scale, "shared_seeds": shared_seeds}
    verdicts = harness.judge(claims, scores, preconditions, **options)
    metrics: dict[str, dict[str, Any]] = {}
    for name, rows in scores.items():
        metric, arm = (DEFAULT_METRIC, name) if isinstance(name, str) else name
        metrics.setdefault(metric, {})[arm] = np.asarray(rows).tolist()
    return {
        "arms": {name: _row(about[name], table) for name, table in shown.items()},
        "tasks": list(tasks),
        "scores": {a: dict(zip(tasks, _flat(s).tolist(), strict=True)) for a, s in shown.items()},
        "metrics": metrics,  # all that was judged, rows by task
        "claims": [v.to_dict() for v in verdicts],
        "preconditions": [
            {"name": p.name, "passed": bool(p.passed), "detail": p.detail} for p in preconditions
        ],
    }


def _row(description: str, scores: np.ndarray) -> dict[str, Any]:
    interval = statistics.interval_of_iqm(scores)
    return {
        "description": description,
        "iqm": float(statistics.iqm(_flat(scores))),
        "interval": [float(interval.lower), float(interval.upper)],
    }


def _flat(scores: np.ndarray) -> np.ndarray:
    """Scores `[S, N]` of `[S, N]` or `[S, P, N]`."""
    return scores.reshape(len(scores), -1)


def table(summary: Mapping[str, Any]) -> str:
    """The result for a terminal: arms by tasks, then verdicts."""
    tasks = summary["tasks"]
    width = max(12, *(len(name) for name in summary["arms"]))
    lines = [
        f"{'arm':{width}s} {'IQM':>6s}  {'95 % interval':>15s}  " + "  ".join(f"{t:>14s}" for t in tasks)
    ]
    for name, row in summary["arms"].items():
        low, high = row["interval"]
        cells = [f"{_number(np.mean(summary['scores'][name][t])):>14s}" for t in tasks]
        interval = f"[{_number(low)}, {_number(high)}]"
        lines.append(f"{name:{width}s} {_number(row['iqm']):>6s}  {interval:>15s}  " + "  ".join(cells))
    lines += summary.get("notes", [])
    for check in summary["preconditions"]:
        lines.append(f"{'ok ' if check['passed'] else 'NOT'} {check['name']}: {check['detail']}")
    for claim in summary["claims"]:
        lines.append(f"{claim['verdict']}: {claim['id']} {claim['statement']} ({claim['reason']})")
        effects = effects_by_task(claim)
        told = (effects and f"by task: {effects}", shown_by_seeds(claim), claim.get("budget"))
        lines += [f"    {line}" for line in told if line]
    return "\n".join(lines)


def shown_by_seeds(claim: Mapping[str, Any]) -> str:
    """The smallest effect that the seeds of a judged claim could have shown."""
    smallest = claim.get("smallest_effect")
    return "" if smallest is None else f"these seeds show {_number(smallest)} with 80 % power"


def _number(value: float) -> str:
    """Two decimals, or three digits of what is smaller than a tenth."""
    return f"{value:.2f}" if value == 0.0 or abs(value) >= 0.1 else f"{value:.3g}"
