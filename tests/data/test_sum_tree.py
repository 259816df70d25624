"""The sum tree against cumulative sums in numpy, and the distribution that it draws from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxagent.data import sum_tree


def filled(weights):
    tree = sum_tree.init(len(weights))
    return sum_tree.put(tree, jnp.arange(len(weights)), jnp.asarray(weights, jnp.float32))


@pytest.mark.fast("65")
@pytest.mark.parametrize("size", [1, 2, 3, 64, 65, 1000, 5000])
def test_finds_what_a_running_sum_finds(size):
    rng = np.random.default_rng(size)
    # Whole numbers: both sums are exact.
    weights = rng.integers(0, 5, size)
    weights[rng.integers(size)] = 3
    tree = filled(weights)
    assert float(tree.total) == weights.sum()
    mass = np.arange(weights.sum(), dtype=np.float32)
    expected = np.searchsorted(np.cumsum(weights), mass, side="right")
    np.testing.assert_array_equal(sum_tree.find(tree, jnp.asarray(mass)), expected)
    np.testing.assert_array_equal(sum_tree.get(tree, jnp.arange(size)), weights)


def test_every_parent_is_the_sum_of_its_children_after_many_writes():
    rng, tree = np.random.default_rng(0), sum_tree.init(100)
    put, truth = jax.jit(sum_tree.put), np.zeros(100, np.float32)
    for _ in range(300):
        index = rng.integers(0, 100, 8)
        weight = rng.random(8).astype(np.float32) * 10.0 ** rng.integers(-6, 6)
        tree = put(tree, index, weight)
        for i in set(index.tolist()):
            truth[i] = weight[index == i].max()
    *above, leaves = (np.asarray(level) for level in tree.levels)
    assert len(above) == 1
    np.testing.assert_array_equal(leaves[:100], truth)
    sums = jax.jit(lambda x: jnp.sum(x, axis=-1))(leaves.reshape(-1, tree.num_children))
    np.testing.assert_allclose(above[0], sums, rtol=1e-6)


def test_a_tree_is_hardly_larger_than_its_weights():
    for size, depth in ((1, 1), (64, 1), (65, 2), (102_400, 3), (10**6, 4)):
        tree = sum_tree.init(size)
        assert len(tree.levels) == depth
        assert size <= tree.num_leaves <= 1.3 * size + 1


def test_the_last_level_loses_nothing_to_rounding():
    """A leaf of a million-fold smaller weight beside large ones is drawn about as often as due."""
    weights = np.full(5000, 1e-6, np.float32)
    weights[::50] = 1.0
    tree = filled(weights)
    mass = jnp.asarray(np.random.default_rng(0).random(200_000) * float(tree.total), jnp.float32)
    drawn = np.bincount(np.asarray(sum_tree.find(tree, mass)), minlength=5000)
    np.testing.assert_allclose(drawn[::50] / drawn.sum(), 0.01, atol=0.002)


def test_equal_indices_keep_the_largest_weight():
    tree = sum_tree.put(filled([9.0, 9.0]), jnp.array([1, 1, 1]), jnp.array([2.0, 5.0, 3.0]))
    np.testing.assert_array_equal(sum_tree.get(tree, jnp.arange(2)), [9.0, 5.0])


def test_draws_in_proportion_to_the_weights():
    weights = np.array([0.0, 1.0, 2.0, 0.0, 5.0, 0.25, 0.0])
    tree, num_keys, num_draws = filled(weights), 4000, 16
    keys = jax.random.split(jax.random.key(0), num_keys)
    drawn = np.asarray(jax.vmap(lambda k: sum_tree.draw(tree, k, num_draws))(keys))
    share = np.bincount(drawn.ravel(), minlength=7) / drawn.size
    expected = weights / weights.sum()
    spread = np.sqrt(expected * (1 - expected) / drawn.size)  # of independent draws
    assert (np.abs(share - expected) <= 4 * spread).all()
    # Strata: a leaf that holds half of the weight is drawn half of the time in every batch.
    counts = (drawn == 4).sum(1)
    assert np.ptp(counts) <= 2


def test_a_leaf_without_weight_is_never_found():
    rng = np.random.default_rng(1)
    weights = np.where(rng.random(500) < 0.5, 0.0, rng.random(500) * 10.0 ** rng.integers(-9, 9))
    tree = filled(weights)
    # Up to the total itself, which rounding of `place * total` may reach.
    mass = jnp.concatenate([jnp.linspace(0.0, 1.0, 10_001) * tree.total, tree.total[None]])
    assert (np.asarray(sum_tree.get(tree, sum_tree.find(tree, mass))) > 0).all()


def test_an_empty_tree_gives_a_leaf_that_exists():
    tree = sum_tree.init(5)
    assert float(tree.total) == 0.0
    index = np.asarray(sum_tree.draw(tree, jax.random.key(0), 4))
    assert (index == tree.num_leaves - 1).all()


def test_refuses_a_tree_without_leaves():
    with pytest.raises(ValueError, match="got size 0"):
        sum_tree.init(0)
