"""Rules that choose an action at a node."""

import functools
import math
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxagent.mcts.base import QTransform
from jaxagent.mcts.qtransforms import qtransform_by_parent_and_siblings, qtransform_completed_by_mix_value
from jaxagent.mcts.tree import Node, prior_probs

TIE_BREAK = 1e-7
FIRST_VISIT = 1e9  # score of an action that UCB1 has yet to try
NEAR = 1e-5  # of the largest score and of 1: within it another may be the same one, rounded otherwise
LOW_LOGIT = -1e9  # of an action that is considered whatever its logit


@chex.dataclass(frozen=True)
class GumbelMuZeroExtraData:
    """The root's Gumbel noise, and its visits before this search."""

    root_gumbel: jax.Array  # [B, A]
    kept_visits: jax.Array | None = None  # [B, A]; None: no tree was kept


def masked_argmax(scores: jax.Array, invalid_actions: jax.Array | None) -> jax.Array:
    """The best valid action, int32 `[...]`, of `scores [..., A]`; 0 where none is valid."""
    if invalid_actions is not None:
        scores = jnp.where(jnp.asarray(invalid_actions, bool), -jnp.inf, scores)
    return first_argmax(scores)


def mask_invalid(logits: jax.Array, invalid: jax.Array | None) -> jax.Array:
    """Logits `[..., A]` without mass on invalid actions; finite, as a lane may have no valid one."""
    if invalid is None:
        return logits
    logits = logits - jnp.max(logits, axis=-1, keepdims=True)
    return jnp.where(jnp.asarray(invalid, bool), jnp.finfo(logits.dtype).min, logits)


def first_argmax(scores: jax.Array) -> jax.Array:
    """The first of the largest, int32 `[...]` of `[..., A]`; NaN is never chosen, 0 if all are.

    Two plain reductions: on a CPU a fifth of `jnp.argmax`, whose pair of carries is not vectorised.
    """
    scores = jnp.where(jnp.isnan(scores), -jnp.inf, scores)
    return _first_of(scores, jnp.max(scores, axis=-1, keepdims=True))


def _first_of(scores: jax.Array, largest: jax.Array) -> jax.Array:
    """The first that is `largest [..., 1]`, int32 `[...]` of `scores [..., A]`, or is nearly where none is.

    None is where the compiler computes the scores twice, for the largest and here, and rounds in two ways.
    """
    size = scores.shape[-1]
    place, near = jnp.arange(size, dtype=jnp.int32), largest - NEAR * (1.0 + jnp.abs(largest))
    found = jnp.where(scores == largest, place, jnp.where(scores >= near, place + size, 2 * size - 1))
    index = jnp.min(found, axis=-1)
    return jnp.where(index < size, index, index - size)


def muzero_action_selection(
    rng_key: jax.Array,
    tree: Any,
    node_index: Any,
    depth: Any,
    *,
    pb_c_init: float = 1.25,
    pb_c_base: float = 19652.0,
    qtransform: QTransform = qtransform_by_parent_and_siblings,
) -> jax.Array:
    """The PUCT action, int32 `[]` (MuZero, Schrittwieser et al. 2020, eq. 2); noise of 1e-7 breaks ties."""
    visits = _as_float(tree.children_visits[node_index])
    node_visits = _as_float(tree.node_visits[node_index])
    pb_c = pb_c_init + jnp.log((node_visits + pb_c_base + 1.0) / pb_c_base)
    probs = prior_probs(tree, node_index)
    explore = jnp.sqrt(node_visits) * pb_c * probs / (visits + 1.0)
    noise = getattr(tree, "noise", None)
    if noise is None:
        noise = jax.random.uniform(rng_key, (tree.num_actions,))
    scores = qtransform(tree, node_index) + explore + TIE_BREAK * noise
    return masked_argmax(scores, _invalid(tree, depth))


def gumbel_muzero_root_action_selection(
    rng_key: jax.Array,
    tree: Any,
    node_index: Any,
    *,
    num_simulations: int,
    max_num_considered_actions: int,
    qtransform: QTransform = qtransform_completed_by_mix_value,
) -> jax.Array:
    """Sequential halving over the actions of most `gumbel + logits + q` (Danihelka 2022).

    Returns int32 `[]`. It counts visits since `kept_visits`.
    """
    del rng_key
    visits = _as_float(tree.children_visits[node_index])
    if tree.extra_data.kept_visits is not None:
        visits = visits - _as_float(tree.extra_data.kept_visits)
    logits = tree.children_prior_logits[node_index]
    table = jnp.asarray(considered_visits(max_num_considered_actions, num_simulations))
    num_valid = jnp.sum(~jnp.asarray(tree.root_invalid_actions, bool), axis=-1, dtype=jnp.int32)
    num_considered = jnp.minimum(max_num_considered_actions, num_valid)
    simulation = jnp.sum(visits, axis=-1).astype(jnp.int32)  # visits of the root's actions so far
    considered = table[num_considered, simulation]
    scores = score_considered(
        considered, tree.extra_data.root_gumbel, logits, qtransform(tree, node_index), visits
    )
    return masked_argmax(scores, tree.root_invalid_actions)


def gumbel_muzero_interior_action_selection(
    rng_key: jax.Array,
    tree: Any,
    node_index: Any,
    depth: Any,
    *,
    qtransform: QTransform = qtransform_completed_by_mix_value,
) -> jax.Array:
    """Action, int32 `[]`, whose share of visits is furthest below the improved policy's (ibid., eq. 14)."""
    del rng_key
    visits = _as_float(tree.children_visits[node_index])
    logits = tree.children_prior_logits[node_index]
    probs = jax.nn.softmax(logits + qtransform(tree, node_index))
    share = visits / (1.0 + jnp.sum(visits, keepdims=True, axis=-1))
    return masked_argmax(probs - share, _invalid(tree, depth))


def ucb1_action_selection(
    rng_key: jax.Array, tree: Any, node_index: Any, depth: Any, *, exploration: float = math.sqrt(2.0)
) -> jax.Array:
    """UCT without priors (Kocsis and Szepesvari 2006): every action once, then mean plus bonus.

    Returns int32 `[]`. `exploration` is in units of return: of returns in [0, 1] the square root of 2.
    """
    visits, qvalues = _as_float(tree.children_visits[node_index]), tree.qvalues(node_index)
    total = jnp.maximum(jnp.sum(visits, axis=-1, keepdims=True), 1.0)
    bonus = exploration * jnp.sqrt(jnp.log(total) / jnp.maximum(visits, 1.0))
    noise = getattr(tree, "noise", None)
    if noise is None:
        noise = jax.random.uniform(rng_key, (tree.num_actions,))
    # Unvisited actions are taken in random order: their common score leaves noise its digits.
    scores = jnp.where(visits > 0, qvalues + bonus, FIRST_VISIT * (1.0 + noise))
    return masked_argmax(scores, _invalid(tree, depth))


def _invalid(tree: Any, depth: Any) -> jax.Array:
    """Invalid actions `[A]` bool: a running search knows each node's, a tree the root's."""
    invalid = jnp.asarray(tree.root_invalid_actions, bool)
    return invalid if isinstance(tree, Node) else invalid & jnp.asarray(depth == 0)


def _as_float(visits: jax.Array) -> jax.Array:
    return jnp.asarray(visits, jnp.float32)


def score_considered(
    considered: jax.Array, gumbel: jax.Array, logits: jax.Array, qvalues: jax.Array, visits: jax.Array
) -> jax.Array:
    """Scores `[..., A]` of actions with as many visits as `considered`; -inf of all others."""
    logits = logits - jnp.max(logits, keepdims=True, axis=-1)
    scores = jnp.maximum(LOW_LOGIT, gumbel + logits + qvalues)
    return jnp.where(_as_float(visits) == _as_float(considered), scores, -jnp.inf)


def considered_sequence(num_considered: int, num_simulations: int) -> list[int]:
    """Visits that the action of each simulation has had, under sequential halving.

    Karnin et al. 2013: rounds of equal budget, each over half as many actions, at least two.
    """
    if num_considered <= 1:
        return list(range(num_simulations))
    rounds = math.ceil(math.log2(num_considered))
    sequence: list[int] = []
    visits, left = [0] * num_considered, num_considered
    while len(sequence) < num_simulations:
        for _ in range(max(1, int(num_simulations / (rounds * left)))):
            sequence += visits[:left]
            visits[:left] = [v + 1 for v in visits[:left]]
        left = max(2, left // 2)
    return sequence[:num_simulations]


@functools.cache
def considered_visits(max_num_considered_actions: int, num_simulations: int) -> np.ndarray:
    """`considered_sequence` of 0 to the most actions: int32 `[most + 1, simulations]`."""
    rows = [considered_sequence(m, num_simulations) for m in range(max_num_considered_actions + 1)]
    return np.asarray(rows, np.int32).reshape(len(rows), num_simulations)
