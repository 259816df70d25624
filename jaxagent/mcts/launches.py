"""One simulation in two launches: what `simulation.simulate` does, by `kernels.search`.

Trees lie as the kernel has them from the beginning of a search to its end. The root's rule, the model and
the embeddings stay XLA's.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxagent.mcts.nodes import SCATTER, UNVISITED, Nodes, nodes_per_lane
from jaxagent.mcts.simulation import Model, Rules, TieBreak, ask_at_root, judge, keys_of, look
from jaxagent.mcts.tree import Node
from kernels import dispatch, search


class Planted(NamedTuple):
    """The trees of B lanes in the layout of `kernels.search`."""

    trees: search.Trees
    embedding: Any  # [B N, ...]


def implementation_of(implementation: str, tie_break: TieBreak, num_leaves: int, dtypes: Iterable) -> str:
    """ "xla", "pallas" or "interpret", of what a search is asked for and the kernel has.

    What the kernel has not runs by XLA, but for numbers that are not float32 where it is asked for by name.
    """
    how = dispatch.choose(search.KERNEL, implementation)
    others = sorted({jnp.dtype(dtype).name for dtype in dtypes} - {"float32"})
    if how != "xla" and implementation == "auto" and others:
        dispatch.warn(search.KERNEL, f"none of {', '.join(others)}")
        return "xla"
    if tie_break != "simulation" or num_leaves > 1:
        return "xla"
    # The kernel's own reference is readable; `simulation` is what is fast without a kernel.
    return "xla" if how == "pallas" and dispatch.platform() not in ("cuda", "tpu") else how


def begin(nodes: Nodes, batch_size: int) -> Planted:
    """Trees as the kernel takes them."""
    size = nodes_per_lane(nodes, batch_size)

    def lies(x: jax.Array | None) -> jax.Array | None:
        if x is None:
            return None
        x = x.astype(jnp.int32) if x.dtype == jnp.bool_ else x
        return x.reshape(batch_size, size, -1) if x.ndim > 1 else x.reshape(batch_size, 1, size)

    trees = search.Trees(*(lies(getattr(nodes, name)) for name in search.Trees._fields))
    return Planted(search.padded(trees), nodes.embedding)


def end(planted: Planted, num_actions: int) -> Nodes:
    """Trees as the rest of a search takes them."""
    trees = search.cut(planted.trees, num_actions)
    flat = {name: x if x is None else x.reshape(-1, *_row(name, x)) for name, x in trees._asdict().items()}
    if trees.invalid is not None:
        flat["invalid"] = flat["invalid"] != 0
    return Nodes(**flat, embedding=planted.embedding)


def simulate_in_two(
    planted: Planted,
    rules: Rules,
    model: Model,
    free: jax.Array,
    key_walk: jax.Array,
    key_model: jax.Array,
    *,
    implementation: str,
) -> Planted:
    """Trees with one simulation more, as `simulation.simulate`; a new node takes slot `free [B]`."""
    batch_size, num_actions = rules.invalid.shape
    key_noise, key_rules = jax.random.split(key_walk)
    noise = jax.random.uniform(key_noise, rules.invalid.shape)
    lanes = jnp.arange(batch_size, dtype=jnp.int32)
    roots = _roots(planted, num_actions)
    at = look(roots, rules, lanes, noise, is_root=True)
    action = ask_at_root(rules, keys_of(key_rules, lanes, 0), at)
    walk = search.descend(planted.trees, action, max_depth=rules.max_depth, implementation=implementation)
    slot = jnp.where(walk.child == UNVISITED, free, walk.child).astype(jnp.int32)
    base = lanes * planted.trees.choice.shape[-1]
    step, embedding = judge(model, key_model, roots, walk, base)
    trees = search.back_up(
        planted.trees,
        walk,
        slot,
        _judged(step, planted.trees),
        partial(_asked, rules),
        (noise, rules.extra_data),
        implementation=implementation,
    )

    def put(x: jax.Array, new: jax.Array) -> jax.Array:
        return x.at[base + slot].set(new.astype(x.dtype), **SCATTER)

    return Planted(trees, jax.tree.map(put, planted.embedding, embedding))


def _row(name: str, x: jax.Array) -> tuple[int, ...]:
    return x.shape[2:] if name in search.ROWS else ()


def _roots(planted: Planted, num_actions: int) -> Nodes:
    """Rows `[B, ...]` of the roots alone, and embeddings of all nodes."""
    first = {
        name: x if x is None else x[:, :1] if name in search.ROWS else x[..., :1]
        for name, x in planted.trees._asdict().items()
    }
    return end(Planted(search.Trees(**first), planted.embedding), num_actions)


def _judged(step: Any, trees: search.Trees) -> search.Judged:
    """What the model said, in the trees' types."""
    of = {
        name: getattr(step, name).astype(getattr(trees, name).dtype)
        for name in ("value", "reward", "discount")
    }
    return search.Judged(
        logits=step.prior_logits.astype(trees.logits.dtype),
        probs=jax.nn.softmax(step.prior_logits).astype(trees.probs.dtype),
        invalid=None if trees.invalid is None else jnp.asarray(step.invalid_actions, bool),
        **of,
    )


def _asked(rules: Rules, node: search.Node, lane: tuple[jax.Array, Any]) -> jax.Array:
    """The interior rule's action, int32 `[]`, at one node of the kernel's."""
    noise, extra_data = lane
    at = Node(
        node_visits=node.num_visits[None],
        raw_values=node.raw_value[None],
        node_values=node.value[None],
        children_prior_logits=node.logits[None],
        children_prior_probs=node.probs[None],
        children_visits=node.visits[None],
        children_qvalues=node.qvalues[None],
        root_invalid_actions=node.invalid,
        extra_data=extra_data,
        noise=noise,
    )
    # A rule that draws is refused: a kernel has no keys.
    return rules.interior(jax.random.key(0), at, 0, node.depth)
