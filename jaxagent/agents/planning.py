"""Planning at every move: search as a way to act, with the true environment as its model.

A *plan* is how a decision is made from what a network says of a state and a model of what follows:
`plan(params, key, root, model, invalid_actions) -> Decision`, batched over lanes. `no_search`
decides by the network alone, so that "with and without" differ in this argument.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxagent import mcts
from jaxagent.config import SearchConfig
from jaxagent.mcts.selection import first_argmax, mask_invalid
from jaxagent.types import Policy, View

# (params, obs [B, ...]) -> logits [B, A], value [B] for who moves
Evaluate = Callable[[Any, jax.Array], tuple[jax.Array, jax.Array]]


class Decision(NamedTuple):
    """What a plan says of B states."""

    action: jax.Array  # [B] int32
    weights: jax.Array  # [B, A]: a better policy
    value: jax.Array  # [B] of the root, for who moves


Plan = Callable[..., Decision]


def gumbel_search(config: SearchConfig, *, gumbel_scale: float = 1.0) -> Plan:
    """Gumbel MuZero's search (Danihelka et al. 2022); scale 0 acts without chance."""

    def plan(params: Any, key: jax.Array, root: Any, model: Any, invalid: jax.Array) -> Decision:
        output = mcts.gumbel_muzero_policy(
            params, key, root, model, config.num_simulations,
            invalid_actions=invalid,
            max_depth=config.max_depth or None,
            max_num_considered_actions=config.num_considered,
            gumbel_scale=gumbel_scale,
        )  # fmt: skip
        return _decided(output)

    return plan


def puct_search(
    config: SearchConfig, *, temperature: float = 1.0, dirichlet_fraction: float = 0.25
) -> Plan:
    """AlphaZero's search (Silver et al. 2018); temperature and fraction 0 act without chance."""

    def plan(params: Any, key: jax.Array, root: Any, model: Any, invalid: jax.Array) -> Decision:
        output = mcts.muzero_policy(
            params, key, root, model, config.num_simulations,
            invalid_actions=invalid,
            max_depth=config.max_depth or None,
            dirichlet_fraction=dirichlet_fraction,
            temperature=temperature,
        )  # fmt: skip
        return _decided(output)

    return plan


def no_search(*, is_greedy: bool) -> Plan:
    """The network's own policy, its mode or a draw."""

    def plan(params: Any, key: jax.Array, root: Any, model: Any, invalid: jax.Array) -> Decision:
        del params, model
        logits = mask_invalid(root.prior_logits, invalid)
        draw = jax.random.categorical(key, logits).astype(jnp.int32)
        action = first_argmax(logits) if is_greedy else draw
        return Decision(action, jax.nn.softmax(logits), root.value)

    return plan


def _decided(output: mcts.PolicyOutput) -> Decision:
    value = output.search_tree.node_values[:, mcts.Tree.ROOT_INDEX]
    return Decision(output.action, output.action_weights, value)


def true_model(env: Any, evaluate: Evaluate, *, discount: float) -> mcts.RecurrentFn:
    """The environment itself as a `recurrent_fn`; its embedding is `(state, task)`.

    Rewards and values are the mover's (`envs.wrappers.self_play` for a game of two); where the
    other player moves next, the discount is negative. A termination ends, a time limit does not.
    """

    def model(params: Any, key: jax.Array, action: jax.Array, embedding: Any) -> tuple:
        state, task = embedding
        step_keys = jax.random.split(key, action.shape[0])
        obs, after, reward, terminated, _, _ = jax.vmap(env.step)(step_keys, state, action, task)
        logits, value = evaluate(params, obs)
        step = mcts.RecurrentFnOutput(
            reward=reward,
            discount=jnp.where(terminated, 0.0, discount * _sign(env, state, after)),
            prior_logits=logits,
            value=value,
            invalid_actions=_invalid(env, after, task),
        )
        return step, (after, task)

    return model


def decide(
    env: Any, evaluate: Evaluate, plan: Plan, discount: float, params: Any, view: View,
    key: jax.Array,
) -> Decision:  # fmt: skip
    """Plan from the true state of every lane."""
    logits, value = evaluate(params, view.obs)
    root = mcts.RootFnOutput(
        prior_logits=logits, value=value, embedding=(view.state, view.task)
    )  # fmt: skip
    model = true_model(env, evaluate, discount=discount)
    return plan(params, key, root, model, _invalid(env, view.state, view.task))


def planner(env: Any, evaluate: Evaluate, plan: Plan, *, discount: float) -> Policy:
    """Any network with a policy and a value as a policy that plans; it acts on `types.View`."""

    def act(params: Any, carry: Any, view: View, is_first: jax.Array, key: jax.Array) -> tuple:
        del is_first
        return decide(env, evaluate, plan, discount, params, view, key).action, (), carry

    return Policy(lambda batch_size: (), act)


def scripted(choose: Callable[[jax.Array, Any, Any], jax.Array]) -> Policy:
    """A rule `(key, state, task) -> action []` as a policy without parameters, on `types.View`."""

    def act(params: Any, carry: Any, view: View, is_first: jax.Array, key: jax.Array) -> tuple:
        del params, is_first
        keys = jax.random.split(key, view.obs.shape[0])
        return jax.vmap(choose)(keys, view.state, view.task), (), carry

    return Policy(lambda batch_size: (), act)


def _sign(env: Any, before: Any, after: Any) -> jax.Array:
    """+1 where the same player moves again, else -1: float32 `[B]`."""
    player = jax.vmap(env.current_player)
    return jnp.where(player(before) == player(after), 1.0, -1.0)


def _invalid(env: Any, state: Any, task: Any) -> jax.Array:
    return ~jax.vmap(env.legal_actions)(state, task)
