"""Policies that search: MuZero, Gumbel MuZero and Stochastic MuZero, called as mctx's are."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxagent.mcts.base import (
    ChanceRecurrentFn,
    DecisionRecurrentFn,
    InteriorActionSelectionFn,
    LoopFn,
    Params,
    PolicyOutput,
    QTransform,
    RecurrentFn,
    RecurrentFnOutput,
    RootFnOutput,
    StochasticRecurrentState,
)
from jaxagent.mcts.checks import check_inputs
from jaxagent.mcts.qtransforms import qtransform_by_parent_and_siblings, qtransform_completed_by_mix_value
from jaxagent.mcts.search import TieBreak, search
from jaxagent.mcts.selection import (
    GumbelMuZeroExtraData,
    first_argmax,
    gumbel_muzero_interior_action_selection,
    gumbel_muzero_root_action_selection,
    mask_invalid,
    masked_argmax,
    muzero_action_selection,
    score_considered,
)
from jaxagent.mcts.tree import Node, Tree


def muzero_policy(
    params: Params,
    rng_key: jax.Array,
    root: RootFnOutput,
    recurrent_fn: RecurrentFn,
    num_simulations: int,
    invalid_actions: jax.Array | None = None,
    max_depth: int | None = None,
    loop_fn: LoopFn = jax.lax.fori_loop,
    *,
    qtransform: QTransform = qtransform_by_parent_and_siblings,
    dirichlet_fraction: float = 0.25,
    dirichlet_alpha: float = 0.3,
    pb_c_init: float = 1.25,
    pb_c_base: float = 19652.0,
    temperature: float = 1.0,
    tie_break: TieBreak = "simulation",
    tree: Tree | None = None,
    early_stop: bool = False,
    num_leaves: int = 1,
    virtual_visits: float = 4.0,
    virtual_loss: float | None = None,
) -> PolicyOutput:
    """PUCT from noisy priors; acts in proportion to `visits ** (1 / temperature)`.

    MuZero (Schrittwieser et al. 2020, appendix B). Shapes as in `base`, `[B]` lanes; `tie_break`, `tree`,
    `early_stop`, `invalid_actions`, `num_leaves`, `virtual_visits` and `virtual_loss` as in
    `search`.
    """
    check_inputs(root, num_simulations, max_depth, invalid_actions)
    rng_key, key_noise, key_search = jax.random.split(rng_key, 3)
    root = _noisy(root, key_noise, dirichlet_fraction, dirichlet_alpha, invalid_actions)
    interior = functools.partial(
        muzero_action_selection, pb_c_base=pb_c_base, pb_c_init=pb_c_init, qtransform=qtransform
    )
    tree = search(
        params,
        key_search,
        root=root,
        recurrent_fn=recurrent_fn,
        root_action_selection_fn=functools.partial(interior, depth=0),
        interior_action_selection_fn=interior,
        num_simulations=num_simulations,
        max_depth=max_depth,
        invalid_actions=invalid_actions,
        loop_fn=loop_fn,
        tie_break=tie_break,
        tree=tree,
        early_stop=early_stop,
        num_leaves=num_leaves,
        virtual_visits=virtual_visits,
        virtual_loss=virtual_loss,
    )
    return _by_visits(rng_key, tree, temperature)


def gumbel_muzero_policy(
    params: Params,
    rng_key: jax.Array,
    root: RootFnOutput,
    recurrent_fn: RecurrentFn,
    num_simulations: int,
    invalid_actions: jax.Array | None = None,
    max_depth: int | None = None,
    loop_fn: LoopFn = jax.lax.fori_loop,
    *,
    qtransform: QTransform = qtransform_completed_by_mix_value,
    max_num_considered_actions: int = 16,
    gumbel_scale: float = 1.0,
    tree: Tree | None = None,
    num_leaves: int = 1,
) -> PolicyOutput:
    """Sequential halving with Gumbel at the root, the improved policy's shares below it.

    Full Gumbel MuZero (Danihelka et al. 2022), shapes as in `base`, `[B]` lanes. No tie is broken by
    noise. `gumbel_scale` 0 acts without chance, for evaluation in games of perfect information.
    `tree` and `num_leaves` as in `search`; leaves on their way count as one visit each, and within a
    round of halving they are of different root actions.

    Differs: mctx has no tree to go on from. Halving counts only the visits of this search, so its
    rounds are those of a fresh one and the action is the best of those it visited most; values, and
    the scale that visits give them, are of the whole tree.
    """
    check_inputs(root, num_simulations, max_depth, invalid_actions)
    root = root.replace(prior_logits=mask_invalid(root.prior_logits, invalid_actions))
    rng_key, key_gumbel = jax.random.split(rng_key)
    logits = root.prior_logits
    gumbel = gumbel_scale * jax.random.gumbel(key_gumbel, logits.shape, logits.dtype)
    kept = None if tree is None else tree.children_visits[:, Tree.ROOT_INDEX]
    tree = search(
        params,
        rng_key,
        root=root,
        recurrent_fn=recurrent_fn,
        root_action_selection_fn=functools.partial(
            gumbel_muzero_root_action_selection,
            num_simulations=num_simulations,
            max_num_considered_actions=max_num_considered_actions,
            qtransform=qtransform,
        ),
        interior_action_selection_fn=functools.partial(
            gumbel_muzero_interior_action_selection, qtransform=qtransform
        ),
        num_simulations=num_simulations,
        max_depth=max_depth,
        invalid_actions=invalid_actions,
        extra_data=GumbelMuZeroExtraData(root_gumbel=gumbel, kept_visits=kept),
        loop_fn=loop_fn,
        tree=tree,
        num_leaves=num_leaves,
    )
    # The best of those visited most: with few valid actions, lanes differ in how many that is.
    visits = tree.summary().visit_counts
    if kept is not None:
        visits = visits - kept.astype(visits.dtype)
    completed = jax.vmap(qtransform, in_axes=(0, None))(tree, Tree.ROOT_INDEX)
    most = jnp.max(visits, axis=-1, keepdims=True)
    scores = score_considered(most, gumbel, logits, completed, visits)
    weights = jax.nn.softmax(mask_invalid(logits + completed, invalid_actions))
    action = masked_argmax(scores, invalid_actions)
    return PolicyOutput(action=action, action_weights=weights, search_tree=tree)


def stochastic_muzero_policy(
    params: Params,
    rng_key: jax.Array,
    root: RootFnOutput,
    decision_recurrent_fn: DecisionRecurrentFn,
    chance_recurrent_fn: ChanceRecurrentFn,
    num_simulations: int,
    invalid_actions: jax.Array | None = None,
    max_depth: int | None = None,
    loop_fn: LoopFn = jax.lax.fori_loop,
    *,
    qtransform: QTransform = qtransform_by_parent_and_siblings,
    dirichlet_fraction: float = 0.25,
    dirichlet_alpha: float = 0.3,
    pb_c_init: float = 1.25,
    pb_c_base: float = 19652.0,
    temperature: float = 1.0,
    tie_break: TieBreak = "simulation",
    num_leaves: int = 1,
    virtual_visits: float = 4.0,
    virtual_loss: float | None = None,
) -> PolicyOutput:
    """MuZero whose nodes are decisions and chances in turn (Antonoglou et al. 2022).

    Shapes as in `base`, `[B]` lanes. Actions and outcomes share one axis of `A + C` inside the
    search; the tree returned holds actions alone, as mctx's does. A model function runs only where
    a lane needs it.
    """
    check_inputs(root, num_simulations, max_depth, invalid_actions)
    batch_size, num_actions = root.prior_logits.shape
    rng_key, key_noise, key_search = jax.random.split(rng_key, 3)
    root = _noisy(root, key_noise, dirichlet_fraction, dirichlet_alpha, invalid_actions)
    dummy_action = jnp.zeros((batch_size,), jnp.int32)
    dummy, afterstate = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype),
        jax.eval_shape(decision_recurrent_fn, params, rng_key, dummy_action, root.embedding),
    )
    num_outcomes = dummy.chance_logits.shape[-1]
    never = jnp.full((batch_size, num_outcomes), -jnp.inf, root.prior_logits.dtype)
    root = root.replace(
        prior_logits=jnp.concatenate([root.prior_logits, never], axis=-1),
        embedding=StochasticRecurrentState(
            state_embedding=root.embedding,
            afterstate_embedding=afterstate,
            is_decision_node=jnp.ones((batch_size,), bool),
        ),
    )
    decide = functools.partial(
        muzero_action_selection, pb_c_base=pb_c_base, pb_c_init=pb_c_init, qtransform=qtransform
    )
    interior = _in_turn(decide, num_actions)
    padded = None
    if invalid_actions is not None:
        outcomes = jnp.zeros((batch_size, num_outcomes), invalid_actions.dtype)
        padded = jnp.concatenate([invalid_actions, outcomes], axis=-1)
    tree = search(
        params,
        key_search,
        root=root,
        recurrent_fn=_stochastic_model(decision_recurrent_fn, chance_recurrent_fn, num_actions, num_outcomes),
        root_action_selection_fn=functools.partial(interior, depth=0),
        interior_action_selection_fn=interior,
        num_simulations=num_simulations,
        max_depth=max_depth,
        invalid_actions=padded,
        loop_fn=loop_fn,
        tie_break=tie_break,
        num_leaves=num_leaves,
        virtual_visits=virtual_visits,
        virtual_loss=virtual_loss,
        implementation="xla",  # its rule takes rows of actions and outcomes apart, as no kernel does
    )
    return _by_visits(rng_key, _actions_of(tree, num_actions), temperature)


def _by_visits(key: jax.Array, tree: Tree, temperature: float) -> PolicyOutput:
    weights = tree.summary().visit_probs
    logits = jnp.log(jnp.maximum(weights, jnp.finfo(weights.dtype).tiny))
    logits = logits - jnp.max(logits, keepdims=True, axis=-1)
    logits = logits / jnp.maximum(jnp.finfo(logits.dtype).tiny, temperature)
    action = jax.random.categorical(key, logits)
    return PolicyOutput(action=action, action_weights=weights, search_tree=tree)


def _noisy(root: RootFnOutput, key: jax.Array, fraction: float, alpha: float, invalid: Any) -> RootFnOutput:
    """Priors mixed with Dirichlet noise; invalid actions have none."""
    probs = jax.nn.softmax(root.prior_logits)
    batch_size, num_actions = probs.shape
    noise = jax.random.dirichlet(
        key, jnp.full((num_actions,), alpha, probs.dtype), (batch_size,), probs.dtype
    )
    mixed = (1.0 - fraction) * probs + fraction * noise
    logits = jnp.log(jnp.maximum(mixed, jnp.finfo(probs.dtype).tiny))
    return root.replace(prior_logits=mask_invalid(logits, invalid))


def _in_turn(decide: InteriorActionSelectionFn, num_actions: int) -> InteriorActionSelectionFn:
    """Decide at even depths; at odd ones take the outcome furthest below its probability."""

    def choose(rng_key: jax.Array, tree: Any, node_index: Any, depth: Any) -> jax.Array:
        decision = decide(rng_key, _part(tree, slice(None, num_actions)), node_index, depth)
        outcomes = _part(tree, slice(num_actions, None))
        probs = jax.nn.softmax(outcomes.children_prior_logits[node_index])
        visits = jnp.asarray(outcomes.children_visits[node_index], probs.dtype)
        outcome = first_argmax(probs / (visits + 1.0)) + num_actions
        return jnp.where(jnp.asarray(depth) % 2 == 0, decision, outcome)

    return choose


def _part(node: Node, which: slice) -> Node:
    noise, unobserved = (None if x is None else x[..., which] for x in (node.noise, node.children_unobserved))
    return node._replace(
        children_prior_logits=node.children_prior_logits[..., which],
        children_prior_probs=jax.nn.softmax(node.children_prior_logits[..., which]),
        children_visits=node.children_visits[..., which],
        children_qvalues=node.children_qvalues[..., which],
        root_invalid_actions=node.root_invalid_actions[..., which],
        noise=noise,
        children_unobserved=unobserved,
    )


def _actions_of(tree: Tree, num_actions: int) -> Tree:
    """The tree without outcomes."""
    names = ("index", "prior_logits", "visits", "rewards", "discounts", "values")
    cut = {f"children_{n}": tree[f"children_{n}"][..., :num_actions] for n in names}
    return tree.replace(**cut, root_invalid_actions=tree.root_invalid_actions[..., :num_actions])


def _stochastic_model(
    decision_fn: DecisionRecurrentFn, chance_fn: ChanceRecurrentFn, num_actions: int, num_outcomes: int
) -> RecurrentFn:
    """One model of both kinds of nodes; each function runs only if a lane needs it."""

    def model(params: Params, key: jax.Array, action: jax.Array, state: Any) -> tuple[RecurrentFnOutput, Any]:
        is_decision = state.is_decision_node
        batch_size = is_decision.shape[0]

        def never(size: int, dtype: Any) -> jax.Array:
            return jnp.full((batch_size, size), -jnp.inf, dtype)

        def decide() -> tuple[RecurrentFnOutput, Any]:
            # mctx calls it with actions out of range where another kind of node is asked for.
            decision = jnp.where(is_decision, action, 0)
            out, afterstate = decision_fn(params, key, decision, state.state_embedding)
            logits = [never(num_actions, out.chance_logits.dtype), out.chance_logits]
            value = out.afterstate_value
            step = RecurrentFnOutput(
                prior_logits=jnp.concatenate(logits, axis=-1),
                value=value,
                reward=jnp.zeros_like(value),
                discount=jnp.ones_like(value),
            )
            return step, afterstate

        def chance() -> tuple[RecurrentFnOutput, Any]:
            outcome = jnp.where(is_decision, 0, action - num_actions)
            out, next_state = chance_fn(params, key, outcome, state.afterstate_embedding)
            logits = [out.action_logits, never(num_outcomes, out.action_logits.dtype)]
            step = RecurrentFnOutput(
                prior_logits=jnp.concatenate(logits, axis=-1),
                value=out.value,
                reward=out.reward,
                discount=out.discount,
            )
            return step, next_state

        def nothing(run: Any) -> Any:
            shapes = jax.eval_shape(run)
            return lambda: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

        decided, afterstate = jax.lax.cond(jnp.any(is_decision), decide, nothing(decide))
        chanced, next_state = jax.lax.cond(jnp.all(is_decision), nothing(chance), chance)

        def where(a: jax.Array, b: jax.Array) -> jax.Array:
            mask = is_decision.reshape(-1, *[1] * (a.ndim - 1))
            return jnp.where(mask, a, b)

        new = StochasticRecurrentState(
            state_embedding=next_state, afterstate_embedding=afterstate, is_decision_node=~is_decision
        )
        return jax.tree.map(where, decided, chanced), new

    return model
