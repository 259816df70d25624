"""Numbers on their way into a figure: checked, cut to what axes can show, thinned out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

MAX_COLUMNS = 60  # of a heat map
MAX_THIN_SEEDS = 10  # with more seeds, a band of one standard deviation replaces the single lines

Series = tuple[str, np.ndarray, np.ndarray]


def mean_and_band(y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, lower and upper edge over the finite seeds: [n, seeds] -> three of [n]."""
    is_finite = np.isfinite(y)
    count = is_finite.sum(axis=1)
    safe = np.where(is_finite, y, 0.0)
    mean = np.where(count > 0, safe.sum(axis=1) / np.maximum(count, 1), np.nan)
    if y.shape[1] > MAX_THIN_SEEDS:
        squares = np.where(is_finite, (y - mean[:, None]) ** 2, 0.0)
        deviation = np.sqrt(squares.sum(axis=1) / np.maximum(count - 1, 1))
        return mean, mean - deviation, mean + deviation
    low = np.where(count > 0, np.where(is_finite, y, np.inf).min(axis=1), np.nan)
    high = np.where(count > 0, np.where(is_finite, y, -np.inf).max(axis=1), np.nan)
    return mean, low, high


def drawable(x: np.ndarray, y: np.ndarray, log_x: bool, log_y: bool) -> tuple[np.ndarray, np.ndarray]:
    """Leaves out what the axes cannot show: rows by x [n], values of y [n, seeds] as nan."""
    keep = np.isfinite(x) & ((x > 0) | (not log_x))
    x, y = x[keep], y[keep]
    return x, np.where(np.isfinite(y) & ((y > 0) | (not log_y)), y, np.nan)


def thin_out(
    x: np.ndarray, y: np.ndarray, points: int, is_log: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Averages neighbouring points into at most `points` bins: x [n], y [n, seeds]."""
    if len(x) <= points:
        return x, np.where(np.isfinite(y), y, np.nan)
    edges = bin_edges(x, points, is_log)
    is_finite = np.isfinite(y)
    count = np.add.reduceat(is_finite, edges[:-1], axis=0, dtype=np.int64)
    total = np.add.reduceat(np.where(is_finite, y, 0.0), edges[:-1], axis=0)
    mean_x = np.add.reduceat(x, edges[:-1]) / np.diff(edges)
    return mean_x, np.where(count > 0, total / np.maximum(count, 1), np.nan)


def bin_edges(x: np.ndarray, points: int, is_log: bool = False) -> np.ndarray:
    """First index of each bin, and the end: of equal counts, or of equal ratios of x [n] > 0.

    Equal counts on a logarithmic axis would average the beginning, its widest part, into a point.
    """
    if not is_log:
        return np.linspace(0, len(x), points + 1).astype(int)
    borders = np.geomspace(x[0], x[-1], points + 1)[1:-1]
    return np.unique([0, *np.searchsorted(x, borders), len(x)])


def every_so_many(series: Sequence[Series], most: int) -> list[Series]:
    """Keeps evenly spaced points of each series (label, x [n], y [n]), at most `most` in all."""
    total = sum(len(x) for _, x, _ in series)
    if total <= most:
        return list(series)
    kept = []
    for label, x, y in series:
        count = min(len(x), 1 + len(x) * max(most - len(series), 0) // total)
        index = np.linspace(0, len(x) - 1, count).round().astype(int)
        kept.append((label, x[index], y[index]))
    return kept


def swap(series: Sequence[Series]) -> list[Series]:
    """Exchanges the axes of each series (label, x [n], y [n])."""
    return [(label, y, x) for label, x, y in series]


def one_each(name: str, given: Sequence, default: Sequence) -> list[Any]:
    """The given values, one for each series, or the default if none is given."""
    if len(given) not in (0, len(default)):
        raise ValueError(
            f"got {len(given)} {name} for {len(default)} series; expected one each or none; "
            f"fix: leave {name} out"
        )
    return list(given) if len(given) else list(default)


def check_series(label: str, x: np.ndarray, y: np.ndarray) -> Series:
    """Shapes x [n] and y [n] or [n, seeds] -> in order of x, y [n, seeds]; ValueError for others."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.ndim != 1 or y.ndim not in (1, 2) or len(y) != len(x):
        raise ValueError(
            f"got x of shape {x.shape} and y of shape {y.shape} for series '{label}'; expected "
            "x [n] and y [n] or [n, seeds]; fix: put the seeds on the last axis"
        )
    order = np.argsort(x, kind="stable")
    return str(label), x[order], y.reshape(len(x), -1 if y.size else 1)[order]


def check_points(label: str, x: np.ndarray, y: np.ndarray) -> Series:
    """Shapes x [n] and y [n] -> the same without the pairs that are not finite."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(
            f"got x of shape {x.shape} and y of shape {y.shape} for series '{label}'; expected "
            "x [n] and y [n]; fix: give every point one x and one y"
        )
    keep = np.isfinite(x) & np.isfinite(y)
    return str(label), x[keep], y[keep]


def check_panels(
    panels: Sequence[tuple[str, np.ndarray]], low: float, high: float, x_ticks: Sequence, y_ticks: Sequence
) -> list[tuple[str, np.ndarray]]:
    """Checks panels (title, values [rows, columns]) and thins out their columns."""
    checked = [(str(name), np.asarray(values, np.float64)) for name, values in panels]
    shapes = list(dict.fromkeys(values.shape for _, values in checked))
    if len(shapes) != 1 or len(shapes[0]) != 2 or 0 in shapes[0]:
        raise ValueError(
            f"got panels of shapes {shapes}; expected at least one panel, each of the same "
            "[rows, columns] with a cell at least; fix: mask the cells that a panel lacks"
        )
    if not (is_number(low) and is_number(high) and low < high):
        raise ValueError(
            f"got low={low!r} and high={high!r}; expected finite numbers, low < high; fix: give "
            "the ends of the colour scale"
        )
    num_rows, num_columns = shapes[0]
    for name, ticks, count in (("x_ticks", x_ticks, num_columns), ("y_ticks", y_ticks, num_rows)):
        if len(ticks) not in (0, count):
            raise ValueError(
                f"got {len(ticks)} {name}; expected {count}, a label for each, or none; fix: leave {name} out"
            )
    x = np.arange(num_columns)
    return [(name, thin_out(x, values.T, MAX_COLUMNS)[1].T) for name, values in checked]


def finite(scores: Sequence[float]) -> np.ndarray:
    """The finite numbers among scores [seeds], float64 [n]."""
    array = np.array([score for score in scores if is_number(score)], np.float64)
    return array[np.isfinite(array)]


def is_number(value: object) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, (int, float, np.number)) and math.isfinite(float(value))
