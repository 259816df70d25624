"""The ring: what it holds, in which order it forgets, what it draws."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxagent.data import replay

ADD = jax.jit(replay.add)
FEW = settings(max_examples=15, deadline=None, derandomize=True)


class Item(NamedTuple):
    """A step of two leaves."""

    number: jax.Array
    pair: jax.Array


def items(first, count):
    number = jnp.arange(first, first + count, dtype=jnp.int32)
    real = number.astype(jnp.float32)
    return Item(number, jnp.stack([real, -real], axis=-1))


def empty(capacity):
    return replay.init(jax.tree.map(lambda x: x[0], items(0, 1)), capacity)


def filled(capacity, *blocks):
    ring, first = empty(capacity), 0
    for count in blocks:
        ring, first = ADD(ring, items(first, count)), first + count
    return ring


def test_a_new_replay_is_empty_and_of_the_types_of_its_example():
    ring = empty(6)
    assert (ring.capacity, int(ring.size), int(ring.num_written)) == (6, 0, 0)
    assert (ring.data.number.dtype, ring.data.number.shape) == (jnp.int32, (6,))
    assert (ring.data.pair.dtype, ring.data.pair.shape) == (jnp.float32, (6, 2))


def test_the_oldest_are_overwritten_in_order_by_hand():
    ring = filled(6, 2, 2)
    np.testing.assert_array_equal(ring.data.number, [0, 1, 2, 3, 0, 0])
    assert int(ring.size) == 4
    ring = filled(6, 2, 2, 2, 2)
    np.testing.assert_array_equal(ring.data.number, [6, 7, 2, 3, 4, 5])
    assert (int(ring.size), int(ring.num_written)) == (6, 8)
    np.testing.assert_array_equal(ring.data.pair[:, 1], -ring.data.number.astype(jnp.float32))


def test_a_block_may_fill_the_ring():
    np.testing.assert_array_equal(filled(6, 6).data.number, np.arange(6))
    np.testing.assert_array_equal(filled(6, 6, 6).data.number, np.arange(6, 12))


def test_a_large_first_block_is_followed_by_small_ones():
    """As a warm-up is."""
    np.testing.assert_array_equal(filled(8, 4, 2, 2, 2).data.number, [8, 9, 2, 3, 4, 5, 6, 7])


def test_blocks_of_any_sizes_go_on_where_the_last_ended():
    """A slice that did not fit was once shifted: the ring held 0 1 2 3 5 6."""
    np.testing.assert_array_equal(filled(6, 3, 2, 2).data.number, [6, 1, 2, 3, 4, 5])


@FEW
@given(st.lists(st.integers(1, 12), max_size=9))
def test_the_last_are_held_each_in_its_place_whatever_the_blocks(counts):
    ring, written = filled(12, *counts), sum(counts)
    kept = np.arange(max(0, written - 12), written)
    np.testing.assert_array_equal(np.asarray(ring.data.number)[kept % 12], kept)


def test_a_block_larger_than_the_ring_is_refused():
    with pytest.raises(ValueError, match="got a block of 7 entries, expected at most the capacity 6"):
        replay.add(empty(6), items(0, 7))


def test_an_empty_replay_has_nothing_to_draw():
    assert not replay.transitions().can_draw(empty(6))
    with pytest.raises(ValueError, match="got a draw from no entry"):
        replay.sample(empty(6), jax.random.key(0), 2)
    assert replay.transitions().can_draw(filled(6, 1))


def test_only_what_was_written_is_drawn_and_all_of_it_alike():
    draw = jax.jit(replay.sample, static_argnums=2)
    for blocks, held in (((2, 2), np.arange(4)), ((2,) * 5, np.arange(4, 10))):
        ring = filled(6, *blocks)
        drawn = draw(ring, jax.random.key(0), 6000)
        counts = np.bincount(np.asarray(drawn.number), minlength=10)
        assert set(np.flatnonzero(counts).tolist()) == set(held.tolist())
        assert scipy.stats.chisquare(counts[held]).pvalue > 0.01
        # All leaves of one step.
        np.testing.assert_array_equal(drawn.pair[:, 0], drawn.number.astype(jnp.float32))
        assert drawn.pair.shape == (6000, 2)


def test_a_draw_is_a_function_of_its_key():
    ring = filled(6, 6)
    first, again, other = (replay.sample(ring, jax.random.key(s), 20) for s in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert (first.number != other.number).any()


def test_rings_may_be_lanes():
    """Of equal capacity, each with its own count."""
    one, two = filled(6, 2), filled(6, 2, 2, 2, 2)
    rings = jax.tree.map(lambda *x: jnp.stack(x), one, two)
    blocks = jax.tree.map(lambda *x: jnp.stack(x), items(10, 2), items(20, 2))
    both = jax.jit(jax.vmap(replay.add))(rings, blocks)
    np.testing.assert_array_equal(both.data.number[0], [0, 1, 10, 11, 0, 0])
    np.testing.assert_array_equal(both.data.number[1], [6, 7, 20, 21, 4, 5])
    draw = jax.jit(jax.vmap(lambda ring, key: replay.sample(ring, key, 200)))
    drawn = draw(both, jax.random.split(jax.random.key(0), 2))
    assert set(np.unique(drawn.number[0]).tolist()) == {0, 1, 10, 11}
    assert set(np.unique(drawn.number[1]).tolist()) == {4, 5, 6, 7, 20, 21}


# --- windows --------------------------------------------------------------------------------------


def timed(first, count, num_lanes=3):
    """Entries `[T, b]` that say their time and lane."""
    time = jnp.arange(first, first + count, dtype=jnp.int32)[:, None]
    lane = jnp.arange(num_lanes, dtype=jnp.int32)[None]
    return {
        "time": jnp.broadcast_to(time, (count, num_lanes)),
        "lane": jnp.broadcast_to(lane, (count, num_lanes)),
    }


@pytest.mark.parametrize("written", [0, 3])
def test_there_is_nothing_to_draw_before_it_is_written(written):
    memory = replay.windows(4)
    ring = memory.init(timed(0, 1), 8 * 3)
    ring = memory.add(ring, timed(0, written)) if written else ring
    assert not memory.can_draw(ring)
    with pytest.raises(ValueError, match="got a draw from fewer entries than a window, expected at least 4"):
        memory.sample(ring, jax.random.key(0), 2)
    assert memory.can_draw(memory.add(ring, timed(written, 4 - written)))


@pytest.mark.parametrize("num_blocks", [2, 4, 5, 7])
def test_windows_are_stretches_of_one_lane_and_never_cross_the_newest(num_blocks):
    """Four blocks fill the ring; a window may wrap, but not from the newest to the oldest."""
    memory = replay.windows(3)
    ring = memory.init(timed(0, 2), 8 * 3)
    assert ring.capacity == 8
    for i in range(num_blocks):
        ring = jax.jit(memory.add)(ring, timed(2 * i, 2))
    drawn = memory.sample(ring, jax.random.key(0), 4096)
    time, lane = np.asarray(drawn["time"]), np.asarray(drawn["lane"])
    assert time.shape == (3, 4096)
    np.testing.assert_array_equal(np.diff(time, axis=0), 1)
    np.testing.assert_array_equal(lane, np.broadcast_to(lane[:1], lane.shape))
    oldest, newest = max(0, 2 * num_blocks - 8), 2 * num_blocks - 1
    starts, counts = np.unique(time[0], return_counts=True)
    np.testing.assert_array_equal(starts, np.arange(oldest, newest - 1))
    assert scipy.stats.chisquare(counts).pvalue > 1e-3
    assert scipy.stats.chisquare(np.unique(lane[0], return_counts=True)[1]).pvalue > 1e-3


def test_a_window_that_fits_exactly_is_the_only_one():
    memory = replay.windows(4)
    ring = memory.add(memory.init(timed(0, 4), 4 * 3), timed(0, 4))
    drawn = memory.sample(ring, jax.random.key(1), 16)
    np.testing.assert_array_equal(drawn["time"], np.arange(4)[:, None].repeat(16, 1))


def test_a_ring_smaller_than_a_window_is_refused():
    with pytest.raises(ValueError, match="expected at least 5 of each, a window"):
        replay.windows(5).init(timed(0, 2), 4 * 3)


def test_transitions_are_kept_one_by_one():
    memory = replay.transitions()
    ring = memory.add(memory.init(timed(0, 2), 12), timed(0, 2))
    np.testing.assert_array_equal(ring.data["time"][:6], [0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(ring.data["lane"][:6], [0, 1, 2, 0, 1, 2])
    assert memory.sample(ring, jax.random.key(0), 7)["lane"].shape == (7,)
