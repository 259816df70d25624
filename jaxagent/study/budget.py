"""What arms spent, and whether two of them spent alike: a claim of a mechanism that spends more says so."""

import math
from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

TRIALS = "settings_tried"
OF_THE_PEAK = "flops"  # a formula's, for a share of the peak; operations are counted in the program
ALIKE = 0.1  # spendings that differ by less than this share are equal


class Spent(NamedTuple):
    """Where what an arm plays with was learned, and what a decision of it costs."""

    stages: tuple[str, ...] = ()  # names or patterns (`train/*/gru`); (): nothing was trained
    evaluations: float = 1  # of networks, a decision
    trials: int | None = None  # settings that were tried for it on development seeds; None: not counted
    share: float = 1  # of the stages' updates; less for a snapshot of a fit


def budgets(
    spent: Mapping[str, Spent], stages: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, float]]:
    """Of each arm the sums over its stages, a lane of each: operations, env steps, tokens, and so on.

    `stages` are summaries by name, each with its "units".
    """
    return {arm: _of_arm(one, stages) for arm, one in spent.items()}


def check(spent: Mapping[str, Spent], arms: Collection[str], stages: Collection[str]) -> None:
    """Raise ValueError for an arm, or a pattern of stages, that a study does not have."""
    for arm, one in spent.items():
        if arm not in arms:
            raise ValueError(f"spent: got arm {arm!r}, expected one of {sorted(arms)}; fix its name.")
        for pattern in one.stages:
            if not any(fnmatchcase(name, pattern) for name in stages):
                raise ValueError(
                    f"spent of {arm!r}: got {pattern!r}, expected a stage of {sorted(stages)}; fix it."
                )


def _of_arm(spent: Spent, stages: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for name, stage in stages.items():
        if any(fnmatchcase(name, pattern) for pattern in spent.stages):
            for unit in stage.get("units", ()):
                if unit != OF_THE_PEAK:
                    total[unit] = total.get(unit, 0) + spent.share * stage[unit]
    told = {} if spent.trials is None else {TRIALS: spent.trials}
    return total | {"evaluations": spent.evaluations} | told


def compared(a: Mapping[str, float], b: Mapping[str, float]) -> str:
    """One line: "matched by ..." where two budgets are alike in all that they count, else the ratios.

    Settings tried are no spending of an arm but of who set it up; unequal ones are told.
    """
    units = [unit for unit in dict.fromkeys([*a, *b]) if unit != TRIALS]
    ratios = {unit: _ratio(a.get(unit, 0), b.get(unit, 0)) for unit in units}
    unlike = {unit: x for unit, x in ratios.items() if not x or max(x, 1 / x) >= 1 + ALIKE}
    line = "matched by " + ", ".join(unit.replace("_", " ") for unit in units)
    if unlike:
        line = "unmatched: " + ", ".join(_told(unit, ratio) for unit, ratio in unlike.items())
    tried = [one.get(TRIALS, "not counted") for one in (a, b)]
    if tried[0] == tried[1]:
        return line if TRIALS in a else f"{line}; settings tried: not counted"
    return f"{line}; settings tried: {tried[0]} and {tried[1]}"


def _ratio(a: float, b: float) -> float:
    if a == b:
        return 1.0
    return a / b if b else math.inf


def _told(unit: str, ratio: float) -> str:
    name = unit.replace("_", " ")
    if math.isinf(ratio):
        return f"{name}, of which the other has none"
    return f"{ratio:.2g} x the {name}" if ratio else f"no {name}"


def line_of(
    arms: Sequence[str], told: Mapping[str, Mapping[str, float]], trained: Collection[str] = ()
) -> str:
    """How the budgets of a claim's first and last arm compare; nothing for a claim of one arm.

    Nothing, too, where none of its arms is one of a study's, `trained`, or has a budget: points of a curve.
    """
    if len(arms) < 2 or not {*arms} & {*told, *trained}:
        return ""
    first, last = told.get(arms[0]), told.get(arms[-1])
    return "budgets not told" if first is None or last is None else compared(first, last)
