"""Environments of gymnasium inside jitted loops: each lane is a handle of one that lives on the host.

A program calls the host once a step for all of its lanes, and they step there one after another. What a
handle stands for is moved on by every step, so that a state is good for one step only: nothing may look
ahead with it, nothing is saved with it, and a run cannot be resumed.
"""

import math
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import io_callback

from envs.adapters.gymnasium import dtype_of, layout_of
from envs.common.names import UnknownName
from envs.common.spaces import observe, shape_of, spec_of, unflatten
from envs.types import Environment

import gymnasium  # isort: skip  # the third party of this file

MAX_STEPS = 1000  # of an environment that has no time limit of its own


class HostedTask(NamedTuple):
    """The task of a hosted environment: its clock."""

    max_steps: Any  # int32 []


class HostedState(NamedTuple):
    """One episode on the host."""

    handle: jax.Array  # int32 []
    time: jax.Array  # int32 [], steps taken


class HostedEnvironment(Environment):
    """An environment of gymnasium as one of ours, made by `make_one()` as often as there are lanes."""

    is_hosted = True

    def __init__(self, name: str, make_one: Callable[[], gymnasium.Env]):
        """Make one, and read its spaces; others are made when lanes need them, and kept for the next."""
        first = make_one()
        self.name = name
        self._obs_layout = layout_of(first.observation_space, "obs")
        self._action_layout = layout_of(first.action_space, "action")
        self.obs_spec, self.obs_shape = spec_of(self._obs_layout, "obs"), shape_of(self._obs_layout)
        self.obs_dtype = dtype_of(first.observation_space)
        self.action_spec = spec_of(self._action_layout, "action")
        ends = [(0, c.cardinality - 1) if c.kind == "category" else (c.low, c.high) for c in self.action_spec]
        low, high = np.array(ends, np.float32).T
        self._bounds = ends[0] if self.is_discrete else (low, high)  # an action outside is brought inside
        limit = first.spec.max_episode_steps if first.spec is not None else None
        self.max_steps = limit or MAX_STEPS
        self._make_one, self._lock = make_one, threading.Lock()
        self._live: dict[int, gymnasium.Env] = {}  # by handle
        self._times: dict[int, int] = {}  # steps taken, by handle
        self._idle, self._next = [first], 0  # environments without an episode; the next handle

    @property
    def default_params(self) -> HostedTask:
        return HostedTask(np.int32(self.max_steps))

    def reset(self, key: jax.Array, params: HostedTask) -> tuple[jax.Array, HostedState]:
        """Begin an episode on the host, from a seed of `key`."""
        del params
        handle, obs = self._on_host(self._begin)(_seed(key))
        return obs, HostedState(handle, jnp.zeros((), jnp.int32))

    def step(self, key: jax.Array, state: HostedState, action: jax.Array, params: HostedTask) -> tuple:
        """Step an episode; one that ended stays as it ended."""
        obs, state, reward, terminated, truncated, _ = self._stepped(
            key, state, action, params, goes_on=False
        )
        return obs, state, reward, terminated, truncated, {}

    def step_on(self, key: jax.Array, state: HostedState, action: jax.Array, params: HostedTask) -> tuple:
        """Step, and begin the next episode where this one ends; `final_obs` comes sixth."""
        return self._stepped(key, state, action, params, goes_on=True)

    def render(self, state: HostedState, params: HostedTask) -> np.ndarray:
        """Raise: the episode of a stored state has moved on."""
        raise NotImplementedError(f"{self.name}: an episode on the host has moved on; nothing can paint it.")

    def _stepped(self, key, state, action, params, *, goes_on: bool) -> tuple:
        time = state.time + 1
        call = self._on_host(partial(self._advance, goes_on))
        handle, obs, final_obs, reward, terminated, truncated = call(
            state.handle, state.time, action, time >= params.max_steps, _seed(key)
        )
        time = jnp.where((terminated | truncated) & goes_on, 0, time)
        return obs, HostedState(handle, time), reward, terminated, truncated, final_obs

    def _on_host(self, work: Callable) -> Callable:
        """`work` of arrays `[N, ...]` on the host as a function of arrays `[...]`, once for all lanes."""
        obs = jax.ShapeDtypeStruct(self.obs_shape, self.obs_dtype)
        flag, number = jax.ShapeDtypeStruct((), bool), jax.ShapeDtypeStruct((), jnp.float32)
        handle = jax.ShapeDtypeStruct((), jnp.int32)
        out = (handle, obs) if work == self._begin else (handle, obs, obs, number, flag, flag)

        @jax.custom_batching.custom_vmap
        def call(*inputs: jax.Array) -> Any:
            lead = inputs[0].shape
            count = math.prod(lead)

            def host(*arrays: Any) -> Any:
                flat = [np.asarray(x).reshape((count, *np.shape(x)[len(lead) :])) for x in arrays]
                return [x.reshape((*lead, *x.shape[1:])) for x in work(*flat)]

            shapes = [jax.ShapeDtypeStruct((*lead, *x.shape), x.dtype) for x in out]
            return io_callback(host, shapes, *inputs)

        @call.def_vmap
        def _(size: int, is_batched: list[bool], *inputs: jax.Array) -> Any:
            lanes = [
                x if has else jnp.broadcast_to(x, (size, *x.shape))
                for x, has in zip(inputs, is_batched, strict=True)
            ]
            return call(*lanes), [True] * len(out)

        return call

    def _begin(self, seeds: np.ndarray) -> tuple[np.ndarray, ...]:
        with self._lock:
            begun = [self._new(int(seed)) for seed in seeds]
        return np.array([h for h, _ in begun], np.int32), np.stack([obs for _, obs in begun])

    def _advance(
        self,
        goes_on: bool,
        handles: np.ndarray,
        times: np.ndarray,
        actions: np.ndarray,
        is_late: np.ndarray,
        seeds: np.ndarray,
    ) -> tuple[np.ndarray, ...]:
        rows = []
        with self._lock:
            for lane, handle in enumerate(handles.tolist()):
                action = unflatten(self._action_layout, np.clip(actions[lane], *self._bounds))
                self._check_now(handle, int(times[lane]))
                rows.append(self._one(goes_on, handle, action, bool(is_late[lane]), int(seeds[lane])))
        handle, obs, final_obs, reward, terminated, truncated = zip(*rows, strict=True)
        flags = np.array(terminated, bool), np.array(truncated, bool)
        return (
            np.array(handle, np.int32),
            np.stack(obs),
            np.stack(final_obs),
            np.array(reward, np.float32),
            *flags,
        )

    def _check_now(self, handle: int, time: int) -> None:
        """Raise where an episode has moved on since the state that is stepped."""
        if handle in self._live and self._times[handle] != time:
            raise RuntimeError(
                f"{self.name}: got the state of step {time} of an episode that is at step "
                f"{self._times[handle]}, expected the last one; an episode on the host goes one way, so "
                "nothing may look ahead in it."
            )

    def _one(self, goes_on: bool, handle: int, action: Any, is_late: bool, seed: int) -> tuple:
        if handle not in self._live:
            return self._over(handle)
        env = self._live[handle]
        obs, reward, terminated, truncated, _ = env.step(action)
        self._times[handle] += 1
        reward, terminated, truncated = (self._scalar(x) for x in (reward, terminated, truncated))
        final_obs = self._observation(obs)
        terminated, truncated = bool(terminated), bool(truncated or is_late) and not terminated
        if not terminated and not truncated:
            return handle, final_obs, final_obs, reward, False, False
        self._idle.append(self._live.pop(handle))
        del self._times[handle]
        then = self._new(seed) if goes_on else (handle, final_obs)
        return (*then, final_obs, reward, terminated, truncated)

    def _over(self, handle: int) -> tuple:
        """Where an episode is over already: nothing happens, and it stays over."""
        if not 0 <= handle < self._next:
            raise RuntimeError(
                f"{self.name}: got a state of another process, expected one of this; episodes on the host "
                "cannot be saved: begin anew."
            )
        blank = np.zeros(self.obs_shape, self.obs_dtype)
        return handle, blank, blank, 0.0, True, False

    def _new(self, seed: int) -> tuple[int, np.ndarray]:
        env = self._idle.pop() if self._idle else self._another()
        obs, _ = env.reset(seed=seed)
        handle, self._next = self._next, self._next + 1
        self._live[handle], self._times[handle] = env, 0
        return handle, self._observation(obs)

    def _another(self) -> gymnasium.Env:
        env = self._make_one()
        if any(env is one for one in self._live.values()):
            raise RuntimeError(
                f"{self.name}: got one object for two lanes, expected a new one each time that its function "
                "is called; make it inside the function."
            )
        return env

    def _scalar(self, value: Any) -> Any:
        """A reward or flag as one number."""
        if np.size(value) != 1:
            raise RuntimeError(f"{self.name}: got a reward or flag {value!r}, expected one number.")
        return np.asarray(value).reshape(()).item()

    def _observation(self, obs: Any) -> np.ndarray:
        return observe(self._obs_layout, obs, self.obs_dtype)


def make(env_id: str, **overrides: Any) -> tuple[HostedEnvironment, HostedTask]:
    """Build `gymnasium/ID` and its task; overrides are arguments of `gymnasium.make`.

    Raises `UnknownName` for an id that gymnasium does not know, ValueError where it cannot be made.
    """
    name = env_id.partition("/")[2]
    whole = {k: int(v) if isinstance(v, float) and v.is_integer() else v for k, v in overrides.items()}
    try:
        gymnasium.spec(name)
    except gymnasium.error.Error as error:
        raise UnknownName(f"environment {env_id}: {error}") from None
    try:
        env = HostedEnvironment(env_id, partial(gymnasium.make, name, **whole))
    except Exception as error:  # of many kinds: a package that is missing, an argument, a space
        raise ValueError(f"environment {env_id} with {overrides}: {error}") from error
    return env, env.default_params


def maker_of(name: str, env: Any) -> Callable[[], Any]:
    """A function that makes environments as this one was made; what was changed of it since is not known.

    Raises ValueError for one that gymnasium did not make, or of several lanes.
    """
    if isinstance(env, gymnasium.vector.VectorEnv):
        raise ValueError(
            f"environment {name}: got a vector environment, expected one alone, as lanes are made here; pass "
            "its id, or a function that makes one."
        )
    if getattr(env, "spec", None) is None:
        raise ValueError(
            f"environment {name}: got {type(env).__name__} that gymnasium did not make, expected an id or a "
            "function that makes a new one each time, as every lane needs its own; pass the class."
        )
    return partial(gymnasium.make, env.spec)


def _seed(key: jax.Array) -> jax.Array:
    return jax.random.bits(key, (), jnp.uint32) >> 1  # as numpy's seeds are not negative
