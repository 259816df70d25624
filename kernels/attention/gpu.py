"""Attention over tiles on Mosaic GPU (Hopper): `[B, L, H, D]` in whole tiles, of 16 bits.

One warpgroup a tile multiplies from shared memory while the next tile of its list is on the way; several
of them share a multiprocessor, so that one's exponentials run beside another's products.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from kernels.attention.reference import HIDDEN
from kernels.attention.tiles import GPU_TILE as TILE
from kernels.attention.tiles import Lists, Side, Visible
from kernels.mapping import split
from kernels.warpgroup import Unit

LOG2E = math.log2(math.e)  # the GPU has powers of two alone
PAIRS = (TILE, TILE)
Both = tuple[jax.Array, jax.Array]


class At(NamedTuple):
    """What a step sees: tiles in shared memory `[TILE, D]`, and numbers spread over its pairs."""

    fixed: list
    moving: list
    numbers: list  # [TILE, TILE]
    seen: jax.Array  # [TILE, TILE]


class Call(NamedTuple):
    """What all launches of a pass share; `lists` are of the tiles that move."""

    unit: Unit
    visible: Visible
    lists: Lists
    queries: Side  # [B, L, H, D], [B, H, L] and [B or 1, L]
    keys: Side


def forward(call: Call) -> Both:
    """Attention `[B, Lq, H, D]` and the logarithm of its weights' sum `[B, H, Lq]` float32.

    Arrays are `[query]` and `[key, value]`.
    """
    (query,), unit = call.queries.arrays, call.unit
    batch_size, length, num_heads, width = query.shape

    def step(at: At, sums: list) -> list:
        total, largest, mixed = sums
        logits = unit.product(at.fixed[0], at.moving[0]) * (LOG2E * width**-0.5)
        logits = jnp.where(at.seen, logits, HIDDEN)
        top = jnp.maximum(largest, jnp.max(logits, axis=1))
        weights = jnp.where(at.seen, jnp.exp2(logits - _rows(top, logits)), 0.0)
        fade = jnp.exp2(largest - top)
        total = total * fade + jnp.sum(weights, axis=1)
        return [total, top, unit.added(mixed * _rows(fade, mixed), weights.astype(query.dtype), at.moving[1])]

    def finish(sums: list) -> list:
        total, largest, mixed = sums
        known = jnp.where(total > 0.0, total, 1.0)
        return [mixed / _rows(known, mixed), largest * (1.0 / LOG2E) + jnp.log(known)]

    begin = [((TILE,), 0.0), ((TILE,), HIDDEN), ((TILE, width), 0.0)]
    numbers = jax.ShapeDtypeStruct((batch_size, num_heads, length), jnp.float32)
    return tuple(_launch(call, step, finish, begin, [query, numbers]))


def gradient_of_queries(call: Call) -> jax.Array:
    """The cotangent `[B, Lq, H, D]`; arrays are `[query, cotangent]` and `[key, value]`.

    Numbers are of queries: `[log sum, delta]`.
    """
    query, width = call.queries.arrays[0], call.queries.arrays[0].shape[-1]

    def step(at: At, sums: list) -> list:
        _, slope = _slopes(call.unit, at, width)
        return [call.unit.added(sums[0], slope.astype(query.dtype), at.moving[0])]

    return _launch(call, step, list, [((TILE, width), 0.0)], [query])[0]


def gradient_of_keys(call: Call) -> Both:
    """The cotangents `[B, Lk, H, D]` of keys and of values; as `gradient_of_queries`.

    Lists are of queries' tiles by tile of keys; pairs are turned, `[keys, queries]`.
    """
    key, value = call.keys.arrays

    def step(at: At, sums: list) -> list:
        weights, slope = _slopes(call.unit, at, key.shape[-1])
        of_key = call.unit.added(sums[0], slope.astype(key.dtype), at.moving[0])
        return [of_key, call.unit.added(sums[1], weights.astype(key.dtype), at.moving[1])]

    begin = [((TILE, key.shape[-1]), 0.0)] * 2
    return tuple(_launch(call, step, list, begin, [key, value], by_keys=True))


def _slopes(unit: Unit, at: At, width: int) -> Both:
    """Weights of a tile's pairs, and the cotangents of their products."""
    log_sum, delta = at.numbers
    logits, slope = (unit.product(a, b) for a, b in zip(at.fixed, at.moving, strict=True))
    weights = jnp.exp2(logits * (LOG2E * width**-0.5) - log_sum * LOG2E)
    weights = jnp.where(at.seen, weights, 0.0)
    return weights, weights * (slope - delta) * width**-0.5


def _rows(x: jax.Array, like: jax.Array) -> jax.Array:
    return lax.broadcast_in_dim(x, like.shape, [0])


def _launch(
    call: Call,
    step: Callable[[At, list], list],
    finish: Callable[[list], list],
    begin: list[tuple[tuple[int, ...], float]],
    outputs: list,
    by_keys: bool = False,
) -> list:
    """Sums `[TILE, width]`, or `[TILE]`, over every tile's list, one launch; `by_keys`: a tile is of keys."""
    from jax.experimental.pallas import mosaic_gpu as plgpu

    fixed, moving = (call.keys, call.queries) if by_keys else (call.queries, call.keys)
    unit, counts = call.unit, [len(part) for side in (fixed, moving) for part in side]

    def kernel(*refs: Any) -> None:
        given, (which, count), outs, (tiles, ring, ready, arrived) = split(
            refs, [sum(counts), 2, len(outputs)]
        )
        parts = split(given, counts)
        here, there = Side(*parts[:3]), Side(*parts[3:6])
        batch, head, tile = (lax.axis_index(name) for name in ("batch", "heads", "tiles"))
        row = lax.rem(batch, call.lists.which.shape[0])
        total = count[row, tile]

        def fetch(refs: list, number: Any, to: list, barrier: Any) -> None:
            for ref, buffer in zip(refs, to, strict=True):
                at = ref.at[batch, pl.ds(number * TILE, TILE), head]
                plgpu.copy_gmem_to_smem(at, buffer, barrier)

        def fetch_next(i: Any) -> None:
            slot = lax.rem(i, 2)
            fetch(there.arrays, which[row, tile, i], [ref.at[slot] for ref in ring], arrived.at[slot])

        def spread(side: Side, number: Any, axis: int) -> tuple[list, list]:
            """Numbers and ids of a tile, over all its pairs."""
            at = pl.ds(number * TILE, TILE)
            loaded = [
                [unit.load(ref, (batch, head, at), axis) for ref in side.numbers],
                [unit.load(ref, (lax.rem(batch, ref.shape[0]), at), axis) for ref in side.ids],
            ]
            return tuple([lax.broadcast_in_dim(x, PAIRS, [axis]) for x in of] for of in loaded)

        fetch(here.arrays, tile, tiles, ready.at[0])
        pl.when(total > 0)(partial(fetch_next, 0))
        plgpu.barrier_wait(ready.at[0])
        own_numbers, own_ids = spread(here, tile, 0)

        def one(i: Any, sums: list) -> list:
            slot, number = lax.rem(i, 2), which[row, tile, i]
            # The other slot is free once all four warps are done with it.
            plgpu.commit_smem()
            pl.when(i + 1 < total)(lambda: fetch_next(i + 1))
            numbers, ids = spread(there, number, 1)
            plgpu.barrier_wait(arrived.at[slot])
            place = unit.place(PAIRS, 0 if by_keys else 1) + (tile if by_keys else number) * TILE
            both = (ids, own_ids) if by_keys else (own_ids, ids)
            seen = call.visible(*both, place)
            return step(At(tiles, [ref.at[slot] for ref in ring], [*own_numbers, *numbers], seen), sums)

        sums = lax.fori_loop(0, total, one, [unit.full(*of) for of in begin])
        plgpu.commit_smem()
        _write(finish(sums), outs, tiles, (batch, head, tile))

    batch_size, length, num_heads, width = fixed.arrays[0].shape
    dtype = fixed.arrays[0].dtype
    scratch = [
        [unit.shared((TILE, width), dtype)] * len(fixed.arrays),
        [unit.shared((2, TILE, width), dtype)] * len(moving.arrays),
        plgpu.Barrier(num_barriers=1, num_arrivals=len(fixed.arrays)),
        plgpu.Barrier(num_barriers=2, num_arrivals=len(moving.arrays)),
    ]
    run = plgpu.kernel(
        kernel,
        out_type=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in outputs],
        scratch_types=scratch,
        grid=(num_heads, length // TILE, batch_size),
        grid_names=("heads", "tiles", "batch"),
        **unit.options,
    )
    return run(*[x for side in (fixed, moving) for part in side for x in part], *call.lists)


def _write(found: list, outs: list, tiles: list, place: tuple) -> None:
    """Outputs of a tile, by way of the shared memory that its own arrays no longer need."""
    from jax.experimental.pallas import mosaic_gpu as plgpu

    batch, head, tile = place
    at = pl.ds(tile * TILE, TILE)
    arrays = [(value, ref) for value, ref in zip(found, outs, strict=True) if value.ndim == 2]
    for (value, ref), buffer in zip(arrays, tiles, strict=False):
        buffer[...] = value.astype(ref.dtype)
    plgpu.commit_smem()
    for (_, ref), buffer in zip(arrays, tiles, strict=False):
        plgpu.copy_smem_to_gmem(buffer, ref.at[batch, at, head])
    for value, ref in zip(found, outs, strict=True):
        if value.ndim == 1:
            ref[batch, head, at] = value
    plgpu.wait_smem_to_gmem(0)
