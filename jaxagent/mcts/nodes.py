"""The trees of a running search as flat arrays: how they begin, and the tree they end as."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxagent.mcts.base import RootFnOutput
from jaxagent.mcts.tree import Tree

UNVISITED = Tree.UNVISITED
SCATTER = {"mode": "promise_in_bounds", "unique_indices": True}  # one row a lane


class Nodes(NamedTuple):
    """The trees of B lanes; node n of lane b is row `b N + n`, so that gathers have one index."""

    children: jax.Array  # [B N, A] int32: the lane's own node index, or UNVISITED
    logits: jax.Array  # [B N, A]
    probs: jax.Array  # [B N, A]: their softmax, made once
    visits: jax.Array  # [B N, A] float32
    qvalues: jax.Array  # [B N, A]
    choice: jax.Array  # [B N] int32: what an interior node would choose next
    num_visits: jax.Array  # [B N] float32
    value: jax.Array  # [B N]
    raw_value: jax.Array  # [B N]
    reward: jax.Array  # [B N] of the step to the node
    discount: jax.Array  # [B N] of the value after it
    parent: jax.Array  # [B N] int32
    action: jax.Array  # [B N] int32: from the parent
    embedding: Any  # [B N, ...]
    invalid: jax.Array | None  # [B N, A] bool; None: the model masks nothing


def plant(root: RootFnOutput, num_nodes: int) -> Nodes:
    """Trees of the roots `[B]` alone, with room for `num_nodes` N a lane."""
    batch_size, num_actions = root.prior_logits.shape
    dtype = root.value.dtype

    def first(x: jax.Array) -> jax.Array:
        """Values `[B, ...]` of the root, zeros after them."""
        rows = jnp.zeros((batch_size, num_nodes, *x.shape[1:]), x.dtype)
        return rows.at[:, 0].set(x).reshape(batch_size * num_nodes, *x.shape[1:])

    size = (batch_size * num_nodes,)
    nothing = jnp.zeros(size, dtype)
    return Nodes(
        children=jnp.full((*size, num_actions), UNVISITED, jnp.int32),
        logits=first(root.prior_logits),
        probs=first(jax.nn.softmax(root.prior_logits)),
        visits=jnp.zeros((*size, num_actions), jnp.float32),
        qvalues=jnp.zeros((*size, num_actions), dtype),
        choice=jnp.zeros(size, jnp.int32),
        num_visits=first(jnp.ones((batch_size,), jnp.float32)),
        value=first(root.value),
        raw_value=first(root.value),
        reward=nothing,
        discount=nothing,
        parent=jnp.full(size, Tree.NO_PARENT, jnp.int32),
        action=jnp.full(size, Tree.NO_PARENT, jnp.int32),
        embedding=jax.tree.map(first, root.embedding),
        invalid=None,
    )


def replant(root: RootFnOutput, tree: Tree, num_simulations: int) -> tuple[Nodes, jax.Array]:
    """Nodes of a tree to go on from, with room for more, and slots used by each lane, int32 `[B]`."""
    batch_size, size = tree.node_visits.shape
    is_empty = tree.node_visits[:, 0] == 0  # a lane that took an action never visited

    def rows(x: jax.Array, empty: Any = 0) -> jax.Array:
        room = [(0, 0), (0, num_simulations), *[(0, 0)] * (x.ndim - 2)]
        padded = jnp.pad(x, room, constant_values=empty)
        return padded.reshape(batch_size * (size + num_simulations), *x.shape[2:])

    def at_root(x: jax.Array, new: jax.Array) -> jax.Array:
        return x.at[:, 0].set(new.astype(x.dtype))

    def if_empty(x: jax.Array, new: jax.Array) -> jax.Array:
        return at_root(x, jnp.where(is_empty, new.astype(x.dtype), x[:, 0]))

    reward, discount = (_of_nodes(tree, x) for x in (tree.children_rewards, tree.children_discounts))
    logits = at_root(tree.children_prior_logits, root.prior_logits)
    visits = if_empty(tree.node_visits, jnp.ones((batch_size,)))
    nodes = Nodes(
        children=rows(tree.children_index, UNVISITED),
        logits=rows(logits),
        probs=rows(jax.nn.softmax(logits)),
        visits=rows(tree.children_visits.astype(jnp.float32)),
        qvalues=rows(tree.children_rewards + tree.children_discounts * tree.children_values),
        choice=jnp.zeros((batch_size * (size + num_simulations),), jnp.int32),
        num_visits=rows(visits.astype(jnp.float32)),
        value=rows(if_empty(tree.node_values, root.value)),
        raw_value=rows(if_empty(tree.raw_values, root.value)),
        reward=rows(reward),
        discount=rows(discount),
        parent=rows(tree.parents, Tree.NO_PARENT),
        action=rows(tree.action_from_parent, Tree.NO_PARENT),
        embedding=jax.tree.map(lambda x, new: rows(at_root(x, new)), tree.embeddings, root.embedding),
        invalid=None,
    )
    index = jnp.arange(size, dtype=jnp.int32)[None]
    used = 1 + jnp.max(jnp.where(tree.parents >= 0, index, 0), axis=1)
    return nodes, used


def _of_nodes(tree: Tree, edges: jax.Array) -> jax.Array:
    """Values `[B, N]` of nodes from those of the edges to them, `[B, N, A]`; 0 of the root."""
    lane = jnp.arange(edges.shape[0])[:, None]
    parent, action = jnp.maximum(tree.parents, 0), jnp.maximum(tree.action_from_parent, 0)
    return jnp.where(tree.parents >= 0, edges[lane, parent, action], 0.0)


def to_tree(nodes: Nodes, invalid: jax.Array, extra_data: Any) -> Tree:
    """Trees `[B, N]` as mctx lays them out, `invalid [B, A]`; edges repeat what is their node's."""
    batch_size, num_actions = invalid.shape
    per_lane = nodes_per_lane(nodes, batch_size)

    def lanes(x: jax.Array) -> jax.Array:
        return x.reshape(batch_size, per_lane, *x.shape[1:])

    lane = jnp.repeat(jnp.arange(batch_size, dtype=jnp.int32), per_lane)
    is_child = nodes.parent != Tree.NO_PARENT
    edge = (lane * per_lane + nodes.parent) * num_actions + nodes.action
    edge = jnp.where(is_child, edge, batch_size * per_lane * num_actions)

    def at_edges(x: jax.Array) -> jax.Array:
        empty = jnp.zeros((batch_size * per_lane * num_actions,), x.dtype)
        return empty.at[edge].set(x, mode="drop").reshape(batch_size, per_lane, num_actions)

    return Tree(
        node_visits=lanes(nodes.num_visits).astype(jnp.int32),
        raw_values=lanes(nodes.raw_value),
        node_values=lanes(nodes.value),
        parents=lanes(nodes.parent),
        action_from_parent=lanes(nodes.action),
        children_index=lanes(nodes.children),
        children_prior_logits=lanes(nodes.logits),
        children_visits=lanes(nodes.visits).astype(jnp.int32),
        children_rewards=at_edges(nodes.reward),
        children_discounts=at_edges(nodes.discount),
        children_values=at_edges(nodes.value),
        embeddings=jax.tree.map(lanes, nodes.embedding),
        root_invalid_actions=invalid,
        extra_data=extra_data,
    )


def take(x: jax.Array, *index: jax.Array) -> jax.Array:
    """`x[index]`, `[K, ...]` for an `index [K]` an axis, all known to be in bounds."""
    return x.at[index].get(mode="promise_in_bounds")


def nodes_per_lane(nodes: Nodes, batch_size: int) -> int:
    """Number of rows of one lane, N."""
    return nodes.value.shape[0] // batch_size
