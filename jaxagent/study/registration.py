"""Frozen claims: what is claimed, with which settings and seeds, in a file committed before the run.

The file holds, too, the scores of a run on development seeds, from which the smallest effect that the
claim seeds can show was computed: a claim that they could not show is refused, and redesigned.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxagent.config import fingerprint
from jaxagent.evaluate import statistics
from jaxagent.evaluate.claim import DEFAULT_METRIC, Claim
from jaxagent.evaluate.claims import DIRECTIONAL_BELOW, LEVEL, Precondition, Verdict, judge, plain
from jaxagent.files import write_json
from jaxagent.study.config import SeedConfig
from jaxagent.study.study import Study, measured
from jaxagent.train.manifest import git

DEVELOPMENT_SEEDS = 1000  # and up
FEWEST = 5  # development units, for a spread
SIZED = ("superiority", "non_inferiority", "equivalence", "ordering")  # kinds whose margin is an effect


class NotFrozen(ValueError):
    """Claims that must not be frozen as they are."""


def asked(experiment: str, preset: str, config: Any, study: Study) -> dict[str, Any]:
    """What is frozen of a preset, as plain JSON."""
    return {
        "experiment": experiment,
        "preset": preset,
        "fingerprint": fingerprint(config),
        "seeds": [[seeds.first, seeds.count] for seeds in seeds_of(config)],
        "tasks": list(study.tasks),
        "scale": None if study.scale is None else list(study.scale),
        "shared_seeds": study.shared_seeds,
        "claims": [_told_claim(claim) for claim in study.claims],
    }


def _told_claim(claim: Claim) -> dict[str, Any]:
    """A claim as plain JSON; `tasks` only where it names some, as claims were frozen before it could."""
    told = plain(dataclasses.asdict(claim))
    return {name: value for name, value in told.items() if name != "tasks" or value}


def seeds_of(config: Any) -> list[SeedConfig]:
    """The seeds that a configuration names, in the order of its fields."""
    found: list[SeedConfig] = []

    def note(seeds: SeedConfig) -> SeedConfig:
        found.append(seeds)
        return seeds

    with_seeds(config, note)
    return found


def differs_in_seeds_alone(config: Any, run: Mapping[str, Any]) -> bool:
    """Whether a run, its "seeds" and "fingerprint", is of a configuration with other seeds, or the same."""
    seeds = run["seeds"]
    if len(seeds) != len(seeds_of(config)):
        return False
    given = iter(seeds)
    return fingerprint(with_seeds(config, lambda _: SeedConfig(*next(given)))) == run["fingerprint"]


def is_development(run: Mapping[str, Any]) -> bool:
    """Whether all of a run's "seeds" are development seeds."""
    return bool(run.get("seeds")) and all(first >= DEVELOPMENT_SEEDS for first, _ in run["seeds"])


def with_seeds(value: Any, change: Callable[[SeedConfig], SeedConfig]) -> Any:
    """A configuration, or a part of one, with every `SeedConfig` changed, in the order of its fields."""
    if isinstance(value, SeedConfig):
        return change(value)
    if dataclasses.is_dataclass(value):
        fields = {f.name: with_seeds(getattr(value, f.name), change) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)
    return tuple(with_seeds(item, change) for item in value) if isinstance(value, tuple) else value


def freeze(
    path: Path,
    config: Any,
    what: Mapping[str, Any],
    study: Study,
    development: Mapping[str, Any],
    *,
    why: str = "",
    seen: Sequence[Sequence[int]] = (),
) -> list[str]:
    """Write what is frozen with the summary of a `development` run; returns a line a claim.

    `what` is `asked`; `seen` are seeds `(first, count)` that runs of the experiment were judged on.
    Raises `NotFrozen` with every reason: a development run of other settings than the preset's, but for
    seeds, which are from 1000 on and at least five; one with changes that no commit has; a precondition
    that failed in it; a margin below the smallest effect; gated claims that so few seeds cannot pass; a
    task at an end of the scale; claim seeds that were seen, or frozen with other claims; a change
    without a reason `why`.
    """
    old = json.loads(path.read_text()) if path.exists() else {}
    if old and {key: old.get(key) for key in what} == what:
        return [f"{claim['id']}: as it was frozen" for claim in what["claims"]]
    replaced = old.get("replaces", [])
    if old:
        replaced = [*replaced, {"why": why, **{key: old[key] for key in ("seeds", "claims", "fingerprint")}}]
    problems = _development_problems(config, what, development)
    problems += _seed_problems(what, [*seen, *(pair for one in replaced for pair in one["seeds"])])
    problems += ["got no reason for what changes, expected one line: --why TEXT."] if old and not why else []
    if problems:
        raise NotFrozen("\n".join(problems))
    verdicts = judged_again(study, development)
    growth = _count(what["seeds"]) / _count(development["seeds"])
    num_gated = sum(verdict.gated for verdict in verdicts)
    effects = {v.id: _effect(v, growth, num_gated) for v in verdicts}
    claims = [claim for claim in study.claims if claim.id in effects]
    problems = [p for c in claims for p in _claim_problems(c, verdicts, effects, growth, num_gated)]
    if problems:
        raise NotFrozen("\n".join(problems))
    kept = {key: development[key] for key in ("seeds", "fingerprint", "git", "tasks", "metrics")}
    content = {**what, "smallest_effects": effects, "development": kept}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, content | ({"replaces": replaced} if replaced else {}))
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
    return judge(measured(study, scores), scores, checks, tasks=summary["tasks"], **options)


def _units(verdict: Verdict, growth: float) -> int:
    """Units of the claim seeds, where those of the development run are so many times as few."""
    return round((verdict.seeds or 0) * growth)


def _effect(verdict: Verdict, growth: float, num_gated: int) -> float | None:
    """The smallest effect that the claim seeds show, with the spread of the development seeds.

    A gated claim is tested at the level that Holm asks of the first; an equivalence needs both of its
    sides, each with a power whose failures add up. One unit shows none.
    """
    if verdict.error is None or _units(verdict, growth) < 2:
        return None
    level = LEVEL / num_gated if verdict.gated else LEVEL
    power = 0.9 if verdict.kind == "equivalence" else 0.8
    error = verdict.error / math.sqrt(growth)
    return round(statistics.smallest_effect(error, _units(verdict, growth), power, level), 6)


def _count(seeds: Sequence[Sequence[int]]) -> int:
    return sum(count for _, count in seeds)


def _development_problems(config: Any, what: Mapping[str, Any], development: Mapping[str, Any]) -> list[str]:
    missing = [key for key in ("experiment", "seeds", "metrics", "git") if key not in development]
    if missing:
        return [
            f"development run: got a summary without {missing}, expected one of this version; run it again."
        ]
    problems, seeds = [], development["seeds"]
    if development["experiment"] != what["experiment"]:
        return [
            f"development run: got one of {development['experiment']!r}, expected {what['experiment']!r}."
        ]
    if not is_development(development):
        problems.append(
            f"development run: got seeds {seeds}, expected all from {DEVELOPMENT_SEEDS} on; claim seeds are "
            "run once, after freezing."
        )
    if not differs_in_seeds_alone(config, development):
        problems.append(
            f"development run: got other settings (config {development['fingerprint']}), expected the "
            "preset's with other seeds; run it with --seeds.first alone."
        )
    if development["git"].get("dirty"):
        problems.append("development run: got one with changes that no commit has, expected a clean tree.")
    failed = [check["name"] for check in development.get("preconditions", []) if not check["passed"]]
    problems += [f"development run: precondition {name!r} failed; redesign the set-up." for name in failed]
    return problems


def _seed_problems(what: Mapping[str, Any], seen: Sequence[Sequence[int]]) -> list[str]:
    """Claim seeds are below the development seeds, and none that was looked at."""
    problems, known = [], {seed for first, count in seen for seed in range(first, first + count)}
    for first, count in what["seeds"]:
        if first + count > DEVELOPMENT_SEEDS:
            problems.append(
                f"preset: got seeds {first} to {first + count - 1}, expected claim seeds below "
                f"{DEVELOPMENT_SEEDS}."
            )
        again = [seed for seed in range(first, first + count) if seed in known]
        if again:
            problems.append(
                f"preset: got seeds {again[0]} to {again[-1]}, which were run or frozen before, expected new "
                "ones; set seeds.first."
            )
    return problems


def _claim_problems(
    claim: Claim,
    verdicts: Sequence[Verdict],
    effects: Mapping[str, float | None],
    growth: float,
    num_gated: int,
) -> list[str]:
    (verdict,) = (v for v in verdicts if v.id == claim.id)
    effect, units, problems = effects[claim.id], _units(verdict, growth), []
    if units < DIRECTIONAL_BELOW:  # a direction at most, whatever the margin
        return []
    if (verdict.seeds or 0) < FEWEST:
        problems.append(
            f"{claim.id}: got {verdict.seeds} development units, expected at least {FEWEST} for a spread."
        )
    elif claim.kind in SIZED and (effect is None or claim.margin < effect):
        problems.append(
            f"{claim.id}: got margin {claim.margin:g}, expected at least {_told(effect)}, the smallest "
            f"effect that {units} seeds show with 80 % power; take more seeds, or claim more."
        )
    if claim.gated and num_gated * 0.5**units >= LEVEL:
        problems.append(
            f"{claim.id}: got {units} seeds and {num_gated} gated claims, expected p = {0.5**units:.3g}, the "
            f"least that sign flips reach, below {LEVEL / num_gated:.3g}; take more seeds, or gate fewer."
        )
    stuck = [task for task in verdict.at_end if task not in verdict.dropped]
    if stuck:
        problems.append(
            f"{claim.id}: {', '.join(stuck)} sits at an end of the scale on development seeds, expected "
            "room; make it harder or easier, or name it in may_drop."
        )
    return problems


def has_changed(root: Path, commit: str, code: Sequence[str]) -> bool:
    """Whether paths of a repository, its working tree included, differ from a commit; OSError without git."""
    return bool(git(root, "diff", "--name-only", commit, "--", *code))


def status(path: Path, what: Mapping[str, Any], code: Sequence[str]) -> dict[str, Any]:
    """Whether a run that starts now is of frozen claims: `is_confirmed`, the `commit`, and else why not.

    `code` are the paths that must be as they were when the claims were committed.
    """

    def exploratory(reason: str) -> dict[str, Any]:
        return {"is_confirmed": False, "commit": None, "reason": reason}

    if not path.exists():
        return exploratory("its claims were not frozen")
    frozen, place = json.loads(path.read_text()), path.resolve()
    differing = [key for key in what if frozen.get(key) != what[key]]
    if differing:
        return exploratory(f"{', '.join(differing)} are not those that were frozen")
    try:
        root = Path(git(place.parent, "rev-parse", "--show-toplevel"))
        commit = git(root, "log", "-1", "--format=%H", "--", str(place))
        if git(root, "status", "--porcelain"):
            return exploratory("the working tree has changes")
        if commit and has_changed(root, commit, code):
            return exploratory(f"the code has changed since {commit[:8]}, where its claims were frozen")
    except OSError as error:
        return exploratory(f"git cannot say what is committed ({error})")
    if not commit:
        return exploratory("the file of its claims is not committed")
    return {"is_confirmed": True, "commit": commit, "reason": ""}
