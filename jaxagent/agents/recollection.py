"""What agents remember of their episode: features to act on, found again when a segment is replayed.

The carry with which a segment began is part of what is learned from, as data: no gradient flows from
one segment into the one before.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs.types import Component, blank_action
from jaxagent.agents import actions
from jaxagent.config import MemoryConfig
from jaxagent.nn import memory as memories
from jaxagent.nn import stem
from jaxagent.types import no_carry, steps_of

Spec = tuple[Component, ...]


class Seen(NamedTuple):
    """What was seen and done over some steps, as learning reads it again; leaves `[T, B, ...]`."""

    obs: jax.Array  # [T, B, n], or as the agent reads them
    raw_action: jax.Array  # [T, B] int32 or [T, B, A]
    legal: Any  # [T, B, K] bool, or ()
    is_first: Any  # [T, B] bool; () without memory


class Recollection(NamedTuple):
    """What is carried from step to step with a memory."""

    memory: Any  # leaves [B, ...]
    raw_action: jax.Array  # [B] int32 or [B, A]: the last one


class Recall(NamedTuple):
    """Features of what is seen, over what is remembered; without memory the carry is `()`."""

    obs_size: int  # n, of the observations
    size: int  # F, of the features
    init: Callable  # key -> params
    init_carry: Callable  # batch size -> carry, leaves [B, ...]
    step: Callable  # (params, carry, obs [B, n], is_first [B]) -> features [B, F], carry
    acted: Callable  # (carry after `step`, raw action [B, ...]) -> carry that knows of it
    unroll: Callable  # (params, carry, Seen) -> features [T, B, F]
    # (params, carry, Seen, final_obs [T, B, n]) -> features [T, B, F] before and after each step
    peek: Callable

    @property
    def remembers(self) -> bool:
        """Whether there is a memory."""
        return has_memory(self.init_carry)


def has_memory(init_carry: Callable) -> bool:
    """Whether a function from a batch size to a carry makes one that holds anything."""
    return bool(jax.tree.leaves(jax.eval_shape(lambda: init_carry(1))))


def sight(obs_spec: Spec) -> Recall:
    """Features of what is seen now alone, and of any leading axes for `[T, B]`."""

    def step(params, carry, obs, is_first):
        del params, is_first
        return stem.features(obs_spec, obs), carry

    def unroll(params, carry, seen):
        del params, carry
        return stem.features(obs_spec, seen.obs)

    def peek(params, carry, seen, final_obs):
        return unroll(params, carry, seen), stem.features(obs_spec, final_obs)

    size = stem.num_features(obs_spec)

    def init(key):
        del key
        return ()

    def acted(carry, raw_action):
        del raw_action
        return carry

    return Recall(len(obs_spec), size, init, no_carry, step, acted, unroll, peek)


def recall(config: MemoryConfig, obs_spec: Spec, action_spec: Spec) -> Recall:
    """Features of a memory of observations, and of the actions between them."""
    size = stem.num_features(obs_spec) + (actions.num_outputs(action_spec) if config.last_action else 0)
    memory = memories.memory(config, size)

    def inputs(obs: jax.Array, last_action: jax.Array, is_first: jax.Array) -> jax.Array:
        """What the memory hears, `[..., size]`: no action at the beginning of an episode."""
        features = stem.features(obs_spec, obs)
        if not config.last_action:
            return features
        last = jnp.where(is_first[..., None], 0.0, actions.encode(last_action, action_spec))
        return jnp.concatenate([features, last], axis=-1)

    def heard(carry: Recollection, seen: Seen) -> jax.Array:
        before = jnp.concatenate([carry.raw_action[None], seen.raw_action[:-1]])
        return inputs(seen.obs, before, seen.is_first)

    def init_carry(batch_size: int) -> Recollection:
        blank = blank_action(action_spec)
        return Recollection(
            memory.init_carry(batch_size), jnp.broadcast_to(blank, (batch_size, *blank.shape))
        )

    def step(params, carry, obs, is_first):
        x = inputs(obs, carry.raw_action, is_first)
        features, kept = memory.step(params, carry.memory, x, is_first)
        return features, carry._replace(memory=kept)

    def acted(carry, raw_action):
        return carry._replace(raw_action=raw_action)

    def unroll(params, carry, seen):
        features, _ = memory.unroll(params, carry.memory, heard(carry, seen), seen.is_first)
        return features

    def peek(params, carry, seen, final_obs):
        after = inputs(final_obs, seen.raw_action, jnp.zeros_like(seen.is_first))
        return memory.peek(params, carry.memory, heard(carry, seen), seen.is_first, after)

    return Recall(len(obs_spec), config.width, memory.init, init_carry, step, acted, unroll, peek)


def as_items(batch: Any, carry: Any) -> Any:
    """Items of a loss `[s, n, ...]`, among which minibatches are drawn, of a batch `[s, T, b, ...]`.

    They are env steps; or with a memory, whose first `carry` has leaves `[s, b, ...]`, segments
    `[s, b, T, ...]` of lanes, each with its carry. `batch` is a NamedTuple with the field `carry`.
    """
    if not jax.tree.leaves(carry):
        return jax.tree.map(steps_of, batch)
    return jax.tree.map(lambda x: x.swapaxes(1, 2), batch)._replace(carry=carry)


def as_seen(items: Any) -> Any:
    """A minibatch of `as_items` as memories unroll it: env steps `[n, ...]`, or segments `[T, n, ...]`."""
    if not jax.tree.leaves(items.carry):
        return items
    over_time = jax.tree.map(lambda x: x.swapaxes(0, 1), items._replace(carry=()))
    return over_time._replace(carry=items.carry)
