"""Wrappers of episodes: when they end."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs.types import Environment, Params
from envs.wrappers.wrapper import Wrapper, wrap


def time_limit(env: Environment, params: Params, max_steps: int) -> tuple[Wrapper, Params]:
    """Truncate after `max_steps` env steps, or earlier where the environment does."""
    _check_steps("max_steps", max_steps, least=1)

    def after(key, own, time, action, step):
        del key, action
        time = time + 1
        return time, step._replace(truncated=step.truncated | (time >= own))

    own = jnp.asarray(max_steps, jnp.int32)
    limit = min(max_steps, env.max_steps)
    return wrap(env, params, own, "time limit", begin=_count, after=after, max_steps=limit)


class Uptime(NamedTuple):
    """A reset-free world's clock, and its count of ends."""

    time: jax.Array  # [] int32, env steps since the reset
    num_ends: jax.Array  # [] int32: how often the environment itself would have ended


def reset_free(env: Environment, params: Params, reset_every: int = 0) -> tuple[Wrapper, Params]:
    """Never end, whatever the environment says, but for a truncation every `reset_every` steps.

    The state goes on from where the environment would have ended; `state.own.num_ends` counts how
    often, and `info["ended"]` (bool) says when. 0: never truncate. For worlds that can be stepped
    past an end (RoboFuME, Yang et al. 2023: a reset every 1,000 steps).
    """
    _check_steps("reset_every", reset_every, least=0)

    def begin(key, own, obs):
        del key, own
        zero = jnp.zeros((), jnp.int32)
        return Uptime(zero, zero), obs

    def after(key, own, memory, action, step):
        del key, action
        ended = step.terminated | step.truncated
        memory = Uptime(memory.time + 1, memory.num_ends + jnp.where(ended, 1, 0))
        return memory, step._replace(
            terminated=jnp.zeros((), bool),
            truncated=(own > 0) & (memory.time >= own),
            info={**step.info, "ended": ended},
        )

    def invariants(state, params):
        # The inner clock may run past its limit here.
        inner = env.invariants(state.env, params.env)
        return {name: holds for name, holds in inner.items() if name != "in_time"}

    own = jnp.asarray(reset_every, jnp.int32)
    limit = reset_every or jnp.iinfo(jnp.int32).max
    return wrap(
        env, params, own, "reset-free", begin=begin, after=after, max_steps=int(limit), invariants=invariants
    )


def _check_steps(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}: got {value!r}, expected a whole number from {least} on.")


def _count(key, own, obs):
    """Remember the time of the episode."""
    del key, own
    return jnp.zeros((), jnp.int32), obs
