"""Data: rollouts, the trajectory store, readers, samplers and normalisers; `load` reads any dataset."""

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "load":
        from jaxagent.data.reading import load

        return load
    raise AttributeError(f"module 'jaxagent.data' has no attribute {name!r}")
