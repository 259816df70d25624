"""One claim: what is compared, by which kind of statement, and whether it can be judged at all."""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jaxagent.evaluate import statistics

KINDS = (
    "superiority",
    "non_inferiority",
    "equivalence",
    "threshold",
    "ratio",
    "ordering",
    "slope",
)  # `claims` says what each takes
DIRECTIONS = ("above", "below")
DEFAULT_METRIC = "score"
ARM_COUNTS = {"threshold": (1, 1), "ordering": (2, None), "slope": (2, None)}  # others: (2, 2)
MARGIN_ABOVE_ZERO = ("non_inferiority", "equivalence", "ratio")
MARGIN_FROM_ZERO = ("superiority", "ordering")


@dataclass(frozen=True)
class Claim:
    """One comparison and what it takes to hold; its arms are `arm_a, *between, arm_b`."""

    id: str
    statement: str
    kind: str  # one of KINDS
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
    may_drop: tuple[str, ...] = ()  # tasks that are left out where an arm sits at an end of the scale
    tasks: tuple[str, ...] = ()  # that it is about; (): all of them

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms in order."""
        return tuple(name for name in (self.arm_a, *self.between, self.arm_b) if name)

    @property
    def sign(self) -> float:
        """+1 where larger is claimed, -1 where smaller is."""
        return 1.0 if self.direction == "above" else -1.0


def check_claims(claims: Sequence[Claim]) -> None:
    """Raise ValueError for a claim that no scores could be judged by; needs no scores itself."""
    for claim in claims:
        check_member(f"claim {claim.id!r}: kind", claim.kind, KINDS)
        check_member(f"claim {claim.id!r}: direction", claim.direction, DIRECTIONS)
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


def check_member(what: str, name: str, known: Iterable[str]) -> None:
    """Raise ValueError with the nearest known name unless `name` is known."""
    known = list(known)
    if name not in known:
        nearest = difflib.get_close_matches(str(name), known, n=1, cutoff=0.0)
        hint = f"did you mean {nearest[0]!r}?" if nearest else "give its scores"
        raise ValueError(f"{what}: got {name!r}, expected one of {known}; fix: {hint}")


def arms_of(claim: Claim, scores: Mapping) -> list[np.ndarray]:
    """Checked scores of the claim's arms in order, all `[S, N]` or all `[S, P, N]`."""
    if claim.metric == DEFAULT_METRIC:
        table = {key: value for key, value in scores.items() if isinstance(key, str)}
    else:
        pairs = {key: value for key, value in scores.items() if not isinstance(key, str)}
        check_member(f"claim {claim.id!r}: metric", claim.metric, sorted({m for m, _ in pairs}))
        table = {arm: value for (metric, arm), value in pairs.items() if metric == claim.metric}
    for name in claim.arms:
        check_member(f"claim {claim.id!r}: arm", name, table)
    arms = [statistics.check_scores(table[name], name, (2, 3)) for name in claim.arms]
    shapes = {name: arm.shape for name, arm in zip(claim.arms, arms, strict=True)}
    if len(set(shapes.values())) > 1:
        raise ValueError(
            f"claim {claim.id!r}: got shapes {shapes}, expected equal ones; "
            "fix: run all arms of a claim on the same strata and training seeds"
        )
    return arms
