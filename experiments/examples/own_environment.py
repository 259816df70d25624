# %% [markdown]
# # An environment of your own
#
# Four small functions and two specs. State and task are NamedTuples of arrays; `reset` and `step` are pure, so
# that whole rollouts are compiled. Termination (the task ended) and truncation (the clock ran out) are never
# merged.

# %%
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxagent
from envs.types import Component, Environment


class Line(NamedTuple):
    """Where the walker is, and how long it has been going."""

    place: jax.Array
    time: jax.Array


class Task(NamedTuple):
    """How far it is, and how long there is."""

    length: float = 6.0
    max_steps: int = 20


class Corridor(Environment):
    """A walk to the end of a corridor, a step to either side at a time."""

    name = "mine/Corridor"
    obs_spec = (Component("place", "real", 0.0, 1.0),)
    obs_shape = (1,)
    action_spec = (Component("step", "category", cardinality=2),)
    max_steps = 20

    @property
    def default_params(self):
        return Task(jnp.float32(6.0), jnp.int32(20))

    def reset(self, key, params):
        state = Line(jnp.zeros(()), jnp.zeros((), jnp.int32))
        return self.observe(state, params), state

    def step(self, key, state, action, params):
        place = jnp.clip(state.place + jnp.where(action == 1, 1.0, -1.0), 0.0, params.length)
        state = Line(place, state.time + 1)
        terminated = place >= params.length
        truncated = ~terminated & (state.time >= params.max_steps)
        reward = terminated.astype(jnp.float32) - 0.01
        return self.observe(state, params), state, reward, terminated, truncated, {}

    def observe(self, state, params):
        return (state.place / params.length)[None]

    def render(self, state, params):
        picture = np.full((20, 140, 3), 255, np.uint8)
        left = int(state.place / params.length * 120)
        picture[4:16, left : left + 16] = (200, 60, 40)
        return picture


# %% [markdown]
# The object goes straight into `learn`. Under a name of its own (`envs.register("mine/Corridor", Corridor)`) its
# runs can be resumed and opened later; from a file of yours it is `my_module:Corridor` on the command line.

# %%
result = jaxagent.learn("ppo", Corridor(), seeds=2, num_updates=40, updates_per_chunk=10)
print(result)
print("the best possible is", 1 - 0.01 * 6)

# %% [markdown]
# Its numbers are a task, which may be changed: here the corridor has ten steps.

# %%
far = jaxagent.learn(
    "ppo", Corridor(), seeds=2, change={"length": 10.0}, num_updates=40, updates_per_chunk=10
)
print(far)
