"""A world of episodes of several lengths, for who must replay segments with resets inside them."""

import jax
import jax.numpy as jnp

from envs.types import Component, Environment


class Lengths(Environment):
    """Episodes of 1, 2 or 5 steps, those of 2 cut by the clock; each step shows one of three symbols."""

    name, max_steps, obs_shape = "test/Lengths", 5, (2,)
    obs_spec = (Component("noise", "real"), Component("symbol", "category", cardinality=3))
    action_spec = (Component("move", "category", cardinality=3), Component("force", "real", -1.0, 1.0))

    @property
    def default_params(self):
        return jnp.zeros(())

    def _observe(self, key):
        key_noise, key_symbol = jax.random.split(key)
        symbol = jax.random.randint(key_symbol, (), 0, 3).astype(jnp.float32)
        return jnp.stack([jax.random.normal(key_noise), symbol])

    def _reward(self, action):
        return action[1] + action[0]

    def reset(self, key, params):
        key_obs, key_length = jax.random.split(key)
        length = jnp.array([1, 2, 5], jnp.int32)[jax.random.randint(key_length, (), 0, 3)]
        return self._observe(key_obs), (jnp.zeros((), jnp.int32), length)

    def step(self, key, state, action, params):
        time, length = state[0] + 1, state[1]
        over = time >= length
        reward = self._reward(action)
        return self._observe(key), (time, length), reward, over & (length != 2), over & (length == 2), {}

    def render(self, state, params):
        raise NotImplementedError
