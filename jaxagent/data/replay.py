"""Replay: a ring of entries on the device, as one pytree; written in place inside a scan.

A `Memory` says what an entry is: a transition, or all lanes at one time, of which windows are read.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Replay(NamedTuple):
    """The last C entries, or as many as were written."""

    data: Any  # leaves [C, ...]
    num_written: jax.Array  # int32 [], since the start; the next goes to `num_written % C`

    @property
    def capacity(self) -> int:
        """Number of entries that fit."""
        return jax.tree.leaves(self.data)[0].shape[0]

    @property
    def size(self) -> jax.Array:
        """Number of entries held, int32 []."""
        return jnp.minimum(self.num_written, self.capacity)


def init(example: Any, capacity: int) -> Replay:
    """An empty replay of `capacity` entries shaped like `example` (leaves `[...]`)."""
    data = jax.tree.map(lambda x: jnp.zeros((capacity, *x.shape), x.dtype), example)
    return Replay(data, jnp.zeros((), jnp.int32))


def full(entries: Any) -> Replay:
    """A replay that holds `entries`, leaves `[C, ...]`, and has room for no more."""
    count = jax.tree.leaves(entries)[0].shape[0]
    return Replay(entries, jnp.asarray(count, jnp.int32))


def add(replay: Replay, block: Any) -> Replay:
    """Write `block`, leaves `[n, ...]` of any n that fits; the oldest n entries are overwritten.

    Raises ValueError where it does not fit.
    """
    count, capacity = jax.tree.leaves(block)[0].shape[0], replay.capacity
    if count > capacity:
        raise ValueError(
            f"replay: got a block of {count} entries, expected at most the capacity {capacity}; raise it."
        )
    place = (replay.num_written + jnp.arange(count)) % capacity

    def written(ring: jax.Array, new: jax.Array) -> jax.Array:
        return ring.at[place].set(new, unique_indices=True, mode="promise_in_bounds")

    return Replay(jax.tree.map(written, replay.data, block), replay.num_written + count)


def sample(replay: Replay, key: jax.Array, batch_size: int) -> Any:
    """Draw entries, leaves `[batch_size, ...]`, uniformly and with replacement.

    Raises ValueError for an empty replay; inside jit ask `is_written` first.
    """
    require_drawable(is_written(replay), "no entry", "one entry")
    index = jax.random.randint(key, (batch_size,), 0, replay.size)
    return jax.tree.map(lambda ring: ring[index], replay.data)


def is_written(replay: Replay, length: int = 1) -> jax.Array:
    """Whether at least `length` entries are held, bool []."""
    return replay.size >= length


def require_drawable(can_draw: jax.Array, got: str, expected: str) -> None:
    """Raise ValueError where a draw finds nothing; inside jit, where nobody can, say nothing."""
    if not isinstance(can_draw, jax.core.Tracer) and not jnp.all(can_draw):
        raise ValueError(
            f"replay: got a draw from {got}, expected at least {expected}; write more before it."
        )


def sample_windows(replay: Replay, key: jax.Array, batch_size: int, length: int) -> Any:
    """Draw stretches of time, leaves `[length, batch_size, ...]`, of entries `[b, ...]`.

    Start and lane are uniform, with replacement; no window crosses the end of what was written. It
    may cross the end of an episode, which its flags tell. Raises ValueError where fewer than `length`
    entries are held; inside jit ask `is_written` first.
    """
    require_drawable(is_written(replay, length), "fewer entries than a window", f"{length}")
    key_start, key_lane = jax.random.split(key)
    num_lanes = jax.tree.leaves(replay.data)[0].shape[1]
    start = jax.random.randint(key_start, (batch_size,), 0, replay.size - length + 1)
    lane = jax.random.randint(key_lane, (batch_size,), 0, num_lanes)
    oldest = replay.num_written - replay.size
    return read_windows(replay, oldest + start, lane, length)


class Memory(NamedTuple):
    """How a replay keeps steps `[T, b, ...]` and gives minibatches of them, as functions."""

    init: Callable[[Any, int], Replay]  # steps to come, env steps that fit -> an empty replay
    add: Callable[[Replay, Any], Replay]
    sample: Callable[[Replay, jax.Array, int], Any]  # replay, key, batch size -> minibatch
    # replay -> bool []: whether there is anything to sample; a minibatch is arbitrary where there is not
    can_draw: Callable[[Replay], jax.Array]
    # (replay, minibatch, priorities [batch], whether it was learned from, bool []) -> replay, where what
    # is drawn depends on them
    rank: Callable | None = None


def transitions() -> Memory:
    """One step an entry; minibatches have leaves `[batch, ...]`."""

    def room(steps: Any, capacity: int) -> Replay:
        return init(jax.tree.map(lambda x: x[0, 0], steps), capacity)

    return Memory(room, lambda replay, steps: add(replay, flat(steps)), sample, is_written)


def windows(length: int) -> Memory:
    """All lanes at one time an entry; minibatches are stretches, leaves `[length, batch, ...]`."""

    room, holds = partial(room_for_windows, length=length), partial(is_written, length=length)
    return Memory(room, add, partial(sample_windows, length=length), holds)


def room_for_windows(steps: Any, capacity: int, *, length: int) -> Replay:
    """An empty replay whose entries are all lanes at one time of `steps [T, b, ...]`.

    Raises ValueError where a window of `length` does not fit.
    """
    num_lanes = jax.tree.leaves(steps)[0].shape[1]
    if capacity < length * num_lanes:
        raise ValueError(
            f"replay: got room for {capacity} steps of {num_lanes} lanes, expected at least "
            f"{length} of each, a window; raise the capacity."
        )
    return init(jax.tree.map(lambda x: x[0], steps), capacity // num_lanes)


def read_windows(replay: Replay, time: jax.Array, lane: jax.Array, length: int) -> Any:
    """Stretches `[length, batch, ...]` from places `time [batch]` of the ring on, of `lane [batch]`."""
    stretch = (time[None] + jnp.arange(length)[:, None]) % replay.capacity
    return jax.tree.map(lambda ring: ring[stretch, lane[None]], replay.data)


def flat(steps: Any) -> Any:
    """Merge the first two axes of all leaves: `[T, b, ...]` to `[T b, ...]`."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), steps)
