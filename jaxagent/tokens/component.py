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
    action_cardinality: int  # of a lone category; 0: of reals, or of several components
    index: int  # domain id
    first_component: int  # id of its first component in the shared table
    # Cardinality of each component, 0 of a real; () where all observations are reals, and where the
    # actions are reals or one category.
    obs_cardinalities: tuple[int, ...] = ()
    action_cardinalities: tuple[int, ...] = ()

    @property
    def period(self) -> int:
        """Tokens per transition, P."""
        return self.obs_size + self.action_size

    @property
    def obs_sizes(self) -> tuple[int, ...]:
        """Cardinality of each observed component, 0 of a real."""
        return self.obs_cardinalities or (0,) * self.obs_size

    @property
    def action_sizes(self) -> tuple[int, ...]:
        """Cardinality of each component of an action, 0 of a real."""
        return self.action_cardinalities or (self.action_cardinality,) * self.action_size

    @property
    def sizes(self) -> tuple[int, ...]:
        """Cardinality of each component of a transition, 0 of a real."""
        return (*self.obs_sizes, *self.action_sizes)

    @property
    def widest(self) -> int:
        """The largest cardinality of any component, 0 where all are reals."""
        return max(self.sizes, default=0)


class Codec(NamedTuple):
    """Fitted bins of one domain; `action` is () where it has categories alone."""

    obs: Bins  # of n components
    action: Any  # `Bins` of m components, or ()


def domains(specs: list[tuple[tuple[Component, ...], tuple[Component, ...]]]) -> list[Domain]:
    """Number the components of all domains one after another."""
    result, first = [], 0
    for index, (obs_spec, action_spec) in enumerate(specs):
        obs, action = (tuple(c.cardinality for c in spec) for spec in (obs_spec, action_spec))
        lone = action[0] if len(action) == 1 else 0
        result.append(
            Domain(
                len(obs),
                len(action),
                lone,
                index,
                first,
                obs if any(obs) else (),
                action if any(action) and not lone else (),
            )
        )
        first += len(obs_spec) + len(action_spec)
    return result


def fit(
    obs: np.ndarray, action: np.ndarray, action_spec: tuple[Component, ...], config: TokenConfig
) -> Codec:
    """Fit bins on training data only: `obs [N, n]`, `action [N]` or `[N, m]`.

    Uniform action bins span the bounds of the spec where it has them, the data otherwise.
    """
    obs_bins = _fit(config.obs_bins, np.asarray(obs), config)
    if all(c.kind == "category" for c in action_spec):
        return Codec(obs_bins, ())
    # A category beside reals gets bins that nobody asks for.
    low = np.array([c.low if c.kind == "real" else 0.0 for c in action_spec])
    high = np.array([c.high if c.kind == "real" else c.cardinality for c in action_spec])
    if config.action_bins == "uniform" and np.isfinite(low).all() and np.isfinite(high).all():
        return Codec(obs_bins, scalar.uniform(low, high, config.num_bins))
    return Codec(obs_bins, _fit(config.action_bins, np.asarray(action), config))


def encode_obs(codec: Codec, domain: Domain, num_bins: int, obs: jax.Array) -> jax.Array:
    """Tokens int32 `[..., n]` of observations `[..., n]`: bins of reals, ids of categories."""
    return _with_ids(domain.obs_sizes, num_bins, scalar.encode(codec.obs, obs), obs)


def encode_action(codec: Codec, domain: Domain, num_bins: int, action: jax.Array) -> jax.Array:
    """Tokens int32 `[..., m]` of actions: `[...]` of a lone category, else `[..., m]`."""
    columns = action[..., None] if domain.action_cardinality else action
    bins = columns.astype(jnp.int32) if all(domain.action_sizes) else scalar.encode(codec.action, columns)
    return _with_ids(domain.action_sizes, num_bins, bins, columns)


def to_unit(bins: Any, sizes: tuple[int, ...], values: jax.Array) -> jax.Array:
    """Scalars float32 `[..., C]` of values `[..., C]`: places in the warped space, a category's id.

    `sizes` are the components' cardinalities, 0 of a real; where all are categories, `bins` are not read.
    """
    values = jnp.asarray(values, jnp.float32)
    return values if all(sizes) else _where_category(sizes, values, scalar.to_unit(bins, values))


def from_unit(bins: Any, sizes: tuple[int, ...], unit: jax.Array) -> jax.Array:
    """The inverse of `to_unit`."""
    return unit if all(sizes) else _where_category(sizes, jnp.round(unit), scalar.from_unit(bins, unit))


def tokens_of(sizes: tuple[int, ...], num_bins: int, unit: jax.Array) -> jax.Array:
    """Tokens int32 `[..., C]` of scalars `[..., C]`: places of reals in the warped space, ids of categories.

    `sizes` are the components' cardinalities, 0 of a real.
    """
    return _with_ids(sizes, num_bins, scalar.bin_of(unit, num_bins), unit)


def two_hot(sizes: tuple[int, ...], num_bins: int, unit: jax.Array) -> tuple[jax.Array, jax.Array]:
    """As `scalar.two_hot` of scalars `[..., C]`; a category is the upper token, of weight 1."""
    lower, weight = scalar.two_hot(unit, num_bins)
    return _with_ids(sizes, num_bins - 1, lower, unit), _where_category(sizes, jnp.ones_like(weight), weight)


def _with_ids(sizes: tuple[int, ...], num_bins: int, bins: jax.Array, values: jax.Array) -> jax.Array:
    """Tokens `[..., C]`: of categories, where `sizes` are above 0, their ids in place of bins."""
    return _where_category(sizes, num_bins + values.astype(jnp.int32), bins) if any(sizes) else bins


def _where_category(sizes: tuple[int, ...], x: jax.Array, y: jax.Array) -> jax.Array:
    """`x [..., C]` for categories, where `sizes` are above 0, and `y [..., C]` for reals."""
    return jnp.where((jnp.array(sizes) > 0)[(None,) * (y.ndim - 1)], x, y) if any(sizes) else y


def decode_action(codec: Codec, domain: Domain, num_bins: int, tokens: jax.Array) -> jax.Array:
    """Actions of tokens int32 `[..., m]`: int32 of categories alone, `[...]` of a lone one, else float32.

    The inverse of `encode_action` up to the bin.
    """
    if domain.action_cardinality:
        return tokens[..., 0] - num_bins
    if all(domain.action_sizes):
        return tokens - num_bins
    values = scalar.decode(codec.action, jnp.minimum(tokens, num_bins - 1))
    return _where_category(domain.action_sizes, (tokens - num_bins).astype(values.dtype), values)


def legal_tokens(domain: Domain, num_bins: int, vocabulary: int) -> jax.Array:
    """Mask, bool `[m, V + K]`, of the tokens that each component of an action may take."""
    token = jnp.arange(vocabulary)[None]
    size = jnp.array(domain.action_sizes, jnp.int32)[:, None]
    of_category = (token >= num_bins) & (token < num_bins + size)
    return jnp.where(size > 0, of_category, token < num_bins)


def choose_token(
    logits: jax.Array, legal: jax.Array, rule: Literal["argmax", "sample", "mean"], key: jax.Array
) -> jax.Array:
    """Choose one token int32 `[...]`, of those `legal`, from `logits [..., V + K]` by the rule.

    `legal` is `[V + K]`, or has the last axes of the logits.

    "mean" takes the token nearest to the mean of the bin index, which for uniform bins is the mean
    action up to half a bin. The mean of categories means nothing: callers use argmax there.
    """
    masked = jnp.where(legal[(None,) * (logits.ndim - legal.ndim)], logits, -jnp.inf)
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
