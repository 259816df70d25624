"""Offline agents without a sequence: behavioural cloning from raw observations, the baseline."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxagent.agents.sequence import Rule
from jaxagent.data import normalize
from jaxagent.data.normalize import Moments
from jaxagent.nn.mlp import MLP
from jaxagent.tokens import component
from jaxagent.tokens.component import Codec, Domain
from jaxagent.types import Policy


class RawParams(NamedTuple):
    """Parameters of the raw-observation policy in one domain."""

    network: Any
    codec: Codec  # of the actions; observations come as they are
    moments: Moments  # of the observations


class RawNetwork(NamedTuple):
    """An MLP from standardised observations to the logits of every action component.

    Its outputs are the transformer's action tokens and its loss the same cross-entropy, so that the
    two differ in what they read and in their trunk alone.
    """

    domain: Domain
    num_bins: int
    vocabulary_size: int
    hidden_sizes: tuple[int, ...]

    @property
    def module(self) -> MLP:
        """The MLP from observations `[..., n]` to logits `[..., m (V + K)]`."""
        outputs = self.domain.action_size * self.vocabulary_size
        return MLP((*self.hidden_sizes, outputs), activation=jax.nn.relu, output_scale=0.1)

    def init(self, key: jax.Array) -> Any:
        """First parameters of the network."""
        return self.module.init(key, jnp.zeros((1, self.domain.obs_size)))

    def logits(self, params: Any, obs: jax.Array) -> jax.Array:
        """Logits `[..., m, V + K]` of standardised observations `[..., n]`."""
        output = self.module.apply(params, obs)
        shape = (*obs.shape[:-1], self.domain.action_size, self.vocabulary_size)
        return jnp.reshape(output, shape)


def cloning_loss(
    network: RawNetwork, params: Any, obs: jax.Array, action: jax.Array, weight: jax.Array
) -> jax.Array:
    """Mean cross-entropy `[]` of actions given standardised `obs [B, K, n]` alone.

    `action [B, K, m]` are scalars as `component.tokens_of` takes them; `weight [B, K]` drops the steps
    that are padding.
    """
    action = component.tokens_of(network.domain.action_sizes, network.num_bins, action)
    log_probs = jax.nn.log_softmax(network.logits(params, obs))
    nll = -jnp.take_along_axis(log_probs, action[..., None], axis=-1)[..., 0]
    weight = weight.astype(nll.dtype)[..., None]
    total = jnp.sum(jnp.broadcast_to(weight, nll.shape))
    return jnp.sum(nll * weight) / jnp.maximum(total, 1.0)


def raw_policy(network: RawNetwork, rule: Rule) -> Policy:
    """A policy by the same decoding rule as the transformer's, one pass per step.

    Where an action has a category, "mean" is argmax for all of its components.
    """
    domain, num_bins = network.domain, network.num_bins
    legal = component.legal_tokens(domain, num_bins, network.vocabulary_size)
    rule = "argmax" if any(domain.action_sizes) and rule == "mean" else rule

    def act(params: RawParams, carry, obs, is_first, key):
        del is_first
        obs = normalize.apply(params.moments, obs.reshape(obs.shape[0], -1))
        logits = network.logits(params.network, obs)
        tokens = component.choose_token(logits, legal, rule, key)
        return component.decode_action(params.codec, domain, num_bins, tokens), (), carry

    return Policy(lambda batch_size: (), act)
