"""A scan over time as one launch: a block of lanes keeps its carry in registers.

Traffic is each input and output once. Inputs do not depend on the carry, so that those of `UNROLL`
steps are on their way at once: what is serial is the body alone.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from kernels.scan import elementwise
from kernels.scan.elementwise import FlatBody

LANES = 128  # of a block: one a thread of a warpgroup; a TPU's register has as many
UNROLL = 8  # steps whose inputs are loaded ahead
STEPS = 256  # of a block of time on a TPU, which stay in its memory together


def _times(first: Any, count: int, length: int, reverse: bool) -> list[Any]:
    """Indices of `count` steps from the `first` that is taken."""
    steps = [first + i for i in range(count)]
    return [length - 1 - step for step in steps] if reverse else steps


def _loop(body: FlatBody, carry: list, length: int, reverse: bool, load: Callable, store: Callable) -> list:
    """All steps of a block, `UNROLL` at a time, and what is left."""

    def some(first: Any, count: int, carry: list) -> list:
        times = _times(first, count, length, reverse)
        for t, x in [(t, load(t)) for t in times]:
            carry, y = body(carry, x)
            store(t, y)
        return carry

    whole = length // UNROLL
    if whole:
        carry = lax.fori_loop(0, whole, lambda i, c: some(i * UNROLL, UNROLL, c), carry)
    return some(whole * UNROLL, length % UNROLL, carry)


def _kernel(body: FlatBody, sizes: tuple[int, int, int], reverse: bool, at: Any, refs: Sequence[Any]) -> None:
    """Lanes `at` of all: refs are the carry's, the inputs', the last carry's and the outputs'."""
    num_carry, num_inputs, length = sizes
    begin, inputs = refs[:num_carry], refs[num_carry : num_carry + num_inputs]
    ends = refs[num_carry + num_inputs :][:num_carry]
    outputs = refs[2 * num_carry + num_inputs :]

    def store(t: Any, values: list) -> None:
        for ref, value in zip(outputs, values, strict=True):
            ref[t, at] = value

    carry = _loop(
        body, [ref[at] for ref in begin], length, reverse, lambda t: [ref[t, at] for ref in inputs], store
    )
    for ref, value in zip(ends, carry, strict=True):
        ref[at] = value


def padded(
    implementation: Callable, body: FlatBody, carry: list, inputs: list, *, reverse: bool
) -> tuple[list, list]:
    """Call `gpu`, `tpu` or `interpreted` on any number of lanes `[B]`, over steps `[T, B]`, of any type."""
    num_lanes, length = carry[0].shape[0], inputs[0].shape[0]
    own = [x.dtype for x in carry], [x.dtype for x in inputs]
    lanes = [[jax.ShapeDtypeStruct((LANES,), d) for d in dtypes] for dtypes in own]
    types = [[s.dtype for s in made] for made in jax.eval_shape(body, *lanes)]
    stored = partial(_stored, implementation is gpu)

    def stored_body(carry: list, x: list) -> tuple[list, list]:
        after, y = elementwise.plain(body, _cast(carry, own[0]), _cast(x, own[1]))
        return _cast(after, map(stored, types[0])), _cast(y, map(stored, types[1]))

    def ready(arrays: list) -> list:
        # A lane of its own kind: zeros might divide.
        extra = -num_lanes % LANES
        return [
            jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, extra)], mode="edge").astype(stored(x.dtype))
            for x in arrays
        ]

    begin, xs = ready(carry), ready(inputs)
    size = begin[0].shape[0]
    shapes = [jax.ShapeDtypeStruct((size,), stored(d)) for d in types[0]]
    shapes += [jax.ShapeDtypeStruct((length, size), stored(d)) for d in types[1]]
    result = [x[..., :num_lanes] for x in implementation(stored_body, begin, xs, shapes, reverse=reverse)]
    return _cast(result[: len(carry)], types[0]), _cast(result[len(carry) :], types[1])


def _stored(is_gpu: bool, dtype: Any) -> Any:
    """How a type lies in memory: nobody loads bits, and a TPU's rows are of 32 bits."""
    if is_gpu:
        return jnp.int8 if dtype == jnp.bool_ else dtype
    return {"bool": jnp.int32, "int8": jnp.int32, "bfloat16": jnp.float32}.get(jnp.dtype(dtype).name, dtype)


def _cast(arrays: Iterable, dtypes: Iterable) -> list:
    pairs = zip(arrays, dtypes, strict=True)
    return [x if x.dtype == d else x != 0 if d == jnp.bool_ else x.astype(d) for x, d in pairs]


def gpu(
    body: FlatBody, carry: list, inputs: list, outputs: list, *, reverse: bool, interpret: Any = None
) -> list:
    """On Mosaic GPU (Hopper and later). Arrays `[B]` and `[T, B]`, B a multiple of `LANES`.

    `outputs` are the shapes of `[*carry, *y]`; so is the result.
    """
    from jax.experimental.pallas import mosaic_gpu as plgpu  # not with every build of JAX

    sizes = len(carry), len(inputs), inputs[0].shape[0]

    def kernel(*refs: Any) -> None:
        _kernel(body, sizes, reverse, pl.ds(lax.axis_index("lanes") * LANES, LANES), refs)

    options = {} if interpret is None else {"interpret": interpret}
    grid = (carry[0].shape[0] // LANES,)
    run = plgpu.kernel(kernel, out_type=tuple(outputs), grid=grid, grid_names=("lanes",), **options)
    return list(run(*carry, *inputs))


def tpu(
    body: FlatBody, carry: list, inputs: list, outputs: list, *, reverse: bool, interpret: bool = False
) -> list:
    """On a TPU, or in the interpreter of any machine; as `gpu`. The grid goes along time last, in order."""
    length, num_lanes = inputs[0].shape
    steps = min(length, STEPS)
    num_blocks = pl.cdiv(length, steps)
    num_carry, num_inputs = len(carry), len(inputs)

    def kernel(*refs: Any) -> None:
        begin, ins = refs[:num_carry], refs[num_carry : num_carry + num_inputs]
        ends, outs = refs[num_carry + num_inputs :][:num_carry], refs[2 * num_carry + num_inputs : -num_carry]
        kept, block = refs[-num_carry:], pl.program_id(1)

        @pl.when(block == 0)
        def _() -> None:
            for ref, first in zip(kept, begin, strict=True):
                ref[...] = first[...]

        # The last block of time is cut, and in reverse it comes first.
        here = num_blocks - 1 - block if reverse else block
        is_cut = length % steps != 0

        def step(i: Any, values: list) -> list:
            t = steps - 1 - i if reverse else i
            after, y = body(values, [ref[t, :] for ref in ins])
            if is_cut:
                is_real = here * steps + t < length
                after = [jnp.where(is_real, new, old) for new, old in zip(after, values, strict=True)]
            for ref, value in zip(outs, y, strict=True):
                ref[t, :] = value
            return after

        values = lax.fori_loop(0, steps, step, [ref[0, :] for ref in kept])
        for ref, end, value in zip(kept, ends, values, strict=True):
            ref[0, :] = value
            end[0, :] = value

    by_lane = pl.BlockSpec((1, LANES), lambda lanes, block: (0, lanes))
    by_time = pl.BlockSpec(
        (steps, LANES), lambda lanes, block: (num_blocks - 1 - block if reverse else block, lanes)
    )
    rows = [jax.ShapeDtypeStruct((1, *s.shape), s.dtype) for s in outputs[:num_carry]]
    result = pl.pallas_call(
        kernel,
        grid=(num_lanes // LANES, num_blocks),
        in_specs=[by_lane] * num_carry + [by_time] * num_inputs,
        out_specs=[by_lane] * num_carry + [by_time] * (len(outputs) - num_carry),
        out_shape=[*rows, *outputs[num_carry:]],
        scratch_shapes=[pltpu.VMEM((1, LANES), s.dtype) for s in outputs[:num_carry]],
        interpret=interpret,
    )(*(x[None] for x in carry), *inputs)
    return [x[0] for x in result[:num_carry]] + list(result[num_carry:])


def interpreted(*args: Any, **kwargs: Any) -> list:
    """`tpu`, in the interpreter."""
    return tpu(*args, interpret=True, **kwargs)
