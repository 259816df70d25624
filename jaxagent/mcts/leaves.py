"""Several leaves of each lane judged at once, so that a model is called with B L rows.

A step walks down L times in a tree that does not change; a walk counts the ones before it in the
same step as visits, and so goes elsewhere. Then the model judges all L nodes, and all L values are
carried up together. Nothing virtual is written into a tree, so nothing has to be taken back: where
the other walks of a step passed is read from their paths.

A walk on its way counts as `virtual_visits` visits (AlphaGo, Silver et al. 2016, methods: 3), so
that above 1 the next ones leave it sooner: of 4, fewer of them end alike and actions are mostly
better than of 1. What it does to an action's value is `virtual_loss`:

- None, nothing: it counts as a visit only (WU-UCT, Liu et al. 2020, eq. 4). Value transforms see
  what was observed, rules all visits.
- A number x: it counts as visits that returned -x to who chooses there (AlphaGo for x = 1 and games
  of 1 and -1). An action on its way for the first time is worth -x to value transforms too.

Two walks of a step can end in the same edge, where one action has nearly all of the prior. They
make one node, whose value counts twice; the slot of the second stays empty. (Tried: the second
takes another action of the same node instead. More nodes, worse actions.)

Differs: a node's own mean has no virtual loss, only its actions' values do. Interior rules are
asked as a walk passes, with that walk's tie-break.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxagent.mcts.nodes import UNVISITED, Nodes, take
from jaxagent.mcts.simulation import (
    Climb,
    Model,
    Rules,
    Walk,
    ask,
    ask_at_root,
    first_rows,
    judge,
    keys_of,
    look,
    write,
)
from jaxagent.mcts.tree import Node

NOWHERE = -1


class Trace(NamedTuple):
    """Nodes and actions of a step's walks so far; D levels, those not reached are NOWHERE."""

    path: jax.Array  # [D, B, L] int32: rows of the nodes met, by depth
    action: jax.Array  # [D, B, L] int32: chosen there


class End(NamedTuple):
    """The end of one walk of every lane so far; fields as in `Walk`."""

    length: jax.Array  # [B] int32
    parent: jax.Array  # [B] int32
    action: jax.Array  # [B] int32
    child: jax.Array  # [B] int32


def simulate_several(
    nodes: Nodes,
    rules: Rules,
    model: Model,
    free: jax.Array,
    key_walk: jax.Array,
    key_model: jax.Array,
    *,
    num_leaves: int,
    virtual_visits: float = 1.0,
    virtual_loss: float | None = None,
) -> Nodes:
    """Trees with L simulations more; new nodes take slots `free [B]` to `free + L - 1`."""
    virtual = virtual_visits, virtual_loss
    walk = descend_apart(nodes, rules, key_walk, num_leaves, virtual)
    base = jnp.repeat(first_rows(nodes, rules), num_leaves)
    first = _first_alike(walk.parent, walk.action, num_leaves)
    leaf = jnp.tile(jnp.arange(num_leaves, dtype=jnp.int32), free.shape[0])
    slot = jnp.where(walk.child == UNVISITED, jnp.repeat(free, num_leaves) + first, walk.child)
    step, embedding = judge(model, key_model, nodes, walk, base)
    nodes = write(nodes, walk, base, slot, step, embedding, first == leaf)
    # `write` counts the visit of the walk that writes.
    rows = jnp.where(first == leaf, nodes.value.shape[0], base + slot)
    nodes = nodes._replace(num_visits=nodes.num_visits.at[rows].add(1.0, mode="drop"))
    return back_up_together(nodes, walk, base + slot, num_leaves)


def descend_apart(
    nodes: Nodes, rules: Rules, key: jax.Array, num_leaves: int, virtual: tuple[float, float | None]
) -> Walk:
    """Walk down L times, one after another; fields `[B L]`, a lane's L walks side by side."""
    base = first_rows(nodes, rules)
    batch_size, num_actions = rules.invalid.shape
    nothing = jnp.full((rules.max_depth, batch_size, num_leaves), NOWHERE, jnp.int32)
    lanes, zeros = jnp.arange(batch_size, dtype=jnp.int32), jnp.zeros((batch_size,), jnp.int32)

    def one_walk(trace: Trace, leaf_and_key: tuple) -> tuple[Trace, End]:
        leaf, key = leaf_and_key
        noise, key_rules = None, key
        if rules.tie_break == "simulation":
            key_noise, key_rules = jax.random.split(key)
            noise = jax.random.uniform(key_noise, (batch_size, num_actions))

        def choose(trace: Trace, rows: jax.Array, depth: Any, is_root: bool) -> jax.Array:
            at = look(nodes, rules, rows, noise, is_root=is_root)
            at = _with_unobserved(at, _passed(trace, rows, depth, num_actions), *virtual)
            keys = keys_of(key_rules, lanes, depth)
            return ask_at_root(rules, keys, at) if is_root else ask(rules, keys, at, depth)

        def go(state: tuple, is_root: bool = False) -> tuple:
            depth, trace, end, is_active = state
            parent = jnp.where(is_active, end.child, end.parent)
            rows = base + parent
            action = jnp.where(is_active, choose(trace, rows, depth, is_root), end.action)
            child, where = take(nodes.children, rows, action), (depth, 0, leaf)
            trace = Trace(
                _put(trace.path, jnp.where(is_active, rows, NOWHERE), where),
                _put(trace.action, action, where),
            )
            end = End(end.length + is_active.astype(jnp.int32), parent, action, child)
            is_active = is_active & (child != UNVISITED) & (depth + 1 < rules.max_depth)
            return depth + 1, trace, end, is_active

        begin = End(length=zeros, parent=zeros, action=zeros, child=zeros)
        state = jnp.zeros((), jnp.int32), trace, begin, jnp.ones((batch_size,), bool)
        state = jax.lax.while_loop(lambda s: jnp.any(s[3]), go, go(state, is_root=True))
        return state[1], state[2]

    leaves = jnp.arange(num_leaves, dtype=jnp.int32), jax.random.split(key, num_leaves)
    trace, ends = jax.lax.scan(one_walk, Trace(nothing, nothing), leaves)
    ends = jax.tree.map(lambda x: x.T.reshape(-1), ends)
    return Walk(path=trace.path.reshape(rules.max_depth, -1), **ends._asdict())


def _put(x: jax.Array, new: jax.Array, where: tuple) -> jax.Array:
    """`x [D, B, L]` with `new [B]` at a level of a leaf."""
    return jax.lax.dynamic_update_slice(x, new[None, :, None], where)


def _passed(trace: Trace, rows: jax.Array, depth: Any, num_actions: int) -> jax.Array:
    """Counts `[B, A]` of the actions that the walks before chose at `rows [B]` of a level."""
    path, action = (jax.lax.dynamic_index_in_dim(x, depth, keepdims=False) for x in trace)
    is_here = (path == rows[:, None])[..., None]
    return jnp.sum(jnp.where(is_here, jax.nn.one_hot(action, num_actions), 0.0), axis=1)


def _with_unobserved(at: Node, passed: jax.Array, virtual_visits: float, virtual_loss: float | None) -> Node:
    """Nodes `[B, 1, ...]` as rules may see them with `passed [B, A]` walks on their way."""
    unobserved = virtual_visits * passed[:, None]
    observed, qvalues = at.children_visits, at.children_qvalues
    at = at._replace(
        node_visits=at.node_visits + jnp.sum(unobserved, axis=-1), children_visits=observed + unobserved
    )
    if virtual_loss is None:
        # For rules that ask for the value of every action with a visit.
        qvalues = jnp.where(observed > 0, qvalues, at.node_values[..., None])
        return at._replace(children_qvalues=qvalues, children_unobserved=unobserved)
    kept, lost = (x.astype(qvalues.dtype) for x in (observed, unobserved))
    total = kept * qvalues - lost * virtual_loss
    mean = jnp.where(unobserved > 0, total / jnp.maximum(kept + lost, 1.0), qvalues)
    return at._replace(children_qvalues=mean)


def _first_alike(parent: jax.Array, action: jax.Array, num_leaves: int) -> jax.Array:
    """Index, int32 `[B L]`, of the first of its lane's walks that ends in the same edge."""
    parent, action = (x.reshape(-1, num_leaves) for x in (parent, action))
    same = _alike(parent) & _alike(action)
    leaf = jnp.arange(num_leaves, dtype=jnp.int32)
    return jnp.min(jnp.where(same, leaf[None, None], num_leaves), axis=-1).reshape(-1)


def _alike(x: jax.Array) -> jax.Array:
    """Equality of all pairs of a lane's L: bool `[B, L, L]` of `[B, L]`."""
    return x[:, :, None] == x[:, None, :]


def back_up_together(nodes: Nodes, walk: Walk, leaf: jax.Array, num_leaves: int) -> Nodes:
    """Carry the values at rows `leaf [B L]` to the roots, a level of all walks at a time.

    Walks of a lane that meet in a node are added up there, each in the same order, and write the
    same numbers: no sum depends on the order of a scatter.
    """
    value, nowhere = take(nodes.value, leaf), nodes.value.shape[0]

    def together(rows: jax.Array, returns: jax.Array) -> tuple[jax.Array, jax.Array]:
        same = _alike(rows.reshape(-1, num_leaves))
        each = jnp.where(same, returns.reshape(-1, 1, num_leaves), 0.0)
        number = jnp.sum(same, axis=-1, dtype=jnp.float32)
        return number.reshape(-1), jnp.sum(each, axis=-1).reshape(-1)

    def one_level(state: tuple[jax.Array, Climb]) -> tuple[jax.Array, Climb]:
        depth, climb = state
        nodes, (child, child_value, returns) = climb.nodes, climb[1:]
        is_active = depth < walk.length
        rows = jax.lax.dynamic_index_in_dim(walk.path, depth, keepdims=False)
        target, rows = jnp.where(is_active, rows, nowhere), jnp.where(is_active, rows, 0)
        action = take(nodes.action, child)
        reward, discount = take(nodes.reward, child), take(nodes.discount, child)
        returns = jnp.where(is_active, reward + discount * returns, returns)
        number, total = together(target, returns)
        count, value = take(nodes.num_visits, rows), take(nodes.value, rows)
        after = count + number
        mean = (value * count.astype(value.dtype) + total) / after.astype(value.dtype)
        nodes = nodes._replace(
            value=nodes.value.at[target].set(mean, mode="drop"),
            num_visits=nodes.num_visits.at[target].set(after, mode="drop"),
            visits=nodes.visits.at[target, action].add(1.0, mode="drop"),
            qvalues=nodes.qvalues.at[target, action].set(reward + discount * child_value, mode="drop"),
        )
        child, child_value = (
            jnp.where(is_active, new, old) for new, old in ((rows, child), (mean, child_value))
        )
        return depth - 1, Climb(nodes, child, child_value, returns)

    first = jnp.max(walk.length) - 1, Climb(nodes, leaf, value, value)
    return jax.lax.while_loop(lambda state: state[0] >= 0, one_level, first)[1].nodes
