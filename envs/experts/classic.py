"""Classic control: linear feedback, or energy pumped in; gymnax's and our states share fields."""

from typing import Any

import jax
import jax.numpy as jnp

from envs.trigonometry import wrap_angle


def cartpole(state: Any, params: Any) -> jax.Array:
    """Linear feedback on pole and cart, thrown to the nearer push: int32 `[]`."""
    del params
    pull = 0.1 * state.x + 0.5 * state.x_dot + 4.0 * state.theta + 1.0 * state.theta_dot
    return (pull > 0).astype(jnp.int32)


def acrobot(state: Any, params: Any) -> jax.Array:
    """Pump energy: push the second joint against the first link's swing, int32 `[]`."""
    del params
    return jnp.where(state.velocity_1 > 0, 0, 2).astype(jnp.int32)


def pendulum(state: Any, params: Any) -> jax.Array:
    """Torque `[1]`, N m: pump energy until it suffices for the top, then hold by feedback (Astrom 2000)."""
    theta, speed = wrap_angle(state.theta), state.theta_dot
    inertia = params.m * params.l**2 / 3.0
    energy = 0.5 * inertia * speed**2 + 0.5 * params.m * params.g * params.l * (jnp.cos(theta) - 1)
    pump = -params.max_torque * jnp.sign(energy) * jnp.where(speed >= 0, 1.0, -1.0)
    hold = -12.0 * theta - 3.0 * speed
    near = jnp.abs(theta) < 0.6
    torque = jnp.where(near, hold, pump)
    return jnp.clip(torque, -params.max_torque, params.max_torque)[None]


def mountain_car(state: Any, params: Any) -> jax.Array:
    """Push the way the car rolls: int32 `[]`."""
    del params
    return jnp.where(state.velocity >= 0, 2, 0).astype(jnp.int32)


def mountain_car_continuous(state: Any, params: Any) -> jax.Array:
    """Push the way the car rolls, with all there is: float32 `[1]`."""
    return jnp.where(state.velocity >= 0, params.max_action, params.min_action)[None]
