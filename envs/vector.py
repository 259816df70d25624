"""Batched stepping with true auto-reset: a finished lane starts anew from its own `reset` draw."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs.types import Environment, Transition


class VectorState(NamedTuple):
    """State of B lanes."""

    obs: jax.Array  # [B, ...] what the agent sees now
    env: Any  # leaves [B, ...]
    params: Any  # leaves [B, ...]: each lane carries its task


class VectorEnv(NamedTuple):
    """B lanes of one environment; every lane has its own task and its own keys."""

    env: Environment

    def reset(self, key: jax.Array, params: Any) -> VectorState:
        """Start every lane; `params` has leaves `[B, ...]`, see `broadcast_params`."""
        keys = jax.random.split(key, num_lanes(params))
        obs, env_state = jax.vmap(self.env.reset)(keys, params)
        return VectorState(obs=obs, env=env_state, params=params)

    def step(
        self, key: jax.Array, state: VectorState, action: jax.Array
    ) -> tuple[VectorState, Transition]:
        """Step every lane and reset finished ones; `final_obs` keeps what the reset replaced."""
        keys = jax.random.split(key, num_lanes(state.params))
        return jax.vmap(self._step_lane)(keys, state, action)

    def _step_lane(
        self, key: jax.Array, state: VectorState, action: jax.Array
    ) -> tuple[VectorState, Transition]:
        key_step, key_reset = jax.random.split(key)
        final_obs, env_state, reward, terminated, truncated, _ = self.env.step(
            key_step, state.env, action, state.params
        )
        first_obs, first_state = self.env.reset(key_reset, state.params)
        done = terminated | truncated
        obs = jnp.where(done, first_obs, final_obs)
        env_state = jax.tree.map(lambda a, b: jnp.where(done, a, b), first_state, env_state)
        transition = Transition(obs, reward, terminated, truncated, final_obs)
        return VectorState(obs=obs, env=env_state, params=state.params), transition


def num_lanes(params: Any) -> int:
    """Number of lanes of a batched params pytree."""
    return jax.tree.leaves(params)[0].shape[0]


def broadcast_params(params: Any, batch_size: int) -> Any:
    """Repeat one task for `batch_size` lanes: leaves `[...]` become `[B, ...]`."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (batch_size, *jnp.shape(x))), params)
