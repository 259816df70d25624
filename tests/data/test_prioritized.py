"""Prioritised windows: which can be drawn, how often, and what a full ring forgets."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxagent.data import prioritized, sum_tree

LENGTH, LANES = 3, 2


class Item(NamedTuple):
    """A step that tells its time and lane."""

    time: jax.Array
    lane: jax.Array


def items(first, count):
    time = jnp.broadcast_to(jnp.arange(first, first + count)[:, None], (count, LANES))
    return Item(time, jnp.broadcast_to(jnp.arange(LANES), (count, LANES)))


def memory_of(exponent=1.0):
    return prioritized.prioritized_windows(LENGTH, exponent)


def filled(capacity, *blocks, exponent=1.0):
    memory = memory_of(exponent)
    held, first = memory.init(items(0, 1), capacity * LANES), 0
    add = jax.jit(memory.add)
    for count in blocks:
        held, first = add(held, items(first, count)), first + count
    return held


def weights(held, capacity):
    leaves = sum_tree.get(held.tree, jnp.arange(capacity * LANES))
    return np.asarray(leaves).reshape(capacity, LANES)


@pytest.mark.parametrize("block", [1, 2, 3, 6, 12])
@pytest.mark.parametrize("number", [1, 2, 3, 5, 7, 13, 25])
def test_exactly_the_whole_windows_can_be_drawn(block, number):
    """Whatever the block, before the ring is full, when it is, and after it wrapped."""
    capacity = 12
    held = filled(capacity, *[block] * number)
    written = block * number
    oldest = max(0, written - capacity)
    whole = np.arange(oldest, written - LENGTH + 1) % capacity
    expected = np.zeros((capacity, LANES))
    expected[whole] = 1.0
    np.testing.assert_array_equal(weights(held, capacity), expected)
    if not len(whole):
        assert float(held.tree.total) == 0.0
        return
    drawn = memory_of().sample(held, jax.random.key(0), 64)
    time, lane = np.asarray(drawn.steps.time), np.asarray(drawn.steps.lane)
    np.testing.assert_array_equal(time, time[0] + np.arange(LENGTH)[:, None])
    np.testing.assert_array_equal(lane, np.broadcast_to(lane[0], lane.shape))
    assert oldest <= time.min()
    assert time.max() < written
    np.testing.assert_allclose(drawn.rarity, 1.0)  # all are as likely as each other


@pytest.mark.parametrize("block", [1, 2, 6])
@pytest.mark.parametrize("number", [1, 2, 5, 7, 12, 13, 25])
def test_a_window_keeps_its_context_and_begins_where_it_may(block, number):
    """Every third entry begins none; two entries before a window come with it."""
    capacity, context = 12, 2
    memory = prioritized.prioritized_windows(
        LENGTH,
        1.0,
        context=context,
        view=lambda steps: jax.tree.map(lambda x: (x[:-context], x[context:]), steps),
        may_begin=lambda entries: entries.time % 3 != 0,
    )
    held, add = memory.init(items(0, 1), capacity * LANES), jax.jit(memory.add)
    for first in range(0, block * number, block):
        held = add(held, items(first, block))
    written = block * number
    oldest = written - capacity + context if written > capacity else 0
    begins = [t for t in range(oldest, written - LENGTH + 1) if t % 3]
    expected = np.zeros((capacity, LANES))
    expected[np.array(begins, int) % capacity] = 1.0
    np.testing.assert_array_equal(weights(held, capacity), expected)
    if begins:
        steps = memory.sample(held, jax.random.key(0), 64).steps
        before, own = (np.asarray(x) for x in steps.time)
        assert set(own[0]) <= set(begins)
        np.testing.assert_array_equal(own, own[0] + np.arange(LENGTH)[:, None])
        real = before >= 0  # what lies before the first entry is arbitrary
        times = own[0] - context + np.arange(LENGTH)[:, None]
        np.testing.assert_array_equal(before[real & (times >= 0)], times[real & (times >= 0)])


@pytest.mark.slow
def test_draws_and_their_rarity_follow_the_priorities():
    capacity, memory = 8, memory_of(exponent=0.5)
    held = filled(capacity, 4, 4, exponent=0.5)
    # The windows of lane 0 that begin at times 0 to 5 get priorities 16, 1, 0, 1, 1, 1.
    priority = jnp.array([16.0, 1.0, 0.0, 1.0, 1.0, 1.0])
    drawn = memory.sample(held, jax.random.key(0), 6)._replace(index=jnp.arange(6) * LANES)
    held = jax.jit(memory.rank)(held, drawn, priority)
    leaf = weights(held, capacity)
    np.testing.assert_allclose(leaf[:6, 0], [4, 1, 0, 1, 1, 1])
    np.testing.assert_array_equal(leaf[:6, 1], 1.0)
    keys = jax.random.split(jax.random.key(1), 500)
    many = jax.vmap(lambda k: memory.sample(held, k, 32))(keys)
    counts = np.bincount(np.asarray(many.index).ravel(), minlength=16) / many.index.size
    share = leaf.ravel() / leaf.sum()
    np.testing.assert_allclose(counts, share, atol=0.01)
    expected = (1.0 / 12) / share[np.asarray(many.index)]
    np.testing.assert_allclose(many.rarity, expected, rtol=1e-5)
    # Importance weights make the draw stand for a uniform one: here over all that are not at 0.
    drawable = share > 0
    uniform = counts[drawable] / share[drawable] / 12
    np.testing.assert_allclose(uniform.sum(), 11 / 12, atol=0.02)


@pytest.mark.slow
def test_a_new_window_has_the_largest_weight_so_far():
    memory, held = memory_of(), filled(8, 4)
    drawn = memory.sample(held, jax.random.key(0), 1)._replace(index=jnp.array([0]))
    held = memory.rank(held, drawn, jnp.array([7.0]))
    held = memory.rank(held, drawn, jnp.array([2.0]))
    held = memory.add(held, items(4, 4))
    np.testing.assert_array_equal(weights(held, 8)[:, 0], [2, 1, 7, 7, 7, 7, 0, 0])


@pytest.mark.parametrize("why", ["masked", "known", "short"])
def test_nothing_is_drawn_where_no_window_may_be(why):
    """Once a place that was never written came back, with weights that were NaN."""

    def nowhere(entries):
        return jnp.zeros(entries.time.shape, bool)

    memory = memory_of()
    if why == "masked":
        memory = prioritized.prioritized_windows(LENGTH, 1.0, may_begin=nowhere)
    held = memory.add(memory.init(items(0, 1), 8 * LANES), items(0, 2 if why == "short" else 4))
    if why == "known":  # every window was drawn and taught nothing
        every = memory.sample(held, jax.random.key(0), 2 * LANES)
        every = every._replace(index=jnp.arange(2 * LANES), rarity=jnp.ones(2 * LANES))
        held = memory.rank(held, every, jnp.zeros(2 * LANES))
    assert not memory.can_draw(held)
    with pytest.raises(
        ValueError, match="got a draw from no window that may be drawn, expected at least one"
    ):
        memory.sample(held, jax.random.key(1), 3)
    drawn = jax.jit(memory.sample, static_argnums=2)(held, jax.random.key(1), 3)
    np.testing.assert_array_equal(drawn.rarity, 0.0)
    np.testing.assert_array_equal(prioritized.importance_weights(drawn.rarity, 0.5), 0.0)
    ranked = memory.rank(held, drawn, jnp.ones(3))  # what was drawn from nothing is not brought to life
    assert not memory.can_draw(ranked)


def test_importance_weights_by_hand():
    weight = prioritized.importance_weights(jnp.array([1.0, 4.0, 0.25]), 0.5)
    np.testing.assert_allclose(weight, [0.5, 1.0, 0.25])


def test_a_ring_smaller_than_a_window_is_refused():
    with pytest.raises(ValueError, match="expected at least 3 of each, a window"):
        memory_of().init(items(0, 1), 2 * LANES)


@pytest.mark.slow
def test_an_exponent_of_zero_draws_alike_but_never_what_has_priority_zero():
    memory, held = memory_of(0.0), filled(8, 4, 4, exponent=0.0)
    drawn = memory.sample(held, jax.random.key(0), 2)._replace(index=jnp.array([0, 2]))
    held = memory.rank(held, drawn, jnp.array([0.0, 9.0]))
    np.testing.assert_array_equal(weights(held, 8)[:3, 0], [0, 1, 1])
