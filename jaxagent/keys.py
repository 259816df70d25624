"""Randomness as a pure function of (seed, purpose, step): nothing to store, nothing to shift."""

import zlib

import jax


def derive(seed: int, purpose: str, step: int = 0) -> jax.Array:
    """Return the key `[]` of `purpose` at `step`; adding a purpose changes no other stream."""
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(purpose.encode()))
    return jax.random.fold_in(key, step)


def per_index(key: jax.Array, indices: jax.Array) -> jax.Array:
    """Fold each index `[N]` into `key`: keys `[N]` that do not depend on how many there are."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, indices)
