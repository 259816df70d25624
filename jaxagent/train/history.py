"""Histories: snapshots of a learner at chunk borders, inside the RunState: they resume exactly."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxagent.train.parallel import ChunkReport, placed_like
from jaxagent.types import RunState


class Remembered(NamedTuple):
    """A learner, and snapshots of it before each chunk and after the last."""

    learner: Any
    snapshots: Any  # leaves [chunks + 1, ...]


def first_state(state: RunState, select: Callable[[Any], Any], num_chunks: int) -> RunState:
    """Make room for snapshots `[num_chunks + 1, ...]` of `select(learner)` and take the first."""

    def room(leaf: jax.Array) -> jax.Array:
        return jnp.zeros((num_chunks + 1, *leaf.shape), leaf.dtype).at[0].set(leaf)

    snapshots = jax.tree.map(room, select(state.learner))
    return state._replace(learner=Remembered(state.learner, snapshots))


def remembering(chunk: Callable, select: Callable[[Any], Any], updates_per_chunk: int) -> Callable:
    """Wrap a chunk so that it also takes a snapshot at its end."""

    @jax.jit
    def note(snapshots: Any, learner: Any, index: jax.Array) -> Any:
        return jax.tree.map(lambda room, leaf: room.at[index].set(leaf), snapshots, select(learner))

    def remember(state: RunState) -> tuple[RunState, ChunkReport]:
        inner, report = chunk(state._replace(learner=state.learner.learner))
        index = int(inner.step) // updates_per_chunk
        # The first ones lie nowhere yet: placed as all later ones are, or the second chunk compiles anew.
        snapshots = note(placed_like(state.learner.snapshots, inner.learner), inner.learner, index)
        return inner._replace(learner=Remembered(inner.learner, snapshots)), report

    return remember
