"""Comparing arms over tasks and seeds: normalised scores, claims and the summary of a run."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from envs.returns import Reference
from jaxagent.evaluate import claims as harness
from jaxagent.evaluate import statistics
from jaxagent.evaluate.claims import Claim, Precondition


class Arm(NamedTuple):
    """One way of learning, as it appears in tables."""

    description: str
    kind: str  # "transformer" or "raw": which network acts


def scores_of(
    returns: Mapping[str, Mapping[str, Sequence[float]]], references: Mapping[str, Reference]
) -> dict[str, np.ndarray]:
    """Normalised scores `[tasks, seeds]` per arm from `returns[arm][task]`."""
    return {
        arm: np.stack(
            [
                statistics.normalise(np.asarray(by_task[task]), ref.random, ref.expert)
                for task, ref in references.items()
            ]
        )
        for arm, by_task in returns.items()
    }


def summarise(
    *,
    arms: Mapping[str, Arm],
    returns: Mapping[str, Mapping[str, Sequence[float]]],
    references: Mapping[str, Reference],
    claims: Sequence[Claim],
    preconditions: Sequence[Precondition],
    budgets: Mapping[str, Mapping[str, Any]],
    preset: str,
) -> dict[str, Any]:
    """The parts of `summary.json` that a comparison knows."""
    scores = scores_of(returns, references)
    about = {name: arm.description for name, arm in arms.items()}
    shown = {name: scores[name] for name in arms}
    summary = judged(
        claims=claims, scores=scores, preconditions=preconditions, preset=preset, shown=shown,
        about=about, tasks=list(references),
    )  # fmt: skip
    for name, row in summary["arms"].items():
        row.update(budgets[name])
    return summary | {
        "returns": returns,
        "references": {task: ref._asdict() for task, ref in references.items()},
        "budgets": budgets,
    }


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
) -> dict[str, Any]:
    """Verdicts on `scores` (see `claims.judge`) and the table of arms `shown [tasks, seeds]`.

    `shared_seeds`: one training gives a seed's scores of all tasks.
    """
    verdicts = harness.judge(claims, scores, preconditions, preset=preset, shared_seeds=shared_seeds)
    return {
        "arms": {name: _row(about[name], table) for name, table in shown.items()},
        "tasks": list(tasks),
        "scores": {a: dict(zip(tasks, s.tolist(), strict=True)) for a, s in shown.items()},
        "claims": [v.to_dict() for v in verdicts],
        "preconditions": [
            {"name": p.name, "passed": bool(p.passed), "detail": p.detail} for p in preconditions
        ],
    }


def _row(description: str, scores: np.ndarray) -> dict[str, Any]:
    interval = statistics.interval_of_iqm(scores)
    return {
        "description": description,
        "iqm": float(statistics.iqm(scores)),
        "interval": [float(interval.lower), float(interval.upper)],
    }


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
    return "\n".join(lines)


def _number(value: float) -> str:
    """Two decimals, or three digits of what is smaller than a tenth."""
    return f"{value:.2f}" if value == 0.0 or abs(value) >= 0.1 else f"{value:.3g}"
