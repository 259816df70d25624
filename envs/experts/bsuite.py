"""Bsuite: small tasks whose best action can be read from the state."""

from typing import Any

import jax
import jax.numpy as jnp


def catch(state: Any, params: Any) -> jax.Array:
    """Go under the ball: int32 `[]`."""
    del params
    return (1 + jnp.sign(state.ball_x - state.paddle_x)).astype(jnp.int32)


def deep_sea(state: Any, params: Any) -> jax.Array:
    """Go right, always, int32 `[]`: only the last column pays more than the way there costs."""
    del params
    return state.action_mapping[state.row, state.column].astype(jnp.int32)
