"""Bits of tables by hand, and against what a coder does."""

import numpy as np
import pytest

from jaxagent.bayes import complexity


def test_table_bits_by_hand():
    one = np.array([[0.3]])
    assert complexity.table_bits(one, 16, code_bits=7.0) == 16 + 7
    distinct = np.array([0.1, 0.2, 0.3, 0.4])
    assert complexity.table_bits(distinct, 8, 0.0) == 4 * 8
    halves = np.full((50, 2), 0.5)
    assert complexity.table_bits(halves, 16, 0.0) == 16  # one value in the book, no choice
    coins = np.array([0.25, 0.75] * 32)
    assert complexity.table_bits(coins, 16, 0.0) == 64 * 1 + 2 * 16
    almost = np.array([0.25, 0.25 + 1e-9] * 32)
    assert complexity.table_bits(almost, 16, 0.0) == 16  # the same after rounding


@pytest.mark.parametrize("bits", [complexity.table_bits, complexity.lzma_bits])
def test_bits_grow_with_the_pool_and_shrink_with_structure(bits):
    tables = np.random.default_rng(0).dirichlet(np.ones(8), (256, 1))
    sizes = np.array([4, 16, 64, 256])
    values = np.array([bits(tables[:n], code_bits=0.0) for n in sizes])
    assert (np.diff(values) > 0).all()
    slope = np.polyfit(np.log(sizes), np.log(values), 1)[0]
    assert 0.85 < slope <= 1.01
    assert values[-1] <= 256 * 8 * 16 * 1.05
    structured = np.round(tables * 4) / 4
    assert bits(structured, code_bits=0.0) < 0.5 * values[-1]
    assert bits(tables) == values[-1] + complexity.CODE_BITS


def test_bits_refuse_nothing_and_nan():
    for bits in (complexity.table_bits, complexity.lzma_bits):
        with pytest.raises(ValueError, match=r"got tables of shape \(0, 3\), expected .*; fix"):
            bits(np.zeros((0, 3)))
        with pytest.raises(ValueError, match="expected at least one entry, all finite"):
            bits(np.array([np.nan, 1.0]))
