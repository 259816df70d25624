"""Search trees as inline SVG: what was looked at, how often, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
from matplotlib.axes import Axes

from jaxagent.report.figures import COLORS, FAINT, INK, STYLE, blank_figure
from jaxagent.report.svg import to_svg

MAX_NODES = 64
ROW = 0.95  # inches of a level of the tree
COLUMN = 0.62  # of a leaf
WIDEST = 11.0  # inches
PLAIN = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}  # behind words that cross lines


class Node(NamedTuple):
    """A node of a search tree."""

    parent: int  # its number; -1 of the root, which is the first
    label: str  # of the action that led here
    visits: int
    value: float
    prior: float  # of that action where it was taken
    is_chosen: bool = False  # it is on the way that was decided for


def search_tree(nodes: Sequence[Node], title: str) -> str:
    """Draws a tree from its root downwards: circles by visits, edges by priors, the chosen way coloured.

    Of more than `MAX_NODES` those of most visits are drawn. Raises ValueError for nodes that are no tree:
    each parent stands before its children, the root first. Returns an "<svg ...>" string.
    """
    _check(nodes)
    nodes = _most_visited(nodes)
    places, depths = _layout(nodes)
    leaves, levels = max(places) + 1.0, max(depths) + 1
    width = min(max(COLUMN * leaves, 3.6), WIDEST)
    with matplotlib.rc_context(STYLE):
        figure, axes = blank_figure(width, ROW * levels + 0.55)
        axes.set_axis_off()
        axes.set_title(title)
        axes.set_xlim(-0.7, max(places) + 0.7)
        axes.set_ylim(-levels + 0.45, 0.5)
        for number, node in enumerate(nodes):
            _draw(axes, nodes, places, depths, number, node)
        return to_svg(figure, title)


def _draw(
    axes: Axes, nodes: Sequence[Node], places: Sequence[float], depths: Sequence[int], number: int, node: Node
) -> None:
    x, y = places[number], -float(depths[number])
    color = COLORS[0] if node.is_chosen else INK
    if node.parent >= 0:
        before = places[node.parent], -float(depths[node.parent])
        thick = 0.6 + 4.0 * min(max(node.prior, 0.0), 1.0)
        axes.plot(
            [before[0], x], [before[1], y], color=color if node.is_chosen else FAINT, lw=thick, zorder=1
        )
        middle = (before[0] + 2 * x) / 3, (before[1] + 2 * y) / 3
        axes.text(*middle, node.label, ha="center", va="center", size=7.5, color=color, bbox=PLAIN, zorder=2)
    most = max(one.visits for one in nodes)
    size = 70.0 + 330.0 * node.visits / most
    axes.scatter([x], [y], s=size, facecolor="white", edgecolor=color, linewidth=1.3, zorder=3)
    axes.text(x, y, str(node.visits), ha="center", va="center", size=7.5, color=color, zorder=4)
    below = {"ha": "center", "va": "center", "size": 7, "color": color, "zorder": 4, "bbox": PLAIN}
    axes.text(x, y - 0.27, f"{node.value:.2g}", **below)


def _layout(nodes: Sequence[Node]) -> tuple[list[float], list[int]]:
    """Columns and levels: leaves side by side in order, parents over the middle of their children."""
    children: list[list[int]] = [[] for _ in nodes]
    for number, node in enumerate(nodes[1:], start=1):
        children[node.parent].append(number)
    places, depths, free = [0.0] * len(nodes), [0] * len(nodes), 0
    for number, node in enumerate(nodes[1:], start=1):
        depths[number] = depths[node.parent] + 1

    def settle(number: int) -> None:
        nonlocal free
        if not children[number]:
            places[number], free = float(free), free + 1
            return
        for child in children[number]:
            settle(child)
        places[number] = sum(places[c] for c in children[number]) / len(children[number])

    settle(0)
    return places, depths


def _most_visited(nodes: Sequence[Node]) -> list[Node]:
    """The nodes that are drawn, parents renumbered; a child is never visited more often than its parent."""
    by_visits = sorted(range(len(nodes)), key=lambda i: (-nodes[i].visits, i))[:MAX_NODES]
    kept = sorted({0, *by_visits})
    number = {old: new for new, old in enumerate(kept)} | {-1: -1}
    return [nodes[i]._replace(parent=number[nodes[i].parent]) for i in kept if nodes[i].parent in number]


def _check(nodes: Sequence[Node]) -> None:
    if not nodes:
        raise ValueError("got no nodes; expected the root at least; fix: leave the figure out")
    for number, node in enumerate(nodes):
        if not (node.parent == -1 if number == 0 else 0 <= node.parent < number):
            raise ValueError(
                f"got parent {node.parent} of node {number}; expected one before it, and -1 of the root "
                "alone; fix: number nodes in the order in which they were made"
            )
