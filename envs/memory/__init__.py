"""Worlds that a memory solves and a reflex does not: cards, a maze with a sign, control without speeds."""

from typing import Any

from envs.common.names import check_name


def make(name: str, **overrides: Any) -> tuple[Any, Any]:
    """Build a world of this family; `overrides` are fields of its params, or `reveal=True`.

    A revealed world also shows what a memory would have to hold: the oracle's observation.
    """
    from envs.memory import cards, control, maze

    classes = {
        "RepeatFirst": cards.RepeatFirst,
        "RepeatPrevious": cards.RepeatPrevious,
        "CountRecall": cards.CountRecall,
        "Autoencode": cards.Autoencode,
        "TMaze": maze.TMaze,
        "PositionCartPole": control.PositionCartPole,
        "NoisyPendulum": control.NoisyPendulum,
    }
    world = classes[check_name("environment of family memory", name, classes)]
    return world.make(f"memory/{name}", **overrides)
