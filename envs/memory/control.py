"""Control with a part of the state: positions without speeds, and angles through noise.

As in POPGym (Morad et al. 2023): position-only CartPole and noisy position-only Pendulum.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs import pictures
from envs.classic.cartpole import CartPole
from envs.classic.pendulum import Pendulum, PendulumParams, PendulumState
from envs.memory.hidden import HidingEnvironment
from envs.trigonometry import sincos
from envs.types import Component
from envs.words import uniform


class PositionCartPole(HidingEnvironment, CartPole):
    """CartPole that shows where cart and pole are and not how they move."""

    def specify(self, task):
        CartPole.specify(self, task)
        x, x_dot, theta, theta_dot = self.obs_spec
        self.shown_spec, self.hidden_spec = (x, theta), (x_dot, theta_dot)

    def shown(self, state, params):
        del params
        return state.x, state.theta

    def hidden(self, state, params):
        del params
        return state.x_dot, state.theta_dot


class NoisyPendulumParams(NamedTuple):
    """The task: the pendulum's, and the noise of its sensor."""

    noise: float = 0.1  # standard deviation, of cosine and sine each
    max_speed: float = PendulumParams().max_speed
    max_torque: float = PendulumParams().max_torque
    dt: float = PendulumParams().dt
    g: float = PendulumParams().g
    m: float = PendulumParams().m
    l: float = PendulumParams().l
    max_steps: int = PendulumParams().max_steps


class NoisyPendulumState(NamedTuple):
    """State of one pendulum, fields `[]`; of B lanes, fields `[B]`."""

    theta: jax.Array  # rad, 0 is upright; not wrapped
    theta_dot: jax.Array  # rad / s
    last_u: jax.Array  # N m, for the picture only
    noise_cos: jax.Array  # standard normal, of this step's reading
    noise_sin: jax.Array
    time: jax.Array  # int32, env steps


class NoisyPendulum(HidingEnvironment, Pendulum):
    """Pendulum that shows its angle through noise, and not its speed."""

    defaults = NoisyPendulumParams()
    painter = staticmethod(pictures.paint_pendulum)
    is_step_random = True
    num_reset_words = 4
    num_step_words = 2

    def specify(self, task):
        Pendulum.specify(self, task)
        cosine, sine, speed = self.obs_spec
        self.shown_spec = (Component("noisy cos", "real"), Component("noisy sin", "real"))
        self.hidden_spec = (cosine, sine, speed)

    def first(self, words, params):
        pendulum = Pendulum.first(self, words[:2], params)
        return _with_noise(pendulum, words[2:])

    def advance(self, words, state, action, params):
        pendulum = PendulumState(state.theta, state.theta_dot, state.last_u, state.time)
        after, reward, terminated = Pendulum.advance(self, (), pendulum, action, params)
        return _with_noise(after, words), reward, terminated

    def shown(self, state, params):
        sine, cosine = sincos(state.theta)
        return cosine + params.noise * state.noise_cos, sine + params.noise * state.noise_sin

    def hidden(self, state, params):
        del params
        sine, cosine = sincos(state.theta)
        return cosine, sine, state.theta_dot


def _with_noise(pendulum: PendulumState, words: tuple[jax.Array, ...]) -> NoisyPendulumState:
    """Two standard normals of two words (Box and Muller 1958) beside a pendulum's state."""
    radius = jnp.sqrt(-2.0 * jnp.log(1.0 - uniform(words[0], 0.0, 1.0)))
    angle = uniform(words[1], 0.0, 2.0 * math.pi)
    return NoisyPendulumState(
        theta=pendulum.theta,
        theta_dot=pendulum.theta_dot,
        last_u=pendulum.last_u,
        noise_cos=radius * jnp.cos(angle),
        noise_sin=radius * jnp.sin(angle),
        time=pendulum.time,
    )
