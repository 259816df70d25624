"""Batched Monte Carlo tree search whose loops never carry a tree through a select.

A simulation (`simulation.py`) is: choose at the root; walk down; let the model judge a new node;
back its value up. What differs from mctx is where work is done, not what is computed:

- The batch is written by hand. JAX batches a `while_loop` over lanes of different depth by
  selecting old or new of everything the body changed, which here are the trees; lanes that are done
  scatter to nowhere instead.
- What an interior node would choose next changes only when a simulation passes it. The backup,
  which touches those nodes anyway, decides and notes it, so that walking down reads two numbers a
  level.
- Reward and discount belong to the node they lead to; an edge keeps its visits and its value.

Where the kernel of `kernels.search` is chosen, `launches.py` does the same in two launches a simulation.
With `num_leaves` above 1 (`leaves.py`) the model judges several nodes of each lane at once, and
what is computed differs too.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxagent.mcts.base import (
    InteriorActionSelectionFn,
    LoopFn,
    Params,
    RecurrentFn,
    RootActionSelectionFn,
    RootFnOutput,
)
from jaxagent.mcts.checks import check_inputs, check_leaves, check_tree
from jaxagent.mcts.launches import Planted, begin, end, implementation_of, simulate_in_two
from jaxagent.mcts.leaves import simulate_several
from jaxagent.mcts.nodes import Nodes, plant, replant, to_tree
from jaxagent.mcts.reuse import depths
from jaxagent.mcts.simulation import Model, Rules, TieBreak, choose_everywhere, simulate
from jaxagent.mcts.tree import Tree


def search(
    params: Params,
    rng_key: jax.Array,
    *,
    root: RootFnOutput,
    recurrent_fn: RecurrentFn,
    root_action_selection_fn: RootActionSelectionFn,
    interior_action_selection_fn: InteriorActionSelectionFn,
    num_simulations: int,
    max_depth: int | None = None,
    invalid_actions: jax.Array | None = None,
    extra_data: Any = None,
    loop_fn: LoopFn = jax.lax.fori_loop,
    tie_break: TieBreak = "simulation",
    tree: Tree | None = None,
    early_stop: bool = False,
    num_leaves: int = 1,
    virtual_visits: float = 1.0,
    virtual_loss: float | None = None,
    implementation: str = "auto",
) -> Tree:
    """Search from the states `[B]` of `root` and return their trees.

    `tree` is one to go on from, as `reuse.subtree` leaves it: its statistics stay, its root takes
    the priors and embedding of `root`, and it grows by `num_simulations` nodes. `early_stop` ends
    when no lane's most visited root action can be overtaken: for acting by visits, not for targets.

    `tie_break="simulation"` draws noise once a simulation and lane, and asks the interior rule when
    a node changes; "mctx" draws anew at every level as mctx does, to the bit, and is slower.
    `invalid_actions [B, A]` (nonzero: invalid) are never chosen at the root; a lane without a valid
    one takes action 0. `max_depth` limits edges from the root: a simulation that ends there judges
    its last node again.

    `num_leaves` L above 1 takes L simulations of a lane to the model at once; `virtual_visits`
    and `virtual_loss` tell how those on their way count, see `leaves`. The model is then
    called with B L rows, lane b's from b L on, in `num_simulations / L` steps. Trees are others
    than one at a time makes.

    `implementation` as in `kernels`, of one leaf at a time and `tie_break="simulation"`; others are XLA's.
    The kernel refuses interior rules that look at actions otherwise than one by one or all together.

    Differs: selection functions and value transforms are given the node alone, at index 0
    (`tree.Node`), so they cannot read other nodes or edges' rewards; an interior rule is not asked
    again at a node that nothing has passed since.
    Raises ValueError for shapes that do not fit.
    """
    check_inputs(root, num_simulations, max_depth, invalid_actions)
    check_leaves(num_simulations, num_leaves)
    batch_size = root.value.shape[0]
    invalid = jnp.zeros_like(root.prior_logits) if invalid_actions is None else invalid_actions
    rules = Rules(
        root_action_selection_fn,
        interior_action_selection_fn,
        invalid,
        extra_data,
        _deepest(num_simulations, max_depth, tree),
        tie_break,
    )
    nodes, used = _begun(root, tree, num_simulations)
    model = functools.partial(recurrent_fn, params)
    if _masks(model, rng_key, root, num_leaves):
        # What a model masked stays known by its logit in a tree to go on from.
        nodes = nodes._replace(invalid=nodes.logits <= jnp.finfo(nodes.logits.dtype).min)
    advance = simulate
    if num_leaves > 1:
        advance = functools.partial(
            simulate_several, num_leaves=num_leaves, virtual_visits=virtual_visits, virtual_loss=virtual_loss
        )
    elif tree is not None:
        nodes = choose_everywhere(nodes, rules, depths(tree.parents))

    dtypes = [x.dtype for x in (nodes.value, nodes.logits, nodes.reward)]
    how = implementation_of(implementation, tie_break, num_leaves, dtypes)
    if how != "xla":
        nodes, advance = begin(nodes, batch_size), functools.partial(simulate_in_two, implementation=how)

    def one_step(number: jax.Array, state: tuple) -> tuple:
        key, nodes = state
        key, key_walk, key_model = jax.random.split(key, 3)
        free = (used + number * num_leaves).astype(jnp.int32)
        return key, advance(nodes, rules, model, free, key_walk, key_model)

    state, num_steps = (rng_key, nodes), num_simulations // num_leaves
    if early_stop:
        visits_of = functools.partial(_root_visits, shape=invalid.shape)
        state = _until_decided(num_steps, num_leaves, one_step, state, visits_of)
    else:
        state = loop_fn(0, num_steps, one_step, state)
    nodes = state[1] if how == "xla" else end(state[1], invalid.shape[1])
    return to_tree(nodes, invalid, extra_data)


def _begun(root: RootFnOutput, tree: Tree | None, num_simulations: int) -> tuple[Nodes, jax.Array]:
    """Nodes of the roots, or of trees to go on from, and slots used by each lane, int32 `[B]`."""
    if tree is None:
        return plant(root, num_simulations + 1), jnp.ones(root.value.shape, jnp.int32)
    check_tree(tree, root)
    return replant(root, tree, num_simulations)


def _root_visits(nodes: Nodes | Planted, shape: tuple[int, int]) -> jax.Array:
    """Visits `[B, A]` of the roots' actions, in either layout."""
    if isinstance(nodes, Planted):
        return nodes.trees.visits[:, 0, : shape[1]]
    return nodes.visits.reshape(shape[0], -1, shape[1])[:, 0]


def _until_decided(
    num_steps: int, num_leaves: int, one_step: Any, state: tuple[jax.Array, Any], visits_of: Any
) -> tuple[jax.Array, Any]:
    """Simulate until every lane's lead in `visits_of(nodes)`, the roots' `[B, A]`, exceeds what is left."""

    def is_open(state: tuple) -> jax.Array:
        number, (_, nodes) = state
        visits = visits_of(nodes)
        best = jax.lax.top_k(visits, min(2, visits.shape[-1]))[0]
        lead = best[:, 0] - best[:, -1] if visits.shape[-1] > 1 else jnp.inf
        left = jnp.asarray((num_steps - number) * num_leaves, visits.dtype)
        return (number < num_steps) & jnp.any(lead <= left)

    def one(state: tuple) -> tuple:
        number, inner = state
        return number + 1, one_step(number, inner)

    return jax.lax.while_loop(is_open, one, (jnp.zeros((), jnp.int32), state))[1]


def _masks(model: Model, key: jax.Array, root: RootFnOutput, num_leaves: int) -> bool:
    """Whether a model says which actions are invalid below the root."""

    def rows(x: jax.Array, dtype: Any = None) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((x.shape[0] * num_leaves, *x.shape[1:]), dtype or x.dtype)

    embedding = jax.tree.map(rows, root.embedding)
    step, _ = jax.eval_shape(model, key, rows(root.value, jnp.int32), embedding)
    return getattr(step, "invalid_actions", None) is not None


def _deepest(num_simulations: int, max_depth: int | None, tree: Tree | None) -> int:
    """The most edges that a walk can have, of those allowed."""
    possible = num_simulations + (0 if tree is None else tree.num_simulations)
    return min(max_depth or possible, possible)
