"""Prioritised replay of windows (Schaul et al. 2016): what surprised is drawn more often."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxagent.data import replay as replays
from jaxagent.data import sum_tree
from jaxagent.data.replay import Memory, Replay
from jaxagent.data.sum_tree import SumTree


class Prioritized(NamedTuple):
    """A ring of all lanes at one time, and how often the window that begins at a place is drawn."""

    ring: Replay  # entries [b, ...]
    tree: SumTree  # leaf `time * b + lane`; 0 where no whole window begins
    largest: jax.Array  # float32 []: the largest weight so far, which new windows get


class Drawn(NamedTuple):
    """A minibatch of windows with what their priorities need."""

    steps: Any  # leaves [length, batch, ...]
    index: jax.Array  # int32 [batch]: leaves of the tree
    rarity: jax.Array  # float32 [batch]: probability of a uniform draw over the one it was drawn by


def prioritized_windows(length: int, exponent: float) -> Memory:
    """Stretches of time, drawn in proportion to `priority ** exponent` of the step they begin with.

    As `replay.windows`, but minibatches are `Drawn`, and `rank` takes their new priorities, at
    least 0; at 0 a window is not drawn again. A new window has the largest weight so far, 1 at
    first. At least one whole window must be held before the first draw.
    """
    return Memory(
        init=partial(_room, length=length),
        add=partial(_add, length=length),
        sample=partial(_sample, length=length),
        rank=partial(_rank, exponent=exponent),
    )


def importance_weights(rarity: jax.Array, exponent: jax.Array | float) -> jax.Array:
    """`(1 / (N P))^beta` over the largest of the minibatch, `[batch]` (Schaul et al. 2016, 3.4)."""
    weight = rarity**exponent
    return weight / jnp.max(weight)


def _room(steps: Any, capacity: int, *, length: int) -> Prioritized:
    ring = replays.room_for_windows(steps, capacity, length=length)
    num_lanes = jax.tree.leaves(steps)[0].shape[1]
    return Prioritized(ring, sum_tree.init(ring.capacity * num_lanes), jnp.ones(()))


def _num_lanes(ring: Replay) -> int:
    return jax.tree.leaves(ring.data)[0].shape[1]


def _add(memory: Prioritized, block: Any, *, length: int) -> Prioritized:
    """Write `block [T, b, ...]`; windows that it completes can be drawn from now on."""
    ring, count = memory.ring, jax.tree.leaves(block)[0].shape[0]
    first = ring.num_written
    ring = replays.add(ring, block)
    lost = first + jnp.arange(count)  # where windows begin that were overwritten, and new ones
    begun = lost - (length - 1)  # where windows begin whose last step is in the block
    tree = _put_times(memory.tree, ring, lost, jnp.zeros((count,)))
    # Of a block longer than a window some places are in both. What began before the oldest entry,
    # or before there was any, gets nothing.
    weight = jnp.where(begun >= ring.num_written - ring.size, memory.largest, 0.0)
    return Prioritized(ring, _put_times(tree, ring, begun, weight), memory.largest)


def _put_times(tree: SumTree, ring: Replay, time: jax.Array, weight: jax.Array) -> SumTree:
    """Weights `[T]` for all lanes at times `[T]`, counted since the start."""
    num_lanes = _num_lanes(ring)
    leaf = (time % ring.capacity)[:, None] * num_lanes + jnp.arange(num_lanes)[None]
    every = jnp.broadcast_to(weight[:, None], leaf.shape)
    return sum_tree.put(tree, leaf.reshape(-1), every.reshape(-1))


def _sample(memory: Prioritized, key: jax.Array, batch_size: int, *, length: int) -> Drawn:
    ring, num_lanes = memory.ring, _num_lanes(memory.ring)
    index = sum_tree.draw(memory.tree, key, batch_size)
    steps = replays.read_windows(ring, index // num_lanes, index % num_lanes, length)
    num_windows = ((ring.size - length + 1) * num_lanes).astype(jnp.float32)
    share = sum_tree.get(memory.tree, index) / memory.tree.total
    return Drawn(steps, index, 1.0 / (num_windows * share))


def _rank(
    memory: Prioritized, drawn: Drawn, priority: jax.Array, *, exponent: float
) -> Prioritized:
    # 0 to the power of 0 is 1: an exponent of 0 must not revive what is never to be drawn.
    weight = jnp.where(priority > 0.0, priority**exponent, 0.0)
    largest = jnp.maximum(memory.largest, jnp.max(weight))
    return memory._replace(tree=sum_tree.put(memory.tree, drawn.index, weight), largest=largest)
