"""Hashed randomness: uniform, unrelated between lanes, words, steps and purposes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from envs.types import Component
from envs.words import RESET_STREAM, STEP_STREAM, below, lane_actions, lane_words, uniform

STEPS, LANES, WORDS = 200, 256, 3


@pytest.fixture(scope="module")
def words():
    """Words `[T, B, R]` of successive keys of one split, as a rollout draws them."""
    keys = jax.random.split(jax.random.key(0), STEPS)
    draw = jax.vmap(lambda key: jnp.stack(lane_words(key, LANES, WORDS, STEP_STREAM), axis=-1))
    return np.asarray(jax.jit(draw)(keys))


def test_every_bit_is_fair(words):
    bits = (words[..., None] >> np.arange(32, dtype=np.uint32)) & 1
    share = bits.reshape(-1, 32).mean(0)
    assert np.abs(share - 0.5).max() < 5 * 0.5 / np.sqrt(words.size)


def test_words_are_uniform(words):
    for part in (words >> 24, (words >> 12) & 255, words & 255):
        counts = np.bincount(part.reshape(-1), minlength=256)
        assert scipy.stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("axis", [0, 1, 2], ids=["steps", "lanes", "words"])
def test_neighbours_are_independent(words, axis):
    a, b = np.moveaxis(words, axis, 0)[:-1], np.moveaxis(words, axis, 0)[1:]
    pairs = ((a >> 28) * 16 + (b >> 28)).reshape(-1)
    assert scipy.stats.chisquare(np.bincount(pairs, minlength=256)).pvalue > 1e-3
    correlation = scipy.stats.pearsonr(a.reshape(-1).astype(float), b.reshape(-1).astype(float))
    assert abs(correlation.statistic) < 5 / np.sqrt(a.size)


def test_no_word_comes_twice_too_often(words):
    # Birthday: n^2 / 2^33 pairs are expected among n words.
    num_equal = words.size - len(np.unique(words))
    expected = words.size**2 / 2**33
    assert num_equal < expected + 6 * np.sqrt(expected) + 6


def test_keys_and_purposes_give_unrelated_words():
    key, other = jax.random.split(jax.random.key(1))
    a = np.asarray(lane_words(key, 4096, 1, STEP_STREAM)[0])
    for b in (
        lane_words(jax.random.clone(key), 4096, 1, RESET_STREAM)[0],
        lane_words(other, 4096, 1, STEP_STREAM)[0],
    ):
        # No common values at any shift: the streams are not windows of one sequence.
        assert len(np.intersect1d(a, np.asarray(b))) <= 2
    again = np.asarray(lane_words(jax.random.clone(key), 4096, 1, STEP_STREAM)[0])
    np.testing.assert_array_equal(a, again)


def test_small_seeds_give_unrelated_words():
    """`key(0)` and `key(2)` differ in one bit; users write them, splits never give them."""
    table = np.stack([lane_words(jax.random.key(seed), 2048, 1, RESET_STREAM)[0] for seed in range(40)])
    correlation = np.corrcoef(table.astype(float)) - np.eye(40)
    assert np.abs(correlation).max() < 5.5 / np.sqrt(2048)
    top_bits = table >> 31
    agreement = (top_bits[:, None] == top_bits[None]).mean(-1)[~np.eye(40, dtype=bool)]
    assert np.abs(agreement - 0.5).max() < 5.5 * 0.5 / np.sqrt(2048)
    assert (table[:, 0] != 0).all()


def test_a_lane_keeps_its_words_in_a_larger_batch():
    key = jax.random.key(2)
    few = lane_words(key, 5, 2, STEP_STREAM)
    many = lane_words(jax.random.clone(key), 9, 2, STEP_STREAM)
    for x, y in zip(few, many, strict=True):
        np.testing.assert_array_equal(x, y[:5])


def test_uniform_is_uniform_and_half_open(words):
    x = np.asarray(uniform(jnp.asarray(words), -2.0, 3.0))
    assert x.dtype == np.float32
    assert x.min() >= -2.0
    assert x.max() < 3.0
    assert scipy.stats.kstest(x.reshape(-1)[:20_000], "uniform", args=(-2, 5)).pvalue > 1e-3
    assert float(uniform(jnp.uint32(0), -2.0, 3.0)) == -2.0
    assert float(uniform(jnp.uint32(2**32 - 1), -2.0, 3.0)) < 3.0


@pytest.mark.parametrize("bound", [1, 2, 3, 10, 96])
def test_below_is_uniform(words, bound):
    x = np.asarray(below(jnp.asarray(words), bound))
    counts = np.bincount(x.reshape(-1), minlength=bound)
    assert len(counts) == bound
    assert bound == 1 or scipy.stats.chisquare(counts).pvalue > 1e-3


def test_lane_actions_cover_the_space():
    key = jax.random.key(3)
    discrete = lane_actions(key, 600, (Component("a", "category", cardinality=3),))
    assert (discrete.shape, discrete.dtype) == ((600,), jnp.int32)
    assert set(np.asarray(discrete)) == {0, 1, 2}
    spec = (Component("a", "real", -1.0, 1.0), Component("b", "real", 0.0, 4.0))
    reals = np.asarray(lane_actions(jax.random.clone(key), 600, spec))
    assert reals.shape == (600, 2)
    assert (reals.min(0) < [-0.97, 0.1]).all()
    assert (reals.max(0) > [0.97, 3.9]).all()
    with pytest.raises(ValueError, match="unbounded"):
        lane_actions(jax.random.clone(key), 4, (Component("a", "real"),))
