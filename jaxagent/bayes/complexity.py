"""Bits that it takes to write a predictor down: its code, and the table that it stores.

Source: Wurgaft et al. 2025 compress the predictor's source and data by several compressors.
Differs: the code is one constant for all strategies, and the table is counted analytically or
compressed by lzma alone. Host side, numpy.
"""

import lzma

import numpy as np

CODE_BITS = 4096.0  # about 500 bytes: either predictor's source, compressed
PRECISION_BITS = 16


def table_bits(tables, precision_bits: int = PRECISION_BITS, code_bits: float = CODE_BITS) -> float:
    """Bits of a predictor that stores probability tables of any shape, rounded to 2^-precision.

    The entries are entropy coded by their empirical frequencies, and the code book, one value of
    `precision_bits` for each distinct entry, is counted too; the entries as they are, where that is
    shorter. Without the book the entropy of n distinct entries is log2 n bits, nothing for one
    entry, and the cost of a task would grow with the number of the others.
    """
    _check(tables)
    levels = np.round(np.asarray(tables, np.float64) * 2.0**precision_bits)
    _, counts = np.unique(levels, return_counts=True)
    coded = np.sum(counts * np.log2(counts.sum() / counts)) + counts.size * precision_bits
    return float(min(coded, levels.size * precision_bits) + code_bits)


def lzma_bits(tables, code_bits: float = CODE_BITS) -> float:
    """Bits of a predictor that stores tables of any shape as float16 compressed by lzma."""
    _check(tables)
    data = np.asarray(tables, "<f2").tobytes()
    size = len(lzma.compress(data, format=lzma.FORMAT_ALONE, preset=9 | lzma.PRESET_EXTREME))
    return float(8 * size + code_bits)


def _check(tables) -> None:
    if np.size(tables) == 0 or not np.isfinite(np.asarray(tables, np.float64)).all():
        raise ValueError(
            f"complexity: got tables of shape {np.shape(tables)}, expected at least one entry, all "
            "finite; fix: pass the tasks in use, pool.tables[:num_tasks]; a strategy without a "
            "table costs CODE_BITS"
        )
