"""Environments: a contract (`types.py`), a list (`registry.py`), batched stepping (`vector.py`).

Importing this package imports neither JAX nor a third-party simulator.
"""

from envs.registry import make, register, registered

__all__ = ["make", "register", "registered"]
