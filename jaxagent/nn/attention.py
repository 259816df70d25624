"""Attention: masks from ids, rotary positions over time, an explicit key-value cache."""

import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kernels import attention as kernel
from kernels.attention.masks import Sight, both, either, ordered, recent, same, since, table

ROTARY_BASE = 10_000.0
BAND_BLOCKS = 4  # 8 and more are slower again: their products are small
BAND_ROWS = 24  # queries of a block, at least
HIDDEN = -1e30  # a logit whose weight is 0 beside any other
NEVER = -(2**30)  # the order of an empty cache slot: before everything


class Cache(NamedTuple):
    """Keys and values of past tokens in a ring of `context + 1` transitions, lanes in lockstep."""

    keys: jax.Array  # [layers, B, slots, H, D / H]
    values: jax.Array  # [layers, B, slots, H, D / H]
    order: jax.Array  # [slots] int32: place of the slot's token in the stream, or NEVER
    token_time: jax.Array  # [slots] int32: env step of the slot's token, or NEVER
    start: jax.Array  # [B] int32: time at which each lane's episode began; older slots are unseen
    time: jax.Array  # [] int32: env steps since the cache was made


class Past(NamedTuple):
    """One layer's cached keys and values, and the slot that its next tokens go to."""

    keys: jax.Array  # [B, slots, H, D / H]
    values: jax.Array  # [B, slots, H, D / H]
    slot: jax.Array | None  # [] int32: of the first new token; None: they go behind, `[B, slots + L]`


class Band(NamedTuple):
    """The keys that queries may see, as a promise of their mask, which hides all others."""

    lead: int = 0  # keys before the first query: query i is itself key `lead + i` and sees none later
    reach: int | None = None  # how many keys before its own the first is that it sees; None: any


CAUSAL = Band()


def init_cache(
    num_layers: int, batch_size: int, slots: int, num_heads: int, head_size: int, dtype: jnp.dtype
) -> Cache:
    """An empty cache of `batch_size` lanes; fields as in `Cache`, `head_size` is D / H."""
    shape = (num_layers, batch_size, slots, num_heads, head_size)
    return Cache(
        keys=jnp.zeros(shape, dtype),
        values=jnp.zeros(shape, dtype),
        order=jnp.full((slots,), NEVER, jnp.int32),
        token_time=jnp.full((slots,), NEVER, jnp.int32),
        start=jnp.zeros((batch_size,), jnp.int32),
        time=jnp.zeros((), jnp.int32),
    )


def mark(cache: Cache, order: jax.Array, time: jax.Array, slot: jax.Array) -> Cache:
    """Note in which slots, from `slot []` on, new tokens go: their `order` and `time`, int32 `[L]`."""
    update = jax.lax.dynamic_update_slice
    return cache._replace(
        order=update(cache.order, order, (slot,)), token_time=update(cache.token_time, time, (slot,))
    )


def remember(past: Past | None, key: jax.Array, value: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Keys and values to attend to: the new ones, written into the past where there is one.

    `key` and `value` are `[B, L, H, D / H]`, and so are the results, or with the past's slots.
    """
    if past is None:
        return key, value
    if past.slot is None:
        return jnp.concatenate([past.keys, key], axis=1), jnp.concatenate([past.values, value], axis=1)
    start = (0, past.slot, 0, 0)
    return (
        jax.lax.dynamic_update_slice(past.keys, key, start),
        jax.lax.dynamic_update_slice(past.values, value, start),
    )


def window(
    query_order: jax.Array, query_time: jax.Array, key_order: jax.Array, key_time: jax.Array, context: int
) -> Sight:
    """Causal and within the last `context` transitions, of ids int32 `[Lq]` and `[Lk]`."""
    is_past = ordered(query_order[None], key_order[None])
    return both(is_past, recent(query_time[None], key_time[None], context))


def within_segment(sight: Sight, query_segment: jax.Array, key_segment: jax.Array) -> Sight:
    """What is seen of the query's own segment, `[B, Lq]` and `[B, Lk]` int32; a token always sees itself.

    The last queries are the last keys.
    """
    (num_queries, num_keys) = query_segment.shape[1], key_segment.shape[1]
    place = jnp.arange(num_keys, dtype=jnp.int32)[None]
    itself = same(place[:, num_keys - num_queries :], place)
    return either(both(sight, same(query_segment, key_segment)), itself)


def cache_mask(cache: Cache, order: jax.Array, time: jax.Array, context: int) -> Sight:
    """Slots that new tokens, ids `[L]`, already in the cache, may see: `[B, L]` by `[B, slots]`.

    A token always sees itself, also the last action of an episode that is over: nobody sees it.
    """
    visible = window(order, time, cache.order, cache.token_time, context)
    start = jnp.broadcast_to(cache.start[:, None], (cache.start.shape[0], order.shape[0]))
    in_episode = since(start, cache.token_time[None])
    return either(both(visible, in_episode), same(order[None], cache.order[None]))


def rotary(x: jax.Array, time: jax.Array) -> jax.Array:
    """Rotate `x [B, L, H, D]` by its time `[L]` (RoFormer, Su et al. 2021, eq. 34).

    Only differences of time reach the logits, so the clock may start anywhere. Turns are counted in
    units of 2^-32, which wrap as angles do: no time is too late, where float32 angles err by 6e-8 of it.
    """
    half = x.shape[-1] // 2
    turns = ROTARY_BASE ** (-np.arange(half) / half) / (2.0 * math.pi)
    phase = time.astype(jnp.uint32)[:, None] * np.round(turns * 2.0**32).astype(np.uint32)[None]
    # The highest 24 bits are what float32 holds exactly.
    angle = (phase >> 8).astype(jnp.float32) * (2.0 * math.pi / 2.0**24)
    # Kept from the product below, into which XLA would pull it: once a lane and head (acting with a
    # small model on two cores took 1.6 times as long).
    cos, sin = jax.lax.optimization_barrier((jnp.cos(angle), jnp.sin(angle)))
    cos, sin = (part[None, :, None, :].astype(x.dtype) for part in (cos, sin))
    first, second = x[..., :half], x[..., half:]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def attend(query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array) -> jax.Array:
    """Softmax attention: `[B, Lq, H, D]` from keys and values `[B, Lk, H, D]`, mask `[B, Lq, Lk]`.

    Every query must see at least one key (itself).
    """
    query, key, value = (jnp.moveaxis(x, 2, 1) for x in (query, key, value))
    scale = query.shape[-1] ** -0.5
    logits = jnp.einsum("bhqd,bhkd->bhqk", query * scale, key).astype(jnp.float32)
    # Added, not selected: the backward pass need not read the mask again. Divided at last, as there are
    # fewer outputs than weights (2.1 times as fast forward, 1.2 with the gradient, on two cores).
    logits = logits + jnp.where(mask, 0.0, HIDDEN)[:, None]
    weights = jnp.exp(logits - jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True)))
    mixed = jnp.einsum("bhqk,bhkd->bhqd", weights.astype(value.dtype), value)
    mixed = mixed / jnp.sum(weights, axis=-1)[..., None].astype(value.dtype)
    return jnp.moveaxis(mixed, 1, 2)


def attend_linearly(query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array) -> jax.Array:
    """Attention without the softmax: the mean of `(q . k / sqrt D) v` over the keys seen.

    `[B, Lq, H, D]` from keys and values `[B, Lk, H, D]`, mask `[B, Lq, Lk]`. A mean rather than a
    sum keeps its size as a prompt grows.
    """
    scale = query.shape[-1] ** -0.5
    weights = jnp.einsum("bqhd,bkhd->bhqk", query, key) * scale
    num_seen = jnp.sum(mask, axis=-1, keepdims=True, dtype=weights.dtype)[:, None]
    weights = jnp.where(mask[:, None], weights, 0.0) / num_seen
    return jnp.einsum("bhqk,bkhd->bqhd", weights.astype(value.dtype), value)


KINDS = {"softmax": attend, "linear": attend_linearly}


def laid_out(kind: str, mask: jax.Array | Sight, dtype: jnp.dtype, head_size: int) -> jax.Array | Sight:
    """A mask as layers of a kind read it: bool `[B or 1, Lq, Lk]`, or as it is where a kernel reads ids."""
    if not isinstance(mask, Sight):
        return mask
    by_kernel = kind == "softmax" and kernel.chosen(dtype, head_size) != "xla"
    return mask if by_kernel else table(mask)


def mix(
    kind: str,
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array | Sight,
    band: Band | None = None,
) -> jax.Array:
    """Attention of one of `KINDS`: `[B, Lq, H, D]` from keys and values `[B, Lk, H, D]`.

    `mask` is `[B, Lq, Lk]`, or a sight, which a kernel reads. With a `band` queries go in blocks, each over
    the keys that it may see, and most of what is masked is never computed.
    """
    mask = laid_out(kind, mask, query.dtype, query.shape[-1])
    if isinstance(mask, Sight):
        return kernel.attention(query, key, value, mask)
    length = query.shape[1]
    num_blocks = min(BAND_BLOCKS, length // BAND_ROWS)
    if band is None or num_blocks < 2:
        return KINDS[kind](query, key, value, mask)
    blocks = []
    for a, b in itertools.pairwise(length * i // num_blocks for i in range(num_blocks + 1)):
        first = 0 if band.reach is None else max(0, band.lead + a - band.reach)
        seen = slice(first, band.lead + b)
        blocks.append(KINDS[kind](query[:, a:b], key[:, seen], value[:, seen], mask[:, a:b, seen]))
    return jnp.concatenate(blocks, axis=1)
