"""Multilayer perceptrons with orthogonal initialisation."""

import itertools
import math
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax

from jaxagent.nn.dense import Dense
from jaxagent.nn.initializers import orthogonal


def of_size(num_inputs: int, num_outputs: int, num_parameters: int) -> "MLP":
    """Three hidden layers of ReLU, as wide as `num_parameters` allow (8 at least); outputs begin near 0."""

    def size(width: int) -> int:
        return width * (num_inputs + 1) + 2 * width * (width + 1) + num_outputs * (width + 1)

    width = next(w for w in itertools.count(8) if size(w + 1) > num_parameters)
    return MLP((width, width, width, num_outputs), activation=nn.relu, output_scale=0.01)


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
