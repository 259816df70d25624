"""Figures as inline SVG: the same numbers give the same bytes; no pyplot, no display.

Colours are Okabe and Ito's (2008), told apart by colour-blind readers. Every figure is drawn on
white, so that it reads in a dark page too.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from jaxagent.evaluate import statistics
from jaxagent.report.series import (
    MAX_THIN_SEEDS,
    Series,
    bin_edges,
    check_panels,
    check_points,
    check_series,
    drawable,
    every_so_many,
    finite,
    is_number,
    mean_and_band,
    one_each,
    swap,
    thin_out,
)
from jaxagent.report.svg import to_svg

# Okabe and Ito's order changed: the strongest first; yellow left out, too faint on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555", "#000000")
DASHES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
INK, FAINT, MASKED = "#263238", "#d7dcdf", "#b4bbc0"
# Low to high. The diverging map runs between Okabe and Ito's strongest two through white.
DIVERGING = ("#0072B2", "#7fb8d8", "#ffffff", "#eaae7f", "#D55E00")
SEQUENTIAL = ("#eef5fa", "#56B4E9", "#0072B2", "#00243d")
MAX_POINTS = 2000  # of all lines of a figure together: keeps an SVG below about 60 kB
MAX_DOTS = 300
MAX_SCATTER = 600  # points of a scatter figure
MAX_ACROSS = 4  # heat maps in one row
MAX_ROW_NAMES = 14

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


def learning_curves(
    series: Sequence[Series],
    title: str,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    log_y: bool = False,
    *,
    color_numbers: Sequence[int] = (),
    dashed: Sequence[bool] = (),
) -> str:
    """Draws (label, x [n], y [n] or [n, seeds]) as mean lines over a band, seeds as thin lines.

    The band is min to max up to 10 seeds, one standard deviation above. Values that are not
    finite are left out, on a logarithmic axis also those that are not positive. Long series are
    averaged in bins of neighbouring points. `color_numbers` gives each series the colour of that
    number, so that an arm keeps its colour across figures; `dashed` marks references and bounds.
    Shapes: as above -> an "<svg ...>" string.
    """
    checked = [check_series(*one) for one in series]
    numbers = one_each("color_numbers", color_numbers, range(len(checked)))
    is_dashed = one_each("dashed", dashed, [False] * len(checked))
    with matplotlib.rc_context(STYLE):
        figure, axes = blank_figure(5.6, 3.1 + 0.22 * math.ceil(len(checked) / 3))
        axes.set_xscale("log" if log_x else "linear")
        axes.set_yscale("log" if log_y else "linear")
        lines = sum(1 + min(y.shape[1], MAX_THIN_SEEDS) for _, _, y in checked)
        budget = int(np.clip(MAX_POINTS / max(lines + 2 * len(checked), 1), 12, 250))
        handles = []
        for (_, x, y), number, is_reference in zip(checked, numbers, is_dashed, strict=True):
            x, y = thin_out(*drawable(x, y, log_x, log_y), budget, log_x)
            handles.append(_draw_curve(axes, x, y, number, is_reference))
        _ticks(axes.xaxis, log_x)
        _ticks(axes.yaxis, log_y)
        axes.grid(axis="y", color=FAINT, linewidth=0.7)
        _label(axes, title, x_label, y_label)
        _legend(figure, handles, [label for label, _, _ in checked])
        return to_svg(figure, title)


def scatter(
    series: Sequence[Series], title: str, x_label: str, y_label: str, *, diagonal: bool = False
) -> str:
    """Draws (label, x [n], y [n]) as points; `diagonal` adds y = x and equal axes.

    For predicted against observed. Pairs that are not finite are left out; of more than 600
    points every so many-th is drawn. Shapes: as above -> an "<svg ...>" string.
    """
    checked = [check_points(*one) for one in series]
    checked = every_so_many(checked, MAX_SCATTER)
    with matplotlib.rc_context(STYLE):
        size = (4.4, 4.1) if diagonal else (5.6, 3.4)
        figure, axes = blank_figure(size[0], size[1] + 0.22 * math.ceil(len(checked) / 3))
        handles, labels = [], [label for label, _, _ in checked]
        for number, (_, x, y) in enumerate(checked):
            handles.append(_dots(axes, x, y, _color(number), MARKERS[number % len(MARKERS)], 5.0))
        if diagonal:
            handles.append(_draw_diagonal(axes, [x for _, x, _ in checked + swap(checked)]))
            labels.append("y = x")
        _ticks(axes.xaxis, False)
        _ticks(axes.yaxis, False)
        if diagonal:
            axes.yaxis.set_major_locator(MaxNLocator(6))  # as for x
        axes.grid(color=FAINT, linewidth=0.7)
        _label(axes, title, x_label, y_label)
        _legend(figure, handles, labels)
        return to_svg(figure, title)


def heat_maps(
    panels: Sequence[tuple[str, np.ndarray]],
    title: str,
    x_label: str,
    y_label: str,
    *,
    low: float,
    high: float,
    x_ticks: Sequence = (),
    y_ticks: Sequence = (),
    color_label: str = "",
) -> str:
    """Draws (title, values [rows, columns]) side by side on one colour scale with one bar.

    The first row is the lowest, as on an axis. Cells that are not finite are grey. The colours
    diverge from white at 0 if low = -high, else run from light to dark; beyond `low` and `high`
    they stay at the ends, and the bar is pointed there. More than 60 columns are averaged to 60.
    `x_ticks` has a label for each column, `y_ticks` for each row, or none.
    Shapes: as above -> an "<svg ...>" string.
    """
    checked = check_panels(panels, low, high, x_ticks, y_ticks)
    down = math.ceil(len(checked) / MAX_ACROSS)
    across = math.ceil(len(checked) / down)
    num_rows = len(checked[0][1])
    x_names, y_names = map(_short_names, (x_ticks, y_ticks))
    width = float(np.clip(1.4 + 2.8 * across, 5.6, 11))
    height = 0.9 + down * (0.5 + float(np.clip(0.22 * num_rows, 1.6, 3.4)))
    with matplotlib.rc_context(STYLE):
        figure = _canvas(width, height)
        grid = figure.subplots(down, across, squeeze=False)
        for place, axes in enumerate(grid.flat):
            if place >= len(checked):
                axes.set_visible(False)
                continue
            name, values = checked[place]
            image = _draw_map(axes, values, low, high)
            axes.set_title(_fold(name, (width - 1.4) / across), fontweight="normal")
            is_lowest, is_first = place + across >= len(checked), place % across == 0
            most = _fitting(x_names, (width - 1.4) / across)
            _name_cells(axes.xaxis, x_names if is_lowest else [], values.shape[1], most)
            _name_cells(axes.yaxis, y_names if is_first else [], num_rows, MAX_ROW_NAMES)
        everything = np.concatenate([values.ravel() for _, values in checked])
        _color_bar(figure, image, grid, color_label, everything, (low, high))
        figure.supxlabel(x_label, fontsize=9.5, color=INK)
        figure.supylabel(_fold(y_label, height - 0.9), fontsize=9.5, color=INK)
        figure.suptitle(_fold(title, width), x=0.01, ha="left", fontsize=10.5, fontweight="bold", color=INK)
        return to_svg(figure, title)


def score_intervals(
    rows: Sequence[tuple[str, float, float, float, Sequence[float]]],
    title: str = "",
    x_label: str = "normalised score (0 = random, 1 = expert)",
    marks: Sequence[float] = (0.0, 1.0),
) -> str:
    """Draws rows (arm, point, low, high, per-seed scores) as horizontal intervals with seed dots.

    A dotted line stands at each of `marks` that is in sight.
    Shapes: scores [seeds] in each row -> an "<svg ...>" string (layout as in rliable).
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = blank_figure(5.6, 0.9 + 0.36 * max(len(rows), 1) + (0.25 if title else 0))
        for index, (_, point, low, high, scores) in enumerate(rows):
            color, y = _color(index), -float(index)
            if all(map(is_number, (low, high))):
                axes.fill_between([low, high], y - 0.26, y + 0.26, color=color, alpha=0.28, lw=0)
            if is_number(point):
                axes.plot([point, point], [y - 0.3, y + 0.3], color=color, linewidth=2.6)
            dots = finite(scores)[:MAX_DOTS]
            _dots(axes, dots, y + _spread(len(dots), 0.2), color)
        low, high = axes.get_xlim()
        for mark in marks:
            if low <= mark <= high:
                axes.axvline(mark, color="#8a949a", linewidth=0.9, linestyle=":", zorder=0)
        axes.set_yticks([-float(index) for index in range(len(rows))], [row[0] for row in rows])
        axes.set_ylim(-max(len(rows), 1) + 0.4, 0.6)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color=FAINT, linewidth=0.7)
        _label(axes, title, x_label)
        return to_svg(figure, title or "score intervals")


def per_task_bars(
    tasks: Sequence[str],
    arms: Sequence[str],
    scores: Sequence[Sequence[Sequence[float]]],
    title: str = "",
    y_label: str = "normalised score",
) -> str:
    """Draws every task's arms side by side: a faint bar to the IQM of the seeds, and a dot for each.

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
        figure, axes = blank_figure(width, 3.0 + 0.22 * math.ceil(len(arms) / 3))
        handles = []
        for arm in range(len(arms)):
            groups = [finite(scores[task][arm]) for task in range(len(tasks))]
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
        _label(axes, title, y_label=y_label)
        _legend(figure, handles, arms)
        return to_svg(figure, title or "scores by task")


# --- parts ---------------------------------------------------------------------------------------


def _draw_curve(axes: Axes, x: np.ndarray, y: np.ndarray, number: int, is_dashed: bool = False):
    """Draws one series (x [n], y [n, seeds]) and returns its mean line, for the legend."""
    color, dashes = _color(number), DASHES[number // len(COLORS) % len(DASHES)]
    mean, low, high = mean_and_band(y)
    if axes.get_yscale() == "log":  # a standard deviation may reach below zero, a seed does not
        low = np.fmax(low, np.where(np.isfinite(y), y, np.inf).min(axis=1, initial=np.inf))
        low = np.where(np.isfinite(low), low, np.nan)
    if y.shape[1] > 1:
        axes.fill_between(x, low, high, color=color, alpha=0.16, linewidth=0)
    if 1 < y.shape[1] <= MAX_THIN_SEEDS:
        axes.plot(x, y, color=color, linewidth=0.5, alpha=0.5)
    marker = "o" if len(x) == 1 else ""
    style, width = ((0, (5, 2.5)), 1.5) if is_dashed else (dashes, 1.9)
    (line,) = axes.plot(x, mean, color=color, linestyle=style, linewidth=width, marker=marker)
    return line


def _draw_diagonal(axes: Axes, values: Sequence[np.ndarray]):
    """Draws y = x behind the points, over one range for both axes, and returns the line."""
    everything = np.concatenate([*values, np.zeros(0)])
    low, high = (everything.min(), everything.max()) if everything.size else (0.0, 1.0)
    room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    ends = [low - room, high + room]
    (line,) = axes.plot(ends, ends, color="#8a949a", linestyle="--", linewidth=1.2, zorder=1)
    axes.set(xlim=ends, ylim=ends)
    axes.set_aspect("equal")
    return line


def _draw_map(axes: Axes, values: np.ndarray, low: float, high: float) -> AxesImage:
    """Draws values [rows, columns], one pixel a cell, so that a map is small as SVG."""
    colors = DIVERGING if math.isclose(-low, high) else SEQUENTIAL
    color_map = LinearSegmentedColormap.from_list("jaxagent", colors).with_extremes(bad=MASKED)
    masked = np.ma.masked_invalid(values)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=2)
    return axes.imshow(
        masked, color_map, vmin=low, vmax=high, origin="lower", aspect="auto", interpolation="none"
    )


def _name_cells(axis: Axis, labels: Sequence[str], cells: int, most: int) -> None:
    """Writes at most `most` of the labels, evenly spaced, each beside its cell.

    The labels are of the columns before thinning, `cells` is the number after it.
    """
    step = math.ceil(len(labels) / max(most, 2)) or 1
    chosen = np.arange(0, len(labels), step)
    edges = bin_edges(np.arange(len(labels)), cells)
    places = np.interp(chosen + 0.5, edges, np.arange(cells + 1)) - 0.5
    axis.set_ticks(places, [labels[index] for index in chosen])


def _fitting(labels: Sequence[str], inches: float) -> int:
    """How many of the labels fit side by side."""
    return int(12 * inches) // (max(map(len, labels), default=0) + 2)


def _color_bar(
    figure: Figure, image: AxesImage, grid: np.ndarray, label: str, values: np.ndarray, ends: tuple
) -> None:
    """One bar for all maps, pointed at an end that values lie beyond."""
    finite = values[np.isfinite(values)]
    beyond = [(finite < ends[0]).any(), (finite > ends[1]).any()]
    extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}
    bar = figure.colorbar(
        image,
        ax=list(grid.flat),
        extend=extend[tuple(map(int, beyond))],
        ticks=MaxNLocator(4, steps=(1, 2, 2.5, 5, 10)),
        format=FuncFormatter(_short_number),
        aspect=18,
        pad=0.02,
    )
    bar.solids.set_rasterized(True)  # else a path for each of 256 colours
    bar.outline.set_visible(False)
    bar.set_label(label)


def _draw_groups(axes: Axes, places: np.ndarray, groups: Sequence[np.ndarray], color: str, width: float):
    """Draws a faint bar to each group's IQM, its end as a line, and the range of its seeds."""
    means = [float(statistics.iqm(seeds[None])) if len(seeds) else 0.0 for seeds in groups]
    handle = axes.bar(places, means, width, color=color, alpha=0.3, linewidth=0)
    for place, seeds, mean in zip(places, groups, means, strict=True):
        if len(seeds):
            ends = [place - width / 2, place + width / 2]
            axes.plot(ends, [mean, mean], color=color, linewidth=2)
            axes.plot([place, place], [seeds.min(), seeds.max()], color=color, linewidth=0.8)
    return handle


def _dots(axes: Axes, x: np.ndarray, y: np.ndarray, color: str, marker: str = "o", size: float = 3.6):
    edge = {"markeredgecolor": "white", "markeredgewidth": 0.5}
    (handle,) = axes.plot(x, y, marker, color=color, markersize=size, **edge)
    return handle


def _spread(count: int, half_width: float) -> np.ndarray:
    """Offsets that keep equal seeds apart: [count], by the seed's number, never random."""
    return np.linspace(-half_width, half_width, count) if count > 1 else np.zeros(count)


def _color(index: int) -> str:
    return COLORS[index % len(COLORS)]


def _short_number(value: float, _position: int | None = None) -> str:
    """Formats an axis tick: 1500000 -> 1.5M, 20000 -> 20k."""
    for least, size, unit in ((1e9, 1e9, "B"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if abs(value) >= least:
            return f"{value / size:.4g}{unit}"
    return f"{value:.4g}"


def _ticks(axis: Axis, is_log: bool) -> None:
    """Places and writes an axis' numbers: at most about six, also on less than a decade."""
    low, high = axis.get_view_interval()
    if is_log and 0 < 4 * low < high:
        decades = math.log10(high / low)
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 2 else (1.0,)))
    elif is_log:
        inside = [tick for tick in MaxNLocator(5).tick_values(low, high) if low <= tick <= high]
        axis.set_major_locator(FixedLocator(inside))
        axis.set_minor_locator(NullLocator())
    elif axis.axis_name == "x":
        axis.set_major_locator(MaxNLocator(6))
    axis.set_major_formatter(_short_number)
    axis.set_minor_formatter(NullFormatter())


def _label(axes: Axes, title: str = "", x_label: str = "", y_label: str = "") -> None:
    """Writes title and axis labels, in more lines if they are longer than their side."""
    width, height = axes.get_figure().get_size_inches()
    axes.set_title(_fold(title, width - 0.6))
    axes.set_xlabel(_fold(x_label, width - 0.8))
    axes.set_ylabel(_fold(y_label, min(height - 0.8, 2.9)))


def _fold(label: str, inches: float) -> str:
    """Breaks a label into lines that are `inches` long at most, at about 12 characters an inch."""
    limit = max(int(12 * inches), 12)
    return label if len(label) <= limit else "\n".join(textwrap.wrap(label, limit))


def _short_names(labels: Sequence) -> list[str]:
    return [_short_number(one) if is_number(one) else str(one) for one in labels]


# --- from matplotlib to a string -----------------------------------------------------------------


def blank_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of its own and its axes, in inches, unknown to pyplot."""
    figure = _canvas(width, height)
    return figure, figure.subplots()


def _canvas(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasSVG(figure)
    return figure


def _legend(figure: Figure, handles: Sequence, labels: Sequence[str]) -> None:
    """Puts the legend below the axes; a leading underscore would hide a label from matplotlib."""
    if len(labels) == 0:
        return
    shown = [" " + label if label.startswith("_") else label for label in map(str, labels)]
    # About 11 characters an inch, and the line beside each label takes the room of 6.
    room = 11 * figure.get_size_inches()[0] / (max(map(len, shown)) + 6)
    columns = int(np.clip(room, 1, 3))
    figure.legend(list(handles), shown, loc="outside lower center", ncols=columns)
