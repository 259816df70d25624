"""A model of observations: what a step changes, pays and ends, and what a state is worth.

Learned from stored steps of any behaviour; search steps with it where the true environment is not
at hand (`planning.sample_planner`).
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs.types import Component, is_one_category
from jaxagent.agents.actions import require_reals
from jaxagent.data import normalize
from jaxagent.data.normalize import Moments
from jaxagent.nn.mlp import MLP
from jaxagent.objectives.value import td_target
from jaxagent.types import Trajectory, View


class ModelStep(NamedTuple):
    """Env steps that the model learns from."""

    obs: jax.Array  # [b, n]
    action: jax.Array  # [b] int32 or [b, A], as the environment took it
    reward: jax.Array  # [b]
    terminated: jax.Array  # [b] bool
    final_obs: jax.Array  # [b, n] after the step


def stored_steps(trajectories: Sequence[Trajectory]) -> ModelStep:
    """All steps `[N, ...]` of trajectories `[T, B, ...]`."""
    parts = [ModelStep(*(getattr(t, field) for field in ModelStep._fields)) for t in trajectories]
    return jax.tree.map(lambda *x: jnp.concatenate([a.reshape(-1, *a.shape[2:]) for a in x]), *parts)


class WorldModelParams(NamedTuple):
    """Parameters of the two networks."""

    dynamics: Any
    value: Any


class WorldModel(NamedTuple):
    """Networks over standardised observations; units are constants fitted to the data."""

    action_spec: tuple[Component, ...]
    moments: Moments  # of observations
    spread: jax.Array  # [n] standard deviation of one step's change
    reward_scale: float  # largest reward, in absolute value
    discount: float  # per env step
    hidden_size: int

    def init(self, key: jax.Array) -> WorldModelParams:
        """First parameters of both networks."""
        key_dynamics, key_value = jax.random.split(key)
        obs = jnp.zeros((1, self.obs_size))
        inputs = jnp.zeros((1, self.obs_size + self.action_size))
        return WorldModelParams(self._dynamics.init(key_dynamics, inputs), self._value.init(key_value, obs))

    def step(
        self, params: WorldModelParams, key: jax.Array, action: jax.Array, view: View
    ) -> tuple[jax.Array, jax.Array, View]:
        """Reward `[B]`, discount `[B]` and next view after `action`: the mean of what may happen.

        The discount is multiplied by the probability that the episode goes on.
        """
        del key
        change, reward, end = self._predict(params, view.obs, action)
        obs = view.obs + self.spread[None] * change
        goes_on = jax.nn.sigmoid(-end)
        return self.reward_scale * reward, self.discount * goes_on, view._replace(obs=obs)

    def value(self, params: WorldModelParams, obs: jax.Array) -> jax.Array:
        """Discounted return `[B]` from `obs [B, n]` of what was done in the data."""
        return self.value_unit * self._worth(params, obs)

    def loss(
        self, params: WorldModelParams, steps: ModelStep, data: Any, slow: Any
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Squared errors of change and reward, cross-entropy of ends, TD(0) of values, summed `[]`.

        For `loops.supervised`: the value bootstraps from the slow copy, `slow.params`.
        """
        del data
        change, reward, end = self._predict(params, steps.obs, steps.action)
        true_change = (steps.final_obs - steps.obs) / self.spread[None]
        next_value = self.value_unit * self._worth(slow.params, steps.final_obs)
        target = td_target(steps.reward, steps.terminated, next_value, discount=self.discount)
        error = self._worth(params, steps.obs) - target / self.value_unit
        ended = steps.terminated.astype(jnp.float32)
        losses = {
            "change": jnp.mean(jnp.square(change - true_change)),
            "reward": jnp.mean(jnp.square(reward - steps.reward / self.reward_scale)),
            "end": jnp.mean(jax.nn.softplus(end) - ended * end),
            "value": jnp.mean(jnp.square(error)),
        }
        named = {f"train/loss/{name}": loss for name, loss in losses.items()}
        return sum(losses.values()), named

    @property
    def obs_size(self) -> int:
        """Components n of an observation."""
        return self.spread.shape[0]

    @property
    def action_size(self) -> int:
        """Numbers by which the networks read an action: a category is one-hot."""
        is_category = self.action_spec[0].kind == "category"
        return self.action_spec[0].cardinality if is_category else len(self.action_spec)

    @property
    def _dynamics(self) -> MLP:
        return MLP((self.hidden_size, self.hidden_size, self.obs_size + 2), jax.nn.relu)

    @property
    def _value(self) -> MLP:
        return MLP((self.hidden_size, self.hidden_size, 1), jax.nn.relu)

    @property
    def value_unit(self) -> float:
        """Largest possible value."""
        return self.reward_scale / max(1.0 - self.discount, 1e-3)

    def _worth(self, params: WorldModelParams, obs: jax.Array) -> jax.Array:
        seen = normalize.apply(self.moments, obs)
        return self._value.apply(params.value, seen)[..., 0]

    def _predict(
        self, params: WorldModelParams, obs: jax.Array, action: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Change in spreads `[b, n]`, reward in scales and the logit of an end `[b]`."""
        if self.action_spec[0].kind == "category":
            told = jax.nn.one_hot(action, self.action_size)
        else:
            told = action / jnp.array([_half_range(c) for c in self.action_spec])[None]
        seen = jnp.concatenate([normalize.apply(self.moments, obs), told], axis=-1)
        out = self._dynamics.apply(params.dynamics, seen)
        return out[..., :-2], out[..., -2], out[..., -1]


def world_model(
    steps: ModelStep, action_spec: tuple[Component, ...], *, discount: float, hidden_size: int
) -> WorldModel:
    """A model in the units of stored steps `[N, ...]`.

    Raises ValueError for data whose rewards are all 0, and for actions that are neither reals nor one
    category.
    """
    if not is_one_category(action_spec):
        require_reals("world_model", action_spec)
    scale = float(jnp.max(jnp.abs(steps.reward)))
    if scale == 0.0:
        raise ValueError(
            "world_model: got steps whose rewards are all 0, expected some reward; values would have no unit."
        )
    change = steps.final_obs - steps.obs
    spread = jnp.maximum(jnp.std(change, axis=0), 1e-6)
    return WorldModel(action_spec, normalize.moments_of(steps.obs), spread, scale, discount, hidden_size)


def _half_range(component: Component) -> float:
    half = 0.5 * (component.high - component.low)
    return half if math.isfinite(half) else 1.0
