"""Component-level tokens (PASTA, arXiv 2307.10936): one token per scalar of state and action.

One vocabulary serves all domains: tokens `[0, V)` are value bins, tokens `[V, V + K)` categories.
A real component uses the bins, a discrete action the categories; which scalar a token stands for is
said by its component id, not by its value.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.types import Component
from jaxagent.config import TokenConfig
from jaxagent.tokens import scalar
from jaxagent.tokens.scalar import Bins


class Domain(NamedTuple):
    """Sizes and ids of one domain of a stream; all static."""

    obs_size: int
    action_size: int
    action_cardinality: int  # 0: real actions
    index: int  # domain id
    first_component: int  # id of its first component in the shared table

    @property
    def period(self) -> int:
        """Tokens per transition, P."""
        return self.obs_size + self.action_size


class Codec(NamedTuple):
    """Fitted bins of one domain; `action` is () for a discrete action."""

    obs: Bins  # of n components
    action: Any  # `Bins` of m components, or ()


def domains(specs: list[tuple[tuple[Component, ...], tuple[Component, ...]]]) -> list[Domain]:
    """Number the components of all domains one after another."""
    result, first = [], 0
    for index, (obs_spec, action_spec) in enumerate(specs):
        cardinality = action_spec[0].cardinality
        result.append(Domain(len(obs_spec), len(action_spec), cardinality, index, first))
        first += len(obs_spec) + len(action_spec)
    return result


def vocabulary_size(config: TokenConfig, all_domains: list[Domain]) -> int:
    """Number of tokens, V + K: bins and the widest discrete action."""
    return config.num_bins + max(d.action_cardinality for d in all_domains)


def fit(
    obs: np.ndarray, action: np.ndarray, action_spec: tuple[Component, ...], config: TokenConfig
) -> Codec:
    """Fit bins on training data only: `obs [N, n]`, `action [N]` or `[N, m]`.

    Uniform action bins span the bounds of the spec where it has them, the data otherwise.
    """
    obs_bins = _fit(config.obs_bins, np.asarray(obs), config)
    if action_spec[0].kind == "category":
        return Codec(obs_bins, ())
    low = np.array([c.low for c in action_spec])
    high = np.array([c.high for c in action_spec])
    if config.action_bins == "uniform" and np.isfinite(low).all() and np.isfinite(high).all():
        return Codec(obs_bins, scalar.uniform(low, high, config.num_bins))
    return Codec(obs_bins, _fit(config.action_bins, np.asarray(action), config))


def encode_obs(codec: Codec, obs: jax.Array) -> jax.Array:
    """Tokens int32 `[..., n]` of observations `[..., n]`."""
    return scalar.encode(codec.obs, obs)


def encode_action(codec: Codec, domain: Domain, num_bins: int, action: jax.Array) -> jax.Array:
    """Tokens int32 `[..., m]` of actions int32 `[...]` or float32 `[..., m]`."""
    if domain.action_cardinality:
        return (action.astype(jnp.int32) + num_bins)[..., None]
    return scalar.encode(codec.action, action)


def decode_action(codec: Codec, domain: Domain, num_bins: int, tokens: jax.Array) -> jax.Array:
    """Actions int32 `[...]` or float32 `[..., m]` of tokens int32 `[..., m]`.

    The inverse of `encode_action` up to the bin.
    """
    if domain.action_cardinality:
        return tokens[..., 0] - num_bins
    return scalar.decode(codec.action, tokens)


def legal_tokens(domain: Domain, num_bins: int, vocabulary: int) -> jax.Array:
    """Mask, bool `[V + K]`, of the tokens that an action component may take."""
    token = jnp.arange(vocabulary)
    if domain.action_cardinality:
        return (token >= num_bins) & (token < num_bins + domain.action_cardinality)
    return token < num_bins


def choose_token(
    logits: jax.Array, legal: jax.Array, rule: Literal["argmax", "sample", "mean"], key: jax.Array
) -> jax.Array:
    """Choose one token int32 `[...]`, of those `legal [V + K]`, from `logits [..., V + K]` by the rule.

    "mean" takes the token nearest to the mean of the bin index, which for uniform bins is the mean
    action up to half a bin. The mean of categories means nothing: callers use argmax there.
    """
    masked = jnp.where(legal[(None,) * (logits.ndim - 1)], logits, -jnp.inf)
    if rule == "argmax":
        return jnp.argmax(masked, axis=-1).astype(jnp.int32)
    if rule == "sample":
        return jax.random.categorical(key, masked).astype(jnp.int32)
    index = jnp.arange(logits.shape[-1], dtype=jnp.float32)
    index = index[(None,) * (logits.ndim - 1)]
    mean = jnp.sum(jax.nn.softmax(masked) * index, axis=-1)
    return jnp.round(mean).astype(jnp.int32)


def _fit(rule: str, values: np.ndarray, config: TokenConfig) -> Bins:
    if rule == "quantile":
        return scalar.fit_quantile(values, config.num_bins)
    if rule == "mu_law":
        return scalar.fit_mu_law(values, config.num_bins, config.max_deviation, config.mu)
    return scalar.fit_uniform(values, config.num_bins, config.max_deviation)
