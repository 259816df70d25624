"""What goes into a search and what comes out of it; names, shapes and meaning are mctx's.

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
    """What a model says of a step."""

    reward: jax.Array  # [B] of the step
    discount: jax.Array  # [B] of the value after it; 0 ends, -1 hands the move to the other player
    prior_logits: jax.Array  # [B, A]
    value: jax.Array  # [B] of the state after it
    # [B, A] nonzero: never chosen below; beyond mctx, which masks the root alone. Of every step of
    # a model or of none.
    invalid_actions: jax.Array | None = None


@chex.dataclass(frozen=True)
class RootFnOutput:
    """What a model says of the states to search from."""

    prior_logits: jax.Array  # [B, A]
    value: jax.Array  # [B]
    embedding: RecurrentState  # [B, ...]: what the first `recurrent_fn` call reads


@chex.dataclass(frozen=True)
class PolicyOutput:
    """What a search proposes."""

    action: jax.Array  # [B] int32
    action_weights: jax.Array  # [B, A], summing to one: a target for the policy
    search_tree: Tree


@chex.dataclass(frozen=True)
class DecisionRecurrentFnOutput:
    """What a model says of a decision: the afterstate, before chance moves."""

    chance_logits: jax.Array  # [B, C]
    afterstate_value: jax.Array  # [B]


@chex.dataclass(frozen=True)
class ChanceRecurrentFnOutput:
    """What a model says of a chance outcome."""

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
