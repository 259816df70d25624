"""The tree of a finished search, and one node of a running one."""

from typing import Any, ClassVar, NamedTuple

import chex
import jax
import jax.numpy as jnp


@chex.dataclass(frozen=True)
class SearchSummary:
    """Visits and values of the root after a search."""

    visit_counts: jax.Array  # [B, A]
    visit_probs: jax.Array  # [B, A]; uniform where nothing was visited
    value: jax.Array  # [B]
    qvalues: jax.Array  # [B, A]; 0 of unvisited actions


@chex.dataclass(frozen=True)
class Tree:
    """Trees of a batch, fields as in mctx; node 0 is the root, simulation i made node i + 1.

    With `max_depth` a simulation can end at a node that exists; its own slot then stays empty.
    """

    node_visits: jax.Array  # [B, N] int32
    raw_values: jax.Array  # [B, N] as the model gave them
    node_values: jax.Array  # [B, N] means of what search found
    parents: jax.Array  # [B, N] int32, or NO_PARENT
    action_from_parent: jax.Array  # [B, N] int32, or NO_PARENT
    children_index: jax.Array  # [B, N, A] int32, or UNVISITED
    children_prior_logits: jax.Array  # [B, N, A]
    children_visits: jax.Array  # [B, N, A] int32
    children_rewards: jax.Array  # [B, N, A]
    children_discounts: jax.Array  # [B, N, A]
    children_values: jax.Array  # [B, N, A]
    embeddings: Any  # [B, N, ...]
    root_invalid_actions: jax.Array  # [B, A]
    extra_data: Any  # [B, ...]

    ROOT_INDEX: ClassVar[int] = 0
    NO_PARENT: ClassVar[int] = -1
    UNVISITED: ClassVar[int] = -1

    @property
    def num_actions(self) -> int:
        """Number of actions, A."""
        return self.children_index.shape[-1]

    @property
    def num_simulations(self) -> int:
        """Number of simulations that the tree has room for, N - 1."""
        return self.node_visits.shape[-1] - 1

    def qvalues(self, indices: Any) -> jax.Array:
        """Values `[B, A]` of the actions at nodes `indices [B]`; at one node of an unbatched tree.

        Reward plus discounted value of the child; 0 of unvisited actions.
        """
        if jnp.asarray(indices).shape:
            return jax.vmap(_qvalues)(self, indices)
        return _qvalues(self, indices)

    def summary(self) -> SearchSummary:
        """Visits and values of the roots `[B]`."""
        value = self.node_values[:, self.ROOT_INDEX]
        visits = self.children_visits[:, self.ROOT_INDEX].astype(value.dtype)
        total = jnp.sum(visits, axis=-1, keepdims=True)
        probs = jnp.where(total > 0, visits / jnp.maximum(total, 1.0), 1.0 / self.num_actions)
        root = jnp.zeros(value.shape, jnp.int32)
        return SearchSummary(visit_counts=visits, visit_probs=probs, value=value, qvalues=self.qvalues(root))


def _qvalues(tree: Tree, index: Any) -> jax.Array:
    discounted = tree.children_discounts[index] * tree.children_values[index]
    return tree.children_rewards[index] + discounted


class Node(NamedTuple):
    """One node of a running search, under the names of an unbatched `Tree` of that node alone.

    Selection functions and value transforms read it at `node_index` 0.
    """

    node_visits: jax.Array  # [1]
    raw_values: jax.Array  # [1]
    node_values: jax.Array  # [1]
    children_prior_logits: jax.Array  # [1, A]
    children_prior_probs: jax.Array  # [1, A]
    children_visits: jax.Array  # [1, A]
    children_qvalues: jax.Array  # [1, A]
    root_invalid_actions: jax.Array  # [A] bool: of this node, root or not
    extra_data: Any  # of this lane, leaves [...]
    noise: jax.Array | None  # [A] uniform in [0, 1): this simulation's tie-break, None: draw it
    # [1, A] of the visits, those whose value is still to come: they count for exploring, and not
    # for values. None: no such.
    children_unobserved: jax.Array | None = None

    @property
    def num_actions(self) -> int:
        """Number of actions, A."""
        return self.children_visits.shape[-1]

    def qvalues(self, index: Any) -> jax.Array:
        """Values `[A]` of the actions at the node, `index` 0; as `Tree.qvalues`."""
        return self.children_qvalues[index]


def prior_probs(tree: Any, node_index: Any) -> jax.Array:
    """Prior probabilities `[A]` at a node: a running search keeps them, a tree has logits."""
    if isinstance(tree, Node):
        return tree.children_prior_probs[node_index]
    return jax.nn.softmax(tree.children_prior_logits[node_index])


def observed_visits(tree: Any, node_index: Any) -> jax.Array:
    """Visits `[A]` whose values the node knows."""
    visits, unobserved = (tree.children_visits[node_index], getattr(tree, "children_unobserved", None))
    return visits if unobserved is None else visits - unobserved[node_index]
