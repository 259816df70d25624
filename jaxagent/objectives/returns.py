"""Returns and advantages that bootstrap through truncation and never through termination."""

import jax
import jax.numpy as jnp


def gae(
    reward: jax.Array,
    terminated: jax.Array,
    truncated: jax.Array,
    value: jax.Array,
    next_value: jax.Array,
    *,
    discount: float,
    trace: float,
) -> jax.Array:
    """Generalised advantage estimates `[T, ...]` (Schulman et al. 2016, eq. 16).

    All arguments are `[T, ...]`; `next_value[t]` is the value of the *true* observation after step
    t (`Trajectory.final_obs`), so a truncated step bootstraps from what the agent would have seen.
    A termination multiplies that value by 0; either end stops the trace.

    Differs: the paper has one "done"; here termination and truncation are two masks.
    """
    delta = reward + discount * jnp.where(terminated, 0.0, next_value) - value
    keeps_trace = jnp.where(terminated | truncated, 0.0, discount * trace)

    def backward(advantage, inputs):
        delta_t, keeps_t = inputs
        advantage = delta_t + keeps_t * advantage
        return advantage, advantage

    _, advantage = jax.lax.scan(
        backward, jnp.zeros_like(delta[0]), (delta, keeps_trace), reverse=True
    )
    return advantage
