"""Tasks: default parameters and their overrides, checked before an array is made of them."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from envs.common.names import check_name


def make_task(env_id: str, defaults: Any, overrides: dict[str, Any]) -> Any:
    """A NamedTuple of numbers with some replaced: int32 arrays for whole defaults, else float32.

    Raises `UnknownName` for an unknown field, `ValueError` for an illegal value.
    """
    for field, value in overrides.items():
        check_name(f"parameter of {env_id}", field, defaults._fields)
        check_value(f"{env_id}.{field}", value, getattr(defaults, field))
    return jax.tree.map(_as_array, defaults._replace(**overrides), defaults)


def check_value(what: str, value: Any, default: Any) -> None:
    """Raise `ValueError` unless `value` is a legal replacement of the number `default`."""
    is_number = isinstance(value, int | float | np.integer | np.floating)
    if isinstance(value, bool) or not is_number or not math.isfinite(value):
        raise ValueError(f"{what}: got {value!r}, expected a finite number.")
    if isinstance(default, int) and (value != int(value) or abs(value) >= 2**31):
        raise ValueError(f"{what}: got {value}, expected a whole number below 2^31.")
    if np.ndim(default) == 0 and default > 0 and value <= 0:
        raise ValueError(
            f"{what}: got {value}, expected a positive number like the default {default}; "
            "a size, mass or count cannot vanish."
        )


def _as_array(value: Any, default: Any) -> jax.Array:
    return jnp.asarray(value, jnp.int32 if isinstance(default, int) else jnp.float32)
