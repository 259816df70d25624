"""Word environments that show a part of what matters, and that part's rest where they are revealed."""

import abc
from typing import Any

import jax
import jax.numpy as jnp

from envs.types import Component, Params, State
from envs.words import WordEnvironment


class HidingEnvironment(WordEnvironment):
    """An environment whose observations lack what its best action depends on."""

    is_revealed = False
    shown_spec: tuple[Component, ...]
    hidden_spec: tuple[Component, ...]  # with the shown ones enough for a policy without memory

    @classmethod
    def make(cls, name: str, **overrides: Any) -> tuple["HidingEnvironment", Params]:
        """Build `name` and its task; with `reveal=True` it shows what it hides."""
        reveal = overrides.pop("reveal", False)
        if reveal not in (0, 1):
            raise ValueError(f"{name}: got reveal={reveal!r}, expected True or False.")
        env, params = super().make(name, **overrides)
        env.is_revealed = bool(reveal)
        env.make_options = {"reveal": True} if reveal else {}
        env.obs_spec = env.shown_spec + (env.hidden_spec if reveal else ())
        env.obs_shape = (len(env.obs_spec),)
        return env, params

    @abc.abstractmethod
    def shown(self, state: State, params: Params) -> tuple[jax.Array, ...]:
        """What the agent sees, a float32 `[]` or `[B]` a component of `shown_spec`."""

    @abc.abstractmethod
    def hidden(self, state: State, params: Params) -> tuple[jax.Array, ...]:
        """What a memory would have to hold, a float32 `[]` or `[B]` a component of `hidden_spec`."""

    def observe(self, state: State, params: Params) -> jax.Array:
        """What is shown, and behind it what is hidden where the world is revealed."""
        seen = self.shown(state, params)
        return jnp.stack([*seen, *self.hidden(state, params)] if self.is_revealed else seen)
