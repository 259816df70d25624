"""Multilayer perceptrons with orthogonal initialisation."""

import math
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax

from jaxagent.nn.dense import Dense
from jaxagent.nn.initializers import orthogonal


class MLP(nn.Module):
    """Dense layers with an activation between them, `[..., n]` to `[..., sizes[-1]]`; the last is linear."""

    sizes: Sequence[int]  # widths of all layers, the output's last
    activation: Callable[[jax.Array], jax.Array] = nn.tanh
    output_scale: float = 1.0  # gain of the last layer's orthogonal initialiser
    is_normalized: bool = False  # by layer normalisation before each activation

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for size in self.sizes[:-1]:
            x = Dense(size, kernel_init=orthogonal(math.sqrt(2)))(x)
            x = nn.LayerNorm()(x) if self.is_normalized else x
            x = self.activation(x)
        return Dense(self.sizes[-1], kernel_init=orthogonal(self.output_scale))(x)
