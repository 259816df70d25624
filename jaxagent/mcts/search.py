"""Batched Monte Carlo tree search whose loops never carry a tree through a select.

One simulation is: choose at the root; walk down; let the model judge a new node; back its value up.
What differs from mctx is where work is done, not what is computed:

- The batch is written by hand. JAX batches a `while_loop` over lanes of different depth by
  selecting old or new of everything the body changed, which here are the trees; lanes that are done
  scatter to nowhere instead.
- What an interior node would choose next changes only when a simulation passes it. The backup,
  which touches those nodes anyway, decides and notes it, so that walking down reads two numbers a
  level.
- Reward and discount belong to the node they lead to; an edge keeps its visits and its value.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxagent.mcts.base import (
    InteriorActionSelectionFn,
    LoopFn,
    Params,
    RecurrentFn,
    RecurrentFnOutput,
    RootActionSelectionFn,
    RootFnOutput,
)
from jaxagent.mcts.checks import check_embedding, check_inputs, check_shape, check_tree
from jaxagent.mcts.nodes import (
    SCATTER,
    UNVISITED,
    Nodes,
    nodes_per_lane,
    plant,
    replant,
    take,
    to_tree,
)
from jaxagent.mcts.reuse import depths
from jaxagent.mcts.selection import mask_invalid
from jaxagent.mcts.tree import Node, Tree

TieBreak = Literal["simulation", "mctx"]
# Lanes of one step of a backup: wider ones leave the cache, narrower ones are all overhead.
SHARES, NARROWEST, WIDEST = (8, 2), 16, 256


class Walk(NamedTuple):
    """One simulation's way from the root."""

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
    found: jax.Array  # [B]: what this simulation found there


class Rules(NamedTuple):
    """How actions are chosen, and what does not change during a search."""

    root: RootActionSelectionFn
    interior: InteriorActionSelectionFn
    invalid: jax.Array  # [B, A] at the root
    extra_data: Any  # [B, ...]
    max_depth: int
    tie_break: TieBreak


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
) -> Tree:
    """Search from `root` and return the trees.

    `tree` is one to go on from, as `reuse.subtree` leaves it: its statistics stay, its root takes
    the priors and embedding of `root`, and it grows by `num_simulations` nodes. `early_stop` ends
    when no lane's most visited root action can be overtaken: for acting by visits, not for targets.

    `tie_break="simulation"` draws noise once a simulation and lane, and asks the interior rule when
    a node changes; "mctx" draws anew at every level as mctx does, to the bit, and is slower.
    `invalid_actions [B, A]` (nonzero: invalid) are never chosen at the root; a lane without a valid
    one takes action 0. `max_depth` limits edges from the root: a simulation that ends there judges
    its last node again.

    Differs: selection functions and value transforms are given the node alone, at index 0
    (`tree.Node`), so they cannot read other nodes or edges' rewards; an interior rule is not asked
    again at a node that nothing has passed since.
    Raises ValueError for shapes that do not fit.
    """
    check_inputs(root, num_simulations, max_depth, invalid_actions)
    batch_size, num_actions = root.prior_logits.shape
    invalid = jnp.zeros_like(root.prior_logits) if invalid_actions is None else invalid_actions
    rules = Rules(
        root_action_selection_fn,
        interior_action_selection_fn,
        invalid,
        extra_data,
        _deepest(num_simulations, max_depth, tree),
        tie_break,
    )
    if tree is None:
        nodes, used = plant(root, num_simulations + 1), jnp.ones((batch_size,), jnp.int32)
    else:
        check_tree(tree, root)
        nodes, used = replant(root, tree, num_simulations)
    if _masks(recurrent_fn, params, rng_key, root):
        # What a model masked stays known by its logit in a tree to go on from.
        nodes = nodes._replace(invalid=nodes.logits <= jnp.finfo(nodes.logits.dtype).min)
    if tree is not None:
        nodes = _choose_everywhere(nodes, rules, depths(tree.parents))

    def simulate(number: jax.Array, state: tuple) -> tuple:
        key, nodes = state
        key, key_walk, key_expand = jax.random.split(key, 3)
        noise, key_rules = None, key_walk
        if tie_break == "simulation":
            key_noise, key_rules = jax.random.split(key_walk)
            noise = jax.random.uniform(key_noise, (batch_size, num_actions))
        walk = _descend(nodes, rules, key_rules, noise)
        slot = jnp.where(walk.child == UNVISITED, used + number, walk.child).astype(jnp.int32)
        step, embedding = _judge(params, key_expand, nodes, walk, recurrent_fn)
        nodes = _expand(nodes, rules, walk, slot, step, embedding, noise, key_rules)
        return key, _back_up(nodes, rules, walk, slot, noise, key_rules)

    state = (rng_key, nodes)
    if early_stop:
        state = _until_decided(num_simulations, simulate, state, batch_size)
    else:
        state = loop_fn(0, num_simulations, simulate, state)
    return to_tree(state[1], invalid, extra_data)


def _until_decided(num_simulations: int, simulate: Any, state: tuple, batch_size: int) -> tuple:
    """Simulate until the lead of every lane exceeds what is left."""

    def is_open(state: tuple) -> jax.Array:
        number, (_, nodes) = state
        visits = nodes.visits.reshape(batch_size, -1, nodes.visits.shape[-1])[:, 0]
        best = jax.lax.top_k(visits, min(2, visits.shape[-1]))[0]
        lead = best[:, 0] - best[:, -1] if visits.shape[-1] > 1 else jnp.inf
        left = jnp.asarray(num_simulations - number, visits.dtype)
        return (number < num_simulations) & jnp.any(lead <= left)

    def one(state: tuple) -> tuple:
        number, inner = state
        return number + 1, simulate(number, inner)

    return jax.lax.while_loop(is_open, one, (jnp.zeros((), jnp.int32), state))[1]


def _masks(recurrent_fn: RecurrentFn, params: Params, key: jax.Array, root: RootFnOutput) -> bool:
    """Whether a model says which actions are invalid below the root."""
    action = jax.ShapeDtypeStruct(root.value.shape, jnp.int32)
    step, _ = jax.eval_shape(recurrent_fn, params, key, action, root.embedding)
    return getattr(step, "invalid_actions", None) is not None


def _choose_everywhere(nodes: Nodes, rules: Rules, depth: jax.Array) -> Nodes:
    """Note the choice of every node that there is, one slot of all lanes at a time."""
    if rules.tie_break == "mctx":
        return nodes
    batch_size, size = depth.shape
    base = jnp.arange(batch_size, dtype=jnp.int32) * nodes_per_lane(nodes, batch_size)
    unbroken = jnp.zeros((batch_size, nodes.logits.shape[1]))  # no tie is broken yet

    def one_slot(slot: jax.Array, choice: jax.Array) -> jax.Array:
        at = _look(nodes, rules, base + slot, unbroken)
        keys = _keys_of(jax.random.key(0), jnp.arange(batch_size, dtype=jnp.int32), slot)
        return choice.at[base + slot].set(_ask(rules, keys, at, depth[:, slot]), **SCATTER)

    return nodes._replace(choice=jax.lax.fori_loop(0, size, one_slot, nodes.choice))


def _deepest(num_simulations: int, max_depth: int | None, tree: Tree | None) -> int:
    """The most edges that a walk can have, of those allowed."""
    possible = num_simulations + (0 if tree is None else tree.num_simulations)
    return min(max_depth or possible, possible)


def _descend(nodes: Nodes, rules: Rules, key: jax.Array, noise: Any) -> Walk:
    """Follow choices from the root to an action without a node, or to `max_depth`."""
    batch_size = rules.invalid.shape[0]
    base = jnp.arange(batch_size, dtype=jnp.int32) * nodes_per_lane(nodes, batch_size)
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
        select_keys = _keys_of(key, jnp.arange(base.shape[0], dtype=jnp.int32), 0)
    at = _look(nodes, rules, base, noise, is_root=True)
    axes = (0, jax.tree.map(lambda _: 0, at), None)
    return lane_keys, jax.vmap(rules.root, in_axes=axes)(select_keys, at, 0)


def _choose_anew(
    nodes: Nodes, rules: Rules, rows: jax.Array, lane_keys: jax.Array, depth: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Interior actions, ties broken by draws of this level."""
    lane_keys, select_keys = _split(lane_keys)
    at = _look(nodes, rules, rows, None)
    return lane_keys, _ask(rules, select_keys, at, depth)


def _ask(rules: Rules, select_keys: jax.Array, at: Node, depth: Any) -> jax.Array:
    """Actions `[K]` of the interior rule at nodes `[K, ...]`; `depth []` or `[K]`."""
    axes = (0, jax.tree.map(lambda _: 0, at), None, 0 if jnp.ndim(depth) else None)
    return jax.vmap(rules.interior, in_axes=axes)(select_keys, at, 0, depth)


def _look(
    nodes: Nodes, rules: Rules, rows: jax.Array, noise: jax.Array | None,
    lanes: jax.Array | None = None, is_root: bool = False,
) -> Node:  # fmt: skip
    """What rules may see of the nodes at `rows [K]` of `lanes [K]`, None for all in order."""
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


def _judge(
    params: Params, key: jax.Array, nodes: Nodes, walk: Walk, recurrent_fn: RecurrentFn
) -> tuple[RecurrentFnOutput, Any]:
    """Ask the model for the step that each lane's walk ended with."""
    batch_size = walk.parent.shape[0]
    per_lane = nodes_per_lane(nodes, batch_size)
    rows = jnp.arange(batch_size, dtype=jnp.int32) * per_lane + walk.parent
    before = jax.tree.map(lambda x: take(x, rows), nodes.embedding)
    step, embedding = recurrent_fn(params, key, walk.action, before)
    num_actions = nodes.logits.shape[1]
    wanted = {
        "reward": (batch_size,),
        "discount": (batch_size,),
        "value": (batch_size,),
        "prior_logits": (batch_size, num_actions),
    }
    if nodes.invalid is not None:
        wanted["invalid_actions"] = (batch_size, num_actions)
    for name, shape in wanted.items():
        check_shape(f"recurrent_fn's {name}", getattr(step, name), shape)
    check_embedding(before, embedding)
    return step, embedding


def _expand(
    nodes: Nodes, rules: Rules, walk: Walk, slot: jax.Array, step: RecurrentFnOutput,
    embedding: Any, noise: Any, key: jax.Array,
) -> Nodes:  # fmt: skip
    """Write the judged nodes; a walk that `max_depth` ended writes its last node again."""
    batch_size = slot.shape[0]
    base = jnp.arange(batch_size, dtype=jnp.int32) * nodes_per_lane(nodes, batch_size)
    rows = base + slot
    if nodes.invalid is not None:
        logits = mask_invalid(step.prior_logits, step.invalid_actions)
        step = step.replace(prior_logits=logits)
    probs = jax.nn.softmax(step.prior_logits)

    def put(x: jax.Array, new: jax.Array) -> jax.Array:
        return x.at[rows].set(new.astype(x.dtype), **SCATTER)

    invalid = jnp.zeros(step.prior_logits.shape, bool)
    if nodes.invalid is not None:
        invalid = jnp.asarray(step.invalid_actions, bool)
        nodes = nodes._replace(invalid=put(nodes.invalid, invalid))
    nodes = nodes._replace(
        children=nodes.children.at[base + walk.parent, walk.action].set(slot, **SCATTER),
        logits=put(nodes.logits, step.prior_logits),
        probs=put(nodes.probs, probs),
        num_visits=nodes.num_visits.at[rows].add(1.0, **SCATTER),
        value=put(nodes.value, step.value),
        raw_value=put(nodes.raw_value, step.value),
        reward=put(nodes.reward, step.reward),
        discount=put(nodes.discount, step.discount),
        parent=put(nodes.parent, walk.parent),
        action=put(nodes.action, walk.action),
        embedding=jax.tree.map(put, nodes.embedding, embedding),
    )
    if rules.tie_break == "mctx":
        return nodes
    # A new node has met nothing: its first choice reads its prior, and no row of the tree.
    nothing = jnp.zeros_like(step.prior_logits)
    at = Node(
        node_visits=jnp.ones_like(step.value)[:, None],
        raw_values=step.value[:, None],
        node_values=step.value[:, None],
        children_prior_logits=step.prior_logits[:, None],
        children_prior_probs=probs[:, None],
        children_visits=jnp.zeros(nothing.shape, jnp.float32)[:, None],
        children_qvalues=nothing[:, None],
        root_invalid_actions=invalid,
        extra_data=rules.extra_data,
        noise=noise,
    )
    choice = _ask(
        rules, _keys_of(key, jnp.arange(batch_size, dtype=jnp.int32), walk.length), at, walk.length
    )
    return nodes._replace(choice=put(nodes.choice, choice))


def _back_up(
    nodes: Nodes, rules: Rules, walk: Walk, slot: jax.Array, noise: Any, key: jax.Array
) -> Nodes:
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

        nodes, (child, child_value, found) = climb.nodes, map(part, climb[1:])
        active, own = depth < part(length), part(lanes)
        rows = take(walk.path, jnp.broadcast_to(depth, (width,)), own)
        target = jnp.where(active, rows, batch_size * per_lane)  # nowhere
        action = take(nodes.action, child)
        reward, discount = take(nodes.reward, child), take(nodes.discount, child)
        found = reward + discount * found
        count, value = take(nodes.num_visits, rows), take(nodes.value, rows)
        mean = (value * count.astype(value.dtype) + found) / (count + 1.0).astype(value.dtype)
        nodes = nodes._replace(
            value=nodes.value.at[target].set(mean, mode="drop"),
            num_visits=nodes.num_visits.at[target].set(count + 1.0, mode="drop"),
            visits=nodes.visits.at[target, action].add(1.0, mode="drop"),
            qvalues=nodes.qvalues.at[target, action].set(
                reward + discount * child_value, mode="drop"
            ),
        )

        def put(x: jax.Array, new: jax.Array) -> jax.Array:
            return jax.lax.dynamic_update_slice_in_dim(x, jnp.where(active, new, part(x)), start, 0)

        climb = Climb(
            nodes, put(climb.child, rows), put(climb.child_value, mean), put(climb.found, found)
        )
        return climb, own, rows, target, mean, count + 1.0

    def interior(depth: jax.Array, start: Any, climb: Climb, width: int) -> Climb:
        climb, own, rows, target, mean, count = step(depth, start, climb, width)
        if rules.tie_break == "mctx":
            return climb
        drawn = jax.lax.dynamic_slice_in_dim(noise, start, width)
        at = _look(climb.nodes, rules, rows, drawn, own)
        # As scattered just now; read again, they would be copied.
        at = at._replace(node_values=mean[:, None], node_visits=count[:, None])
        choice = _ask(rules, _keys_of(key, own, depth), at, depth)
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


def _keys_of(key: jax.Array, lanes: jax.Array, depth: Any) -> jax.Array:
    """Keys of one level for rules that draw; XLA drops them where none does."""
    depth = jnp.broadcast_to(jnp.asarray(depth, jnp.int32), lanes.shape)
    own = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, lanes)
    return jax.vmap(jax.random.fold_in)(own, depth)
