"""Environments whose randomness is a few random words: a batch draws them by hashing counters.

A key a lane costs a threefry a lane and step, more than a whole step of CartPole. Here a step takes
one key for the batch; a lane's words are a hash of (key, lane), a handful of integer operations
that XLA fuses into the arithmetic that uses them.
"""

import abc
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs.common.branch import select
from envs.tasks import make_task
from envs.types import Component, Environment, Params, State, blank_action, clip_category, is_one_category

Words = tuple[jax.Array, ...]  # uint32, [] or [B] each
Seed = tuple[jax.Array, jax.Array]  # uint32, of one key

GOLDEN = 0x9E3779B9  # 2^32 / golden ratio: neighbouring counters land far apart
RESET_STREAM, STEP_STREAM, ACTION_STREAM = 0x0, 0x5BD1E995, 0x27D4EB2F  # what the words are for


class WordEnvironment(Environment):
    """An environment of scalar fields: `first`, `advance` and `observe` say what it is.

    A state is a tree of scalars with a field `time`, params are scalars with a field `max_steps`;
    this frame owns the clock and the truncation. The three functions are written elementwise and
    serve one lane (every field `[]`) and a structure of arrays (every field `[B]`) alike, without
    `vmap`, which would put the lanes of an observation first and cost MinAtar a factor of five.
    """

    defaults: Any  # a NamedTuple of numbers: the nominal task
    painter: Callable  # (state, params) -> uint8 [H, W, 3]
    num_reset_words: int
    num_step_words: int = 0

    @classmethod
    def make(cls, name: str, **overrides: float) -> tuple["WordEnvironment", Params]:
        """Build `name` and its task; raises as `envs.tasks.make_task`."""
        params = make_task(name, cls.defaults, overrides)
        task = cls.defaults._replace(**overrides)
        wrong = cls.contradiction(task)
        if wrong:
            raise ValueError(f"{name}: got {overrides}, expected {wrong}.")
        env = cls()
        env.name = name
        env.max_steps = int(task.max_steps)
        env.specify(task)
        return env, params

    @property
    def default_params(self) -> Params:
        return make_task(self.name, self.defaults, {})

    @classmethod
    def contradiction(cls, task: Any) -> str:
        """The relation between its numbers that `task` breaks, as text; "" if it breaks none."""
        del task
        return ""

    def specify(self, task: Any) -> None:
        """Set the specs that depend on the numbers of `task`; nothing, where none does."""
        del task

    @abc.abstractmethod
    def first(self, words: Words, params: Params) -> State:
        """First state, fields `[]` or `[B]`, from `num_reset_words` random words shaped alike."""

    @abc.abstractmethod
    def advance(
        self, words: Words, state: State, action: jax.Array, params: Params
    ) -> tuple[State, jax.Array, jax.Array]:
        """Next state (clock untouched), reward float32 and terminated bool: fields `[]` or `[B]`."""

    @abc.abstractmethod
    def observe(self, state: State, params: Params) -> jax.Array:
        """Observations of the agents: float32 `[*obs_shape]`, or `[*obs_shape, B]`, the lanes last."""

    def reset(self, key, params):
        state = self.first(key_words(key, self.num_reset_words), params)
        return self.observe(state, params), state

    def step(self, key, state, action, params):
        words = key_words(key, self.num_step_words)
        state, reward, terminated, truncated = self.step_words(words, state, action, params)
        return self.observe(state, params), state, reward, terminated, truncated, {}

    def render(self, state, params):
        return self.painter(state, params)

    def invariants(self, state, params):
        in_time = (state.time >= 0) & (state.time <= params.max_steps)
        return super().invariants(state, params) | {"in_time": in_time}

    def step_words(
        self, words: Words, state: State, action: jax.Array, params: Params
    ) -> tuple[State, jax.Array, jax.Array, jax.Array]:
        """`step` from given words and without its observation; fields `[]` or `[B]`."""
        action = clip_category(self.action_spec, action)
        after, reward, terminated = self.advance(words, state, action, params)
        after = after._replace(time=state.time + 1)
        reward = jnp.asarray(reward, jnp.float32)  # never weakly typed
        return after, reward, terminated, after.time >= params.max_steps


def key_words(key: jax.Array, num_words: int) -> Words:
    """Random words of one lane from its own key: `num_words` arrays uint32 `[]`."""
    return tuple(jax.random.bits(key, (num_words,), jnp.uint32)) if num_words else ()


def lane_words(key: jax.Array, num_lanes: int, num_words: int, stream: int) -> Words:
    """Random words of a batch from one key: `num_words` arrays uint32 `[B]`.

    The finaliser is lowbias32 (Wellons, "Prospecting for hash functions", 2018) over a Weyl
    sequence, with half of the key before and half inside it, so that two keys do not give shifted
    copies of one sequence. Both halves are mixed themselves first: the keys of small seeds differ
    in few bits.
    """
    return words_of(seed_of(key), jnp.arange(num_lanes, dtype=jnp.uint32), num_words, stream)


def seed_of(key: jax.Array) -> Seed:
    """The two words of keys `[...]` that `words_of` hashes; `consume` tells that they are spent."""
    data = jax.random.key_data(key)
    return data[..., 0], data[..., -1]


def words_of(seed: Seed, lane: jax.Array, num_words: int, stream: int) -> Words:
    """The words of lanes alone, uint32, shaped as `lane`: element-wise, so that a kernel may draw them."""
    before = _mix(seed[0] ^ jnp.uint32(stream ^ GOLDEN))
    inside = _mix(seed[1] + before + jnp.uint32(2 * GOLDEN % 2**32))
    lanes = lane * jnp.uint32(num_words)
    counters = (lanes + jnp.uint32(i) for i in range(num_words))
    return tuple(_mix(c * jnp.uint32(GOLDEN) + before, inside) for c in counters)


class LaneStep(NamedTuple):
    """What came of a step; fields `[]` or `[B]`."""

    action: jax.Array
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array


def lane_step(
    env: WordEnvironment, act: Callable[[Words, State], jax.Array], params: Params
) -> Callable[[State, jax.Array, Seed], tuple[State, LaneStep]]:
    """`step(state, lane, seed)` of lanes alone, as `VectorEnv.step` has them by the key of the seed.

    A lane that ends is reset. `act(words, state)` is a policy of a category, which sees the state; its
    word is of `ACTION_STREAM`, as `lane_actions` has it. Fields are `[]` or `[B]`.
    """

    def step(state: State, lane: jax.Array, seed: Seed) -> tuple[State, LaneStep]:
        action = act(words_of(seed, lane, 1, ACTION_STREAM), state)
        words = words_of(seed, lane, env.num_step_words, STEP_STREAM)
        stepped, reward, terminated, truncated = env.step_words(words, state, action, params)
        fresh = env.first(words_of(seed, lane, env.num_reset_words, RESET_STREAM), params)
        state = select(terminated | truncated, fresh, stepped)
        return state, LaneStep(action, reward, terminated, truncated)

    return step


def _mix(x: jax.Array, inside: jax.Array | None = None) -> jax.Array:
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = x if inside is None else x ^ inside
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def consume(key: jax.Array) -> None:
    """Tell the key-reuse checker that `key []` is spent: hashing its words alone would not.

    What is drawn here is dead code to XLA.
    """
    jax.random.bits(key, (), jnp.uint32)


def uniform(word: jax.Array, low: Any, high: Any) -> jax.Array:
    """Float32 in `[low, high)`, shaped as `word [...]`, from its upper 23 bits, as `jax.random.uniform`."""
    one_to_two = jax.lax.bitcast_convert_type((word >> 9) | jnp.uint32(0x3F800000), jnp.float32)
    return low + (one_to_two - 1.0) * (high - low)


def below(word: jax.Array, bound: int) -> jax.Array:
    """Int32 in `[0, bound)`, shaped as `word [...]`, from its upper 16 bits; `bound` at most 2^16.

    Multiply and shift (Lemire 2019): the bias is below `bound / 2^16`.
    """
    return (((word >> 16) * jnp.uint32(bound)) >> 16).astype(jnp.int32)


def lane_actions(key: jax.Array, num_lanes: int, spec: tuple[Component, ...]) -> jax.Array:
    """Uniform actions of a batch from one key, each shaped as `envs.types.blank_action`: `[B]` or `[B, A]`.

    The random policy at the speed of a word environment; unbounded components are refused.
    """
    consume(key)
    words = lane_words(key, num_lanes, len(spec), ACTION_STREAM)
    if is_one_category(spec):
        return below(words[0], spec[0].cardinality)
    if not all(c.kind == "category" or (math.isfinite(c.low) and math.isfinite(c.high)) for c in spec):
        raise ValueError("got an unbounded action component, expected bounds; draw it yourself.")
    dtype = blank_action(spec).dtype
    return jnp.stack([_column(word, c).astype(dtype) for word, c in zip(words, spec, strict=True)], axis=-1)


def _column(word: jax.Array, component: Component) -> jax.Array:
    if component.kind == "category":
        return below(word, component.cardinality)
    return uniform(word, component.low, component.high)
