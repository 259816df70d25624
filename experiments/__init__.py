"""Experiments: a folder a paper; `cli` is the command `jaxagent`, `load` opens a finished run."""

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "load":
        from experiments import runs

        return runs.load
    raise AttributeError(f"module 'experiments' has no attribute {name!r}")
