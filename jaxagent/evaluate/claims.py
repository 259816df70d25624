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
"""

import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np

from jaxagent.evaluate import statistics

VOID, PASS, DIRECTIONAL, FAIL, INCONCLUSIVE = VERDICTS = (
    "VOID",
    "PASS",
    "DIRECTIONAL",
    "FAIL",
    "INCONCLUSIVE",
)
PRESETS = ("smoke", "cpu", "gpu", "paper")
DIRECTIONAL_PRESETS = ("smoke", "cpu")
DIRECTIONS = ("above", "below")

LEVEL = 0.05  # of the sign-flip test, adjusted or not
BOUND_TAIL = 0.05  # mass outside each end: one-sided 95 % bounds, a 90 % interval
INTERVAL_TAIL = 0.025  # mass outside each end of a two-sided 95 % interval
SIGN_FLIP_BELOW = 8  # seeds; below it an ungated claim needs the sign-flip test too
MIN_SEEDS = 2  # for DIRECTIONAL: one seed has no replication
MIN_TASKS = 2  # for DIRECTIONAL: one task leaves nothing to resample
ROUNDING = 1e-9  # scores closer than this are equal

DEFAULT_METRIC = "score"


@dataclass(frozen=True)
class Claim:
    """One comparison and what it takes to hold; its arms are `arm_a, *between, arm_b`."""

    id: str
    statement: str
    kind: str  # a key of KINDS
    arm_a: str
    arm_b: str = ""  # threshold: none
    margin: float = 0.0  # threshold, ratio: the fixed value; slope: unused
    reach: float | None = None  # threshold: what the point itself must reach, beyond the margin
    gated: bool = True  # counts for the preset, and is adjusted by Holm
    metric: str = DEFAULT_METRIC
    direction: str = "above"  # "below": smaller is better, A is claimed below B or the value
    between: tuple[str, ...] = ()  # ordering, slope: arms from arm_a to arm_b, in order
    sizes: tuple[float, ...] = ()  # slope: the x of each arm, above 0
    low: float = -math.inf  # slope: the range that must hold the interval
    high: float = math.inf

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms in order."""
        return tuple(name for name in (self.arm_a, *self.between, self.arm_b) if name)

    @property
    def sign(self) -> float:
        """+1 where larger is claimed, -1 where smaller is."""
        return 1.0 if self.direction == "above" else -1.0


@dataclass(frozen=True)
class Precondition:
    """A check made before any arm ran, such as "the expert solves the task"."""

    name: str
    passed: bool
    detail: str = ""


@dataclass(frozen=True)
class Verdict:
    """What the seeds say about one claim; None where a number does not exist."""

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

    def to_dict(self) -> dict:
        """Plain JSON values: None for what does not exist or is not finite."""
        return {name: _plain(value) for name, value in asdict(self).items()}


class Side(NamedTuple):
    """A signed advantage that must be above 0 for the claim to hold."""

    point: float
    samples: np.ndarray  # [M] bootstrap
    advantage: np.ndarray  # [S, N] or [S, P, N], of each run, paired
    size: float = 0.0  # claimed size: the point must reach it


class Evidence(NamedTuple):
    """What one kind reads out of the scores of its arms."""

    point: float | None
    samples: np.ndarray  # [M] bootstrap of the point, empty where undefined
    sides: tuple[Side, ...]  # all must hold
    tail: float  # mass outside each end of the interval
    is_directed: bool = True  # whether few seeds could support a direction
    improvement: float | None = None
    undefined: str = ""  # why there is no number


class Trial(NamedTuple):
    """A claim with its evidence, before the verdicts of the other claims are known."""

    claim: Claim
    evidence: Evidence
    num_seeds: int
    p_value: float | None


def judge(
    claims: Sequence[Claim],
    scores: Mapping,
    preconditions: Iterable[Precondition] = (),
    preset: str = "cpu",
    directional_below: int = 5,
    *,
    shared_seeds: bool = False,
    num_samples: int = statistics.NUM_SAMPLES,
    seed: int = 0,
) -> list[Verdict]:
    """Verdicts on all claims of one preset, in order; the module's docstring has the rules.

    scores: arm -> [S, N], or [S, P, N] where N downstream seeds are nested in P pretraining seeds
    (the seeds counted are then P). A claim on another metric than "score" reads (metric, arm).
    Give all gated claims of a preset in one call, since Holm counts them. `shared_seeds`: one
    training gives the scores of all strata; see `statistics.paired_bootstrap`.
    """
    check_claims(claims)
    check_preset(preset)
    failed = [check for check in preconditions if not check.passed]
    if failed:
        return [_void(claim, failed) for claim in claims]
    draws = {"num_samples": num_samples, "seed": seed, "shared_seeds": shared_seeds}
    trials = [_try(claim, scores, draws) for claim in claims]
    adjusted = _adjust(trials)
    may_direct = _family(preset) in DIRECTIONAL_PRESETS
    return [
        _verdict(trial, p, *_decide(trial, p, directional_below, may_direct, draws))
        for trial, p in zip(trials, adjusted, strict=True)
    ]


def gate_passes(verdicts: Sequence[Verdict]) -> bool:
    """Whether there are gated claims and every one of them is PASS."""
    gated = [verdict.verdict == PASS for verdict in verdicts if verdict.gated]
    return bool(gated) and all(gated)


# What each kind reads: claim, scores of its arms, bootstrap samples [M, S, R] of its arms.


def _superiority(claim: Claim, arms, samples) -> Evidence:
    """A above B, by the margin."""
    point, drawn = _difference(arms, samples)
    side = _signed(claim.sign, point, drawn, arms[0] - arms[1], size=claim.margin)
    return Evidence(point, drawn, (side,), BOUND_TAIL, improvement=_improvement(claim, arms))


def _non_inferiority(claim: Claim, arms, samples) -> Evidence:
    """A not below B by the margin or more."""
    point, drawn = _difference(arms, samples)
    side = _signed(claim.sign, point, drawn, arms[0] - arms[1], -claim.sign * claim.margin)
    return Evidence(point, drawn, (side,), BOUND_TAIL, improvement=_improvement(claim, arms))


def _equivalence(claim: Claim, arms, samples) -> Evidence:
    """A within the margin of B on both sides: two one-sided tests (Schuirmann 1987)."""
    point, drawn = _difference(arms, samples)
    difference = arms[0] - arms[1]
    sides = (
        _signed(1.0, point, drawn, difference, -claim.margin),
        _signed(-1.0, point, drawn, difference, claim.margin),
    )
    improvement = _improvement(claim, arms)
    return Evidence(point, drawn, sides, BOUND_TAIL, is_directed=False, improvement=improvement)


def _threshold(claim: Claim, arms, samples) -> Evidence:
    """One arm above (below) a fixed value, its point at least (at most) what it must reach."""
    point, drawn = float(_iqm(arms[0])), statistics.iqm(samples[0])
    size = 0.0 if claim.reach is None else claim.sign * (claim.reach - claim.margin)
    side = _signed(claim.sign, point, drawn, arms[0], claim.margin, size)
    return Evidence(point, drawn, (side,), INTERVAL_TAIL)


def _ratio(claim: Claim, arms, samples) -> Evidence:
    """A / B above (below) a fixed value; its seeds are compared as A - value B, for B above 0."""
    bottom = statistics.iqm(samples[1])
    if min(bottom.min(), _iqm(arms[1])) <= 0.0:
        return _undefined(f"ratio undefined: the bootstrap of {claim.arm_b} reaches 0 or below")
    point = float(_iqm(arms[0]) / _iqm(arms[1]))
    drawn = statistics.iqm(samples[0]) / bottom
    above = claim.sign * (arms[0] - claim.margin * arms[1])
    side = _signed(claim.sign, point, drawn, arms[0], claim.margin)._replace(advantage=above)
    return Evidence(point, drawn, (side,), INTERVAL_TAIL, improvement=_improvement(claim, arms))


def _ordering(claim: Claim, arms, samples) -> Evidence:
    """Each arm above the next by the margin: arm_a first, arm_b last; reports the worst step.

    Every step must hold by itself, so no adjustment is needed inside the claim (an
    intersection-union test, Berger 1982), and a trend carried by one large step does not pass.
    """
    steps = [_superiority(claim, arms[k : k + 2], samples[k : k + 2]) for k in range(len(arms) - 1)]
    worst = min(steps, key=lambda step: step.sides[0].point)
    return worst._replace(sides=tuple(step.sides[0] for step in steps), improvement=None)


def _slope(claim: Claim, arms, samples) -> Evidence:
    """Log-log slope of the arms' IQM over their sizes inside (low, high)."""
    if min(arm.min() for arm in arms) <= 0.0:
        return _undefined("log-log slope undefined: a score is 0 or below")
    fit = statistics.fit_log_log_slope
    point = float(fit(claim.sizes, np.stack([_iqm(arm) for arm in arms])))
    drawn = fit(claim.sizes, np.stack([statistics.iqm(sample) for sample in samples]))
    slopes = fit(claim.sizes, np.stack(arms))
    ends = [(1.0, claim.low), (-1.0, claim.high)]
    sides = tuple(_signed(s, point, drawn, slopes, end) for s, end in ends if math.isfinite(end))
    return Evidence(point, drawn, sides, INTERVAL_TAIL, is_directed=len(sides) == 1)


KINDS: dict[str, Callable[..., Evidence]] = {
    "superiority": _superiority,
    "non_inferiority": _non_inferiority,
    "equivalence": _equivalence,
    "threshold": _threshold,
    "ratio": _ratio,
    "ordering": _ordering,
    "slope": _slope,
}


def _signed(sign: float, point, samples, runs, value: float = 0.0, size: float = 0.0) -> Side:
    """The side on which a quantity is beyond a value, upwards for sign +1."""
    return Side(sign * (point - value), sign * (samples - value), sign * (runs - value), size)


def _iqm(scores: np.ndarray) -> np.ndarray:
    """IQM of one arm [S, N] or [S, P, N]."""
    return statistics.iqm(scores.reshape(scores.shape[0], -1))


def _difference(arms, samples) -> tuple[float, np.ndarray]:
    """IQM(A) - IQM(B) of the runs, and of their bootstrap samples [M, S, R] -> [M]."""
    return float(_iqm(arms[0]) - _iqm(arms[1])), statistics.difference_of_iqm(*samples)


def _improvement(claim: Claim, arms) -> float:
    """Probability of improvement of A over B in the claimed direction."""
    flat = [claim.sign * arm.reshape(arm.shape[0], -1) for arm in arms]
    return float(statistics.probability_of_improvement(*flat))


def _undefined(why: str) -> Evidence:
    return Evidence(None, np.empty(0), (), INTERVAL_TAIL, undefined=why)


# From evidence to a verdict.


def _try(claim: Claim, scores: Mapping, draws: Mapping) -> Trial:
    """Evidence and unadjusted p-value of one claim."""
    arms = _arms(claim, scores)
    indices = statistics.bootstrap_indices(arms[0].shape, **draws)
    samples = [statistics.resample(arm, indices) for arm in arms]
    evidence = KINDS[claim.kind](claim, arms, samples)
    p_values = [statistics.sign_flip_p_value(_per_seed(side)) for side in evidence.sides]
    return Trial(claim, evidence, arms[0].shape[1], max(p_values, default=None))


def _adjust(trials: Sequence[Trial]) -> list[float | None]:
    """p-values after Holm over the gated claims; one without a p-value counts as 1."""
    gated = [i for i, trial in enumerate(trials) if trial.claim.gated]
    raw = [1.0 if trials[i].p_value is None else trials[i].p_value for i in gated]
    held = dict(zip(gated, statistics.holm(raw).tolist(), strict=True))
    return [
        None if trial.p_value is None else held.get(i, trial.p_value)
        for i, trial in enumerate(trials)
    ]


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
    found = [why for why, is_met in obstacles.items() if is_met]
    return (INCONCLUSIVE, f"{few}; {found[0]}") if found else (DIRECTIONAL, few)


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
    evidence, claim = trial.evidence, trial.claim
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
    )


def _interval(evidence: Evidence) -> tuple[float | None, float | None]:
    if evidence.samples.size == 0:
        return None, None
    lower, upper = statistics.percentile_interval(evidence.samples, 1.0 - 2.0 * evidence.tail)
    return lower, upper


def _void(claim: Claim, failed: Sequence[Precondition]) -> Verdict:
    """VOID, named after the preconditions that failed; no number of the arms is read."""
    names = "; ".join(
        f"{check.name} ({check.detail})" if check.detail else check.name for check in failed
    )
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


def _plain(value):
    """Value as JSON knows it."""
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    is_lost = isinstance(value, float) and not math.isfinite(value)
    return None if is_lost else value


# What others gave us.

ARM_COUNTS = {"threshold": (1, 1), "ordering": (2, None), "slope": (2, None)}  # others: (2, 2)
MARGIN_ABOVE_ZERO = ("non_inferiority", "equivalence", "ratio")
MARGIN_FROM_ZERO = ("superiority", "ordering")


def check_preset(preset: str) -> None:
    """Raise ValueError unless a preset is one of `PRESETS`, or of its family, as "gpu-hopper".

    To be asked before a run: a name that is refused only when claims are judged costs its result.
    """
    _check_member("preset", _family(preset), PRESETS)


def _family(preset: str) -> str:
    return preset.partition("-")[0]


def check_claims(claims: Sequence[Claim]) -> None:
    """ValueError for a claim that no scores could be judged by; needs no scores itself."""
    for claim in claims:
        _check_member(f"claim {claim.id!r}: kind", claim.kind, KINDS)
        _check_member(f"claim {claim.id!r}: direction", claim.direction, DIRECTIONS)
        _check_arms(claim)
        _check_margin(claim)
        if claim.kind == "slope":
            _check_slope(claim)
    ids = [claim.id for claim in claims]
    twice = sorted({name for name in ids if ids.count(name) > 1})
    if twice:
        raise ValueError(f"claims: got id {twice[0]!r} twice, expected unique ids; fix: rename one")


def _check_arms(claim: Claim) -> None:
    fewest, most = ARM_COUNTS.get(claim.kind, (2, 2))
    count = len(claim.arms)
    if count < fewest or (most is not None and count > most) or len(set(claim.arms)) < count:
        expected = fewest if most == fewest else f"{fewest} or more"
        raise ValueError(
            f"claim {claim.id!r}: got arms {claim.arms}, expected {expected} different for kind "
            f"{claim.kind!r}; fix: set arm_a, arm_b and, for ordering and slope only, between"
        )


def _check_margin(claim: Claim) -> None:
    is_low = claim.margin < 0.0 and claim.kind in MARGIN_FROM_ZERO + MARGIN_ABOVE_ZERO
    is_zero = claim.margin == 0.0 and claim.kind in MARGIN_ABOVE_ZERO
    if claim.reach is not None and (
        claim.kind != "threshold" or claim.sign * (claim.reach - claim.margin) < 0.0
    ):
        raise ValueError(
            f"claim {claim.id!r}: got reach {claim.reach} for kind {claim.kind!r} at margin "
            f"{claim.margin}, expected a threshold and a value beyond its margin; fix: drop it"
        )
    if is_low or is_zero or not math.isfinite(claim.margin):
        expected = "above 0" if claim.kind in MARGIN_ABOVE_ZERO else "finite, 0 or above"
        raise ValueError(
            f"claim {claim.id!r}: got margin {claim.margin}, expected {expected} for kind "
            f"{claim.kind!r}; fix: state the size; direction='below' turns the sign"
        )


def _check_slope(claim: Claim) -> None:
    is_sized = len(claim.sizes) == len(claim.arms) and min(claim.sizes) > 0.0
    is_range = claim.low < claim.high and math.isfinite(min(abs(claim.low), abs(claim.high)))
    if not (is_sized and len(set(claim.sizes)) > 1 and is_range):
        raise ValueError(
            f"claim {claim.id!r}: got sizes {claim.sizes} and range ({claim.low}, {claim.high}), "
            f"expected {len(claim.arms)} sizes above 0, not all equal, and low < high, one of them "
            "finite; fix: set sizes in the order of the arms, and low or high"
        )


def _check_member(what: str, name: str, known: Iterable[str]) -> None:
    """ValueError with the nearest known name."""
    known = list(known)
    if name not in known:
        nearest = difflib.get_close_matches(str(name), known, n=1, cutoff=0.0)
        hint = f"did you mean {nearest[0]!r}?" if nearest else "give its scores"
        raise ValueError(f"{what}: got {name!r}, expected one of {known}; fix: {hint}")


def _arms(claim: Claim, scores: Mapping) -> list[np.ndarray]:
    """Checked scores of the claim's arms in order, all of one shape."""
    if claim.metric == DEFAULT_METRIC:
        table = {key: value for key, value in scores.items() if isinstance(key, str)}
    else:
        pairs = {key: value for key, value in scores.items() if not isinstance(key, str)}
        _check_member(f"claim {claim.id!r}: metric", claim.metric, sorted({m for m, _ in pairs}))
        table = {arm: value for (metric, arm), value in pairs.items() if metric == claim.metric}
    for name in claim.arms:
        _check_member(f"claim {claim.id!r}: arm", name, table)
    arms = [statistics.check_scores(table[name], name, (2, 3)) for name in claim.arms]
    shapes = {name: arm.shape for name, arm in zip(claim.arms, arms, strict=True)}
    if len(set(shapes.values())) > 1:
        raise ValueError(
            f"claim {claim.id!r}: got shapes {shapes}, expected equal ones; "
            "fix: run all arms of a claim on the same strata and training seeds"
        )
    return arms
