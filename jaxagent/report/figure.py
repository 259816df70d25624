"""Figures as values: what a study hands to its page."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


class Curve(NamedTuple):
    """A metric of training against a unit of work, a line a stage."""

    metric: str  # of metrics.jsonl, such as "train/loss"
    stages: tuple[str, ...]  # patterns of stage names, such as "train/*/muzero"
    title: str
    x: str  # unit of work, such as "env_steps"
    y_label: str
    x_label: str = ""  # "" is the unit, of all lanes

    def to_dict(self) -> dict[str, Any]:
        """The curve as `summary.json` has it."""
        label = self.x_label or f"{self.x.replace('_', ' ')} (all seeds)"
        return self._asdict() | {"stages": list(self.stages), "x_label": label}


def return_curve(stages: str, title: str, lanes: str = "seeds") -> Curve:
    """Return while training of the stages that match a pattern, by env steps of all lanes."""
    return Curve("train/return", (stages,), title, "env_steps", "episode return", f"env steps (all {lanes})")


def line(label: str, x: Iterable[float], y: Any, *, dashed: bool = False) -> dict[str, Any]:
    """A line through `x [points]` and `y [points]`, or a line a seed through `y [points, seeds]`."""
    drawn = {"label": label, "x": [float(v) for v in x], "y": np.asarray(y, float).tolist()}
    return drawn | ({"style": "dashed"} if dashed else {})


def level(label: str, ends: Sequence[float], value: Any) -> dict[str, Any]:
    """A dashed line at a height `[]`, or one a seed `[seeds]`, from the first of `ends` to the last."""
    return line(label, (ends[0], ends[-1]), [value] * 2, dashed=True)


def curves(
    title: str, caption: str, x_label: str, y_label: str, lines: Iterable[Mapping[str, Any]], **scales: bool
) -> dict[str, Any]:
    """Lines against a common axis; `scales` are `log_x` and `log_y`."""
    names = {"title": title, "caption": caption, "x_label": x_label, "y_label": y_label}
    return {"kind": "curves", **names, "series": list(lines), **scales}


def histograms(values: Mapping[str, Sequence[float]], num_bins: int = 10) -> dict[str, dict[str, Any]]:
    """Counts of named samples in the same bins: `{name: {"counts": [bins], "edges": [bins + 1]}}`."""
    edges = np.histogram_bin_edges(np.concatenate(list(values.values())), bins=num_bins)
    shown = [round(float(e), 3) for e in edges]
    return {
        name: {"counts": np.histogram(sample, edges)[0].tolist(), "edges": shown}
        for name, sample in values.items()
    }


def shares(
    title: str, caption: str, x_label: str, counted: Mapping[str, Mapping[str, Any]], y_label: str = "share"
) -> dict[str, Any]:
    """A figure of `histograms`: the share of each sample in every bin."""
    lines = []
    for name, one in counted.items():
        edges, counts = np.array(one["edges"]), np.array(one["counts"])
        lines.append(line(name, (edges[1:] + edges[:-1]) / 2, counts / counts.sum()))
    return curves(title, caption, x_label, y_label, lines)


def scatter(
    title: str, caption: str, x_label: str, y_label: str, clouds: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    """Points of several kinds, made by `line`, and the diagonal."""
    names = {"title": title, "caption": caption, "x_label": x_label, "y_label": y_label}
    return {"kind": "scatter", **names, "diagonal": True, "series": list(clouds)}


def tree(title: str, caption: str, nodes: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """A search tree, of nodes with the fields of `trees.Node`, the root first."""
    return {"kind": "tree", "title": title, "caption": caption, "nodes": [dict(node) for node in nodes]}


def maps(
    title: str,
    caption: str,
    panels: Mapping[str, Any],
    *,
    x_label: str,
    y_label: str,
    x_ticks: Iterable[Any],
    y_ticks: Iterable[Any],
    low: float,
    high: float,
    color_label: str = "",
) -> dict[str, Any]:
    """Tables of numbers as colours, one a panel: `panels[title] [rows, columns]`."""
    return {
        "kind": "maps",
        "title": title,
        "caption": caption,
        "panels": [
            {"title": name, "values": np.asarray(values, float).tolist()} for name, values in panels.items()
        ],
        "x_label": x_label,
        "y_label": y_label,
        "x_ticks": [str(tick) for tick in x_ticks],
        "y_ticks": [str(tick) for tick in y_ticks],
        "low": low,
        "high": high,
        **({"color_label": color_label} if color_label else {}),
    }
