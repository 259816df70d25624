"""Replay: a ring of transitions on the device, as one pytree; written in place inside a scan."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Replay(NamedTuple):
    """The last C transitions, or as many as were written."""

    data: Any  # leaves [C, ...]
    num_written: jax.Array  # int32 [], since the start; the next goes to `num_written % C`

    @property
    def capacity(self) -> int:
        """Number of transitions that fit."""
        return jax.tree.leaves(self.data)[0].shape[0]

    @property
    def size(self) -> jax.Array:
        """Number of transitions held, int32 []."""
        return jnp.minimum(self.num_written, self.capacity)


def init(example: Any, capacity: int) -> Replay:
    """An empty replay of `capacity` transitions shaped like `example` (leaves `[...]`)."""
    data = jax.tree.map(lambda x: jnp.zeros((capacity, *x.shape), x.dtype), example)
    return Replay(data, jnp.zeros((), jnp.int32))


def add(replay: Replay, block: Any) -> Replay:
    """Write `block`, leaves `[n, ...]`; the oldest n transitions are overwritten.

    Raises ValueError where n does not divide the capacity: a block would have to be cut at the end
    of the ring.
    """
    count, capacity = jax.tree.leaves(block)[0].shape[0], replay.capacity
    if capacity % count:
        raise ValueError(
            f"replay: got a block of {count} transitions, expected a divisor of the capacity "
            f"{capacity}; change the capacity."
        )
    start = replay.num_written % capacity
    data = jax.tree.map(
        lambda ring, new: jax.lax.dynamic_update_slice_in_dim(ring, new, start, axis=0),
        replay.data,
        block,
    )
    return Replay(data, replay.num_written + count)


def sample(replay: Replay, key: jax.Array, batch_size: int) -> Any:
    """Draw transitions, leaves `[batch_size, ...]`, uniformly and with replacement."""
    index = jax.random.randint(key, (batch_size,), 0, replay.size)
    return jax.tree.map(lambda ring: ring[index], replay.data)
