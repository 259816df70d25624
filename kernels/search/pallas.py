"""Walking down a tree and backing up, one program a tree, which changes it in place.

A node's row of actions is one vector. What is serial is the way from node to node: a level down waits for
two numbers, a level up for a node's number, its rows and the rule.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from kernels.scan.substitutes import GPU_LACKS, TPU_LACKS
from kernels.search import rows
from kernels.search.trees import ROWS, Judged, Node, Trees, Walk

NUM_ENDS = 4  # of a walk beside its path: length, parent, action, child


class Given(NamedTuple):
    """What a backup reads beside the trees."""

    place: jax.Array  # [1, P] int32 from 0: no kernel has to count
    walk: Walk  # path [B, 1, D]
    slot: jax.Array  # [B] int32
    judged: Judged  # rows [B, 1, P]; invalid int32
    lane: list  # data that the rule reads: rows [B, 1, P], numbers [B], bits as int32; None: unused
    consts: list  # [B]: numbers that the rule closes over


class Place(NamedTuple):
    """Which tree a program has."""

    lane: Any  # of arrays that all programs see whole
    block: Any  # of arrays that a TPU brings a tree at a time, and a GPU as a whole


def given(walk: Walk, slot: jax.Array, judged: Judged, lane: list, consts: list, width: int) -> Given:
    """Arrays as kernels load them, of walks `[B]`, rows `[B, A]` and numbers `[B]`."""

    def ready(x: jax.Array | None) -> jax.Array | None:
        if x is None:
            return None
        x = x.astype(jnp.int32) if x.dtype == jnp.bool_ else x
        return x if x.ndim == 1 else jnp.pad(x, [(0, 0), (0, width - x.shape[1])])[:, None]

    place = jnp.arange(width, dtype=jnp.int32)[None]
    walk = walk._replace(path=walk.path[:, None])
    return Given(place, walk, slot, Judged(*map(ready, judged)), [ready(x) for x in lane], consts)


# --- what a program does ----------------------------------------------------------------------------


def _descend(child_of: Callable, at: Place, max_depth: int, choice: Any, actions: Any, walk: Any) -> None:
    """Note the path and ends of one walk in `walk`, of `child_of(node, action)`."""
    path, ends = walk

    def goes_on(state: tuple) -> Any:
        return (state[-1] >= 0) & (state[0] < max_depth)

    def step(state: tuple) -> tuple:
        depth, _, _, node = state
        action = choice[at.block, 0, node]
        path[at.block, 0, depth] = node
        return depth + 1, node, action, child_of(node, action)

    action, zero = actions[at.lane], jnp.zeros((), jnp.int32)
    path[at.block, 0, 0] = zero
    found = lax.while_loop(goes_on, step, (zero + 1, zero, action, child_of(zero, action)))
    for i, end in enumerate(found):
        ends[at.block, 0, i] = end


class _Tree(NamedTuple):
    """One tree of references, by field and node."""

    trees: Trees
    block: Any
    place: Any  # [P]

    def load(self, name: str, node: Any) -> Any:
        x = getattr(self.trees, name)
        if x is None:  # no action is invalid
            return self.place * 0
        return x[self.block, node] if name in ROWS else x[self.block, 0, node]

    def store(self, node: Any, new: dict[str, Any]) -> None:
        for name, value in new.items():
            where = (self.block, node) if name in ROWS else (self.block, 0, node)
            getattr(self.trees, name)[where] = value


def _asked(rule: rows.Rule, lacks: frozenset[str], at: Place, given: Given) -> Callable:
    """The rule's choice, of a node's fields by name."""
    place, avals = given.place[0], [v.aval for v in rule.jaxpr.invars]
    lane = [None if x is None else x[at.lane] if len(x.shape) == 1 else x[at.block, 0] for x in given.lane]
    consts = [x[at.lane] for x in given.consts]

    def ask(fields: dict[str, Any]) -> Any:
        operands = [fields.get(name) for name in Node._fields] + lane
        known = [
            None if not is_used else x != 0 if aval.dtype == jnp.bool_ else x
            for x, is_used, aval in zip(operands, rule.is_used, avals, strict=True)
        ]
        return rows.ask(rule, place, known, consts, lacks)

    return ask


def _write(tree: _Tree, at: Place, given: Given, ask: Callable) -> None:
    """Write a judged node, which has met nothing yet, its first choice, and the edge to it."""
    walk, judged, place = given.walk, given.judged, tree.place
    parent, action, slot = walk.parent[at.lane], walk.action[at.lane], given.slot[at.lane]
    edges, count = tree.load("children", parent), tree.load("num_visits", slot)
    value, nothing = judged.value[at.lane], (place * 0).astype(jnp.float32)  # which lies as what is loaded
    new = {name: getattr(judged, name)[at.lane] for name in ("reward", "discount")}
    new |= {name: getattr(judged, name)[at.block, 0] for name in ("logits", "probs")}
    new |= {"value": value, "raw_value": value, "parent": parent, "action": action}
    if judged.invalid is not None:
        new["invalid"] = judged.invalid[at.block, 0]
    met = {"depth": walk.length[at.lane], "num_visits": jnp.ones((), jnp.float32), "invalid": place * 0}
    choice = ask(met | new | {"visits": nothing, "qvalues": nothing})
    tree.store(parent, {"children": jnp.where(place == action, slot, edges)})
    tree.store(slot, new | {"num_visits": count + 1.0, "choice": choice})


def _back_up(rule: rows.Rule, lacks: frozenset[str], at: Place, trees: Trees, given: Given) -> None:
    """Write one tree's node, and carry its value up."""
    walk, judged, place = given.walk, given.judged, given.place[0]
    tree, ask = _Tree(trees, at.block, place), _asked(rule, lacks, at, given)
    changed = ("num_visits", "value", "visits", "qvalues")
    is_read = dict(zip(Node._fields, rule.is_used, strict=False))
    read = [name for name in ("raw_value", "logits", "probs", "invalid") if is_read[name]]

    def step(state: tuple, is_root: bool = False) -> tuple:
        depth, node, action, reward, discount, child_value, found = state
        # All loads come before the first store, at which threads of a GPU wait for each other.
        own = {name: tree.load(name, node) for name in (*changed, *(() if is_root else read))}
        above = [] if is_root else [tree.load(name, node) for name in ("action", "reward", "discount")]
        above = above if is_root else [walk.path[at.block, 0, depth - 1], *above]
        found, count = reward + discount * found, own["num_visits"]
        mean, is_taken = (own["value"] * count + found) / (count + 1.0), place == action
        new = {
            "num_visits": count + 1.0,
            "value": mean,
            "visits": jnp.where(is_taken, own["visits"] + 1.0, own["visits"]),
            "qvalues": jnp.where(is_taken, reward + discount * child_value, own["qvalues"]),
        }
        if not is_root:  # whose actions are chosen outside
            new["choice"] = ask(own | new | {"depth": depth})
        tree.store(node, new)
        return depth - 1, *above, mean, found

    _write(tree, at, given, ask)
    value, edge = judged.value[at.lane], (judged.reward[at.lane], judged.discount[at.lane])
    state = walk.length[at.lane] - 1, walk.parent[at.lane], walk.action[at.lane], *edge, value, value
    step(lax.while_loop(lambda s: s[0] > 0, step, state), is_root=True)


# --- on a GPU ---------------------------------------------------------------------------------------


def gpu_descend(trees: Trees, action: jax.Array, *, max_depth: int, interpret: Any = None) -> list:
    """Path `[B, 1, D]` and ends `[B, 1, 4]` on Mosaic GPU (Hopper and later)."""

    def kernel(children: Any, choice: Any, actions: Any, *walk: Any) -> None:
        at = Place(*[lax.axis_index("trees")] * 2)
        _descend(lambda *edge: children[at.block, *edge], at, max_depth, choice, actions, walk)

    run = _gpu_kernel(kernel, action.shape[0], _ends(action.shape[0], max_depth), interpret)
    return run(trees.children, trees.choice, action)


def gpu_back_up(rule: rows.Rule, trees: Trees, given: Given, *, interpret: Any = None) -> Trees:
    """The trees, changed in place, on Mosaic GPU."""

    def kernel(changed: Trees, used: Given) -> None:
        _back_up(rule, GPU_LACKS, Place(*[lax.axis_index("trees")] * 2), changed, used)

    run = _gpu_kernel(kernel, given.slot.shape[0], (), interpret)
    return pl.run_state(lambda refs: run(refs, given))(trees)


def _gpu_kernel(kernel: Callable, num_trees: int, outputs: Any, interpret: Any) -> Callable:
    from jax.experimental.pallas import mosaic_gpu as plgpu  # not with every build of JAX

    # `plgpu.kernel` is this and a rule for `vmap`, in which JAX 0.10 cannot change arrays in place. Lane
    # semantics alone (no longer what JAX 0.11 takes) put a barrier between a number's load and its store.
    mesh = plgpu.Mesh(grid=(num_trees,), grid_names=("trees",))
    params = plgpu.CompilerParams(lowering_semantics=plgpu.LoweringSemantics.Lane)
    options = {} if interpret is None else {"interpret": interpret}
    return pl.kernel(kernel, out_type=outputs, mesh=mesh, compiler_params=params, **options)


def _ends(num_trees: int, max_depth: int) -> list:
    return [jax.ShapeDtypeStruct((num_trees, 1, size), jnp.int32) for size in (max_depth, NUM_ENDS)]


# --- on a TPU, or in the interpreter of any machine -------------------------------------------------


def tpu_descend(trees: Trees, action: jax.Array, *, max_depth: int, interpret: bool = False) -> list:
    """As `gpu_descend`; a tree's choices and children are brought whole."""

    def kernel(place: Any, children: Any, choice: Any, actions: Any, *walk: Any) -> None:
        def child_of(node: Any, action: Any) -> Any:
            # A TPU loads no number from a vector.
            return jnp.max(jnp.where(place[0] == action, children[0, node], -1))

        _descend(child_of, Place(pl.program_id(0), 0), max_depth, choice, actions, walk)

    place = jnp.arange(trees.children.shape[-1], dtype=jnp.int32)[None]
    shapes = _ends(action.shape[0], max_depth)
    return pl.pallas_call(
        kernel,
        grid=action.shape,
        in_specs=[_shared(place), _rows(trees.children), _numbers(trees.choice), _numbers(action)],
        out_specs=[_numbers(shape) for shape in shapes],
        out_shape=shapes,
        interpret=interpret,
    )(place, trees.children, trees.choice, action)


def tpu_back_up(rule: rows.Rule, trees: Trees, given: Given, *, interpret: bool = False) -> Trees:
    """As `gpu_back_up`; each tree is brought whole, and taken back.

    Its rows lie there twice, and so do the next one's: of 128 actions some 1500 nodes fit 16 MB.
    """
    specs = Trees(*(_specs(x, name in ROWS) for name, x in trees._asdict().items()))
    of_given = Given(
        place=_shared(given.place),
        walk=Walk(*map(_numbers, given.walk)),
        slot=_numbers(given.slot),
        judged=Judged(*(_specs(x, x is not None and x.ndim > 1) for x in given.judged)),
        lane=[_specs(x, x is not None and x.ndim > 1) for x in given.lane],
        consts=[_numbers(x) for x in given.consts],
    )

    def kernel(used: Given, before: Trees, *after: Any) -> None:
        changed = Trees(*after)
        for name, old in before._asdict().items():
            if old is not None:
                _copy(old, getattr(changed, name), name in ROWS)
        _back_up(rule, frozenset() if interpret else TPU_LACKS, Place(pl.program_id(0), 0), changed, used)

    num_given, num_leaves = (len(jax.tree.leaves(x)) for x in (given, trees))
    return pl.pallas_call(
        kernel,
        grid=given.slot.shape,
        in_specs=[of_given, specs],
        out_specs=specs,
        out_shape=jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), trees),
        input_output_aliases={num_given + i: i for i in range(num_leaves)},
        interpret=interpret,
    )(given, trees)


def _copy(old: Any, new: Any, is_rows: bool) -> None:
    if is_rows:
        new[...] = old[...]
        return

    def one(node: Any, carry: Any) -> Any:
        new[0, 0, node] = old[0, 0, node]
        return carry

    lax.fori_loop(0, old.shape[-1], one, 0)


def _specs(x: Any, is_rows: bool) -> Any:
    return None if x is None else _rows(x) if is_rows else _numbers(x)


def _rows(x: Any) -> pl.BlockSpec:
    """A tree's rows, as vectors."""
    return pl.BlockSpec((1, *x.shape[1:]), lambda tree: (tree, 0, 0))


def _numbers(x: Any) -> pl.BlockSpec:
    """A tree's numbers, one by one; all trees' where a tree has one."""
    if len(x.shape) == 1:
        return pl.BlockSpec(memory_space=pltpu.SMEM)
    return pl.BlockSpec((1, *x.shape[1:]), lambda tree: (tree, 0, 0), memory_space=pltpu.SMEM)


def _shared(x: Any) -> pl.BlockSpec:
    return pl.BlockSpec(x.shape, lambda tree: (0, 0))
