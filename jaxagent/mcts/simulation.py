"""One simulation: choose at the root; walk down; let the model judge a new node; back it up."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxagent.mcts.base import InteriorActionSelectionFn, RecurrentFnOutput, RootActionSelectionFn
from jaxagent.mcts.checks import check_embedding, check_shape
from jaxagent.mcts.nodes import SCATTER, UNVISITED, Nodes, nodes_per_lane, take
from jaxagent.mcts.selection import mask_invalid
from jaxagent.mcts.tree import Node

TieBreak = Literal["simulation", "mctx"]
# (key, action [K], embedding) -> RecurrentFnOutput, embedding: a `recurrent_fn` with its params
Model = Callable[..., tuple[RecurrentFnOutput, Any]]
# Lanes of one step of a backup: wider ones leave the cache, narrower ones are all overhead.
SHARES, NARROWEST, WIDEST = (8, 2), 16, 256


class Walk(NamedTuple):
    """The path of one simulation from the root."""

    path: jax.Array  # [D + 1, B] int32: rows of the nodes met, by depth
    length: jax.Array  # [B] int32: edges walked, at least one
    parent: jax.Array  # [B] int32: the lane's own index of the last node met
    action: jax.Array  # [B] int32: chosen there
    child: jax.Array  # [B] int32: where it leads, or UNVISITED


class Climb(NamedTuple):
    """A backup on its way up; lanes in the order of the climb."""

    nodes: Nodes
    child: jax.Array  # [B] int32: row of the node that each lane came from
    child_value: jax.Array  # [B]: its mean
    found: jax.Array  # [B]: the return that this simulation saw from there


class Rules(NamedTuple):
    """Rules that choose actions, and settings that do not change during a search."""

    root: RootActionSelectionFn
    interior: InteriorActionSelectionFn
    invalid: jax.Array  # [B, A] at the root
    extra_data: Any  # [B, ...]
    max_depth: int
    tie_break: TieBreak


def simulate(
    nodes: Nodes, rules: Rules, model: Model, free: jax.Array, key_walk: jax.Array, key_model: jax.Array
) -> Nodes:
    """Trees with one simulation more; a new node takes slot `free [B]` of its lane."""
    noise, key_rules = None, key_walk
    if rules.tie_break == "simulation":
        key_noise, key_rules = jax.random.split(key_walk)
        noise = jax.random.uniform(key_noise, rules.invalid.shape)
    base = first_rows(nodes, rules)
    walk = _descend(nodes, rules, key_rules, noise)
    slot = jnp.where(walk.child == UNVISITED, free, walk.child).astype(jnp.int32)
    step, embedding = judge(model, key_model, nodes, walk, base)
    nodes = write(nodes, walk, base, slot, step, embedding)
    if rules.tie_break == "simulation":
        nodes = _choose_first(nodes, rules, walk, base + slot, step, noise, key_rules)
    return _back_up(nodes, rules, walk, slot, noise, key_rules)


def first_rows(nodes: Nodes, rules: Rules) -> jax.Array:
    """Row `[B]` of each lane's root."""
    batch_size = rules.invalid.shape[0]
    return jnp.arange(batch_size, dtype=jnp.int32) * nodes_per_lane(nodes, batch_size)


def choose_everywhere(nodes: Nodes, rules: Rules, depth: jax.Array) -> Nodes:
    """Note the choice of every node that there is, one slot of all lanes at a time; `depth [B, N]`."""
    if rules.tie_break == "mctx":
        return nodes
    batch_size, size = depth.shape
    base = jnp.arange(batch_size, dtype=jnp.int32) * nodes_per_lane(nodes, batch_size)
    unbroken = jnp.zeros((batch_size, nodes.logits.shape[1]))  # no tie is broken yet

    def one_slot(slot: jax.Array, choice: jax.Array) -> jax.Array:
        at = look(nodes, rules, base + slot, unbroken)
        keys = keys_of(jax.random.key(0), jnp.arange(batch_size, dtype=jnp.int32), slot)
        return choice.at[base + slot].set(ask(rules, keys, at, depth[:, slot]), **SCATTER)

    return nodes._replace(choice=jax.lax.fori_loop(0, size, one_slot, nodes.choice))


def _descend(nodes: Nodes, rules: Rules, key: jax.Array, noise: Any) -> Walk:
    """Follow choices from the root to an action without a node, or to `max_depth`."""
    batch_size, base = rules.invalid.shape[0], first_rows(nodes, rules)
    lane_keys = jax.random.split(key, batch_size) if rules.tie_break == "mctx" else None
    lane_keys, action = _choose_at_root(nodes, rules, base, lane_keys, key, noise)
    child = take(nodes.children, base, action)
    path = jnp.zeros((rules.max_depth + 1, batch_size), jnp.int32).at[0].set(base)
    ones = jnp.ones((batch_size,), jnp.int32)
    active = (child != UNVISITED) & (rules.max_depth > 1)
    walk = Walk(path, ones, jnp.zeros_like(ones), action, child)

    def one_level(state: tuple) -> tuple:
        depth, walk, active, lane_keys = state
        parent = jnp.where(active, walk.child, walk.parent)
        rows = base + parent
        if rules.tie_break == "mctx":
            lane_keys, chosen = _choose_anew(nodes, rules, rows, lane_keys, depth)
        else:
            chosen = take(nodes.choice, rows)
        action = jnp.where(active, chosen, walk.action)
        child = take(nodes.children, rows, action)
        length = walk.length + active.astype(jnp.int32)
        path = jax.lax.dynamic_update_slice(walk.path, rows[None], (depth, 0))
        active = active & (child != UNVISITED) & (depth + 1 < rules.max_depth)
        return depth + 1, Walk(path, length, parent, action, child), active, lane_keys

    first = (jnp.ones((), jnp.int32), walk, active, lane_keys)
    return jax.lax.while_loop(lambda state: jnp.any(state[2]), one_level, first)[1]


def _choose_at_root(
    nodes: Nodes, rules: Rules, base: jax.Array, lane_keys: Any, key: jax.Array, noise: Any
) -> tuple[Any, jax.Array]:
    """The root's action of every lane, and keys for the levels below where those are drawn anew."""
    if rules.tie_break == "mctx":
        lane_keys, select_keys = _split(lane_keys)
    else:
        select_keys = keys_of(key, jnp.arange(base.shape[0], dtype=jnp.int32), 0)
    at = look(nodes, rules, base, noise, is_root=True)
    return lane_keys, ask_at_root(rules, select_keys, at)


def _choose_anew(
    nodes: Nodes, rules: Rules, rows: jax.Array, lane_keys: jax.Array, depth: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Interior actions, ties broken by draws of this level."""
    lane_keys, select_keys = _split(lane_keys)
    at = look(nodes, rules, rows, None)
    return lane_keys, ask(rules, select_keys, at, depth)


def ask(rules: Rules, select_keys: jax.Array, at: Node, depth: Any) -> jax.Array:
    """Actions `[K]` of the interior rule at nodes `[K, ...]`; `depth []` or `[K]`."""
    axes = (0, jax.tree.map(lambda _: 0, at), None, 0 if jnp.ndim(depth) else None)
    return jax.vmap(rules.interior, in_axes=axes)(select_keys, at, 0, depth)


def ask_at_root(rules: Rules, select_keys: jax.Array, at: Node) -> jax.Array:
    """Actions `[B]` of the root's rule at roots `[B, ...]`."""
    axes = (0, jax.tree.map(lambda _: 0, at), None)
    return jax.vmap(rules.root, in_axes=axes)(select_keys, at, 0)


def look(
    nodes: Nodes,
    rules: Rules,
    rows: jax.Array,
    noise: jax.Array | None,
    lanes: jax.Array | None = None,
    is_root: bool = False,
) -> Node:
    """The view `[K, ...]` that rules have of nodes at `rows [K]` of `lanes [K]`, None: all in order."""
    if is_root:
        invalid = rules.invalid
    elif nodes.invalid is None:
        invalid = jnp.zeros((rows.shape[0], rules.invalid.shape[1]), bool)
    else:
        invalid = take(nodes.invalid, rows)
    extra_data = rules.extra_data
    if lanes is not None:
        extra_data = jax.tree.map(lambda x: take(x, lanes), extra_data)

    def at(x: jax.Array) -> jax.Array:
        return take(x, rows)[:, None]

    return Node(
        node_visits=at(nodes.num_visits),
        raw_values=at(nodes.raw_value),
        node_values=at(nodes.value),
        children_prior_logits=at(nodes.logits),
        children_prior_probs=at(nodes.probs),
        children_visits=at(nodes.visits),
        children_qvalues=at(nodes.qvalues),
        root_invalid_actions=invalid,
        extra_data=extra_data,
        noise=noise,
    )


def judge(
    model: Model, key: jax.Array, nodes: Nodes, walk: Walk, base: jax.Array
) -> tuple[RecurrentFnOutput, Any]:
    """Ask the model for the step that each walk `[K]` ended with, in the tree whose root is `base`.

    Logits come back masked, where the model masks.
    """
    before = jax.tree.map(lambda x: take(x, base + walk.parent), nodes.embedding)
    step, embedding = model(key, walk.action, before)
    num_walks, num_actions = base.shape[0], nodes.logits.shape[1]
    wanted = {
        "reward": (num_walks,),
        "discount": (num_walks,),
        "value": (num_walks,),
        "prior_logits": (num_walks, num_actions),
    }
    if nodes.invalid is not None:
        wanted["invalid_actions"] = (num_walks, num_actions)
    for name, shape in wanted.items():
        check_shape(f"recurrent_fn's {name}", getattr(step, name), shape)
    check_embedding(before, embedding)
    if nodes.invalid is not None:
        logits = mask_invalid(step.prior_logits, step.invalid_actions)
        step = step.replace(prior_logits=logits)
    return step, embedding


def write(
    nodes: Nodes,
    walk: Walk,
    base: jax.Array,
    slot: jax.Array,
    step: RecurrentFnOutput,
    embedding: Any,
    is_first: jax.Array | None = None,
) -> Nodes:
    """Write the judged nodes at `slot [K]`; a walk that `max_depth` ended rewrites its last one.

    Of walks that share a slot only the one that `is_first [K]` writes, None: no two share one.
    """
    rows, edge, how = base + slot, base + walk.parent, SCATTER
    if is_first is not None:
        nowhere, how = nodes.value.shape[0], {"mode": "drop"}
        rows, edge = (jnp.where(is_first, x, nowhere) for x in (rows, edge))

    def put(x: jax.Array, new: jax.Array) -> jax.Array:
        return x.at[rows].set(new.astype(x.dtype), **how)

    if nodes.invalid is not None:
        nodes = nodes._replace(invalid=put(nodes.invalid, jnp.asarray(step.invalid_actions, bool)))
    return nodes._replace(
        children=nodes.children.at[edge, walk.action].set(slot, **how),
        logits=put(nodes.logits, step.prior_logits),
        probs=put(nodes.probs, jax.nn.softmax(step.prior_logits)),
        num_visits=nodes.num_visits.at[rows].add(1.0, **how),
        value=put(nodes.value, step.value),
        raw_value=put(nodes.raw_value, step.value),
        reward=put(nodes.reward, step.reward),
        discount=put(nodes.discount, step.discount),
        parent=put(nodes.parent, walk.parent),
        action=put(nodes.action, walk.action),
        embedding=jax.tree.map(put, nodes.embedding, embedding),
    )


def _choose_first(
    nodes: Nodes,
    rules: Rules,
    walk: Walk,
    rows: jax.Array,
    step: RecurrentFnOutput,
    noise: Any,
    key: jax.Array,
) -> Nodes:
    """Note the first choice of new nodes: they have met nothing, so it reads no row of the tree."""
    nothing = jnp.zeros_like(step.prior_logits)
    invalid = jnp.zeros(nothing.shape, bool)
    if nodes.invalid is not None:
        invalid = jnp.asarray(step.invalid_actions, bool)
    at = Node(
        node_visits=jnp.ones_like(step.value)[:, None],
        raw_values=step.value[:, None],
        node_values=step.value[:, None],
        children_prior_logits=step.prior_logits[:, None],
        children_prior_probs=jax.nn.softmax(step.prior_logits)[:, None],
        children_visits=jnp.zeros(nothing.shape, jnp.float32)[:, None],
        children_qvalues=nothing[:, None],
        root_invalid_actions=invalid,
        extra_data=rules.extra_data,
        noise=noise,
    )
    keys = keys_of(key, jnp.arange(rows.shape[0], dtype=jnp.int32), walk.length)
    choice = ask(rules, keys, at, walk.length)
    return nodes._replace(choice=nodes.choice.at[rows].set(choice, **SCATTER))


def _back_up(nodes: Nodes, rules: Rules, walk: Walk, slot: jax.Array, noise: Any, key: jax.Array) -> Nodes:
    """Carry each lane's new value to its root, and decide anew at every node on the way.

    Lanes go in order of depth, so that those still on their way at a level are the first ones: deep
    levels, where few are, are climbed at a fraction of the width.
    """
    batch_size = slot.shape[0]
    per_lane = nodes_per_lane(nodes, batch_size)
    narrow, wide = _widths(batch_size)
    length, lanes = walk.length, jnp.arange(batch_size, dtype=jnp.int32)
    if narrow or wide < batch_size:
        negative, lanes = jax.lax.sort((-length, lanes), num_keys=1)
        length = -negative
    leaf = lanes * per_lane + take(slot, lanes)
    climb = Climb(nodes, leaf, take(nodes.value, leaf), take(nodes.value, leaf))

    def step(depth: jax.Array, start: Any, climb: Climb, width: int) -> tuple:
        """One level up for a chunk of lanes; tells which they are and where they came to."""

        def part(x: jax.Array) -> jax.Array:
            return jax.lax.dynamic_slice_in_dim(x, start, width)

        nodes, (child, child_value, returns) = climb.nodes, map(part, climb[1:])
        active, climbers = depth < part(length), part(lanes)
        rows = take(walk.path, jnp.broadcast_to(depth, (width,)), climbers)
        target = jnp.where(active, rows, batch_size * per_lane)  # nowhere
        action = take(nodes.action, child)
        reward, discount = take(nodes.reward, child), take(nodes.discount, child)
        returns = reward + discount * returns
        count, value = take(nodes.num_visits, rows), take(nodes.value, rows)
        mean = (value * count.astype(value.dtype) + returns) / (count + 1.0).astype(value.dtype)
        nodes = nodes._replace(
            value=nodes.value.at[target].set(mean, mode="drop"),
            num_visits=nodes.num_visits.at[target].set(count + 1.0, mode="drop"),
            visits=nodes.visits.at[target, action].add(1.0, mode="drop"),
            qvalues=nodes.qvalues.at[target, action].set(reward + discount * child_value, mode="drop"),
        )

        def put(x: jax.Array, new: jax.Array) -> jax.Array:
            return jax.lax.dynamic_update_slice_in_dim(x, jnp.where(active, new, part(x)), start, 0)

        climb = Climb(nodes, put(climb.child, rows), put(climb.child_value, mean), put(climb.found, returns))
        return climb, climbers, rows, target, mean, count + 1.0

    def interior(depth: jax.Array, start: Any, climb: Climb, width: int) -> Climb:
        climb, climbers, rows, target, mean, count = step(depth, start, climb, width)
        if rules.tie_break == "mctx":
            return climb
        drawn = jax.lax.dynamic_slice_in_dim(noise, start, width)
        at = look(climb.nodes, rules, rows, drawn, climbers)
        # As scattered just now; read again, they would be copied.
        at = at._replace(node_values=mean[:, None], node_visits=count[:, None])
        choice = ask(rules, keys_of(key, climbers, depth), at, depth)
        choice = climb.nodes.choice.at[target].set(choice, mode="drop")
        return climb._replace(nodes=climb.nodes._replace(choice=choice))

    state = jnp.max(length) - 1, climb
    for width in narrow:  # as long as no more lanes are on their way
        stop = jnp.maximum(length[width] - 1, 0)
        state = jax.lax.while_loop(
            lambda state, stop=stop: state[0] > stop,
            lambda state, width=width: (state[0] - 1, interior(state[0], 0, state[1], width)),
            state,
        )

    def chunk(state: tuple) -> tuple:
        depth, start, climb = state
        climb, start = interior(depth, start, climb, wide), start + wide
        is_last = start >= jnp.sum(length > depth, dtype=jnp.int32)
        return jnp.where(is_last, depth - 1, depth), jnp.where(is_last, 0, start), climb

    zero = jnp.zeros((), jnp.int32)
    climb = jax.lax.while_loop(lambda s: s[0] > 0, chunk, (state[0], zero, state[1]))[2]
    return step(zero, zero, climb, batch_size)[0].nodes


def _widths(batch_size: int) -> tuple[tuple[int, ...], int]:
    """Lanes climbed at once: where few are on their way, widest last, and where many are."""
    wide = batch_size
    while wide > WIDEST and wide % 2 == 0:
        wide //= 2
    shares = (batch_size // share for share in SHARES)
    return tuple(w for w in shares if NARROWEST <= w < wide), wide


def _split(lane_keys: jax.Array) -> tuple[jax.Array, jax.Array]:
    both = jax.vmap(jax.random.split)(lane_keys)
    return both[:, 0], both[:, 1]


def keys_of(key: jax.Array, lanes: jax.Array, depth: Any) -> jax.Array:
    """Keys `[K]` of one level, for `lanes [K]` of rules that draw; XLA drops them where none does."""
    depth = jnp.broadcast_to(jnp.asarray(depth, jnp.int32), lanes.shape)
    lane_keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, lanes)
    return jax.vmap(jax.random.fold_in)(lane_keys, depth)
