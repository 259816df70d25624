"""Frozen claims: what is claimed, with which settings and seeds, in a file committed before the run.

The file holds, too, the scores of a run on development seeds, from which the smallest effect that the
claim seeds can show was computed: a claim that they could not show is refused, and redesigned.
"""

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxagent.config import fingerprint
from jaxagent.evaluate.claim import DEFAULT_METRIC, Claim
from jaxagent.evaluate.claims import DIRECTIONAL_BELOW, Precondition, Verdict, judge
from jaxagent.files import write_json
from jaxagent.study.config import SeedConfig
from jaxagent.study.study import Study
from jaxagent.train.manifest import git

DEVELOPMENT_SEEDS = 1000  # and up
FEWEST = 5  # development units, for a spread
SIZED = ("superiority", "non_inferiority", "equivalence", "ordering")  # kinds whose margin is an effect


class NotFrozen(ValueError):
    """Claims that must not be frozen as they are."""


def asked(experiment: str, preset: str, config: Any, study: Study) -> dict[str, Any]:
    """What is frozen of a preset, as plain JSON."""
    claims = [dataclasses.asdict(claim) for claim in study.claims]
    return {
        "experiment": experiment,
        "preset": preset,
        "fingerprint": fingerprint(config),
        "seeds": [[seeds.first, seeds.count] for seeds in seeds_of(config)],
        "claims": json.loads(json.dumps([_without_infinity(claim) for claim in claims])),
    }


def _without_infinity(claim: Mapping[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and math.isinf(v) else v for k, v in claim.items()}


def seeds_of(config: Any) -> list[SeedConfig]:
    """The seeds that a configuration names, in the order of its fields."""

    def walk(value: Any) -> Iterator[SeedConfig]:
        if isinstance(value, SeedConfig):
            yield value
        elif dataclasses.is_dataclass(value):
            for field in dataclasses.fields(value):
                yield from walk(getattr(value, field.name))
        elif isinstance(value, tuple):
            for item in value:
                yield from walk(item)

    return list(walk(config))


def freeze(
    path: Path, what: Mapping[str, Any], study: Study, development: Mapping[str, Any], why: str
) -> list[str]:
    """Write what is frozen with the summary of a `development` run; returns a line a claim.

    `what` is `asked`. Raises `NotFrozen` with every reason: development seeds below 1000 or fewer than
    five, a precondition that failed on them, a margin below the smallest effect, a task at an end of the
    scale. A file there that says otherwise was frozen before: then seeds must be new, and `why` told.
    """
    old = json.loads(path.read_text()) if path.exists() else None
    problems = _development_problems(what, development) + _change_problems(old, what, why)
    if problems:
        raise NotFrozen("\n".join(problems))
    verdicts = judged_again(study, development)
    growth = _count(what["seeds"]) / _count(development["seeds"])
    effects = {v.id: _scaled(v, growth) for v in verdicts}
    problems = [p for c in study.claims for p in _claim_problems(c, verdicts, effects, development, what)]
    if problems:
        raise NotFrozen("\n".join(problems))
    kept = {key: development[key] for key in ("seeds", "fingerprint", "git", "tasks", "metrics")}
    content = {**what, "smallest_effects": effects, "development": kept}
    content |= {"replaces": {"why": why, **{k: old[k] for k in ("seeds", "claims")}}} if old else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, content)
    return [
        f"{v.id}: {v.verdict} on development seeds, difference {_told(v.difference)}, margin {v.margin:g}, "
        f"smallest effect of the claim seeds {_told(effects[v.id])}"
        for v in verdicts
    ]


def _told(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def judged_again(study: Study, summary: Mapping[str, Any]) -> list[Verdict]:
    """Verdicts on the scores that a summary holds, by the claims of the study."""
    scores = {
        arm if metric == DEFAULT_METRIC else (metric, arm): np.array(rows)
        for metric, table in summary["metrics"].items()
        for arm, rows in table.items()
    }
    checks = [Precondition(**check) for check in summary["preconditions"]]
    options = {"scale": study.scale, "shared_seeds": study.shared_seeds}
    return judge(study.claims, scores, checks, tasks=summary["tasks"], **options)


def _scaled(verdict: Verdict, growth: float) -> float | None:
    """The smallest effect of `growth` times as many units as the development seeds."""
    if verdict.smallest_effect is None:
        return None
    return round(verdict.smallest_effect / math.sqrt(growth), 6)


def _count(seeds: Sequence[Sequence[int]]) -> int:
    return sum(count for _, count in seeds)


def _development_problems(what: Mapping[str, Any], development: Mapping[str, Any]) -> list[str]:
    problems = []
    if development.get("experiment") != what["experiment"]:
        problems.append(
            f"development run: got one of {development.get('experiment')!r}, expected {what['experiment']!r}."
        )
    seeds = development.get("seeds", [])
    if not seeds or any(first < DEVELOPMENT_SEEDS for first, _ in seeds):
        problems.append(
            f"development run: got seeds {seeds}, expected all from {DEVELOPMENT_SEEDS} on; claim seeds are "
            "run once, after freezing."
        )
    failed = [check["name"] for check in development.get("preconditions", []) if not check["passed"]]
    problems += [f"development run: precondition {name!r} failed; redesign the set-up." for name in failed]
    if any(first + count > DEVELOPMENT_SEEDS for first, count in what["seeds"]):
        problems.append(f"preset: got seeds {what['seeds']}, expected claim seeds below {DEVELOPMENT_SEEDS}.")
    return problems


def _change_problems(old: Mapping[str, Any] | None, what: Mapping[str, Any], why: str) -> list[str]:
    if old is None or {key: old[key] for key in what} == what:
        return []
    problems = []
    ranges = [range(first, first + count) for first, count in old["seeds"]]
    for first, count in what["seeds"]:
        again = [seed for seed in range(first, first + count) if any(seed in r for r in ranges)]
        if again:
            problems.append(
                f"{what['preset']}: got seeds {again[0]} to {again[-1]}, which were frozen with other claims "
                "or settings, expected new ones; set seeds.first."
            )
    if not why:
        problems.append("got no reason for what changes, expected one line: --why TEXT.")
    return problems


def _claim_problems(
    claim: Claim,
    verdicts: Sequence[Verdict],
    effects: Mapping[str, float | None],
    development: Mapping[str, Any],
    what: Mapping[str, Any],
) -> list[str]:
    (verdict,) = (v for v in verdicts if v.id == claim.id)
    effect, problems = effects[claim.id], []
    if (verdict.seeds or 0) < FEWEST and _count(what["seeds"]) >= DIRECTIONAL_BELOW:
        problems.append(
            f"{claim.id}: got {verdict.seeds} development units, expected at least {FEWEST} for a spread."
        )
    if claim.kind in SIZED and (effect is None or claim.margin < effect) and verdict.seeds >= FEWEST:
        problems.append(
            f"{claim.id}: got margin {claim.margin:g}, expected at least {_told(effect)}, the smallest "
            f"effect that seeds {what['seeds']} show with 80 % power; take more seeds, or claim more."
        )
    stuck = [task for task in verdict.at_end if task not in verdict.dropped]
    if stuck:
        problems.append(
            f"{claim.id}: {', '.join(stuck)} sits at an end of the scale on development seeds, expected "
            "room; make it harder or easier, or name it in may_drop."
        )
    return problems


def status(path: Path, what: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """Whether a run that starts now is of frozen claims: `is_confirmed`, the `commit`, and else why not."""

    def exploratory(reason: str) -> dict[str, Any]:
        return {"is_confirmed": False, "commit": None, "reason": reason}

    if not path.exists():
        return exploratory("its claims were not frozen")
    frozen = json.loads(path.read_text())
    differing = [key for key in what if frozen[key] != what[key]]
    if differing:
        return exploratory(f"{', '.join(differing)} are not those that were frozen")
    try:
        commit = git(root, "log", "-1", "--format=%H", "--", str(path))
        if git(root, "status", "--porcelain"):
            return exploratory("the working tree has changes")
    except OSError as error:
        return exploratory(f"git cannot say what is committed ({error})")
    if not commit:
        return exploratory("the file of its claims is not committed")
    return {"is_confirmed": True, "commit": commit, "reason": ""}
