"""Scripted experts: controllers of the true state, for pictures and for tests of what is reachable.

`EXPERTS[env_id](state, params) -> action`, one lane each. gymnax's classic control has the same
fields as ours, so both families share them.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from envs.names import check_name
from envs.trigonometry import wrap_angle


def cartpole(state: Any, params: Any) -> jax.Array:
    """Linear feedback on pole and cart, thrown to the nearer push."""
    del params
    pull = 0.1 * state.x + 0.5 * state.x_dot + 4.0 * state.theta + 1.0 * state.theta_dot
    return (pull > 0).astype(jnp.int32)


def acrobot(state: Any, params: Any) -> jax.Array:
    """Pump energy: push the second joint against the first link's swing."""
    del params
    return jnp.where(state.velocity_1 > 0, 0, 2).astype(jnp.int32)


def pendulum(state: Any, params: Any) -> jax.Array:
    """Pump energy until it suffices for the top, then hold by linear feedback (Astrom 2000)."""
    theta, speed = wrap_angle(state.theta), state.theta_dot
    inertia = params.m * params.l**2 / 3.0
    energy = 0.5 * inertia * speed**2 + 0.5 * params.m * params.g * params.l * (jnp.cos(theta) - 1)
    pump = -params.max_torque * jnp.sign(energy) * jnp.where(speed >= 0, 1.0, -1.0)
    hold = -12.0 * theta - 3.0 * speed
    near = jnp.abs(theta) < 0.6
    torque = jnp.where(near, hold, pump)
    return jnp.clip(torque, -params.max_torque, params.max_torque)[None]


def mountain_car(state: Any, params: Any) -> jax.Array:
    """Push the way the car rolls."""
    del params
    return jnp.where(state.velocity >= 0, 2, 0).astype(jnp.int32)


def mountain_car_continuous(state: Any, params: Any) -> jax.Array:
    """Push the way the car rolls, with all there is."""
    return jnp.where(state.velocity >= 0, params.max_action, params.min_action)[None]


def breakout(state: Any, params: Any) -> jax.Array:
    """Stand where the ball will be, reflections from the walls included.

    The paddle may catch it at row 8 or at row 9, which turns it differently; changing between the
    two leaves the cycles that a deterministic game falls into.
    """
    del params
    falls = state.ball_dir >= 2
    goes_right = (state.ball_dir == 1) | (state.ball_dir == 2)
    row = 8 + state.time // 13 % 2
    distance = jnp.where(falls, row - state.ball_y, 0)
    target = _reflected(state.ball_x + jnp.where(goes_right, distance, -distance))
    return jnp.where(target < state.pos, 1, jnp.where(target > state.pos, 2, 0)).astype(jnp.int32)


def _reflected(x: jax.Array) -> jax.Array:
    """A column in 0..9 after flights beyond the walls, where the ball spends two steps."""
    folded = jnp.mod(x, 20)
    return jnp.where(folded > 9, 19 - folded, folded)


def freeway(state: Any, params: Any) -> jax.Array:
    """Go up, always: a collision costs less than waiting."""
    del params
    return jnp.ones_like(state.time)


EXPERTS: dict[str, Callable] = {
    "classic/CartPole-v1": cartpole,
    "classic/Acrobot-v1": acrobot,
    "classic/Pendulum-v1": pendulum,
    "classic/MountainCar-v0": mountain_car,
    "classic/MountainCarContinuous-v0": mountain_car_continuous,
    "gymnax/CartPole-v1": cartpole,
    "gymnax/Acrobot-v1": acrobot,
    "gymnax/Pendulum-v1": pendulum,
    "gymnax/MountainCar-v0": mountain_car,
    "gymnax/MountainCarContinuous-v0": mountain_car_continuous,
    "minatar/Breakout": breakout,
    "minatar/Freeway": freeway,
}


def expert(env_id: str) -> Callable:
    """The scripted expert of an environment; raises `UnknownName` where there is none."""
    return EXPERTS[check_name("environment with a scripted expert", env_id, EXPERTS)]
