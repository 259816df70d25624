"""Convolutions over boards and frames `[B, H, W, C]` as products of matrices."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def convolve(x: jax.Array, kernel: jax.Array, window_strides: Any, padding: Any, **options: Any) -> jax.Array:
    """`lax.conv_general_dilated` of `x [B, H, W, C]` and `kernel [h, w, C, N]`; for `nn.Conv`.

    The patches under the kernel become rows of one matrix. XLA's own convolution is slow for
    networks as small as ours. On a CPU, inside a loop, where all training is, forward and backward:
    0.6 in place of 8.5 ms for 16 channels of 32 boards of 8 x 8 under 3 x 3, 9 in place of 204 for
    the first layer of 32 Atari frames (2 cores; outside a loop the two are alike). On a GPU the
    host takes 0.16 ms for every call of cuDNN, which is longer than such a layer computes, and a
    `vmap` over agents makes it a grouped one. Dilated and grouped convolutions are XLA's.
    """
    if not _is_plain(options):
        return jax.lax.conv_general_dilated(x, kernel, window_strides, padding, **options)
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], window_strides, padding)
    x = jnp.pad(x, ((0, 0), *(tuple(p) for p in padding), (0, 0)))
    (height, width), (down, right) = kernel.shape[:2], window_strides
    if height % down == 0 and width % right == 0:
        x, kernel = _in_blocks(x, kernel, window_strides)
        window_strides = (1, 1)
    return _by_patches(x, kernel, window_strides)


def _is_plain(options: Any) -> bool:
    """Whether nothing is dilated or grouped."""
    dilations = (options.get(name) or () for name in ("lhs_dilation", "rhs_dilation"))
    is_dilated = any(factor != 1 for dilation in dilations for factor in dilation)
    return not is_dilated and options.get("feature_group_count", 1) == 1


def _in_blocks(x: jax.Array, kernel: jax.Array, strides: Any) -> tuple[jax.Array, jax.Array]:
    """Blocks as large as the stride become channels, whereupon the stride is 1.

    An 8 x 8 kernel of stride 4 has 4 places then in place of 64, each a slice to cut out.
    """
    (height, width, channels, features), (down, right) = kernel.shape, strides
    rows = (x.shape[1] - height) // down * down + height  # what lies under the kernel somewhere
    columns = (x.shape[2] - width) // right * right + width
    x = x[:, :rows, :columns].reshape(-1, rows // down, down, columns // right, right, channels)
    kernel = kernel.reshape(height // down, down, width // right, right, channels, features)
    x, kernel = x.transpose(0, 1, 3, 2, 4, 5), kernel.transpose(0, 2, 1, 3, 4, 5)
    size = down * right * channels
    return x.reshape(*x.shape[:3], size), kernel.reshape(*kernel.shape[:2], size, features)


def _by_patches(x: jax.Array, kernel: jax.Array, strides: Any) -> jax.Array:
    height, width, _, features = kernel.shape
    rows = (x.shape[1] - height) // strides[0] + 1
    columns = (x.shape[2] - width) // strides[1] + 1

    def under(i: int, j: int) -> jax.Array:
        """The pixels under place (i, j) of the kernel, `[B, rows, columns, C]`."""
        down, right = i + (rows - 1) * strides[0] + 1, j + (columns - 1) * strides[1] + 1
        return x[:, i : down : strides[0], j : right : strides[1]]

    patches = jnp.concatenate([under(i, j) for i in range(height) for j in range(width)], axis=-1)
    product = patches.reshape(-1, patches.shape[-1]) @ kernel.reshape(-1, features)
    return product.reshape(x.shape[0], rows, columns, features)


Conv = functools.partial(nn.Conv, conv_general_dilated=convolve)
