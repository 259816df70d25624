"""Wrappers of episodes: when they end."""

import jax.numpy as jnp

from envs.types import Environment, Params
from envs.wrappers.wrapper import Wrapper, wrap


def time_limit(env: Environment, params: Params, max_steps: int) -> tuple[Wrapper, Params]:
    """Truncate after `max_steps` env steps, or earlier where the environment does."""
    if max_steps < 1:
        raise ValueError(f"max_steps: got {max_steps}, expected at least 1.")

    def after(key, own, time, action, step):
        del key, action
        time = time + 1
        return time, step._replace(truncated=step.truncated | (time >= own))

    own = jnp.asarray(max_steps, jnp.int32)
    limit = min(max_steps, env.max_steps)
    return wrap(env, params, own, "time limit", begin=_count, after=after, max_steps=limit)


def reset_free(env: Environment, params: Params, reset_every: int = 0) -> tuple[Wrapper, Params]:
    """Never end, whatever the environment says, but for a truncation every `reset_every` steps.

    The state goes on from where the environment would have ended; its own ends are counted in
    `info["ended"]` (bool). 0: never truncate. For worlds that can be stepped past an end
    (RoboFuME, Yang et al. 2023: a reset every 1,000 steps).
    """
    if reset_every < 0:
        raise ValueError(f"reset_every: got {reset_every}, expected 0 (never) or more.")

    def after(key, own, time, action, step):
        del key, action
        time = time + 1
        return time, step._replace(
            terminated=jnp.zeros((), bool),
            truncated=(own > 0) & (time >= own),
            info={**step.info, "ended": step.terminated | step.truncated},
        )

    own = jnp.asarray(reset_every, jnp.int32)
    limit = reset_every or jnp.iinfo(jnp.int32).max
    return wrap(env, params, own, "reset-free", begin=_count, after=after, max_steps=int(limit))


def _count(key, own, obs):
    """Remember the time of the episode."""
    del key, own
    return jnp.zeros((), jnp.int32), obs
