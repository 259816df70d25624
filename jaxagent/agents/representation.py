"""T(s): the contextual vector of the state, which replaces it as a policy's input (PASTA)."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxagent.nn.sequence_model import SequenceModel
from jaxagent.tokens.layout import Layout

Pool = Literal["last", "mean", "concat"]
FAILURES = ("zero", "mask", "drop")  # of a sensor


def features(
    model: SequenceModel, layout: Layout, *, is_causal: bool, pool: Pool
) -> Callable[..., jax.Array]:
    """A function `(params, unit [..., n], failure=None) -> T(s) [..., F]` of states.

    `unit` are places in the tokenizer's warped space. Only the state's own tokens are run: T reads
    the current state, no history. `failure`: see `fail`.
    """
    obs_size, num_tokens = layout.domain.obs_size, layout.num_obs_tokens
    size = layout.num_tokens
    order = jnp.arange(num_tokens)
    sees = order[None, :] <= order[:, None] if is_causal else jnp.ones((num_tokens,) * 2, bool)

    def apply(params: Any, unit: jax.Array, failure: Any = None) -> jax.Array:
        flat = unit.reshape(-1, obs_size)
        no_action = jnp.zeros((flat.shape[0], layout.domain.action_size))
        transition = jnp.concatenate([flat, no_action], axis=1)[:, None]
        attention, hidden, is_kept = sees[None], None, jnp.ones((num_tokens,), bool)
        if failure is not None:
            is_hidden, is_dropped = failure
            hidden = jnp.pad(is_hidden, (0, size - num_tokens))[None, None]
            attention = (sees & ~is_dropped[None, :] | jnp.eye(num_tokens, dtype=bool))[None]
            is_kept = ~is_dropped
        states = model.encode(params, layout, transition, attention, hidden, num_tokens)
        return _pooled(states, is_kept, pool).reshape(*unit.shape[:-1], -1)

    return apply


def fail(layout: Layout, sensor: int, mode: str) -> tuple[jax.Array, jax.Array]:
    """Which state tokens are hidden and which are dropped, each bool `[G_obs]`, when one fails.

    "mask": its token is replaced by the mask; "drop": nobody looks at it either, nor is it pooled
    (the pool "last" reads at the last place all the same). "zero" changes the observation itself
    and needs nothing here. Raises ValueError for it, and at modality level, where a sensor has no
    token of its own.
    """
    if mode not in ("mask", "drop") or not layout.is_component:
        raise ValueError(
            f'sensor failure: got mode "{mode}" at {layout.tokens.granularity} level, expected '
            '"mask" or "drop" at component level; to zero a sensor change the observation.'
        )
    failed = jnp.arange(layout.num_obs_tokens) == sensor
    return failed, failed & (mode == "drop")


def size(model: SequenceModel, layout: Layout, pool: Pool) -> int:
    """Width F of T(s)."""
    return model.config.width * (layout.num_obs_tokens if pool == "concat" else 1)


def _pooled(states: jax.Array, is_kept: jax.Array, pool: Pool) -> jax.Array:
    """Vectors `[B, F]` of state tokens `[B, G, D]`, of which `is_kept [G]`."""
    if pool == "last":
        return states[:, -1]
    states = jnp.where(is_kept[None, :, None], states, 0.0)
    if pool == "mean":
        return jnp.sum(states, axis=1) / jnp.maximum(jnp.sum(is_kept, dtype=states.dtype), 1.0)
    return states.reshape(states.shape[0], -1)
