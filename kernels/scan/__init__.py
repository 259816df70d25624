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

KERNEL = dispatch.Kernel("scan")
DTYPES = ("float32", "bfloat16", "int32", "uint32", "bool")


def scan(
    body: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    inputs: Any,
    *,
    reverse: bool = False,
    implementation: str = "auto",
    kernel: dispatch.Kernel = KERNEL,
) -> tuple[Any, Any]:
    """As `jax.lax.scan(body, init, inputs, reverse=reverse)`, with reverse-mode gradients of any order.

    Leaves of `init` are `[...]`, all alike, those of `inputs` `[T, ...]`, or `[T]`, the same for all lanes.
    What `body(carry, x)` makes of a lane depends on that lane alone; it may close over scalars. Choices are
    made and said in the name of `kernel`. What it takes: `cost`.
    Kernels raise ValueError for leaves of other shapes or types, and for a body that mixes lanes, loops, or
    returns other shapes; the reference takes what `jax.lax.scan` takes. A body of functions that a platform
    has in no words (`lgamma`, `digamma`, `nextafter`, `reduce_precision`) runs there as the reference.
    Forward mode (`jax.jvp`, `jacfwd`, `hessian`) of a kernel is JAX's TypeError of a `custom_vjp`; take
    `jacrev(jacrev(f))`, or implementation="xla". (JAX's `linear_call`, by which a tangent could be a kernel
    and have a transpose, has no second derivatives.)
    """
    how = dispatch.choose(kernel, implementation)
    if how == "xla":
        return reference.scan(body, init, inputs, reverse=reverse)
    init, inputs = jax.tree.map(jnp.asarray, (init, inputs))
    lanes, length = _sizes(*map(jax.tree.leaves, (init, inputs)))
    if not length or not np.prod(lanes, dtype=int):
        return reference.scan(body, init, inputs, reverse=reverse)
    one, scalars, (after, y) = _of_one_lane(body, init, inputs)
    count = int(np.prod(lanes, dtype=int))
    carry = [x.reshape(count) for x in jax.tree.leaves(init)]
    xs = [_of_lanes(x, length, count) for x in jax.tree.leaves(inputs)]
    last, ys = _differentiable(_Program(one, reverse, how, kernel), scalars, carry, xs)
    last = [x.reshape(lanes) for x in last]
    ys = [x.reshape(length, *lanes) for x in ys]
    return jax.tree.unflatten(jax.tree.structure(after), last), jax.tree.unflatten(jax.tree.structure(y), ys)


def cost(length: int, lanes: int, *, num_inputs: int, num_outputs: int, operations: int) -> tuple[int, int]:
    """FLOPs and bytes, of arrays of 4 bytes and a body of so many operations."""
    return length * lanes * operations, 4 * length * lanes * (num_inputs + num_outputs)


def _of_lanes(x: jax.Array, length: int, count: int) -> jax.Array:
    """An input `[T, B]`; `[T]` where all lanes share it, and no cotangent would be a sum over them."""
    if x.size == length and count > 1:
        return jnp.broadcast_to(x[:, None], (length, count)) if _is_float(x) else x
    return x.reshape(length, count)


def _sizes(carry: list, xs: list) -> tuple[tuple[int, ...], int]:
    """The shape of lanes and the number of steps. Raises ValueError as `scan` does."""
    if not carry or not xs or not xs[0].ndim:
        got = f"{len(carry)} leaves of a carry and {len(xs)} of inputs"
        raise ValueError(f"scan: got {got}, expected at least one of each, of inputs [T, ...].")
    lanes, length = carry[0].shape, xs[0].shape[0]
    for name, leaves, shapes in (("init", carry, [lanes]), ("inputs", xs, [(length, *lanes), (length,)])):
        for leaf in leaves:
            if leaf.shape not in shapes:
                raise ValueError(
                    f"scan: {name} has a leaf of shape {leaf.shape}, expected {shapes[0]}; broadcast it."
                )
            if leaf.dtype.name not in DTYPES:
                raise ValueError(
                    f"scan: {name} has a leaf of {leaf.dtype}, expected one of {', '.join(DTYPES)}; cast it, "
                    "or take implementation='xla'."
                )
    return lanes, length


class _Program(NamedTuple):
    """What runs: a function of one lane, a direction, "pallas" or "interpret", and in whose name."""

    one: Callable[[list, list, list], tuple[list, list]]  # `(scalars, carry, x) -> (carry, y)`
    reverse: bool
    how: str
    kernel: dispatch.Kernel


def _of_one_lane(body: Callable, init: Any, inputs: Any) -> tuple[Callable, list, tuple[Any, Any]]:
    """A body of flat scalars, as in `_Program`, the scalars that it closed over, and what it returns."""
    whole = [jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree) for tree in (init, inputs)]
    step = whole[0], jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), whole[1])
    traced, returned = jax.make_jaxpr(body, return_shape=True)(*step)
    if found := elementwise.mixing(traced.jaxpr):
        raise ValueError(f"scan: got a body with {found}, expected one that acts on every lane alone.")
    lanes = jax.tree.leaves(whole[0])[0].shape
    if wrong := [x.shape for x in jax.tree.leaves(returned) if x.shape != lanes]:
        raise ValueError(
            f"scan: got a body that returns an array of shape {wrong[0]}, expected {lanes}; broadcast it."
        )
    lane = jax.tree.map(lambda x: jax.ShapeDtypeStruct((), x.dtype), step)
    closed, made = jax.make_jaxpr(body, return_shape=True)(*lane)
    got, expected = ([(x.shape, x.dtype.name) for x in jax.tree.leaves(tree)] for tree in (made[0], lane[0]))
    if got != expected or jax.tree.structure(made[0]) != jax.tree.structure(lane[0]):
        raise ValueError(f"scan: got a body that returns a carry of {made[0]}, expected {lane[0]}.")
    scalars = [jnp.asarray(const) for const in closed.consts]
    if any(scalar.ndim for scalar in scalars):
        shapes = [scalar.shape for scalar in scalars]
        raise ValueError(
            f"scan: got a body that closes over arrays of shapes {shapes}, expected scalars alone; give them "
            "as inputs or as carry."
        )
    size = len(expected)

    def one(scalars: list, carry: list, x: list) -> tuple[list, list]:
        out = core.jaxpr_as_fun(core.ClosedJaxpr(closed.jaxpr, scalars))(*carry, *x)
        return out[:size], out[size:]

    return one, scalars, made


def _run(program: _Program, scalars: list, carry: list, xs: list) -> tuple[list, list]:
    """All lanes `[B]` over all steps `[T, B]`, or `[T]` where lanes share an input."""
    if not carry:  # of a derivative by inputs alone
        idle = jnp.zeros(next(x for x in xs if x.ndim > 1).shape[1:], jnp.int32)
        one = program.one
        program = program._replace(one=lambda scalars, carry, x: (carry, one(scalars, [], x)[1]))
        return [], _run(program, scalars, [idle], xs)[1]
    run = jax.custom_batching.custom_vmap(partial(_launched, program))
    run.def_vmap(partial(_folded, program))
    return run(scalars, carry, xs)


def _folded(
    program: _Program, size: int, is_mapped: tuple[list, list, list], scalars: list, carry: list, xs: list
) -> tuple[tuple[list, list], Any]:
    """The rule of `vmap`: members `[N]` become lanes `[N B]` of one launch.

    What was one number for all lanes now differs among them: a scalar becomes a carry that stays as it is,
    an input `[T]` one of lanes. A TPU would not read either with an axis of members.
    """
    shape = size, carry[0].shape[-1]
    differ = [i for i, mapped in enumerate(is_mapped[0]) if mapped]
    num_carry = len(carry)

    def one(given: list, carry: list, x: list) -> tuple[list, list]:
        own, fixed = carry[:num_carry], carry[num_carry:]
        after, y = program.one(_put(given, differ, fixed), own, x)
        return [*after, *fixed], y

    begin = [x if mapped else x[None] for x, mapped in zip(carry, is_mapped[1], strict=True)]
    begin += [scalars[i][:, None] for i in differ]
    begin = [jnp.broadcast_to(x, shape).reshape(-1) for x in begin]
    inputs = [_members(x, mapped, shape) for x, mapped in zip(xs, is_mapped[2], strict=True)]
    given = [jnp.zeros((), x.dtype) if i in differ else x for i, x in enumerate(scalars)]
    last, ys = _run(program._replace(one=one), given, begin, inputs)
    last = [x.reshape(shape) for x in last[:num_carry]]
    ys = [jnp.moveaxis(y.reshape(-1, *shape), 1, 0) for y in ys]
    return (last, ys), ([True] * len(last), [True] * len(ys))


def _members(x: jax.Array, is_mapped: bool, shape: tuple[int, int]) -> jax.Array:
    """An input of all members' lanes, `[T, N B]`, or `[T]` as it is where neither tells them apart."""
    if x.ndim - is_mapped == 1:
        if not is_mapped:
            return x
        x = x[:, :, None]
    x = jnp.moveaxis(x, 0, 1) if is_mapped else x[:, None]
    return jnp.broadcast_to(x, (len(x), *shape)).reshape(len(x), -1)


def _launched(program: _Program, scalars: list, carry: list, xs: list) -> tuple[list, list]:
    from kernels.scan import pallas  # slow to import, and rarely used

    body = jax.vmap(program.one, in_axes=(None, 0, [0 if x.ndim > 1 else None for x in xs]))
    if program.how == "interpret":
        return pallas.padded(pallas.INTERPRETED, body, scalars, carry, xs, reverse=program.reverse)
    whole = jax.make_jaxpr(body)(scalars, carry, [x[0] for x in xs]).jaxpr
    lacks = {name: elementwise.missing(whole, of.lacks) for name, of in pallas.MACHINES.items()}
    programs = {
        name: partial(pallas.padded, of, body, reverse=program.reverse)
        for name, of in pallas.MACHINES.items()
        if not lacks[name]
    }

    def plain(scalars: list, carry: list, xs: list) -> tuple[list, list]:
        return reference.scan(partial(body, scalars), carry, xs, reverse=program.reverse)

    return dispatch.by_platform(program.kernel, programs, plain, scalars, carry, xs, lacks=lacks)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _differentiable(program: _Program, scalars: list, carry: list, xs: list) -> tuple[list, list]:
    return _run(program, scalars, carry, xs)


def _forward(program: _Program, scalars: list, carry: list, xs: list) -> tuple[tuple[list, list], tuple]:
    """Keeps every step's carry."""
    size = len(carry)

    def one(scalars: list, carry: list, x: list) -> tuple[list, list]:
        after, y = program.one(scalars, carry, x)
        return after, [*carry, *y]

    last, kept = _differentiable(program._replace(one=one), scalars, carry, xs)
    return (last, kept[size:]), (scalars, kept[:size], xs)


def _backward(program: _Program, kept: tuple, cotangents: tuple[list, list]) -> tuple[list, list, list]:
    """A scan in the other direction, whose carry are cotangents of the carry and, summed, of scalars."""
    (scalars, carries, xs), (of_last, of_ys) = kept, cotangents
    floats = [_floats(arrays) for arrays in (carries, xs, scalars)]
    floats_y = [i for i, ct in enumerate(of_ys) if ct.dtype != jax.dtypes.float0]
    sizes, num_carry = (len(carries), len(xs)), len(floats[0])

    def one(scalars: list, cotangent: list, x: list) -> tuple[list, list]:
        values = x[: sizes[0]], x[sizes[0] : sum(sizes)], scalars
        of_carry, totals = cotangent[:num_carry], cotangent[num_carry:]

        def smooth(*moving: list) -> tuple[list, list]:
            carry, x, scalars = map(_put, values, floats, moving)
            after, y = program.one(scalars, carry, x)
            return [after[i] for i in floats[0]], [y[i] for i in floats_y]

        moving = ([of[i] for i in places] for of, places in zip(values, floats, strict=True))
        of_carry, of_x, more = jax.vjp(smooth, *moving)[1]((of_carry, x[sum(sizes) :]))
        return [*of_carry, *(total + part for total, part in zip(totals, more, strict=True))], of_x

    begin = [of_last[i] for i in floats[0]]
    begin += [jnp.zeros(carries[0].shape[1:], scalars[i].dtype) for i in floats[2]]
    inputs = [*carries, *xs, *(of_ys[i] for i in floats_y)]
    back = program._replace(one=one, reverse=not program.reverse)
    first, of_xs = _differentiable(back, scalars, begin, inputs)
    of_carry = _put([_nothing(c[0]) for c in carries], floats[0], first[:num_carry])
    totals = [jnp.sum(total) for total in first[num_carry:]]
    nothing = [[_nothing(x) for x in of] for of in (xs, scalars)]
    return _put(nothing[1], floats[2], totals), of_carry, _put(nothing[0], floats[1], of_xs)


_differentiable.defvjp(_forward, _backward)


def _is_float(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jnp.inexact)


def _floats(arrays: Sequence[Any]) -> list[int]:
    return [i for i, x in enumerate(arrays) if _is_float(x)]


def _put(values: Sequence[Any], places: Sequence[int], new: Sequence[Any]) -> list:
    """`values` with `new` ones at some places."""
    result = list(values)
    for place, value in zip(places, new, strict=True):
        result[place] = value
    return result


def _nothing(x: jax.Array) -> np.ndarray:
    """The cotangent of integers."""
    return np.zeros(x.shape, jax.dtypes.float0)
