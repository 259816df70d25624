"""`attention`: softmax attention of action-state tokens under any mask that ids tell, in O(L) memory.

The mask is a function of what is known of a query and of a key (`masks`), asked tile by tile; tiles of
which no pair is seen are neither loaded nor computed.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kernels import dispatch
from kernels.attention import library, masks, passes, reference, tiles
from kernels.attention.masks import Sight
from kernels.attention.passes import KERNEL, Kept, Program
from kernels.scan import elementwise

DTYPES = ("float32", "bfloat16", "float16")
LARGEST = 128  # head size
__all__ = ["KERNEL", "attention", "chosen", "cost", "masks"]


def attention(
    query: jax.Array, key: jax.Array, value: jax.Array, sight: Sight, *, implementation: str = "auto"
) -> jax.Array:
    """Softmax attention `[B, Lq, H, D]` from keys and values `[B, Lk, H, D]`, scaled by the root of D.

    `sight` says who sees whom (`masks`); a query that sees nothing gives 0. Differentiable once in query, key
    and value. Hopper has a kernel of bfloat16 and float16 where D is 16, 32, 64 or 128: its matrix unit
    rounds float32 to 10 bits, so that the reference runs there. `implementation="cudnn"` is cuDNN's, under
    the mask as an array, where the GPU has it. What it takes: `cost`.
    Raises ValueError for shapes and types that do not fit, and for a rule that mixes pairs or closes over
    arrays. Source: Dao 2023, algorithms 1 and 2, with lists of tiles instead of all.
    """
    _check(query, key, value, sight)
    _check_rule(sight)
    how = dispatch.choose(KERNEL, implementation)
    if how == "xla" or 0 in query.shape or 0 in key.shape:
        return reference.attention(query, key, value, sight)
    if how == "cudnn":
        return library.cudnn(KERNEL, query, key, value, sight)
    trees = [jax.tree.structure(of) for of in (sight.query, sight.key)]
    ids = jax.tree.leaves(sight.query), jax.tree.leaves(sight.key)
    visible = tiles.Visible(sight.rule, *trees, key.shape[1])
    return _differentiable(Program(visible, how), query, key, value, *ids)


def chosen(dtype: Any, head_size: int, implementation: str = "auto") -> str:
    """What runs of such heads, "xla" where this accelerator has no kernel of them; as `dispatch.choose`."""
    return dispatch.usable(KERNEL, passes.lacking(dtype, head_size), implementation)


def cost(
    batch_size: int, num_queries: int, num_keys: int, num_heads: int, head_size: int, *, share: float = 1.0
) -> tuple[int, int]:
    """FLOPs and bytes forward, of arrays of 2 bytes, where a `share` of tiles is seen.

    Backward they are 2.5 and 3 times as much.
    """
    pairs = batch_size * num_heads * num_queries * num_keys
    tokens = batch_size * num_heads * (2 * num_queries + 2 * num_keys)
    return int(4 * head_size * pairs * share), 2 * head_size * tokens


def _check(query: Any, key: Any, value: Any, sight: Sight) -> None:
    """Raises ValueError as `attention` does."""
    shapes = [x.shape for x in (query, key, value)]
    if query.ndim != 4 or key.ndim != 4 or value.shape != key.shape:
        raise ValueError(
            f"attention: got {shapes}, expected query [B, Lq, H, D], key and value [B, Lk, H, D]."
        )
    (batch_size, num_queries, *head), num_keys = query.shape, key.shape[1]
    if key.shape != (batch_size, num_keys, *head):
        raise ValueError(
            f"attention: got keys of {key.shape} beside queries of {query.shape}, [B, Lq, H, D]."
        )
    if head[1] > LARGEST:
        raise ValueError(f"attention: got heads of size {head[1]}, expected at most {LARGEST}.")
    types = {x.dtype.name for x in (query, key, value)}
    if len(types) > 1 or not types <= set(DTYPES):
        raise ValueError(f"attention: got {', '.join(sorted(types))}, expected one of {', '.join(DTYPES)}.")
    for name, ids, length in (("query", sight.query, num_queries), ("key", sight.key, num_keys)):
        if not jax.tree.leaves(ids):
            raise ValueError(
                f"attention: got a sight without ids of a {name}, expected int32 [B or 1, {length}]."
            )
        for leaf in jax.tree.leaves(ids):
            if leaf.shape not in ((batch_size, length), (1, length)) or leaf.dtype != jnp.int32:
                got, expected = f"{leaf.dtype} {leaf.shape}", f"int32 ({batch_size} or 1, {length})"
                raise ValueError(f"attention: got a sight with ids of a {name} {got}, expected {expected}.")


def _check_rule(sight: Sight) -> None:
    """Raises ValueError as `attention` does."""
    pair = jax.ShapeDtypeStruct((2, 2), jnp.int32)
    trees = [jax.tree.map(lambda _: pair, ids) for ids in (sight.query, sight.key)]
    closed = jax.make_jaxpr(lambda q, k: jnp.asarray(sight.rule(q, k), bool))(*trees)
    if found := elementwise.mixing(closed.jaxpr):
        raise ValueError(f"attention: got a rule with {found}, expected one of every pair alone.")
    if closed.consts:
        shapes = [np.shape(const) for const in closed.consts]
        raise ValueError(
            f"attention: got a rule that closes over arrays of shapes {shapes}, expected none; give ids."
        )
    if (shape := closed.out_avals[0].shape) not in ((2, 2), ()):
        raise ValueError(f"attention: got a rule that makes {shape} of pairs (2, 2), expected their shape.")


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _differentiable(
    program: Program, query: jax.Array, key: jax.Array, value: jax.Array, query_ids: list, key_ids: list
) -> jax.Array:
    return passes.forward(program, query, key, value, query_ids, key_ids)[0]


def _forward(program: Program, *args: Any) -> tuple[jax.Array, Kept]:
    out, log_sum = passes.forward(program, *args)
    return out, Kept(*args, out, log_sum)


def _backward(program: Program, kept: Kept, cotangent: jax.Array) -> tuple:
    found = passes.backward(program, kept, cotangent)
    nothing = [[np.zeros(x.shape, jax.dtypes.float0) for x in ids] for ids in (kept.query_ids, kept.key_ids)]
    return *found, *nothing


_differentiable.defvjp(_forward, _backward)
