"""The T-maze: a sign at the start says which way to turn at the far end (Bakker 2002).

Differs: there is no way back, so a run of right actions ends after `length` + 1 steps, and rewards
are 1 and -1 where Bakker pays 4 and -0.1; walking into a wall costs 0.1, as there.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs import pictures
from envs.memory.hidden import HidingEnvironment
from envs.types import Component

FORWARD, LEFT, RIGHT = 0, 1, 2
START, CORRIDOR, JUNCTION = 0, 1, 2
BUMP = 0.1


class TMazeParams(NamedTuple):
    """The task."""

    length: int = 10  # env steps from the sign to the junction
    max_steps: int = 64


class TMazeState(NamedTuple):
    """State of one maze, fields `[]`; of B lanes, fields `[B]`."""

    position: jax.Array  # int32: steps from the start
    goal: jax.Array  # int32: LEFT or RIGHT
    turned: jax.Array  # int32: LEFT or RIGHT where the walk is over, for the picture only
    time: jax.Array  # int32, env steps


class TMaze(HidingEnvironment):
    """Walk, and turn as the sign at the start said; the best return is 1, a guess's 0."""

    defaults = TMazeParams()
    painter = staticmethod(pictures.paint_tmaze)
    is_step_random = False
    num_reset_words = 1
    action_spec = (Component("move", "category", cardinality=3),)
    shown_spec = (
        Component("place", "category", cardinality=3),
        Component("sign", "category", cardinality=3),  # 0: none here
    )
    hidden_spec = (Component("goal", "category", cardinality=3),)

    def first(self, words, params):
        del params
        zero = jnp.zeros_like(words[0], jnp.int32)
        goal = LEFT + (words[0] >> 31).astype(jnp.int32)
        return TMazeState(position=zero, goal=goal, turned=zero, time=zero)

    def advance(self, words, state, action, params):
        del words
        at_junction = state.position >= params.length
        turns = action != FORWARD
        ends = at_junction & turns
        reward = jnp.where(ends, jnp.where(action == state.goal, 1.0, -1.0), 0.0)
        reward = jnp.where(at_junction == turns, reward, -BUMP)
        position = state.position + (~at_junction & ~turns).astype(jnp.int32)
        return state._replace(position=position, turned=jnp.where(ends, action, 0)), reward, ends

    def shown(self, state, params):
        at_start, at_junction = state.position == 0, state.position >= params.length
        place = jnp.where(at_start, START, jnp.where(at_junction, JUNCTION, CORRIDOR))
        sign = jnp.where(at_start, state.goal, 0)
        return place.astype(jnp.float32), sign.astype(jnp.float32)

    def hidden(self, state, params):
        del params
        return (state.goal.astype(jnp.float32),)

    def invariants(self, state, params):
        inside = (state.position >= 0) & (state.position <= params.length)
        has_goal = (state.goal == LEFT) | (state.goal == RIGHT)
        return super().invariants(state, params) | {"inside": inside & has_goal}
