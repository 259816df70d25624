"""Gymnasium both ways: its vector environments stepped from the host, and ours exported to it."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.common.spaces import Layout, categories, flatten, observe, reals, shape_of, spec_of, unflatten
from envs.types import Component, Environment, Transition, blank_action
from envs.vector import VectorEnv, broadcast_params

import gymnasium  # isort: skip  # the third party of this file
from gymnasium import spaces  # isort: skip
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv  # isort: skip

# policy_fn(obs [B, ...]) -> actions: int [B], int or float [B, A], numpy or JAX
PolicyFn = Callable[[np.ndarray], Any]


# --- gymnasium's environments, from the host ------------------------------------------------------


class HostVector:
    """B lanes of a gymnasium environment, stepped from the host with true auto-reset.

    `step` returns our `Transition` as numpy arrays in every autoreset mode of gymnasium 1.x: a
    finished lane shows its new first observation at once, `final_obs` holds the true last one, and
    there is never an extra step that only resets. In mode SAME_STEP gymnasium resets the lane
    itself; in NEXT_STEP and DISABLED the finished lanes are reset by a `reset_mask`. Observations
    and actions are flat however the source nests them (`envs.common.spaces`); a lone Box of uint8
    stays a picture.
    """

    is_pure = False

    def __init__(self, source: gymnasium.vector.VectorEnv):
        """Take over `source`; it is reset and stepped by nobody else from here on."""
        self._source: Any = source  # its base class is typed as returning None
        self._mode = _autoreset_mode(source)
        self._obs: np.ndarray | None = None  # [B, ...]; None before the first reset
        self.num_lanes = source.num_envs
        space = source.single_observation_space
        self._obs_layout = layout_of(space, "obs")
        self._action_layout = layout_of(source.single_action_space, "action")
        self.obs_spec = spec_of(self._obs_layout, "obs")
        self.obs_shape = shape_of(self._obs_layout)
        self.obs_dtype = dtype_of(space)
        self.action_spec = spec_of(self._action_layout, "action")

    def reset(self, seed: int | None = None) -> np.ndarray:
        """Start every lane, lane i from `seed + i`; first observations `[B, ...]`."""
        obs, _ = self._source.reset(seed=seed)
        self._obs = self._observation(obs)
        return self._obs

    def step(self, action: Any) -> Transition:
        """Step every lane: actions int `[B]`, int or float `[B, A]` -> leaves `[B, ...]`."""
        if self._obs is None:
            raise RuntimeError("got a step before the first reset, expected one; call reset(seed).")
        source_obs, reward, terminated, truncated, info = self._source.step(self._action(action))
        done = np.logical_or(terminated, truncated)
        obs = self._observation(source_obs)
        final_obs = obs
        if done.any() and self._mode is AutoresetMode.SAME_STEP:
            final_obs = self._final_obs(obs, done, info)
        elif done.any():
            obs = self._reset_lanes(obs, done)
        self._obs = obs
        return Transition(
            obs=obs,
            reward=np.array(reward, np.float32),
            terminated=np.array(terminated, bool),
            truncated=np.array(truncated, bool),
            final_obs=final_obs,
        )

    def close(self) -> None:
        """Release what the source holds."""
        self._source.close()

    def _final_obs(self, obs: np.ndarray, done: np.ndarray, info: dict) -> np.ndarray:
        """The observations after the step, where gymnasium put first ones of new episodes."""
        given = np.asarray(info.get("_final_obs", np.zeros_like(done)), bool)
        if not np.array_equal(given, done):
            raise ValueError(
                f"{self._source}: got info['_final_obs'] = {given}, expected the finished lanes "
                f"{done}; without them the last observation is lost: use mode NEXT_STEP."
            )
        final_obs = obs.copy()
        for lane in np.flatnonzero(done):
            final_obs[lane] = self._observation(info["final_obs"][lane])
        return final_obs

    def _reset_lanes(self, obs: np.ndarray, done: np.ndarray) -> np.ndarray:
        """Reset the lanes in `done`, and check that the others were left alone."""
        reset, _ = self._source.reset(options={"reset_mask": done.copy()})
        reset = self._observation(reset)
        if not np.array_equal(reset[~done], obs[~done], equal_nan=True):
            raise ValueError(
                f"{self._source}: got other lanes reset than those in options['reset_mask'], "
                "expected those alone; build it with autoreset_mode=AutoresetMode.SAME_STEP."
            )
        return reset

    def _observation(self, obs: Any) -> np.ndarray:
        """A copy in our dtype: gymnasium writes into its buffers again."""
        return observe(self._obs_layout, obs, self.obs_dtype)

    def _action(self, action: Any) -> Any:
        """Our actions of all lanes as the source takes them."""
        action = np.asarray(action)
        shape = (self.num_lanes, *blank_action(self.action_spec).shape)
        if action.size != math.prod(shape):
            raise ValueError(
                f"got actions of shape {action.shape}, expected {self.num_lanes} lanes of "
                f"{self._source.single_action_space}: shape {shape}."
            )
        return unflatten(self._action_layout, action.reshape(shape))


class HostEpisodes(NamedTuple):
    """Whole episodes: E of every one of B lanes."""

    returns: np.ndarray  # [E, B] float64
    lengths: np.ndarray  # [E, B] int32, env steps
    terminated: np.ndarray  # [E, B] bool; an episode that is not was truncated


def make_host(env_id: str, num_lanes: int, **kwargs: Any) -> HostVector:
    """Build B lanes of the gymnasium environment `env_id` in this process."""
    vector_kwargs = {"autoreset_mode": AutoresetMode.SAME_STEP}
    source = gymnasium.make_vec(
        env_id, num_lanes, vectorization_mode="sync", vector_kwargs=vector_kwargs, **kwargs
    )
    return HostVector(source)


def play(host: HostVector, policy_fn: PolicyFn, num_episodes: int, seed: int) -> HostEpisodes:
    """Play the first `num_episodes` episodes of every lane.

    A fixed number a lane: to stop after the first so many episodes over all lanes would prefer
    the short ones. A lane that is ready plays on, uncounted, until the last one is.
    """
    if num_episodes < 1:
        raise ValueError(f"got num_episodes = {num_episodes}, expected at least 1 a lane.")
    shape = (num_episodes, host.num_lanes)
    episodes = HostEpisodes(np.zeros(shape), np.zeros(shape, np.int32), np.zeros(shape, bool))
    lanes = np.arange(host.num_lanes)
    finished = np.zeros(host.num_lanes, np.int32)  # episodes of each lane
    obs = host.reset(seed)
    while (finished < num_episodes).any():
        transition = host.step(policy_fn(obs))
        counts = finished < num_episodes
        now = finished[counts], lanes[counts]
        episodes.returns[now] += transition.reward[counts]
        episodes.lengths[now] += 1
        episodes.terminated[now] = transition.terminated[counts]
        finished = finished + (transition.terminated | transition.truncated)
        obs = transition.obs
    return episodes


def dtype_of(space: Any) -> Any:
    """The dtype of observations of a space: bytes of a lone picture, else reals."""
    return np.uint8 if isinstance(space, spaces.Box) and space.dtype == np.uint8 else np.float32


def layout_of(space: Any, name: str) -> Layout:
    """The layout of a gymnasium space: of numbers and categories, and Dict and Tuple of such, to any depth.

    Keys of a Dict come as it iterates: gymnasium sorts those of a plain dict, and of nothing else.
    """
    match space:
        case spaces.Dict():
            return {key: layout_of(child, f"{name}.{key}") for key, child in space.spaces.items()}
        case spaces.Tuple():
            return tuple(layout_of(child, f"{name}.{i}") for i, child in enumerate(space.spaces))
        case spaces.Discrete():
            return categories(name, space.n, space.dtype, space.start)
        case spaces.MultiDiscrete():
            return categories(name, space.nvec, space.dtype, space.start)
        case spaces.MultiBinary():
            return categories(name, np.full(space.shape, 2), space.dtype)
        case spaces.Box():
            return reals(name, space.low, space.high, space.shape, space.dtype)
    raise ValueError(
        f"{name}: got space {space}, expected Box, Discrete, MultiDiscrete, MultiBinary, or a Dict or "
        "Tuple of them: what has no fixed number of numbers has no components; encode it in a wrapper."
    )


def _autoreset_mode(source: gymnasium.vector.VectorEnv) -> AutoresetMode:
    """How `source` resets finished lanes; refuses what would lose an observation.

    Gymnasium's own vector environments are asked for their attribute first: they write
    `metadata` into a dict of the environment's class, which the next one built overwrites.
    """
    inner = source.unwrapped
    mode = getattr(inner, "autoreset_mode", None) or source.metadata.get("autoreset_mode")
    if not isinstance(mode, AutoresetMode):
        raise ValueError(
            f"{source}: got autoreset mode {mode!r}, expected one of {list(AutoresetMode)} in its "
            "metadata['autoreset_mode']."
        )
    # AsyncVectorEnv forgets a masked reset unless it shares memory, and resets the lane again.
    takes_mask = isinstance(inner, SyncVectorEnv) or (
        isinstance(inner, AsyncVectorEnv) and inner.shared_memory
    )
    if mode is AutoresetMode.NEXT_STEP and not takes_mask:
        raise ValueError(
            f"{source}: got autoreset mode NEXT_STEP, which spends a step on every reset; expected "
            "one that resets by mask (SyncVectorEnv, AsyncVectorEnv with shared memory) or mode "
            "SAME_STEP; build it with autoreset_mode=AutoresetMode.SAME_STEP."
        )
    return mode


# --- our environments, for gymnasium --------------------------------------------------------------


class ExportedEnv(gymnasium.Env):
    """One of our pure environments with one task, as a `gymnasium.Env`.

    `reset(seed=s)` fixes the whole stream of randomness, `reset()` goes on with it. The clock is
    the environment's own: `truncated` comes from the task, no TimeLimit wrapper is needed.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012  # gymnasium's

    def __init__(self, env: Environment, params: Any, render_mode: str | None = None):
        """Hold `env`, its task `params` and their compiled programs."""
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"got render_mode {render_mode!r}, expected None or 'rgb_array'.")
        self._env, self._params = _check_exportable(env), params
        self._key = self._state = None
        self._reset, self._step = jax.jit(self._pure_reset), jax.jit(self._pure_step)
        self.render_mode = render_mode
        self.observation_space = box(env.obs_spec, env.obs_shape, env.obs_dtype)
        self.action_space = action_space(env)
        self.spec = _spec(env, params)

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        super().reset(seed=seed)
        key = jax.random.key(int(self.np_random.integers(2**31)))
        self._key, obs, self._state, info = self._reset(key, self._params)
        return np.array(obs), _numpy(info)

    def step(self, action: Any):
        if self._state is None:
            raise gymnasium.error.ResetNeeded("got a step before the first reset; call reset().")
        action = _flat_action(self.action_space, self._env.action_spec, action)
        self._key, obs, self._state, reward, terminated, truncated, info = self._step(
            self._key, self._state, action, self._params
        )
        return np.array(obs), float(reward), bool(terminated), bool(truncated), _numpy(info)

    def render(self) -> np.ndarray | None:
        if self.render_mode is None:
            gymnasium.logger.warn("render() without a mode; export(..., render_mode='rgb_array').")
            return None
        if self._state is None:
            raise gymnasium.error.ResetNeeded("got a render before the first reset; call reset().")
        return self._env.render(jax.device_get(self._state), self._params)

    def _pure_reset(self, key, params):
        key, key_reset = jax.random.split(key)
        obs, state = self._env.reset(key_reset, params)
        return key, obs, state, self._mask(state, params)

    def _pure_step(self, key, state, action, params):
        key, key_step = jax.random.split(key)
        obs, state, reward, terminated, truncated, info = self._env.step(key_step, state, action, params)
        info = info | self._mask(state, params)
        return key, obs, state, reward, terminated, truncated, info

    def _mask(self, state, params) -> dict[str, jax.Array]:
        """Legal actions as gymnasium's `Discrete.sample(mask)` takes them: int8 `[A]`."""
        if not self._env.has_legal_actions:
            return {}
        return {"action_mask": self._env.legal_actions(state, params).astype(jnp.int8)}


class ExportedVectorEnv(gymnasium.vector.VectorEnv):
    """B lanes of one of our environments in gymnasium's SAME_STEP mode, one program a step."""

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}  # noqa: RUF012

    def __init__(self, env: Environment, params: Any, num_envs: int):
        """Hold B lanes of the task `params`."""
        self._vector = VectorEnv(_check_exportable(env))
        self._params = broadcast_params(params, num_envs)
        self._key = self._state = None
        self._reset, self._step = jax.jit(self._pure_reset), jax.jit(self._pure_step)
        self.num_envs = num_envs
        self.single_observation_space = box(env.obs_spec, env.obs_shape, env.obs_dtype)
        self.single_action_space = action_space(env)
        batch = gymnasium.vector.utils.batch_space
        self.observation_space = batch(self.single_observation_space, num_envs)
        self.action_space = batch(self.single_action_space, num_envs)

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        if options and "reset_mask" in options:
            raise ValueError("got a reset_mask, expected none: mode SAME_STEP resets by itself.")
        super().reset(seed=seed)
        key = jax.random.key(int(self.np_random.integers(2**31)))
        self._key, self._state = self._reset(key, self._params)
        return np.array(self._state.obs), {}

    def step(self, actions: Any):
        if self._state is None:
            raise gymnasium.error.ResetNeeded("got a step before the first reset; call reset().")
        actions = _flat_action(self.single_action_space, self._vector.env.action_spec, actions)
        self._key, self._state, out = self._step(self._key, self._state, actions)
        out = Transition(*(np.array(x) for x in out))
        done = out.terminated | out.truncated
        return out.obs, out.reward, out.terminated, out.truncated, _final_info(out, done)

    def _pure_reset(self, key, params):
        key, key_reset = jax.random.split(key)
        return key, self._vector.reset(key_reset, params)

    def _pure_step(self, key, state, actions):
        key, key_step = jax.random.split(key)
        return key, *self._vector.step(key_step, state, actions)


def export(
    env: Environment, params: Any, seed: int | None = None, render_mode: str | None = None
) -> ExportedEnv:
    """Give `env` with the task `params` as a `gymnasium.Env`; `seed` as if by `reset(seed=)`."""
    exported = ExportedEnv(env, params, render_mode)
    if seed is not None:
        gymnasium.Env.reset(exported, seed=seed)
    return exported


def export_vector(env: Environment, params: Any, num_envs: int) -> ExportedVectorEnv:
    """Give B lanes of `env` with the task `params` as a `gymnasium.vector.VectorEnv`."""
    return ExportedVectorEnv(env, params, num_envs)


def box(spec: tuple[Component, ...], shape: tuple[int, ...], dtype: Any) -> spaces.Box:
    """The Box of an observation; a category is the number that our observations show it as.

    A Box, and no Dict, even where categories stand beside reals: who learns from gymnasium reads vectors.
    """
    low = [0.0 if c.kind == "category" else c.low for c in spec]
    high = [c.cardinality - 1.0 if c.kind == "category" else c.high for c in spec]
    return spaces.Box(
        np.reshape(low, shape).astype(dtype), np.reshape(high, shape).astype(dtype), shape, dtype
    )


def action_space(env: Environment) -> spaces.Space:
    """Discrete for one category, MultiDiscrete for several, a Box for reals, a Dict by name for a mix."""
    spec = env.action_spec
    if env.is_discrete:
        return spaces.Discrete(spec[0].cardinality)
    if all(c.kind == "category" for c in spec):
        return spaces.MultiDiscrete([c.cardinality for c in spec])
    if all(c.kind == "real" for c in spec):
        return box(spec, (len(spec),), np.float32)
    # Pairs keep the order of the components; gymnasium sorts the keys of a dict.
    return spaces.Dict([(c.name, _scalar_space(c)) for c in spec])


def _scalar_space(component: Component) -> spaces.Space:
    if component.kind == "category":
        return spaces.Discrete(component.cardinality)
    return spaces.Box(component.low, component.high, (), np.float32)


def _flat_action(space: spaces.Space, spec: tuple[Component, ...], action: Any) -> jax.Array:
    """An action of the exported `space`, with any leading axes, as our environments take it."""
    if isinstance(space, spaces.Dict):
        action = flatten(layout_of(space, "action"), action)
    return jnp.asarray(np.asarray(action), blank_action(spec).dtype)


def _check_exportable(env: Environment) -> Environment:
    if not env.is_pure:
        raise ValueError(
            f"{env.name}: got an environment with side effects, expected a pure one; take it from "
            "its own source: gymnasium.make."
        )
    if env.num_players != 1:
        raise ValueError(
            f"{env.name}: got {env.num_players} players, expected 1, as gymnasium has; wrap it "
            "with an opponent first."
        )
    return env


def _spec(env: Environment, params: Any) -> gymnasium.envs.registration.EnvSpec:
    """What `gymnasium.make(exported.spec)` needs; a closure, since make() copies all else."""

    def build(**kwargs):
        return ExportedEnv(env, params, **kwargs)

    return gymnasium.envs.registration.EnvSpec(id=env.name, entry_point=build)


def _final_info(out: Transition, done: np.ndarray) -> dict[str, np.ndarray]:
    """Last observations as gymnasium gives them: objects, None where the lane goes on."""
    if not done.any():
        return {}
    final_obs = np.full(len(done), None, dtype=object)
    for lane in np.flatnonzero(done):
        final_obs[lane] = out.final_obs[lane]
    return {"final_obs": final_obs, "_final_obs": done}


def _numpy(info: dict[str, jax.Array]) -> dict[str, np.ndarray]:
    return {name: np.array(value) for name, value in info.items()}
