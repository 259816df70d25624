"""A transformer over real vectors: pairs (x, y) as two tokens each, y predicted where x is read.

The trunk is `transformer.run_blocks`; only embedding and head differ from component tokens.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxagent.config import TransformerConfig
from jaxagent.nn import attention
from jaxagent.nn.dense import Dense
from jaxagent.nn.transformer import run_blocks


class VectorTransformer(nn.Module):
    """Linear embedding of inputs and of targets, blocks, a linear head of one number."""

    config: TransformerConfig

    @nn.compact
    def __call__(self, x: jax.Array, y: jax.Array) -> jax.Array:
        """Predictions `[B, T]` of each `y [B, T]` from `x [B, T, d]` up to it and y before it."""
        batch_size, num_pairs, _ = x.shape
        width = self.config.width
        inputs = Dense(width, name="input")(x)
        targets = Dense(width, name="target")(y[..., None])
        tokens = jnp.stack([inputs, targets], axis=2).reshape(batch_size, 2 * num_pairs, width)
        order = jnp.arange(2 * num_pairs, dtype=jnp.int32)
        time = order // 2
        mask = attention.window(order, time, order, time, self.config.context)
        hidden, _ = run_blocks(self.config, tokens, time, mask, None, attention.CAUSAL)
        return Dense(1, name="head")(hidden[:, ::2])[..., 0]


class VectorModel(NamedTuple):
    """The transformer as plain functions of its parameters."""

    init: Callable[[jax.Array], Any]  # key -> params
    apply: Callable[[Any, jax.Array, jax.Array], jax.Array]  # params, x [B, T, d], y [B, T] -> [B, T]
    config: TransformerConfig
    input_size: int


@functools.cache
def model(config: TransformerConfig, input_size: int) -> VectorModel:
    """Build the transformer; equal arguments give the same functions, which jit compiles once."""
    module = VectorTransformer(config)

    def init(key: jax.Array) -> Any:
        return module.init(key, jnp.zeros((1, 1, input_size)), jnp.zeros((1, 1)))["params"]

    def apply(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        return module.apply({"params": params}, x, y)

    return VectorModel(init, apply, config, input_size)
