"""Sequence objectives on logits and tokens."""

import jax
import jax.numpy as jnp

from jaxagent.tokens import scalar


def next_token(logits: jax.Array, tokens: jax.Array, weight: jax.Array) -> jax.Array:
    """Mean cross-entropy `[]` (nats) of each token given those before it.

    `logits [B, L, V]` read after each token, `tokens [B, L]` int, `weight [B, L]` of token l *as a
    target* (0 drops it; the first token is never a target). A batch without weight gives 0.
    """
    targets = tokens[:, 1:, None].astype(jnp.int32)
    log_probs = jax.nn.log_softmax(logits[:, :-1])
    nll = -jnp.take_along_axis(log_probs, targets, axis=-1)[..., 0]
    weight = weight[:, 1:].astype(nll.dtype)
    total = jnp.sum(weight)
    return jnp.sum(nll * weight) / jnp.where(total > 0.0, total, 1.0)


def scalar_loss(predicted: jax.Array, unit: jax.Array, values: str) -> jax.Array:
    """Loss `[...]` of each scalar `unit [...]`, places in the tokenizer's warped space.

    "bins": cross-entropy (nats) of its bin under logits `[..., V]`; "two_hot": cross-entropy with
    the weights of its two nearest bins; "reals": squared error of the prediction `[...]`.
    """
    if values == "reals":
        return jnp.square(predicted - unit)
    log_probs = jax.nn.log_softmax(predicted)
    num_bins = predicted.shape[-1]

    def at(index: jax.Array) -> jax.Array:
        return jnp.take_along_axis(log_probs, index[..., None], axis=-1)[..., 0]

    if values == "bins":
        return -at(scalar.bin_of(unit, num_bins))
    lower, weight = scalar.two_hot(unit, num_bins)
    return -((1.0 - weight) * at(lower) + weight * at(lower + 1))


def expected_unit(predicted: jax.Array, values: str) -> jax.Array:
    """The mean place `[...]` in the warped space under logits `[..., V]`; reals `[...]` are clipped."""
    if values == "reals":
        return jnp.clip(predicted, -1.0, 1.0)
    centres = scalar.unit_centres(predicted.shape[-1])
    return jax.nn.softmax(predicted) @ centres


def weighted_mean(x: jax.Array, weight: jax.Array) -> jax.Array:
    """Mean `[]` of `x [...]` under `weight [...]` of the same shape; 0 where nothing has weight."""
    weight = weight.astype(x.dtype)
    total = jnp.sum(weight)
    return jnp.sum(x * weight) / jnp.where(total > 0.0, total, 1.0)
