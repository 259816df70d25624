"""Observations as tokens, and transformer blocks over those of one state: latents `[B, m, D]`.

Tokens of one state see each other (block-causal attention with a block a state); what came before
is in no token, so a prediction from them cannot see the future either.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxagent.config import TransformerConfig, TrunkConfig
from jaxagent.nn.dense import Dense
from jaxagent.nn.transformer import run_blocks
from jaxagent.tokens.patches import of_boards
from kernels.attention.masks import everyone


class TokenBlocks(nn.Module):
    """Blocks over tokens `[B, m, D]` that all see each other, and a norm."""

    config: TrunkConfig
    num_blocks: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c, size = self.config, x.shape[1]
        config = TransformerConfig(
            width=c.width, num_layers=self.num_blocks, num_heads=c.num_heads, positions="none"
        )
        return run_blocks(config, x, jnp.zeros((size,), jnp.int32), everyone(size), None)[0]


class TokenEncoder(nn.Module):
    """Latents `[B, m, D]` of observations: patches of a board, or the scalars of a vector."""

    config: TrunkConfig
    num_blocks: int

    @nn.compact
    def __call__(self, obs: jax.Array) -> jax.Array:
        obs = obs.astype(jnp.float32)
        cells = obs[..., None] if obs.ndim == 2 else of_boards(obs, self.config.patch)
        init = nn.initializers.normal(0.02)
        place = self.param("place", init, (cells.shape[1], self.config.width))
        if obs.ndim == 2:  # every scalar has its own direction
            direction = self.param("scalar", init, place.shape)
            x = cells * direction[None]
        else:
            x = Dense(self.config.width, name="patch")(cells)
        return TokenBlocks(self.config, self.num_blocks, name="blocks")(x + place[None])


class TokenTransition(nn.Module):
    """The next latent of a latent `[B, m, D]` and an action, which is one more token.

    An action is a category, int32 `[B]` of `num_actions`, or reals `[B, A]`, for which every domain
    has a layer of its own. MuZero's search steps with this module, and self-prediction trains it.
    """

    config: TrunkConfig
    num_blocks: int
    num_actions: int = 0

    @nn.compact
    def __call__(self, latent: jax.Array, action: jax.Array, domain: int = 0) -> jax.Array:
        x = jnp.concatenate([latent, self._token(action, domain)[:, None]], axis=1)
        return TokenBlocks(self.config, self.num_blocks, name="blocks")(x)[:, :-1]

    def _token(self, action: jax.Array, domain: int) -> jax.Array:
        # As large as the latents' entries, which have a norm behind them: a small one is not heard.
        if not jnp.issubdtype(action.dtype, jnp.integer):
            return nn.LayerNorm()(Dense(self.config.width, name=f"action_{domain}")(action))
        init = nn.initializers.normal(1.0)
        return self.param("action", init, (self.num_actions, self.config.width))[action]
