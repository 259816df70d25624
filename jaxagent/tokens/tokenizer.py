"""A tokenizer: the fitted bins of one domain, what they were fitted for, and how well they do."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.types import Component
from jaxagent.config import TokenConfig
from jaxagent.tokens import component, scalar
from jaxagent.tokens.component import Codec, Domain
from jaxagent.tokens.scalar import Bins


class TokenizerError(ValueError):
    """A tokenizer that meets data of another domain."""


class Tokenizer(NamedTuple):
    """Scalars of one domain's transitions to places in the warped space and back."""

    name: str  # of the environment
    names: tuple[str, ...]  # of the P components
    domain: Domain
    codec: Codec
    config: TokenConfig

    @property
    def bins(self) -> Bins:
        """Bins of all P components."""
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
        """Places `[..., P]` of observations `[..., n]` and actions `[..., m]`."""
        return jnp.concatenate([self.unit_of_obs(obs), self.unit_of_action(action)], axis=-1)

    def unit_of_obs(self, obs: jax.Array) -> jax.Array:
        """Places `[..., n]` of observations `[..., n]`."""
        return scalar.to_unit(self.codec.obs, jnp.asarray(obs, jnp.float32))

    def unit_of_action(self, action: jax.Array) -> jax.Array:
        """Places `[..., m]` of actions `[..., m]`."""
        return scalar.to_unit(self.codec.action, jnp.asarray(action, jnp.float32))

    def action_of_unit(self, unit: jax.Array) -> jax.Array:
        """Actions `[..., m]` at places `[..., m]`."""
        return scalar.from_unit(self.codec.action, unit)

    def outside(self, obs: np.ndarray, action: np.ndarray) -> np.ndarray:
        """Number of values that the bins clip, int `[P]` a component, of `obs [N, n]`, `action [N, m]`."""
        both = np.concatenate([np.asarray(obs), np.asarray(action)], axis=1)
        edges = np.asarray(self.bins.edges)
        return ((both < edges[:, 0]) | (both > edges[:, -1])).sum(axis=0)

    def report(self, obs: np.ndarray, action: np.ndarray) -> dict[str, Any]:
        """Errors of `obs [N, n]` and `action [N, m]` through the bins, and tokens of a transition.

        `half_bin`: the largest error in the warped space times V, at most 1 inside the fitted range
        (reals: 0; two-hot: 0 but in the outer half bins). `error`: mean absolute error of each
        component as a share of its standard deviation.
        """
        both = np.concatenate([np.asarray(obs, np.float32), np.asarray(action, np.float32)], axis=1)
        unit = np.asarray(self.unit(obs, action))
        kept = np.asarray(self._through(jnp.asarray(unit)))
        back = np.asarray(scalar.from_unit(self.bins, jnp.asarray(kept)))
        spread = np.maximum(both.std(axis=0), scalar.MIN_SPREAD)
        is_component = self.config.granularity == "component"
        return {
            "half_bin": float(np.abs(kept - unit).max() * self.config.num_bins),
            "error": (np.abs(back - both).mean(axis=0) / spread).round(5).tolist(),
            "outside": self.outside(obs, action).tolist(),
            "num_values": int(both.size),
            "tokens_per_transition": self.domain.period if is_component else 2,
        }

    def _through(self, unit: jax.Array) -> jax.Array:
        """Places `[..., P]` after a round trip through tokens."""
        v = self.config.num_bins
        centres = scalar.unit_centres(v)
        if self.config.values == "reals":
            return unit
        if self.config.values == "bins":
            return centres[scalar.bin_of(unit, v)]
        lower, weight = scalar.two_hot(unit, v)
        return centres[lower] + weight * (centres[lower + 1] - centres[lower])


def fit(env: Any, domain: Domain, obs: np.ndarray, action: np.ndarray, config: TokenConfig) -> Tokenizer:
    """Fit the bins of `env` on training data: `obs [N, n]`, `action [N, m]`.

    Raises `TokenizerError` for categories, which lie in no warped space, or data
    of another size.
    """
    if domain.widest:
        raise TokenizerError(f"tokenizer of {env.name}: got categories, expected reals.")
    if obs.shape[1] != domain.obs_size or action.shape[1] != domain.action_size:
        raise TokenizerError(
            f"tokenizer of {env.name}: got {obs.shape[1]} + {action.shape[1]} components, expected "
            f"{domain.obs_size} + {domain.action_size}; these are data of another domain."
        )
    codec = component.fit(obs, action, env.action_spec, config)
    return Tokenizer(env.name, _names(env.obs_spec, env.action_spec), domain, codec, config)


def _names(obs_spec: tuple[Component, ...], action_spec: tuple[Component, ...]) -> tuple[str, ...]:
    return tuple(c.name for c in (*obs_spec, *action_spec))
