"""Claims about arms, and the verdicts that paired training seeds allow on them.

A claim `(metric, arm A, arm B, kind, margin)` is fixed before its seeds are run. Its kind turns
the arms' scores [S, N] (or [S, P, N], see `statistics`) into *sides*: signed advantages that must
all be above 0 for the claim to hold. With L and U the ends of the bootstrap interval, D the IQM of
A minus that of B, and m the margin:

kind             PASS                            FAIL            interval, one-sided level
superiority      L(D) > 0 and D >= m             U(D) < m        90 %, 95 %
non_inferiority  L(D) > -m                       U(D) < -m       90 %, 95 %
equivalence      L(D) > -m and U(D) < m (TOST)   U < -m or L > m 90 %, 95 %
threshold        L(A) > m and A >= reach         U(A) < reach    95 %, 97.5 %
ratio            L(A / B) > m                    U(A / B) < m    95 %, 97.5 %
ordering         superiority of every step       of any step     90 %, 95 %
slope            low < L and U < high            U < low, L > high  95 %, 97.5 %

`direction="below"` mirrors a kind that has a direction. FAIL means that the data exclude the claim
as it was written, its size included: a real effect that is shown to be smaller than the margin
fails. Everything else is INCONCLUSIVE, an absent effect behind a wide interval included.

Below 8 seeds a one-sided exact sign-flip test over seeds must agree with the interval, for PASS and
for FAIL. A gated claim needs it at any number of seeds, adjusted for PASS by Holm over all gated
claims of the call. Why also from 8 seeds on: with no effect, the percentile bootstrap alone said
"above 0" in 5 to 8 % of simulated experiments with 8 seeds, and in 15 % where one training gives
the scores of three strata without `shared_seeds`; sign flips of whole seeds stay near 5 % in both.

Below 5 seeds a verdict is DIRECTIONAL at best, never FAIL; see `_decide_direction`. A failed
precondition makes every verdict VOID, and no score is looked at.

An IQM is taken within each task and then averaged over tasks; every verdict has the effect by task. A
task where an arm sits at an end of the scale can show no difference, and its claims that compare arms
do not PASS; they FAIL only where the end hides nothing of what is claimed (A at the worst, or B at the
best). Where all arms sit at one end, the task is left out if the claim said so (`may_drop`).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from jaxagent.evaluate import statistics
from jaxagent.evaluate.claim import DEFAULT_METRIC, Claim, arms_of, check_claims, check_member
from jaxagent.evaluate.evidence import BOUND_TAIL, READERS, Evidence, Side, undefined

VOID, PASS, DIRECTIONAL, FAIL, INCONCLUSIVE = VERDICTS = (
    "VOID",
    "PASS",
    "DIRECTIONAL",
    "FAIL",
    "INCONCLUSIVE",
)
PRESETS = ("smoke", "cpu", "gpu", "paper")
DIRECTIONAL_PRESETS = ("smoke", "cpu")

LEVEL = 0.05  # of the sign-flip test, adjusted or not
SIGN_FLIP_BELOW = 8  # seeds; below it an ungated claim needs the sign-flip test too
DIRECTIONAL_BELOW = 5  # seeds, or pretrainings where seeds are nested in them
MIN_SEEDS = 2  # for DIRECTIONAL: one seed has no replication
MIN_TASKS = 2  # for DIRECTIONAL: one task leaves nothing to resample
SCALE = (0.0, 1.0)  # ends of the metric "score": random play and the best, or never and always
END_REACH = 0.02  # an arm's IQM on a task this near to an end, or beyond it, is at it
ONE_ARMED = ("threshold", "slope")  # kinds that compare no two arms on a task
ROUNDING = 1e-9  # scores closer than this are equal


@dataclass(frozen=True)
class Precondition:
    """A check made before any arm ran, such as "the expert solves the task"."""

    name: str
    passed: bool
    detail: str = ""


@dataclass(frozen=True)
class Verdict:
    """The verdict of the seeds on one claim; None where a number does not exist."""

    id: str
    statement: str
    kind: str
    verdict: str  # one of VERDICTS
    difference: float | None  # A - B; threshold: A; ratio: A / B; slope: it; ordering: worst step
    interval: tuple[float | None, float | None]  # of the difference, at the kind's level
    margin: float
    seeds: int | None
    p_value: float | None  # sign flips, one-sided
    adjusted_p_value: float | None  # Holm over gated claims; an ungated claim's own p-value
    probability_of_improvement: float | None  # two-arm kinds, in the claimed direction
    gated: bool
    reason: str
    by_task: dict[str, float | None] | None = None  # `difference` of each task, the dropped included
    at_end: tuple[str, ...] = ()  # tasks where an arm sits at an end of the scale
    dropped: tuple[str, ...] = ()  # those of them that the claim let go
    smallest_effect: float | None = None  # that so many seeds of this spread show with 80 % power
    error: float | None = None  # standard, of `difference`

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values: None for what does not exist or is not finite."""
        return {name: plain(value) for name, value in asdict(self).items()}


class AtEnd(NamedTuple):
    """A task where an arm sits at an end of the scale."""

    told: str  # the arm and its score
    is_shared: bool  # all arms sit there
    hides: bool  # without the end the claim could have had more to show


class Trial(NamedTuple):
    """A claim with its evidence, before the verdicts of the other claims are known."""

    claim: Claim
    evidence: Evidence
    num_seeds: int
    p_value: float | None
    by_task: dict[str, float | None]
    at_end: dict[str, AtEnd]  # by task
    dropped: tuple[str, ...]


def judge(
    claims: Sequence[Claim],
    scores: Mapping,
    preconditions: Iterable[Precondition] = (),
    preset: str = "cpu",
    directional_below: int = DIRECTIONAL_BELOW,
    *,
    tasks: Sequence[str] | None = None,
    scale: tuple[float, float] | None = SCALE,
    shared_seeds: bool = False,
    num_samples: int = statistics.NUM_SAMPLES,
    seed: int = 0,
) -> list[Verdict]:
    """Verdicts on all claims of one preset, in order; the module's docstring has the rules.

    scores: arm -> [S, N], or [S, P, N] where N downstream seeds are nested in P pretraining seeds
    (the seeds counted are then P). A claim on another metric than "score" reads (metric, arm).
    Give all gated claims of a preset in one call, since Holm counts them. `tasks` names the strata;
    `scale` has the ends of the metric "score", or None where it has none. `shared_seeds`: one
    training gives the scores of all strata; see `statistics.paired_bootstrap`.
    """
    check_claims(claims)
    check_preset(preset)
    failed = [check for check in preconditions if not check.passed]
    if failed:
        return [_void(claim, failed) for claim in claims]
    draws = {"num_samples": num_samples, "seed": seed, "shared_seeds": shared_seeds}
    trials = [_try(claim, scores, tasks, scale, draws) for claim in claims]
    adjusted = _adjust(trials)
    may_direct = _family(preset) in DIRECTIONAL_PRESETS
    return [
        _verdict(trial, p, *_within_scale(trial, *_decide(trial, p, directional_below, may_direct, draws)))
        for trial, p in zip(trials, adjusted, strict=True)
    ]


def check_preset(preset: str) -> None:
    """Raise ValueError unless a preset is one of `PRESETS`, or of its family, as "gpu-hopper".

    To be asked before a run: a name that is refused only when claims are judged costs its result.
    """
    check_member("preset", _family(preset), PRESETS)


def _family(preset: str) -> str:
    return preset.partition("-")[0]


def gate_passes(verdicts: Sequence[Verdict]) -> bool:
    """Whether there are gated claims and every one of them is PASS."""
    gated = [verdict.verdict == PASS for verdict in verdicts if verdict.gated]
    return bool(gated) and all(gated)


def _try(
    claim: Claim,
    scores: Mapping,
    tasks: Sequence[str] | None,
    scale: tuple[float, float] | None,
    draws: Mapping,
) -> Trial:
    """Evidence and unadjusted p-value of one claim."""
    arms = arms_of(claim, scores)
    num_tasks, num_seeds = arms[0].shape[:2]
    names = [str(i) for i in range(num_tasks)] if tasks is None else list(tasks)
    if len(names) != num_tasks and claim.metric != DEFAULT_METRIC:  # of something else than tasks
        names = [str(i) for i in range(num_tasks)]
    if len(names) != num_tasks:
        raise ValueError(
            f"claim {claim.id!r}: got scores of {num_tasks} strata and {len(names)} tasks {names}, expected "
            "as many; fix: name each row of the scores"
        )
    if len(set(names)) < num_tasks or not set(claim.may_drop) <= set(names):
        raise ValueError(
            f"claim {claim.id!r}: got tasks {names} and may_drop {claim.may_drop}, expected different "
            "names, and of those; fix: rename a task, or what may be dropped"
        )
    if claim.tasks:
        names, arms = _of_its_tasks(claim, names, arms)
    at_end = _at_ends(claim, dict(zip(names, zip(*arms, strict=True), strict=True)), scale)
    dropped = tuple(name for name, end in at_end.items() if end.is_shared and name in claim.may_drop)
    kept = [i for i, name in enumerate(names) if name not in dropped]
    each = {n: _read(claim, [a[i : i + 1] for a in arms], draws).point for i, n in enumerate(names)}
    evidence = undefined("every task sits at an end of the scale")
    if kept:
        evidence = _read(claim, [arm[kept] for arm in arms], draws)
    p_values = [statistics.sign_flip_p_value(_per_seed(side)) for side in evidence.sides]
    return Trial(claim, evidence, num_seeds, max(p_values, default=None), each, at_end, dropped)


def _of_its_tasks(
    claim: Claim, names: Sequence[str], arms: Sequence[np.ndarray]
) -> tuple[list[str], list[np.ndarray]]:
    """The tasks that a claim is about, and the scores of its arms on them."""
    if not set(claim.tasks) <= set(names) or len(set(claim.tasks)) < len(claim.tasks):
        raise ValueError(
            f"claim {claim.id!r}: got tasks {claim.tasks}, expected different ones of {list(names)}; fix: "
            "name tasks of the study"
        )
    rows = [names.index(name) for name in claim.tasks]
    return list(claim.tasks), [arm[rows] for arm in arms]


def _read(claim: Claim, arms: Sequence[np.ndarray], draws: Mapping) -> Evidence:
    """Evidence of some strata on a claim."""
    indices = statistics.bootstrap_indices(arms[0].shape, **draws)
    return READERS[claim.kind](claim, arms, [statistics.resample(arm, indices) for arm in arms])


def _at_ends(
    claim: Claim, by_task: Mapping[str, Sequence[np.ndarray]], scale: tuple[float, float] | None
) -> dict[str, AtEnd]:
    """The tasks where an arm of a claim that compares arms sits at an end of the scale."""
    if scale is None or claim.kind in ONE_ARMED or claim.metric != DEFAULT_METRIC:
        return {}
    found = {}
    for task, rows in by_task.items():
        values = np.array([float(statistics.iqm(row.reshape(1, -1))) for row in rows])
        low, high = values <= scale[0] + END_REACH, values >= scale[1] - END_REACH
        worst, best = (low, high) if claim.sign > 0.0 else (high, low)
        if (low | high).any():
            first = int(np.argmax(low | high))
            told = f"{claim.arms[first]} {values[first]:.2f}"
            is_shared = bool(low.all() or high.all())
            is_cut = claim.kind != "equivalence" and bool(best[0] or worst[-1])
            found[task] = AtEnd(told, is_shared, is_shared or is_cut)
    return found


def _adjust(trials: Sequence[Trial]) -> list[float | None]:
    """p-values after Holm over the gated claims; one without a p-value counts as 1."""
    gated = [i for i, trial in enumerate(trials) if trial.claim.gated]
    raw = [1.0 if trials[i].p_value is None else trials[i].p_value for i in gated]
    held = dict(zip(gated, statistics.holm(raw).tolist(), strict=True))
    return [None if trial.p_value is None else held.get(i, trial.p_value) for i, trial in enumerate(trials)]


def _decide(
    trial: Trial, adjusted: float | None, directional_below: int, may_direct: bool, draws: Mapping
) -> tuple[str, str]:
    """Verdict and reason of one trial."""
    if trial.evidence.undefined:
        return INCONCLUSIVE, trial.evidence.undefined
    if trial.num_seeds < directional_below:
        return _decide_direction(trial, directional_below, may_direct, draws)
    needs_test = trial.claim.gated or trial.num_seeds < SIGN_FLIP_BELOW
    tail = trial.evidence.tail
    against = [_objection(side, tail, needs_test) for side in trial.evidence.sides]
    if any(against):
        return FAIL, next(filter(None, against))
    missing = [_shortfall(side, tail) for side in trial.evidence.sides]
    if any(missing):
        return INCONCLUSIVE, next(filter(None, missing))
    if needs_test and adjusted is not None and adjusted >= LEVEL:
        return INCONCLUSIVE, _describe_p(trial, adjusted)
    return PASS, "bounds and claimed size hold" + (", sign flips agree" if needs_test else "")


def _within_scale(trial: Trial, verdict: str, reason: str) -> tuple[str, str]:
    """A verdict and its reason, where no end of the scale stands in the way."""
    stuck = {task: end for task, end in trial.at_end.items() if task not in trial.dropped}
    hides = any(end.hides for end in stuck.values())
    if not stuck or trial.evidence.undefined or (verdict == FAIL and not hides):
        return verdict, reason
    told = ", ".join(f"{task} ({end.told})" for task, end in stuck.items())
    return INCONCLUSIVE, f"at an end of the scale, where no difference shows: {told}"


def _objection(side: Side, tail: float, needs_test: bool) -> str:
    """How the data exclude this side at its claimed size, or nothing."""
    upper = float(np.quantile(side.samples, 1.0 - tail))
    is_excluded = max(upper, side.point) < side.size - ROUNDING
    if needs_test:
        p_value = statistics.sign_flip_p_value(side.size - _per_seed(side))
        is_excluded = is_excluded and p_value < LEVEL
    return f"excluded: upper bound {upper:.4g} below {side.size:.4g}" if is_excluded else ""


def _shortfall(side: Side, tail: float) -> str:
    """What this side lacks to hold, or nothing."""
    lower = float(np.quantile(side.samples, tail))
    if lower <= ROUNDING:
        return f"lower bound {lower:.4g} of the claimed advantage not above 0"
    if side.point < side.size - ROUNDING:
        return f"difference {side.point:.4g} below the margin {side.size:.4g}"
    return ""


def _describe_p(trial: Trial, adjusted: float) -> str:
    """Why the sign-flip test does not agree."""
    why = f"sign-flip p = {trial.p_value:.4g}, after Holm {adjusted:.4g}, not below {LEVEL}"
    if trial.p_value is not None and trial.p_value < LEVEL:
        why += f"; {trial.num_seeds} seeds reach p = {0.5**trial.num_seeds:.4g} at best"
    return why


def _decide_direction(
    trial: Trial, directional_below: int, may_direct: bool, draws: Mapping
) -> tuple[str, str]:
    """DIRECTIONAL or INCONCLUSIVE, for too few seeds.

    DIRECTIONAL needs the smoke or cpu preset, a kind with a direction, at least two seeds, the
    claimed sign in every seed's mean over strata, and a one-sided 95 % lower bound above 0 when
    strata (tasks) are resampled, each with its mean over seeds. The claimed size plays no part.
    """
    few = f"{trial.num_seeds} seeds, fewer than {directional_below}"
    sides = trial.evidence.sides
    obstacles = {
        "the preset has no DIRECTIONAL": not may_direct,
        f"{trial.claim.kind} has no direction": not trial.evidence.is_directed,
        "one seed has no replication": trial.num_seeds < MIN_SEEDS,
        "a seed has the other sign": min(_per_seed(s).min() for s in sides) <= ROUNDING,
        "one stratum leaves no tasks to resample": sides[0].advantage.shape[0] < MIN_TASKS,
        "lower bound over tasks not above 0": min(_task_bound(s, draws) for s in sides) <= ROUNDING,
    }
    reasons = [why for why, is_met in obstacles.items() if is_met]
    return (INCONCLUSIVE, f"{few}; {reasons[0]}") if reasons else (DIRECTIONAL, few)


def _per_seed(side: Side) -> np.ndarray:
    """Advantage of each seed [N] (of [S, P, N]: each pretraining seed [P]), a mean over strata."""
    return side.advantage.mean(axis=(0, *range(2, side.advantage.ndim)))


def _task_bound(side: Side, draws: Mapping) -> float:
    """One-sided 95 % lower bound of the mean advantage when tasks are resampled."""
    tasks = side.advantage.reshape(side.advantage.shape[0], -1).mean(axis=1)
    generator = np.random.default_rng(draws["seed"])
    indices = generator.integers(tasks.size, size=(draws["num_samples"], tasks.size))
    return float(np.quantile(tasks[indices].mean(axis=1), BOUND_TAIL))


def _verdict(trial: Trial, adjusted: float | None, verdict: str, reason: str) -> Verdict:
    evidence, claim, error, smallest = trial.evidence, trial.claim, None, None
    if evidence.sides:
        error = error_of(evidence)
        smallest = statistics.smallest_effect(error, trial.num_seeds, level=evidence.tail)
    return Verdict(
        id=claim.id,
        statement=claim.statement,
        kind=claim.kind,
        verdict=verdict,
        difference=None if evidence.point is None else float(evidence.point),
        interval=_interval(evidence),
        margin=claim.margin,
        seeds=trial.num_seeds,
        p_value=trial.p_value,
        adjusted_p_value=adjusted,
        probability_of_improvement=evidence.improvement,
        gated=claim.gated,
        reason=reason,
        by_task=trial.by_task,
        at_end=tuple(trial.at_end),
        dropped=trial.dropped,
        smallest_effect=smallest,
        error=error,
    )


def error_of(evidence: Evidence) -> float:
    """The standard error of what a claim says, the larger of two estimates: of the IQM, and of the mean.

    The IQM of a difference is of two arms that are trimmed each by its own seeds, so that what the
    seeds have in common does not cancel in it as it does in the mean. Seeds of a ratio are compared
    in other units than it has.
    """
    errors = []
    for side in evidence.sides:
        per_seed = _per_seed(side)
        count = per_seed.size
        if count < 2:
            return math.inf
        errors.append(side.samples.std() * math.sqrt(count / (count - 1)))
        if evidence.is_of_seeds:
            errors.append(per_seed.std(ddof=1) / math.sqrt(count))
    return float(max(errors))


def _interval(evidence: Evidence) -> tuple[float | None, float | None]:
    if evidence.samples.size == 0:
        return None, None
    lower, upper = statistics.percentile_interval(evidence.samples, 1.0 - 2.0 * evidence.tail)
    return lower, upper


def _void(claim: Claim, failed: Sequence[Precondition]) -> Verdict:
    """VOID, named after the preconditions that failed; no number of the arms is read."""
    names = "; ".join(f"{check.name} ({check.detail})" if check.detail else check.name for check in failed)
    return Verdict(
        id=claim.id,
        statement=claim.statement,
        kind=claim.kind,
        verdict=VOID,
        difference=None,
        interval=(None, None),
        margin=claim.margin,
        seeds=None,
        p_value=None,
        adjusted_p_value=None,
        probability_of_improvement=None,
        gated=claim.gated,
        reason=f"precondition failed: {names}",
    )


def plain(value):
    """Value as JSON knows it."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    is_lost = isinstance(value, float) and not math.isfinite(value)
    return None if is_lost else value
