"""The folder of a grid: what may go on in it, known without JAX."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxagent import folders
from jaxagent.config import fingerprint
from jaxagent.folders import MANIFEST, NotOurs


def folder_of(out: Path, cell: str) -> Path:
    """The run folder of a cell."""
    return out / "cells" / re.sub(r"[^A-Za-z0-9.-]+", "-", cell)


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
