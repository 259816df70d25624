"""Gymnax under our contract: `step_env` and `is_truncated` without gymnax's own auto-reset."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from envs import pictures
from envs.common.foreign import as_carry, cast_like, foreign
from envs.common.names import check_name
from envs.tasks import check_value
from envs.types import Component, Environment, clip_category

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
        space = self._env.observation_space(params)
        if not isinstance(space, spaces.Box | spaces.Discrete):
            raise ValueError(
                f"gymnax/{name}: got observation space {space}, expected Box or Discrete; "
                "a nested observation has no flat list of components."
            )
        self.obs_spec = _components(space, "obs")
        self.obs_shape = tuple(space.shape)
        self.action_spec = _components(self._env.action_space(params), "action")
        self.max_steps = int(params.max_steps_in_episode)

    @property
    def default_params(self) -> Any:
        return as_carry(self._env.default_params)

    def reset(self, key, params):
        obs, state = foreign(self._env.reset_env)(key, params)
        return jnp.asarray(obs, jnp.float32), as_carry(state)

    def step(self, key, state, action, params):
        action = clip_category(self.action_spec, action)
        obs, next_state, reward, terminated, info = foreign(self._env.step_env)(key, state, action, params)
        truncated = foreign(self._env.is_truncated)(next_state, params)
        next_state = cast_like(next_state, state)
        return (
            jnp.asarray(obs, jnp.float32),
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
        return pictures.paint_observation(np.asarray(obs))


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


def _components(space: Any, prefix: str) -> tuple[Component, ...]:
    if isinstance(space, spaces.Discrete):
        return (Component(prefix, "category", cardinality=int(space.n)),)
    if not isinstance(space, spaces.Box):
        raise ValueError(f"got space {space}, expected gymnax Box or Discrete for the {prefix}.")
    size = math.prod(space.shape)
    low = np.broadcast_to(np.asarray(space.low, np.float64), space.shape).reshape(size)
    high = np.broadcast_to(np.asarray(space.high, np.float64), space.shape).reshape(size)
    return tuple(Component(f"{prefix}[{i}]", "real", _bound(low[i]), _bound(high[i])) for i in range(size))


def _bound(x: float) -> float:
    return math.copysign(math.inf, x) if abs(x) >= UNBOUNDED else float(x)
