"""A policy and a value on one trunk: convolutions over boards, dense layers, or tokens."""

import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxagent.config import TrunkConfig
from jaxagent.nn.convolution import Conv
from jaxagent.nn.dense import Dense
from jaxagent.nn.token_trunk import TokenEncoder

HEAD_CHANNELS = 2  # of a convolutional head before its dense layers (Silver et al. 2017: 2 and 1)


class Trunk(nn.Module):
    """Residual blocks: 3 x 3 convolutions over `[B, H, W, C]`, or dense layers over `[B, n]`.

    Differs from AlphaZero's (Silver et al. 2017, "Methods"): layer normalisation before the layers
    of a block (He et al. 2016b) in place of batch normalisation after them.
    """

    config: TrunkConfig
    num_blocks: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = self._layer(x)
        for _ in range(self.num_blocks):
            y = self._layer(nn.relu(nn.LayerNorm()(x)))
            x = x + self._layer(nn.relu(nn.LayerNorm()(y)))
        return nn.relu(nn.LayerNorm()(x))

    def _layer(self, x: jax.Array) -> jax.Array:
        if self.config.channels:
            return Conv(self.config.channels, (3, 3))(x)
        return Dense(self.config.width)(x)


class Head(nn.Module):
    """Outputs `[B, size]` of a trunk's features `[B, ...]`; near 0 at first: a nearly uniform policy."""

    config: TrunkConfig
    size: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if self.config.channels:
            x = nn.relu(Conv(HEAD_CHANNELS, (1, 1))(x))
            x = x.reshape(x.shape[0], -1)
        if self.config.patch:
            x = jnp.mean(x, axis=1)
        x = nn.relu(Dense(self.config.width)(x))
        return Dense(self.size, kernel_init=_small)(x)


def encoder(config: TrunkConfig, name: str | None = None) -> nn.Module:
    """The module that makes features `[B, ...]` of observations, which `as_input` prepares."""
    kind = TokenEncoder if config.patch else Trunk
    return kind(config, config.num_blocks, name=name)


def as_input(config: TrunkConfig, obs: jax.Array) -> jax.Array:
    """Observations `[B, ...]` as they are, or flat `[B, n]` for dense layers, which know no places."""
    return obs if config.channels or config.patch else obs.reshape(obs.shape[0], -1)


class PolicyValueNet(nn.Module):
    """Logits `[B, A]` and a value `[B]`, in (-1, 1) where `is_bounded`, of observations `[B, ...]`.

    AlphaZero (Silver et al. 2017, "Methods: Neural network architecture"); see `Trunk`.
    """

    config: TrunkConfig
    num_actions: int
    is_bounded: bool

    @nn.compact
    def __call__(self, obs: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = encoder(self.config)(as_input(self.config, obs))
        logits = Head(self.config, self.num_actions, name="policy")(x)
        value = Head(self.config, 1, name="value")(x)[:, 0]
        return logits, jnp.tanh(value) if self.is_bounded else value


class PolicyValue(NamedTuple):
    """The network as plain functions of its parameters, a flax tree `{"params": ...}`."""

    net: PolicyValueNet
    obs_shape: tuple[int, ...]

    def init(self, key: jax.Array) -> Any:
        """Parameters of the trunk and both heads."""
        return self.net.init(key, jnp.zeros((1, *self.obs_shape)))

    def __call__(self, params: Any, obs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Logits `[B, A]` and values `[B]` of `obs [B, ...]`."""
        return self.net.apply(params, obs)


def policy_value(
    config: TrunkConfig, obs_shape: tuple[int, ...], num_actions: int, *, is_bounded: bool
) -> PolicyValue:
    """The network for observations `obs_shape`; raises ValueError as `check_board` does."""
    check_board(config, obs_shape)
    return PolicyValue(PolicyValueNet(config, num_actions, is_bounded), obs_shape)


def check_board(config: TrunkConfig, obs_shape: tuple[int, ...]) -> None:
    """Raise ValueError for convolutions over what is no board."""
    if config.channels and len(obs_shape) != 3:
        raise ValueError(
            f"TrunkConfig.channels: got {config.channels} for observations {obs_shape}, expected "
            "a board [H, W, C]; set channels to 0 for dense layers."
        )


def _small(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    return 0.01 / math.sqrt(shape[0]) * jax.random.normal(key, shape, dtype)
