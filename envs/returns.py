"""Random and expert returns of tasks: the one table by which experiments normalise.

`returns.json` holds value, command and date of each; `python -m benchmarks.returns` measures it.
It has the random return of every pure environment, and an expert's where there is an expert.
"""

import difflib
import json
from pathlib import Path
from typing import NamedTuple

TABLE = Path(__file__).with_name("returns.json")


class Reference(NamedTuple):
    """Mean episode returns of a task."""

    random: float
    expert: float


def task_name(env_id: str, overrides: dict[str, float]) -> str:
    """Key of a task in the table, e.g. `gymnax/CartPole-v1 length=1.5`."""
    return " ".join([env_id, *(f"{k}={v:g}" for k, v in sorted(overrides.items()))])


def bounded(env_id: str, overrides: dict[str, float], best: float) -> Reference:
    """A task's random return and, where no expert was measured, the `best` that can be had."""
    table = json.loads(TABLE.read_text())
    return Reference(table[task_name(env_id, overrides)]["random"], best)


def reference(env_id: str, overrides: dict[str, float] | None = None) -> Reference:
    """Look a task up; raises KeyError with the command that adds it, or for want of an expert."""
    name = task_name(env_id, overrides or {})
    table = json.loads(TABLE.read_text())
    if name not in table:
        near = difflib.get_close_matches(name, table, n=5, cutoff=0.0)
        raise KeyError(
            f"returns of {name!r}: not among the {len(table)} of {TABLE.name}, the nearest are {near}; "
            f"measure it with `python -m benchmarks.returns --task '{name}'`."
        )
    if table[name]["expert"] is None:
        raise KeyError(
            f"returns of {name!r}: got a random return and no expert's, expected both; there is no "
            f"scripted expert, so train one: `python -m benchmarks.returns --task '{name}'`."
        )
    return Reference(table[name]["random"], table[name]["expert"])
