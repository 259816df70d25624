"""jaxagent: agents that learn from action-state sequences, jitted end to end in JAX.

result = jaxagent.learn("ppo", "classic/CartPole-v1", seeds=4)

Importing the package starts no backend and sets no flag.
"""

import importlib
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in ("learn", "load", "sweep"):
        from jaxagent.api import learning

        return getattr(learning, name)
    if name == "data":
        return importlib.import_module("jaxagent.data")
    raise AttributeError(f"module 'jaxagent' has no attribute {name!r}")
