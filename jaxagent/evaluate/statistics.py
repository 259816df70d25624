"""Statistics of few training runs: interquartile mean, paired bootstraps, sign flips, Holm.

Scores of one arm are a float array [S, N]: S strata (environment, task variant), N runs (training
seeds; evaluation episodes are averaged inside a run). Where pretraining and downstream seeds both
vary they are [S, P, N]: P pretraining seeds, N downstream seeds of each. M counts bootstrap
samples. A statistic takes arrays [..., S, R], R runs, and reduces the last two axes, so that one
call covers all bootstrap samples. NaN is an error: what a diverged run is worth is for the
experiment to say, not for an average.

Source of the IQM, the stratified bootstrap and the probability of improvement: Agarwal et al.
2021, "Deep reinforcement learning at the edge of the statistical precipice". Differs: theirs pools
the runs of all strata (`pooled_iqm`); over one stratum at its ceiling and one below it, that trims
exactly the runs that fail.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.stats

from jaxagent.finite import first_not_finite

Statistic = Callable[[np.ndarray, np.ndarray], np.ndarray]

TRIM = 0.25  # share cut from each tail by the interquartile mean
CONFIDENCE = 0.95  # two-sided
NUM_SAMPLES = 2000  # bootstrap samples
MAX_EXACT_SEEDS = 20  # 2^20 sign patterns; beyond it they are sampled
NUM_SIGN_SAMPLES = 100_000
ROUNDING = 1e-12  # relative: sums of sign-flipped differences this close are ties


class Interval(NamedTuple):
    """Lower and upper end of an interval."""

    lower: float
    upper: float


class Slope(NamedTuple):
    """A slope and the ends of its bootstrap percentile interval."""

    slope: float
    lower: float
    upper: float


def check_scores(scores, name: str = "scores", num_axes: tuple[int, ...] = (2,)) -> np.ndarray:
    """Scores `[S, N]` or `[S, P, N]` as float64; ValueError when empty, not finite, or of another rank."""
    array = np.asarray(scores, dtype=np.float64)
    expected = " or ".join({2: "[S, N]", 3: "[S, P, N]"}[axes] for axes in num_axes)
    if array.ndim not in num_axes or array.size == 0:
        raise ValueError(
            f"{name}: got shape {array.shape}, expected non-empty {expected} (strata, runs); "
            "fix: give the strata axis even when there is one stratum, scores[None, :]"
        )
    first = first_not_finite(array)
    if first is not None:
        where = tuple(first)
        raise ValueError(
            f"{name}: got {array[where]} at {where}, expected finite numbers; "
            "fix: give a diverged run the floor score that the experiment declares"
        )
    return array


def check_pair(scores_a, scores_b, num_axes: tuple[int, ...] = (2,)) -> tuple[np.ndarray, np.ndarray]:
    """Two checked arms, both `[S, N]` or `[S, P, N]`; ValueError when shapes differ: no runs are paired."""
    a = check_scores(scores_a, "scores_a", num_axes)
    b = check_scores(scores_b, "scores_b", num_axes)
    if a.shape != b.shape:
        raise ValueError(
            f"paired arms: got shapes {a.shape} and {b.shape}, expected equal ones; "
            "fix: run both arms on the same strata and training seeds"
        )
    return a, b


def _refuse_nan(scores) -> np.ndarray:
    """Scores as float64; ValueError for NaN, which sorting and comparing would hide."""
    scores = np.asarray(scores, dtype=np.float64)
    if np.isnan(scores).any():
        raise ValueError("scores: got NaN, expected numbers; fix: give diverged runs a floor score")
    return scores


def normalise(returns, random, expert) -> np.ndarray:
    """(R - R_random) / (R_expert - R_random): returns [S, ...] to scores [S, ...], references [] or [S]."""
    returns = _refuse_nan(returns)
    random, expert = np.asarray(random, np.float64), np.asarray(expert, np.float64)
    references = np.stack(np.broadcast_arrays(random, expert))
    if references.ndim > 2 or (references.ndim == 2 and references.shape[1:] != returns.shape[:1]):
        raise ValueError(
            f"references: got shape {references.shape[1:]}, expected () or {returns.shape[:1]}; "
            "fix: one random and one expert return for each stratum"
        )
    if not np.isfinite(references).all() or (references[0] == references[1]).any():
        raise ValueError(
            f"references: got random {random} and expert {expert}, expected finite and different; "
            "fix: measure both returns, or drop the stratum in which no policy matters"
        )
    tail = (1,) * (returns.ndim - 1 if references.ndim == 2 else 0)
    low, high = references.reshape(references.shape + tail)
    return (returns - low) / (high - low)


def iqm(scores) -> np.ndarray:
    """Interquartile mean of each stratum's runs, averaged over strata, [..., S, R] -> [...].

    Of one stratum it is `scipy.stats.trim_mean(x, 0.25)`: int(0.25 * R) values are cut from each
    end, so a size not divisible by 4 keeps the larger middle, and fewer than 4 give the plain mean.
    """
    return _trimmed(_refuse_nan(scores)).mean(axis=-1)


def pooled_iqm(scores) -> np.ndarray:
    """Interquartile mean of all runs of all strata, [..., S, R] -> [...]; Agarwal et al. 2021.

    What is published of many games; for a verdict see `iqm`.
    """
    scores = _refuse_nan(scores)
    return _trimmed(scores.reshape(*scores.shape[:-2], -1))


def _trimmed(scores: np.ndarray) -> np.ndarray:
    """The mean of the middle half over the last axis, [..., R] -> [...]."""
    ranked = np.sort(scores, axis=-1)
    cut = int(TRIM * ranked.shape[-1])
    return ranked[..., cut : ranked.shape[-1] - cut].mean(axis=-1)


def difference_of_iqm(a, b) -> np.ndarray:
    """IQM(A) - IQM(B), [..., S, R] -> [...]."""
    return iqm(a) - iqm(b)


def ratio_of_iqm(a, b) -> np.ndarray:
    """IQM(A) / IQM(B), [..., S, R] -> [...]; means something only where IQM(B) is above 0."""
    return iqm(a) / iqm(b)


def probability_of_improvement(a, b) -> np.ndarray:
    """Mean over strata of P(A > B) + 0.5 P(A = B) for runs of A and B drawn independently.

    [..., S, R_a] and [..., S, R_b] -> [...]. Per stratum it is the Mann-Whitney U over R_a R_b;
    Agarwal et al. 2021, eq. 2, and rliable. It is unpaired: the seeds' pairing plays no part.
    """
    a, b = _refuse_nan(a), _refuse_nan(b)
    if a.shape[:-1] != b.shape[:-1]:
        raise ValueError(
            f"arms: got strata {a.shape[:-1]} and {b.shape[:-1]}, expected the same; "
            "fix: compare both arms on the same strata"
        )
    a, b = a[..., :, None], b[..., None, :]
    return np.mean((a > b) + 0.5 * (a == b), axis=(-3, -2, -1))


def bootstrap_indices(
    shape: tuple[int, ...], num_samples: int, seed: int, shared_seeds: bool = False
) -> np.ndarray:
    """Indices [M, S, R] of resampled runs, for `resample`; shape is (S, N) or (S, P, N).

    (S, N): N runs are drawn with replacement in each stratum. (S, P, N): P pretraining seeds are
    drawn, then N downstream seeds inside each drawn one, and R = P N is flat. `shared_seeds` draws
    once for all strata; see `paired_bootstrap`.
    """
    generator = np.random.default_rng(seed)
    num_strata, num_units = shape[:2]
    drawn_strata = 1 if shared_seeds else num_strata
    indices = generator.integers(num_units, size=(num_samples, drawn_strata, num_units))
    if len(shape) == 3:
        num_inner = shape[2]
        inner = generator.integers(num_inner, size=(*indices.shape, num_inner))
        indices = (indices[..., None] * num_inner + inner).reshape(num_samples, drawn_strata, -1)
    return np.broadcast_to(indices, (num_samples, num_strata, indices.shape[-1]))


def resample(scores: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Resampled scores [M, S, R] of one arm [S, N] or [S, P, N] by indices [M, S, R]."""
    flat = scores.reshape(scores.shape[0], -1)
    return np.take_along_axis(flat[None], indices, axis=2)


def percentile_interval(samples, confidence: float = CONFIDENCE) -> Interval:
    """Two-sided percentile interval of bootstrap statistics [M]."""
    tail = (1.0 - confidence) / 2.0
    lower, upper = np.quantile(samples, [tail, 1.0 - tail])
    return Interval(float(lower), float(upper))


def interval_of_iqm(
    scores,
    confidence: float = CONFIDENCE,
    num_samples: int = NUM_SAMPLES,
    seed: int = 0,
    *,
    shared_seeds: bool = False,
    statistic: Callable[[np.ndarray], np.ndarray] = iqm,
) -> Interval:
    """Stratified bootstrap percentile interval of the IQM of one arm, [S, N] or [S, P, N]."""
    scores = check_scores(scores, num_axes=(2, 3))
    indices = bootstrap_indices(scores.shape, num_samples, seed, shared_seeds)
    return percentile_interval(statistic(resample(scores, indices)), confidence)


def interval_of_mean(values, num_samples: int = NUM_SAMPLES, seed: int = 0) -> Interval:
    """Bootstrap percentile interval of the mean of values [N]: episodes, or seeds of one task."""
    values = _refuse_nan(values)
    draws = np.random.default_rng(seed).choice(values, (num_samples, len(values))).mean(1)
    return percentile_interval(draws)


def paired_bootstrap(
    scores_a,
    scores_b,
    statistic: Statistic = difference_of_iqm,
    num_samples: int = NUM_SAMPLES,
    seed: int = 0,
    *,
    shared_seeds: bool = False,
) -> np.ndarray:
    """Bootstrap statistics [M] of arms A and B [S, N], runs resampled in pairs within strata.

    The unit is the training seed: run n of A and run n of B share data and initial keys, so both
    arms take the same indices, and what their seeds have in common cancels in a difference.

    Whether strata share their indices depends on what run n is. By default each stratum draws its
    own: run n on one task and run n on another are separate trainings, and an equal seed number
    makes them no more alike. Where one training gives the scores of all tasks (one agent evaluated
    on S tasks, or S variants of one pretrained model), the S scores rise and fall together, and
    independent draws would average that away and give too narrow an interval: declare it with
    `shared_seeds=True`, which draws whole columns. That is never wrong, only noisier.
    """
    a, b = check_pair(scores_a, scores_b)
    indices = bootstrap_indices(a.shape, num_samples, seed, shared_seeds)
    return statistic(resample(a, indices), resample(b, indices))


def hierarchical_bootstrap(
    scores_a,
    scores_b,
    statistic: Statistic = difference_of_iqm,
    num_samples: int = NUM_SAMPLES,
    seed: int = 0,
    *,
    shared_seeds: bool = False,
) -> np.ndarray:
    """Paired bootstrap statistics [M] of arms [S, P, N]: pretraining seeds, then downstream ones.

    Downstream runs of one pretrained model are not independent; drawing the P models first keeps
    their spread. The unit is the pretraining seed: N more downstream seeds cannot replace P.
    """
    a, b = check_pair(scores_a, scores_b, num_axes=(3,))
    indices = bootstrap_indices(a.shape, num_samples, seed, shared_seeds)
    return statistic(resample(a, indices), resample(b, indices))


def sign_flip_p_value(differences, seed: int = 0) -> float:
    """One-sided p-value of the mean of seed-level differences [N] by flipping their signs.

    The share of the 2^N sign patterns whose mean is at least the observed one (Fisher 1935), so
    N = 5 positive differences give 1/32. It supposes that under the null a difference is as likely
    as its negative. Differs: above 20 seeds patterns are sampled, the observed one counted in.
    """
    differences = np.asarray(differences, dtype=np.float64)
    if differences.ndim != 1 or differences.size == 0 or not np.isfinite(differences).all():
        raise ValueError(
            f"differences: got shape {differences.shape}, expected finite numbers of shape [N]; "
            "fix: average each seed over strata, (a - b).mean(axis=0)"
        )
    bound = differences.sum() - ROUNDING * np.abs(differences).sum()
    if differences.size <= MAX_EXACT_SEEDS:
        return float(np.mean(_all_signed_sums(differences) >= bound))
    generator = np.random.default_rng(seed)
    sums = np.zeros(NUM_SIGN_SAMPLES)
    for difference in differences:
        sums += difference * generator.choice((-1.0, 1.0), size=NUM_SIGN_SAMPLES)
    return float((1 + np.sum(sums >= bound)) / (1 + NUM_SIGN_SAMPLES))


def _all_signed_sums(differences: np.ndarray) -> np.ndarray:
    """All 2^N sums of the differences [N] under a sign each, by doubling."""
    sums = np.zeros(1)
    for difference in differences:
        sums = np.concatenate([sums + difference, sums - difference])
    return sums


def smallest_effect(error: float, num_units: int, power: float = 0.8, level: float = 0.05) -> float:
    """The effect that an estimate with this standard error shows with `power`, one-sided at `level`.

    `(t_{1-level} + t_{power}) error`, Student's t with one degree less than there are units; infinite
    for one unit.
    """
    if num_units < 2:
        return math.inf
    return float(scipy.stats.t.ppf([1.0 - level, power], num_units - 1).sum() * error)


def holm(p_values) -> np.ndarray:
    """Holm's step-down adjusted p-values [K], in the order given; Holm 1979."""
    p_values = np.asarray(p_values, dtype=np.float64)
    if p_values.ndim != 1 or not ((p_values >= 0.0) & (p_values <= 1.0)).all():
        raise ValueError(
            f"p_values: got {p_values}, expected shape [K] with values in [0, 1]; "
            "fix: give 1.0 to a claim that could not be tested"
        )
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(p_values.size, 0, -1)
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * p_values[order]), 1.0)
    return adjusted


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's, of `[N]` each; 0 where either does not vary, or there are fewer than three points."""
    if x.size < 3 or np.ptp(x) == 0.0 or np.ptp(y) == 0.0:
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])


def fit_log_log_slope(x, y) -> np.ndarray:
    """Least-squares slope of log y on log x, [K] and [K, ...] -> [...]."""
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    is_positive = bool((x > 0.0).all() and (y > 0.0).all())
    if x.ndim != 1 or y.shape[:1] != x.shape or np.unique(x).size < 2 or not is_positive:
        raise ValueError(
            f"log-log slope: got x of shape {x.shape} and y of shape {y.shape}, expected [K] and "
            "[K, ...], all above 0, with two different x; fix: give errors or budgets, not returns"
        )
    centred = np.log(x) - np.log(x).mean()
    return np.tensordot(centred / np.sum(centred**2), np.log(y), axes=(0, 0))


def log_log_slope(
    x, y, confidence: float = CONFIDENCE, num_samples: int = NUM_SAMPLES, seed: int = 0
) -> Slope:
    """Slope of log mean y on log x, sizes x [K] and runs y [K, N], with a bootstrap interval.

    Runs are resampled with the same indices at every size, since run n is the same training seed.
    The interval holds the spread of seeds only, not the doubt whether a power law fits.
    """
    y = check_scores(y, "y")
    indices = bootstrap_indices(y.shape, num_samples, seed, shared_seeds=True)
    samples = fit_log_log_slope(x, resample(y, indices).mean(axis=2).T)
    slope = fit_log_log_slope(x, y.mean(axis=1))
    return Slope(float(slope), *percentile_interval(samples, confidence))
