"""cuDNN's attention by way of `jax.nn`, under masks that are arrays of all pairs, of a bit each."""

import jax
import jax.numpy as jnp

from kernels import dispatch
from kernels.attention import reference
from kernels.attention.masks import Sight, table


def cudnn(
    kernel: dispatch.Kernel, query: jax.Array, key: jax.Array, value: jax.Array, sight: Sight
) -> jax.Array:
    """As `reference.attention`, which runs, with a warning, where there is no cuDNN for these types."""
    if query.dtype == jnp.float32 or dispatch.platform() not in ("cuda", dispatch.OLDER):
        dispatch.warn(kernel, f"no cuDNN for {query.dtype.name} on {dispatch.platform()}")
        return reference.attention(query, key, value, sight)
    return masked(query, key, value, sight, "cudnn")


def masked(
    query: jax.Array, key: jax.Array, value: jax.Array, sight: Sight, implementation: str
) -> jax.Array:
    """`jax.nn.dot_product_attention`, of which a query that sees nothing would make NaN or a mean."""
    seen = table(sight)
    is_blind = ~jnp.any(seen, axis=-1, keepdims=True)
    seen = seen | (is_blind & (jnp.arange(seen.shape[-1]) == 0)[None, None])
    mask = jnp.broadcast_to(seen, (query.shape[0], *seen.shape[1:]))[:, None]
    out = jax.nn.dot_product_attention(query, key, value, mask=mask, implementation=implementation)
    return jnp.where(is_blind[..., None], jnp.zeros((), out.dtype), out)
