"""The specification of `kernels.scan`: `jax.lax.scan`."""

from collections.abc import Callable
from typing import Any

import jax


def scan(
    body: Callable[[Any, Any], tuple[Any, Any]], init: Any, inputs: Any, *, reverse: bool = False
) -> Any:
    """As `jax.lax.scan`; `body` acts on every lane alone."""
    return jax.lax.scan(body, init, inputs, reverse=reverse)
