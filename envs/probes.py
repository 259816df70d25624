"""Probe MDPs: environments so small that a wrong learner fails them in seconds and for one reason.

The five of Andy Jones, "Debugging RL, without the agonizing pain" (2021), in the order in which
they should be tried, a time-limit trap that only correct handling of truncation escapes, actions of
several components, and actions that are not always legal.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs import pictures
from envs.common.names import check_name
from envs.types import Component, Environment, clip_category


class ProbeParams(NamedTuple):
    """The task of a probe."""

    max_steps: jax.Array  # [] int32: the time limit, in env steps
    cash: jax.Array  # [] float32: reward for leaving the trap


class ProbeState(NamedTuple):
    """State of a probe."""

    time: jax.Array  # [] int32, env steps
    signal: jax.Array  # [] float32: what the agent may observe


class Probe(Environment):
    """Shared frame: `_first_signal`, `_outcome` say what a probe shows and pays."""

    obs_shape = (1,)
    length = 1  # env steps until the episode terminates by itself; 0: never
    num_actions = 1
    is_signal_random = False
    is_step_random = False

    def __init__(self):
        self.name = f"probe/{type(self).__name__}"
        self.obs_spec = (Component("signal", "real", -1.0, 1.0),)
        self.action_spec = (Component("action", "category", cardinality=self.num_actions),)
        self.max_steps = int(self.default_params.max_steps)

    @property
    def default_params(self) -> ProbeParams:
        return ProbeParams(max_steps=jnp.array(10, jnp.int32), cash=jnp.array(10.0, jnp.float32))

    def reset(self, key, params):
        del params
        state = ProbeState(time=jnp.zeros((), jnp.int32), signal=self._draw(key))
        return self._observe(state), state

    def step(self, key, state, action, params):
        del key
        action = clip_category(self.action_spec, action)
        reward, leaves = self._outcome(state, action, params)
        state = state._replace(time=state.time + 1)
        terminated = leaves | (state.time == self.length)
        truncated = state.time >= params.max_steps
        return self._observe(state), state, reward, terminated, truncated, {}

    def render(self, state, params):
        del params
        return pictures.paint_observation(jax.device_get(self._observe(state)))

    def _draw(self, key: jax.Array) -> jax.Array:
        """The signal of an episode, float32 `[]`."""
        if not self.is_signal_random:
            return jnp.zeros((), jnp.float32)
        return jnp.where(jax.random.bernoulli(key), 1.0, -1.0).astype(jnp.float32)

    def _observe(self, state: ProbeState) -> jax.Array:
        return state.signal[None]

    def _outcome(self, state: ProbeState, action: jax.Array, params: ProbeParams):
        """Reward float32 `[]` and whether the action ends the episode, bool `[]`."""
        del state, action, params
        return jnp.ones((), jnp.float32), jnp.array(False)


class ConstantReward(Probe):
    """One action, a zero observation, reward 1: the value is 1, or the value loss is wrong."""


class ObservedReward(Probe):
    """Reward equals the random observation: the value must depend on the observation."""

    is_signal_random = True

    def _outcome(self, state, action, params):
        return state.signal, jnp.array(False)


class DelayedReward(Probe):
    """Two steps, reward at the end: the first value must be the discount."""

    length = 2

    def _observe(self, state):
        return jnp.minimum(state.time, 1).astype(jnp.float32)[None]

    def _outcome(self, state, action, params):
        return (state.time == 1).astype(jnp.float32), jnp.array(False)


class ActionReward(Probe):
    """Two actions, reward +1 or -1: the policy must improve."""

    num_actions = 2

    def _outcome(self, state, action, params):
        return jnp.where(action == 1, 1.0, -1.0).astype(jnp.float32), jnp.array(False)


class ObservedActionReward(Probe):
    """Reward +1 if the action matches the random observation: policy and value together."""

    num_actions = 2
    is_signal_random = True

    def _outcome(self, state, action, params):
        wanted = (state.signal > 0).astype(jnp.int32)
        return jnp.where(action == wanted, 1.0, -1.0).astype(jnp.float32), jnp.array(False)


class TimeLimitTrap(Probe):
    """Stay for 1 a step, or cash 10 and end; a time limit of 2 steps truncates, unseen.

    With discount 0.95 staying is worth 20, more than the cash. A learner that takes the time limit
    for a termination believes that staying twice is worth less than 2 and cashes; only
    bootstrapping through truncation stays. (At a limit of 10 the wrong learner would stay with
    probability 0.75: one more stay before the cash pays 1 + 0.95 * 10.)
    """

    length = 0
    num_actions = 2

    @property
    def default_params(self) -> ProbeParams:
        return super().default_params._replace(max_steps=jnp.array(2, jnp.int32))

    def _outcome(self, state, action, params):
        cashes = action == 1
        return jnp.where(cashes, params.cash, 1.0), cashes


class TwoCategories(Probe):
    """One of six symbols; two categories of three and two spell it, half of the reward each."""

    @classmethod
    def spell(cls, symbol: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The two right categories, int32 `[]`."""
        symbol = symbol.astype(jnp.int32)
        return symbol % 3, symbol // 3

    def __init__(self):
        super().__init__()
        self.obs_spec = (Component("symbol", "category", cardinality=6),)
        self.action_spec = (
            Component("first", "category", cardinality=3),
            Component("second", "category", cardinality=2),
        )

    def _draw(self, key):
        return jax.random.randint(key, (), 0, 6).astype(jnp.float32)

    def _outcome(self, state, action, params):
        del params
        first, second = self.spell(state.signal)
        right = (action[0] == first).astype(jnp.float32) + (action[1] == second).astype(jnp.float32)
        return right / 2.0, jnp.array(False)


class CategoryAndReal(TwoCategories):
    """The same symbols; a category says the first part, a real in [-1, 1] points to the second.

    The best return is 1: the real is worth 1 - |real - (-0.5 or 0.5)|.
    """

    def __init__(self):
        super().__init__()
        self.action_spec = (Component("pointer", "real", -1.0, 1.0), self.action_spec[0])

    def _outcome(self, state, action, params):
        del params
        first, second = self.spell(state.signal)
        right = (action[1].astype(jnp.int32) == first).astype(jnp.float32)
        distance = jnp.abs(action[0] - (second.astype(jnp.float32) - 0.5))
        return (right + 1.0 - distance) / 2.0, jnp.array(False)


class LegalActions(Probe):
    """Four actions, of which the signal says the legal two; illegal ones cost 10, the second pays 1."""

    num_actions = 4
    is_signal_random = True
    has_legal_actions = True

    def legal_actions(self, state, params):
        del params
        return (jnp.arange(4) < 2) == (state.signal < 0)

    def _outcome(self, state, action, params):
        is_legal = self.legal_actions(state, params)[action]
        pays = (action % 2 == 1).astype(jnp.float32)
        return jnp.where(is_legal, pays, -10.0), jnp.array(False)


PROBES = {
    p.__name__: p
    for p in (
        ConstantReward,
        ObservedReward,
        DelayedReward,
        ActionReward,
        ObservedActionReward,
        TimeLimitTrap,
        TwoCategories,
        CategoryAndReal,
        LegalActions,
    )
}


def make(name: str, **overrides: float) -> tuple[Probe, ProbeParams]:
    """Build a probe; `overrides` are fields of `ProbeParams`."""
    env = PROBES[name]()
    params = env.default_params
    for field, value in overrides.items():
        check_name(f"parameter of probe/{name}", field, ProbeParams._fields)
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        if not math.isfinite(value) or (field == "max_steps" and not whole):
            expected = "a whole number >= 1" if field == "max_steps" else "a finite number"
            raise ValueError(f"probe/{name}.{field}: got {value}, expected {expected}.")
        dtype = getattr(params, field).dtype
        params = params._replace(**{field: jnp.asarray(value, dtype)})
    env.max_steps = int(params.max_steps)
    return env, params
