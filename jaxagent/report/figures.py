"""Figures as inline SVG: the same numbers give the same bytes; no pyplot, no display.

Colours are Okabe and Ito's (2008), told apart by colour-blind readers. Every figure is drawn on
white, so that it reads in a dark page too.
"""

from __future__ import annotations

import hashlib
import html
import io
import math
import re
import warnings
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

# Okabe and Ito's order changed: the strongest first; yellow left out, too faint on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555", "#000000")
DASHES = ("-", "--", ":", "-.")
INK, FAINT = "#263238", "#d7dcdf"
MAX_POINTS = 2000  # of all lines of a figure together: keeps an SVG below about 60 kB
MAX_DOTS = 300
MAX_THIN_SEEDS = 10  # with more seeds, a band of one standard deviation replaces the single lines

STYLE = {
    "svg.fonttype": "none",  # text stays text: small, selectable, readable by screen readers
    "svg.hashsalt": "jaxagent",
    "font.family": "sans-serif",
    "font.size": 9.5,
    "text.parse_math": False,  # a "$" in a name is a "$"
    "axes.edgecolor": "#8a949a",
    "axes.labelcolor": INK,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "path.simplify": True,
}

Series = tuple[str, np.ndarray, np.ndarray]


def learning_curves(
    series: Sequence[Series],
    title: str,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    *,
    color_numbers: Sequence[int] = (),
) -> str:
    """Draws (label, x [n], y [n] or [n, seeds]) as mean lines over a band, seeds as thin lines.

    The band is min to max up to 10 seeds, one standard deviation above. Values that are not
    finite are left out. Long series are averaged in bins of neighbouring points. `color_numbers`
    gives each series the colour of that number, so that an arm keeps its colour across figures.
    Shapes: as above -> an "<svg ...>" string.
    """
    checked = [_check_series(*one) for one in series]
    numbers = list(color_numbers) or list(range(len(checked)))
    if len(numbers) != len(checked):
        raise ValueError(
            f"got {len(numbers)} colour numbers for {len(checked)} series; expected one each or "
            "none; fix: leave color_numbers out"
        )
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(5.6, 3.1 + 0.22 * math.ceil(len(checked) / 3))
        lines = sum(1 + min(y.shape[1], MAX_THIN_SEEDS) for _, _, y in checked)
        budget = int(np.clip(MAX_POINTS / max(lines + 2 * len(checked), 1), 12, 250))
        handles = []
        for number, (_, x, y) in zip(numbers, checked, strict=True):
            keep = x > 0 if log_x else np.isfinite(x)
            x, y = _thin_out(x[keep], y[keep], budget)
            handles.append(_draw_curve(axes, x, y, number))
        if log_x:
            axes.set_xscale("log")
        else:
            axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.xaxis.set_major_formatter(_short_number)
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(_short_number)
        axes.grid(axis="y", color=FAINT, linewidth=0.7)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.set_title(title)
        _legend(figure, handles, [label for label, _, _ in checked])
        return _to_svg(figure, title)


def score_intervals(
    rows: Sequence[tuple[str, float, float, float, Sequence[float]]],
    title: str = "",
    x_label: str = "normalised score (0 = random, 1 = expert)",
) -> str:
    """Draws rows (arm, point, low, high, per-seed scores) as horizontal intervals with seed dots.

    Shapes: scores [seeds] in each row -> an "<svg ...>" string (layout as in rliable).
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(5.6, 0.9 + 0.36 * max(len(rows), 1) + (0.25 if title else 0))
        for index, (_, point, low, high, scores) in enumerate(rows):
            color, y = _color(index), -float(index)
            if all(map(_is_number, (low, high))):
                axes.fill_between([low, high], y - 0.26, y + 0.26, color=color, alpha=0.28, lw=0)
            if _is_number(point):
                axes.plot([point, point], [y - 0.3, y + 0.3], color=color, linewidth=2.6)
            dots = _finite(scores)[:MAX_DOTS]
            _dots(axes, dots, y + _spread(len(dots), 0.2), color)
        low, high = axes.get_xlim()
        for mark in (0.0, 1.0):
            if low <= mark <= high:
                axes.axvline(mark, color="#8a949a", linewidth=0.9, linestyle=":", zorder=0)
        axes.set_yticks([-float(index) for index in range(len(rows))], [row[0] for row in rows])
        axes.set_ylim(-max(len(rows), 1) + 0.4, 0.6)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color=FAINT, linewidth=0.7)
        axes.set_xlabel(x_label)
        if title:
            axes.set_title(title)
        return _to_svg(figure, title or "score intervals")


def per_task_bars(
    tasks: Sequence[str],
    arms: Sequence[str],
    scores: Sequence[Sequence[Sequence[float]]],
    title: str = "",
    y_label: str = "normalised score",
) -> str:
    """Draws every task's arms side by side: a faint bar to the mean, and a dot for each seed.

    Shapes: scores [task, arm, seed], ragged in seed -> an "<svg ...>" string.
    """
    if len(scores) != len(tasks) or any(len(row) != len(arms) for row in scores):
        got = [len(row) for row in scores]
        raise ValueError(
            f"got scores for {got} arms in {len(scores)} tasks; expected {len(arms)} arms in each "
            f"of {len(tasks)}; fix: scores[task][arm] is the list of seeds"
        )
    total = sum(len(seeds) for row in scores for seeds in row)
    with matplotlib.rc_context(STYLE):
        width = float(np.clip(0.9 + 0.2 * len(tasks) * (len(arms) + 1), 5.6, 11))
        figure, axes = _figure(width, 3.0 + 0.22 * math.ceil(len(arms) / 3))
        handles = []
        for arm in range(len(arms)):
            groups = [_finite(scores[task][arm]) for task in range(len(tasks))]
            places = np.arange(len(tasks)) + (arm - (len(arms) - 1) / 2) * 0.84 / len(arms)
            handles.append(_draw_groups(axes, places, groups, _color(arm), 0.76 / len(arms)))
            for place, seeds in zip(places, groups, strict=True):
                if total <= MAX_DOTS:
                    spread = _spread(len(seeds), 0.24 / len(arms))
                    _dots(axes, place + spread, seeds, _color(arm))
        axes.axhline(0, color="#8a949a", linewidth=0.9)
        axes.set_xticks(range(len(tasks)), list(tasks))
        axes.tick_params(axis="x", length=0)
        axes.grid(axis="y", color=FAINT, linewidth=0.7)
        axes.set_ylabel(y_label)
        if title:
            axes.set_title(title)
        _legend(figure, handles, arms)
        return _to_svg(figure, title or "scores by task")


# --- parts ---------------------------------------------------------------------------------------


def _draw_curve(axes: Axes, x: np.ndarray, y: np.ndarray, number: int):
    """Draws one series (x [n], y [n, seeds]) and returns its mean line, for the legend."""
    color, dashes = _color(number), DASHES[number // len(COLORS) % len(DASHES)]
    mean, low, high = _mean_and_band(y)
    if y.shape[1] > 1:
        axes.fill_between(x, low, high, color=color, alpha=0.16, linewidth=0)
    if 1 < y.shape[1] <= MAX_THIN_SEEDS:
        axes.plot(x, y, color=color, linewidth=0.5, alpha=0.5)
    marker = "o" if len(x) == 1 else ""
    (line,) = axes.plot(x, mean, color=color, linestyle=dashes, linewidth=1.9, marker=marker)
    return line


def _draw_groups(
    axes: Axes, places: np.ndarray, groups: Sequence[np.ndarray], color: str, width: float
):
    """Draws a faint bar to each group's mean, its end as a line, and the range of its seeds."""
    means = [float(seeds.mean()) if len(seeds) else 0.0 for seeds in groups]
    handle = axes.bar(places, means, width, color=color, alpha=0.3, linewidth=0)
    for place, seeds, mean in zip(places, groups, means, strict=True):
        if len(seeds):
            ends = [place - width / 2, place + width / 2]
            axes.plot(ends, [mean, mean], color=color, linewidth=2)
            axes.plot([place, place], [seeds.min(), seeds.max()], color=color, linewidth=0.8)
    return handle


def _mean_and_band(y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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


def _thin_out(x: np.ndarray, y: np.ndarray, points: int) -> tuple[np.ndarray, np.ndarray]:
    """Averages neighbouring points into at most `points` bins: x [n], y [n, seeds]."""
    if len(x) <= points:
        return x, np.where(np.isfinite(y), y, np.nan)
    edges = np.linspace(0, len(x), points + 1).astype(int)
    is_finite = np.isfinite(y)
    count = np.add.reduceat(is_finite, edges[:-1], axis=0, dtype=np.int64)
    total = np.add.reduceat(np.where(is_finite, y, 0.0), edges[:-1], axis=0)
    mean_x = np.add.reduceat(x, edges[:-1]) / np.diff(edges)
    return mean_x, np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _check_series(label: str, x: np.ndarray, y: np.ndarray) -> tuple[str, np.ndarray, np.ndarray]:
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.ndim != 1 or y.ndim not in (1, 2) or len(y) != len(x):
        raise ValueError(
            f"got x of shape {x.shape} and y of shape {y.shape} for series '{label}'; expected "
            "x [n] and y [n] or [n, seeds]; fix: put the seeds on the last axis"
        )
    order = np.argsort(x, kind="stable")
    return str(label), x[order], y.reshape(len(x), -1 if y.size else 1)[order]


def _dots(axes: Axes, x: np.ndarray, y: np.ndarray, color: str) -> None:
    axes.plot(x, y, "o", color=color, markersize=3.6, markeredgecolor="white", markeredgewidth=0.5)


def _spread(count: int, half_width: float) -> np.ndarray:
    """Offsets that keep equal seeds apart: [count], by the seed's number, never random."""
    return np.linspace(-half_width, half_width, count) if count > 1 else np.zeros(count)


def _finite(scores: Sequence[float]) -> np.ndarray:
    array = np.array([score for score in scores if _is_number(score)], np.float64)
    return array[np.isfinite(array)]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.number)) and math.isfinite(float(value))


def _color(index: int) -> str:
    return COLORS[index % len(COLORS)]


def _short_number(value: float, _position: int | None = None) -> str:
    """Formats an axis tick: 1500000 -> 1.5M, 20000 -> 20k."""
    for least, size, unit in ((1e9, 1e9, "B"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if abs(value) >= least:
            return f"{value / size:.4g}{unit}"
    return f"{value:.4g}"


# --- from matplotlib to a string -----------------------------------------------------------------


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of its own, in inches, unknown to pyplot."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasSVG(figure)
    return figure, figure.subplots()


def _legend(figure: Figure, handles: Sequence, labels: Sequence[str]) -> None:
    """Puts the legend below the axes; a leading underscore would hide a label from matplotlib."""
    if len(labels) == 0:
        return
    shown = [" " + label if label.startswith("_") else label for label in map(str, labels)]
    columns = 3 if max(map(len, shown)) < 24 else 2
    figure.legend(list(handles), shown, loc="outside lower center", ncols=columns)


def _to_svg(figure: Figure, title: str) -> str:
    """Writes a figure as an inline "<svg>": no prolog, no date, no link, ids unique to it."""
    buffer = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the browser has the glyph
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<(metadata|style)\b.*?</\1>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' d="[^"]*"', lambda match: _round_path(match.group(0)), svg)
    svg = re.sub(r"('[\w ]+', )+sans-serif", "sans-serif", svg)
    prefix = "f" + hashlib.sha256(svg.encode()).hexdigest()[:10]
    svg = re.sub(r'(?<= )id="', f'id="{prefix}-', svg)
    svg = re.sub(r'(?:xlink:)?href="#', f'href="#{prefix}-', svg)
    svg = svg.replace("url(#", f"url(#{prefix}-")
    opening = _opening_tag(figure, title)
    return re.sub(r"<svg[^>]*>", lambda _: opening, svg, count=1)


def _opening_tag(figure: Figure, title: str) -> str:
    """The "<svg>" tag: scales down on narrow screens, is named for screen readers."""
    width, height = figure.get_size_inches()
    style = f"width:100%;max-width:{width * 96:.0f}px;height:auto"
    style += ";stroke-linejoin:round;stroke-linecap:butt"  # matplotlib's, kept to this figure
    view = f"0 0 {width * 72:.4g} {height * 72:.4g}"
    label = html.escape(title, quote=True)
    return f'<svg viewBox="{view}" role="img" aria-label="{label}" style="{style}">'


def _round_path(path: str) -> str:
    """Keeps two decimals of a path's coordinates, and one space for each newline."""
    rounded = re.sub(r"-?\d+\.\d{3,}", lambda match: f"{float(match.group(0)):.2f}", path)
    return re.sub(r"\s+", " ", rounded)
