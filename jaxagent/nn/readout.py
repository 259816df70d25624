"""From the states of several tokens to one vector."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxagent.config import Pool
from jaxagent.nn.attention import HIDDEN
from jaxagent.nn.mlp import MLP


def pooled(states: jax.Array, is_kept: jax.Array, pool: Pool) -> jax.Array:
    """Vectors `[..., F]` of tokens' states `[..., G, D]`, of which `is_kept [G]`.

    "last": the last one's, kept or not. "mean": of the kept. "concat": side by side, the others 0.
    """
    if pool == "last":
        return states[..., -1, :]
    states = jnp.where(_beside(is_kept, states), states, 0.0)
    if pool == "mean":
        return jnp.sum(states, axis=-2) / jnp.maximum(jnp.sum(is_kept, dtype=states.dtype), 1.0)
    return states.reshape(*states.shape[:-2], -1)


def _beside(is_kept: jax.Array, states: jax.Array) -> jax.Array:
    """`is_kept [G]` as `[1, ..., G, 1]`, beside states `[..., G, D]`."""
    return jnp.expand_dims(is_kept, (*range(states.ndim - 2), states.ndim - 1))


class AttentionPool(nn.Module):
    """Learned queries that look at the kept tokens (Lee et al. 2019, pooling by multihead attention).

    Each of the heads weighs all tokens and reads its share of the vector. Differs: one query a head,
    no feed-forward layer and no normalisation behind it.
    """

    num_heads: int = 4

    @nn.compact
    def __call__(self, states: jax.Array, is_kept: jax.Array) -> jax.Array:
        """Vectors `[..., D]` of states `[..., G, D]`, of which `is_kept [G]`."""
        *lead, num_tokens, width = states.shape
        scores = nn.Dense(self.num_heads, name="query")(states)
        weights = jax.nn.softmax(jnp.where(_beside(is_kept, states), scores, HIDDEN), axis=-2)
        values = nn.Dense(width, use_bias=False, name="value")(states)
        values = values.reshape(*lead, num_tokens, self.num_heads, width // self.num_heads)
        return jnp.sum(weights[..., None] * values, axis=-3).reshape(*lead, width)


class Readout(nn.Module):
    """An MLP with rectifiers on what a pool makes of tokens' states."""

    pool: Pool
    sizes: Sequence[int]  # widths of the layers, the output's last
    output_scale: float = 0.01  # gain of the last layer's first parameters

    @nn.compact
    def __call__(self, states: jax.Array, is_kept: jax.Array) -> jax.Array:
        """Outputs `[..., sizes[-1]]` of states `[..., G, D]`, of which `is_kept [G]`."""
        is_learned = self.pool == "attention"
        x = AttentionPool()(states, is_kept) if is_learned else pooled(states, is_kept, self.pool)
        return MLP(self.sizes, activation=jax.nn.relu, output_scale=self.output_scale)(x)
