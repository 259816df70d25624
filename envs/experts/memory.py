"""Memory worlds: what to do for one who sees what is hidden."""

from typing import Any

import jax
import jax.numpy as jnp

from envs.memory.maze import FORWARD


def tmaze(state: Any, params: Any) -> jax.Array:
    """Forward, and at the junction the way of the sign: int32 `[]`."""
    return jnp.where(state.position >= params.length, state.goal, FORWARD).astype(jnp.int32)
