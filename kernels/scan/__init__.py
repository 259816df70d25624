"""`scan`: `jax.lax.scan` of a body that acts on every lane alone, as one launch.

Returns, advantages, V-trace and linear recurrences are such scans, and so is an environment stepped by
a small policy. XLA launches a kernel a step; here a block of lanes keeps its carry in registers.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from kernels import dispatch
from kernels.scan import elementwise, reference
from kernels.scan.elementwise import FlatBody

KERNEL = dispatch.Kernel("scan", ("cuda", "tpu"))
DTYPES = ("float32", "bfloat16", "int32", "uint32", "int8", "bool")


def scan(
    body: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    inputs: Any,
    *,
    reverse: bool = False,
    implementation: str = "auto",
) -> tuple[Any, Any]:
    """As `jax.lax.scan(body, init, inputs, reverse=reverse)`, with gradients of any order.

    Leaves of `init` are `[...]`, all alike, those of `inputs` `[T, ...]`. What `body(carry, x)` makes of a
    lane depends on that lane alone; it may close over scalars. What it takes: `cost`.
    Raises ValueError for leaves of other shapes or types, and for a body that mixes lanes.
    """
    how = dispatch.choose(KERNEL, implementation)
    if how == "xla":
        return reference.scan(body, init, inputs, reverse=reverse)
    init, inputs = jax.tree.map(jnp.asarray, (init, inputs))
    lanes, length = _sizes(*map(jax.tree.leaves, (init, inputs)))
    if not length or not np.prod(lanes, dtype=int):
        return reference.scan(body, init, inputs, reverse=reverse)
    one, scalars, (after, y) = _of_one_lane(body, init, inputs)
    count = int(np.prod(lanes, dtype=int))
    carry = [x.reshape(count) for x in jax.tree.leaves(init)]
    carry += [jnp.broadcast_to(scalar, (count,)) for scalar in scalars]
    xs = [x.reshape(length, count) for x in jax.tree.leaves(inputs)]
    last, ys = _differentiable(_Program(one, reverse, how), carry, xs)
    last = [x.reshape(lanes) for x in last[: len(jax.tree.leaves(after))]]
    ys = [x.reshape(length, *lanes) for x in ys]
    return jax.tree.unflatten(jax.tree.structure(after), last), jax.tree.unflatten(jax.tree.structure(y), ys)


def cost(length: int, lanes: int, *, num_inputs: int, num_outputs: int, operations: int) -> tuple[int, int]:
    """FLOPs and bytes, of arrays of 4 bytes and a body of so many operations."""
    return length * lanes * operations, 4 * length * lanes * (num_inputs + num_outputs)


def _sizes(carry: list, xs: list) -> tuple[tuple[int, ...], int]:
    """The shape of lanes and the number of steps. Raises ValueError as `scan` does."""
    if not carry or not xs or not xs[0].ndim:
        got = f"{len(carry)} leaves of a carry and {len(xs)} of inputs"
        raise ValueError(f"scan: got {got}, expected at least one of each, of inputs [T, ...].")
    lanes, length = carry[0].shape, xs[0].shape[0]
    for name, leaves, shape in (("init", carry, lanes), ("inputs", xs, (length, *lanes))):
        for leaf in leaves:
            if leaf.shape != shape:
                raise ValueError(
                    f"scan: {name} has a leaf of shape {leaf.shape}, expected {shape}; broadcast it."
                )
            if leaf.dtype.name not in DTYPES:
                raise ValueError(
                    f"scan: {name} has a leaf of {leaf.dtype}, expected one of {', '.join(DTYPES)}; cast it, "
                    "or take implementation='xla'."
                )
    return lanes, length


class _Program(NamedTuple):
    """What runs: a function of one lane, a direction, and "pallas" or "interpret"."""

    one: FlatBody  # `(carry, x) -> (carry, y)`, lists of scalars
    reverse: bool
    how: str


def _of_one_lane(body: Callable, init: Any, inputs: Any) -> tuple[FlatBody, list, tuple[Any, Any]]:
    """A body of flat scalars, the scalars that it closed over (more of its carry), and what it returns."""
    whole = [jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree) for tree in (init, inputs)]
    step = whole[0], jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), whole[1])
    if found := elementwise.mixing(jax.make_jaxpr(body)(*step).jaxpr):
        raise ValueError(f"scan: got a body with {found}, expected one that acts on every lane alone.")
    lane = jax.tree.map(lambda x: jax.ShapeDtypeStruct((), x.dtype), step)
    closed, made = jax.make_jaxpr(body, return_shape=True)(*lane)
    got, expected = ([(x.shape, x.dtype.name) for x in jax.tree.leaves(tree)] for tree in (made[0], lane[0]))
    if got != expected or jax.tree.structure(made[0]) != jax.tree.structure(lane[0]):
        raise ValueError(f"scan: got a body that returns a carry of {made[0]}, expected {lane[0]}.")
    scalars = [jnp.asarray(const) for const in closed.consts]
    if any(scalar.ndim for scalar in scalars):
        shapes = [scalar.shape for scalar in scalars]
        raise ValueError(
            f"scan: got a body that closes over arrays of shapes {shapes}, expected scalars alone."
        )
    size = len(expected)

    def one(carry: list, x: list) -> tuple[list, list]:
        consts = carry[size:]
        out = core.jaxpr_as_fun(core.ClosedJaxpr(closed.jaxpr, consts))(*carry[:size], *x)
        return [*out[:size], *consts], out[size:]

    return one, scalars, made


def _run(program: _Program, carry: list, xs: list) -> tuple[list, list]:
    """All lanes `[B]` over all steps `[T, B]`."""
    from kernels.scan import pallas  # slow to import, and rarely used

    if not carry:  # of a derivative by inputs alone
        idle = jnp.zeros(xs[0].shape[1:], jnp.int32)
        one = program.one
        program = program._replace(one=lambda carry, x: (carry, one([], x)[1]))
        return [], _run(program, [idle], xs)[1]
    body = jax.vmap(program.one)
    if program.how == "interpret":
        return pallas.padded(pallas.interpreted, body, carry, xs, reverse=program.reverse)
    programs = {
        name: partial(pallas.padded, of, body, reverse=program.reverse)
        for name, of in (("cuda", pallas.gpu), ("tpu", pallas.tpu))
    }
    plain = partial(jax.lax.scan, body, reverse=program.reverse)
    return dispatch.by_platform(KERNEL, programs, plain, carry, xs)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _differentiable(program: _Program, carry: list, xs: list) -> tuple[list, list]:
    return _run(program, carry, xs)


def _forward(program: _Program, carry: list, xs: list) -> tuple[tuple[list, list], tuple[list, list]]:
    """Keeps every step's carry."""
    size = len(carry)

    def one(carry: list, x: list) -> tuple[list, list]:
        after, y = program.one(carry, x)
        return after, [*carry, *y]

    last, kept = _differentiable(program._replace(one=one), carry, xs)
    return (last, kept[size:]), (kept[:size], xs)


def _backward(program: _Program, kept: tuple[list, list], cotangents: tuple[list, list]) -> tuple[list, list]:
    """A scan in the other direction, whose carry is the carry's cotangent."""
    (carries, xs), (of_last, of_ys) = kept, cotangents
    floats_c, floats_x = _floats(carries), _floats(xs)
    of_last = [of_last[i] for i in floats_c]
    floats_y = [i for i, ct in enumerate(of_ys) if ct.dtype != jax.dtypes.float0]
    sizes = len(carries), len(xs)

    def one(cotangent: list, x: list) -> tuple[list, list]:
        before, here, of_y = x[: sizes[0]], x[sizes[0] : sum(sizes)], x[sum(sizes) :]

        def smooth(c: list, x: list) -> tuple[list, list]:
            after, y = program.one(_put(before, floats_c, c), _put(here, floats_x, x))
            return [after[i] for i in floats_c], [y[i] for i in floats_y]

        _, pull = jax.vjp(smooth, [before[i] for i in floats_c], [here[i] for i in floats_x])
        return pull((cotangent, of_y))

    inputs = [*carries, *xs, *(of_ys[i] for i in floats_y)]
    mirrored = _Program(one, not program.reverse, program.how)
    first, of_xs = _differentiable(mirrored, of_last, inputs)
    return _put([_nothing(c[0]) for c in carries], floats_c, first), _put(
        [_nothing(x) for x in xs], floats_x, of_xs
    )


_differentiable.defvjp(_forward, _backward)


def _floats(arrays: Sequence[Any]) -> list[int]:
    return [i for i, x in enumerate(arrays) if jnp.issubdtype(x.dtype, jnp.inexact)]


def _put(values: Sequence[Any], places: Sequence[int], new: Sequence[Any]) -> list:
    """`values` with `new` ones at some places."""
    result = list(values)
    for place, value in zip(places, new, strict=True):
        result[place] = value
    return result


def _nothing(x: jax.Array) -> np.ndarray:
    """The cotangent of integers."""
    return np.zeros(x.shape, jax.dtypes.float0)
