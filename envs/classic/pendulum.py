"""Pendulum-v1, as in gymnasium's pendulum.py."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs import pictures
from envs.trigonometry import sincos, wrap_angle
from envs.types import Component
from envs.words import WordEnvironment, uniform


class PendulumParams(NamedTuple):
    """The task."""

    max_speed: float = 8.0  # rad / s
    max_torque: float = 2.0  # N m
    dt: float = 0.05  # s per env step
    g: float = 10.0  # m / s^2
    m: float = 1.0  # kg
    l: float = 1.0  # m
    max_steps: int = 200


class PendulumState(NamedTuple):
    """State of one pendulum, fields `[]`; of B lanes, fields `[B]`."""

    theta: jax.Array  # rad, 0 is upright; not wrapped
    theta_dot: jax.Array  # rad / s
    last_u: jax.Array  # N m, for the picture only
    time: jax.Array  # int32, env steps


class Pendulum(WordEnvironment):
    """Swing up and hold: minus the squared angle, speed and torque; it never terminates."""

    defaults = PendulumParams()
    painter = staticmethod(pictures.paint_pendulum)
    is_step_random = False
    num_reset_words = 2
    obs_shape = (3,)

    def specify(self, task):
        self.action_spec = (Component("torque", "real", -task.max_torque, task.max_torque),)
        self.obs_spec = (
            Component("cos", "real", -1.0, 1.0),
            Component("sin", "real", -1.0, 1.0),
            Component("theta_dot", "real", -task.max_speed, task.max_speed),
        )

    def first(self, words, params):
        del params
        return PendulumState(
            theta=uniform(words[0], -math.pi, math.pi),
            theta_dot=uniform(words[1], -1.0, 1.0),
            last_u=jnp.zeros_like(words[0], jnp.float32),
            time=jnp.zeros_like(words[0], jnp.int32),
        )

    def advance(self, words, state, action, params):
        del words
        torque = jnp.clip(action[..., 0], -params.max_torque, params.max_torque)
        cost = wrap_angle(state.theta) ** 2 + 0.1 * state.theta_dot**2 + 0.001 * torque**2
        sine, _ = sincos(state.theta)
        acceleration = 1.5 * params.g / params.l * sine + 3.0 / (params.m * params.l**2) * torque
        theta_dot = state.theta_dot + acceleration * params.dt
        theta_dot = jnp.clip(theta_dot, -params.max_speed, params.max_speed)
        after = state._replace(theta=state.theta + theta_dot * params.dt, theta_dot=theta_dot, last_u=torque)
        return after, -cost, jnp.zeros_like(cost, bool)

    def observe(self, state, params):
        del params
        sine, cosine = sincos(state.theta)
        return jnp.stack([cosine, sine, state.theta_dot])
