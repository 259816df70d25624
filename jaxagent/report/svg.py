"""From matplotlib's figure to an inline "<svg>": the same numbers give the same bytes."""

from __future__ import annotations

import hashlib
import html
import io
import re
import warnings

from matplotlib.figure import Figure

NAMESPACE = "http://www.w3.org/2000/svg"  # without which a figure that is saved alone does not open


def to_svg(figure: Figure, title: str) -> str:
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
    svg = re.sub(r"(<g[^>]*)>((?:\s*<use [^>]*/>)+)", _share_style, svg)
    prefix = "f" + hashlib.sha256(svg.encode()).hexdigest()[:10]
    svg = re.sub(r'(?<= )id="', f'id="{prefix}-', svg)
    svg = re.sub(r'(?:xlink:)?href="#', f'href="#{prefix}-', svg)
    svg = svg.replace("url(#", f"url(#{prefix}-").replace('xlink:href="data:', 'href="data:')
    opening = _opening_tag(figure, title)
    return re.sub(r"<svg[^>]*>", lambda _: opening, svg, count=1)


def _opening_tag(figure: Figure, title: str) -> str:
    """The "<svg>" tag: scales down on narrow screens, is named for screen readers."""
    width, height = figure.get_size_inches()
    style = f"width:100%;max-width:{width * 96:.0f}px;height:auto"
    style += ";stroke-linejoin:round;stroke-linecap:butt"  # matplotlib's, kept to this figure
    view = f"0 0 {width * 72:.4g} {height * 72:.4g}"
    label = html.escape(title, quote=True)
    return f'<svg xmlns="{NAMESPACE}" viewBox="{view}" role="img" aria-label="{label}" style="{style}">'


def _round_path(path: str) -> str:
    """Keeps two decimals of a path's coordinates, and one space for each newline."""
    rounded = re.sub(r"-?\d+\.\d{3,}", lambda match: f"{float(match.group(0)):.2f}", path)
    return re.sub(r"\s+", " ", rounded)


def _share_style(group: re.Match) -> str:
    """Gives the style of a group's equal markers to the group, which they inherit; rounds them."""
    opening, markers = group.groups()
    styles = set(re.findall(r' style="[^"]*"', markers))
    if len(styles) == 1 and " style=" not in opening:
        opening += styles.pop()
        markers = re.sub(r' style="[^"]*"', "", markers)
    markers = re.sub(r"-?\d+\.\d{3,}", lambda match: f"{float(match.group(0)):.2f}", markers)
    return f"{opening}>" + re.sub(r"\s*\n\s*", "\n", markers)
