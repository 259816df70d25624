"""Prioritised replay of windows (Schaul et al. 2016): what surprised is drawn more often."""

from collections.abc import Callable
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


def prioritized_windows(
    length: int,
    exponent: float,
    *,
    context: int = 0,
    view: Callable | None = None,
    may_begin: Callable | None = None,
) -> Memory:
    """Stretches of time, drawn in proportion to `priority ** exponent` of the step they begin with.

    As `replay.windows`, but minibatches are `Drawn`, and `rank` takes their new priorities, at
    least 0; at 0 a window is not drawn again. A new window has the largest weight so far, 1 at
    first. Where no window may be drawn, `sample` raises ValueError, and inside jit gives what is
    arbitrary, with rarity 0, and cannot be ranked: ask `can_draw` first.

    `context`: so many entries before a window are read with it, and `view` makes the window's
    steps `[length, batch, ...]` of all `[context + length, batch, ...]`; what lies before the very
    first entry is arbitrary. `may_begin(entries [T, b, ...]) -> bool [T, b]`: where windows begin.
    """
    windows = _Windows(length, context, view or (lambda steps: steps), may_begin or _anywhere)
    return Memory(
        init=partial(_room, windows),
        add=partial(_add, windows),
        sample=partial(_sample, windows),
        can_draw=_can_draw,
        rank=partial(_rank, exponent=exponent),
    )


class _Windows(NamedTuple):
    """The windows that `prioritized_windows` was asked for."""

    length: int
    context: int
    view: Callable
    may_begin: Callable


def _anywhere(entries: Any) -> jax.Array:
    return jnp.ones(jax.tree.leaves(entries)[0].shape[:2], bool)


def importance_weights(rarity: jax.Array, exponent: jax.Array | float) -> jax.Array:
    """`(1 / (N P))^beta` of `rarity [batch]` over the largest, `[batch]` (Schaul et al. 2016, 3.4).

    They are 0 where the rarity is: of what was drawn from nothing.
    """
    weight = jnp.where(rarity > 0.0, rarity**exponent, 0.0)
    largest = jnp.max(weight)
    return weight / jnp.where(largest > 0.0, largest, 1.0)


def _room(windows: _Windows, steps: Any, capacity: int) -> Prioritized:
    ring = replays.room_for_windows(steps, capacity, length=windows.context + windows.length)
    num_lanes = jax.tree.leaves(steps)[0].shape[1]
    return Prioritized(ring, sum_tree.init(ring.capacity * num_lanes), jnp.ones(()))


def _num_lanes(ring: Replay) -> int:
    return jax.tree.leaves(ring.data)[0].shape[1]


def _add(windows: _Windows, memory: Prioritized, block: Any) -> Prioritized:
    """Write `block [T, b, ...]`; windows that it completes can be drawn from now on."""
    ring, count = memory.ring, jax.tree.leaves(block)[0].shape[0]
    first = ring.num_written
    ring = replays.add(ring, block)
    oldest = ring.num_written - ring.size
    # Where windows begin that lost an entry of their own or of their context, once any is lost.
    leaf = _leaves(ring, first + jnp.arange(count + windows.context))
    weight = jnp.where(oldest > 0, 0.0, sum_tree.get(memory.tree, leaf))
    tree = sum_tree.put(memory.tree, leaf, weight)
    # Where windows begin whose last step is in the block. Of a block longer than a window some
    # places are in both. What began before the oldest entry, or before there was any, gets nothing.
    begun = first + jnp.arange(count) - (windows.length - 1)
    is_whole = begun >= jnp.where(oldest > 0, oldest + windows.context, 0)
    entries = jax.tree.map(lambda x: x[begun % ring.capacity], ring.data)
    may_begin = is_whole[:, None] & windows.may_begin(entries)
    weight = jnp.where(may_begin, memory.largest, 0.0).reshape(-1)
    return Prioritized(ring, sum_tree.put(tree, _leaves(ring, begun), weight), memory.largest)


def _leaves(ring: Replay, time: jax.Array) -> jax.Array:
    """Leaves `[T b]` of all lanes at times `[T]`, counted since the start."""
    num_lanes = _num_lanes(ring)
    leaf = (time % ring.capacity)[:, None] * num_lanes + jnp.arange(num_lanes)[None]
    return leaf.reshape(-1)


def _can_draw(memory: Prioritized) -> jax.Array:
    return memory.tree.total > 0.0


def _sample(windows: _Windows, memory: Prioritized, key: jax.Array, batch_size: int) -> Drawn:
    replays.require_drawable(_can_draw(memory), "no window that may be drawn", "one")
    ring, num_lanes = memory.ring, _num_lanes(memory.ring)
    index = sum_tree.draw(memory.tree, key, batch_size)
    time, lane = index // num_lanes - windows.context, index % num_lanes
    steps = replays.read_windows(ring, time, lane, windows.context + windows.length)
    num_windows = ((ring.size - windows.length + 1) * num_lanes).astype(jnp.float32)
    weight, total = sum_tree.get(memory.tree, index), memory.tree.total
    rarity = jnp.where(weight > 0.0, total / (num_windows * jnp.where(weight > 0.0, weight, 1.0)), 0.0)
    return Drawn(windows.view(steps), index, rarity)


def _rank(
    memory: Prioritized, drawn: Drawn, priority: jax.Array, did: jax.Array | bool = True, *, exponent: float
) -> Prioritized:
    # 0 to the power of 0 is 1: an exponent of 0 must not revive what is never to be drawn, nor any
    # priority what was drawn from nothing.
    weight = jnp.where((priority > 0.0) & (drawn.rarity > 0.0), priority**exponent, 0.0)
    weight = jnp.where(did, weight, sum_tree.get(memory.tree, drawn.index))
    largest = jnp.maximum(memory.largest, jnp.max(weight))
    return memory._replace(tree=sum_tree.put(memory.tree, drawn.index, weight), largest=largest)
