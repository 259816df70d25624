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
    verdicts = harness.judge(claims, scores, preconditions, preset=preset)
    return {
        "arms": {name: {**_row(arm, scores[name]), **budgets[name]} for name, arm in arms.items()},
        "tasks": list(references),
        "scores": {a: dict(zip(references, s.tolist(), strict=True)) for a, s in scores.items()},
        "returns": returns,
        "references": {task: ref._asdict() for task, ref in references.items()},
        "claims": [v.to_dict() for v in verdicts],
        "preconditions": [
            {"name": p.name, "passed": bool(p.passed), "detail": p.detail} for p in preconditions
        ],
        "budgets": budgets,
    }


def _row(arm: Arm, scores: np.ndarray) -> dict[str, Any]:
    interval = statistics.interval_of_iqm(scores)
    return {
        "description": arm.description,
        "iqm": float(statistics.iqm(scores)),
        "interval": [float(interval.lower), float(interval.upper)],
    }


def table(summary: Mapping[str, Any]) -> str:
    """The result for a terminal: arms by tasks, then verdicts."""
    tasks = summary["tasks"]
    lines = [
        f"{'arm':12s} {'IQM':>6s}  {'95 % interval':>15s}  " + "  ".join(f"{t:>14s}" for t in tasks)
    ]
    for name, row in summary["arms"].items():
        low, high = row["interval"]
        cells = [f"{np.mean(summary['scores'][name][t]):14.2f}" for t in tasks]
        interval = f"[{low:.2f}, {high:.2f}]"
        lines.append(f"{name:12s} {row['iqm']:6.2f}  {interval:>15s}  " + "  ".join(cells))
    for check in summary["preconditions"]:
        lines.append(f"{'ok ' if check['passed'] else 'NOT'} {check['name']}: {check['detail']}")
    for claim in summary["claims"]:
        lines.append(f"{claim['verdict']}: {claim['id']} {claim['statement']} ({claim['reason']})")
    return "\n".join(lines)
