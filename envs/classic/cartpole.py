"""CartPole-v1 (Barto, Sutton and Anderson 1983), as in gymnasium's cartpole.py."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs import pictures
from envs.trigonometry import sincos
from envs.types import Component
from envs.words import WordEnvironment, uniform


class CartPoleParams(NamedTuple):
    """The task."""

    gravity: float = 9.8  # m / s^2
    masscart: float = 1.0  # kg
    masspole: float = 0.1  # kg
    length: float = 0.5  # m, half of the pole
    force_mag: float = 10.0  # N
    tau: float = 0.02  # s per env step
    theta_threshold_radians: float = 12 * 2 * math.pi / 360
    x_threshold: float = 2.4  # m
    max_steps: int = 500


class CartPoleState(NamedTuple):
    """State of one cart, fields `[]`; of B lanes, fields `[B]`."""

    x: jax.Array  # m
    x_dot: jax.Array  # m / s
    theta: jax.Array  # rad, 0 is upright
    theta_dot: jax.Array  # rad / s
    time: jax.Array  # int32, env steps


class CartPole(WordEnvironment):
    """Balance a pole: +1 a step, until it falls or the cart leaves the track."""

    defaults = CartPoleParams()
    painter = staticmethod(pictures.paint_cartpole)
    is_step_random = False
    num_reset_words = 4
    obs_shape = (4,)
    action_spec = (Component("push", "category", cardinality=2),)

    def specify(self, task):
        # Twice the thresholds, as gymnasium declares: the last observation lies outside of them.
        self.obs_spec = (
            Component("x", "real", -2 * task.x_threshold, 2 * task.x_threshold),
            Component("x_dot", "real"),
            Component("theta", "real", -2 * task.theta_threshold_radians, 2 * task.theta_threshold_radians),
            Component("theta_dot", "real"),
        )

    def first(self, words, params):
        del params
        values = (uniform(word, -0.05, 0.05) for word in words)
        return CartPoleState(*values, time=jnp.zeros_like(words[0], jnp.int32))

    def advance(self, words, state, action, params):
        del words
        total_mass = params.masscart + params.masspole
        pole = params.masspole * params.length
        force = jnp.where(action == 1, params.force_mag, -params.force_mag)
        sine, cosine = sincos(state.theta)
        temp = (force + pole * state.theta_dot**2 * sine) / total_mass
        theta_acc = (params.gravity * sine - cosine * temp) / (
            params.length * (4.0 / 3.0 - params.masspole * cosine**2 / total_mass)
        )
        x_acc = temp - pole * theta_acc * cosine / total_mass
        after = state._replace(
            x=state.x + params.tau * state.x_dot,
            x_dot=state.x_dot + params.tau * x_acc,
            theta=state.theta + params.tau * state.theta_dot,
            theta_dot=state.theta_dot + params.tau * theta_acc,
        )
        terminated = (jnp.abs(after.x) > params.x_threshold) | (
            jnp.abs(after.theta) > params.theta_threshold_radians
        )
        return after, jnp.ones_like(state.x), terminated

    def observe(self, state, params):
        del params
        return jnp.stack([state.x, state.x_dot, state.theta, state.theta_dot])
