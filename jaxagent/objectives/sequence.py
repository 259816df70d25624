"""Sequence objectives on logits and tokens."""

import jax
import jax.numpy as jnp


def next_token(logits: jax.Array, tokens: jax.Array, weight: jax.Array) -> jax.Array:
    """Mean cross-entropy (nats) of each token given those before it.

    `logits [B, L, V]` read after each token, `tokens [B, L]` int, `weight [B, L]` of token l *as a
    target* (0 drops it; the first token is never a target). A batch without weight gives 0.
    """
    targets = tokens[:, 1:, None].astype(jnp.int32)
    log_probs = jax.nn.log_softmax(logits[:, :-1])
    nll = -jnp.take_along_axis(log_probs, targets, axis=-1)[..., 0]
    weight = weight[:, 1:].astype(nll.dtype)
    total = jnp.sum(weight)
    return jnp.sum(nll * weight) / jnp.where(total > 0.0, total, 1.0)
