"""Memorising against generalising: what a model does at each checkpoint, and what theory predicts.

Letters: M checkpoints, S pool sizes, B prompts, T steps, K outcomes, G points of `rational.GRID`.
"""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.icl_rational.config import Config
from jaxagent import keys
from jaxagent.bayes import complexity, distance, rational, tables
from jaxagent.bayes.rational import Scalars
from jaxagent.bayes.regret import log_losses
from jaxagent.data import prompts
from jaxagent.data.prompts import Pool
from jaxagent.study import in_context
from jaxagent.study.in_context import Prompt, Setting

SEEN, NEW = "pool", "new"  # prompts of the pool's tasks, and of tasks never seen
VARIANTS = ("model", "loss only", "complexity only", "logistic", "alpha 0", "beta 1", "gamma 1", "permuted")


class Cells(NamedTuple):
    """One seed's models, at every checkpoint and size, between M and G."""

    relative: dict[str, np.ndarray]  # kind -> [M, S]: 1 memorises, -1 generalises
    relative_of: dict[str, np.ndarray]  # kind -> [S, G]: of the mixture at each weight
    kl: np.ndarray  # [M, S, G]: from the mixture at each weight, prompts of the pool
    gap: dict[str, np.ndarray]  # kind -> [S]: symmetric KL between M and G, nats
    losses: dict[str, np.ndarray]  # kind -> [S, 2]: of M and G, nats
    bits: np.ndarray  # [S, 2]: of M and G


def setting_of(config: Config, mlp_factor: int) -> Setting:
    """The prompts and the model of one MLP width."""
    p, model = config.prompts, dataclasses.replace(config.model, mlp_factor=mlp_factor)
    if p.task == "urn":
        return in_context.urns(p.num_outcomes, p.num_steps, model)
    return in_context.walks(p.num_states, p.num_actions, p.num_steps, model)


def pools(config: Config, setting: Setting, seed: int) -> Pool:
    """One pool for each size, `[S, ...]`; a smaller pool is the beginning of a larger one."""
    sizes = jnp.array(config.prompts.sizes, jnp.int32)
    stack = prompts.dirichlet_tables(
        keys.derive(seed, "rational/pool"),
        config.prompts.sizes[-1],
        setting.num_contexts,
        setting.num_outcomes,
        config.prompts.alpha,
    )
    return jax.vmap(prompts.uniform_pool, in_axes=(None, 0))(stack, sizes)


def cells(config: Config, setting: Setting, seed: int, snapshots: Any) -> Cells:
    """Measure one seed: `snapshots [M, S, ...]` against M and G on seen and new tasks."""
    of_sizes, alpha = pools(config, setting, seed), config.prompts.alpha
    key_seen, key_new = (keys.derive(seed, f"rational/{kind}") for kind in (SEEN, NEW))
    num = config.num_prompts

    @jax.jit
    def measure(snapshots, of_sizes):
        draw = partial(in_context.draw_from_pool, setting, num_prompts=num)
        seen = jax.vmap(lambda pool: draw(key_seen, pool))(of_sizes)
        tables_new = prompts.dirichlet_tables(key_new, num, setting.num_contexts, setting.num_outcomes, alpha)
        new = setting.draw(jax.random.split(jax.random.fold_in(key_new, 1), num), tables_new)
        new = jax.tree.map(lambda x: jnp.broadcast_to(x, (len(config.prompts.sizes), *x.shape)), new)
        return {
            kind: _against(setting, alpha, snapshots, of_sizes, prompt)
            for kind, prompt in ((SEEN, seen), (NEW, new))
        }

    found = jax.device_get(measure(snapshots, of_sizes))
    return Cells(
        relative={kind: f["relative"] for kind, f in found.items()},
        relative_of={kind: f["relative_of"] for kind, f in found.items()},
        kl=found[SEEN]["kl"],
        gap={kind: f["gap"] for kind, f in found.items()},
        losses={kind: f["losses"] for kind, f in found.items()},
        bits=bits_of(config, np.asarray(of_sizes.tables[0])),
    )


def _against(setting: Setting, alpha: float, snapshots: Any, of_sizes: Pool, prompt: Prompt):
    """Distances of every model from M, G and their mixtures; prompts `[S, B]`."""
    rows = prompt.rows
    memorising = jax.vmap(lambda pool, r: jax.vmap(partial(tables.memorising, pool))(r))(of_sizes, rows)
    generalising = jax.vmap(jax.vmap(lambda r: tables.generalising(r, alpha, setting.num_outcomes)))(rows)
    pair = jnp.stack([memorising, generalising], axis=1)  # [S, 2, B, T, K]
    gap = _mean(distance.symmetric_kl(memorising, generalising))

    def mixed(logit):
        both = jnp.stack([jax.nn.log_sigmoid(logit), jax.nn.log_sigmoid(-logit)])
        return rational.mixture(jnp.broadcast_to(both[None], (pair.shape[0], 2)), pair)

    def relative(prediction):  # [S, B, T, K] -> [S]
        to_m, to_g = (_mean(distance.symmetric_kl(prediction, pair[:, q])) for q in (0, 1))
        return distance.relative_distance(to_g, to_m, gap)

    predictions = jax.lax.map(lambda p: jax.vmap(setting.predict)(p, prompt), snapshots)
    mixtures = jax.lax.map(mixed, jnp.asarray(rational.GRID, jnp.float32))  # [G, S, B, T, K]
    losses = jax.vmap(jax.vmap(jax.vmap(log_losses), (0, None)))(pair, rows.outcome)
    return {
        "relative": jax.lax.map(relative, predictions),
        "relative_of": jax.lax.map(relative, mixtures).T,
        "kl": _kl_of_all(predictions, mixtures),
        "gap": gap,
        "losses": jnp.mean(losses, axis=(2, 3)),
    }


def _kl_of_all(predictions: jax.Array, mixtures: jax.Array) -> jax.Array:
    """KL of `predictions [M, S, B, T, K]` from `mixtures [G, S, B, T, K]`, `[M, S, G]`.

    Its cross term is one product of matrices for all pairs.
    """
    num_positions = predictions.shape[2] * predictions.shape[3]
    p, log_p, log_q = (x.reshape(*x.shape[:2], -1) for x in (jnp.exp(predictions), predictions, mixtures))
    cross = jnp.einsum("mse,gse->msg", p, log_q, precision=jax.lax.Precision.HIGHEST)
    return (jnp.sum(p * log_p, axis=-1)[..., None] - cross) / num_positions


def _mean(x: jax.Array) -> jax.Array:
    return jnp.mean(x, axis=(1, 2))


def bits_of(config: Config, stack: np.ndarray) -> np.ndarray:
    """Bits of M and G for each size, `[S, 2]`, from the largest pool's tables `[D, C, K]`."""
    kind = config.theory.complexity
    code = complexity.CODE_BITS * (5.0 if kind == "code_x5" else 1.0)
    of_tables = complexity.lzma_bits if kind == "lzma" else complexity.table_bits
    return np.array([[of_tables(stack[:size], code_bits=code), code] for size in config.prompts.sizes])


# --- the theory -----------------------------------------------------------------------------------


class Prediction(NamedTuple):
    """What a fitted variant says of every cell."""

    scalars: Any
    logit: np.ndarray  # [M, S] log-odds of M over G
    kl: np.ndarray  # [M, S] of the model from the mixture


def steps_of(config: Config) -> np.ndarray:
    """Updates done at each checkpoint after the first, `[M]`."""
    per_chunk = config.fit.updates_per_chunk
    return per_chunk * np.arange(1.0, config.fit.num_updates // per_chunk + 1)


def predict(config: Config, found: Cells, variant: str, key: jax.Array) -> Prediction:
    """Fit a variant on the fit cells of one seed, and read it at all cells."""
    steps, sizes = steps_of(config)[:, None], np.array(config.prompts.sizes, np.float64)[None]
    is_fit, _ = rational.corner_split(len(steps), sizes.size, config.theory.share)
    loss = partial(rational.interpolate, found.kl)
    search = {"key": key, "num_starts": config.theory.num_starts}
    if variant == "logistic":
        fit = rational.fit_logistic(loss, steps, sizes, is_fit, **search)
        weights = rational.logistic_log_weights(fit.scalars, steps, sizes)
    else:
        losses, bits = found.losses[SEEN][None], found.bits[None]
        if variant == "permuted":  # the saboteur: losses and bits of other sizes
            losses, bits = losses[:, ::-1], bits[:, ::-1]
        flags = {"has_loss": variant != "complexity only", "has_complexity": variant != "loss only"}
        fixed = FIXED.get(variant, rational.FREE)
        fit = rational.fit(loss, steps, losses, bits, is_fit, fixed=fixed, **flags, **search)
        with jax.enable_x64(True):
            weights = rational.log_weights(fit.scalars, steps, losses, bits, **flags)
    with jax.enable_x64(True):
        weights = np.broadcast_to(np.asarray(weights, np.float64), (*is_fit.shape, 2))
        weights = jnp.asarray(weights)
        return Prediction(
            scalars=fit.scalars._asdict(),
            logit=np.asarray(weights[..., 0] - weights[..., 1]),
            kl=np.asarray(loss(weights)),
        )


FIXED = {
    "alpha 0": Scalars(0.0, None, None),
    "beta 1": Scalars(None, 1.0, None),
    "gamma 1": Scalars(None, None, 1.0),
}


def relative_predicted(found: Cells, prediction: Prediction, kind: str) -> np.ndarray:
    """Relative distance `[M, S]` of the predicted mixture."""
    table = found.relative_of[kind]
    return np.stack(
        [
            np.interp(prediction.logit[:, s], rational.GRID, table[s])
            for s in range(prediction.logit.shape[1])
        ],
        axis=1,
    )


def judge_seed(config: Config, found: Cells, key: jax.Array) -> dict[str, Any]:
    """Fits of all variants, correlations and KL on held-out cells, and transitions, as JSON."""
    fits = {v: predict(config, found, v, jax.random.fold_in(key, i)) for i, v in enumerate(VARIANTS)}
    num_checkpoints, num_sizes = found.relative[SEEN].shape
    is_fit, is_held_out = rational.corner_split(num_checkpoints, num_sizes, config.theory.share)
    is_between = between(found.kl, config.theory.interpolation)
    result: dict[str, Any] = {
        "scalars": {v: f.scalars for v, f in fits.items()},
        "kl": {v: float(f.kl[is_held_out].mean()) for v, f in fits.items()},
        "fit_kl": {v: float(f.kl[is_fit].mean()) for v, f in fits.items()},
        "floors": {
            "best single predictor": float(found.kl[..., [0, -1]].min(-1)[is_held_out].mean()),
            "best weight of each cell": float(found.kl.min(-1)[is_held_out].mean()),
            "half and half": float(found.kl[..., rational.GRID.size // 2][is_held_out].mean()),
        },
        "cells": {"fit": int(is_fit.sum()), "held out": int(is_held_out.sum())},
        "relative": {kind: r.tolist() for kind, r in found.relative.items()},
        "predicted": {},
        "correlation": {},
        "losses": {kind: x.tolist() for kind, x in found.losses.items()},
        "bits": found.bits.tolist(),
        "gap": {kind: g.tolist() for kind, g in found.gap.items()},
    }
    for kind in (SEEN, NEW):
        says = relative_predicted(found, fits["model"], kind)
        result["predicted"][kind] = says.tolist()
        tells = is_held_out & (found.gap[kind] >= config.theory.least_gap)[None]
        pairs = {"": tells, ", filtered": tells & is_between}
        for name, mask in pairs.items():
            result["correlation"][kind + name] = correlation(found.relative[kind][mask], says[mask])
    result["transition"] = transitions(config, found, fits["model"])
    return result


def between(kl: np.ndarray, share: float) -> np.ndarray:
    """Cells `[M, S]` from the checkpoint on at which a model lies between M and G.

    That is where its KL from the best mixture has come within `share` of its range from the least.
    """
    floor = kl.min(-1)
    limit = floor.min(0) + share * (floor.max(0) - floor.min(0))
    first = (floor <= limit[None]).argmax(0)
    return np.arange(len(kl))[:, None] >= first[None]


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's; 0 where either does not vary, or there are fewer than three points."""
    if x.size < 3 or np.ptp(x) == 0.0 or np.ptp(y) == 0.0:
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])


def transitions(config: Config, found: Cells, prediction: Prediction) -> dict[str, list]:
    """Updates at which M overtakes G on seen tasks, by size, observed and predicted; or None."""
    steps = steps_of(config)
    result: dict[str, list] = {"observed": [], "predicted": []}
    for name, above in (("observed", found.relative[SEEN] > 0), ("predicted", prediction.logit > 0)):
        # Overtaken for good: from the first checkpoint after the last at which G leads.
        for column in above.T:
            last = np.flatnonzero(~column)
            first = 0 if last.size == 0 else last[-1] + 1
            result[name].append(float(steps[first]) if first < len(steps) else None)
    return result
