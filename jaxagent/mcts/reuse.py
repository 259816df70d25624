"""Keep what a search found below the action that was taken."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxagent.mcts.tree import Tree


def subtree(tree: Tree, action: jax.Array, num_nodes: int | None = None) -> Tree:
    """The part of each tree `[B, N]` below root action `[B]`, as a tree of its own.

    Nodes keep the order in which they were made, so the child becomes node 0; visits, values,
    rewards and embeddings are the same numbers. At most `num_nodes` are kept (default N), the
    oldest first; an edge to a node that is dropped becomes unvisited, while its ancestors still
    count it.
    A lane whose action was never visited gives an empty tree: `node_visits` 0 everywhere.

    To go on searching, give it to `search` or `muzero_policy` as `tree`.
    """
    batch_size, size = tree.node_visits.shape
    kept = min(size if num_nodes is None else num_nodes, size)
    if jnp.shape(action) != (batch_size,) or kept < 1:
        raise ValueError(
            f"subtree: got actions of shape {jnp.shape(action)} and num_nodes {num_nodes}, "
            f"expected ({batch_size},) and at least 1; give the root action that each lane took."
        )
    lane = jnp.arange(batch_size)[:, None]
    root = tree.children_index[lane[:, 0], Tree.ROOT_INDEX, action]
    nodes = jnp.arange(size, dtype=jnp.int32)
    is_below = _descend_from(tree.parents, root)
    place = jnp.cumsum(is_below, axis=1, dtype=jnp.int32) - 1  # of a node that is kept
    source = jnp.argsort(~is_below, axis=1, stable=True)[:, :kept]
    count = jnp.sum(is_below, axis=1, dtype=jnp.int32)[:, None]
    exists = nodes[None, :kept] < count

    def at(x: jax.Array, empty: Any = 0) -> jax.Array:
        taken = x[lane, source]
        mask = exists.reshape(*exists.shape, *[1] * (taken.ndim - 2))
        return jnp.where(mask, taken, jnp.asarray(empty, taken.dtype))

    parent = at(tree.parents, Tree.NO_PARENT)
    is_root = nodes[None, :kept] == 0
    parent = jnp.where(is_root | (parent < 0), Tree.NO_PARENT, place[lane, parent])
    child = at(tree.children_index, Tree.UNVISITED)
    moved = place[lane[..., None], child]
    stays = (child != Tree.UNVISITED) & (moved < kept)

    def edges(x: jax.Array) -> jax.Array:
        taken = at(x)
        return jnp.where(stays, taken, jnp.zeros((), taken.dtype))

    return tree.replace(
        node_visits=at(tree.node_visits),
        raw_values=at(tree.raw_values),
        node_values=at(tree.node_values),
        parents=parent,
        action_from_parent=jnp.where(is_root, Tree.NO_PARENT, at(tree.action_from_parent, Tree.NO_PARENT)),
        children_index=jnp.where(stays, moved, Tree.UNVISITED),
        children_prior_logits=at(tree.children_prior_logits),
        children_visits=edges(tree.children_visits),
        children_rewards=edges(tree.children_rewards),
        children_discounts=edges(tree.children_discounts),
        children_values=edges(tree.children_values),
        embeddings=jax.tree.map(at, tree.embeddings),
        root_invalid_actions=jnp.zeros_like(tree.root_invalid_actions),
        extra_data=None,
    )


def depths(parents: jax.Array) -> jax.Array:
    """Edges from the root to each node, int32 `[B, N]`, from `parents [B, N]`."""
    lane = jnp.arange(parents.shape[0])[:, None]
    steps, pointer = (parents >= 0).astype(jnp.int32), jnp.maximum(parents, 0)
    for _ in range(_doublings(parents.shape[1])):
        steps, pointer = steps + steps[lane, pointer], pointer[lane, pointer]
    return steps


def _descend_from(parents: jax.Array, root: jax.Array) -> jax.Array:
    """Whether each node, bool `[B, N]`, lies at or below node `root [B]`, by pointer jumping; none of -1."""
    size = parents.shape[1]
    lane = jnp.arange(parents.shape[0])[:, None]
    nodes = jnp.arange(size, dtype=jnp.int32)[None]
    below = nodes == root[:, None]
    pointer = jnp.where(parents < 0, nodes, parents)  # a root, and an empty slot, is its own parent
    for _ in range(_doublings(size)):
        below, pointer = below | below[lane, pointer], pointer[lane, pointer]
    return below


def _doublings(size: int) -> int:
    return max(1, math.ceil(math.log2(size)))
