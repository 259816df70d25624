"""Random rollouts to be timed: ours over any registered id, and each source as it steps itself.

A program is `run(key, carry)` for T steps of B lanes under uniform random actions. It carries the
state, the observation and a sum of rewards and ends; nobody reads the observation in between. With
`stores` it also returns what a learner's rollout holds, `[T, B, ...]`: the observation before each
step, the true one after it, rewards and ends. Keys and actions are drawn as cheaply for the peers
as for ours, but for the keys a lane that a peer's `step` wants.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import envs
from envs.common.foreign import foreign
from envs.types import sample_action
from envs.vector import VectorEnv
from envs.words import lane_actions


class Program(NamedTuple):
    """One thing to time."""

    run: Callable  # (key, carry) -> carry and records
    start: Callable  # key -> carry


def scan(step: Callable, start: Callable, num_steps: int) -> Program:
    """T steps of `step(key_action, key_step, carry) -> carry, record`, keys drawn ahead."""

    def run(key: jax.Array, carry: Any) -> Any:
        keys = jax.random.split(key, (num_steps, 2))
        return jax.lax.scan(lambda c, k: step(k[0], k[1], c), carry, keys)

    return Program(run, start)


def ours(env_id: str, batch_size: int, num_steps: int, stores: bool = False, **options: Any) -> Program:
    """Our vector environment, one task for all lanes; `options` are those of `VectorEnv`."""
    env, params = envs.make(env_id)
    vector = VectorEnv(env, batch_size, **options)
    draw = _random_actions(env, batch_size)

    def step(key_action, key_step, carry):
        state, total = carry
        action = draw(key_action, state)
        obs = state.obs
        state, out = vector.step(key_step, state, action)
        reward = out.reward if env.num_players == 1 else out.reward[:, 0]
        ended = (out.terminated | out.truncated).astype(jnp.float32)
        record = (obs, out.final_obs, out.reward, out.terminated, out.truncated)
        return (state, total + reward + ended), record if stores else None

    return scan(step, lambda key: (vector.reset(key, params), jnp.zeros(batch_size)), num_steps)


def _random_actions(env: Any, batch_size: int) -> Callable:
    """`(key, state) -> actions [B]`; legal ones where the game has rules about it."""
    if not env.has_legal_actions:
        return lambda key, state: lane_actions(key, batch_size, env.action_spec)

    def draw(key, state):
        legal = jax.vmap(env.legal_actions, in_axes=(0, None))(state.env, state.params)
        return sample_action(key, env.action_spec, legal)  # one draw for the batch

    return draw


def gymnax(name: str, batch_size: int, num_steps: int, stores: bool = False) -> Program:
    """gymnax's own resetting `step`, which wants a key a lane."""
    import gymnax as source

    env, params = source.make(name)
    space = env.action_space(params)

    def draw(key):
        if hasattr(space, "n"):
            return jax.random.randint(key, (batch_size,), 0, space.n)
        low, high = space.low, space.high
        return jax.random.uniform(key, (batch_size, *space.shape), minval=low, maxval=high)

    def step(key_action, key_step, carry):
        before, state, total = carry
        action = draw(key_action)  # one draw for the batch: cheaper than gymnax's key a lane
        keys = jax.random.split(key_step, batch_size)
        obs, state, reward, terminated, truncated, info = jax.vmap(env.step, (0, 0, 0, None))(
            keys, state, action, params
        )
        record = (before, info["final_observation"], reward, terminated, truncated)
        after = obs, state, total + reward + (terminated | truncated)
        return after, record if stores else None

    def start(key):
        keys = jax.random.split(key, batch_size)
        obs, state = jax.vmap(env.reset, (0, None))(keys, params)
        return obs, state, jnp.zeros(batch_size)

    return _relaxed(scan(step, start, num_steps))


def brax(name: str, batch_size: int, num_steps: int) -> Program:
    """brax's training wrapper: batched, time limit, cached first states."""
    from brax import envs as source

    env = source.create(name, episode_length=1000, backend="spring", batch_size=batch_size)

    def step(key_action, key_step, carry):
        del key_step
        state, total = carry
        action = jax.random.uniform(key_action, (batch_size, env.action_size), minval=-1.0)
        state = env.step(state, action)
        return (state, total + state.reward + state.done), None

    return _relaxed(scan(step, lambda key: (env.reset(key), jnp.zeros(batch_size)), num_steps))


def craftax(name: str, batch_size: int, num_steps: int) -> Program:
    """Craftax-Classic's own auto-reset: a new world drawn in every lane and step."""
    from craftax.craftax_env import make_craftax_env_from_name

    env = make_craftax_env_from_name(f"Craftax-{name}-v1", auto_reset=True)
    params = env.default_params

    def step(key_action, key_step, carry):
        _, state, total = carry
        action = jax.random.randint(key_action, (batch_size,), 0, env.action_space(params).n)
        keys = jax.random.split(key_step, batch_size)
        obs, state, reward, done, _ = jax.vmap(env.step, (0, 0, 0, None))(keys, state, action, params)
        return (obs, state, total + reward + done), None

    def start(key):
        keys = jax.random.split(key, batch_size)
        obs, state = jax.vmap(env.reset, (0, None))(keys, params)
        return obs, state, jnp.zeros(batch_size)

    return _relaxed(scan(step, start, num_steps))


def xminigrid(name: str, batch_size: int, num_steps: int) -> Program:
    """XLand-MiniGrid's `GymAutoResetWrapper`."""
    import xminigrid as source
    from xminigrid.wrappers import GymAutoResetWrapper

    env, params = source.make(name)
    env = GymAutoResetWrapper(env)

    def step(key_action, key_step, carry):
        del key_step
        timestep, total = carry
        action = jax.random.randint(key_action, (batch_size,), 0, env.num_actions(params))
        timestep = jax.vmap(env.step, (None, 0, 0))(params, timestep, action)
        return (timestep, total + timestep.reward + timestep.last()), None

    def start(key):
        keys = jax.random.split(key, batch_size)
        return jax.vmap(env.reset, (None, 0))(params, keys), jnp.zeros(batch_size)

    return _relaxed(scan(step, start, num_steps))


def pgx(name: str, batch_size: int, num_steps: int) -> Program:
    """pgx with its `auto_reset`, legal random moves."""
    import pgx as source
    from pgx.experimental import auto_reset

    env = source.make(name)
    resetting = auto_reset(env.step, env.init)

    def step(key_action, key_step, carry):
        state, total = carry
        logits = jnp.where(state.legal_action_mask, 0.0, -jnp.inf)
        action = jax.random.categorical(key_action, logits)
        state = jax.vmap(resetting)(state, action, jax.random.split(key_step, batch_size))
        total = total + state.rewards[:, 0] + (state.terminated | state.truncated)
        return (state, total), None

    def start(key):
        return jax.vmap(env.init)(jax.random.split(key, batch_size)), jnp.zeros(batch_size)

    return _relaxed(scan(step, start, num_steps))


def _relaxed(program: Program) -> Program:
    return Program(foreign(program.run), foreign(program.start))
