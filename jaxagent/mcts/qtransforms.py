"""Monotonic transforms of action values, as selection adds them to priors."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxagent.mcts.tree import observed_visits, prior_probs


def qtransform_by_min_max(tree: Any, node_index: Any, *, min_value: float, max_value: float) -> jax.Array:
    """Values `[A]` scaled from known limits to [0, 1]; 0 of unvisited actions."""
    visited = observed_visits(tree, node_index) > 0
    qvalues = jnp.where(visited, tree.qvalues(node_index), min_value)
    return (qvalues - min_value) / (max_value - min_value)


def qtransform_by_parent_and_siblings(tree: Any, node_index: Any, *, epsilon: float = 1e-8) -> jax.Array:
    """Values `[A]` scaled to [0, 1] by the least and the most of the node's and its actions'.

    0 of unvisited actions (MuZero, Schrittwieser et al. 2020, eq. 5, with the node's own limits).
    """
    visited, qvalues = observed_visits(tree, node_index) > 0, tree.qvalues(node_index)
    node_value = tree.node_values[node_index]
    known = jnp.where(visited, qvalues, node_value)
    low = jnp.minimum(node_value, jnp.min(known, axis=-1))
    high = jnp.maximum(node_value, jnp.max(known, axis=-1))
    return (jnp.where(visited, qvalues, low) - low) / jnp.maximum(high - low, epsilon)


def qtransform_completed_by_mix_value(
    tree: Any,
    node_index: Any,
    *,
    value_scale: float = 0.1,
    maxvisit_init: float = 50.0,
    rescale_values: bool = True,
    use_mixed_value: bool = True,
    epsilon: float = 1e-8,
) -> jax.Array:
    """Values `[A]`, unvisited ones completed by the mixed value, times a scale that visits raise.

    Gumbel MuZero (Danihelka et al. 2022, eq. 8 and appendix D).
    """
    completed = completed_qvalues(tree, node_index, use_mixed_value=use_mixed_value)
    visits = jnp.asarray(observed_visits(tree, node_index), completed.dtype)
    if rescale_values:
        low = jnp.min(completed, axis=-1, keepdims=True)
        high = jnp.max(completed, axis=-1, keepdims=True)
        completed = (completed - low) / jnp.maximum(high - low, epsilon)
    return (maxvisit_init + jnp.max(visits, axis=-1)) * value_scale * completed


def completed_qvalues(tree: Any, node_index: Any, *, use_mixed_value: bool = True) -> jax.Array:
    """Values `[A]` in the units of the model; of unvisited actions the mixed (or raw) value."""
    qvalues, value = tree.qvalues(node_index), tree.raw_values[node_index]
    visits = jnp.asarray(observed_visits(tree, node_index), qvalues.dtype)
    if use_mixed_value:
        value = _mixed_value(value, qvalues, visits, prior_probs(tree, node_index))
    return jnp.where(visits > 0, qvalues, value)


def _mixed_value(raw_value: jax.Array, qvalues: jax.Array, visits: jax.Array, probs: jax.Array) -> jax.Array:
    """The raw value and the prior's mean of visited actions, weighted by one and by visits."""
    visited, num_visits = visits > 0, jnp.sum(visits, axis=-1)
    # A visited action may have no prior at all.
    probs = jnp.where(visited, jnp.maximum(probs, jnp.finfo(probs.dtype).tiny), 0.0)
    total = jnp.sum(probs, axis=-1)
    weighted = jnp.where(visited, probs * qvalues / jnp.where(visited, total, 1.0), 0.0)
    return (raw_value + num_visits * jnp.sum(weighted, axis=-1)) / (num_visits + 1.0)
