"""`behind`: all of a transformer's block that stands behind its attention, in one launch of few rows.

Acting through a cache is a few tokens a lane: XLA launches a product, a norm, two more products and what is
between them, for every layer and token. With `kernels.attention` before it, a layer is three parts.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from kernels import dispatch
from kernels.decode import reference
from kernels.decode.reference import Weights
from kernels.mapping import filled, over_rows, recomputed
from kernels.mlp import DTYPES, lacking

KERNEL = dispatch.Kernel("decode")
__all__ = ["KERNEL", "Weights", "behind", "chosen", "cost"]


def behind(x: jax.Array, mixed: jax.Array, weights: Weights, *, implementation: str = "auto") -> jax.Array:
    """The stream `[..., D]` after a pre-norm block, from that before it and what its heads read, `[..., D]`.

    `x + mixed @ output`, to which its own MLP behind an RMS norm is added. The gradient computes all again,
    by XLA. Hopper has a kernel of bfloat16 and float16 where D is 64, 128, 192 or 256: elsewhere the
    reference runs. What it takes: `cost`. Raises ValueError for shapes and types that do not fit.
    """
    _check(x, mixed, weights)
    how, rows = dispatch.choose(KERNEL, implementation), [a.reshape(-1, x.shape[-1]) for a in (x, mixed)]
    if how == "xla" or 0 in x.shape or 0 in weights.up.shape:
        return reference.behind(*rows, weights).reshape(x.shape)
    run = recomputed(lambda *args: over_rows(partial(_run, how), args[:2], args[2]), reference.behind)
    return run(*rows, weights).reshape(x.shape)


def chosen(dtype: Any, width: int, implementation: str = "auto") -> str:
    """What runs of such rows, "xla" where this accelerator has no kernel of them; as `dispatch.choose`."""
    return dispatch.usable(KERNEL, lacking(dtype, width), implementation)


def cost(num_rows: int, width: int, hidden: int) -> tuple[int, int]:
    """FLOPs and bytes, of arrays of 2 bytes: rows twice in and once out, the weights once."""
    weights = width * width + 2 * width * hidden
    return 2 * num_rows * weights, 2 * (3 * num_rows * width + weights) + 4 * width


def _check(x: Any, mixed: Any, weights: Weights) -> None:
    """Raises ValueError as `behind` does."""
    width, hidden = x.shape[-1] if x.ndim else 0, weights.up.shape[-1]
    expected = Weights((width, width), (width,), (width, hidden), (hidden, width))
    if mixed.shape != x.shape or not x.ndim:
        raise ValueError(f"decode: got x {x.shape} and mixed {mixed.shape}, expected [..., D] both.")
    for name, got, shape in zip(Weights._fields, weights, expected, strict=True):
        if got.shape != shape:
            raise ValueError(f"decode: got {name} of shape {got.shape}, expected {shape} of x {x.shape}.")
    types = {a.dtype.name for a in (x, mixed, weights.output, weights.up, weights.down)}
    if len(types) > 1 or not types <= set(DTYPES) or weights.scale.dtype != jnp.float32:
        got = f"{', '.join(sorted(types))} with a scale of {weights.scale.dtype}"
        raise ValueError(f"decode: got {got}, expected one of {', '.join(DTYPES)}, and float32.")


def _run(how: str, rows: tuple, weights: Weights) -> jax.Array:
    if how == "interpret":
        return _on_tpu(*rows, weights, interpret=True)
    lacks = lacking(rows[0].dtype, rows[0].shape[1])
    programs = {"tpu": _on_tpu} | ({} if "cuda" in lacks else {"cuda": on_gpu})
    return dispatch.by_platform(KERNEL, programs, reference.behind, *rows, weights, lacks=lacks)


def _on_tpu(x: jax.Array, mixed: jax.Array, weights: Weights, *, interpret: bool = False) -> jax.Array:
    from kernels.decode import pallas  # slow to import, and rarely used

    rows = [filled(a, pallas.TPU_ROWS) for a in (x, mixed)]
    return pallas.tpu(*rows, weights, interpret=interpret)[: len(x)]


def on_gpu(x: jax.Array, mixed: jax.Array, weights: Weights, unit: Any = None) -> jax.Array:
    """The kernel of a GPU, of any number of rows; `unit` is another than Hopper's, for an interpreter."""
    from kernels import warpgroup
    from kernels.decode import pallas

    # Columns of the wide layer that are added give 0.
    up, down = filled(weights.up, pallas.CHUNK, 1), filled(weights.down, pallas.CHUNK)
    rows = [filled(a, pallas.ROWS) for a in (x, mixed)]
    return pallas.gpu(unit or warpgroup.hopper(), *rows, weights._replace(up=up, down=down))[: len(x)]
