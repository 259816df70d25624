"""Pieces of the page: a string or any JSON value as escaped HTML; tables, cards, badges."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from jaxagent.report.fields import pair_of

VERDICTS = ("PASS", "DIRECTIONAL", "INCONCLUSIVE", "FAIL", "VOID")
DASH = "\N{EN DASH}"  # stands for a missing value


def table_of(head: Sequence[str], rows: Iterable[Sequence[str]], numeric_from: int = 99) -> str:
    """A table of ready HTML cells; the head is escaped here.

    Scrolls sideways if too wide; on a phone a row is a block, its cells under each other with their names.
    """

    def cell(tag: str, index: int, content: str) -> str:
        css = ' class="number"' if index >= numeric_from else ""
        name = head[index] if index < len(head) else ""
        of = f' data-name="{escaped(name)}"' if tag == "td" and name else ""
        return f"<{tag}{css}{of}>{content}</{tag}>"

    top = "".join(cell("th", i, escaped(name)) for i, name in enumerate(head))
    body = "".join(
        "<tr>" + "".join(cell("td", i, content) for i, content in enumerate(row)) + "</tr>" for row in rows
    )
    top = f"<thead><tr>{top}</tr></thead>" if any(head) else ""
    return f'<div class="scroll"><table>{top}<tbody>{body}</tbody></table></div>'


def card(svg: str, caption: str, is_wide: bool = False) -> str:
    """A figure with its caption; a wide one takes the whole row of a grid."""
    below = f"<figcaption>{escaped(caption)}</figcaption>" if caption else ""
    css = "card wide" if is_wide else "card"
    return f'<figure class="{css}">{svg}{below}</figure>'


def folded(title: str, content: str) -> str:
    """HTML content behind a title, which is escaped here, that a click unfolds."""
    return f"<details><summary>{escaped(title)}</summary>{content}</details>"


def absent(sentence: str) -> str:
    """A sentence in place of what a run does not have."""
    return f'<p class="absent">{escaped(sentence)}</p>'


def noted(sentence: str) -> str:
    """A warning in sight of the reader."""
    return f'<p class="note">{escaped(sentence)}</p>'


def badge_of(verdict: str, label: str) -> str:
    """A label in the colour of a verdict; one that is unknown has VOID's."""
    css = verdict.lower() if verdict in VERDICTS else "void"
    return f'<span class="badge {css}">{escaped(label)}</span>'


def escaped(value: Any) -> str:
    """Any value as text that is safe in HTML, quotes included."""
    return escape(str(value), quote=True)


def shown(value: Any) -> str:
    """Any JSON value as short escaped text: 0.1234 -> 0.123, 12345 -> 12,345, null -> a dash."""
    if value is None:
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace("-", "\N{MINUS SIGN}")
    if isinstance(value, float):
        return _short_float(value)
    if isinstance(value, (dict, list)):
        return escaped(json.dumps(value, ensure_ascii=False))
    return escaped(value)


def _short_float(value: float) -> str:
    if not math.isfinite(value):
        return {math.inf: "∞", -math.inf: "\N{MINUS SIGN}∞"}.get(value, "nan")
    if value == 0 or 1e-3 <= abs(value) < 100:
        text = f"{value:.3f}" if 0 < abs(value) < 0.1 else f"{value:.2f}"
        text = f"{value:.0f}" if value.is_integer() and abs(value) >= 10 else text
    else:
        text = f"{value:,.0f}" if 100 <= abs(value) < 1e9 else f"{value:.2e}"
    return text.replace("-", "\N{MINUS SIGN}")


def interval_of(value: Any) -> str:
    """A pair of numbers as an interval; a dash for an end, or for both, that is missing."""
    low, high = pair_of(value)
    if math.isnan(low) and math.isnan(high):
        return DASH
    ends = (DASH if math.isnan(end) else shown(end) for end in (low, high))
    return f'<span class="interval">[{", ".join(ends)}]</span>'
