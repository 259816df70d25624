"""The frame of all wrappers: an environment seen through three pure functions."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from envs.types import Component, Environment


class WrappedParams(NamedTuple):
    """The task of a wrapped environment, pytrees of arrays."""

    env: Any  # of the wrapped environment
    own: Any  # of the wrapper


class WrappedState(NamedTuple):
    """The state of a wrapped environment, pytrees of arrays."""

    env: Any  # of the wrapped environment
    own: Any  # what the wrapper remembers


def innermost(value: Any) -> Any:
    """The state or the task below all wrappers."""
    return innermost(value.env) if isinstance(value, WrappedParams | WrappedState) else value


def changed(value: Any, **fields: Any) -> Any:
    """A state or a task whose innermost has other values of some fields, in the same wrappers."""
    if isinstance(value, WrappedParams | WrappedState):
        return value._replace(env=changed(value.env, **fields))
    return value._replace(**fields)


class Step(NamedTuple):
    """Results of one step of the wrapped environment, beside its state."""

    obs: jax.Array  # [*obs_shape]
    reward: jax.Array  # [] float32, [2] in a game of two
    terminated: jax.Array  # [] bool
    truncated: jax.Array  # [] bool
    info: dict[str, jax.Array]  # diagnostics of the source, may be empty


def remember_nothing(key: jax.Array, own: Any, obs: jax.Array) -> tuple[tuple[()], jax.Array]:
    """The `begin` of a wrapper without memory that shows `obs [*obs_shape]` as it is."""
    del key, own
    return (), obs


def act_as_told(key: jax.Array, own: Any, memory: Any, action: jax.Array) -> jax.Array:
    """The `act` of a wrapper that executes `action`, `[]` or `[A]`, as the agent chose it."""
    del key, own, memory
    return action


def pass_on(key: jax.Array, own: Any, memory: Any, action: jax.Array, step: Step) -> tuple[Any, Step]:
    """The `after` of a wrapper that changes nothing; shapes as in `Step`."""
    del key, own, action
    return memory, step


def show(seen: Callable) -> dict[str, Callable]:
    """The `begin` and `after` of a wrapper that shows `seen(own, obs)` for every observation."""

    def begin(key, own, obs):
        del key
        return (), seen(own, obs)

    def after(key, own, memory, action, step):
        del key, action
        return memory, step._replace(obs=seen(own, step.obs))

    return {"begin": begin, "after": after}


class Wrapper(Environment):
    """`env` with `begin` at the reset, `act` before and `after` behind each step.

    `begin(key, own, obs) -> memory, obs`, `act(key, own, memory, action) -> executed action`,
    `after(key, own, memory, executed, step) -> memory, step`. `specs` replaces attributes of the
    contract (`obs_spec`, `obs_shape`, `obs_dtype`, `action_spec`, `max_steps`).
    """

    def __init__(
        self,
        env: Environment,
        own: Any,
        name: str,
        *,
        begin: Callable = remember_nothing,
        act: Callable = act_as_told,
        after: Callable = pass_on,
        is_random: bool = False,
        **specs: Any,
    ):
        """Wrap `env`; `own` are the nominal params of the wrapper. Raises ValueError for one on the host."""
        if env.is_hosted:
            raise ValueError(
                f"{env.name}: got an environment on the host, expected a pure one; wrap it as gymnasium "
                "does, and pass a function that makes it."
            )
        self.inner = env
        self._own, self._begin, self._act, self._after = own, begin, act, after
        self.name = f"{env.name} + {name}"
        self.obs_spec, self.obs_shape, self.obs_dtype = env.obs_spec, env.obs_shape, env.obs_dtype
        self.action_spec, self.max_steps = env.action_spec, env.max_steps
        self.num_players, self.has_legal_actions = env.num_players, env.has_legal_actions
        self.is_pure = env.is_pure
        self.is_step_random = env.is_step_random or is_random
        for field, value in specs.items():
            setattr(self, field, value)

    @property
    def default_params(self) -> WrappedParams:
        return WrappedParams(self.inner.default_params, self._own)

    def sample_params(self, key, split):
        return WrappedParams(self.inner.sample_params(key, split), self._own)

    def reset(self, key, params):
        key_env, key_own = jax.random.split(key)
        obs, state = self.inner.reset(key_env, params.env)
        memory, obs = self._begin(key_own, params.own, obs)
        return obs, WrappedState(state, memory)

    def step(self, key, state, action, params):
        key_env, key_act, key_after = jax.random.split(key, 3)
        executed = self._act(key_act, params.own, state.own, action)
        obs, inner, *flags, info = self.inner.step(key_env, state.env, executed, params.env)
        memory, step = self._after(key_after, params.own, state.own, executed, Step(obs, *flags, info))
        obs, *rest = step
        return obs, WrappedState(inner, memory), *rest

    def render(self, state, params) -> np.ndarray:
        return self.inner.render(state.env, params.env)

    def legal_actions(self, state, params):
        return self.inner.legal_actions(state.env, params.env)

    def current_player(self, state):
        return self.inner.current_player(state.env)

    def invariants(self, state, params):
        return self.inner.invariants(state.env, params.env)


def wrap(env: Environment, params: Any, own: Any, name: str, **parts: Any) -> tuple[Wrapper, Any]:
    """A `Wrapper` and its task, from the wrapped environment and its task."""
    if not env.is_pure:
        raise ValueError(
            f"{env.name}: got an environment with side effects, expected a pure one; it is stepped "
            "by `env.vector(num_lanes)` alone, so change its options in `envs.make` instead."
        )
    return Wrapper(env, own, name, **parts), WrappedParams(params, own)


def require_reals(env: Environment, spec: tuple[Component, ...], what: str) -> None:
    """Raise `ValueError` unless every component of `spec` is real and bounded."""
    for c in spec:
        if c.kind != "real" or not np.isfinite([c.low, c.high]).all():
            raise ValueError(f"{env.name}: got {what} component {c}, expected real components with bounds.")
