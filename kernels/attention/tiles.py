"""Which tiles of queries and keys have a pair that is seen: all others are never loaded."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kernels.scan import elementwise

TPU_TILE = 128  # tokens of a tile: a register's lanes
GPU_TILE = 64  # the rows that one warpgroup multiplies


class Lists(NamedTuple):
    """By tile of one side, the tiles of the other that it meets, first ones first."""

    which: jax.Array  # [B or 1, n, m] int32
    count: jax.Array  # [B or 1, n] int32


class Side(NamedTuple):
    """What is known of queries or of keys."""

    arrays: list  # of D numbers a token and head
    numbers: list  # float32, of one
    ids: list  # [B or 1, L] int32


class Visible(NamedTuple):
    """The rule of a call; keys from `num_keys` on are padding, which nobody sees."""

    rule: Callable[[Any, Any], jax.Array]  # as `masks.Sight` has it
    query_tree: Any
    key_tree: Any
    num_keys: int

    def __call__(self, query: list, key: list, key_place: jax.Array) -> jax.Array:
        """Pairs that are seen, bool, of flat ids that broadcast."""

        def asked(query: list, key: list, place: jax.Array) -> jax.Array:
            trees = jax.tree.unflatten(self.query_tree, query), jax.tree.unflatten(self.key_tree, key)
            return jnp.asarray(self.rule(*trees), bool) & (place < self.num_keys)

        return elementwise.plain(asked, query, key, key_place)


def lists(visible: Visible, query: list, key: list, size: int) -> tuple[Lists, Lists]:
    """Keys' tiles by tile of queries, and the other way round; ids `[B or 1, L]` in whole tiles."""
    batch_size = max(x.shape[0] for x in [*query, *key])
    num_keys = key[0].shape[1]
    place = jnp.arange(num_keys, dtype=jnp.int32)[None]

    def split(x: jax.Array) -> jax.Array:
        return x.reshape(x.shape[0], -1, size)

    rows = [split(x)[:, :, None, :, None] for x in query]
    columns = [split(x)[:, None, :, None, :] for x in key]
    met = jnp.any(visible(rows, columns, split(place)[:, None, :, None, :]), axis=(3, 4))
    met = jnp.broadcast_to(met, (batch_size, *met.shape[1:]))
    return _listed(met), _listed(jnp.swapaxes(met, 1, 2))


def _listed(met: jax.Array) -> Lists:
    which = jnp.argsort(~met, axis=-1, stable=True).astype(jnp.int32)
    return Lists(which, jnp.sum(met, axis=-1, dtype=jnp.int32))
