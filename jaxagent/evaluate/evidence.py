"""Evidence of the seeds on a claim of each kind, before anything is decided.

A reader takes the claim, the scores of its arms in order and bootstrap samples `[M, S, R]` of each.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxagent.evaluate import statistics
from jaxagent.evaluate.claim import Claim

BOUND_TAIL = 0.05  # mass outside each end: one-sided 95 % bounds, a 90 % interval
INTERVAL_TAIL = 0.025  # mass outside each end of a two-sided 95 % interval


class Side(NamedTuple):
    """A signed advantage that must be above 0 for the claim to hold."""

    point: float
    samples: np.ndarray  # [M] bootstrap
    advantage: np.ndarray  # [S, N] or [S, P, N], of each run, paired
    size: float = 0.0  # claimed size: the point must reach it


class Evidence(NamedTuple):
    """The evidence that the scores of its arms give on one claim."""

    point: float | None
    samples: np.ndarray  # [M] bootstrap of the point, empty where undefined
    sides: tuple[Side, ...]  # all must hold
    tail: float  # mass outside each end of the interval
    is_directed: bool = True  # whether few seeds could support a direction
    improvement: float | None = None
    undefined: str = ""  # why there is no number
    is_of_seeds: bool = True  # whether advantages of seeds have the units of the point


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
        return undefined(f"ratio undefined: the bootstrap of {claim.arm_b} reaches 0 or below")
    point = float(_iqm(arms[0]) / _iqm(arms[1]))
    drawn = statistics.iqm(samples[0]) / bottom
    above = claim.sign * (arms[0] - claim.margin * arms[1])
    side = _signed(claim.sign, point, drawn, arms[0], claim.margin)._replace(advantage=above)
    improvement = _improvement(claim, arms)
    return Evidence(point, drawn, (side,), INTERVAL_TAIL, improvement=improvement, is_of_seeds=False)


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
        return undefined("log-log slope undefined: a score is 0 or below")
    fit = statistics.fit_log_log_slope
    point = float(fit(claim.sizes, np.stack([_iqm(arm) for arm in arms])))
    drawn = fit(claim.sizes, np.stack([statistics.iqm(sample) for sample in samples]))
    slopes = fit(claim.sizes, np.stack(arms))
    ends = [(1.0, claim.low), (-1.0, claim.high)]
    sides = tuple(_signed(s, point, drawn, slopes, end) for s, end in ends if math.isfinite(end))
    return Evidence(point, drawn, sides, INTERVAL_TAIL, is_directed=len(sides) == 1)


READERS: dict[str, Callable[..., Evidence]] = {
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
    """IQM of one arm [S, N] or [S, P, N], by task and then over tasks."""
    return statistics.iqm(scores.reshape(scores.shape[0], -1))


def _difference(arms, samples) -> tuple[float, np.ndarray]:
    """IQM(A) - IQM(B) of the runs, and of their bootstrap samples [M, S, R] -> [M]."""
    return float(_iqm(arms[0]) - _iqm(arms[1])), statistics.difference_of_iqm(*samples)


def _improvement(claim: Claim, arms) -> float:
    """Probability of improvement of A over B in the claimed direction."""
    flat = [claim.sign * arm.reshape(arm.shape[0], -1) for arm in arms]
    return float(statistics.probability_of_improvement(*flat))


def undefined(why: str) -> Evidence:
    """Evidence of scores that give no number."""
    return Evidence(None, np.empty(0), (), INTERVAL_TAIL, undefined=why)
