"""Rollouts: a policy in batched environments under one `scan`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxagent.types import Trajectory, see_obs


class ActorState(NamedTuple):
    """The state of B acting lanes between two steps."""

    env: Any  # a vector environment's state; `.obs [B, ...]` is what the agent sees
    carry: Any  # the policy's memory
    is_first: jax.Array  # [B] bool: the lane was just reset


def rollout(
    vector: Any, act: Callable, key: jax.Array, actor: ActorState, num_steps: int, see: Callable = see_obs
) -> tuple[ActorState, Trajectory]:
    """Act for `num_steps` in every lane: the new actor state and a `[T, B, ...]` trajectory.

    `act(carry, obs, is_first, key) -> action, extras, carry`, `vector.step(key, env, action)` as in
    `envs.vector`. The lanes go on where they stood: a rollout may begin and end inside an episode.
    `see` is what `act` is given as `obs`: `types.see_obs` or `types.View`.
    """

    def step(actor: ActorState, t: jax.Array) -> tuple[ActorState, Trajectory]:
        key_act, key_env = jax.random.split(jax.random.fold_in(key, t))
        obs = actor.env.obs
        seen = see(obs, actor.env.env, actor.env.params)
        action, extras, carry = act(actor.carry, seen, actor.is_first, key_act)
        env, out = vector.step(key_env, actor.env, action)
        record = Trajectory(
            obs=obs,
            action=action,
            reward=out.reward,
            terminated=out.terminated,
            truncated=out.truncated,
            final_obs=out.final_obs,
            extras=extras,
            valid=out.valid,
        )
        is_first = out.terminated | out.truncated
        if not isinstance(out.valid, tuple):
            is_first = is_first | ~out.valid
        return ActorState(env, carry, is_first), record

    return jax.lax.scan(step, actor, jnp.arange(num_steps))
