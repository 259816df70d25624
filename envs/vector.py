"""Batched stepping with true auto-reset: a finished lane starts anew from its own `reset` draw.

Four ways to pay for the fresh states, all with the same distribution:
- a `WordEnvironment` hashes a few words a lane and resets in the arithmetic of the step itself;
- a pool holds states drawn ahead; each is used once, and an empty pool is drawn anew;
- an environment on the host (gymnasium's) begins the next episode in the call that ends one;
- without a pool every lane draws a reset in every step and mostly throws it away.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs.common.branch import computed_once, select, when
from envs.types import Environment, Transition, blank_action
from envs.words import RESET_STREAM, STEP_STREAM, WordEnvironment, consume, lane_words


class Pool(NamedTuple):
    """Fresh episodes, drawn ahead."""

    obs: jax.Array  # [P, ...]
    env: Any  # leaves [P, ...]
    num_taken: jax.Array  # int32 []


class VectorState(NamedTuple):
    """State of B lanes."""

    obs: Any  # [B, ...] what the agent sees now; () in a compact environment
    env: Any  # leaves [B, ...]
    params: Any  # leaves [B, ...] where each lane carries its task, [...] where they share one
    pool: Any = ()  # a `Pool`; with leaves [B, ...] where each lane carries its task


class VectorEnv(NamedTuple):
    """B lanes of one pure environment, each with its own task or all with one.

    `num_lanes` given: `reset` takes one task, which all lanes share, and `pool_size` is
    `num_lanes` unless given. Not given: params have leaves `[B, ...]`, and `pool_size` is a lane's
    (0, no pool, unless given). `is_compact` (word environments): the state holds no
    observation; `Transition.obs` and `observe` render it where it is used, and a program that does
    not use it does not pay for it.
    """

    env: Environment
    num_lanes: int | None = None
    pool_size: int | None = None
    is_compact: bool = False

    def reset(self, key: jax.Array, params: Any) -> VectorState:
        """Start every lane of the task `params` (`[...]` if shared, else leaves `[B, ...]`).

        Raises `ValueError` for params of another rank, a pool of negative size, or observations
        that are not the arrays that the environment declares.
        """
        self._check(params)
        if self.is_hashed:
            consume(key)
            env_state = self._first(key, params)
            obs = () if self.is_compact else self._observe(env_state, params)
            return VectorState(obs, env_state, params)
        has_pool = self._pool_size and not self.env.is_hosted
        key_lanes, key_pool = jax.random.split(key) if has_pool else (key, None)
        keys = jax.random.split(key_lanes, self._num_lanes(params))
        obs, env_state = self._vmap(self.env.reset, 1)(keys, params)
        self._check_obs(obs)
        pool = self._first_pool(key_pool, params) if has_pool else ()
        return VectorState(obs, env_state, params, pool)

    def step(self, key: jax.Array, state: VectorState, action: jax.Array) -> tuple[VectorState, Transition]:
        """Step every lane by `action [B]` or `[B, A]` and reset finished ones, see `Transition`.

        `final_obs` keeps what the reset replaced.
        """
        self._check_action(state.params, action)
        if self.is_hashed:
            return self._step_hashed(key, state, action)
        if self.env.is_hosted:
            return self._step_hosted(key, state, action)
        if self._pool_size:
            return self._step_pooled(key, state, action)
        return self._step_drawing(key, state, action)

    def observe(self, state: VectorState) -> jax.Array:
        """Observations `[B, ...]` of the agents; rendered here in a compact environment."""
        return self._observe(state.env, state.params) if self.is_compact else state.obs

    @property
    def is_hashed(self) -> bool:
        """Whether randomness is hashed from one key a step instead of keys a lane."""
        return isinstance(self.env, WordEnvironment)

    def _step_hashed(self, key, state, action):
        consume(key)
        words = self._words(key, state.params, self.env.num_step_words, STEP_STREAM)
        stepped, reward, terminated, truncated = self.env.step_words(words, state.env, action, state.params)
        # Time is never negative.
        stepped, terminated, truncated = computed_once((stepped, terminated, truncated), stepped.time >= 0)
        env_state = select(terminated | truncated, self._first(key, state.params), stepped)
        obs = self._observe(env_state, state.params)
        final_obs = self._observe(stepped, state.params)
        after = state._replace(obs=() if self.is_compact else obs, env=env_state)
        return after, Transition(obs, reward, terminated, truncated, final_obs)

    def _step_hosted(self, key, state, action):
        keys = jax.random.split(key, self._num_lanes(state.params))
        out = self._vmap(self.env.step_on, 3)(keys, state.env, action, state.params)
        obs, env_state, *told = out
        return state._replace(obs=obs, env=env_state), Transition(obs, *told)

    def _step_pooled(self, key, state, action):
        key_step, key_pool = jax.random.split(key)
        final_obs, stepped, reward, terminated, truncated = self._step_lanes(key_step, state, action)
        done, lanes = terminated | truncated, (final_obs, stepped)
        take = partial(_take, self.env, self._pool_size)
        if self.num_lanes is None:  # a lane's pool serves a batch of one
            keys = jax.random.split(key_pool, self._num_lanes(state.params))
            one = jax.tree.map(lambda x: x[:, None], (done, lanes))
            pool, lanes = jax.vmap(take)(keys, state.pool, *one, state.params)
            obs, env_state = jax.tree.map(lambda x: x[:, 0], lanes)
        else:
            pool, (obs, env_state) = take(key_pool, state.pool, done, lanes, state.params)
        after = VectorState(obs, env_state, state.params, pool)
        return after, Transition(obs, reward, terminated, truncated, final_obs)

    def _step_lanes(self, key, state, action):
        """Step without resets; one key serves all lanes where the step is not random."""
        if self.env.is_step_random:
            keys = jax.random.split(key, self._num_lanes(state.params))
            out = self._vmap(self.env.step, 3)(keys, state.env, action, state.params)
        else:
            out = self._vmap(partial(self.env.step, key), 2)(state.env, action, state.params)
        return out[:5]

    def _step_drawing(self, key, state, action):
        keys = jax.random.split(key, self._num_lanes(state.params))

        def step_lane(key, env_state, action, params):
            key_step, key_reset = jax.random.split(key)
            return self.env.step(key_step, env_state, action, params)[:5], self.env.reset(key_reset, params)

        out, (first_obs, first_state) = self._vmap(step_lane, 3)(keys, state.env, action, state.params)
        final_obs, stepped, reward, terminated, truncated = out
        first, lanes = (first_obs, first_state), (final_obs, stepped)
        obs, env_state = select(terminated | truncated, first, lanes)
        after = state._replace(obs=obs, env=env_state)
        return after, Transition(obs, reward, terminated, truncated, final_obs)

    def _first(self, key: jax.Array, params: Any) -> Any:
        words = self._words(key, params, self.env.num_reset_words, RESET_STREAM)
        return self.env.first(words, params)

    def _observe(self, env_state: Any, params: Any) -> jax.Array:
        return jnp.moveaxis(self.env.observe(env_state, params), -1, 0)

    def _words(self, key: jax.Array, params: Any, num_words: int, stream: int) -> Any:
        return lane_words(key, self._num_lanes(params), num_words, stream)

    def _first_pool(self, key: jax.Array, params: Any) -> Any:
        draw = partial(_draw_pool, self.env, self._pool_size)
        if self.num_lanes is None:
            return jax.vmap(draw)(jax.random.split(key, num_lanes(params)), params)
        return draw(key, params)

    def _vmap(self, fn: Any, num_batched: int) -> Any:
        """Map `fn(*batched, params)` over lanes."""
        params_axis = 0 if self.num_lanes is None else None
        return jax.vmap(fn, in_axes=(0,) * num_batched + (params_axis,))

    def _num_lanes(self, params: Any) -> int:
        return num_lanes(params) if self.num_lanes is None else self.num_lanes

    @property
    def _pool_size(self) -> int:
        if self.pool_size is not None:
            return self.pool_size
        return self.num_lanes or 0

    def _check(self, params: Any) -> None:
        extra = 1 if self.num_lanes is None else 0
        pairs = zip(*map(jax.tree.leaves, (params, self.env.default_params)), strict=False)
        wrong = [jnp.shape(x) for x, one in pairs if jnp.ndim(x) != jnp.ndim(one) + extra]
        if wrong:
            wanted = (
                "leaves [B, ...] (`broadcast_params`), or `num_lanes` given"
                if extra
                else (f"one task, which all {self.num_lanes} lanes share")
            )
            raise ValueError(f"{self.env.name}: got params with a leaf {wrong[0]}, expected {wanted}.")
        if self._pool_size < 0:
            raise ValueError(f"pool_size: got {self.pool_size}, expected 0 (no pool) or more.")
        if self.is_compact and not self.is_hashed:
            raise ValueError(
                f"{self.env.name}: got is_compact=True, expected an environment whose observation "
                "is a function of its state (families classic and minatar); drop the option."
            )

    def _check_obs(self, obs: Any) -> None:
        shape = jnp.shape(obs)[1:] if isinstance(obs, jax.Array) else None
        if shape != tuple(self.env.obs_shape):
            got = f"a {type(obs).__name__}" if shape is None else f"an array of shape {shape}"
            raise ValueError(
                f"{self.env.name}: got {got} for an observation, expected an array of the shape that it "
                f"declares, {tuple(self.env.obs_shape)}; flatten what is nested (`envs.common.spaces`)."
            )

    def _check_action(self, params: Any, action: jax.Array) -> None:
        blank = blank_action(self.env.action_spec)
        shape = (self._num_lanes(params), *blank.shape)
        kind = jnp.integer if jnp.issubdtype(blank.dtype, jnp.integer) else jnp.floating
        if jnp.shape(action) != shape or not jnp.issubdtype(jnp.result_type(action), kind):
            raise ValueError(
                f"{self.env.name}: got actions of shape {jnp.shape(action)} and dtype "
                f"{jnp.result_type(action)}, expected {kind.__name__} {shape}."
            )


def _draw_pool(env: Environment, pool_size: int, key: jax.Array, params: Any) -> Pool:
    keys = jax.random.split(key, pool_size)
    obs, env_state = jax.vmap(env.reset, in_axes=(0, None))(keys, params)
    return Pool(obs, env_state, jnp.zeros((), jnp.int32))


def _take(env: Environment, pool_size: int, key, pool: Pool, done, lanes, params):
    """Give each lane that is `done` `[B]` the next fresh episode; an empty pool is drawn anew.

    Every episode is used once. Only where more lanes finish in one step than a pool holds, lanes of
    that step share first states.
    """

    def refill(_, key, params):
        return _draw_pool(env, pool_size, key, params)

    num_done = jnp.sum(done, dtype=jnp.int32)
    pool = when(pool.num_taken + num_done > pool_size, refill, pool, key, params)
    lanes = when(num_done > 0, partial(_deal, pool_size), lanes, pool, done)
    return pool._replace(num_taken=pool.num_taken + num_done), lanes


def _deal(pool_size: int, lanes: Any, pool: Pool, done: jax.Array) -> Any:
    rank = pool.num_taken + jnp.cumsum(done, dtype=jnp.int32) - 1
    fresh = jax.tree.map(lambda x: x[rank % pool_size], (pool.obs, pool.env))
    return select(done, fresh, lanes)


def num_lanes(params: Any) -> int:
    """Number of lanes of a batched params pytree."""
    return jax.tree.leaves(params)[0].shape[0]


def broadcast_params(params: Any, batch_size: int) -> Any:
    """Repeat one task for `batch_size` lanes: leaves `[...]` become `[B, ...]`."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (batch_size, *jnp.shape(x))), params)
