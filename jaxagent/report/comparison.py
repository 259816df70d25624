"""Several runs on one page: what they were asked differently, what they scored, how they learned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxagent.evaluate import statistics
from jaxagent.report.elements import absent, escaped, interval_of, noted, shown, table_of
from jaxagent.report.fields import dict_at, numbers_of
from jaxagent.report.page import CSS, PAGE
from jaxagent.report.render import write_atomically
from jaxagent.report.run_folder import Run, read_run
from jaxagent.report.training_curves import draw_curves

ASKED = ("experiment", "preset", "precision", "versions", "device")  # of a manifest, beside its config
MADE = "<!-- a comparison by jaxagent -->"  # pages that a new one may replace


def write_comparison(folders: Sequence[Path], page: Path) -> Path:
    """Write the page of runs, finished or not. Raises FileNotFoundError for a folder that is no run."""
    names = _names(folders)
    runs = {name: read_run(folder) for name, folder in zip(names, folders, strict=True)}
    content = _page(runs).encode("utf-8", errors="replace")
    return write_atomically(page, lambda file: file.write(content))


def is_comparison(page: Path) -> bool:
    """Whether a file is a page of this kind."""
    return page.is_file() and MADE in page.read_text(errors="replace")


def _names(folders: Sequence[Path]) -> list[str]:
    """As much of each path's end as tells them apart."""
    parts = [folder.resolve().parts for folder in folders]
    depth = next((n for n in range(1, 99) if len({p[-n:] for p in parts}) == len(parts)), 99)
    return ["/".join(p[-depth:]) for p in parts]


def _page(runs: Mapping[str, Run]) -> str:
    sections = {
        "Scores": _scores(runs),
        "Learning curves": draw_curves(_joined(runs)),
        "What differs": _differences(runs),
    }
    body = "".join(f"<section><h2>{title}</h2>{content}</section>" for title, content in sections.items())
    notes = "".join(noted(f"{name}: {note}") for name, run in runs.items() for note in run.notes)
    header = f"<h1>{len(runs)} runs</h1>{notes}"
    return PAGE.substitute(title="comparison", css=CSS, header=header, body=MADE + body)


def _differences(runs: Mapping[str, Run]) -> str:
    """Fields of the configurations, and of what the runs ran on, that not all runs share."""
    flat = {}
    for name, run in runs.items():
        kept = {key: run.manifest.get(key) for key in ASKED}
        kept["commit"] = str(dict_at(run.manifest, "git").get("commit"))[:8]
        flat[name] = dict(_leaves("", {**kept, **dict_at(run.manifest, "config")}))
    fields = dict.fromkeys(field for leaves in flat.values() for field in leaves)
    rows = []
    for field in fields:
        values = [leaves.get(field) for leaves in flat.values()]
        if any(value != values[0] for value in values):
            rows.append([escaped(field), *(escaped(_told(value)) for value in values)])
    return table_of(("field", *runs), rows) if rows else absent("Nothing: they were asked the same.")


def _told(value: Any) -> str:
    return "-" if value is None else str(value)


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Numbers and names of nested JSON, by path; a list of plain values is one."""
    items: Any = ()
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list) and any(isinstance(part, Mapping) for part in value):
        items = enumerate(value)
    else:
        yield path, value
    for key, part in items:
        yield from _leaves(f"{path}.{key}".lstrip("."), part)


def _scores(runs: Mapping[str, Run]) -> str:
    """Means over seeds by arm and task, each with its interval; a dash where a run has none."""
    tables = {name: dict_at(run.summary, "scores") for name, run in runs.items()}
    keys = dict.fromkeys(
        (arm, task) for table in tables.values() for arm in table for task in dict_at(table, arm)
    )
    if not keys:
        return absent("No scores: no run is finished.")
    rows = []
    for arm, task in keys:
        cells = [_cell(dict_at(table, arm).get(task)) for table in tables.values()]
        rows.append([escaped(arm), escaped(task), *cells])
    note = "Mean over seeds, and its bootstrap interval. Runs need not share their seeds or their scales."
    return table_of(("arm", "task", *runs), rows, numeric_from=2) + f'<p class="muted">{note}</p>'


def _cell(scores: Any) -> str:
    values = [x for x in numbers_of(scores) if np.isfinite(x)]
    if not values:
        return shown(None)
    interval = statistics.interval_of_mean(values) if len(values) > 1 else None
    return f"{shown(float(np.mean(values)))}<br>{interval_of(interval)}"


def _joined(runs: Mapping[str, Run]) -> Run:
    """One log of all runs, in which a stage's lines are named by the run."""
    metrics = [
        {**row, "stage": f"{row.get('stage', '')}/{name.replace('/', ':')}"}
        for name, run in runs.items()
        for row in run.metrics
    ]
    first = next(iter(runs.values()))
    return Run(first.folder, {}, metrics, {}, [], [])
