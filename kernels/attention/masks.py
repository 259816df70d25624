"""Who sees whom, as a rule of what is known of a query and of a key: no array of all pairs.

Rules combine by `both` and `either`. Causal attention, attention behind a prefix, in both directions and
block-causal attention are all `ordered`: they differ in the order that tokens are given (their place; 0
within the prefix; 0 everywhere; the number of their block).
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

WORD = 31  # blocks that one int32 names: its sign is not used
Rule = Callable[[Any, Any], jax.Array]  # (query, key) -> bool, of ids that broadcast


@partial(jax.tree_util.register_dataclass, data_fields=("query", "key"), meta_fields=("rule",))
@dataclasses.dataclass(frozen=True)
class Sight:
    """A rule, and the ids that it reads: leaves int32 `[B, L]`, or `[1, L]` for the whole batch."""

    rule: Rule
    query: Any  # [B or 1, Lq]
    key: Any  # [B or 1, Lk]


def table(sight: Sight) -> jax.Array:
    """Every pair, bool `[B or 1, Lq, Lk]`."""
    query = jax.tree.map(lambda x: x[:, :, None], sight.query)
    key = jax.tree.map(lambda x: x[:, None, :], sight.key)
    batch_size = max(x.shape[0] for x in jax.tree.leaves((query, key)))
    lengths = jax.tree.leaves(query)[0].shape[1], jax.tree.leaves(key)[0].shape[2]
    return jnp.broadcast_to(jnp.asarray(sight.rule(query, key), bool), (batch_size, *lengths))


# Rules are values that compare by what they are made of, so that jit knows them again.


@dataclasses.dataclass(frozen=True)
class _Both:
    first: Rule
    second: Rule

    def __call__(self, query: Any, key: Any) -> jax.Array:
        return self.first(query[0], key[0]) & self.second(query[1], key[1])


@dataclasses.dataclass(frozen=True)
class _Either:
    first: Rule
    second: Rule

    def __call__(self, query: Any, key: Any) -> jax.Array:
        return self.first(query[0], key[0]) | self.second(query[1], key[1])


@dataclasses.dataclass(frozen=True)
class _Recent:
    context: int

    def __call__(self, query: jax.Array, key: jax.Array) -> jax.Array:
        return query - key < self.context


def _not_later(query: jax.Array, key: jax.Array) -> jax.Array:
    return key <= query


def _not_before(query: jax.Array, key: jax.Array) -> jax.Array:
    return key >= query


def _equal(query: jax.Array, key: jax.Array) -> jax.Array:
    return key == query


def _more(query: jax.Array, key: jax.Array) -> jax.Array:
    return key > query


def both(a: Sight, b: Sight) -> Sight:
    """Pairs that each of two rules lets see."""
    return Sight(_Both(a.rule, b.rule), (a.query, b.query), (a.key, b.key))


def either(a: Sight, b: Sight) -> Sight:
    """Pairs that one of two rules lets see."""
    return Sight(_Either(a.rule, b.rule), (a.query, b.query), (a.key, b.key))


def ordered(query: jax.Array, key: jax.Array) -> Sight:
    """Keys that do not come later; `[B or 1, L]` each. Those of one order see each other."""
    return Sight(_not_later, query, key)


def since(query: jax.Array, key: jax.Array) -> Sight:
    """Keys that do not come before what each query names; `[B or 1, L]` each."""
    return Sight(_not_before, query, key)


def same(query: jax.Array, key: jax.Array) -> Sight:
    """Keys of the query's own segment (or token); `[B or 1, L]` each."""
    return Sight(_equal, query, key)


def recent(query: jax.Array, key: jax.Array, context: int) -> Sight:
    """Keys whose time is less than `context` before the query's; `[B or 1, L]` each."""
    return Sight(_Recent(context), query, key)


def those(num_queries: int, is_seen: jax.Array) -> Sight:
    """Some keys, bool `[B or 1, Lk]`, for all queries."""
    return Sight(_more, jnp.zeros((1, num_queries), jnp.int32), is_seen.astype(jnp.int32))


def causal(length: int) -> Sight:
    """Every token sees itself and those before it."""
    place = jnp.arange(length, dtype=jnp.int32)[None]
    return ordered(place, place)


def behind(length: int, prefix: jax.Array) -> Sight:
    """The first `prefix [B]` int32 tokens see each other, all others what came before them."""
    place = jnp.arange(length, dtype=jnp.int32)[None]
    order = jnp.maximum(place - prefix[:, None] + 1, 0)
    return ordered(order, order)


def everyone(length: int) -> Sight:
    """All tokens see each other."""
    place = jnp.zeros((1, length), jnp.int32)
    return ordered(place, place)


def blocks(seen: jax.Array, size: int, length: int) -> Sight:
    """Blocks of `size` tokens, of which block i sees block j where `seen [n, n]` bool.

    Raises ValueError where n blocks are too few for the length.
    """
    count = seen.shape[0]
    if seen.shape != (count, count) or count * size < length:
        got = f"{seen.shape} for {length} tokens in blocks of {size}"
        raise ValueError(f"blocks: got seen of shape {got}, expected a row and a column a block.")
    number = jnp.arange(length, dtype=jnp.int32) // size
    words = [seen[:, i : i + WORD].astype(jnp.int32) for i in range(0, count, WORD)]
    bits = [jnp.sum(w << jnp.arange(w.shape[1], dtype=jnp.int32)[None], axis=1) for w in words]
    return Sight(_selected, tuple(word[number][None] for word in bits), number[None])


def _selected(words: tuple[jax.Array, ...], number: jax.Array) -> jax.Array:
    """Whether a query's words name the block of a key."""
    found = False
    for i, word in enumerate(words):
        place = number - i * WORD
        bit = (word >> jnp.clip(place, 0, WORD - 1)) & 1
        found = found | ((place >= 0) & (place < WORD) & (bit == 1))
    return found
