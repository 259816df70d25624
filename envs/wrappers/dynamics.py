"""Changed dynamics: the same environment, another task."""

from typing import Any

import numpy as np

from envs.common.names import check_name
from envs.registry import make
from envs.types import Environment, Params
from envs.wrappers.wrapper import Wrapper


def change_dynamics(
    env: Environment, params: Params, *, scale: dict[str, float] | None = None, **values: float
) -> tuple[Environment, Params]:
    """Replace fields of the task by `values` or multiply them by `scale`.

    `change_dynamics(env, params, scale={"gravity": 0.5}, length=1.0)`. What follows from the task
    follows: bounds, the time limit, fields that a source derives from others. The result is no
    wrapper, so it stays as fast; it goes inside of wrappers. Raises `UnknownName` for a field that
    the task lacks, `ValueError` for an illegal value.
    """
    if isinstance(env, Wrapper):
        raise ValueError(
            f"{env.name}: got a wrapped environment, expected a plain one; change the dynamics "
            "first, then wrap: specs of the wrappers follow from it."
        )
    scale = scale or {}
    both = sorted(set(scale) & set(values))
    if both:
        raise ValueError(f"got {both} in both scale and values, expected each field once.")
    for field in scale:
        check_name(f"parameter of {env.name}", field, _fields(params))
        values[field] = _number(env, params, field) * scale[field]
    changed = {f: _number(env, params, f) for f in _changed(env, params)}
    new_env, new_params = make(env.name, **env.make_options, **(changed | values))
    kept = {f: getattr(params, f) for f in _fields(params) if not _is_number(getattr(params, f))}
    return new_env, _replace(new_params, kept)


def _changed(env: Environment, params: Params) -> list[str]:
    """Numbers of the task that are not nominal, but for those the source derives itself."""
    nominal = env.default_params
    return [
        f
        for f in _fields(params)
        if f not in env.derived_fields
        and _is_number(getattr(params, f))
        and not np.array_equal(getattr(params, f), getattr(nominal, f))
    ]


def _fields(params: Params) -> list[str]:
    return list(getattr(params, "_fields", None) or vars(params))


def _is_number(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and np.ndim(leaf) == 0


def _number(env: Environment, params: Params, field: str) -> float:
    leaf = getattr(params, field)
    if not _is_number(leaf):
        raise ValueError(
            f"{env.name}.{field}: got shape {np.shape(leaf)}, expected the number of one task; "
            "change each task by itself, then stack them."
        )
    return np.asarray(leaf).item()


def _replace(params: Params, fields: dict[str, Any]) -> Params:
    return (params._replace if hasattr(params, "_replace") else params.replace)(**fields)
