"""A model of the world in latent space: encoder, transition, and heads that read the latent.

The transition is what MuZero's search steps with, and what a self-predictive loss trains.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxagent.config import LatentConfig
from jaxagent.nn.dense import Dense
from jaxagent.nn.policy_value import Head, Trunk, as_input, check_board, encoder
from jaxagent.nn.token_trunk import TokenTransition

MIN_RANGE = 1e-5  # of a latent, below which it is not stretched
NEAR, NEAREST = 1e-6, 0.01  # of the largest number and of the range, within which another is as large


def rescale(latent: jax.Array) -> jax.Array:
    """Latents `[B, ...]` to [0, 1], one by one (MuZero, Schrittwieser et al. 2020, appendix G)."""
    low, high = _ends(latent)
    return (latent - low) / jnp.maximum(high - low, MIN_RANGE)


@jax.custom_jvp
def _ends(latent: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The least and the largest number `[B, 1, ...]` of latents `[B, ...]`."""
    axes = tuple(range(1, latent.ndim))
    low, high = (f(latent, axis=axes, keepdims=True) for f in (jnp.min, jnp.max))
    return low, high


@_ends.defjvp
def _ends_jvp(primals: tuple, tangents: tuple) -> tuple:
    """As JAX has it, those at an end share in it, but they are found by being near.

    Found by being equal, none is where the compiler computes `latent` twice and rounds it in two ways: 0 / 0.
    """
    (latent,), (change,) = primals, tangents
    axes = tuple(range(1, latent.ndim))
    low, high = _ends(latent)
    near = jnp.minimum(NEAR * jnp.maximum(jnp.abs(low), jnp.abs(high)), NEAREST * (high - low))

    def share(is_end: jax.Array) -> jax.Array:
        count = jnp.sum(is_end, axis=axes, keepdims=True, dtype=latent.dtype)
        return jnp.sum(jnp.where(is_end, change, 0.0), axis=axes, keepdims=True) / jnp.maximum(count, 1.0)

    return (low, high), (share(latent <= low + near), share(latent >= high - near))


class Transition(nn.Module):
    """The next latent of a latent `[B, ...]` and an action `[B]`."""

    config: LatentConfig
    num_actions: int

    @nn.compact
    def __call__(self, latent: jax.Array, action: jax.Array) -> jax.Array:
        told = jax.nn.one_hot(action, self.num_actions)
        told = told.reshape(told.shape[0], *(1,) * (latent.ndim - 2), self.num_actions)
        planes = jnp.broadcast_to(told, (*latent.shape[:-1], self.num_actions))
        change = Trunk(self.config.trunk, self.config.transition_blocks)(
            jnp.concatenate([latent, planes], axis=-1)
        )
        return rescale(latent + change)


class LatentNet(nn.Module):
    """Encoder, transition, heads and projections of the model, a method each."""

    config: LatentConfig
    num_actions: int

    def setup(self) -> None:
        """Name the parts."""
        config, trunk = self.config, self.config.trunk
        self.encoder = encoder(trunk)
        self.transition = (
            TokenTransition(trunk, config.transition_blocks, self.num_actions)
            if trunk.patch
            else Transition(config, self.num_actions)
        )
        self.policy_head = Head(trunk, self.num_actions)
        self.value_head = Head(trunk, config.num_bins)
        self.reward_head = Head(trunk, config.num_bins)
        self.projector = Projector(config.projection_size)
        self.predictor = Projector(config.projection_size)

    def encode(self, obs: jax.Array) -> jax.Array:
        """Latents `[B, ...]` of observations `[B, ...]`; tokens have a norm of their own."""
        latent = self.encoder(as_input(self.config.trunk, obs))
        return latent if self.config.trunk.patch else rescale(latent)

    def step(self, latent: jax.Array, action: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Next latents `[B, ...]` and reward logits `[B, V]`, of latents `[B, ...]` and actions `[B]`."""
        after = self.transition(latent, action)
        return after, self.reward_head(after)

    def judge(self, latent: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Policy logits `[B, A]` and value logits `[B, V]` of latents `[B, ...]`."""
        return self.policy_head(latent), self.value_head(latent)

    def project(self, latent: jax.Array) -> jax.Array:
        """The vector `[B, P]` in which latents `[B, ...]` are compared, or one a token, `[B, m, P]`."""
        is_tokens = self.config.trunk.patch > 0
        return self.projector(latent if is_tokens else latent.reshape(latent.shape[0], -1))

    def predict(self, projection: jax.Array) -> jax.Array:
        """Prediction of the true latent's projection, from the model's own; both `[B, P]` or `[B, m, P]`."""
        return self.predictor(projection)

    def __call__(
        self, obs: jax.Array, action: jax.Array
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array], jax.Array]:
        """Run every part once, on `obs [B, ...]` and `action [B]`, to make its parameters."""
        after, reward = self.step(self.encode(obs), action)
        return reward, self.judge(after), self.predict(self.project(after))


class Projector(nn.Module):
    """Two dense layers, `[..., D]` to `[..., size]` (EfficientZero, Ye et al. 2021, after SimSiam)."""

    size: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(nn.LayerNorm()(Dense(self.size)(x)))
        return Dense(self.size)(x)


class LatentModel(NamedTuple):
    """The parts as plain functions of the parameters, a flax tree `{"params": {part: ...}}`."""

    net: LatentNet
    obs_shape: tuple[int, ...]

    def init(self, key: jax.Array) -> Any:
        """Parameters of all parts."""
        return self.net.init(key, jnp.zeros((1, *self.obs_shape)), jnp.zeros((1,), jnp.int32))

    def encode(self, params: Any, obs: jax.Array) -> jax.Array:
        """Latents `[B, ...]` of `obs [B, ...]`, see `LatentNet.encode`."""
        return self.net.apply(params, obs, method="encode")

    def step(self, params: Any, latent: jax.Array, action: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Next latents `[B, ...]` and reward logits `[B, V]`, see `LatentNet.step`."""
        return self.net.apply(params, latent, action, method="step")  # type: ignore[return-value]

    def judge(self, params: Any, latent: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Policy logits `[B, A]` and value logits `[B, V]`, see `LatentNet.judge`."""
        return self.net.apply(params, latent, method="judge")

    def project(self, params: Any, latent: jax.Array) -> jax.Array:
        """Projections `[B, P]` of latents `[B, ...]`, see `LatentNet.project`."""
        return self.net.apply(params, latent, method="project")

    def predict(self, params: Any, projection: jax.Array) -> jax.Array:
        """Predicted projections `[B, P]` of projections `[B, P]`, see `LatentNet.predict`."""
        return self.net.apply(params, projection, method="predict")


def latent_model(config: LatentConfig, obs_shape: tuple[int, ...], num_actions: int) -> LatentModel:
    """The model for observations `obs_shape` and one category of actions."""
    check_board(config.trunk, obs_shape)
    return LatentModel(LatentNet(config, num_actions), obs_shape)
