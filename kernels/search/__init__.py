"""The tree part of Monte Carlo tree search in two launches a simulation: walk down, and back up.

XLA launches some five kernels a level of the deepest tree in either direction, and a scatter for every
field of a new node. Here a program has one tree, and changes it in place. What stands between the two
is the caller's: the root's action, and the model with its embeddings.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from kernels import dispatch
from kernels.mapping import over_rows
from kernels.search import reference, rows
from kernels.search.trees import ROWS, UNVISITED, VECTOR, Judged, Node, Trees, Walk, cut, padded

KERNEL = dispatch.Kernel("search")
__all__ = [
    "KERNEL",
    "ROWS",
    "UNVISITED",
    "Judged",
    "Node",
    "Trees",
    "Walk",
    "back_up",
    "cost",
    "cut",
    "descend",
    "padded",
]
Rule = Callable[[Node, Any], Any]


def descend(trees: Trees, action: jax.Array, *, max_depth: int, implementation: str = "auto") -> Walk:
    """Follow choices from the root's action `[B]`, int32, to one without a node, or to `max_depth` edges.

    Choices are those that `back_up` noted. Kernels take trees as `padded` leaves them, of float32 and at
    least one lane. Raises ValueError for others. What it takes: `cost`.
    """
    how = dispatch.choose(KERNEL, implementation)
    if jnp.shape(action) != (trees.choice.shape[0],) or action.dtype != jnp.int32 or max_depth < 1:
        got = f"actions {action.dtype} {jnp.shape(action)} and max_depth {max_depth}"
        expected = f"int32 {(trees.choice.shape[0],)} and at least 1"
        raise ValueError(f"search: got {got}, expected {expected}; give one root action a tree.")
    if how == "xla":
        return reference.descend(trees, action, max_depth=max_depth)
    _check(trees)
    return _in_one(partial(_descend, how, max_depth), trees, action)


def back_up(
    trees: Trees,
    walk: Walk,
    slot: jax.Array,
    judged: Judged,
    rule: Rule,
    lane: Any = (),
    *,
    implementation: str = "auto",
) -> Trees:
    """Write judged nodes at `slot [B]`, int32, carry their values to the roots, and choose anew on the way.

    `slot` is a free one of the tree's N, or `walk.child` where there is one: then that node is judged anew.
    `rule(node, lane)` is the action, int32 `[]`, that a `Node` would take next, asked of the new one and
    of all on the path but the root; `lane` is what it reads of its tree beside, leaves `[B, A]` and `[B]`;
    it may close over numbers. Slots and actions are taken at their word: others write to another tree.
    Trees are changed in place where the program has no other use of them. Nothing differentiates through
    it. Sums are of another order than XLA's: a choice that is nearly a tie may turn.

    Kernels raise ValueError for trees as in `descend`, and for a rule that looks at a row otherwise than
    action by action or by a sum, max, min, any, all, argmax or argmin; the reference takes any.
    """
    how = dispatch.choose(KERNEL, implementation)
    _check_new(trees, slot, judged)
    if how == "xla":
        return reference.back_up(trees, walk, slot, judged, rule, lane)
    _check(trees)
    lane, form = jax.tree.flatten(lane)
    num_trees, num_actions = judged.logits.shape
    found, consts = rows.traced(
        lambda node, *lane: rule(node, jax.tree.unflatten(form, lane)),
        num_actions,
        _node_like(num_actions),
        *(jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for x in lane),
    )
    is_read = found.is_used[len(Node._fields) :]
    lane = [x if used else None for x, used in zip(lane, is_read, strict=True)]
    consts = [jnp.broadcast_to(x, (num_trees,)) for x in consts]
    return _in_one(partial(_back_up, how, found), trees, walk, slot, judged, lane, consts)


def cost(
    num_trees: int, num_actions: int, depth: float, *, num_rows: int, operations: int
) -> tuple[float, float]:
    """FLOPs and bytes of one simulation on a GPU, by walks of `depth` edges.

    Of a rule that reads `num_rows` rows beside visits and values, and makes so many operations an action. A
    level down reads a choice and a child in sectors of 32 bytes and writes a node; a level up reads the rows,
    writes two, and moves nine numbers; a new node has two rows, its parent's row of edges, read and written,
    and nine numbers.
    """
    level = 2 * 32 + 4 + 4 * num_actions * (num_rows + 4) + 4 * 9
    new = 4 * num_actions * 4 + 4 * 9
    return num_trees * depth * num_actions * operations, num_trees * (depth * level + new)


def _check(trees: Trees) -> None:
    """Raise ValueError for trees that kernels do not take."""
    width, num_trees = trees.children.shape[-1], trees.children.shape[0]
    if width % VECTOR or not num_trees:
        raise ValueError(
            f"search: got {num_trees} trees with rows of {width}, expected at least one, with a multiple of "
            f"{VECTOR}; begin with `padded`, or take implementation='xla'."
        )
    for name, x in trees._asdict().items():
        expected = "int32" if name in ("children", "invalid", "choice", "parent", "action") else "float32"
        if x is not None and x.dtype.name != expected:
            raise ValueError(
                f"search: got {name} of {x.dtype}, expected {expected}; take implementation='xla'."
            )


def _check_new(trees: Trees, slot: jax.Array, judged: Judged) -> None:
    """Raise ValueError for a judged node that does not fit its tree."""
    num_trees, width = trees.children.shape[0], trees.children.shape[-1]
    shape = judged.logits.shape
    if len(shape) != 2 or shape[0] != num_trees or shape[1] > width or not shape[1]:
        raise ValueError(
            f"search: got judged.logits of shape {shape}, expected [{num_trees}, A] of 1 to {width} actions."
        )
    if slot.dtype != jnp.int32:
        raise ValueError(f"search: got slot of {slot.dtype}, expected int32; cast it.")
    numbers = {"slot": slot, **{name: getattr(judged, name) for name in ("value", "reward", "discount")}}
    if wrong := [name for name, x in numbers.items() if jnp.shape(x) != (num_trees,)]:
        got = jnp.shape(numbers[wrong[0]])
        raise ValueError(f"search: got {wrong[0]} of shape {got}, expected {(num_trees,)}; give one a tree.")
    if (trees.invalid is None) != (judged.invalid is None):
        given = "none" if judged.invalid is None else "some"
        raise ValueError(
            f"search: got {given} of judged.invalid, expected as trees.invalid has; give both or neither."
        )


def _node_like(num_actions: int) -> Node:
    """A node's shapes."""
    number = jax.ShapeDtypeStruct((), jnp.float32)
    row = jax.ShapeDtypeStruct((num_actions,), jnp.float32)
    return Node(
        depth=jax.ShapeDtypeStruct((), jnp.int32),
        num_visits=number,
        value=number,
        raw_value=number,
        logits=row,
        probs=row,
        visits=row,
        qvalues=row,
        invalid=jax.ShapeDtypeStruct((num_actions,), jnp.bool_),
    )


def _descend(how: str, max_depth: int, trees: Trees, action: jax.Array) -> Walk:
    from kernels.search import pallas  # slow to import, and rarely used

    def walk(run: Callable, trees: Trees, action: jax.Array) -> Walk:
        path, ends = run(trees, action, max_depth=max_depth)
        return Walk(path[:, 0], *(ends[:, 0, i] for i in range(pallas.NUM_ENDS)))

    if how == "interpret":
        return walk(partial(pallas.tpu_descend, interpret=True), trees, action)
    programs = {"cuda": partial(walk, pallas.gpu_descend), "tpu": partial(walk, pallas.tpu_descend)}
    plain = partial(reference.descend, max_depth=max_depth)
    return dispatch.by_platform(KERNEL, programs, plain, trees, action)


def _back_up(
    how: str,
    rule: rows.Rule,
    trees: Trees,
    walk: Walk,
    slot: jax.Array,
    judged: Judged,
    lane: list,
    consts: list,
) -> Trees:
    from kernels.search import pallas

    def run(run: Callable, trees: Trees, *args: Any) -> Trees:
        return run(rule, trees, pallas.given(*args, trees.children.shape[-1]))

    def plain(trees: Trees, walk: Walk, slot: jax.Array, judged: Judged, lane: list, consts: list) -> Trees:
        place = jnp.arange(judged.logits.shape[1], dtype=jnp.int32)

        def asked(node: Node, lane: tuple) -> Any:
            return rows.ask(rule, place, [*node, *lane[0]], lane[1])

        return reference.back_up(trees, walk, slot, judged, asked, (lane, consts))

    if how == "interpret":
        return run(partial(pallas.tpu_back_up, interpret=True), trees, walk, slot, judged, lane, consts)
    programs = {"cuda": partial(run, pallas.gpu_back_up), "tpu": partial(run, pallas.tpu_back_up)}
    return dispatch.by_platform(KERNEL, programs, plain, trees, walk, slot, judged, lane, consts)


def _in_one(fn: Callable, *args: Any) -> Any:
    """`fn(*args)` of trees, whose batch under `vmap` is more trees: one launch, and in place."""
    return over_rows(lambda rows, _: fn(*rows), args, ())
