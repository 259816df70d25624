"""Policies of lanes alone: every product is written out, as a lane has no matrix unit."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

LARGEST = 1024  # parameters, each a scalar that all lanes read
Layer = tuple[jax.Array, jax.Array]  # weights [n, m], bias [m]
Features = Sequence[jax.Array]  # n arrays [...]


def linear(layer: Layer) -> Callable[[Features], jax.Array]:
    """The best of m actions, int32 `[...]`, by scores that are linear in n features; as `perceptron`."""
    return perceptron([layer])


def perceptron(layers: Sequence[Layer]) -> Callable[[Features], jax.Array]:
    """The best of actions by a small perceptron with tanh between its layers; the first of equal ones.

    Raises ValueError for layers that do not follow each other, or of more than `LARGEST` parameters, and
    for other features than the first layer reads.
    """
    _check(layers)
    # Scalars, as a kernel reads them.
    parameters = [
        ([[row[unit] for row in weights] for unit in range(len(bias))], list(bias))
        for weights, bias in layers
    ]

    def act(features: Features) -> jax.Array:
        if len(features) != len(layers[0][0]):
            raise ValueError(f"perceptron: got {len(features)} features, expected {len(layers[0][0])}.")
        values = list(features)
        for depth, (weights, bias) in enumerate(parameters):
            if depth:
                values = [jnp.tanh(value) for value in values]
            values = [_weighed(*unit, values) for unit in zip(weights, bias, strict=True)]
        best, action = values[0], jnp.zeros_like(values[0], jnp.int32)
        for i, value in enumerate(values[1:], start=1):
            action = jnp.where(value > best, jnp.int32(i), action)
            best = jnp.maximum(value, best)
        return action

    return act


def _check(layers: Sequence[Layer]) -> None:
    size = layers[0][0].shape[0]
    for weights, bias in layers:
        if weights.shape != (size, len(bias)):
            got, expected = weights.shape, (size, len(bias))
            raise ValueError(f"perceptron: got weights of shape {got}, expected {expected}.")
        size = len(bias)
    total = sum(weights.size + bias.size for weights, bias in layers)
    if total > LARGEST:
        raise ValueError(
            f"perceptron: got {total} parameters, expected at most {LARGEST}, as products are written out; "
            "larger policies are matrix products, outside of this kernel."
        )


def _weighed(weights: Sequence[jax.Array], bias: jax.Array, values: Features) -> jax.Array:
    total = bias + weights[0] * values[0]
    for weight, value in zip(weights[1:], values[1:], strict=True):
        total = total + weight * value
    return total
