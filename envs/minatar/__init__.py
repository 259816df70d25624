"""MinAtar (Young and Tian 2019) in a layout made for speed: scalar fields and bitmaps, no keys."""

import importlib
from typing import Any

from envs.common.names import check_name

GAMES = {
    "Asterix": "asterix",
    "Breakout": "breakout",
    "Freeway": "freeway",
    "Seaquest": "seaquest",
    "SpaceInvaders": "space_invaders",
}


def make(name: str, **overrides: float) -> tuple[Any, Any]:
    """Build a game of this family; `overrides` are fields of its params."""
    module = GAMES[check_name("environment of family minatar", name, GAMES)]
    game = getattr(importlib.import_module(f"envs.minatar.{module}"), name)
    return game.make(f"minatar/{name}", **overrides)
