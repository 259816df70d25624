"""Evaluation: episodes to completion under fixed keys, one episode per lane."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxagent.types import Policy, see_obs


class Episodes(NamedTuple):
    """Whole episodes of one policy in B environments."""

    returns: jax.Array  # [B]; NaN of an episode that a bound cut off
    lengths: jax.Array  # [B] int32, env steps


def play(
    env: Any,
    policy: Policy,
    params: Any,
    tasks: Any,
    key: jax.Array,
    see: Callable = see_obs,
    *,
    max_steps: int | None = None,
    lane_ids: jax.Array | None = None,
    score: Callable[[jax.Array], jax.Array] = lambda reward: reward,
) -> Episodes:
    """Play one whole episode in each lane, `tasks` with leaves `[B, ...]`.

    First states and environment noise of episode i depend on the key and i alone, so arms that
    share a key meet the same ones; a policy that samples draws one batch from one key. The loop
    stops with the last episode: a time limit is the task's, and may be beyond `env.max_steps`, that of
    the default task. A bound `max_steps` is for what might not end: what it cuts has no return. `see`
    is what the policy is given as `obs`: `types.see_obs` or `types.View`. Lanes of equal
    `lane_ids [B]` (default: their index) begin alike; `score` makes rewards `[B, ...]` the numbers
    `[B]` that are added up.
    """
    batch_size = jax.tree.leaves(tasks)[0].shape[0]
    lanes_key, act_key = jax.random.split(key)
    ids = jnp.arange(batch_size) if lane_ids is None else lane_ids
    lane_keys = jax.vmap(jax.random.fold_in, (None, 0))(lanes_key, ids)
    split = jax.vmap(jax.random.split)(lane_keys)
    reset_keys, step_keys = split[:, 0], split[:, 1]
    obs, env_state = jax.vmap(env.reset)(reset_keys, tasks)

    def unfinished(state):
        goes_on = ~jnp.all(state["done"])
        return goes_on if max_steps is None else goes_on & (state["step"] < max_steps)

    def step(state):
        t = state["step"]
        key_act = jax.random.fold_in(act_key, t)
        env_keys = jax.vmap(jax.random.fold_in, (0, None))(step_keys, t)
        is_first = jnp.broadcast_to(t == 0, (batch_size,))
        seen = see(state["obs"], state["env"], tasks)
        action, _, carry = policy.act(params, state["carry"], seen, is_first, key_act)
        obs, env_state, reward, terminated, truncated, _ = jax.vmap(env.step)(
            env_keys, state["env"], action, tasks
        )
        alive = ~state["done"]
        return {
            "step": t + 1,
            "env": env_state,
            "obs": obs,
            "carry": carry,
            "done": state["done"] | terminated | truncated,
            "returns": state["returns"] + jnp.where(alive, score(reward), 0.0),
            "lengths": state["lengths"] + alive.astype(jnp.int32),
        }

    first = {
        "step": jnp.zeros((), jnp.int32),
        "env": env_state,
        "obs": obs,
        "carry": policy.init(batch_size),
        "done": jnp.zeros((batch_size,), bool),
        "returns": jnp.zeros((batch_size,)),
        "lengths": jnp.zeros((batch_size,), jnp.int32),
    }
    last = jax.lax.while_loop(unfinished, step, first)
    return Episodes(jnp.where(last["done"], last["returns"], jnp.nan), last["lengths"])


def play_lanes(
    env: Any,
    policy: Policy,
    params: Any,
    task: Any,
    lane_keys: jax.Array,
    num_episodes: int,
    see: Callable = see_obs,
    over: Callable = jax.lax.map,
) -> jax.Array:
    """Mean return `[N]` of N parameter lanes; lane i plays `num_episodes` under `lane_keys[i]`.

    Lanes run one after another in one program: a batched loop predicate would copy every cache at
    every step. For policies that carry nothing `over` can be `parallel.map_lanes`.
    """
    tasks = jax.tree.map(lambda x: jnp.broadcast_to(x, (num_episodes, *x.shape)), task)

    def one(lane: tuple[Any, jax.Array]) -> jax.Array:
        return jnp.mean(play(env, policy, lane[0], tasks, lane[1], see).returns)

    return over(one, (params, lane_keys))


class Recording(NamedTuple):
    """One episode to look at."""

    states: Any  # leaves [T, ...], before each step
    rewards: jax.Array  # [T], or [T, 2] of two players
    num_steps: jax.Array  # int32 []: how many of them are real
    extras: Any  # leaves [T, ...]: what the policy told beside its actions
    terminated: jax.Array  # bool []: its task ended
    truncated: jax.Array  # bool []: its clock ran out; neither: `record` stopped before


def record(
    env: Any, policy: Policy, params: Any, task: Any, key: jax.Array, num_steps: int, see: Callable = see_obs
) -> Recording:
    """One episode of at most `num_steps` (T) steps."""
    key_reset, key_run = jax.random.split(key)
    obs, first_state = env.reset(key_reset, task)

    def step(state, t):
        env_state, obs, carry, is_over = state
        key_act, key_env = jax.random.split(jax.random.fold_in(key_run, t))
        is_first = (t == 0)[None]
        seen = see(*jax.tree.map(lambda x: jnp.asarray(x)[None], (obs, env_state, task)))
        action, extras, carry = policy.act(params, carry, seen, is_first, key_act)
        obs, env_state, reward, terminated, truncated, _ = env.step(key_env, env_state, action[0], task)
        now_over = is_over | terminated | truncated
        extras = jax.tree.map(lambda x: x[0], extras)
        ends = ~is_over & terminated, ~is_over & truncated
        return (env_state, obs, carry, now_over), (env_state, reward, ~is_over, extras, *ends)

    first = (first_state, obs, policy.init(1), jnp.array(False))
    _, told = jax.lax.scan(step, first, jnp.arange(num_steps))
    states, rewards, is_real, extras, *ends = told
    return Recording(states, rewards, jnp.sum(is_real, dtype=jnp.int32), extras, *map(jnp.any, ends))
