"""The specification of `kernels.search`: one tree at a time, vmapped."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from kernels.search.trees import ROWS, Judged, Node, Trees, Walk


def descend(trees: Trees, action: jax.Array, *, max_depth: int) -> Walk:
    """Follow choices from root actions `[B]` to one without a node, or to `max_depth`."""

    def one(children: jax.Array, choice: jax.Array, action: jax.Array) -> Walk:
        def goes_on(walk: Walk) -> jax.Array:
            return (walk.child >= 0) & (walk.length < max_depth)

        def step(walk: Walk) -> Walk:
            node, action = walk.child, choice[0, walk.child]
            path = walk.path.at[walk.length].set(node)
            return Walk(path, walk.length + 1, node, action, children[node, action])

        path, zero = jnp.zeros((max_depth,), jnp.int32), jnp.zeros((), jnp.int32)
        first = Walk(path, zero + 1, zero, action, children[0, action])
        return lax.while_loop(goes_on, step, first)

    return jax.vmap(one)(trees.children, trees.choice, action)


def back_up(
    trees: Trees, walk: Walk, slot: jax.Array, judged: Judged, rule: Callable[[Node, Any], Any], lane: Any
) -> Trees:
    """Write the judged nodes at `slot [B]`, carry their values up, and choose anew on the way."""

    def one(tree: Trees, walk: Walk, slot: jax.Array, judged: Judged, lane: Any) -> Trees:
        tree = _written(tree, walk, slot, judged)
        nothing = jnp.zeros_like(judged.logits)
        tree = _chosen(tree, slot, walk.length, 1.0, nothing, nothing, rule, lane)

        def step(state: tuple) -> tuple:
            depth, tree, child, child_value, found = state
            node, action = walk.path[depth], tree.action[0, child]
            reward, discount = tree.reward[0, child], tree.discount[0, child]
            found = reward + discount * found
            count, value = tree.num_visits[0, node], tree.value[0, node]
            mean = (value * count + found) / (count + 1.0)
            tree = tree._replace(
                num_visits=tree.num_visits.at[0, node].set(count + 1.0),
                value=tree.value.at[0, node].set(mean),
                visits=tree.visits.at[node, action].add(1.0),
                qvalues=tree.qvalues.at[node, action].set(reward + discount * child_value),
            )
            visits, qvalues = (x[node, : nothing.shape[0]] for x in (tree.visits, tree.qvalues))
            # The root's actions are chosen outside.
            after = _chosen(tree, node, depth, count + 1.0, visits, qvalues, rule, lane)
            choice = jnp.where(depth > 0, after.choice, tree.choice)
            return depth - 1, tree._replace(choice=choice), node, mean, found

        first = walk.length - 1, tree, slot, judged.value, judged.value
        return lax.while_loop(lambda state: state[0] >= 0, step, first)[1]

    return jax.vmap(one)(trees, walk, slot, judged, lane)


def _written(tree: Trees, walk: Walk, slot: jax.Array, judged: Judged) -> Trees:
    """One tree with a node judged; a walk that `max_depth` ended judges its last one anew."""
    width = tree.children.shape[-1] - judged.logits.shape[0]

    def put(name: str, new: jax.Array) -> jax.Array:
        x = getattr(tree, name)
        if name in ROWS:
            return x.at[slot].set(jnp.pad(new, (0, width)).astype(x.dtype))
        return x.at[0, slot].set(new)

    new = {
        name: x for name, x in judged._asdict().items() if x is not None and getattr(tree, name) is not None
    }
    new |= {"raw_value": judged.value, "parent": walk.parent, "action": walk.action}
    return tree._replace(
        **{name: put(name, x) for name, x in new.items()},
        children=tree.children.at[walk.parent, walk.action].set(slot),
        num_visits=tree.num_visits.at[0, slot].add(1.0),
    )


def _chosen(
    tree: Trees,
    node: jax.Array,
    depth: jax.Array,
    num_visits: Any,
    visits: jax.Array,
    qvalues: jax.Array,
    rule: Callable[[Node, Any], Any],
    lane: Any,
) -> Trees:
    """One tree whose node has noted its choice, of visits that may be others than the tree's."""
    size = visits.shape[0]
    invalid = jnp.zeros((size,), bool) if tree.invalid is None else tree.invalid[node, :size] != 0
    at = Node(
        depth=depth,
        num_visits=jnp.asarray(num_visits, tree.num_visits.dtype),
        value=tree.value[0, node],
        raw_value=tree.raw_value[0, node],
        logits=tree.logits[node, :size],
        probs=tree.probs[node, :size],
        visits=visits,
        qvalues=qvalues,
        invalid=invalid,
    )
    return tree._replace(choice=tree.choice.at[0, node].set(rule(at, lane)))
