"""`mlp`: the MLP block of a transformer, whose wide layer never reaches memory."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from kernels import dispatch
from kernels.mapping import filled, over_rows, recomputed
from kernels.mlp import reference

KERNEL = dispatch.Kernel("mlp")
DTYPES = ("float32", "bfloat16", "float16")
GPU_WIDTH = 256  # the widest tile whose sums fit in a warpgroup's registers
__all__ = ["KERNEL", "chosen", "cost", "lacking", "mlp"]


def mlp(x: jax.Array, up: jax.Array, down: jax.Array, *, implementation: str = "auto") -> jax.Array:
    """`gelu(x @ up) @ down`, by the tanh form: `[..., D]` from `x [..., D]`, `up [D, F]`, `down [F, D]`.

    The gradient computes the wide layer again, by XLA. Hopper has a kernel of bfloat16 and float16 where D is
    64, 128, 192 or 256: elsewhere the reference runs. What it takes: `cost`. Raises ValueError for shapes and
    types that do not fit.
    """
    _check(x, up, down)
    how = dispatch.choose(KERNEL, implementation)
    if how == "xla" or 0 in x.shape or 0 in up.shape:
        rows = reference.mlp(x.reshape(-1, x.shape[-1]), up, down)
    else:
        run = recomputed(lambda x, *weights: over_rows(partial(_run, how), x, weights), reference.mlp)
        rows = run(x.reshape(-1, x.shape[-1]), up, down)
    return rows.reshape(x.shape)


def lacking(dtype: Any, width: int) -> dict[str, str]:
    """Why platforms have no kernel of such rows."""
    if dtype == jnp.float32 or width % 64 or width > GPU_WIDTH:
        return {"cuda": f"rows of {width}, {jnp.dtype(dtype).name}"}
    why = dispatch.without_wgmma()
    return {"cuda": why} if why else {}


def chosen(dtype: Any, width: int, implementation: str = "auto") -> str:
    """What runs of such rows, "xla" where this accelerator has no kernel of them; as `dispatch.choose`."""
    return dispatch.usable(KERNEL, lacking(dtype, width), implementation)


def cost(num_rows: int, width: int, hidden: int) -> tuple[int, int]:
    """FLOPs and bytes forward, of arrays of 2 bytes: rows once in and out, the weights once."""
    return 4 * num_rows * width * hidden, 2 * (2 * num_rows * width + 2 * width * hidden)


def _check(x: Any, up: Any, down: Any) -> None:
    """Raises ValueError as `mlp` does."""
    shapes = [a.shape for a in (x, up, down)]
    if not x.ndim or up.ndim != 2 or up.shape[0] != x.shape[-1] or down.shape != up.shape[::-1]:
        raise ValueError(f"mlp: got {shapes}, expected x [..., D], up [D, F] and down [F, D].")
    types = {a.dtype.name for a in (x, up, down)}
    if len(types) > 1 or not types <= set(DTYPES):
        raise ValueError(f"mlp: got {', '.join(sorted(types))}, expected one of {', '.join(DTYPES)}.")


def _run(how: str, x: jax.Array, weights: tuple) -> jax.Array:
    up, down = weights
    if how == "interpret":
        return _on_tpu(x, up, down, interpret=True)
    lacks = lacking(x.dtype, x.shape[1])
    programs = {"tpu": _on_tpu} | ({} if "cuda" in lacks else {"cuda": on_gpu})
    return dispatch.by_platform(KERNEL, programs, reference.mlp, x, up, down, lacks=lacks)


def _on_tpu(x: jax.Array, up: jax.Array, down: jax.Array, *, interpret: bool = False) -> jax.Array:
    from kernels.mlp import pallas  # slow to import, and rarely used

    given = _filled(pallas.TPU_ROWS, pallas.TPU_CHUNK, x, up, down)
    return pallas.tpu(*given, interpret=interpret)[: len(x)]


def on_gpu(x: jax.Array, up: jax.Array, down: jax.Array, unit: Any = None) -> jax.Array:
    """The kernel of a GPU, of any number of rows; `unit` is another than Hopper's, for an interpreter."""
    from kernels import warpgroup
    from kernels.mlp import pallas

    given = _filled(pallas.ROWS * pallas.GROUPS, pallas.CHUNK, x, up, down)
    return pallas.gpu(unit or warpgroup.hopper(), *given)[: len(x)]


def _filled(rows: int, chunk: int, x: jax.Array, up: jax.Array, down: jax.Array) -> tuple:
    """Whole blocks; columns of the wide layer that are added give 0."""
    return filled(x, rows), filled(up, chunk, 1), filled(down, chunk)
