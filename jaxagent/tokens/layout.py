"""The order of a transition's scalars among the tokens of a model, by granularity."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxagent.config import TokenConfig
from jaxagent.tokens.component import Domain


class Layout(NamedTuple):
    """The order of one domain's scalars among the tokens of a transition."""

    tokens: TokenConfig
    domain: Domain

    @property
    def is_component(self) -> bool:
        """Whether every scalar is a token."""
        return self.tokens.granularity == "component"

    @property
    def num_obs_tokens(self) -> int:
        """Tokens of a state."""
        return self.domain.obs_size if self.is_component else 1

    @property
    def num_tokens(self) -> int:
        """Tokens of a transition, G."""
        return self.domain.period if self.is_component else 2

    def kinds(self) -> jax.Array:
        """Kind of each token, int32 `[G]`: state or action."""
        return (jnp.arange(self.num_tokens) >= self.num_obs_tokens).astype(jnp.int32)

    def per_scalar(self, of_tokens: jax.Array) -> jax.Array:
        """Repeat what is said of tokens `[..., G]` for their scalars `[..., P]`."""
        if self.is_component:
            return of_tokens
        n, m = self.domain.obs_size, self.domain.action_size
        return jnp.repeat(of_tokens, jnp.array([n, m]), axis=-1, total_repeat_length=n + m)
