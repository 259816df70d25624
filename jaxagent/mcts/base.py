"""Inputs and outputs of a search; names, shapes and meaning are mctx's.

`[B]` are lanes searched at once, `A` actions. Functions of users are called with whole batches,
selection functions and value transforms with one lane (they are vmapped).
"""

from collections.abc import Callable
from typing import Any

import chex
import jax

from jaxagent.mcts.tree import Tree

Params = Any
RecurrentState = Any  # leaves [B, ...]


@chex.dataclass(frozen=True)
class RecurrentFnOutput:
    """A model's prediction of one step: its reward, and policy and value of the state after it."""

    reward: jax.Array  # [B] of the step
    discount: jax.Array  # [B] of the value after it; 0 ends, -1 hands the move to the other player
    prior_logits: jax.Array  # [B, A]
    value: jax.Array  # [B] of the state after it
    # [B, A] nonzero: never chosen below; beyond mctx, which masks the root alone. Of every step of
    # a model or of none.
    invalid_actions: jax.Array | None = None


@chex.dataclass(frozen=True)
class RootFnOutput:
    """A model's prediction at the states to search from."""

    prior_logits: jax.Array  # [B, A]
    value: jax.Array  # [B]
    embedding: RecurrentState  # [B, ...]: what the first `recurrent_fn` call reads


@chex.dataclass(frozen=True)
class PolicyOutput:
    """The action that a search chose, a target for the policy, and the trees."""

    action: jax.Array  # [B] int32
    action_weights: jax.Array  # [B, A], summing to one: a target for the policy
    search_tree: Tree


@chex.dataclass(frozen=True)
class DecisionRecurrentFnOutput:
    """A model's prediction of a decision: chances and value of the afterstate, before chance moves."""

    chance_logits: jax.Array  # [B, C]
    afterstate_value: jax.Array  # [B]


@chex.dataclass(frozen=True)
class ChanceRecurrentFnOutput:
    """A model's prediction of a chance outcome: its reward, and the state after it."""

    action_logits: jax.Array  # [B, A]
    value: jax.Array  # [B]
    reward: jax.Array  # [B]
    discount: jax.Array  # [B]


@chex.dataclass(frozen=True)
class StochasticRecurrentState:
    """Embedding of a node that is a decision or a chance; the other embedding is a dummy."""

    state_embedding: Any  # [B, ...]
    afterstate_embedding: Any  # [B, ...]
    is_decision_node: jax.Array  # [B] bool


Action = jax.Array
# (params, key, action [B], embedding) -> RecurrentFnOutput, embedding
RecurrentFn = Callable[..., tuple[RecurrentFnOutput, RecurrentState]]
DecisionRecurrentFn = Callable[..., tuple[DecisionRecurrentFnOutput, RecurrentState]]
ChanceRecurrentFn = Callable[..., tuple[ChanceRecurrentFnOutput, RecurrentState]]
# (key, tree, node_index) -> action []
RootActionSelectionFn = Callable[..., jax.Array]
# (key, tree, node_index, depth) -> action []
InteriorActionSelectionFn = Callable[..., jax.Array]
# (tree, node_index) -> [A]
QTransform = Callable[..., jax.Array]
# As `jax.lax.fori_loop`.
LoopFn = Callable[..., Any]
