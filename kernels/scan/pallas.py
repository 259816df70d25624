"""A scan over time as one launch: a block of lanes keeps its carry in registers.

Traffic is each input and output once. Inputs do not depend on the carry, so that those of `UNROLL`
steps are on their way at once: what is serial is the body alone.
"""

import itertools
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from kernels.mapping import split
from kernels.scan import elementwise
from kernels.scan.substitutes import GPU_LACKS, TPU_LACKS

LANES = 128  # of a block: one a thread of a warpgroup; a TPU's register has as many
UNROLL = 8  # steps whose inputs a GPU loads ahead
STEPS = 256  # of a block of time on a TPU, which stay in its memory together
# `(scalars, carry, x) -> (carry, y)`, of lists of arrays [LANES], or [] where all lanes share them.
Body = Callable[[list, list, list], tuple[list, list]]


class Given(NamedTuple):
    """What a kernel reads: scalars `[1]`, a carry `[B]`, inputs `[T, B]` or `[T]`; B in whole blocks."""

    scalars: list
    carry: list
    inputs: list


class Machine(NamedTuple):
    """A kernel with what its platform asks of bodies and memory."""

    run: Callable  # `gpu` or `tpu`
    stored: dict[str, Any]  # how types lie in memory that do not lie there as they are
    lacks: frozenset[str]  # primitives that do not lower


def padded(
    machine: Machine, body: Callable, scalars: list, carry: list, inputs: list, *, reverse: bool
) -> tuple[list, list]:
    """Run a machine's kernel on any number of lanes `[B]`, over steps `[T, B]`, of any type.

    `body(scalars, carry, x)` is of lanes, of `x` those that are `[T]` scalars.
    """
    num_lanes, length = carry[0].shape[0], inputs[0].shape[0]
    own = [[x.dtype for x in of] for of in (scalars, carry, inputs)]
    one = [
        [jax.ShapeDtypeStruct((LANES,) if of is carry or x.ndim > 1 else (), x.dtype) for x in of]
        for of in (scalars, carry, inputs)
    ]
    types = [[s.dtype for s in made] for made in jax.eval_shape(body, *one)]

    def stored(dtype: Any) -> Any:
        return machine.stored.get(jnp.dtype(dtype).name, dtype)

    def stored_body(scalars: list, carry: list, x: list) -> tuple[list, list]:
        after, y = elementwise.plain(body, *map(_cast, (scalars, carry, x), own), lacks=machine.lacks)
        return _cast(after, map(stored, types[0])), _cast(y, map(stored, types[1]))

    def ready(x: jax.Array) -> jax.Array:
        # What is added is a lane of its own kind: zeros might divide.
        more = [(0, 0)] * (x.ndim - 1) + [(0, -num_lanes % LANES)]
        return jnp.pad(x, more, mode="edge").astype(stored(x.dtype))

    begin = [ready(x) for x in carry]
    xs = [ready(x) if x.ndim > 1 else x.astype(stored(x.dtype)) for x in inputs]
    fixed = [x.astype(stored(x.dtype))[None] for x in scalars]
    size = begin[0].shape[0]
    shapes = [jax.ShapeDtypeStruct((size,), stored(d)) for d in types[0]]
    shapes += [jax.ShapeDtypeStruct((length, size), stored(d)) for d in types[1]]
    result = machine.run(stored_body, Given(fixed, begin, xs), shapes, reverse=reverse)
    result = [x[..., :num_lanes] for x in result]
    return _cast(result[: len(carry)], types[0]), _cast(result[len(carry) :], types[1])


def _cast(arrays: Iterable, dtypes: Iterable) -> list:
    """In registers or memory, bits by way of words: Mosaic GPU computes with nothing in between."""

    def cast(x: Any, dtype: Any) -> Any:
        if x.dtype == dtype:
            return x
        if dtype == jnp.bool_:
            return x.astype(jnp.int32) != 0
        return x.astype(jnp.int32).astype(dtype) if x.dtype == jnp.bool_ else x.astype(dtype)

    return [cast(x, dtype) for x, dtype in zip(arrays, dtypes, strict=True)]


def gpu(body: Body, given: Given, outputs: list, *, reverse: bool, interpret: Any = None) -> list:
    """On Mosaic GPU (Hopper and later); `outputs` are the shapes of `[*carry, *y]`, and so is the result."""
    from jax.experimental.pallas import mosaic_gpu as plgpu  # not with every build of JAX

    counts, length = (*map(len, given), len(given.carry)), given.inputs[0].shape[0]

    def kernel(*refs: Any) -> None:
        at = pl.ds(lax.axis_index("lanes") * LANES, LANES)
        scalars, begin, inputs, ends, outputs = split(refs, counts)
        fixed = [ref[0] for ref in scalars]

        def some(first: Any, count: int, carry: list) -> list:
            times = [length - 1 - first - i if reverse else first + i for i in range(count)]
            loaded = [[ref[t, at] if ref.ndim > 1 else ref[t] for ref in inputs] for t in times]
            for t, x in zip(times, loaded, strict=True):
                carry, y = body(fixed, carry, x)
                for ref, value in zip(outputs, y, strict=True):
                    ref[t, at] = value
            return carry

        carry, whole = [ref[at] for ref in begin], length // UNROLL
        if whole:
            carry = lax.fori_loop(0, whole, lambda i, carry: some(i * UNROLL, UNROLL, carry), carry)
        for ref, value in zip(ends, some(whole * UNROLL, length % UNROLL, carry), strict=True):
            ref[at] = value

    # A lane is a thread; JAX 0.11 would infer layouts instead, for minutes of a long body.
    params = plgpu.CompilerParams(lowering_semantics=plgpu.LoweringSemantics.Lane)
    options: dict[str, Any] = {"compiler_params": params}
    if interpret is not None:
        options["interpret"] = interpret
    grid = (given.carry[0].shape[0] // LANES,)
    run = plgpu.kernel(kernel, out_type=tuple(outputs), grid=grid, grid_names=("lanes",), **options)
    return list(run(*itertools.chain(*given)))


def tpu(body: Body, given: Given, outputs: list, *, reverse: bool, interpret: bool = False) -> list:
    """On a TPU, or in the interpreter of any machine; as `gpu`. The grid goes along time last, in order."""
    length, num_lanes = given.inputs[0].shape[0], given.carry[0].shape[0]
    num_scalars, num_carry, _ = map(len, given)
    steps = min(length, STEPS)
    num_blocks = pl.cdiv(length, steps)
    counts = *map(len, given), num_carry, len(outputs) - num_carry
    of_all = [x.ndim == 1 for x in given.inputs]  # lanes alike

    def time_of(block: Any) -> Any:
        return num_blocks - 1 - block if reverse else block

    def kernel(*refs: Any) -> None:
        fixed, begin, ins, ends, outs, kept = split(refs, counts)
        block = pl.program_id(1)

        @pl.when(block == 0)
        def _() -> None:
            for ref, first in zip(kept, begin, strict=True):
                ref[...] = first[...]

        # The last block of time is cut, and in reverse it comes first.
        here = time_of(block)
        is_cut = length % steps != 0
        values = [ref[0] for ref in fixed]

        def step(i: Any, carry: list) -> list:
            t = steps - 1 - i if reverse else i
            after, y = body(
                values, carry, [ref[0, t] if s else ref[t, :] for s, ref in zip(of_all, ins, strict=True)]
            )
            if is_cut:
                is_real = here * steps + t < length
                after = [jnp.where(is_real, new, old) for new, old in zip(after, carry, strict=True)]
            for ref, value in zip(outs, y, strict=True):
                ref[t, :] = value
            return after

        last = lax.fori_loop(0, steps, step, [ref[0, :] for ref in kept])
        for ref, end, value in zip(kept, ends, last, strict=True):
            ref[0, :] = value
            end[0, :] = value

    by_lane = pl.BlockSpec((1, LANES), lambda lanes, block: (0, lanes))
    by_time = pl.BlockSpec((steps, LANES), lambda lanes, block: (time_of(block), lanes))
    shared = pl.BlockSpec(memory_space=pltpu.SMEM)
    # What all lanes share, a block of time at a time: scalar memory is small.
    shared_by_time = pl.BlockSpec(
        (None, 1, steps), lambda lanes, block: (time_of(block), 0, 0), memory_space=pltpu.SMEM
    )
    more = num_blocks * steps - length
    inputs = [
        jnp.pad(x, (0, more)).reshape(num_blocks, 1, steps) if alike else x
        for x, alike in zip(given.inputs, of_all, strict=True)
    ]
    rows = [jax.ShapeDtypeStruct((1, *s.shape), s.dtype) for s in outputs[:num_carry]]
    result = pl.pallas_call(
        kernel,
        grid=(num_lanes // LANES, num_blocks),
        in_specs=[shared] * num_scalars
        + [by_lane] * num_carry
        + [shared_by_time if alike else by_time for alike in of_all],
        out_specs=[by_lane] * num_carry + [by_time] * counts[-1],
        out_shape=[*rows, *outputs[num_carry:]],
        scratch_shapes=[pltpu.VMEM((1, LANES), s.dtype) for s in outputs[:num_carry]],
        interpret=interpret,
    )(*given.scalars, *(x[None] for x in given.carry), *inputs)
    return [x[0] for x in result[:num_carry]] + list(result[num_carry:])


# Nobody loads bits, and a TPU's rows are of 32 bits.
GPU = Machine(gpu, {"bool": jnp.int8}, GPU_LACKS)
TPU = Machine(tpu, {"bool": jnp.int32, "bfloat16": jnp.float32}, TPU_LACKS)
INTERPRETED = TPU._replace(run=partial(tpu, interpret=True))
MACHINES = {"cuda": GPU, "tpu": TPU}  # by platform
