"""Probe MDPs as lanes of one program, which compiles once."""

import jax
import jax.numpy as jnp

import envs
from envs.types import Component, Environment

FIVE = ("ConstantReward", "ObservedReward", "DelayedReward", "ActionReward", "ObservedActionReward")


def choose(index, outcomes):
    """The outcome of one probe among those of all."""
    return jax.tree.map(lambda *x: jnp.stack(x)[index], *outcomes)


class AnyProbe(Environment):
    """Probes in one program: the task says which; a lone action may be called 1 too."""

    obs_shape = (1,)
    obs_spec = (Component("signal", "real", -1.0, 2.0),)
    action_spec = (Component("action", "category", cardinality=2),)
    name, max_steps = "test/AnyProbe", 10

    def __init__(self, names, **overrides):
        """`overrides` maps names to parameters of the probe."""
        self.probes = [envs.make(f"probe/{n}", **overrides.get(n, {})) for n in names]

    @property
    def default_params(self):
        return jnp.array(0, jnp.int32)

    def reset(self, key, params):
        return choose(params, [env.reset(jax.random.clone(key), task) for env, task in self.probes])

    def step(self, key, state, action, params):
        key = jax.random.clone(key)  # no probe draws from it
        return choose(params, [env.step(key, state, action, task) for env, task in self.probes])

    def render(self, state, params):
        raise NotImplementedError
