"""Environments of a user's own, however they are given: a class, a function, an object, one of gymnax."""

import dataclasses
import inspect
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp

from envs.common.names import UnknownName, check_name
from envs.types import Environment


def make(name: str, target: Any, overrides: Mapping[str, Any]) -> tuple[Environment, Any]:
    """The environment of a target and its task with overrides.

    The target is a subclass of `Environment`, one itself, an environment of gymnax or gymnasium, or a
    function of overrides that returns any of these, alone or with the task. Raises `UnknownName` for a
    field that the task does not have, ValueError for a target that is nothing of the kind.
    """
    given = target
    if inspect.isclass(target):
        target = target()
    is_one = isinstance(target, Environment) or _is_of_gymnax(target) or _is_of_gymnasium(target)
    if not is_one and callable(target):
        try:
            inspect.signature(target).bind(**overrides)
        except TypeError as error:
            raise UnknownName(
                f"{name}: got {dict(overrides)}, expected what its function takes: {error}."
            ) from None
        given, overrides = partial(target, **overrides), {}
        target = given()
    env, task = target if isinstance(target, tuple) and len(target) == 2 else (target, None)
    if _is_of_gymnax(env):
        from envs.adapters.gymnax import GymnaxEnvironment

        env = GymnaxEnvironment(type(env).__name__, env, env.default_params if task is None else task)
    if _is_of_gymnasium(env):
        from envs.adapters import bridge

        env = bridge.HostedEnvironment(name, given if callable(given) else bridge.maker_of(name, env))
    if not isinstance(env, Environment):
        raise ValueError(
            f"environment {name}: got {type(env).__name__}, expected a subclass of envs.types.Environment, "
            "or an environment of gymnax or gymnasium; see envs/README.md, or wrap it."
        )
    task = env.default_params if task is None else task
    return env, changed(name, task, overrides) if overrides else task


def _is_of_gymnax(value: Any) -> bool:
    """Whether it has what gymnax's environments have; told without importing gymnax."""
    return not inspect.isclass(value) and hasattr(value, "step_env") and hasattr(value, "default_params")


def _is_of_gymnasium(value: Any) -> bool:
    """Whether it is one of gymnasium's, told without importing what nobody else did."""
    gymnasium = sys.modules.get("gymnasium")
    return gymnasium is not None and isinstance(value, (gymnasium.Env, gymnasium.vector.VectorEnv))


def changed(name: str, task: Any, overrides: Mapping[str, Any]) -> Any:
    """A task with some of its fields changed, dtypes as they were."""
    is_tuple = hasattr(task, "_fields")
    fields = task._fields if is_tuple else [field.name for field in dataclasses.fields(task)]
    for field in overrides:
        check_name(f"parameter of {name}", field, sorted(fields))
    cast = {f: jnp.asarray(v, jnp.asarray(getattr(task, f)).dtype) for f, v in overrides.items()}
    return task._replace(**cast) if is_tuple else dataclasses.replace(task, **cast)
