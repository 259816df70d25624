"""The environment contract: six values from `step`, tasks as params pytrees, component specs."""

import abc
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Params = Any  # a pytree of arrays: the task
State = Any  # a pytree of arrays with fixed dtypes


class Component(NamedTuple):
    """One scalar of an observation or an action; it drives the tokenizer."""

    name: str
    kind: Literal["real", "category"]
    low: float = -math.inf  # for kind "real"; infinite where the source gives no bound
    high: float = math.inf
    cardinality: int = 0  # for kind "category"


class Transition(NamedTuple):
    """Results of one step of B lanes beside the next state, in the order of gymnax 1.0."""

    obs: jax.Array  # [B, ...] after the step; after a reset where `envs.vector` reset the lane
    reward: jax.Array  # [B] float32, [B, 2] in a game of two
    terminated: jax.Array  # [B] bool: the task ended; nothing follows
    truncated: jax.Array  # [B] bool: the clock ran out; the return goes on, unseen
    final_obs: jax.Array  # [B, ...] the true last observation, also where the lane was reset
    # [B] bool: False where the step was only a reset and its action ignored (ALE); `()`: all are real
    valid: Any = ()


class Symmetries(NamedTuple):
    """Permutations of a board that leave a game what it is: value i of the turned one was at `cells[i]`."""

    cells: np.ndarray  # [S, cells] int32, of an observation `[*board, planes]` with its cells flattened
    moves: np.ndarray  # [S, A] int32, of masks and policies over the actions


class Environment(abc.ABC):
    """A pure environment: `reset` and `step` are functions of their arguments and never auto-reset.

    Signature of gymnax 1.0: `reset(key, params) -> obs, state` and `step(key, state, action,
    params) -> obs, state, reward, terminated, truncated, info`. One example each; `vmap` at the
    edge. An action of one category is int32 `[]`, of several int32 `[A]`; of reals, or of reals and
    categories in any order, float32 `[A]` in which categories are whole numbers. A category
    outside of its space counts as the nearest one inside.
    """

    name: str
    obs_spec: tuple[Component, ...]  # of the flattened observation
    obs_shape: tuple[int, ...]
    obs_dtype: Any = np.float32  # uint8 for pixels
    action_spec: tuple[Component, ...]
    max_steps: int  # the time limit under the default params
    num_players: int = 1  # 2: `reward` is float32 [2] and `current_player(state)` moves
    # False: stepping has side effects (ALE, gymnasium); exempt from jit = eager and vmap = loop.
    is_pure: bool = True
    # True: episodes live on the host; `step_on` steps and begins the next, in one call of it.
    is_hosted: bool = False
    # False: `step` ignores its key, so a batch need not draw one a lane.
    is_step_random: bool = True
    symmetries: Symmetries | None = None  # of a game on a board
    derived_fields: tuple[str, ...] = ()  # of the task: what its source computes from others
    make_options: Mapping[str, Any] = MappingProxyType({})  # static options that `make` was given
    # True: `legal_actions(state, params)` says which actions may be taken.
    has_legal_actions: bool = False

    @property
    @abc.abstractmethod
    def default_params(self) -> Params:
        """The nominal task."""

    @abc.abstractmethod
    def reset(self, key: jax.Array, params: Params) -> tuple[jax.Array, State]:
        """Draw a first observation `[*obs_shape]` and state of the task `params`."""

    @abc.abstractmethod
    def step(
        self, key: jax.Array, state: State, action: jax.Array, params: Params
    ) -> tuple[jax.Array, State, jax.Array, jax.Array, jax.Array, dict[str, jax.Array]]:
        """Advance one step; `terminated` and `truncated`, bool `[]`, are never merged.

        Returns observation `[*obs_shape]`, state, reward float32 `[]` (`[2]` in a game of two), the two
        flags and info.
        """

    @abc.abstractmethod
    def render(self, state: State, params: Params) -> np.ndarray:
        """Paint a state on the host as an RGB array uint8 `[H, W, 3]`, without a display."""

    def sample_params(self, key: jax.Array, split: str) -> Params:
        """Draw a task of `split`, leaves `[...]`; an environment of one task returns it whatever the key."""
        del key, split
        return self.default_params

    def legal_actions(self, state: State, params: Params) -> jax.Array:
        """Mask bool `[K]` of the categories that may be taken in `state`; all, unless overridden.

        Of several components that are categories the masks follow one another.
        """
        del state, params
        return jnp.ones((sum(c.cardinality for c in self.action_spec),), bool)

    def current_player(self, state: State) -> jax.Array:
        """The player who moves in `state`, int32 `[]`; the observation is that player's."""
        del state
        return jnp.zeros((), jnp.int32)

    def invariants(self, state: State, params: Params) -> dict[str, jax.Array]:
        """Named booleans `[]` that hold in every reachable state."""
        del params
        leaves = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]
        finite = [jnp.all(jnp.isfinite(x)) for x in leaves]
        return {"finite": jnp.all(jnp.stack(finite)) if finite else jnp.array(True)}

    @property
    def is_discrete(self) -> bool:
        """Whether the action is one category (int32 `[]`)."""
        return is_one_category(self.action_spec)


def is_one_category(spec: tuple[Component, ...]) -> bool:
    """Whether `spec` is a single category, whose values are int32 without an axis of components."""
    return len(spec) == 1 and spec[0].kind == "category"


def blank_action(spec: tuple[Component, ...]) -> jax.Array:
    """Zeros of an action's shape and dtype: int32 `[]` or `[A]` of categories alone, else float32 `[A]`."""
    dtype = jnp.int32 if all(c.kind == "category" for c in spec) else jnp.float32
    return jnp.zeros(() if is_one_category(spec) else (len(spec),), dtype)


def sample_action(key: jax.Array, spec: tuple[Component, ...], legal: jax.Array | None = None) -> jax.Array:
    """Draw a uniform action of `spec`, shaped as `blank_action`.

    `legal` (bool `[..., K]`, `Environment.legal_actions`) restricts the draw of one category, one a
    mask. An unbounded component is drawn from a standard normal.
    """
    if legal is not None:
        return jax.random.categorical(key, jnp.where(legal, 0.0, -jnp.inf)).astype(jnp.int32)
    if is_one_category(spec):
        return jax.random.randint(key, (), 0, spec[0].cardinality, dtype=jnp.int32)
    if all(c.kind == "real" for c in spec):
        return _sample_reals(key, spec)
    key_category, key_real = jax.random.split(key)
    sizes = jnp.array([max(c.cardinality, 1) for c in spec], jnp.int32)
    drawn = jax.random.randint(key_category, sizes.shape, 0, sizes, dtype=jnp.int32)
    if all(c.kind == "category" for c in spec):
        return drawn
    is_category = jnp.array([c.kind == "category" for c in spec])
    return jnp.where(is_category, drawn.astype(jnp.float32), _sample_reals(key_real, spec))


def _sample_reals(key: jax.Array, spec: tuple[Component, ...]) -> jax.Array:
    """Uniform in their bounds, normal where there are none, float32 `[A]`; categories are as unbounded."""
    low = jnp.array([c.low for c in spec], jnp.float32)
    high = jnp.array([c.high for c in spec], jnp.float32)
    bounded = jnp.isfinite(low) & jnp.isfinite(high)
    key_uniform, key_normal = jax.random.split(key)
    unit = jax.random.uniform(key_uniform, low.shape)
    inside = jnp.where(bounded, low, 0.0) + unit * jnp.where(bounded, high - low, 1.0)
    return jnp.where(bounded, inside, jax.random.normal(key_normal, low.shape))


def clip_category(spec: tuple[Component, ...], action: jax.Array) -> jax.Array:
    """`action [...]` or `[..., A]`, categories moved to the nearest in their space.

    As plain environments take it; real actions outside their bounds are their source's business
    (`envs.wrappers.checked` refuses both).
    """
    if is_one_category(spec):
        return jnp.clip(action, 0, spec[0].cardinality - 1)
    if not any(c.kind == "category" for c in spec):
        return action
    is_category = [c.kind == "category" for c in spec]
    low = jnp.array([0.0 if is_one else -math.inf for is_one in is_category])
    high = jnp.array([c.cardinality - 1.0 if c.kind == "category" else math.inf for c in spec])
    if jnp.issubdtype(action.dtype, jnp.integer):
        return jnp.clip(action, low.astype(action.dtype), high.astype(action.dtype))
    lead = (None,) * (action.ndim - 1)
    nearest = jnp.where(jnp.array(is_category)[lead], jnp.round(action), action)
    return jnp.clip(nearest, low[lead], high[lead])


def contains(spec: tuple[Component, ...], value: jax.Array) -> jax.Array:
    """Whether, bool `[]`, `value` (flattened, `[len(spec)]`) lies in the space that `spec` lists."""
    flat = jnp.reshape(value, (-1,)).astype(jnp.float32)
    low = jnp.array([0.0 if c.kind == "category" else c.low for c in spec], jnp.float32)
    high = jnp.array([c.cardinality - 1.0 if c.kind == "category" else c.high for c in spec], jnp.float32)
    return jnp.all((flat >= low) & (flat <= high))
