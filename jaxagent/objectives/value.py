"""Value objectives: arrays in, losses and targets out."""

from typing import Any

import jax
import jax.numpy as jnp


def td_target(
    reward: jax.Array, terminated: jax.Array, next_value: jax.Array, *, discount: float
) -> jax.Array:
    """One-step target `[...]` of arguments `[...]`: a termination ends the return, a truncation does not."""
    return reward + discount * jnp.where(terminated, 0.0, next_value)


def expectile_loss(error: jax.Array, expectile: float) -> jax.Array:
    """`|expectile - 1(error < 0)| error^2` `[...]` of `error [...]` (Kostrikov et al. 2022, eq. 4)."""
    weight = jnp.where(error < 0.0, 1.0 - expectile, expectile)
    return weight * jnp.square(error)


def squared_errors(values: jax.Array, target: jax.Array) -> jax.Array:
    """Squared errors `[b]` of critics' `values [C, b]` to `target [b]`, summed over the critics."""
    return jnp.sum(jnp.square(values - target[None]), axis=0)


def soft_update(target: Any, params: Any, tau: float) -> Any:
    """Polyak average of two pytrees of parameters alike: `tau` of the new, `params`."""
    return jax.tree.map(lambda old, new: old + tau * (new - old), target, params)


EPSILON = 1e-3  # of `squash`: keeps its inverse Lipschitz


def squash(x: jax.Array) -> jax.Array:
    """`sign(x) (sqrt(|x| + 1) - 1) + 0.001 x` of `x [...]` (Pohlen et al. 2018, prop. A.2)."""
    return jnp.sign(x) * (jnp.sqrt(jnp.abs(x) + 1.0) - 1.0) + EPSILON * x


def unsquash(y: jax.Array) -> jax.Array:
    """The inverse `[...]` of `squash`, of `y [...]` (ibid.).

    With `u = sqrt(|x| + 1) - 1`: `|y| = u + 0.001 u (u + 2)`, whose root is taken as a quotient;
    the difference of the textbook formula loses half of its digits in float32.
    """
    size, slope = jnp.abs(y), 1.0 + 2.0 * EPSILON
    root = 2.0 * size / (slope + jnp.sqrt(slope**2 + 4.0 * EPSILON * size))
    return jnp.sign(y) * root * (root + 2.0)
