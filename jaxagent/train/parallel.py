"""Data parallelism by `jax.pmap`: the only file that knows devices and the only one that averages.

Data are split into `NUM_SHARDS` logical shards at any device count; keys, permutations and
minibatches are functions of the shard, so one device computes what four compute, up to the order
of a sum. Parameters are replicated; `chunked` returns one checksum per replica, and a forgotten
average shows as checksums that differ (`check_replicas`).

The loop over updates is inside `pmap`: a Python loop that enqueues collectives on several fake CPU
devices without blocking aborts the process after 40 s.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxagent.config import NUM_SHARDS
from jaxagent.types import Loop, RunState

AXIS = "device"


class Mean(NamedTuple):
    """A mean that can be added up: total over count; count 0 means nothing was seen."""

    total: jax.Array  # [], or [N] of lanes
    count: jax.Array  # of the shape of `total`, or []


class ChunkReport(NamedTuple):
    """The report of a chunk beside its state."""

    metrics: dict[str, Mean]  # summed over the updates of the chunk
    is_finite: jax.Array  # [num_updates] bool: metrics of each update, and the learner at the end
    checksums: jax.Array  # [devices] uint32: of each replica of the learner


class ReplicaDrift(RuntimeError):
    """Replicas of the learner differ: an average over devices was forgotten."""


def average_devices(tree: Any) -> Any:
    """Average each leaf `[...]` over devices; valid inside `chunked` only."""
    return jax.lax.pmean(tree, AXIS)


def average_shards(tree: Any) -> Any:
    """Average leaves `[s, ...]` over local shards and devices: leaves `[...]`."""
    return average_devices(jax.tree.map(lambda x: jnp.mean(x, axis=0), tree))


def value_and_mean_grad(loss_fn: Callable, in_turn: bool = False, has_items: bool = False) -> Callable:
    """Differentiate `loss_fn(params, minibatch, *constants) -> loss, metrics` over all shards.

    The result maps `(params, minibatch [s, ...], *constants)` to `((loss, metrics), gradients)`,
    averaged over local shards first and over devices second, here and nowhere else. Shards
    `in_turn` add up their gradients one after another: less memory, and on a CPU faster for large
    models, whose activations then stay in the cache.

    `has_items`: the loss returns `(metrics, items)` beside its value, say a priority of each
    example; items `[s, ...]` stay with their shards, and the result is
    `((loss, metrics, items), gradients)`. Raises ValueError for both at once.
    """
    if in_turn and has_items:
        raise ValueError("value_and_mean_grad: got in_turn and has_items, expected one of them.")

    def local_loss(params, minibatch, *constants):
        axes = (None, 0) + (None,) * len(constants)
        losses, aux = jax.vmap(loss_fn, in_axes=axes)(params, minibatch, *constants)
        metrics, items = aux if has_items else (aux, ())
        return jnp.mean(losses), (jax.tree.map(lambda x: jnp.mean(x, axis=0), metrics), items)

    def one_by_one(params, minibatch, *constants):
        def add(total, one):
            shard = jax.value_and_grad(loss_fn, has_aux=True)(params, one, *constants)
            return jax.tree.map(jnp.add, total, shard), None

        first = jax.tree.map(lambda x: x[0], minibatch)
        shapes = jax.eval_shape(jax.value_and_grad(loss_fn, has_aux=True), params, first, *constants)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        total, _ = jax.lax.scan(add, zeros, minibatch)
        num_shards = jax.tree.leaves(minibatch)[0].shape[0]
        return jax.tree.map(lambda x: x / num_shards, total)

    def differentiate(params, minibatch, *constants):
        if in_turn:
            return average_devices(one_by_one(params, minibatch, *constants))
        at_once = jax.value_and_grad(local_loss, has_aux=True)
        (loss, (metrics, items)), gradients = at_once(params, minibatch, *constants)
        (loss, metrics), gradients = average_devices(((loss, metrics), gradients))
        return ((loss, metrics, items) if has_items else (loss, metrics)), gradients

    return differentiate


def chunked(loop: Loop, num_updates: int, num_devices: int, data: Any = ()) -> Callable:
    """Compile `num_updates` updates of `loop` into one program over `num_devices` devices.

    `loop.update(learner, shards [s, ...], data, shard_ids [s], key) -> learner, shards, metrics`
    with metrics a dict of `Mean` and `data` what every update reads. The result maps
    `(state, key)` to `(state, ChunkReport)`; update number i uses
    `fold_in(key, i)` whatever the chunk it falls in.
    Raises ValueError where the machine has fewer devices, the shards do not divide, or `data` has a
    leaf without elements.
    """
    devices = _devices(num_devices)
    _refuse_empty(data)
    # Placed once, and every state before each call (free where it already lies there): pmap
    # compiles a second time for arguments that are not committed to its mesh.
    mesh = Mesh(np.array(devices), (AXIS,))
    replicated = NamedSharding(mesh, PartitionSpec())
    split = NamedSharding(mesh, PartitionSpec(AXIS))
    data = jax.device_put(data, replicated)

    def one_update(carry, step, data, shard_ids, key):
        learner, shards = carry
        step_key = jax.random.fold_in(key, step)
        learner, shards, metrics = loop.update(learner, shards, data, shard_ids, step_key)
        metrics = average_devices(metrics)
        return (learner, shards), (metrics, all_finite(metrics))

    # Fewer arguments than leaves: where they are equally many, jax 0.10's pmap takes each argument
    # for one leaf and gives the axes to the wrong ones.
    def program(copied, shards, shard_ids):
        learner, data, step, key = copied

        def body(carry, i):
            return one_update(carry, step + i, data, shard_ids, key)

        steps = jnp.arange(num_updates, dtype=jnp.int32)
        shards = _move_axis(shards, 0, loop.shard_axis)  # once a chunk, see `Loop.shard_axis`
        (learner, shards), (metrics, is_finite) = jax.lax.scan(body, (learner, shards), steps)
        shards = _move_axis(shards, loop.shard_axis, 0)
        summed = jax.tree.map(lambda x: jnp.sum(x, axis=0), metrics)
        # The next loss shows a parameter that is not finite. To read all of them, and what the
        # optimizer holds, after every update is most of the kernels that an accelerator launches.
        is_finite = is_finite.at[-1].min(all_finite(learner))
        return learner, shards, summed, is_finite, checksum(learner)

    mapped = jax.pmap(
        program,
        axis_name=AXIS,
        in_axes=(None, 0, 0),
        out_axes=(None, 0, None, None, 0),
        devices=devices,
        # A replay is written in place. What is given away is `chunk`'s own copy, made by a reshape:
        # the state that a caller holds stays as it is.
        donate_argnums=1,
    )
    shard_ids = jnp.arange(NUM_SHARDS, dtype=jnp.int32).reshape(num_devices, -1)
    shard_ids = jax.device_put(shard_ids, split)

    def chunk(state: RunState, key: jax.Array) -> tuple[RunState, ChunkReport]:
        learner, step, key = jax.device_put((state.learner, state.step, key), replicated)
        # Placed before they are reshaped, too: a first state that is nowhere yet would have programs of
        # its own, and the second chunk compile anew.
        shards = jax.device_put(state.shards, split)
        shards = jax.tree.map(lambda x: x.reshape(num_devices, -1, *x.shape[1:]), shards)
        shards = jax.device_put(shards, split)
        learner, shards, metrics, is_finite, checksums = mapped((learner, data, step, key), shards, shard_ids)
        shards = jax.tree.map(lambda x: x.reshape(NUM_SHARDS, *x.shape[2:]), shards)
        state = RunState(learner, shards, step + num_updates)
        return state, ChunkReport(metrics, is_finite, checksums)

    return chunk


def placed_like(tree: Any, other: Any) -> Any:
    """A replicated pytree where the replicated arrays of another lie; free where it is there."""
    return jax.device_put(tree, jax.tree.leaves(other)[0].sharding)


def alone(fn: Callable) -> Callable:
    """`fn` where one device does everything: averages over devices change nothing.

    For a program outside `chunked` that uses what is written for it; under `vmap` every lane is
    alone.
    """
    return jax.vmap(fn, in_axes=None, out_axes=None, axis_name=AXIS, axis_size=1)


def map_lanes(fn: Callable, lanes: Any) -> Any:
    """`fn` of every lane, leaves `[N, ...]`: one after another on a CPU, or else all at once.

    A step of a game is dozens of launches on an accelerator, however many play it; on a CPU those
    that are done would have to wait for the last.
    """
    return jax.lax.map(fn, lanes) if jax.default_backend() == "cpu" else jax.vmap(fn)(lanes)


def on_host(fn: Callable) -> Callable:
    """`fn` run by the host's processor, where emulators live, whatever accelerator there is."""

    def run(*args: Any) -> Any:
        host = jax.local_devices(backend="cpu")[0]
        with jax.default_device(host):
            return fn(*jax.device_put(args, host))

    return run


def to_device(tree: Any) -> Any:
    """Arrays on the first device, where programs run that ask for none."""
    return jax.device_put(tree, jax.local_devices()[0])


def _move_axis(tree: Any, source: int, target: int) -> Any:
    return jax.tree.map(lambda x: jnp.moveaxis(x, source, target), tree)


def first_state(learner: Any, shards: Any = ()) -> RunState:
    """The state before any update; no leaf is weakly typed, or the second chunk would recompile.

    Raises ValueError for a leaf without elements.
    """
    _refuse_empty((learner, shards))
    strong = jax.tree.map(lambda x: jax.lax.convert_element_type(x, x.dtype), (learner, shards))
    return RunState(*strong, step=jnp.zeros((), jnp.int32))


def _refuse_empty(tree: Any) -> None:
    """jaxlib 0.11 dies compiling a program over several devices with an empty input.

    XLA drops the input, and Shardy's ManualComputationUnusedInputsPattern then crashes.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if leaf.size == 0:
            raise ValueError(
                f"leaf {jax.tree_util.keystr(path)}: got shape {leaf.shape}, expected at "
                "least one element; use () for what is absent."
            )


def check_replicas(checksums: jax.Array) -> None:
    """Raise `ReplicaDrift` unless the checksums `[devices]` of all replicas of the learner are equal."""
    values = np.asarray(checksums)
    if (values != values[0]).any():
        raise ReplicaDrift(
            f"replica checksums: got {values.tolist()}, expected equal ones; "
            "an update used a gradient or statistic that was not averaged over devices."
        )


def checksum(tree: Any) -> jax.Array:
    """Sum of the bits of all leaves, uint32 `[]` modulo 2^32, weighted by leaf so that swaps show."""
    total = jnp.zeros((), jnp.uint32)
    for i, leaf in enumerate(jax.tree.leaves(tree)):
        bits = jax.lax.bitcast_convert_type(leaf.astype(_word(leaf.dtype)), jnp.uint32)
        total = total * jnp.uint32(31) + jnp.sum(bits, dtype=jnp.uint32) + jnp.uint32(i)
    return total


def _word(dtype: Any) -> Any:
    return jnp.float32 if jnp.issubdtype(dtype, jnp.floating) else jnp.uint32


def all_finite(tree: Any) -> jax.Array:
    """Whether every floating-point leaf is finite, bool []."""
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    is_finite = [jnp.all(jnp.isfinite(x)) for x in leaves]
    return jnp.all(jnp.stack(is_finite)) if is_finite else jnp.array(True)


def _devices(num_devices: int) -> list[Any]:
    """The first devices of this machine; raises ValueError where there are fewer."""
    available = jax.local_devices()
    if num_devices > len(available):
        raise ValueError(
            f"devices: got {num_devices}, expected at most {len(available)} of platform "
            f"{available[0].platform}; on a CPU start with "
            f"XLA_FLAGS=--xla_force_host_platform_device_count={num_devices}."
        )
    if NUM_SHARDS % num_devices:
        raise ValueError(f"devices: got {num_devices}, expected a divisor of {NUM_SHARDS} shards.")
    return available[:num_devices]
