"""Actions between the agents, in units of the box's half-range, and the environment."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from envs.types import Component


def to_env_action(raw_action: jax.Array, spec: tuple[Component, ...]) -> jax.Array:
    """The environment's actions of raw ones: categories `[...]` stay, reals `[..., A]` go into their box."""
    if spec[0].kind == "category":
        return raw_action
    low, high = _bounds(spec)
    middle, half_range = _middle_and_half_range(low, high)
    lead = (None,) * (raw_action.ndim - 1)
    return jnp.clip(middle[lead] + half_range[lead] * raw_action, low[lead], high[lead])


def from_env_action(action: jax.Array, spec: tuple[Component, ...]) -> jax.Array:
    """Inverse of `to_env_action` for reals `[..., A]`: a box to [-1, 1], what has no bounds as it is."""
    require_reals("from_env_action", spec)
    middle, half_range = _middle_and_half_range(*_bounds(spec))
    lead = (None,) * (action.ndim - 1)
    return (action - middle[lead]) / half_range[lead]


def require_reals(name: str, spec: tuple[Component, ...]) -> None:
    """Raise ValueError for actions that are no reals."""
    kinds = sorted({c.kind for c in spec})
    if kinds != ["real"]:
        raise ValueError(f"{name}: got actions of kind {kinds}, expected reals; use PPO or clone.")


def num_categories(name: str, spec: tuple[Component, ...], otherwise: str) -> int:
    """How many actions there are; raises ValueError unless they are one category."""
    if len(spec) != 1 or spec[0].kind != "category":
        raise ValueError(f"{name}: got actions {spec}, expected one category; {otherwise}.")
    return spec[0].cardinality


def draw_category(key: jax.Array, batch_size: int, num_actions: int) -> jax.Array:
    """Draw uniform actions, int32 `[B]`, each below `num_actions`."""
    return jax.random.randint(key, (batch_size,), 0, num_actions, dtype=jnp.int32)


def uniform(spec: tuple[Component, ...]) -> Callable:
    """A function `act(carry, obs, is_first [B], key)` that draws actions `[B]` or `[B, n]` uniformly.

    It fills a memory before anything is learned. Extras are of one category the `weights [B, A]` of
    all actions, of reals the raw `action [B, n]`.
    """
    is_category = spec[0].kind == "category"
    num_actions = num_categories("uniform", spec, "several are not drawn") if is_category else 0

    def category(
        carry: Any, obs: Any, is_first: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array], Any]:
        del obs
        weights = jnp.full((*is_first.shape, num_actions), 1.0 / num_actions)
        return draw_category(key, *is_first.shape, num_actions), {"weights": weights}, carry

    def reals(
        carry: Any, obs: Any, is_first: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array], Any]:
        del obs
        raw_action = jax.random.uniform(key, (*is_first.shape, len(spec)), minval=-1.0, maxval=1.0)
        return to_env_action(raw_action, spec), {"action": raw_action}, carry

    return category if is_category else reals


def _bounds(spec: tuple[Component, ...]) -> tuple[jax.Array, jax.Array]:
    low = jnp.array([c.low for c in spec], jnp.float32)
    return low, jnp.array([c.high for c in spec], jnp.float32)


def _middle_and_half_range(low: jax.Array, high: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Centre and half width of a box; 0 and 1 where it has no bounds."""
    bounded = jnp.isfinite(low) & jnp.isfinite(high)
    return jnp.where(bounded, (low + high) / 2, 0.0), jnp.where(bounded, (high - low) / 2, 1.0)
