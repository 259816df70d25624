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
from jaxagent.bayes.regret import log_losses
from jaxagent.data import prompts
from jaxagent.data.prompts import Pool
from jaxagent.evaluate import statistics
from jaxagent.study import in_context
from jaxagent.study.in_context import Prompt, Setting

SEEN, NEW = "pool", "new"  # prompts of the pool's tasks, and of tasks never seen
Fields = dict[str, jax.Array]  # of `Cells`, for one kind of prompts
VARIANTS = ("model", "loss only", "complexity only", "logistic", "alpha 0", "beta 1", "gamma 1", "permuted")
FIXED = {"alpha 0": {"alpha": 0.0}, "beta 1": {"beta": 1.0}, "gamma 1": {"gamma": 1.0}}  # ablated scalars


class Cells(NamedTuple):
    """One seed's models, at every checkpoint and size, between M and G."""

    relative: dict[str, np.ndarray]  # kind -> [M, S]: 1 memorises, -1 generalises
    relative_of: dict[str, np.ndarray]  # kind -> [S, G]: of the mixture at each weight
    kl: dict[str, np.ndarray]  # kind -> [M, S, G]: from the mixture at each weight
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
    p, key = config.prompts, keys.derive(seed, "rational/pool")
    stack = in_context.new_tables(setting, key, p.sizes[-1], p.alpha)
    return jax.vmap(prompts.uniform_pool, in_axes=(None, 0))(stack, jnp.array(p.sizes, jnp.int32))


def cells(config: Config, setting: Setting, seed: int, snapshots: Any) -> Cells:
    """Measure one seed: `snapshots [M, S, ...]` against M and G on seen and new tasks."""
    of_sizes = pools(config, setting, seed)
    kind_keys = [keys.derive(seed, f"rational/{kind}") for kind in (SEEN, NEW)]
    measured = jax.device_get(_measured(config, setting, snapshots, of_sizes, kind_keys))
    by_kind = jax.tree.map(lambda seen, new: {SEEN: seen, NEW: new}, *measured)
    return Cells(**by_kind, bits=bits_of(config, np.asarray(of_sizes.tables[0])))


@partial(jax.jit, static_argnums=(0, 1))
def _measured(config: Config, setting: Setting, models: Any, pools: Pool, kind_keys: Any) -> list[Fields]:
    """`_between` on prompts of the pool's tasks for each size, and on those of new tasks for all."""
    (key_seen, key_new), alpha, num = kind_keys, config.prompts.alpha, config.num_prompts
    seen = jax.vmap(lambda pool: in_context.draw_from_pool(setting, key_seen, pool, num))(pools)
    stack = in_context.new_tables(setting, key_new, num, alpha)
    new = setting.draw(jax.random.split(jax.random.fold_in(key_new, 1), num), stack)
    new = jax.tree.map(lambda x: jnp.broadcast_to(x, (len(pools.tables), *x.shape)), new)
    return [_between(setting, alpha, models, pools, prompt) for prompt in (seen, new)]


def _between(setting: Setting, alpha: float, models: Any, pools: Pool, prompt: Prompt) -> Fields:
    """Every model's distances from M, G and their mixtures; prompts `[S, B]`."""
    rows, mean = prompt.rows, partial(jnp.mean, axis=(1, 2))
    memorising = jax.vmap(lambda pool, r: jax.vmap(partial(tables.memorising, pool))(r))(pools, rows)
    counted = partial(tables.generalising, alpha=alpha, num_outcomes=setting.num_outcomes)
    generalising = jax.vmap(jax.vmap(counted))(rows)
    pair = jnp.stack([memorising, generalising], axis=1)  # [S, 2, B, T, K]
    gap = mean(distance.symmetric_kl(memorising, generalising))

    def mixed(logit: jax.Array) -> jax.Array:
        both = jnp.stack([jax.nn.log_sigmoid(logit), jax.nn.log_sigmoid(-logit)])
        return rational.mixture(jnp.broadcast_to(both[None], (pair.shape[0], 2)), pair)

    def relative(prediction: jax.Array) -> jax.Array:  # [S, B, T, K] -> [S]
        to_m, to_g = (mean(distance.symmetric_kl(prediction, pair[:, q])) for q in (0, 1))
        return distance.relative_distance(to_g, to_m, gap)

    predictions = jax.lax.map(lambda p: jax.vmap(setting.predict)(p, prompt), models)
    mixtures = jax.lax.map(mixed, jnp.asarray(rational.GRID, jnp.float32))  # [G, S, B, T, K]
    losses = jax.vmap(jax.vmap(jax.vmap(log_losses), (0, None)))(pair, rows.outcome)
    return {
        "relative": jax.lax.map(relative, predictions),
        "relative_of": jax.lax.map(relative, mixtures).T,
        "kl": distance.kl_of_pairs(predictions, mixtures),
        "gap": gap,
        "losses": jnp.mean(losses, axis=(2, 3)),
    }


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
    loss = partial(rational.interpolate, found.kl[SEEN])
    search = {"key": key, "num_starts": config.theory.num_starts}
    if variant == "logistic":
        fit = rational.fit_logistic(loss, steps, sizes, is_fit, **search)
        weights = rational.logistic_log_weights(fit.scalars, steps, sizes)
    else:
        order = -1 if variant == "permuted" else 1  # the saboteur: losses and bits of other sizes
        losses, bits = found.losses[SEEN][None, ::order], found.bits[None, ::order]
        flags = {"has_loss": variant != "complexity only", "has_complexity": variant != "loss only"}
        fixed = rational.FREE._replace(**FIXED.get(variant, {}))
        fit = rational.fit(loss, steps, losses, bits, is_fit, fixed=fixed, **flags, **search)
        with jax.enable_x64(True):
            weights = rational.log_weights(fit.scalars, steps, losses, bits, **flags)
    with jax.enable_x64(True):
        weights = jnp.asarray(np.broadcast_to(np.asarray(weights, np.float64), (*is_fit.shape, 2)))
        logit = np.asarray(weights[..., 0] - weights[..., 1])
        return Prediction(fit.scalars._asdict(), logit, np.asarray(loss(weights)))


def relative_predicted(found: Cells, prediction: Prediction, kind: str) -> np.ndarray:
    """Relative distance `[M, S]` of the predicted mixture."""
    of_sizes = zip(prediction.logit.T, found.relative_of[kind], strict=True)
    return np.stack([np.interp(logit, rational.GRID, table) for logit, table in of_sizes], axis=1)


def judge_seed(config: Config, found: Cells, key: jax.Array) -> dict[str, Any]:
    """Fits of all variants, correlations and KL on held-out cells, and transitions, as JSON."""
    fits = {v: predict(config, found, v, jax.random.fold_in(key, i)) for i, v in enumerate(VARIANTS)}
    is_fit, is_held_out = rational.corner_split(*found.relative[SEEN].shape, config.theory.share)
    kl = found.kl[SEEN]
    floors = {
        "best single predictor": kl[..., [0, -1]].min(-1),
        "best weight of each cell": kl.min(-1),
        "half and half": kl[..., rational.GRID.size // 2],
    }
    predicted = {kind: relative_predicted(found, fits["model"], kind) for kind in (SEEN, NEW)}
    correlations = {}
    for kind in (SEEN, NEW):
        tells = is_held_out & (found.gap[kind] >= config.theory.least_gap)[None]
        is_between = tells & between(kl, config.theory.interpolation)
        for name, mask in ((kind, tells), (f"{kind}, filtered", is_between)):
            correlations[name] = statistics.correlation(found.relative[kind][mask], predicted[kind][mask])
    result = {
        "scalars": {v: f.scalars for v, f in fits.items()},
        "kl": {v: f.kl[is_held_out].mean() for v, f in fits.items()},
        "fit_kl": {v: f.kl[is_fit].mean() for v, f in fits.items()},
        "floors": {name: of_cells[is_held_out].mean() for name, of_cells in floors.items()},
        "cells": {"fit": is_fit.sum(), "held out": is_held_out.sum()},
        "relative": found.relative,
        "predicted": predicted,
        "correlation": correlations,
        "losses": found.losses,
        "bits": found.bits,
        "gap": found.gap,
        "transition": transitions(config, found, fits["model"]),
    }
    return jax.tree.map(lambda x: np.asarray(x).tolist(), result)


def between(kl: np.ndarray, share: float) -> np.ndarray:
    """Cells `[M, S]` from the checkpoint on at which a model lies between M and G.

    That is where its KL from the best mixture has come within `share` of its range from the least.
    """
    floor = kl.min(-1)
    limit = floor.min(0) + share * np.ptp(floor, axis=0)
    first = (floor <= limit[None]).argmax(0)
    return np.arange(len(kl))[:, None] >= first[None]


def transitions(config: Config, found: Cells, prediction: Prediction) -> dict[str, list[float | None]]:
    """Updates at which M overtakes G on seen tasks, by size, observed and predicted; or None."""
    leads, steps = {"observed": found.relative[SEEN] > 0, "predicted": prediction.logit > 0}, steps_of(config)
    return {name: [_overtaken(steps, m_leads) for m_leads in of_m.T] for name, of_m in leads.items()}


def _overtaken(steps: np.ndarray, m_leads: np.ndarray) -> float | None:
    """The first of `steps [M]` after the last at which M does not lead: for good; None: never."""
    first = max(np.flatnonzero(~m_leads), default=-1) + 1
    return float(steps[first]) if first < len(steps) else None
