"""Value objectives: arrays in, losses and targets out."""

import jax
import jax.numpy as jnp


def td_target(
    reward: jax.Array, terminated: jax.Array, next_value: jax.Array, *, discount: float
) -> jax.Array:
    """One-step target `[...]`: a termination ends the return, a truncation does not."""
    return reward + discount * jnp.where(terminated, 0.0, next_value)


def expectile_loss(error: jax.Array, expectile: float) -> jax.Array:
    """`|expectile - 1(error < 0)| error^2`, per element (Kostrikov et al. 2022, eq. 4)."""
    weight = jnp.where(error < 0.0, 1.0 - expectile, expectile)
    return weight * jnp.square(error)


def squared_errors(values: jax.Array, target: jax.Array) -> jax.Array:
    """Squared errors `[b]` of critics' `values [C, b]`, summed over the critics."""
    return jnp.sum(jnp.square(values - target[None]), axis=0)


def soft_update(target: jax.Array, params: jax.Array, tau: float) -> jax.Array:
    """Polyak average of two pytrees: `tau` of the new."""
    return jax.tree.map(lambda old, new: old + tau * (new - old), target, params)
