"""Convolutions over boards and frames `[B, H, W, C]`, on a CPU as products of matrices."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def convolve(
    x: jax.Array, kernel: jax.Array, window_strides: Any, padding: Any, **options: Any
) -> jax.Array:
    """`lax.conv_general_dilated` of `x [B, H, W, C]` and `kernel [h, w, C, N]`; for `nn.Conv`.

    On a CPU the patches under the kernel become rows of one matrix, because XLA's CPU backend
    convolves slowly inside a loop, where all training is. Forward and backward, 3 x 3 in a `scan`:
    0.6 in place of 8.5 ms for 16 channels of 32 boards of 8 x 8, 4.7 in place of 79 ms for 64 of
    7 x 7 (2 cores, jax 0.10.2; outside a loop 0.8 for 0.6, and 4.1 for 2.7). Elsewhere the
    backend's own convolution runs.
    """
    if jax.default_backend() == "cpu" and _is_plain(options):
        return _by_patches(x, kernel, window_strides, padding)
    return jax.lax.conv_general_dilated(x, kernel, window_strides, padding, **options)


def _is_plain(options: Any) -> bool:
    """Whether nothing is dilated or grouped."""
    dilations = (options.get(name) or () for name in ("lhs_dilation", "rhs_dilation"))
    is_dilated = any(factor != 1 for dilation in dilations for factor in dilation)
    return not is_dilated and options.get("feature_group_count", 1) == 1


def _by_patches(x: jax.Array, kernel: jax.Array, strides: Any, padding: Any) -> jax.Array:
    height, width, _, features = kernel.shape
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    x = jnp.pad(x, ((0, 0), *(tuple(p) for p in padding), (0, 0)))
    rows = (x.shape[1] - height) // strides[0] + 1
    columns = (x.shape[2] - width) // strides[1] + 1

    def under(i: int, j: int) -> jax.Array:
        """What lies under place (i, j) of the kernel, everywhere."""
        down, right = i + (rows - 1) * strides[0] + 1, j + (columns - 1) * strides[1] + 1
        return x[:, i : down : strides[0], j : right : strides[1]]

    patches = jnp.concatenate([under(i, j) for i in range(height) for j in range(width)], axis=-1)
    product = patches.reshape(-1, patches.shape[-1]) @ kernel.reshape(-1, features)
    return product.reshape(x.shape[0], rows, columns, features)


Conv = functools.partial(nn.Conv, conv_general_dilated=convolve)
