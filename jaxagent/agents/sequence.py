"""The action-state transformer as a policy, by next-token prediction."""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxagent.nn.attention import Cache
from jaxagent.nn.sequence_model import SequenceModel
from jaxagent.tokens import component, stream
from jaxagent.tokens.component import Codec, Domain
from jaxagent.types import Policy

Rule = Literal["argmax", "sample", "mean"]


class SequenceParams(NamedTuple):
    """Parameters of the policy in one domain."""

    network: Any  # of the transformer
    codec: Codec  # of observations and actions


class Memory(NamedTuple):
    """What acting remembers between steps."""

    cache: Cache  # keys and values of B lanes
    action: jax.Array  # [B, m] int32: the last action's tokens, fed in with the next observation


def init_memory(model: SequenceModel, domain: Domain, batch_size: int) -> Memory:
    """An empty cache."""
    action = jnp.zeros((batch_size, domain.action_size), jnp.int32)
    return Memory(model.init_cache(batch_size, domain.period), action)


def step_places(domain: Domain) -> tuple[jax.Array, jax.Array]:
    """Places `[P]` of a step's tokens, the action before and then what is seen, and how long ago each was."""
    n, period = domain.obs_size, domain.period
    places = jnp.concatenate([jnp.arange(n, period), jnp.arange(n)]).astype(jnp.int32)
    return places, (places >= n).astype(jnp.int32)


def see(
    model: SequenceModel,
    domain: Domain,
    params: Any,
    memory: Memory,
    obs: jax.Array,
    is_first: jax.Array,
    patch: Any = (),
) -> tuple[jax.Array, Memory]:
    """The state `[B, D]` after the tokens of an observation, `obs [B, n]`, and the memory before its action.

    Where observations are cut into patches, these are `patch [B, n, F]`. One pass reads the last action
    with the observation. Raises ValueError for a memory of another batch size.
    """
    if obs.shape[0] != memory.action.shape[0]:
        raise ValueError(
            f"memory: got a carry of {memory.action.shape[0]} lanes for observations of {obs.shape[0]}, "
            "expected as many; begin with `init_carry(batch_size)`."
        )
    time, period, rows = memory.cache.time, domain.period, model.config.context + 1
    cache = memory.cache._replace(start=jnp.where(is_first, time, memory.cache.start))
    places, lag = step_places(domain)
    tokens = stream.at_places(jnp.concatenate([memory.action, obs], axis=1), places, time - lag, domain)
    tokens = tokens._replace(patch=stream.pad_patches(patch, before=domain.action_size))
    states, cache = model.advance(params, tokens, (time % rows) * period, cache)
    return states[:, -1], memory._replace(cache=cache)


def acted(memory: Memory, action: jax.Array) -> Memory:
    """The memory after an env step by the tokens `action [B, m]`, which the next pass reads."""
    return Memory(memory.cache._replace(time=memory.cache.time + 1), action)


def decode(
    model: SequenceModel,
    domain: Domain,
    params: Any,
    memory: Memory,
    obs: jax.Array,
    is_first: jax.Array,
    choose: Callable[[jax.Array, int], jax.Array],
    patch: Any = (),
) -> tuple[jax.Array, Memory]:
    """Tokens `[B, m]` of an action after those of an observation, as `see` has them, and the memory then.

    `choose(logits [B, V + K], i) -> token [B]` chooses the first component where the observation ends.
    Each further one costs one pass of one token, which is written again with the next observation:
    that keeps a chunk contiguous in the ring.
    """
    state, memory = see(model, domain, params, memory, obs, is_first, patch)
    cache, time, rows = memory.cache, memory.cache.time, model.config.context + 1
    chosen = [choose(model.read(params, None, state), 0)]
    for i in range(1, domain.action_size):
        place = jnp.array([domain.obs_size + i - 1], jnp.int32)
        tokens = stream.at_places(chosen[-1][:, None], place, time[None], domain)
        tokens = tokens._replace(patch=jax.tree.map(lambda x: jnp.zeros_like(x[:, :1]), patch))
        slot = ((time + 1) % rows) * domain.period + (i - 1)
        states, cache = model.advance(params, tokens, slot, cache)
        chosen.append(choose(model.read(params, None, states[:, -1]), i))
    action = jnp.stack(chosen, axis=1)
    return action, acted(memory._replace(cache=cache), action)


def policy(model: SequenceModel, domain: Domain, rule: Rule) -> Policy:
    """A policy that decodes one action token after another, by the rule, through the cache."""
    num_bins = model.vocabulary.num_bins
    legal = component.legal_tokens(domain, num_bins, model.vocabulary.size)
    rule = "argmax" if any(domain.action_sizes) and rule == "mean" else rule

    def act(params: SequenceParams, memory: Memory, obs, is_first, key):
        keys = jax.random.split(key, domain.action_size)

        def choose(logits: jax.Array, i: int) -> jax.Array:
            return component.choose_token(logits, legal[i], rule, keys[i])

        obs = component.encode_obs(params.codec, domain, num_bins, obs.reshape(obs.shape[0], -1))
        tokens, memory = decode(model, domain, params.network, memory, obs, is_first, choose)
        return component.decode_action(params.codec, domain, num_bins, tokens), (), memory

    return Policy(functools.partial(init_memory, model, domain), act)
