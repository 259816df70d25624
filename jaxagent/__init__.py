"""jaxagent: agents that learn from action-state sequences, jitted end to end in JAX.

Importing the package starts no backend and sets no flag.
"""

__version__ = "0.1.0"
