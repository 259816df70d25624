"""Sequence objectives on predictions of scalars."""

import jax
import jax.numpy as jnp

from jaxagent.tokens import component, scalar


def scalar_loss(
    predicted: jax.Array,
    unit: jax.Array,
    values: str,
    num_bins: int | None = None,
    sizes: tuple[int, ...] = (),
) -> jax.Array:
    """Loss `[...]` of each scalar `unit [...]`, places in the tokenizer's warped space.

    "bins": cross-entropy (nats) of its bin under logits `[..., V + K]`, of which `num_bins` are bins
    (all, if not said); "two_hot": cross-entropy with the weights of its two nearest bins; "reals":
    squared error of the prediction `[...]`. `sizes` are cardinalities along the last axis of `unit`,
    0 of a real: a category is its own token (`component.tokens_of`); (): all are reals.
    """
    if values == "reals":
        return jnp.square(predicted - unit)
    log_probs, num_bins = jax.nn.log_softmax(predicted), num_bins or predicted.shape[-1]

    def at(index: jax.Array) -> jax.Array:
        return jnp.take_along_axis(log_probs, index[..., None], axis=-1)[..., 0]

    if values == "bins":
        return -at(component.tokens_of(sizes, num_bins, unit))
    lower, weight = component.two_hot(sizes, num_bins, unit)
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
