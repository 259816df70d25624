"""The specification of `kernels.attention`: all logits at once, `[B, H, Lq, Lk]`."""

import jax
import jax.numpy as jnp

from kernels.attention.masks import Sight, table

HIDDEN = -1e30  # a logit whose weight is 0 beside any other


def attention(query: jax.Array, key: jax.Array, value: jax.Array, sight: Sight) -> jax.Array:
    """Softmax attention `[B, Lq, H, D]`; 0 of a query that sees nothing. Shapes as in `kernels.attention`."""
    seen = table(sight)[:, None]
    query = query * jnp.asarray(query.shape[-1] ** -0.5, query.dtype)
    logits = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
    logits = jnp.where(seen, logits, HIDDEN)
    weights = jnp.where(seen, jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True, initial=HIDDEN)), 0.0)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    weights = weights / jnp.where(total > 0.0, total, 1.0)
    mixed = jnp.einsum(
        "bhqk,bkhd->bqhd", weights.astype(value.dtype), value, preferred_element_type=jnp.float32
    )
    return mixed.astype(query.dtype)
