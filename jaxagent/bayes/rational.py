"""The in-context strategy that a model follows after N steps, as a choice by posterior odds.

A strategy q predicts (memorising M, generalising G, ...), loses L_q nats a token on the training
tasks, and takes K_q bits to write down. After N steps its log weight is
    -ln 2 * K_q^beta - gamma * N^(1 - alpha) * L_q,
softmaxed over strategies, and the model's prediction is the weighted average of theirs. The three
scalars are fitted to a trained model's predictions on some cells (checkpoint, pool size) and judged
on the others. Letters: Q strategies, in the order M, G, ...; K outcomes; `...` cells, usually
[checkpoints, sizes], where an axis of size 1 is shared.
Source: Wurgaft et al. 2025, "In-context learning strategies emerge rationally", hierarchical model.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from jaxagent.bayes.distance import kl

NUM_STARTS = 32
MAX_ALPHA = 0.999  # below 1: at 1 steps would not count
MIN_BETA = 1e-3  # above 0: at 0 bits would not count
MAX_LOG_GAMMA = 20.0  # either sign
MAX_SLOPE = 30.0  # of the logistic curve, log-odds per e-fold of steps or sizes
SHARE = 0.8
GRID = np.linspace(-14.0, 14.0, 141)  # log-odds of M over G, see `interpolate`
TOLERANCES = {"ftol": 1e-13, "gtol": 1e-9, "maxiter": 1000}  # losses may be 1e-4 nats

CellLoss = Callable[[jax.Array], jax.Array]  # log weights [..., Q] -> losses of the cells [...]


class Scalars(NamedTuple):
    """The three scalars of the model; as `fixed=` of `fit`, None where a scalar is free."""

    alpha: Any  # 0..1: how little later steps count
    beta: Any  # 0..1: how little further bits count
    gamma: Any  # above 0: nats of log weight per nat of loss


FREE = Scalars(None, None, None)


class Logistic(NamedTuple):
    """The baseline: log-odds of M over G are linear in log steps and log size."""

    bias: Any  # log-odds at one step and one task
    step: Any  # per e-fold of steps
    size: Any  # per e-fold of tasks in the pool


class Fit(NamedTuple):
    """The best of all starts; how near the others came says how well the scalars are known."""

    scalars: Any  # Scalars or Logistic of floats
    loss: float  # mean over the fit cells
    start_losses: np.ndarray  # [M], of every start


def log_weights(
    scalars: Scalars,
    steps: jax.Array,
    losses: jax.Array,
    complexities: jax.Array,
    *,
    has_loss: bool = True,
    has_complexity: bool = True,
) -> jax.Array:
    """Log weights of the strategies, steps `[...]`, losses and bits `[..., Q]` -> `[..., Q]`.

    steps, losses and bits have the same rank but for Q; axes of size 1 are shared. The flags take
    one term away (loss only, complexity only).
    """
    losses = jnp.asarray(losses)
    steps, complexities = (jnp.asarray(a, losses.dtype) for a in (steps, complexities))
    cost = math.log(2.0) * complexities**scalars.beta
    gain = scalars.gamma * steps[..., None] ** (1.0 - scalars.alpha) * losses
    scores = (-cost if has_complexity else 0.0 * cost) - (gain if has_loss else 0.0 * gain)
    return jax.nn.log_softmax(scores)


def logistic_log_weights(scalars: Logistic, steps: jax.Array, sizes: jax.Array) -> jax.Array:
    """Log weights of M and G, steps and sizes `[...]` of the same rank -> `[..., 2]`."""
    odds = scalars.bias + scalars.step * jnp.log(steps) + scalars.size * jnp.log(sizes)
    return jnp.stack([jax.nn.log_sigmoid(odds), jax.nn.log_sigmoid(-odds)], axis=-1)


def mixture(log_weights: jax.Array, log_predictions: jax.Array) -> jax.Array:
    """Weighted average in log space, `[..., Q]` and `[..., Q, *rest]` -> `[..., *rest]`."""
    axis = log_weights.ndim - 1
    rest = tuple(range(log_weights.ndim, log_predictions.ndim))
    return jax.nn.logsumexp(jnp.expand_dims(log_weights, rest) + log_predictions, axis=axis)


def mixture_kl(log_weights: jax.Array, log_predictions, log_targets) -> jax.Array:
    """KL(target || mixture) of every cell, `[...]`, averaged over positions.

    Predictions `[..., Q, *positions, K]`, targets `[..., *positions, K]`. With both bound by
    `functools.partial` it is a cell loss for `fit`; they are cast to the dtype of the weights.
    Where a target is above 0 a mixture of 0 counts as inf, so give predictions that never are.
    """
    log_targets = jnp.asarray(log_targets, log_weights.dtype)
    log_mixed = mixture(log_weights, jnp.asarray(log_predictions, log_weights.dtype))
    divergence = kl(log_targets, log_mixed)
    return divergence.mean(axis=tuple(range(log_weights.ndim - 1, divergence.ndim)))


def interpolate(table: np.ndarray, log_weights: jax.Array) -> jax.Array:
    """Read a table `[..., G]` at log weights `[..., 2]` of M and G: `[...]`, linear in log-odds.

    The table holds at each point of `GRID` what depends on the weight of M alone, such as a cell's
    KL from the mixture: a fit then reads it thousands of times and mixes no predictions.
    """
    first, last = float(GRID[0]), float(GRID[-1])
    logit = jnp.clip(log_weights[..., 0] - log_weights[..., 1], first, last)
    place = (logit - first) * ((GRID.size - 1) / (last - first))
    left = jnp.clip(jnp.floor(place).astype(jnp.int32), 0, GRID.size - 2)
    table = jnp.broadcast_to(jnp.asarray(table, logit.dtype), (*logit.shape, GRID.size))
    ends = (jnp.take_along_axis(table, i[..., None], axis=-1)[..., 0] for i in (left, left + 1))
    low, high = ends
    return low + (place - left.astype(place.dtype)) * (high - low)


def fit(
    cell_loss: CellLoss,
    steps,
    losses,
    complexities,
    is_fit,
    *,
    key: jax.Array,
    num_starts: int = NUM_STARTS,
    fixed: Scalars = FREE,
    has_loss: bool = True,
    has_complexity: bool = True,
) -> Fit:
    """Fit the scalars by the mean of `cell_loss` over the cells where `is_fit` `[...]`.

    steps `[...]`, losses and complexities `[..., Q]` as in `log_weights`. L-BFGS-B in float64 from
    `num_starts` random starts, with alpha in [0, 1), beta in (0, 1] and log gamma free. Ablations:
    `fixed=Scalars(0.0, None, None)` (steps count in full), beta 1, gamma 1, `has_complexity=False`
    (loss only), `has_loss=False` (complexity only; alpha and gamma then stay as they began).
    """
    steps, losses, complexities = (np.asarray(a, np.float64) for a in (steps, losses, complexities))
    is_fit = np.asarray(is_fit, bool)
    _check_fit(steps, losses, complexities, is_fit)
    flags = {"has_loss": has_loss, "has_complexity": has_complexity}

    def objective(vector: jax.Array) -> jax.Array:
        scalars = Scalars(vector[0], vector[1], jnp.exp(vector[2]))
        weights = log_weights(scalars, steps, losses, complexities, **flags)
        return _mean_over(is_fit, cell_loss(weights))

    bounds = _bounds(fixed)
    with jax.enable_x64(True):
        uniforms = np.asarray(jax.random.uniform(key, (num_starts, 3), jnp.float64))
        gaps = _gaps(steps, losses, complexities, is_fit)
        starts = _starts(uniforms, *gaps, bounds, **flags)
        best, loss, start_losses = _minimise(objective, starts, bounds)
    return Fit(Scalars(float(best[0]), float(best[1]), float(np.exp(best[2]))), loss, start_losses)


def fit_logistic(
    cell_loss: CellLoss, steps, sizes, is_fit, *, key: jax.Array, num_starts: int = NUM_STARTS
) -> Fit:
    """Fit the logistic baseline in the same way; steps, sizes and `is_fit` are `[...]`."""
    steps, sizes = np.asarray(steps, np.float64), np.asarray(sizes, np.float64)
    is_fit = np.asarray(is_fit, bool)
    log_steps, log_sizes = (np.log(np.broadcast_to(a, is_fit.shape)[is_fit]) for a in (steps, sizes))

    def objective(vector: jax.Array) -> jax.Array:
        weights = logistic_log_weights(Logistic(*vector), jnp.asarray(steps), jnp.asarray(sizes))
        return _mean_over(is_fit, cell_loss(weights))

    with jax.enable_x64(True):
        uniforms = np.asarray(jax.random.uniform(key, (num_starts, 3), jnp.float64))
        slopes = 6.0 * uniforms[:, :2] - 3.0
        cell = (uniforms[:, 2] * log_steps.size).astype(int)
        # The curve starts at one half in some cell of the fit, where there is a gradient.
        bias = -slopes[:, 0] * log_steps[cell] - slopes[:, 1] * log_sizes[cell]
        starts = np.column_stack([bias, slopes])
        bounds = [(None, None), (-MAX_SLOPE, MAX_SLOPE), (-MAX_SLOPE, MAX_SLOPE)]
        best, loss, start_losses = _minimise(objective, starts, bounds)
    return Fit(Logistic(*(float(value) for value in best)), loss, start_losses)


def _check_fit(steps, losses, complexities, is_fit) -> None:
    cells = np.broadcast_shapes(steps.shape, losses.shape[:-1], complexities.shape[:-1])
    if cells != is_fit.shape or not is_fit.any() or losses.shape[-1] != complexities.shape[-1]:
        raise ValueError(
            f"rational.fit: got steps {steps.shape}, losses {losses.shape}, complexities "
            f"{complexities.shape} and {is_fit.sum()} fit cells of {is_fit.shape}, expected [...], "
            "[..., Q], [..., Q] and some of [...]; fix: give shared axes size 1, see corner_split"
        )
    is_finite = all(np.isfinite(a).all() for a in (steps, losses, complexities))
    if not is_finite or steps.min() < 1.0 or complexities.min() <= 0.0:
        raise ValueError(
            f"rational.fit: got steps from {steps.min()}, complexities from {complexities.min()}, "
            f"all finite: {is_finite}, expected steps >= 1, bits > 0, finite; "
            "fix: leave out the checkpoint before training, and count the code's bits"
        )


def _mean_over(is_fit: np.ndarray, cell_losses: jax.Array) -> jax.Array:
    return jnp.sum(jnp.where(is_fit, cell_losses, 0.0)) / int(is_fit.sum())


def _bounds(fixed: Scalars) -> list[tuple[float, float]]:
    """Ends of alpha, beta and log gamma; both the same where a scalar is fixed."""
    free = [(0.0, MAX_ALPHA), (MIN_BETA, 1.0), (-MAX_LOG_GAMMA, MAX_LOG_GAMMA)]
    log_gamma = None if fixed.gamma is None else float(np.log(fixed.gamma))
    values = (fixed.alpha, fixed.beta, log_gamma)
    return [ends if v is None else (v, v) for ends, v in zip(free, values, strict=True)]


def _gaps(steps, losses, complexities, is_fit) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the F fit cells: steps `[F]`, spread of losses `[F]`, bits `[F, Q]`."""

    def spread(a: np.ndarray) -> np.ndarray:
        return np.broadcast_to(a, (*is_fit.shape, a.shape[-1]))[is_fit]

    steps = np.broadcast_to(steps, is_fit.shape)[is_fit]
    return steps, np.ptp(spread(losses), axis=-1), spread(complexities)


def _starts(uniforms, steps, loss_gap, bits, bounds, has_loss, has_complexity) -> np.ndarray:
    """Starts `[M, 3]` whose two terms balance in some cell of the fit `[M]`.

    Uniform starts would mostly be saturated, with weights of 0 and 1 everywhere and no gradient.
    """
    low, high = np.transpose(bounds)
    alpha, beta = (low[i] + (high[i] - low[i]) * uniforms[:, i] for i in (0, 1))
    cell = (uniforms[:, 2] * len(steps)).astype(int)
    cost = np.ptp(np.log(2.0) * bits[cell] ** beta[:, None], axis=-1) if has_complexity else 1.0
    gain = steps[cell] ** (1.0 - alpha) * loss_gap[cell] if has_loss else 1.0
    log_gamma = np.log(np.maximum(cost, 1e-9)) - np.log(np.maximum(gain, 1e-9))
    return np.column_stack([alpha, beta, np.clip(log_gamma, low[2], high[2])])


def _minimise(objective, starts, bounds) -> tuple[np.ndarray, float, np.ndarray]:
    """Best point, its value, and the value reached from every start `[M]`, by L-BFGS-B."""
    value_and_grad = jax.jit(jax.value_and_grad(objective))

    def call(vector: np.ndarray) -> tuple[float, np.ndarray]:
        value, grad = value_and_grad(jnp.asarray(vector))
        return float(value), np.array(grad)

    results = [
        scipy.optimize.minimize(call, start, jac=True, method="L-BFGS-B", bounds=bounds, options=TOLERANCES)
        for start in starts
    ]
    values = np.array([float(result.fun) for result in results])
    if not np.isfinite(values).any():
        raise ValueError(
            f"rational: got the losses {values}, expected one that is finite; "
            "fix: look for NaN or probabilities of 0 in the predictions and targets"
        )
    best = int(np.argmin(np.where(np.isfinite(values), values, np.inf)))
    return results[best].x, float(values[best]), values


def transition_step(scalars: Scalars, loss_m, loss_g, bits_m, bits_g) -> np.ndarray:
    """Steps N at which M overtakes G: gamma N^(1-alpha) (L_G - L_M) = ln 2 (K_M^beta - K_G^beta).

    Arrays `[...]` -> `[...]`; 0 where M is no dearer, inf where it is dearer and no better.
    """
    cost = np.log(2.0) * (np.power(bits_m, scalars.beta) - np.power(bits_g, scalars.beta))
    gain = scalars.gamma * (np.asarray(loss_g) - np.asarray(loss_m))
    ratio = np.maximum(cost, 0.0) / np.where(gain > 0.0, gain, 1.0)
    steps = ratio ** (1.0 / (1.0 - scalars.alpha))
    return np.where((gain <= 0.0) & (cost > 0.0), np.inf, steps)


def corner_split(
    num_checkpoints: int, num_sizes: int, fraction: float = SHARE
) -> tuple[np.ndarray, np.ndarray]:
    """Masks of the fit and the held-out cells, bool `[checkpoints, sizes]` each.

    Fit are the first `fraction` of checkpoints at the first `fraction` of sizes, rounded down, so
    that with few sizes the largest is held out; all other cells are held out.
    """
    kept = [int(np.floor(fraction * n + 1e-9)) for n in (num_checkpoints, num_sizes)]
    is_fit = np.zeros((num_checkpoints, num_sizes), bool)
    is_fit[: kept[0], : min(kept[1], num_sizes - 1)] = True
    check_split(is_fit, ~is_fit)
    return is_fit, ~is_fit


def check_split(is_fit, is_held_out) -> None:
    """ValueError when a cell is in both masks `[...]`, or when either mask is empty."""
    is_fit, is_held_out = np.asarray(is_fit, bool), np.asarray(is_held_out, bool)
    overlap = int((is_fit & is_held_out).sum())
    if overlap or not is_fit.any() or not is_held_out.any():
        raise ValueError(
            f"split: got {is_fit.sum()} fit and {is_held_out.sum()} held-out cells, {overlap} of "
            "them both, expected some of each and none in both; "
            "fix: use corner_split with at least 2 checkpoints and 2 sizes and 0.5 <= fraction < 1"
        )
