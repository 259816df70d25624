"""The figures of a paper, redrawn for a run: `summary["figures"]` as HTML.

A figure is plain JSON: `kind`, `title`, `caption`, `x_label`, `y_label`, and for each kind

- "curves": `series` of {label, x [n], y [n] or `[n][seeds]`, style: "dashed" for a reference or
  bound}, `log_x`, `log_y`;
- "maps": `panels` of {title, values `[rows][columns]`} (null: a masked cell; the first row is the
  lowest), one colour scale `low` to `high` with a `color_label`, `x_ticks`, `y_ticks`;
- "scatter": `series` of {label, x [n], y [n]}, `diagonal` (the line y = x);
- "tree": `nodes` of {parent, label, visits, value, prior, is_chosen}, as `trees.Node`; no axes.

What is ill-formed becomes a note in the figure's place and spares the rest of the page.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxagent.report import figures, trees
from jaxagent.report.elements import card, noted

MAX_FIGURES = 24
MAX_SERIES = 16  # in one figure
MAX_PANELS = 12
MAX_REASON = 400  # characters
STYLES = {None: False, "solid": False, "dashed": True}  # -> is it dashed?

Figure = Mapping[str, Any]
Drawn = tuple[str, str, bool]  # SVG, what to add to the caption, is it as wide as the page?


def render(entries: Any) -> str:
    """Draws the figures of a summary, each as a card with its caption, as HTML; never raises."""
    if not isinstance(entries, list):
        return noted(f"The figures could not be drawn: {_not_a('list', entries, 'figures')}")
    cards = [_card(number, entry) for number, entry in enumerate(entries[:MAX_FIGURES], start=1)]
    html = f'<div class="grid">{"".join(cards)}</div>'
    hidden = len(entries) - MAX_FIGURES
    return html + (noted(f"{hidden} more figure(s) are not drawn.") if hidden > 0 else "")


def _card(number: int, entry: Any) -> str:
    """One figure, or a note that names it and says what was wrong."""
    title = f"figure {number}"
    try:
        if not isinstance(entry, dict):
            raise ValueError(_not_a("object", entry, "a figure"))
        title = str(entry.get("title") or title)
        svg, addition, is_wide = _draw(entry, title)
        caption = " ".join(filter(None, (_string(entry, "caption"), addition)))
        return card(svg, caption, is_wide)
    except Exception as error:  # whatever an experiment wrote, the report of its run is written
        return noted(f"{title}: this figure could not be drawn: {str(error)[:MAX_REASON]}")


def _draw(entry: Figure, title: str) -> Drawn:
    kind = entry.get("kind")
    drawers: dict[Any, Callable[[Figure, str], Drawn]] = {
        "curves": _curves,
        "maps": _maps,
        "scatter": _scatter,
        "tree": _tree,
    }
    if not isinstance(kind, str) or kind not in drawers:
        raise ValueError(
            f"got kind {kind!r}; expected one of {', '.join(drawers)}; fix: name the kind of figure"
        )
    return drawers[kind](entry, title)


def _curves(entry: Figure, title: str) -> Drawn:
    rows = _objects(entry, "series")
    svg = figures.learning_curves(
        [_points(row) for row in rows[:MAX_SERIES]],
        title,
        _string(entry, "x_label"),
        _string(entry, "y_label"),
        _flag(entry, "log_x"),
        _flag(entry, "log_y"),
        dashed=[_is_dashed(row) for row in rows[:MAX_SERIES]],
    )
    return svg, _hidden(len(rows) - MAX_SERIES, "series"), False


def _scatter(entry: Figure, title: str) -> Drawn:
    rows = _objects(entry, "series")
    series = [_points(row) for row in rows[:MAX_SERIES]]
    svg = figures.scatter(
        series, title, _string(entry, "x_label"), _string(entry, "y_label"), diagonal=_flag(entry, "diagonal")
    )
    total = sum(len(x) for _, x, _ in series)
    thinned = f"{figures.MAX_SCATTER} of {total} points are drawn."
    notes = (_hidden(len(rows) - MAX_SERIES, "series"), thinned if total > figures.MAX_SCATTER else "")
    return svg, " ".join(filter(None, notes)), False


def _maps(entry: Figure, title: str) -> Drawn:
    rows = _objects(entry, "panels")
    panels = [(_string(row, "title"), _array(row, "values")) for row in rows[:MAX_PANELS]]
    svg = figures.heat_maps(
        panels,
        title,
        _string(entry, "x_label"),
        _string(entry, "y_label"),
        low=entry.get("low"),
        high=entry.get("high"),
        x_ticks=_ticks(entry, "x_ticks"),
        y_ticks=_ticks(entry, "y_ticks"),
        color_label=_string(entry, "color_label"),
    )
    is_masked = any(not np.isfinite(values).all() for _, values in panels)
    notes = (_hidden(len(rows) - MAX_PANELS, "panels"), "Grey: no value." if is_masked else "")
    return svg, " ".join(filter(None, notes)), len(panels) > 1


def _tree(entry: Figure, title: str) -> Drawn:
    nodes = [_node(row) for row in _objects(entry, "nodes")]
    return trees.search_tree(nodes, title), "", True


# --- reading a figure ----------------------------------------------------------------------------


def _objects(entry: Figure, key: str) -> list[Figure]:
    """A list of objects, at least one."""
    rows = entry.get(key)
    if not isinstance(rows, list):
        raise ValueError(_not_a("list", rows, key))
    if not rows:
        raise ValueError(f"got no {key}; expected one at least; fix: leave the figure out")
    for row in rows:
        if not isinstance(row, dict):
            raise ValueError(_not_a("object", row, f"each of {key}"))
    return rows


def _node(row: Figure) -> trees.Node:
    try:
        parent, visits, value, prior = (row[key] for key in ("parent", "visits", "value", "prior"))
        numbers = int(parent), _string(row, "label"), int(visits), float(value), float(prior)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"got node {row!r} ({error!r}); expected the fields of trees.Node; fix: make it by figure.tree"
        ) from error
    return trees.Node(*numbers, _flag(row, "is_chosen"))


def _points(row: Figure) -> figures.Series:
    return _string(row, "label"), _array(row, "x"), _array(row, "y")


def _array(row: Figure, key: str) -> np.ndarray:
    """Numbers as an array of as many axes as the lists are nested; null is nan."""
    try:
        return np.array(row.get(key), np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        name = row.get("label") or row.get("title") or "without a name"
        raise ValueError(
            f"got {key} of '{name}' that is no array ({error}); expected lists of equal length of "
            "numbers or null; fix: pad with null"
        ) from error


def _ticks(entry: Figure, key: str) -> list[Any]:
    ticks = entry.get(key)
    if ticks is not None and not isinstance(ticks, list):
        raise ValueError(_not_a("list", ticks, key))
    return ticks or []


def _is_dashed(row: Figure) -> bool:
    style = row.get("style")
    if not (style is None or isinstance(style, str)) or style not in STYLES:
        raise ValueError(
            f"got style {style!r}; expected 'dashed' or 'solid'; fix: leave style out, then the line is solid"
        )
    return STYLES[style]


def _flag(entry: Figure, key: str) -> bool:
    value = entry.get(key, False)
    if not isinstance(value, bool):
        raise ValueError(f"got {key} {value!r}; expected true or false; fix: leave {key} out")
    return value


def _string(entry: Figure, key: str) -> str:
    value = entry.get(key)
    return "" if value is None else str(value)


def _hidden(count: int, what: str) -> str:
    return f"{count} more {what} are not drawn." if count > 0 else ""


def _not_a(expected: str, got: Any, what: str) -> str:
    name = {dict: "object", type(None): "null", str: "string", bool: "boolean"}
    found = name.get(type(got), type(got).__name__)
    return (
        f"got a JSON {found} for {what}; expected a JSON {expected}; fix: write it as "
        "jaxagent/report/gallery.py says"
    )
