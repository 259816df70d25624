"""MountainCar-v0 and MountainCarContinuous-v0 (Moore 1990), as in gymnasium."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs import pictures
from envs.trigonometry import sincos
from envs.types import Component
from envs.words import WordEnvironment, uniform


class MountainCarParams(NamedTuple):
    """The task with three actions."""

    min_position: float = -1.2
    max_position: float = 0.6
    max_speed: float = 0.07  # per env step
    goal_position: float = 0.5
    goal_velocity: float = 0.0
    force: float = 0.001
    gravity: float = 0.0025
    max_steps: int = 200


class ContinuousParams(NamedTuple):
    """The task with a continuous action."""

    min_action: float = -1.0
    max_action: float = 1.0
    min_position: float = -1.2
    max_position: float = 0.6
    max_speed: float = 0.07  # per env step
    goal_position: float = 0.45
    goal_velocity: float = 0.0
    power: float = 0.0015
    gravity: float = 0.0025
    max_steps: int = 999


class MountainCarState(NamedTuple):
    """State of one car, fields `[]`; of B lanes, fields `[B]`."""

    position: jax.Array  # along the track
    velocity: jax.Array  # along the track, per env step
    time: jax.Array  # int32, env steps


class _Valley(WordEnvironment):
    """The hill, the start and the observation, which both cars share."""

    painter = staticmethod(pictures.paint_mountain_car)
    is_step_random = False
    num_reset_words = 1
    obs_shape = (2,)

    @classmethod
    def contradiction(cls, task):
        if not task.min_position < -0.6 < -0.4 < task.goal_position <= task.max_position:
            return "min_position < [-0.6, -0.4] (the starts) < goal_position <= max_position"
        return super().contradiction(task)

    def specify(self, task):
        self.obs_spec = (
            Component("position", "real", task.min_position, task.max_position),
            Component("velocity", "real", -task.max_speed, task.max_speed),
        )

    def first(self, words, params):
        del params
        return MountainCarState(
            position=uniform(words[0], -0.6, -0.4),
            velocity=jnp.zeros_like(words[0], jnp.float32),
            time=jnp.zeros_like(words[0], jnp.int32),
        )

    def roll(self, state, push, params) -> tuple[MountainCarState, jax.Array]:
        """State after `push [...]` and slope act for one step, and whether the goal is reached `[...]`.

        The left wall stops the car.
        """
        _, slope = sincos(3.0 * state.position)
        velocity = state.velocity + push - slope * params.gravity
        velocity = jnp.clip(velocity, -params.max_speed, params.max_speed)
        position = state.position + velocity
        position = jnp.clip(position, params.min_position, params.max_position)
        is_stopped = (position == params.min_position) & (velocity < 0)
        velocity = jnp.where(is_stopped, 0.0, velocity)
        reached = (position >= params.goal_position) & (velocity >= params.goal_velocity)
        return state._replace(position=position, velocity=velocity), reached

    def observe(self, state, params):
        del params
        return jnp.stack([state.position, state.velocity])


class MountainCar(_Valley):
    """Build up speed to leave the valley: -1 a step."""

    defaults = MountainCarParams()
    action_spec = (Component("push", "category", cardinality=3),)

    def advance(self, words, state, action, params):
        del words
        push = (action - 1).astype(jnp.float32) * params.force
        after, reached = self.roll(state, push, params)
        return after, -jnp.ones_like(state.position), reached


class MountainCarContinuous(_Valley):
    """With a continuous push: minus a tenth of its square, +100 at the goal.

    Differs: gymnax 1.0.1 stops the car at the goal, not at the left wall; this is gymnasium's.
    """

    defaults = ContinuousParams()

    @classmethod
    def contradiction(cls, task):
        if task.min_action >= task.max_action:
            return "min_action < max_action"
        return super().contradiction(task)

    def specify(self, task):
        super().specify(task)
        self.action_spec = (Component("push", "real", task.min_action, task.max_action),)

    def advance(self, words, state, action, params):
        del words
        force = jnp.clip(action[..., 0], params.min_action, params.max_action)
        after, reached = self.roll(state, force * params.power, params)
        # The cost is that of the action as given, also outside its bounds (gymnasium).
        reward = jnp.where(reached, 100.0, 0.0) - 0.1 * action[..., 0] ** 2
        return after, reward, reached
