"""Fields of a run's JSON that may be missing or odd: read as what was wanted, or as nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def dict_at(owner: Mapping, key: Any) -> Mapping[str, Any]:
    """The object at a key; empty where there is none."""
    value = owner.get(key)
    return value if isinstance(value, dict) else {}


def dicts_at(owner: Mapping, key: str) -> list[Mapping[str, Any]]:
    """The objects of the list at a key; none where there is no list."""
    value = owner.get(key)
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def effects_by_task(claim: Mapping) -> str:
    """The effect of a judged claim on each of several tasks, and which were left out; else nothing."""
    effects, dropped = dict_at(claim, "by_task"), items_of(claim.get("dropped"))
    if len(effects) < 2:
        return ""
    told = {task: "-" if math.isnan(number_of(x)) else f"{number_of(x):.2g}" for task, x in effects.items()}
    return ", ".join(f"{task} {x}{' (left out)' if task in dropped else ''}" for task, x in told.items())


def standing_of(owner: Mapping) -> str:
    """Whether verdicts are of claims frozen before the run; who has no word of it is from before that."""
    frozen = dict_at(owner, "frozen") or {"reason": "its claims were not frozen"}
    if frozen.get("is_confirmed"):
        return f"confirmed: claims frozen at {str(frozen.get('commit'))[:8]}"
    return f"exploratory: {frozen.get('reason')}"


def items_of(value: Any) -> list[Any]:
    """A list as it is, a scalar as a list of one, null as none."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def number_of(value: Any) -> float:
    """A number as a float; nan for anything else."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number else math.nan


def numbers_of(values: Any) -> list[float]:
    """The finite numbers of a list, or of a scalar."""
    return [number for number in map(number_of, items_of(values)) if math.isfinite(number)]


def pair_of(value: Any) -> tuple[float, float]:
    """A list of two numbers as a pair; nan twice for anything else."""
    numbers = [number_of(one) for one in items_of(value)]
    return (numbers[0], numbers[1]) if len(numbers) == 2 else (math.nan, math.nan)


def count_of(value: Any) -> Any:
    """A list (of seeds) as its length; anything else as it is."""
    return len(value) if isinstance(value, list) else value
