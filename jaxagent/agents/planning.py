"""Planning at every move: search as a way to act, with the true environment as its model.

A *plan* is how a decision is made from what a network says of a state and a model of what follows:
`plan(params, key, root, model, invalid_actions) -> Decision`, batched over lanes. `no_search`
decides by the network alone, so that "with and without" differ in this argument.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxagent import mcts
from jaxagent.config import SearchConfig
from jaxagent.mcts.qtransforms import completed_qvalues
from jaxagent.mcts.selection import first_argmax, mask_invalid
from jaxagent.types import Policy, View

# (params, obs [B, ...]) -> logits [B, A], value [B] for who moves
Evaluate = Callable[[Any, jax.Array], tuple[jax.Array, jax.Array]]


class Decision(NamedTuple):
    """A plan's choice in each of B states, and what it rests on."""

    action: jax.Array  # [B] int32
    weights: jax.Array  # [B, A]: a better policy
    value: jax.Array  # [B] of the root under these weights, for who moves


Plan = Callable[..., Decision]
VALUE_SCALE = 0.1  # of Gumbel's search, as in mctx


def gumbel_output(config: SearchConfig, *, gumbel_scale: float = 1.0) -> Callable[..., mcts.PolicyOutput]:
    """Gumbel MuZero's search (Danihelka et al. 2022) with its tree, called as a plan; see `gumbel_search`."""
    qtransform = mcts.qtransform_completed_by_mix_value
    if config.value_range:
        qtransform = partial(qtransform, rescale_values=False, value_scale=VALUE_SCALE / config.value_range)

    def search(params: Any, key: jax.Array, root: Any, model: Any, invalid: jax.Array) -> mcts.PolicyOutput:
        return mcts.gumbel_muzero_policy(
            params,
            key,
            root,
            model,
            config.num_simulations,
            invalid_actions=invalid,
            max_depth=config.max_depth or None,
            max_num_considered_actions=config.num_considered,
            gumbel_scale=gumbel_scale,
            qtransform=qtransform,
        )

    return search


def gumbel_search(config: SearchConfig, *, gumbel_scale: float = 1.0) -> Plan:
    """Gumbel MuZero's search (Danihelka et al. 2022); Gumbel scale 0 acts without chance.

    With `config.value_range` 0 values count relative to the best and the worst move of a node, whatever
    lies between them, as in mctx: noise between equal moves then becomes a firm preference. Five times
    the scale of both (c_scale 1, as the paper has it for Go) gave targets that small networks could not
    learn.
    """
    search = gumbel_output(config, gumbel_scale=gumbel_scale)

    def plan(params: Any, key: jax.Array, root: Any, model: Any, invalid: jax.Array) -> Decision:
        output = search(params, key, root, model, invalid)
        # The root's mean counts every move that halving had to try; this is the better policy's.
        completed = jax.vmap(completed_qvalues, (0, None))(output.search_tree, mcts.Tree.ROOT_INDEX)
        value = jnp.sum(output.action_weights * completed, axis=-1)
        return Decision(output.action, output.action_weights, value)

    return plan


# Values of games for PUCT, which stretches to a node's range by default (AlphaZero does not).
values_of_games = partial(mcts.qtransform_by_min_max, min_value=-1.0, max_value=1.0)


def puct_search(
    config: SearchConfig,
    *,
    temperature: float = 1.0,
    dirichlet_fraction: float = 0.25,
    exploration: float = 1.25,
    qtransform: mcts.QTransform = mcts.qtransform_by_parent_and_siblings,
) -> Plan:
    """AlphaZero's search (Silver et al. 2018); temperature and fraction 0 act without chance.

    `exploration` is PUCT's first constant, `pb_c_init` of MuZero's appendix B.
    """

    def plan(params: Any, key: jax.Array, root: Any, model: Any, invalid: jax.Array) -> Decision:
        output = mcts.muzero_policy(
            params,
            key,
            root,
            model,
            config.num_simulations,
            invalid_actions=invalid,
            max_depth=config.max_depth or None,
            dirichlet_fraction=dirichlet_fraction,
            temperature=temperature,
            pb_c_init=exploration,
            qtransform=qtransform,
        )
        value = output.search_tree.node_values[:, mcts.Tree.ROOT_INDEX]
        return Decision(output.action, output.action_weights, value)

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


def taking_losses_for_wins(plan: Plan) -> Plan:
    """A saboteur: the same plan in a model that tells every later value with the wrong sign."""

    def wrong(params: Any, key: jax.Array, root: Any, model: Any, invalid: jax.Array) -> Decision:
        def turned(*args: Any) -> tuple[mcts.RecurrentFnOutput, Any]:
            step, embedding = model(*args)
            return step.replace(discount=-step.discount), embedding

        return plan(params, key, root, turned, invalid)

    return wrong


def true_model(env: Any, evaluate: Evaluate, *, discount: float) -> mcts.RecurrentFn:
    """The environment itself as a `recurrent_fn`; its embedding is `(state, task)`.

    Rewards and values `[B]` are the mover's; where the other player moves next, the discount is negative.
    A termination ends, a time limit does not.
    """

    def model(
        params: Any, key: jax.Array, action: jax.Array, embedding: Any
    ) -> tuple[mcts.RecurrentFnOutput, Any]:
        state, task = embedding
        step_keys = jax.random.split(key, action.shape[0])
        obs, after, reward, terminated, _, _ = jax.vmap(env.step)(step_keys, state, action, task)
        logits, value = evaluate(params, obs)
        step = mcts.RecurrentFnOutput(
            reward=_of_mover(env, state, reward),
            discount=jnp.where(terminated, 0.0, discount * _sign(env, state, after)),
            prior_logits=logits,
            value=value,
            invalid_actions=_invalid(env, after, task),
        )
        return step, (after, task)

    return model


def decide(
    env: Any, evaluate: Evaluate, plan: Plan, discount: float, params: Any, view: View, key: jax.Array
) -> Decision:
    """Plan from the true states of `view [B, ...]`: a decision for each lane."""
    logits, value = evaluate(params, view.obs)
    root = mcts.RootFnOutput(prior_logits=logits, value=value, embedding=(view.state, view.task))
    model = true_model(env, evaluate, discount=discount)
    return plan(params, key, root, model, _invalid(env, view.state, view.task))


def planner(env: Any, evaluate: Evaluate, plan: Plan, *, discount: float) -> Policy:
    """Any network with a policy and a value as a policy that plans; it acts on `types.View`."""

    def act(
        params: Any, carry: Any, view: View, is_first: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Any, Any]:
        del is_first
        return decide(env, evaluate, plan, discount, params, view, key).action, (), carry

    return Policy(lambda batch_size: (), act)


def scripted(choose: Callable[[jax.Array, Any, Any], jax.Array]) -> Policy:
    """A rule `(key, state, task) -> action []` as a policy without parameters, on `types.View`."""

    def act(
        params: Any, carry: Any, view: View, is_first: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Any, Any]:
        del params, is_first
        keys = jax.random.split(key, view.obs.shape[0])
        return jax.vmap(choose)(keys, view.state, view.task), (), carry

    return Policy(lambda batch_size: (), act)


def _of_mover(env: Any, before: Any, reward: jax.Array) -> jax.Array:
    """Reward `[B]` of who moved, of `[B, 2]` in a game of two."""
    if env.num_players == 1:
        return reward
    return reward[jnp.arange(reward.shape[0]), jax.vmap(env.current_player)(before)]


def _sign(env: Any, before: Any, after: Any) -> jax.Array:
    """+1 where the same player moves again, else -1: float32 `[B]`."""
    player = jax.vmap(env.current_player)
    return jnp.where(player(before) == player(after), 1.0, -1.0)


def _invalid(env: Any, state: Any, task: Any) -> jax.Array:
    return ~jax.vmap(env.legal_actions)(state, task)


# --- any policy, over samples ---------------------------------------------------------------------

# (params, key, action [B, ...], view) -> reward [B], discount [B], view
Step = Callable[..., tuple[jax.Array, jax.Array, View]]


def true_step(env: Any, *, discount: float) -> Step:
    """The environment as a `Step` without parameters."""

    def step(params: Any, key: jax.Array, action: jax.Array, view: View) -> tuple[jax.Array, jax.Array, View]:
        del params
        step_keys = jax.random.split(key, view.obs.shape[0])
        obs, state, reward, terminated, _, _ = jax.vmap(env.step)(step_keys, view.state, action, view.task)
        return reward, jnp.where(terminated, 0.0, discount), View(obs, state, view.task)

    return step


def sample_planner(
    policy: Policy, step: Step, value: Callable[[Any, jax.Array], jax.Array], plan: Plan, *, num_samples: int
) -> Policy:
    """Any policy with search over its own samples (Sampled MuZero, Hubert et al. 2021).

    At every node the policy draws `num_samples` actions; as they are its own, all have the same
    prior, and an action that is drawn twice has twice the prior. `value(params, obs) -> [B]` judges
    states that were reached. Parameters are a pair: the policy's, and what `step` and `value` read.
    Acts on `types.View`; a step that reads observations alone leaves `state` and `task` as they
    are.

    Differs: the policy begins anew at every state, so its memory holds the state alone.
    """

    def propose(params: tuple[Any, Any], key: jax.Array, view: View) -> tuple[jax.Array, mcts.Samples]:
        batch_size = view.obs.shape[0]
        first, memory = jnp.ones((batch_size,), bool), policy.init(batch_size)

        def draw(key: jax.Array) -> jax.Array:
            return policy.act(params[0], memory, view.obs, first, key)[0]

        actions = jax.vmap(draw, out_axes=1)(jax.random.split(key, num_samples))
        equal = jnp.zeros((batch_size, num_samples))
        samples = mcts.merge_copies(mcts.Samples(actions, equal, equal))
        return value(params[1], view.obs), samples

    def advance(
        params: tuple[Any, Any], key: jax.Array, action: jax.Array, view: View
    ) -> tuple[jax.Array, jax.Array, View]:
        return step(params[1], key, action, view)

    model = mcts.sampled_model(advance, propose)

    def act(
        params: tuple[Any, Any], carry: Any, view: View, is_first: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Any, Any]:
        del is_first
        key_propose, key_plan = jax.random.split(key)
        worth, samples = propose(params, key_propose, view)
        root = mcts.sampled_root(worth, view, samples)
        decision = plan(params, key_plan, root, model, samples.is_copy)
        return mcts.chosen(samples.actions, decision.action), (), carry

    return Policy(lambda batch_size: (), act)
