"""Trees of a search as arrays that kernels change in place, and what one simulation adds to them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

VECTOR = 128  # numbers of a row that are loaded at once: one a thread of a warpgroup, a TPU's lanes
UNVISITED = -1


class Trees(NamedTuple):
    """B trees of N nodes, the root first; rows of P >= A actions, of which what is beyond A is padding.

    The axis of 1 lets a TPU take the numbers of one tree at a time. (Rows are padded in memory: what is
    loaded whole must begin at whole vectors. A row of 4 actions takes as much room as one of 128.)
    """

    children: jax.Array  # [B, N, P] int32: the tree's own node index, or UNVISITED
    logits: jax.Array  # [B, N, P]
    probs: jax.Array  # [B, N, P]
    visits: jax.Array  # [B, N, P] float32
    qvalues: jax.Array  # [B, N, P]
    invalid: jax.Array | None  # [B, N, P] int32, 0: valid; None: all are
    choice: jax.Array  # [B, 1, N] int32: what the rule would choose next
    parent: jax.Array  # [B, 1, N] int32
    action: jax.Array  # [B, 1, N] int32: from the parent
    num_visits: jax.Array  # [B, 1, N] float32
    value: jax.Array  # [B, 1, N]: mean of what passed the node
    raw_value: jax.Array  # [B, 1, N]: as it was judged
    reward: jax.Array  # [B, 1, N] of the step to the node
    discount: jax.Array  # [B, 1, N] of the value after it


class Walk(NamedTuple):
    """The path of one simulation from the root; what stands in it from `length` on means nothing."""

    path: jax.Array  # [B, D] int32: nodes met, by depth
    length: jax.Array  # [B] int32: edges walked, at least one
    parent: jax.Array  # [B] int32: the last node met
    action: jax.Array  # [B] int32: chosen there
    child: jax.Array  # [B] int32: where it leads, or UNVISITED


class Judged(NamedTuple):
    """What a model said of the nodes that walks ended at."""

    logits: jax.Array  # [B, A]
    probs: jax.Array  # [B, A]
    invalid: jax.Array | None  # [B, A] bool; None: all are valid
    value: jax.Array  # [B]
    reward: jax.Array  # [B] of the step to the node
    discount: jax.Array  # [B]


class Node(NamedTuple):
    """One node as a rule sees it."""

    depth: Any  # [] int32: edges from the root
    num_visits: Any  # [] float32
    value: Any  # []
    raw_value: Any  # []
    logits: Any  # [A]
    probs: Any  # [A]
    visits: Any  # [A] float32
    qvalues: Any  # [A]
    invalid: Any  # [A] bool


ROWS = ("children", "logits", "probs", "visits", "qvalues", "invalid")  # of `Trees`


def padded(trees: Trees) -> Trees:
    """Trees whose rows are whole vectors, as kernels take them; once a search, as it copies them."""
    size = trees.children.shape[-1]

    def pad(name: str) -> jax.Array | None:
        x, fill = getattr(trees, name), UNVISITED if name == "children" else 0
        return x if x is None else jnp.pad(x, [(0, 0), (0, 0), (0, -size % VECTOR)], constant_values=fill)

    return trees._replace(**{name: pad(name) for name in ROWS})


def cut(trees: Trees, num_actions: int) -> Trees:
    """Trees with rows `[B, N, A]`, whatever their padding."""
    rows = {name: getattr(trees, name) for name in ROWS}
    return trees._replace(**{k: x if x is None else x[..., :num_actions] for k, x in rows.items()})
