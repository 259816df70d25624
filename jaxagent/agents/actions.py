"""Actions between the agents, in units of the box's half-range, and the environment."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from envs.types import Component, is_one_category
from jaxagent.nn.attention import HIDDEN
from jaxagent.nn.distributions import Categorical, Gaussian, Product


def num_outputs(spec: tuple[Component, ...]) -> int:
    """Numbers that a network says of an action: a logit a category, a mean a real."""
    return sum(c.cardinality if c.kind == "category" else 1 for c in spec)


def distribution(
    spec: tuple[Component, ...], outputs: jax.Array, log_std: Any = (), legal: Any = ()
) -> Categorical | Gaussian | Product:
    """The distribution of raw actions that a network's `outputs [..., num_outputs]` stand for.

    Raw reals are in units of the half-range of their box, of standard deviations `exp(log_std)`,
    `[reals]`. `legal`, bool `[..., K]` (`Environment.legal_actions`), hides categories; where it
    leaves none of a component, the first is taken.
    """
    if is_one_category(spec):
        return Categorical(mask_illegal(outputs, legal))
    if all(c.kind == "real" for c in spec):
        return Gaussian(outputs, log_std[(None,) * (outputs.ndim - 1)])
    parts, columns, start, start_legal, means = [], [], 0, 0, []
    for column, c in enumerate(spec):
        if c.kind == "real":
            means.append((start, column))
            start += 1
            continue
        logits = outputs[..., start : start + c.cardinality]
        hidden = legal if isinstance(legal, tuple) else legal[..., start_legal : start_legal + c.cardinality]
        parts.append(Categorical(mask_illegal(logits, hidden)))
        columns.append((column,))
        start, start_legal = start + c.cardinality, start_legal + c.cardinality
    if means:
        places, reals = zip(*means, strict=True)
        mean = outputs[..., jnp.array(places)]
        parts.append(Gaussian(mean, log_std[(None,) * (mean.ndim - 1)]))
        columns.append(reals)
    return Product(tuple(parts), tuple(columns))


def mask_illegal(logits: jax.Array, legal: Any) -> jax.Array:
    """Logits `[..., A]` without those that `legal [..., A]` hides, () none; where it hides all, the first."""
    if isinstance(legal, tuple):
        return logits
    is_first = jnp.arange(logits.shape[-1]) == 0
    allowed = jnp.where(jnp.any(legal, axis=-1, keepdims=True), legal, is_first[(None,) * (legal.ndim - 1)])
    return jnp.where(allowed, logits, HIDDEN)


def stuck(legal: Any) -> dict[str, jax.Array]:
    """The metric of how many of the masks `legal [..., A]` allow nothing; none where there are no masks."""
    if isinstance(legal, tuple):
        return {}
    is_stuck = jnp.logical_not(jnp.any(legal, axis=-1))
    return {"train/without_legal_action": jnp.mean(is_stuck.astype(jnp.float32))}


def encode(raw_action: jax.Array, spec: tuple[Component, ...]) -> jax.Array:
    """Raw actions as a network reads them, float32 `[..., num_outputs]`: categories are one-hot."""
    columns = raw_action[..., None] if is_one_category(spec) else raw_action
    parts = [
        jax.nn.one_hot(columns[..., i].astype(jnp.int32), c.cardinality)
        if c.kind == "category"
        else columns[..., i : i + 1].astype(jnp.float32)
        for i, c in enumerate(spec)
    ]
    return jnp.concatenate(parts, axis=-1)


def to_env_action(raw_action: jax.Array, spec: tuple[Component, ...]) -> jax.Array:
    """The environment's actions of raw ones `[...]`, `[..., A]`: categories stay, reals go into their box."""
    if all(c.kind == "category" for c in spec):
        return raw_action
    low, high = _bounds(spec)
    middle, half_range = _middle_and_half_range(low, high)
    lead = (None,) * (raw_action.ndim - 1)
    return jnp.clip(middle[lead] + half_range[lead] * raw_action, low[lead], high[lead])


def from_env_action(action: jax.Array, spec: tuple[Component, ...]) -> jax.Array:
    """Inverse of `to_env_action`: a box `[..., A]` to [-1, 1]; categories and what has no bounds stay."""
    if all(c.kind == "category" for c in spec):
        return action
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
    if not is_one_category(spec):
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
    if is_category:
        num_actions = num_categories("uniform", spec, "several are not drawn")
    else:
        require_reals("uniform", spec)

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
    """Ends `[A]` of the box; a category has none and stays what it is."""
    low = jnp.array([c.low if c.kind == "real" else -math.inf for c in spec], jnp.float32)
    return low, jnp.array([c.high if c.kind == "real" else math.inf for c in spec], jnp.float32)


def _middle_and_half_range(low: jax.Array, high: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Centre and half width of a box; 0 and 1 where it has no bounds."""
    bounded = jnp.isfinite(low) & jnp.isfinite(high)
    return jnp.where(bounded, (low + high) / 2, 0.0), jnp.where(bounded, (high - low) / 2, 1.0)
