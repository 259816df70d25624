"""The MLP block in one launch: a tile of rows keeps its wide layer in registers, a few columns at a time."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from kernels.warpgroup import Unit

ROWS = 64  # of a warpgroup's product
GROUPS = 2  # warpgroups that share what they load of the weights
CHUNK = 64  # columns of the wide layer at a time
TPU_ROWS, TPU_CHUNK = 128, 256


def gelu(x: jax.Array) -> jax.Array:
    """As `jax.nn.gelu` by its tanh, in primitives that kernels have."""
    return 0.5 * x * (1.0 + jnp.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x * x * x)))


def tpu(x: jax.Array, up: jax.Array, down: jax.Array, *, interpret: bool = False) -> jax.Array:
    """On a TPU, or in the interpreter of any machine: rows and columns in whole blocks."""
    (num_rows, width), hidden = x.shape, up.shape[1]
    exact = lax.Precision.HIGHEST if x.dtype == jnp.float32 else None
    dot = partial(jnp.dot, precision=exact, preferred_element_type=jnp.float32)
    num_chunks = hidden // TPU_CHUNK

    def kernel(x_ref: Any, up_ref: Any, down_ref: Any, out_ref: Any, total: Any) -> None:
        chunk = pl.program_id(1)

        @pl.when(chunk == 0)
        def _() -> None:
            total[...] = jnp.zeros(total.shape, jnp.float32)

        wide = dot(x_ref[...], up_ref[...]).astype(x.dtype).astype(jnp.float32)
        total[...] += dot(gelu(wide).astype(x.dtype), down_ref[...])

        @pl.when(chunk == num_chunks - 1)
        def _() -> None:
            out_ref[...] = total[...].astype(out_ref.dtype)

    rows = pl.BlockSpec((TPU_ROWS, width), lambda i, j: (i, 0))
    return pl.pallas_call(
        kernel,
        grid=(num_rows // TPU_ROWS, num_chunks),
        in_specs=[
            rows,
            pl.BlockSpec((width, TPU_CHUNK), lambda i, j: (0, j)),
            pl.BlockSpec((TPU_CHUNK, width), lambda i, j: (j, 0)),
        ],
        out_specs=rows,
        out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype),
        scratch_shapes=[pltpu.VMEM((TPU_ROWS, width), jnp.float32)],
        interpret=interpret,
    )(x, up, down)


def gpu(unit: Unit, x: jax.Array, up: jax.Array, down: jax.Array) -> jax.Array:
    """On Mosaic GPU (Hopper), of 16 bits: rows and columns in whole blocks."""
    from jax.experimental.pallas import mosaic_gpu as plgpu  # not with every build of JAX

    (num_rows, width), num_chunks = x.shape, up.shape[1] // CHUNK

    def kernel(x_ref: Any, up_ref: Any, down_ref: Any, out_ref: Any, *scratch: Any) -> None:
        rows, ups, downs, ready, arrived, consumed = scratch
        group = lax.axis_index("group")
        own = rows.at[group]
        at = pl.ds((lax.axis_index("tiles") * GROUPS + group) * ROWS, ROWS)

        def fetch(chunk: Any) -> None:
            slot, columns = lax.rem(chunk, 2), pl.ds(chunk * CHUNK, CHUNK)
            plgpu.copy_gmem_to_smem(up_ref.at[:, columns], ups.at[slot], arrived.at[slot])
            plgpu.copy_gmem_to_smem(down_ref.at[columns], downs.at[slot], arrived.at[slot])

        plgpu.copy_gmem_to_smem(x_ref.at[at], own, ready.at[group])
        for chunk in range(min(2, num_chunks)):
            pl.when(group == 0)(partial(fetch, jnp.int32(chunk)))
        plgpu.barrier_wait(ready.at[group])

        def one(chunk: Any, total: jax.Array) -> jax.Array:
            slot = lax.rem(chunk, 2)
            plgpu.barrier_wait(arrived.at[slot])
            wide = unit.added(unit.full((ROWS, CHUNK), 0.0), own, ups.at[slot])
            wide = gelu(wide.astype(x.dtype).astype(jnp.float32))
            total = unit.added(total, wide.astype(x.dtype), downs.at[slot])
            plgpu.barrier_arrive(consumed.at[slot])

            @pl.when(group == 0)
            def _() -> None:
                plgpu.barrier_wait(consumed.at[slot])  # both groups are done with it
                pl.when(chunk + 2 < num_chunks)(partial(fetch, chunk + 2))

            return total

        total = lax.fori_loop(0, num_chunks, one, unit.full((ROWS, width), 0.0))
        plgpu.commit_smem()
        own[...] = total.astype(x.dtype)
        plgpu.commit_smem()
        plgpu.copy_smem_to_gmem(own, out_ref.at[at])
        plgpu.wait_smem_to_gmem(0)

    scratch = [
        unit.shared((GROUPS, ROWS, width), x.dtype),
        unit.shared((2, width, CHUNK), x.dtype),
        unit.shared((2, CHUNK, width), x.dtype),
        plgpu.Barrier(num_barriers=GROUPS),
        plgpu.Barrier(num_barriers=2, num_arrivals=2),
        plgpu.Barrier(num_barriers=2, num_arrivals=GROUPS),
    ]
    return plgpu.kernel(
        kernel,
        out_type=jax.ShapeDtypeStruct(x.shape, x.dtype),
        scratch_types=scratch,
        grid=(num_rows // (ROWS * GROUPS),),
        grid_names=("tiles",),
        num_threads=GROUPS,
        thread_name="group",
        **unit.options,
    )(x, up, down)
