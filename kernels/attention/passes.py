"""The passes of attention, forward and backward, from arrays `[B, L, H, D]` of any length.

Lengths are filled up to whole tiles and `vmap` becomes more of the batch, before a kernel sees either.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from kernels import dispatch
from kernels.attention import reference, tiles
from kernels.attention.masks import Sight
from kernels.mapping import filled

KERNEL = dispatch.Kernel("attention", also=("cudnn",))
GPU_SIZES = (16, 32, 64, 128)  # heads whose rows are swizzled as the matrix unit reads them
UNSEEN = 1e30  # the log sum of a query that is padding: its weights are 0


class Program(NamedTuple):
    """What runs: which pairs are seen, and "pallas" or "interpret"."""

    visible: tiles.Visible
    how: str


class Kept(NamedTuple):
    """What the backward pass needs."""

    query: jax.Array
    key: jax.Array
    value: jax.Array
    query_ids: list
    key_ids: list
    out: jax.Array
    log_sum: jax.Array  # [B, Lq, H] float32


def lacking(dtype: Any, head_size: int) -> dict[str, str]:
    """Why platforms have no kernel of such heads."""
    if dtype == jnp.float32:
        return {"cuda": "float32"}
    if head_size not in GPU_SIZES:
        return {"cuda": f"heads of {head_size}, expected {', '.join(map(str, GPU_SIZES))}"}
    why = dispatch.without_wgmma()
    return {"cuda": why} if why else {}


def forward(
    program: Program, query: jax.Array, key: jax.Array, value: jax.Array, query_ids: list, key_ids: list
) -> tuple[jax.Array, jax.Array]:
    """Attention `[B, Lq, H, D]` and the logarithm of its weights' sum, float32 `[B, Lq, H]`."""
    arrays = [query, key, value]
    return _over_batch(
        partial(_run, program, (_tpu_forward, _gpu_forward), _plain_forward), arrays, [query_ids, key_ids]
    )


def backward(program: Program, kept: Kept, cotangent: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Cotangents of query, key and value from that of the output, `[B, Lq, H, D]`."""
    delta = jnp.sum(cotangent.astype(jnp.float32) * kept.out.astype(jnp.float32), axis=-1)
    arrays = [kept.query, kept.key, kept.value, cotangent, kept.log_sum, delta]
    ids = [kept.query_ids, kept.key_ids]
    return _over_batch(partial(_run, program, (_tpu_backward, _gpu_backward), _plain_backward), arrays, ids)


def _over_batch(run: Callable, arrays: list, ids: list) -> Any:
    """`run(arrays, ids)`, which `vmap` calls with a larger batch, `[N B, ...]`."""
    call = custom_vmap(run)

    @call.def_vmap
    def _(axis_size: int, is_batched: list, arrays: list, ids: list) -> tuple:
        batch_size = arrays[0].shape[1] if is_batched[0][0] else arrays[0].shape[0]

        def fold(x: jax.Array, has_axis: bool, is_id: bool) -> jax.Array:
            if is_id and not has_axis and x.shape[0] == 1:
                return x  # all share it
            x = x if has_axis else jnp.broadcast_to(x[None], (axis_size, *x.shape))
            x = jnp.broadcast_to(x, (axis_size, batch_size, *x.shape[2:]))
            return x.reshape(axis_size * batch_size, *x.shape[2:])

        arrays = jax.tree.map(partial(fold, is_id=False), arrays, is_batched[0])
        ids = jax.tree.map(partial(fold, is_id=True), ids, is_batched[1])
        found = _over_batch(run, arrays, ids)
        found = jax.tree.map(lambda x: x.reshape(axis_size, batch_size, *x.shape[1:]), found)
        return found, jax.tree.map(lambda _: True, found)

    return call(arrays, ids)


def _run(
    program: Program, kernels: tuple[Callable, Callable], plain: Callable, arrays: list, ids: list
) -> Any:
    tpu, gpu = kernels
    if program.how == "interpret":
        return tpu(program.visible, arrays, ids, interpret=True)
    lacks = lacking(arrays[0].dtype, arrays[0].shape[-1])
    made = {"tpu": partial(tpu, program.visible), "cuda": partial(gpu, program.visible)}
    programs = {name: of for name, of in made.items() if name not in lacks}
    return dispatch.by_platform(KERNEL, programs, partial(plain, program.visible), arrays, ids, lacks=lacks)


def _plain(visible: tiles.Visible, ids: list) -> Callable:
    """The reference as a function of query, key and value."""
    trees = jax.tree.unflatten(visible.query_tree, ids[0]), jax.tree.unflatten(visible.key_tree, ids[1])
    return partial(reference.attention, sight=Sight(visible.rule, *trees))


def _plain_forward(visible: tiles.Visible, arrays: list, ids: list) -> tuple[jax.Array, jax.Array]:
    out = _plain(visible, ids)(*arrays)
    return out, jnp.zeros(out.shape[:3], jnp.float32)  # its backward pass needs none


def _plain_backward(visible: tiles.Visible, arrays: list, ids: list) -> tuple:
    return jax.vjp(_plain(visible, ids), *arrays[:3])[1](arrays[3])


def _tpu_sides(arrays: list, numbers: list, ids: list) -> tuple:
    """Sides `[B, H, L, D]` in whole tiles: `arrays` are of queries and of keys, `numbers` of queries."""

    def turned(x: jax.Array) -> jax.Array:
        return filled(jnp.moveaxis(x, 2, 1), tiles.TPU_TILE, 2)

    ids = [[filled(x, tiles.TPU_TILE, 1) for x in of] for of in ids]
    columns = [filled(jnp.moveaxis(x, 2, 1), tiles.TPU_TILE, 2, UNSEEN)[..., None] for x in numbers]
    queries, keys = ([turned(x) for x in of] for of in arrays)
    return tiles.Side(queries, columns, ids[0]), tiles.Side(keys, [], ids[1])


def _tpu_forward(visible: tiles.Visible, arrays: list, ids: list, *, interpret: bool = False) -> tuple:
    from kernels.attention import tpu

    length = arrays[0].shape[1]
    queries, keys = _tpu_sides([arrays[:1], arrays[1:]], [], ids)
    lists, _ = tiles.lists(visible, queries.ids, keys.ids, tiles.TPU_TILE)
    out, log_sum = tpu.forward(visible, lists, queries, keys, interpret=interpret)
    return jnp.moveaxis(out[:, :, :length], 1, 2), jnp.moveaxis(log_sum[:, :, :length, 0], 1, 2)


def _tpu_backward(visible: tiles.Visible, arrays: list, ids: list, *, interpret: bool = False) -> tuple:
    from kernels.attention import tpu

    query, key, value, cotangent, *numbers = arrays
    queries, keys = _tpu_sides([[query, cotangent], [key, value]], numbers, ids)
    of_queries, of_keys = tiles.lists(visible, queries.ids, keys.ids, tiles.TPU_TILE)
    found = tpu.gradient_of_queries(visible, of_queries, queries, keys, interpret=interpret)
    more = tpu.gradient_of_keys(visible, of_keys, queries, keys, interpret=interpret)
    sizes = query.shape[1], key.shape[1], key.shape[1]
    return tuple(jnp.moveaxis(x[:, :, :n], 1, 2) for x, n in zip((found, *more), sizes, strict=True))


def _gpu_call(visible: tiles.Visible, unit: Any, queries: list, keys: list, numbers: list, ids: list) -> Any:
    """What launches share, in whole tiles; lists are of keys' tiles, and those of queries' beside it."""
    from kernels import warpgroup
    from kernels.attention import gpu

    queries, keys = ([filled(x, tiles.GPU_TILE, 1) for x in of] for of in (queries, keys))
    numbers = [jnp.moveaxis(filled(x, tiles.GPU_TILE, 1, UNSEEN), 2, 1) for x in numbers]
    ids = [[filled(x, tiles.GPU_TILE, 1) for x in of] for of in ids]
    of_queries, of_keys = tiles.lists(visible, *ids, tiles.GPU_TILE)
    sides = tiles.Side(queries, numbers, ids[0]), tiles.Side(keys, [], ids[1])
    return gpu.Call(unit or warpgroup.hopper(), visible, of_queries, *sides), of_keys


def _gpu_forward(visible: tiles.Visible, arrays: list, ids: list, unit: Any = None) -> tuple:
    from kernels.attention import gpu

    length = arrays[0].shape[1]
    call, _ = _gpu_call(visible, unit, arrays[:1], arrays[1:], [], ids)
    out, log_sum = gpu.forward(call)
    return out[:, :length], jnp.moveaxis(log_sum, 1, 2)[:, :length]


def _gpu_backward(visible: tiles.Visible, arrays: list, ids: list, unit: Any = None) -> tuple:
    from kernels.attention import gpu

    query, key, value, cotangent, *numbers = arrays
    call, of_keys = _gpu_call(visible, unit, [query, cotangent], [key, value], numbers, ids)
    found = gpu.gradient_of_queries(call), *gpu.gradient_of_keys(call._replace(lists=of_keys))
    return tuple(x[:, : y.shape[1]] for x, y in zip(found, arrays, strict=False))
