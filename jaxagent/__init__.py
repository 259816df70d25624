"""jaxagent: agents that learn from action-state sequences, jitted end to end in JAX.

result = jaxagent.learn("ppo", "classic/CartPole-v1", seeds=4)

Importing the package starts no backend and sets no flag.
"""

import importlib
import importlib.util
from pathlib import Path
from typing import Any

__version__ = "0.1.0"
SIBLINGS = ("envs", "kernels", "experiments")  # packages that are installed beside this one


def _check_siblings() -> None:
    """Raise ImportError where Python would find another package under a name of ours."""
    home = Path(__file__).resolve().parents[1]
    for name in SIBLINGS:
        spec = importlib.util.find_spec(name)
        places = [Path(place).resolve() for place in (spec and spec.submodule_search_locations) or ()]
        if not places and spec is not None and spec.origin:  # a module, such as envs.py
            places = [Path(spec.origin).resolve()]
        if places and home / name not in places:
            raise ImportError(
                f"jaxagent: got the package {name!r} of {places[0]}, expected {home / name}, which jaxagent "
                f"is installed with; rename the folder {places[0]}, or run from another one."
            )


_check_siblings()


def __getattr__(name: str) -> Any:
    if name in ("learn", "load", "sweep", "tune"):
        from jaxagent.api import learning

        return getattr(learning, name)
    if name == "data":
        return importlib.import_module("jaxagent.data")
    raise AttributeError(f"module 'jaxagent' has no attribute {name!r}")
