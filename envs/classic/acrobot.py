"""Acrobot-v1 (Sutton 1996), the "book" dynamics of gymnasium's acrobot.py."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs import pictures
from envs.trigonometry import sincos, wrap_angle
from envs.types import Component
from envs.words import WordEnvironment, uniform

GRAVITY = 9.8  # m / s^2


class AcrobotParams(NamedTuple):
    """The task."""

    torque: float = 1.0  # N m of the outer actions
    dt: float = 0.2  # s per env step
    link_length_1: float = 1.0  # m
    link_length_2: float = 1.0  # m, for the picture only, as in gymnasium
    link_mass_1: float = 1.0  # kg
    link_mass_2: float = 1.0  # kg
    link_com_pos_1: float = 0.5  # m
    link_com_pos_2: float = 0.5  # m
    link_moi: float = 1.0  # kg m^2, of both links
    max_vel_1: float = 4 * math.pi  # rad / s
    max_vel_2: float = 9 * math.pi  # rad / s
    torque_noise_max: float = 0.0  # N m
    max_steps: int = 500


class AcrobotState(NamedTuple):
    """State of one acrobot, fields `[]`; of B lanes, fields `[B]`."""

    joint_angle1: jax.Array  # rad, 0 hangs down
    joint_angle2: jax.Array  # rad, relative to the first link
    velocity_1: jax.Array  # rad / s
    velocity_2: jax.Array  # rad / s
    time: jax.Array  # int32, env steps


class Acrobot(WordEnvironment):
    """Swing the tip above the line: -1 a step, 0 for the step that reaches it."""

    defaults = AcrobotParams()
    painter = staticmethod(pictures.paint_acrobot)
    num_reset_words = 4
    num_step_words = 1
    obs_shape = (6,)
    action_spec = (Component("torque", "category", cardinality=3),)

    def specify(self, task):
        names = ("cos 1", "sin 1", "cos 2", "sin 2")
        self.obs_spec = (
            *(Component(name, "real", -1.0, 1.0) for name in names),
            Component("velocity 1", "real", -task.max_vel_1, task.max_vel_1),
            Component("velocity 2", "real", -task.max_vel_2, task.max_vel_2),
        )

    def first(self, words, params):
        del params
        values = (uniform(word, -0.1, 0.1) for word in words)
        return AcrobotState(*values, time=jnp.zeros_like(words[0], jnp.int32))

    def advance(self, words, state, action, params):
        noise = uniform(words[0], -params.torque_noise_max, params.torque_noise_max)
        torque = params.torque * (action - 1).astype(jnp.float32) + noise
        values = _runge_kutta(tuple(state[:4]), torque, params)
        after = AcrobotState(
            joint_angle1=wrap_angle(values[0]),
            joint_angle2=wrap_angle(values[1]),
            velocity_1=jnp.clip(values[2], -params.max_vel_1, params.max_vel_1),
            velocity_2=jnp.clip(values[3], -params.max_vel_2, params.max_vel_2),
            time=state.time,
        )
        _, cosine_1 = sincos(after.joint_angle1)
        _, cosine_12 = sincos(after.joint_angle1 + after.joint_angle2)
        terminated = -cosine_1 - cosine_12 > 1.0
        return after, jnp.where(terminated, 0.0, -1.0), terminated

    def observe(self, state, params):
        del params
        sine_1, cosine_1 = sincos(state.joint_angle1)
        sine_2, cosine_2 = sincos(state.joint_angle2)
        return jnp.stack([cosine_1, sine_1, cosine_2, sine_2, state.velocity_1, state.velocity_2])


Angles = tuple[jax.Array, ...]  # two angles, two velocities


def _runge_kutta(y: Angles, torque: jax.Array, params: AcrobotParams) -> Angles:
    """One step of the classical fourth-order scheme over `dt`."""

    def moved(k: Angles, dt: jax.Array) -> Angles:
        return tuple(a + dt * b for a, b in zip(y, k, strict=True))

    k1 = _derivative(y, torque, params)
    k2 = _derivative(moved(k1, params.dt / 2), torque, params)
    k3 = _derivative(moved(k2, params.dt / 2), torque, params)
    k4 = _derivative(moved(k3, params.dt), torque, params)
    slopes = (a + 2.0 * b + 2.0 * c + d for a, b, c, d in zip(k1, k2, k3, k4, strict=True))
    return moved(tuple(slopes), params.dt / 6)


def _derivative(y: Angles, torque: jax.Array, params: AcrobotParams) -> Angles:
    """Equations of motion (Sutton and Barto 2018, section 11.3, with their book's d2 term)."""
    theta1, theta2, dtheta1, dtheta2 = y
    m1, m2, inertia = params.link_mass_1, params.link_mass_2, params.link_moi
    l1, lc1, lc2 = params.link_length_1, params.link_com_pos_1, params.link_com_pos_2
    sine_1, _ = sincos(theta1)
    sine_2, cosine_2 = sincos(theta2)
    sine_12, _ = sincos(theta1 + theta2)
    d1 = m1 * lc1**2 + m2 * (l1**2 + lc2**2 + 2 * l1 * lc2 * cosine_2) + 2 * inertia
    d2 = m2 * (lc2**2 + l1 * lc2 * cosine_2) + inertia
    phi2 = m2 * lc2 * GRAVITY * sine_12
    phi1 = (
        -m2 * l1 * lc2 * dtheta2**2 * sine_2
        - 2 * m2 * l1 * lc2 * dtheta2 * dtheta1 * sine_2
        + (m1 * lc1 + m2 * l1) * GRAVITY * sine_1
        + phi2
    )
    ddtheta2 = (torque + d2 / d1 * phi1 - m2 * l1 * lc2 * dtheta1**2 * sine_2 - phi2) / (
        m2 * lc2**2 + inertia - d2**2 / d1
    )
    ddtheta1 = -(d2 * ddtheta2 + phi1) / d1
    return dtheta1, dtheta2, ddtheta1, ddtheta2
