"""All behind a block's attention in one launch: a tile of rows stays in registers and shared memory."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from kernels.decode.reference import EPSILON, Weights, normed
from kernels.mlp.pallas import gelu
from kernels.warpgroup import Unit

ROWS = 64  # of a warpgroup's product: few, so that a small batch has many tiles
CHUNK = 64  # rows of the first product's weights, and columns of the wide layer, at a time
TPU_ROWS = 128


def tpu(x: jax.Array, mixed: jax.Array, weights: Weights, *, interpret: bool = False) -> jax.Array:
    """On a TPU, or in the interpreter of any machine: rows in whole tiles, all weights in its memory."""
    exact = lax.Precision.HIGHEST if x.dtype == jnp.float32 else None
    dot = partial(jnp.dot, precision=exact, preferred_element_type=jnp.float32)

    def kernel(x_ref: Any, mixed_ref: Any, output: Any, scale: Any, up: Any, down: Any, out_ref: Any) -> None:
        stream = x_ref[...] + dot(mixed_ref[...], output[...]).astype(x.dtype)
        norm = normed(stream.astype(jnp.float32), scale[...]).astype(x.dtype)
        wide = dot(norm, up[...]).astype(x.dtype).astype(jnp.float32)
        out_ref[...] = stream + dot(gelu(wide).astype(x.dtype), down[...]).astype(x.dtype)

    rows = pl.BlockSpec((TPU_ROWS, x.shape[1]), lambda i: (i, 0))
    given = weights._replace(scale=weights.scale[None])
    whole = [pl.BlockSpec(w.shape, lambda i: (0, 0)) for w in given]
    return pl.pallas_call(
        kernel,
        grid=(len(x) // TPU_ROWS,),
        in_specs=[rows, rows, *whole],
        out_specs=rows,
        out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype),
        interpret=interpret,
    )(x, mixed, *given)


def gpu(unit: Unit, x: jax.Array, mixed: jax.Array, weights: Weights) -> jax.Array:
    """On Mosaic GPU (Hopper), of 16 bits: rows and the wide layer in whole tiles."""
    from jax.experimental.pallas import mosaic_gpu as plgpu  # not with every build of JAX

    (num_rows, width), wide = x.shape, weights.up.shape[1]
    dtype, shape = x.dtype, (ROWS, width)

    def kernel(*refs: Any) -> None:
        x_ref, mixed_ref, output, scale, up, down, out, *buffers = refs
        stream, heads, norm, ups, downs, ready, arrived = buffers
        at = pl.ds(lax.axis_index("tiles") * ROWS, ROWS)

        def fetch_output(chunk: Any) -> None:
            slot = lax.rem(chunk, 2)
            plgpu.copy_gmem_to_smem(output.at[pl.ds(chunk * CHUNK, CHUNK)], downs.at[slot], arrived.at[slot])
            heads_at = mixed_ref.at[at, pl.ds(chunk * CHUNK, CHUNK)]
            plgpu.copy_gmem_to_smem(heads_at, heads.at[slot], arrived.at[slot])

        def fetch_wide(chunk: Any) -> None:
            slot, columns = lax.rem(chunk, 2), pl.ds(chunk * CHUNK, CHUNK)
            plgpu.copy_gmem_to_smem(up.at[:, columns], ups.at[slot], arrived.at[slot])
            plgpu.copy_gmem_to_smem(down.at[columns], downs.at[slot], arrived.at[slot])

        def through(fetch: Any, num_chunks: int, step: Any) -> jax.Array:
            """Sums `[ROWS, width]` over chunks, the next of which is on its way."""
            fetch(jnp.int32(0))

            def one(chunk: Any, total: jax.Array) -> jax.Array:
                slot = lax.rem(chunk, 2)
                plgpu.commit_smem()  # all four warps are done with the other slot
                pl.when(chunk + 1 < num_chunks)(lambda: fetch(chunk + 1))
                plgpu.barrier_wait(arrived.at[slot])
                return step(slot, total)

            total = lax.fori_loop(0, num_chunks, one, unit.full(shape, 0.0))
            plgpu.commit_smem()
            return total

        def by_heads(slot: Any, total: jax.Array) -> jax.Array:
            return unit.added(total, heads.at[slot], downs.at[slot])

        def by_wide(slot: Any, total: jax.Array) -> jax.Array:
            hidden = unit.added(unit.full((ROWS, CHUNK), 0.0), norm, ups.at[slot])
            hidden = gelu(hidden.astype(dtype).astype(jnp.float32))
            return unit.added(total, hidden.astype(dtype), downs.at[slot])

        plgpu.copy_gmem_to_smem(x_ref.at[at], stream, ready.at[0])
        total = through(fetch_output, width // CHUNK, by_heads)
        plgpu.barrier_wait(ready.at[0])
        now = unit.tile(stream).astype(jnp.float32) + total.astype(dtype).astype(jnp.float32)
        now = now.astype(dtype).astype(jnp.float32)
        square = jnp.sum(now * now, axis=1) * (1.0 / width)
        scales = lax.broadcast_in_dim(unit.load(scale, (pl.ds(0, width),), 1), shape, [1])
        norm[...] = (now * lax.broadcast_in_dim(lax.rsqrt(square + EPSILON), shape, [0]) * scales).astype(
            dtype
        )
        stream[...] = now.astype(dtype)
        plgpu.commit_smem()
        total = through(fetch_wide, wide // CHUNK, by_wide)
        now = unit.tile(stream).astype(jnp.float32) + total.astype(dtype).astype(jnp.float32)
        plgpu.commit_smem()
        stream[...] = now.astype(dtype)
        plgpu.commit_smem()
        plgpu.copy_smem_to_gmem(stream, out.at[at])
        plgpu.wait_smem_to_gmem(0)

    scratch = [
        unit.shared(shape, dtype),
        unit.shared((2, ROWS, CHUNK), dtype),
        unit.shared(shape, dtype),
        unit.shared((2, width, CHUNK), dtype),
        unit.shared((2, CHUNK, width), dtype),
        plgpu.Barrier(num_barriers=1),
        plgpu.Barrier(num_barriers=2, num_arrivals=2),
    ]
    return plgpu.kernel(
        kernel,
        out_type=jax.ShapeDtypeStruct(x.shape, dtype),
        scratch_types=scratch,
        grid=(num_rows // ROWS,),
        grid_names=("tiles",),
        **unit.options,
    )(x, mixed, *weights)
