"""Attention over tiles on a TPU, or in the interpreter of any machine: `[B, H, L, D]` in whole tiles.

The grid goes along the list of tiles last: a tile's sums stay in memory of the core until its list ends.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from kernels.attention.reference import HIDDEN
from kernels.attention.tiles import TPU_TILE as TILE
from kernels.attention.tiles import Lists, Side, Visible
from kernels.mapping import split

Pair = tuple[jax.Array, jax.Array]


def forward(visible: Visible, lists: Lists, queries: Side, keys: Side, *, interpret: bool) -> Pair:
    """Attention `[B, H, Lq, D]` and the logarithm of its weights' sum `[B, H, Lq, 1]` float32.

    Arrays are `[query]` and `[key, value]`, all `[B, H, L, D]`, numbers `[B, H, L, 1]`.
    """

    def step(at: "_At", sums: list) -> list:
        (query,), (key, value) = at.fixed.arrays, at.moving.arrays
        total, largest, mixed = sums
        logits = jnp.where(at.seen, _product(query, key, (1, 1)) * _scale(query), HIDDEN)
        top = jnp.maximum(largest, jnp.max(logits, axis=1, keepdims=True))
        weights = jnp.where(at.seen, jnp.exp(logits - top), 0.0)
        fade = jnp.exp(largest - top)
        total = fade * total + jnp.sum(weights, axis=1, keepdims=True)
        return [total, top, fade * mixed + _product(weights.astype(value.dtype), value, (1, 0))]

    def finish(sums: list) -> list:
        total, largest, mixed = sums
        known = jnp.where(total > 0.0, total, 1.0)
        return [mixed / known, largest + jnp.log(known)]

    query = queries.arrays[0]
    begin = [(1, 0.0), (1, HIDDEN), (query.shape[-1], 0.0)]
    outputs = [query, jax.ShapeDtypeStruct((*query.shape[:3], 1), jnp.float32)]
    return _launch(step, finish, begin, visible, lists, queries, keys, outputs, interpret)


def gradient_of_queries(
    visible: Visible, lists: Lists, queries: Side, keys: Side, *, interpret: bool
) -> jax.Array:
    """The cotangent `[B, H, Lq, D]`; arrays are `[query, cotangent]` and `[key, value]`.

    Numbers are of queries: `[log sum, delta]`.
    """

    def step(at: "_At", sums: list) -> list:
        key = at.moving.arrays[0]
        _, slope = _slopes(at.seen, *at.fixed.arrays, *at.moving.arrays, *at.fixed.numbers)
        return [sums[0] + _product(slope.astype(key.dtype), key, (1, 0))]

    query = queries.arrays[0]
    begin = [(query.shape[-1], 0.0)]
    return _launch(step, list, begin, visible, lists, queries, keys, [query], interpret)[0]


def gradient_of_keys(visible: Visible, lists: Lists, queries: Side, keys: Side, *, interpret: bool) -> Pair:
    """The cotangents `[B, H, Lk, D]` of keys and of values; as `gradient_of_queries`.

    `lists` are of the queries' tiles, by tile of keys.
    """

    def step(at: "_At", sums: list) -> list:
        query, cotangent = at.moving.arrays
        weights, slope = _slopes(at.seen, *at.moving.arrays, *at.fixed.arrays, *at.moving.numbers)
        of_key = _product(slope.T.astype(query.dtype), query, (1, 0))
        of_value = _product(weights.T.astype(query.dtype), cotangent, (1, 0))
        return [sums[0] + of_key, sums[1] + of_value]

    key, value = keys.arrays
    begin = [(key.shape[-1], 0.0), (value.shape[-1], 0.0)]
    return tuple(
        _launch(step, list, begin, visible, lists, queries, keys, [key, value], interpret, by_keys=True)
    )


def _slopes(
    seen: jax.Array,
    query: jax.Array,
    cotangent: jax.Array,
    key: jax.Array,
    value: jax.Array,
    log_sum: jax.Array,
    delta: jax.Array,
) -> Pair:
    """Weights of a tile's pairs, and the cotangents of their products, both `[Lq, Lk]`."""
    scale = _scale(query)
    logits = _product(query, key, (1, 1)) * scale
    weights = jnp.where(seen, jnp.exp(logits - log_sum), 0.0)
    return weights, weights * (_product(cotangent, value, (1, 1)) - delta) * scale


def _product(a: jax.Array, b: jax.Array, contracted: tuple[int, int]) -> jax.Array:
    exact = lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    dims = (((contracted[0],), (contracted[1],)), ((), ()))
    return lax.dot_general(a, b, dims, precision=exact, preferred_element_type=jnp.float32)


def _scale(query: jax.Array) -> float:
    return query.shape[-1] ** -0.5


class _At(NamedTuple):
    """What a step sees."""

    fixed: Side
    moving: Side
    seen: jax.Array  # [Lq, Lk]


def _launch(
    step: Callable[[_At, list], list],
    finish: Callable[[list], list],
    begin: list[tuple[int, float]],
    visible: Visible,
    lists: Lists,
    queries: Side,
    keys: Side,
    outputs: list,
    interpret: bool,
    by_keys: bool = False,
) -> list:
    """Sums `[TILE, width]` from `begin` over every tile's list, one launch; `by_keys`: a tile is of keys."""
    fixed, moving = (keys, queries) if by_keys else (queries, keys)
    batch_size, num_heads = fixed.arrays[0].shape[:2]
    num_fixed, longest = lists.which.shape[1:]
    counts = [len(part) for side in (fixed, moving) for part in side]

    def kernel(which: Any, count: Any, *refs: Any) -> None:
        *parts, outs, sums = split(refs, [*counts, len(outputs)])
        sides = [Side(*parts[:3]), Side(*parts[3:])]
        batch, tile, place = pl.program_id(0), pl.program_id(2), pl.program_id(3)
        row = lax.rem(batch, lists.which.shape[0])

        @pl.when(place == 0)
        def _() -> None:
            for ref, (_, value) in zip(sums, begin, strict=True):
                ref[...] = jnp.full(ref.shape, value, jnp.float32)

        @pl.when(place < count[row, tile])
        def _() -> None:
            key_tile = tile if by_keys else which[row, tile, place]
            at = _read(visible, sides, key_tile, by_keys)
            found = step(at, [ref[...] for ref in sums])
            for ref, value in zip(sums, found, strict=True):
                ref[...] = value

        @pl.when(place == longest - 1)
        def _() -> None:
            for ref, value in zip(outs, finish([ref[...] for ref in sums]), strict=True):
                ref[0, 0] = value.astype(ref.dtype)

    def here(batch: Any, tile: Any, place: Any, which: Any, count: Any, *, is_fixed: bool) -> Any:
        # Past the list's end its last tile stays: nothing is loaded.
        row = lax.rem(batch, lists.which.shape[0])
        end = jnp.maximum(count[row, tile] - 1, 0)
        return tile if is_fixed else which[row, tile, jnp.minimum(place, end)]

    def spec(x: jax.Array, is_fixed: bool, kind: str) -> pl.BlockSpec:
        def of_array(b: Any, h: Any, t: Any, i: Any, *given: Any) -> tuple:
            return b, h, here(b, t, i, *given, is_fixed=is_fixed), 0

        def of_column(b: Any, h: Any, t: Any, i: Any, *given: Any) -> tuple:
            return lax.rem(b, x.shape[0]), here(b, t, i, *given, is_fixed=is_fixed), 0

        def of_row(b: Any, h: Any, t: Any, i: Any, *given: Any) -> tuple:
            return lax.rem(b, x.shape[0]), 0, here(b, t, i, *given, is_fixed=is_fixed)

        if kind == "array":
            return pl.BlockSpec((1, 1, TILE, x.shape[-1]), of_array)
        return (
            pl.BlockSpec((1, TILE, 1), of_column) if kind == "column" else pl.BlockSpec((1, 1, TILE), of_row)
        )

    specs, operands = [], []
    for side, is_fixed in ((fixed, True), (moving, False)):
        kind = "column" if side is queries else "row"
        specs += [spec(x, is_fixed, "array") for x in [*side.arrays, *side.numbers]]
        specs += [spec(x, is_fixed, kind) for x in side.ids]
        operands += [*side.arrays, *side.numbers]
        operands += [x[:, :, None] if kind == "column" else x[:, None, :] for x in side.ids]
    grid = pltpu.PrefetchScalarGridSpec(
        num_scalar_prefetch=2,
        grid=(batch_size, num_heads, num_fixed, longest),
        in_specs=specs,
        out_specs=[spec(x, True, "array") for x in outputs],
        scratch_shapes=[pltpu.VMEM((TILE, width), jnp.float32) for width, _ in begin],
    )
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in outputs]
    run = pl.pallas_call(kernel, grid_spec=grid, out_shape=shapes, interpret=interpret)
    return run(lists.which, lists.count, *operands)


def _read(visible: Visible, sides: list[Side], key_tile: Any, by_keys: bool) -> _At:
    loaded = [
        Side(
            [ref[0, 0] for ref in side.arrays],
            [ref[0, 0] for ref in side.numbers],
            [ref[0] for ref in side.ids],
        )
        for side in sides
    ]
    query, key = reversed(loaded) if by_keys else loaded
    place = key_tile * TILE + lax.broadcasted_iota(jnp.int32, (1, TILE), 1)
    seen = jnp.broadcast_to(visible(query.ids, key.ids, place), (TILE, TILE))
    return _At(*loaded, seen)
