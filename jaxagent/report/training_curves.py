"""Figures of what was logged in training: which metrics, of which stages, against what."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxagent.report import figures
from jaxagent.report.elements import absent, card, noted
from jaxagent.report.fields import dict_at, dicts_at, items_of, number_of
from jaxagent.report.run_folder import Run

MAX_FIGURES = 12
MAX_SERIES = 16  # in one figure
DEFAULT_ENDINGS = ("return", "loss")

Log = dict[str, list[Mapping[str, Any]]]  # stage -> its lines, in order


def draw_curves(run: Run) -> str:
    """One figure for each wanted curve; the summary names them, or return and loss are drawn."""
    log: Log = {}
    for row in run.metrics:
        log.setdefault(str(row.get("stage", "")), []).append(row)
    wanted = dicts_at(run.summary, "curves") or _default_curves(log)
    if not wanted:
        return absent("No learning curves: the metrics hold no return and no loss yet.")
    arms = list(dict_at(run.summary, "arms"))
    drawn = [_curve_figure(log, curve, arms) for curve in wanted[:MAX_FIGURES]]
    html = f'<div class="grid">{"".join(drawn)}</div>'
    if len(wanted) > MAX_FIGURES:
        html += noted(f"{len(wanted) - MAX_FIGURES} more curve(s) are not drawn.")
    note = "Line: mean over seeds. Band: smallest to largest seed (above 10 seeds: one standard "
    return html + f'<p class="muted">{note}deviation). Thin lines: single seeds.</p>'


def _default_curves(log: Log) -> list[dict[str, Any]]:
    """A curve for each (group of stages, metric) whose name ends in return or loss.

    A group is what precedes the last "/" of a stage: ppo/CartPole-v1 and ppo/Acrobot-v1 share one.
    Stages of very different scales (returns of 500 and of -1500) get a figure each.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for stage, rows in log.items():
        names = dict.fromkeys(name for row in rows for name in row)
        for name in names:
            if name.endswith(DEFAULT_ENDINGS):
                found.setdefault((name, stage.rpartition("/")[0] or stage), []).append(stage)
    # returns before losses, otherwise in the order of the log
    order = sorted(found, key=lambda key: not key[0].endswith("return"))
    curves: list[dict[str, Any]] = []
    for name, group in order:
        stages = found[name, group]
        parts = [stages] if _share_a_scale(log, name, stages) else [[one] for one in stages]
        for part in parts:
            title = f"{name}, {group if len(part) > 1 else part[0]}"
            curves.append({"metric": name, "stages": part, "title": title})
    return curves


def _share_a_scale(log: Log, metric: str, stages: Sequence[str]) -> bool:
    """True if all values together span at most eight times the narrowest stage: one axis serves."""
    values = [y[np.isfinite(y)] for y in (_collect(log[one], metric, "step")[1] for one in stages)]
    values = [value for value in values if value.size]
    if len(values) < 2:
        return True
    narrowest = min(float(np.ptp(value)) for value in values)
    return float(np.ptp(np.concatenate(values))) <= 8 * max(narrowest, 1e-12)


def _curve_figure(log: Log, curve: Mapping[str, Any], arms: Sequence[str]) -> str:
    """Draws one curve description {"metric", "stages", "title", "x", "x_label", "y_label"}."""
    metric = str(curve.get("metric", ""))
    stages = _matching_stages(log, curve.get("stages"), metric)
    axis = str(curve.get("x") or _default_axis(log, metric, stages))
    title = str(curve.get("title") or metric)
    collected = [(stage, *_collect(log[stage], metric, axis)) for stage in stages[:MAX_SERIES]]
    series = [one for one in collected if np.isfinite(one[2]).any()]
    if not series:
        return card("", f"{title}: no values of {metric} in the log yet.")
    names = [stage for stage, _, _ in series]
    labels, colors = _short_labels(names), _arm_numbers(names, arms)
    series = [(label, x, y) for label, (_, x, y) in zip(labels, series, strict=True)]
    usual = {"step": "updates", "env_steps": "env steps"}
    x_label = str(curve.get("x_label") or usual.get(axis, axis))
    y_label = str(curve.get("y_label") or metric.rpartition("/")[2])
    hidden = len(stages) - MAX_SERIES
    caption = f"{hidden} more stage(s) are not drawn." if hidden > 0 else ""
    svg = figures.learning_curves(series, title, x_label, y_label, color_numbers=colors)
    return card(svg, caption)


def _matching_stages(log: Log, wanted: Any, metric: str) -> list[str]:
    """Stages that log the metric, in order; `wanted` holds names or patterns, none means all."""
    stages = [stage for stage, rows in log.items() if any(metric in row for row in rows)]
    patterns = [str(pattern) for pattern in items_of(wanted)]
    if not patterns:
        return stages
    hits = [s for p in patterns for s in stages if s == p or fnmatch.fnmatchcase(s, p)]
    return list(dict.fromkeys(hits))


def _default_axis(log: Log, metric: str, stages: Sequence[str]) -> str:
    """env_steps where every row has them, else step (updates)."""
    rows = [row for stage in stages for row in log[stage] if metric in row]
    return "env_steps" if rows and all("env_steps" in row for row in rows) else "step"


def _collect(rows: Sequence[Mapping], metric: str, axis: str) -> tuple[np.ndarray, np.ndarray]:
    """Gathers a metric of one stage: x [n], y [n, lanes]; null and missing lanes are nan."""
    rows = [row for row in rows if metric in row]
    x = np.array([number_of(row.get(axis)) for row in rows], np.float64)
    lanes = [[number_of(value) for value in items_of(row[metric])] for row in rows]
    width = max(map(len, lanes), default=1) or 1
    padded = [lane + [math.nan] * (width - len(lane)) for lane in lanes]
    y = np.array(padded, np.float64).reshape(len(rows), width)
    return x[np.isfinite(x)], y[np.isfinite(x)]


def _short_labels(stages: Sequence[str]) -> list[str]:
    """Drops the folders that all stages share at either end: adapt/lora/CartPole-v1 -> lora."""
    split = [stage.split("/") for stage in stages]
    for end in (0, -1):
        while len(split) > 1 and min(map(len, split)) > 1 and len({p[end] for p in split}) == 1:
            split = [parts[1:] if end == 0 else parts[:-1] for parts in split]
    return ["/".join(parts) for parts in split]


def _arm_numbers(stages: Sequence[str], arms: Sequence[str]) -> list[int]:
    """Each stage's arm by number, so that an arm has one colour on the page; empty if unclear."""
    hits = [[arms.index(part) for part in stage.split("/") if part in arms] for stage in stages]
    numbers = [hit[0] for hit in hits if len(hit) == 1]
    return numbers if len(set(numbers)) == len(stages) else []
