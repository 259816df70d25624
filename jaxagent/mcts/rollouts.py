"""Values by playing on at random, and UCT: search without a network."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxagent.mcts.base import Params, PolicyOutput, RecurrentFn, RecurrentFnOutput, RootFnOutput
from jaxagent.mcts.checks import check_inputs
from jaxagent.mcts.search import search
from jaxagent.mcts.selection import masked_argmax, ucb1_action_selection

# (params, key, action [B], state)
# -> reward [B], discount [B], state, invalid actions [B, A] or None
StepFn = Callable[..., tuple[jax.Array, jax.Array, Any, jax.Array | None]]


def rollout_value(
    step_fn: StepFn,
    params: Params,
    key: jax.Array,
    state: Any,
    invalid: jax.Array | None,
    num_actions: int,
    num_steps: int,
) -> jax.Array:
    """Discounted return `[B]` of one play of uniformly random valid actions, at most `num_steps`.

    From states, leaves `[B, ...]`, and `invalid [B, A]`. What comes after the last step counts 0;
    a discount of 0 ends, one below 0 passes the move.
    """
    batch_size = jax.tree.leaves(state)[0].shape[0]
    nothing = jnp.zeros((batch_size, num_actions), bool)

    def one(carry: tuple, number: jax.Array) -> tuple:
        state, invalid, total, weight = carry
        key_action, key_step = jax.random.split(jax.random.fold_in(key, number))
        scores = jax.random.uniform(key_action, (batch_size, num_actions))
        action = masked_argmax(scores, invalid)
        reward, discount, state, masked = step_fn(params, key_step, action, state)
        invalid = nothing if masked is None else jnp.asarray(masked, bool)
        return (state, invalid, total + weight * reward, weight * discount), None

    invalid = nothing if invalid is None else jnp.asarray(invalid, bool)
    first = (state, invalid, jnp.zeros((batch_size,)), jnp.ones((batch_size,)))
    (_, _, total, _), _ = jax.lax.scan(one, first, jnp.arange(num_steps, dtype=jnp.int32))
    return total


def rollout_model(step_fn: StepFn, num_actions: int, num_steps: int, num_rollouts: int = 1) -> RecurrentFn:
    """A `recurrent_fn` of the true environment: values by rollouts, priors flat, masks as given."""

    def model(params: Params, key: jax.Array, action: jax.Array, state: Any) -> tuple[RecurrentFnOutput, Any]:
        key_step, key_play = jax.random.split(key)
        reward, discount, state, invalid = step_fn(params, key_step, action, state)
        play = functools.partial(rollout_value, step_fn, params)
        values = jax.vmap(lambda k: play(k, state, invalid, num_actions, num_steps))(
            jax.random.split(key_play, num_rollouts)
        )
        step = RecurrentFnOutput(
            reward=reward,
            discount=discount,
            value=jnp.mean(values, axis=0),
            prior_logits=jnp.zeros((*reward.shape, num_actions)),
            invalid_actions=invalid,
        )
        return step, state

    return model


def uct_policy(
    params: Params,
    rng_key: jax.Array,
    root: RootFnOutput,
    recurrent_fn: RecurrentFn,
    num_simulations: int,
    invalid_actions: jax.Array | None = None,
    max_depth: int | None = None,
    *,
    exploration: float = math.sqrt(2.0),
    num_leaves: int = 1,
    virtual_visits: float = 4.0,
    virtual_loss: float | None = None,
) -> PolicyOutput:
    """UCT (Kocsis and Szepesvari 2006); acts by the most visited action, the first among equals.

    Shapes as in `base`, `[B]` lanes. `recurrent_fn` as `rollout_model` makes it, or any; priors are
    not read.
    `num_leaves`, `virtual_visits` and `virtual_loss` as in `search`: L rollouts of a lane are
    played at once.
    """
    check_inputs(root, num_simulations, max_depth, invalid_actions)
    choose = functools.partial(ucb1_action_selection, exploration=exploration)
    tree = search(
        params,
        rng_key,
        root=root,
        recurrent_fn=recurrent_fn,
        root_action_selection_fn=functools.partial(choose, depth=0),
        interior_action_selection_fn=choose,
        num_simulations=num_simulations,
        max_depth=max_depth,
        invalid_actions=invalid_actions,
        num_leaves=num_leaves,
        virtual_visits=virtual_visits,
        virtual_loss=virtual_loss,
    )
    summary = tree.summary()
    action = masked_argmax(summary.visit_counts, invalid_actions)
    return PolicyOutput(action=action, action_weights=summary.visit_probs, search_tree=tree)
