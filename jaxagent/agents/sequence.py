"""The action-state transformer as a policy, by next-token prediction."""

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
    """The policy's memory between steps."""

    cache: Cache  # keys and values of B lanes
    action: jax.Array  # [B, m] int32: the last action's tokens, fed in with the next observation


def policy(model: SequenceModel, domain: Domain, rule: Rule) -> Policy:
    """A policy that decodes one action token after another through the cache.

    One pass reads the last action with the new observation and yields the first action token; each
    further component costs one pass of one token. Its token is written again with the next
    observation, which keeps a chunk contiguous in the ring.
    """
    num_bins, size = model.vocabulary.num_bins, model.vocabulary.size
    legal = component.legal_tokens(domain, num_bins, size)
    rule = "argmax" if any(domain.action_sizes) and rule == "mean" else rule
    obs_size, period, rows = domain.obs_size, domain.period, model.config.context + 1

    def init(batch_size: int) -> Memory:
        action = jnp.zeros((batch_size, domain.action_size), jnp.int32)
        return Memory(model.init_cache(batch_size, period), action)

    obs_places = jnp.arange(obs_size, dtype=jnp.int32)
    action_places = jnp.arange(obs_size, period, dtype=jnp.int32)

    def act(params: SequenceParams, memory: Memory, obs, is_first, key):
        cache, time = memory.cache, memory.cache.time
        cache = cache._replace(start=jnp.where(is_first, time, cache.start))
        obs = obs.reshape(obs.shape[0], obs_size)
        value = jnp.concatenate(
            [memory.action, component.encode_obs(params.codec, domain, num_bins, obs)], axis=1
        )
        places = jnp.concatenate([action_places, obs_places])
        times = time - (places >= obs_size).astype(jnp.int32)
        tokens = stream.at_places(value, places, times, domain)
        states, cache = model.advance(params.network, tokens, (time % rows) * period, cache)
        keys = jax.random.split(key, domain.action_size)
        logits = model.read(params.network, None, states[:, -1])
        chosen = [component.choose_token(logits, legal[0], rule, keys[0])]
        next_slot = ((time + 1) % rows) * period
        for i in range(1, domain.action_size):
            tokens = stream.at_places(chosen[-1][:, None], action_places[i - 1 : i], time[None], domain)
            states, cache = model.advance(params.network, tokens, next_slot + (i - 1), cache)
            logits = model.read(params.network, None, states[:, -1])
            chosen.append(component.choose_token(logits, legal[i], rule, keys[i]))
        action = jnp.stack(chosen, axis=1)
        memory = Memory(cache._replace(time=time + 1), action)
        return component.decode_action(params.codec, domain, num_bins, action), (), memory

    return Policy(init, act)
