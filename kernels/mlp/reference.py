"""The specification of `kernels.mlp`: two products, with the wide layer in memory between them."""

import jax
import jax.numpy as jnp


def mlp(x: jax.Array, up: jax.Array, down: jax.Array) -> jax.Array:
    """`gelu(x @ up) @ down`, `[N, D]`; shapes as in `kernels.mlp`."""
    hidden = jnp.dot(x, up, preferred_element_type=jnp.float32).astype(x.dtype)
    hidden = jax.nn.gelu(hidden, approximate=True)
    return jnp.dot(hidden, down, preferred_element_type=jnp.float32).astype(x.dtype)
