"""Gymnax under our contract: `step_env` and `is_truncated` without gymnax's own auto-reset.

Spaces nested in Dict and Tuple are flat lists of components by name (`envs.common.spaces`).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from envs import pictures
from envs.common.foreign import as_carry, cast_like, foreign
from envs.common.names import check_name
from envs.common.spaces import Layout, categories, observe, reals, shape_of, spec_of, unflatten
from envs.tasks import check_value
from envs.types import Environment, clip_category

import gymnax  # isort: skip  # the third party of this file
from gymnax.environments import spaces  # isort: skip

UNBOUNDED = 1e30  # gymnax writes "no bound" as the largest float


class GymnaxEnvironment(Environment):
    """One gymnax environment; states and params are gymnax's own pytrees with fixed dtypes."""

    def __init__(self, name: str, env: Any, params: Any):
        """Wrap gymnax's `env`; the specs are those of the task `params`."""
        self._env = env
        self.name = f"gymnax/{name}"
        self._short_name = name
        self.derived_fields = tuple(_derived(name, params))
        self._obs_layout = layout_of(self._env.observation_space(params), "obs")
        self._action_layout = layout_of(self._env.action_space(params), "action")
        self.obs_spec = spec_of(self._obs_layout, self.name)
        self.obs_shape = shape_of(self._obs_layout)
        self.action_spec = spec_of(self._action_layout, self.name)
        self.max_steps = int(params.max_steps_in_episode)

    @property
    def default_params(self) -> Any:
        return as_carry(self._env.default_params)

    def reset(self, key, params):
        obs, state = foreign(self._env.reset_env)(key, params)
        return self._observation(obs), as_carry(state)

    def step(self, key, state, action, params):
        action = unflatten(self._action_layout, clip_category(self.action_spec, action))
        obs, next_state, reward, terminated, info = foreign(self._env.step_env)(key, state, action, params)
        truncated = foreign(self._env.is_truncated)(next_state, params)
        next_state = cast_like(next_state, state)
        return (
            self._observation(obs),
            next_state,
            jnp.asarray(reward, jnp.float32),
            jnp.asarray(terminated, bool),
            jnp.asarray(truncated, bool),
            info,
        )

    def invariants(self, state, params):
        # Some gymnax environments count time in floats.
        limit = params.max_steps_in_episode.astype(jnp.float32)
        in_time = state.time.astype(jnp.float32) <= limit
        return super().invariants(state, params) | {"in_time": in_time}

    def render(self, state, params) -> np.ndarray:
        paint = pictures.PAINTERS.get(self._short_name)
        if paint is not None:
            return paint(state, params)
        obs = foreign(self._env.observe)(jax.random.key(0), state, None, params)
        return pictures.paint_observation(np.asarray(self._observation(obs)))

    def _observation(self, obs: Any) -> jax.Array:
        """What gymnax shows, however nested and typed, float32 `[*obs_shape]`."""
        return jnp.asarray(observe(self._obs_layout, obs))


def make(name: str, **overrides: float) -> tuple[GymnaxEnvironment, Any]:
    """Build a gymnax environment; `overrides` change its task and everything derived from it.

    Raises `UnknownName` for an unknown parameter, `ValueError` for an illegal value.
    """
    source = foreign(gymnax.make)(name)[0]
    params = source.default_params
    dtypes = jax.tree.map(lambda x: x.dtype, as_carry(params))
    fields = {f.name for f in dataclasses.fields(params)}
    for field, value in overrides.items():
        check_name(f"parameter of gymnax/{name}", field, sorted(fields))
        check_value(f"gymnax/{name}.{field}", value, getattr(params, field))
    params = params.replace(**overrides)
    params = params.replace(**(_derived(name, params) | overrides))
    # Tasks are stacked into lanes: an override never changes a dtype.
    params = jax.tree.map(jnp.asarray, params, dtypes)
    return GymnaxEnvironment(name, source, params), params


def _cartpole(params: Any) -> dict[str, float]:
    """What gymnax stores beside its source."""
    return {
        "total_mass": params.masscart + params.masspole,
        "polemass_length": params.masspole * params.length,
    }


DERIVED: dict[str, Callable] = {"CartPole-v1": _cartpole}


def _derived(name: str, params: Any) -> dict[str, float]:
    """The fields of a task that follow from its others."""
    return DERIVED[name](params) if name in DERIVED else {}


def layout_of(space: Any, name: str) -> Layout:
    """The layout of a gymnax space: Box, Discrete, and Dict and Tuple of such, to any depth."""
    match space:
        case spaces.Dict():
            return {key: layout_of(space.spaces[key], f"{name}.{key}") for key in space.spaces}
        case spaces.Tuple():
            return tuple(layout_of(child, f"{name}.{i}") for i, child in enumerate(space.spaces))
        case spaces.Discrete():
            return categories(name, space.n, space.dtype)
        case spaces.Box():
            return reals(name, _bounds(space.low), _bounds(space.high), space.shape, space.dtype)
    raise ValueError(f"{name}: got space {space}, expected gymnax Box, Discrete, Dict or Tuple.")


def _bounds(x: Any) -> np.ndarray:
    """Bounds as float64 of any shape, infinite where gymnax has none."""
    x = np.asarray(x, np.float64)
    return np.where(np.abs(x) >= UNBOUNDED, np.copysign(np.inf, x), x)
