"""Changed dynamics: the same environment, another task."""

from typing import Any

import jax.numpy as jnp

from envs.names import check_name
from envs.types import Environment, Params


def change_dynamics(
    env: Environment, params: Params, *, scale: dict[str, float] | None = None, **values: Any
) -> tuple[Environment, Params]:
    """Replace fields of the task by `values` or multiply them by `scale`, under any wrappers.

    `change_dynamics(env, params, scale={"gravity": 0.5}, length=1.0)`. The environment stays what
    it is, so it stays as fast. Raises `UnknownName` for a field that the task lacks. Fields that a
    source derives from others (gymnax's CartPole) follow in `envs.make`, not here.
    """
    scale = scale or {}
    both = sorted(set(scale) & set(values))
    if both:
        raise ValueError(f"got {both} in both scale and values, expected each field once.")
    return env, _replace(env.name, params, scale, values)


def _replace(name: str, params: Params, scale: dict[str, float], values: dict[str, Any]) -> Params:
    if hasattr(params, "own") and hasattr(params, "env"):
        return params._replace(env=_replace(name, params.env, scale, values))
    fields = getattr(params, "_fields", None) or tuple(vars(params))
    new = {}
    for field in (*scale, *values):
        old = getattr(params, check_name(f"parameter of {name}", field, fields))
        value = old * scale[field] if field in scale else values[field]
        new[field] = jnp.broadcast_to(jnp.asarray(value, old.dtype), old.shape)
    replace = params._replace if hasattr(params, "_replace") else params.replace
    return replace(**new)
