"""Gradients that are changed on their way back."""

import jax


def scale_gradient(x: jax.Array, scale: float) -> jax.Array:
    """`x` itself, whose gradient is multiplied by `scale`."""
    return scale * x + (1.0 - scale) * jax.lax.stop_gradient(x)
