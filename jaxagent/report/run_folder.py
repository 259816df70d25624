"""Reading a run folder, finished or not, whole or damaged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

PICTURE_TYPES = {".gif": "image/gif", ".png": "image/png"}
MAX_NOTED_LINES = 3


class Run(NamedTuple):
    """What a run folder holds; `notes` say what is missing or could not be read."""

    folder: Path
    manifest: Mapping[str, Any]
    metrics: list[Mapping[str, Any]]
    summary: Mapping[str, Any]
    pictures: list[Path]
    notes: list[str]


def read_run(folder: Path) -> Run:
    """Reads manifest.json, metrics.jsonl, summary.json and pictures/ as far as they exist."""
    if not (folder / "manifest.json").is_file() and not (folder / "metrics.jsonl").is_file():
        raise FileNotFoundError(
            f"got {folder}, without manifest.json or metrics.jsonl; expected a run folder; "
            "fix: pass the folder that the run printed at its start"
        )
    notes: list[str] = []
    manifest = _read_object(folder / "manifest.json", notes)
    metrics = _read_lines(folder / "metrics.jsonl", notes)
    summary = {}
    if (folder / "summary.json").is_file():
        summary = _read_object(folder / "summary.json", notes)
    pictures = [path for path in folder.glob("pictures/*") if path.suffix in PICTURE_TYPES and path.is_file()]
    return Run(folder, manifest, metrics, summary, sorted(pictures), notes)


def _read_object(path: Path, notes: list[str]) -> Mapping[str, Any]:
    """Reads one JSON object; anything else becomes a note and an empty object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        notes.append(f"{path.name} is missing.")
        return {}
    except (ValueError, OSError) as error:
        notes.append(f"{path.name} could not be read: {error}")
        return {}
    if isinstance(value, dict):
        return value
    notes.append(f"{path.name} holds a {type(value).__name__}, not an object; it was ignored.")
    return {}


def _read_lines(path: Path, notes: list[str]) -> list[Mapping[str, Any]]:
    """Reads one JSON object a line; a torn line (a killed run) is left out and noted."""
    if not path.is_file():
        notes.append(f"{path.name} is missing.")
        return []
    rows, bad = [], []
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            row = _parse_line(line)
            if row is not None:
                rows.append(row)
            elif line.strip():
                bad.append(number)
    if bad:
        shown = ", ".join(map(str, bad[:MAX_NOTED_LINES])) + (", ..." if len(bad) > 3 else "")
        notes.append(f"{path.name}: {len(bad)} unreadable line(s) ignored (line {shown}).")
    return rows


def _parse_line(line: str) -> Mapping[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
