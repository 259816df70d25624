"""What a warpgroup does with a tile on Mosaic GPU: its matrix unit, and how its registers lie.

A value of functions, so that the algorithm can run with plain arrays in the GPU's interpreter, which has no
matrix unit.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl


class Unit(NamedTuple):
    """Parts of a kernel; a number a row of a tile, or a column, is `[n]`."""

    product: Callable[[Any, Any], jax.Array]  # `a @ b.T` of tiles in shared memory
    added: Callable[[jax.Array, Any, Any], jax.Array]  # `sums + a @ b`, b in shared memory, a there or not
    load: Callable[[Any, tuple, int], jax.Array]  # numbers along an axis of a tile, from memory
    tile: Callable[[Any], jax.Array]  # of shared memory, as a product's sums lie
    full: Callable[[tuple[int, ...], float], jax.Array]  # a tile, or a number a row
    place: Callable[[tuple[int, int], int], jax.Array]  # of every pair of a tile along an axis
    shared: Callable[[tuple[int, ...], Any], Any]  # tiles in shared memory
    options: dict[str, Any]  # of `plgpu.kernel`


def hopper() -> Unit:
    """That of Hopper: asynchronous products of warpgroups."""
    from jax.experimental.pallas import mosaic_gpu as plgpu  # not with every build of JAX

    is_before_11 = jax.__version_info__ < (0, 11)  # references have no transposes, and `load` takes an index
    all_of_it = ((),) if is_before_11 else ()

    def product(a: Any, b: Any) -> jax.Array:
        def multiply(sums: Any) -> jax.Array:
            plgpu.wgmma(sums, a, plgpu.transpose_ref(b, (1, 0)) if is_before_11 else b.T)
            return sums[...]

        return pl.run_scoped(multiply, plgpu.ACC((a.shape[0], b.shape[0]), jnp.float32))

    def added(sums: jax.Array, a: Any, b: Any) -> jax.Array:
        return pl.run_state(lambda ref: plgpu.wgmma(ref, a, b))(plgpu.ACC.init(sums))

    def load(ref: Any, at: tuple, axis: int) -> jax.Array:
        layout = plgpu.Layout.WGMMA.reduce(1 - axis)
        return plgpu.load(ref.at[at], *all_of_it, layout=layout, optimized=False)

    def tile(ref: Any) -> jax.Array:
        return plgpu.load(ref, *all_of_it, layout=plgpu.Layout.WGMMA)

    def full(shape: tuple[int, ...], value: float) -> jax.Array:
        layout = plgpu.Layout.WGMMA if len(shape) > 1 else plgpu.Layout.WGMMA.reduce(1)
        return plgpu.layout_cast(jnp.full(shape, value, jnp.float32), layout)

    def place(shape: tuple[int, int], axis: int) -> jax.Array:
        return plgpu.broadcasted_iota(jnp.int32, shape, axis, layout=plgpu.Layout.WGMMA)

    def shared(shape: tuple[int, ...], dtype: Any) -> Any:
        swizzle = min(128, shape[-1] * 2)
        transforms = (plgpu.TilingTransform((8, swizzle // 2)), plgpu.SwizzleTransform(swizzle))
        return plgpu.SMEM(shape, dtype, transforms=transforms)

    # Threads, whose registers lie as said here; JAX 0.11 would infer it.
    semantics = plgpu.LoweringSemantics.Lane
    options = {"compiler_params": plgpu.CompilerParams(approx_math=True, lowering_semantics=semantics)}
    return Unit(product, added, load, tile, full, place, shared, options)


def plain(interpret: Any) -> Unit:
    """That of an interpreter."""
    from jax.experimental.pallas import mosaic_gpu as plgpu

    def product(a: Any, b: Any) -> jax.Array:
        return jnp.dot(a[...], b[...].T, preferred_element_type=jnp.float32)

    def added(sums: jax.Array, a: Any, b: Any) -> jax.Array:
        return sums + jnp.dot(a[...], b[...], preferred_element_type=jnp.float32)

    def full(shape: tuple[int, ...], value: float) -> jax.Array:
        return jnp.full(shape, value, jnp.float32)

    def place(shape: tuple[int, int], axis: int) -> jax.Array:
        return jax.lax.broadcasted_iota(jnp.int32, shape, axis)

    return Unit(
        product=product,
        added=added,
        load=lambda ref, at, axis: ref[at],
        tile=lambda ref: ref[...],
        full=full,
        place=place,
        shared=plgpu.SMEM,
        options={"interpret": interpret},
    )
