"""Gradients that are changed on their way back."""

import jax


def scale_gradient(x: jax.Array, scale: float) -> jax.Array:
    """`x [...]` itself, whose gradient is multiplied by `scale`."""
    fixed = jax.lax.stop_gradient(x)
    return fixed + scale * (x - fixed)
