"""Grids, known without JAX: the cells that are asked for, and what may go on in their folder."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from itertools import product
from pathlib import Path
from typing import Any

from jaxagent import folders
from jaxagent.config import fingerprint, require, require_unlike
from jaxagent.folders import MANIFEST, NotOurs

BASELINE = "baseline"  # what cells are compared with


def folder_of(out: Path, cell: str) -> Path:
    """The run folder of a cell."""
    return out / "cells" / re.sub(r"[^A-Za-z0-9.=+-]+", "-", cell)


def cells(changes: Sequence[str], config: Any, changed: Callable[[Any, str, str], Any]) -> dict[str, Any]:
    """Configurations by name of all combinations of the values of `FIELD=A,B` texts, after the baseline.

    `changed(config, field, value)` sets one. What changes nothing is the baseline itself; without texts
    there is no cell. Raises ValueError for a text that has no field or no value, and a field named twice.
    """
    if not changes:
        return {}
    axes = [(field, values.split(",")) for field, _, values in (text.partition("=") for text in changes)]
    fields = [field for field, _ in axes]
    require_unlike("fields of the grid", fields)
    for text, (field, values) in zip(changes, axes, strict=True):
        require(bool(field) and all(values), "grid", text, "FIELD=A,B", "name a field and its values")
        require_unlike(f"values of {field}", values)
    result = {BASELINE: config}
    for values in product(*(values for _, values in axes)):
        cell = reduce(lambda made, pair: changed(made, *pair), zip(fields, values, strict=True), config)
        if cell != config:
            result[" ".join(f"{field}={value}" for field, value in zip(fields, values, strict=True))] = cell
    return result


def check(out: Path, config: Any, cells: Mapping[str, Any], *, replace: bool, is_whole: bool) -> None:
    """Raise `NotOurs` unless a grid may begin or go on in `out`; `is_whole` has every cell."""
    if folders.kind_of(out) != "grid":
        folders.check_new(out, "grid")
    elif not replace:
        folders.check_ours(out, "grid")
        check_same(out, fingerprint(config), cells)
    elif not is_whole:
        raise NotOurs(
            f"{out}: --overwrite with --only would delete the grid's other cells; leave one out, "
            "or choose another --out."
        )
    else:
        folders.check_new(out, "grid", replace=True)


def check_same(out: Path, expected: str, cells: Mapping[str, Any]) -> None:
    """Raise `NotOurs` unless the grid in `out`, and those of `cells` begun, are these very ones."""
    places = [(out, expected)] + [(folder_of(out, c), fingerprint(x)) for c, x in cells.items()]
    for place, wanted in places:
        if place != out and folders.kind_of(place) is None:
            folders.check_new(place, "run", within=out)
            continue
        found = json.loads((place / MANIFEST).read_text())["fingerprint"]
        if found != wanted:
            raise NotOurs(
                f"{place}: got configuration {found}, expected {wanted} of this command; choose "
                "another --out, or pass --overwrite to begin the whole grid anew."
            )
