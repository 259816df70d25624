"""The last steps of an episode: what a policy without a memory of its own is shown of the past."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Window(NamedTuple):
    """The present observation and the K - 1 steps before it, the oldest first."""

    obs: jax.Array  # [..., K, n]
    action: jax.Array  # [..., K, m]; the present one's is not known yet: 0
    is_known: jax.Array  # [..., K] bool: the step is of this episode; the present always is


def empty(batch_size: int, length: int, obs_size: int, action_size: int) -> Window:
    """Windows `[B, K, ...]` of nothing."""
    shape = (batch_size, length)
    obs, action = jnp.zeros((*shape, obs_size)), jnp.zeros((*shape, action_size))
    return Window(obs, action, jnp.zeros(shape, bool))


def see(window: Window, obs: jax.Array, is_first: jax.Array) -> Window:
    """Windows `[B, K, ...]` a step later: at `obs [B, n]`, which begins an episode where `is_first [B]`."""
    goes_on = window.is_known[:, 1:] & ~is_first[:, None]
    return Window(
        jnp.concatenate([window.obs[:, 1:], obs[:, None]], axis=1),
        jnp.concatenate([window.action[:, 1:], jnp.zeros_like(window.action[:, :1])], axis=1),
        jnp.concatenate([goes_on, jnp.ones_like(is_first)[:, None]], axis=1),
    )


def act(window: Window, action: jax.Array) -> Window:
    """Windows `[B, K, ...]` whose present action `[B, m]` is known."""
    return window._replace(action=window.action.at[:, -1].set(action))


def of_episode(obs: np.ndarray, action: np.ndarray, length: int) -> Window:
    """Windows `[T, K, ...]` that end at each step of an episode `obs [T, n]`, `action [T, m]`."""
    step = np.arange(len(obs))[:, None] + np.arange(1 - length, 1)[None]
    is_known, past = step >= 0, np.maximum(step, 0)
    is_past = (is_known & (np.arange(length) < length - 1))[..., None]
    shown = np.where(is_known[..., None], obs[past], 0.0)
    return Window(shown.astype(np.float32), np.where(is_past, action[past], 0.0).astype(np.float32), is_known)
