"""Collapse of a representation: numbers of held-out latents, and alarms that name what they mean.

A low self-predictive loss says nothing by itself: a constant latent predicts itself perfectly. Most
thresholds are conventions; they are arguments of `alarms`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxagent.objectives.latent import cosine_distance

TINY = 1e-8
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # that a probe may choose from
RANK_SHARE = 0.99  # of the singular values, that `srank` has to reach (Kumar et al. 2021)
SILENT = 0.01  # of the mean spread of units, below which a probe does not stretch one
DORMANT = 0.025  # score below which a unit is dormant (Sokar et al. 2023)


class Diagnosis(NamedTuple):
    """Measures of N latents of width d and of predictions between them, each `[]`."""

    effective_rank: jax.Array  # as a share of d
    srank: jax.Array  # as a share of d
    spread: jax.Array  # 1: directions are isotropic; 0: one direction
    mean_cosine: jax.Array  # of pairs of different states
    dormant: jax.Array  # share of units
    copy_ratio: jax.Array  # error of the prediction over that of "nothing changes"
    action_sensitivity: jax.Array  # error with other actions over the error with the true ones
    retrieval: jax.Array  # share of predictions whose nearest future is their own


class Limits(NamedTuple):
    """Limits beyond which an alarm goes off."""

    effective_rank: float = 0.1  # least
    spread: float = 0.3  # least
    mean_cosine: float = 0.9  # most
    copy_ratio: float = 0.8  # most
    action_sensitivity: float = 1.05  # least
    dormant: float = 0.5  # most


OF_COLLAPSE = ("effective_rank", "spread", "mean_cosine")  # of latents, whatever is predicted
MEANING = {
    "effective_rank": "latents lie in few dimensions (dimensional collapse)",
    "spread": "latents point in nearly one direction (collapse)",
    "mean_cosine": "different states have nearly the same latent (collapse)",
    "copy_ratio": "predictions are no better than that nothing changes",
    "action_sensitivity": "predictions do not depend on the action",
    "dormant": "units are silent",
}


def diagnose(
    latent: jax.Array, now: jax.Array, predicted: jax.Array, other: jax.Array, later: jax.Array
) -> Diagnosis:
    """All measures of latents `[N, d]` and of predictions of projections `[N, ..., P]`.

    `now` and `later` are the target's projections of the states and of what came, `predicted` what
    was predicted of it and `other` the same under actions of other states. Errors are mean
    `1 - cos`.
    """
    error, of_other, of_copy = (jnp.mean(cosine_distance(x, later)) for x in (predicted, other, now))
    return Diagnosis(
        effective_rank=effective_rank(latent) / latent.shape[1],
        srank=srank(latent) / latent.shape[1],
        spread=spread(latent),
        mean_cosine=mean_cosine(latent),
        dormant=dormant(latent),
        copy_ratio=error / jnp.maximum(of_copy, TINY),
        action_sensitivity=of_other / jnp.maximum(error, TINY),
        retrieval=retrieval(*(x.reshape(x.shape[0], -1) for x in (predicted, later))),
    )


def effective_rank(latent: jax.Array) -> jax.Array:
    """Exponential `[]` of the entropy of the singular values' shares, in [1, d] (Roy, Vetterli 2007).

    Of latents `[N, d]`.
    """
    share = _shares(latent)
    return jnp.exp(-jnp.sum(share * jnp.log(jnp.maximum(share, TINY))))


def srank(latent: jax.Array) -> jax.Array:
    """Singular values of latents `[N, d]` that make up 0.99 of their sum, `[]` (Kumar et al. 2021, eq. 2)."""
    reached = jnp.cumsum(_shares(latent)) < RANK_SHARE
    return 1.0 + jnp.sum(reached, dtype=jnp.float32)


def _shares(latent: jax.Array) -> jax.Array:
    """Singular values of centred latents, largest first, over their sum."""
    centred = latent - jnp.mean(latent, axis=0, keepdims=True)
    # Those of the triangle are the same, and it is small.
    triangle = jnp.linalg.qr(centred, mode="r")
    values = jnp.linalg.svd(triangle, compute_uv=False)
    return values / jnp.maximum(jnp.sum(values), TINY)


def spread(latent: jax.Array) -> jax.Array:
    """`sqrt(d)` times the mean deviation `[]` of a coordinate of latents' `[N, d]` directions.

    Source: Chen and He 2021.
    """
    return jnp.sqrt(jnp.float32(latent.shape[1])) * jnp.mean(jnp.std(_unit(latent), axis=0))


def mean_cosine(latent: jax.Array) -> jax.Array:
    """Mean cosine `[]` over pairs of different latents `[N, d]`."""
    count = latent.shape[0]
    total = jnp.sum(jnp.square(jnp.sum(_unit(latent), axis=0)))
    return (total - count) / (count * (count - 1))


def dormant(latent: jax.Array) -> jax.Array:
    """Share `[]` of units whose mean size is at most 0.025 of the mean over units (Sokar et al. 2023).

    Of signed latents `[N, d]`, deviations from the unit's mean: a constant unit says nothing either.
    """
    size = jnp.mean(jnp.abs(latent - jnp.mean(latent, axis=0, keepdims=True)), axis=0)
    return jnp.mean((size <= DORMANT * jnp.mean(size)).astype(jnp.float32))


def retrieval(predicted: jax.Array, later: jax.Array) -> jax.Array:
    """Share `[]` of predictions `[N, d]` to which no other's future is nearer by cosine than its own.

    `later [N, d]` are the futures. Chance is 1 / N. Equal futures are no error.
    """
    cosine = _product(_unit(predicted), _unit(later).T)
    of_pair = jnp.diagonal(cosine)
    return jnp.mean((of_pair >= jnp.max(cosine, axis=1) - 1e-6).astype(jnp.float32))


def linear_probe(latent: jax.Array, truth: jax.Array, ridge: float = 1e-3) -> jax.Array:
    """Held-out R^2 `[m]` of a ridge regression from latents `[N, d]` to what is true, `[N, m]`.

    The first half is fitted, the second predicted; latents are standardised, but for units that
    hardly vary there, which would be blown up, and the penalty is a share of the number of rows.
    R^2 is against the fitted half's mean, and below 0 where the probe is worse than that; 0 where
    the truth does not vary.
    """
    half = latent.shape[0] // 2
    x, y = _standardised(latent, half), truth - jnp.mean(truth[:half], axis=0, keepdims=True)
    gram = _product(x[:half].T, x[:half]) + ridge * half * jnp.eye(x.shape[1])
    weight = jnp.linalg.solve(gram, _product(x[:half].T, y[:half]))
    return _explained(y[half:], _product(x[half:], weight))


def best_linear_probe(latent: jax.Array, truth: jax.Array, ridges: Sequence[float] = RIDGES) -> jax.Array:
    """As `linear_probe` of the best of some penalties, so that inputs of any width are read fairly.

    Half of the rows is fitted; the next quarter chooses the penalty, by the mean R^2; the last is scored.
    """
    half, judged = latent.shape[0] // 2, 3 * latent.shape[0] // 4
    x, y = _standardised(latent, half), truth - jnp.mean(truth[:half], axis=0, keepdims=True)
    values, vectors = jnp.linalg.eigh(_product(x[:half].T, x[:half]))
    along = _product(vectors.T, _product(x[:half].T, y[:half]))
    shrunk = [along / (values[:, None] + ridge * half) for ridge in ridges]
    told = _product(x[half:], _product(vectors, jnp.concatenate(shrunk, axis=1)))
    told = told.reshape(told.shape[0], len(ridges), -1).swapaxes(0, 1)
    chooses = judged - half
    scores = jax.vmap(_explained, in_axes=(None, 0))
    best = jnp.argmax(jnp.mean(scores(y[half:judged], told[:, :chooses]), axis=1))
    return scores(y[judged:], told[:, chooses:])[best]


def _standardised(latent: jax.Array, half: int) -> jax.Array:
    """By the moments of the first rows; units that hardly vary there are not blown up."""
    centre = jnp.mean(latent[:half], axis=0, keepdims=True)
    scale = jnp.std(latent[:half], axis=0, keepdims=True)
    return (latent - centre) / jnp.maximum(scale, SILENT * jnp.mean(scale) + TINY)


def _explained(y: jax.Array, told: jax.Array) -> jax.Array:
    """R^2 `[m]` of predictions against `y [N, m]`, whose mean is 0 where it was fitted."""
    left, total = jnp.sum(jnp.square(y - told), axis=0), jnp.sum(jnp.square(y), axis=0)
    return jnp.where(total > TINY, 1.0 - left / jnp.maximum(total, TINY), 0.0)


LIMITS = Limits()


def alarms(found: Any, limits: Limits = LIMITS) -> dict[str, str]:
    """A sentence by name for each number beyond its limit; `found` has `Diagnosis`'s fields `[]`."""
    at_most = ("mean_cosine", "copy_ratio", "dormant")
    result = {}
    for name, meaning in MEANING.items():
        value, limit = float(getattr(found, name)), getattr(limits, name)
        is_bad = value > limit if name in at_most else value < limit
        if is_bad or value != value:
            sign = ">" if name in at_most else "<"
            result[name] = f"{name} {value:.3g} {sign} {limit:g}: {meaning}"
    return result


def _product(x: jax.Array, y: jax.Array) -> jax.Array:
    """In whole float32, whatever precision the run learns in."""
    return jnp.matmul(x, y, precision=jax.lax.Precision.HIGHEST)


def _unit(x: jax.Array) -> jax.Array:
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), TINY)
