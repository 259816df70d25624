"""A tokenizer: the fitted bins of one domain, what they were fitted for, and how well they do."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.types import Component
from jaxagent.config import TokenConfig
from jaxagent.tokens import component, scalar
from jaxagent.tokens.component import Codec, Domain
from jaxagent.tokens.scalar import Bins

# As one program: whole data sets go through it, and each operation of its own would be compiled apart.
_to_unit = jax.jit(component.to_unit, static_argnums=1)


class TokenizerError(ValueError):
    """A tokenizer that meets data of another domain."""


class Tokenizer(NamedTuple):
    """Scalars of one domain's transitions to places in the warped space and back; categories stay ids."""

    name: str  # of the environment
    names: tuple[str, ...]  # of the P components
    domain: Domain
    codec: Codec
    config: TokenConfig

    @property
    def bins(self) -> Bins:
        """Bins of all P components, of the n observed ones where actions are categories alone."""
        if not self.codec.action:
            return self.codec.obs
        pairs = zip(*self.codec, strict=True)
        return Bins(*(jnp.concatenate([jnp.asarray(o), jnp.asarray(a)]) for o, a in pairs))

    def check(self, env: Any) -> None:
        """Raise `TokenizerError` unless `env` is the domain that the bins were fitted for."""
        names = _names(env.obs_spec, env.action_spec)
        if env.name != self.name or names != self.names:
            raise TokenizerError(
                f"tokenizer of {self.name} ({len(self.names)} components): got {env.name} "
                f"({len(names)} components), expected the domain it was fitted on; fit another."
            )

    def unit(self, obs: jax.Array, action: jax.Array) -> jax.Array:
        """Scalars `[..., P]` of observations `[..., n]` and actions as `unit_of_action` has them."""
        return jnp.concatenate([self.unit_of_obs(obs), self.unit_of_action(action)], axis=-1)

    def unit_of_obs(self, obs: jax.Array) -> jax.Array:
        """Scalars `[..., n]` of observations `[..., n]`."""
        return _to_unit(self.codec.obs, self.domain.obs_sizes, obs)

    def unit_of_action(self, action: jax.Array) -> jax.Array:
        """Scalars `[..., m]` of actions `[..., m]`, `[...]` of a lone category."""
        columns = action[..., None] if self.domain.action_cardinality else action
        return _to_unit(self.codec.action, self.domain.action_sizes, columns)

    def action_of_unit(self, unit: jax.Array) -> jax.Array:
        """Actions `[..., m]` of scalars `[..., m]`: float32, a category's id a whole number."""
        return component.from_unit(self.codec.action, self.domain.action_sizes, unit)

    def outside(self, obs: np.ndarray, action: np.ndarray) -> np.ndarray:
        """Number of values that the bins clip, int `[P]` a component, of `obs [N, n]`, `action [N, m]`.

        Of a lone category actions are `[N]`; categories are not clipped.
        """
        counts = np.zeros(self.domain.period, np.int64)
        reals, values = self._reals(obs, action)
        edges = np.asarray(self.bins.edges)[reals]
        counts[reals] = ((values < edges[:, 0]) | (values > edges[:, -1])).sum(axis=0)
        return counts

    def report(self, obs: np.ndarray, action: np.ndarray) -> dict[str, Any]:
        """Errors of `obs [N, n]` and `action [N, m]` through the bins, and tokens of a transition.

        `half_bin`: the largest error in the warped space times V, at most 1 inside the fitted range
        (reals: 0; two-hot: 0 but in the outer half bins). `error`: mean absolute error of each
        component as a share of its standard deviation; 0 of categories.
        """
        reals, values = self._reals(obs, action)
        bins, error = Bins(*(x[reals] for x in self.bins)), np.zeros(self.domain.period)
        unit = np.asarray(scalar.to_unit(bins, jnp.asarray(values)))
        kept = np.asarray(self._through(jnp.asarray(unit)))
        back = np.asarray(scalar.from_unit(bins, jnp.asarray(kept)))
        error[reals] = np.abs(back - values).mean(axis=0) / np.maximum(values.std(axis=0), scalar.MIN_SPREAD)
        is_component = self.config.granularity == "component"
        return {
            "half_bin": float(np.abs(kept - unit).max(initial=0.0) * self.config.num_bins),
            "error": error.round(5).tolist(),
            "outside": self.outside(obs, action).tolist(),
            "num_values": int(np.size(obs) + np.size(action)),
            "tokens_per_transition": self.domain.period if is_component else 2,
        }

    def _reals(self, obs: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places int `[R]` of the reals in a transition, and their values float32 `[N, R]`."""
        both = np.concatenate([obs, np.reshape(action, (len(obs), -1))], axis=1, dtype=np.float32)
        reals = np.flatnonzero(np.array(self.domain.sizes) == 0)
        return reals, both[:, reals]

    def _through(self, unit: jax.Array) -> jax.Array:
        """Places `[..., R]` of reals after a round trip through tokens."""
        v = self.config.num_bins
        centres = scalar.unit_centres(v)
        if self.config.values == "reals":
            return unit
        if self.config.values == "bins":
            return centres[scalar.bin_of(unit, v)]
        lower, weight = scalar.two_hot(unit, v)
        return centres[lower] + weight * (centres[lower + 1] - centres[lower])


def fit(env: Any, domain: Domain, obs: np.ndarray, action: np.ndarray, config: TokenConfig) -> Tokenizer:
    """Fit the bins of `env` on training data: `obs [N, n]`, `action [N, m]`, `[N]` of a lone category.

    Raises `TokenizerError` for data of another size.
    """
    num_actions = math.prod(action.shape[1:])
    if obs.shape[1] != domain.obs_size or num_actions != domain.action_size:
        raise TokenizerError(
            f"tokenizer of {env.name}: got {obs.shape[1]} + {num_actions} components, expected "
            f"{domain.obs_size} + {domain.action_size}; these are data of another domain."
        )
    codec = component.fit(obs, action, env.action_spec, config)
    return Tokenizer(env.name, _names(env.obs_spec, env.action_spec), domain, codec, config)


def _names(obs_spec: tuple[Component, ...], action_spec: tuple[Component, ...]) -> tuple[str, ...]:
    return tuple(c.name for c in (*obs_spec, *action_spec))
