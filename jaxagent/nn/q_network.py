"""Rainbow's network with SPR's parts: encoder, transition of latents, dueling head of returns."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxagent.config import QNetworkConfig
from jaxagent.nn.convolution import Conv
from jaxagent.nn.dense import Dense
from jaxagent.nn.gradients import scale_gradient
from jaxagent.nn.latent_model import rescale

# (channels, kernel, stride) of the layers; "nature": Mnih et al. 2015, "board": Young and Tian 2019
CONVOLUTIONS = {"nature": ((32, 8, 4), (64, 4, 2), (64, 3, 1)), "board": ((16, 3, 1),)}
IMPALA_CHANNELS = (16, 32, 32)  # of the three stages (Espeholt et al. 2018)
IMPALA_BLOCKS = 2  # residual ones in a stage


class Encoder(nn.Module):
    """Latents `[B, h, w, c]`, each within [0, 1], of frames or boards `[B, H, W, C]`.

    Integers are pixels, 255 the brightest. Dropout acts where the rng "dropout" is given.
    """

    config: QNetworkConfig

    @nn.compact
    def __call__(self, obs: jax.Array) -> jax.Array:
        x = _to_unit(obs).astype(self.config.dtype)
        if self.config.encoder == "impala":
            for channels in IMPALA_CHANNELS:
                x = self._drop(ImpalaStage(channels * self.config.width)(x))
            return rescale(nn.relu(x))
        for channels, kernel, stride in CONVOLUTIONS[self.config.encoder]:
            size = (kernel, kernel), (stride, stride)
            conv = Conv(channels * self.config.width, *size, padding="VALID", dtype=x.dtype)
            x = nn.relu(conv(x))
            x = self._drop(x)
        return rescale(x)

    def _drop(self, x: jax.Array) -> jax.Array:
        return nn.Dropout(self.config.dropout, deterministic=not self.has_rng("dropout"))(x)


class ImpalaStage(nn.Module):
    """Convolution, halving by maxima, residual blocks (Espeholt et al. 2018, figure 3).

    `[B, H, W, C]` to `[B, H / 2, W / 2, channels]`, halves rounded up.
    """

    channels: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        conv = partial(Conv, self.channels, (3, 3), dtype=x.dtype)
        x = conv()(x)
        x = nn.max_pool(x, (3, 3), (2, 2), "SAME")
        for _ in range(IMPALA_BLOCKS):
            y = conv()(nn.relu(x))
            x = x + conv()(nn.relu(y))
        return x


class ConvTransition(nn.Module):
    """The next latent of a latent `[B, h, w, c]` and an action `[B]` (SPR, appendix A).

    Differs: layer normalisation in place of batch normalisation, whose statistics would be another
    on every device.
    """

    num_actions: int

    @nn.compact
    def __call__(self, latent: jax.Array, action: jax.Array) -> jax.Array:
        dtype = latent.dtype
        conv = partial(Conv, latent.shape[-1], (3, 3), dtype=dtype)
        told = jax.nn.one_hot(action, self.num_actions, dtype=dtype)[:, None, None]
        planes = jnp.broadcast_to(told, (*latent.shape[:-1], self.num_actions))
        x = jnp.concatenate([latent, planes], axis=-1)
        x = nn.relu(conv()(x)).astype(jnp.float32)  # whose statistics need them
        x = nn.LayerNorm()(x).astype(dtype)
        return rescale(nn.relu(conv()(x)))


class NoisyDense(nn.Module):
    """A dense layer whose parameters carry factorised noise (Fortunato et al. 2018, section 3).

    `[B, inputs]` to `[B, features]`. `factors [inputs + features]` are `noise_factors`, of which one
    draw serves a whole batch; without them the noise is 0. It multiplies in the type of its input;
    the rest is float32.
    """

    features: int
    scale: float  # 0: a plain dense layer

    @nn.compact
    def __call__(self, x: jax.Array, factors: jax.Array | None = None) -> jax.Array:
        if self.scale == 0.0:
            return Dense(self.features, dtype=x.dtype)(x).astype(jnp.float32)
        size = x.shape[-1]
        kernel = self.param("kernel", _uniform(size), (size, self.features))
        bias = self.param("bias", _uniform(size), (self.features,))
        # The bias's scale as in the authors' code: by outputs, not by inputs.
        spread = self.param("kernel_scale", _constant(self.scale, size), (size, self.features))
        bias_spread = self.param("bias_scale", _constant(self.scale, self.features), bias.shape)
        if factors is None:
            return _product(x, kernel) + bias[None]
        of_inputs, of_outputs = factors[:size], factors[size:]
        kernel = kernel + spread * jnp.outer(of_inputs, of_outputs)
        return _product(x, kernel) + (bias + bias_spread * of_outputs)[None]


def noise_factors(key: jax.Array, size: int) -> jax.Array:
    """`sign(x) sqrt(|x|)` of standard normals `[size]` (ibid., eq. 10)."""
    x = jax.random.normal(key, (size,))
    return jnp.sign(x) * jnp.sqrt(jnp.abs(x))


class DuelingHead(nn.Module):
    """Logits `[B, A, Z]` of the distribution of returns (Wang et al. 2016; Bellemare et al. 2017).

    `project` is its first layer before the nonlinearity, which SPR compares. The gradient of values
    into the encoder is scaled by `1 / sqrt(2)`, as two streams add up there (Wang et al., 4.2).
    """

    config: QNetworkConfig
    num_actions: int

    def setup(self) -> None:
        """Value and advantage have a hidden layer each, or one for both."""
        c = self.config
        count = 1 if c.is_shared else 2
        self.hidden = [NoisyDense(c.hidden_size, c.noise) for _ in range(count)]
        self.value = NoisyDense(c.num_atoms, c.noise)
        self.advantage = NoisyDense(self.num_actions * c.num_atoms, c.noise)

    def project(self, latent: jax.Array) -> jax.Array:
        """Hidden units `[B, P]` before the nonlinearity, of latents `[B, ...]`, without noise."""
        return self._hidden(latent, [None, None])

    def _hidden(self, latent: jax.Array, factors: Sequence[jax.Array | None]) -> jax.Array:
        flat = latent.reshape(latent.shape[0], -1)
        layers = zip(self.hidden, factors, strict=False)
        return jnp.concatenate([layer(flat, f) for layer, f in layers], axis=-1)

    def _factors(self, num_inputs: int) -> Sequence[jax.Array | None]:
        """The noise of every layer, of one draw; None where there is none."""
        c, count = self.config, len(self.hidden)
        if c.noise == 0.0 or not self.has_rng("noise"):
            return [None] * (count + 2)
        inputs = [num_inputs] * count + [c.hidden_size] * 2
        outputs = [c.hidden_size] * count + [c.num_atoms, self.num_actions * c.num_atoms]
        ends = np.cumsum(np.add(inputs, outputs))
        # One draw and not eight: a generator is dozens of operations, each compiled and launched.
        return jnp.split(noise_factors(self.make_rng("noise"), int(ends[-1])), ends[:-1])

    def __call__(self, latent: jax.Array) -> jax.Array:
        latent = scale_gradient(latent, 2**-0.5)
        *of_hidden, of_value, of_advantage = self._factors(math.prod(latent.shape[1:]))
        hidden = nn.relu(self._hidden(latent, of_hidden))
        streams = [hidden] * 2 if self.config.is_shared else jnp.split(hidden, 2, axis=-1)
        value = self.value(streams[0], of_value)[:, None]
        advantage = self.advantage(streams[1], of_advantage)
        advantage = advantage.reshape(-1, self.num_actions, self.config.num_atoms)
        return value + advantage - jnp.mean(advantage, axis=1, keepdims=True)


class QNet(nn.Module):
    """Encoder, transition, head and predictor of the network, a method each."""

    config: QNetworkConfig
    num_actions: int

    def setup(self) -> None:
        """Name the parts."""
        self.encoder = Encoder(self.config)
        self.transition = ConvTransition(self.num_actions)
        self.head = DuelingHead(self.config, self.num_actions)
        streams = 1 if self.config.is_shared else 2
        self.predictor = Dense(streams * self.config.hidden_size)

    def encode(self, obs: jax.Array) -> jax.Array:
        """Latents `[B, h, w, c]` of observations `[B, H, W, C]`."""
        return self.encoder(obs)

    def step(self, latent: jax.Array, action: jax.Array) -> jax.Array:
        """Next latents of latents `[B, h, w, c]` and actions `[B]`."""
        return self.transition(latent, action)

    def judge(self, latent: jax.Array) -> jax.Array:
        """Logits `[B, A, Z]` of returns, of latents `[B, h, w, c]`."""
        return self.head(latent)

    def project(self, latent: jax.Array) -> jax.Array:
        """The vector `[B, P]` in which latents `[B, h, w, c]` are compared."""
        return self.head.project(latent)

    def predict(self, projection: jax.Array) -> jax.Array:
        """Prediction `[B, P]` of the true latent's projection, from the model's own `[B, P]`."""
        return self.predictor(projection)

    def __call__(self, obs: jax.Array, action: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Run every part once, on `obs [B, H, W, C]` and `action [B]`, to make its parameters."""
        after = self.step(self.encode(obs), action)
        return self.judge(after), self.predict(self.project(after))


class QNetwork(NamedTuple):
    """The parts as plain functions of the parameters `{"params": {part: ...}}`."""

    net: QNet
    obs_shape: tuple[int, ...]

    def init(self, key: jax.Array) -> Any:
        """Parameters of all parts."""
        return self.net.init(key, jnp.zeros((1, *self.obs_shape)), jnp.zeros((1,), jnp.int32))

    def encode(self, params: Any, obs: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Latents `[B, h, w, c]` of `obs [B, H, W, C]`, see `Encoder`; with a key, dropout."""
        rngs = None if key is None else {"dropout": key}
        return self.net.apply(params, obs, method="encode", rngs=rngs)

    def step(self, params: Any, latent: jax.Array, action: jax.Array) -> jax.Array:
        """Next latents of latents `[B, h, w, c]` and actions `[B]`, see `ConvTransition`."""
        return self.net.apply(params, latent, action, method="step")

    def judge(self, params: Any, latent: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Logits `[B, A, Z]` of latents `[B, h, w, c]`, see `DuelingHead`; with a key, noise."""
        rngs = None if key is None else {"noise": key}
        return self.net.apply(params, latent, method="judge", rngs=rngs)

    def project(self, params: Any, latent: jax.Array) -> jax.Array:
        """Projections `[B, P]` of latents `[B, h, w, c]`, see `DuelingHead.project`; without noise."""
        return self.net.apply(params, latent, method="project")

    def predict(self, params: Any, projection: jax.Array) -> jax.Array:
        """Predicted projections `[B, P]` of projections `[B, P]`, see `QNet.predict`."""
        return self.net.apply(params, projection, method="predict")


def q_network(config: QNetworkConfig, obs_shape: tuple[int, ...], num_actions: int) -> QNetwork:
    """The network for frames or boards `obs_shape` and one category of actions.

    Raises ValueError for observations that are no picture, or too small for the encoder.
    """
    if len(obs_shape) != 3:
        raise ValueError(
            f"Q-network: got observations {obs_shape}, expected frames or boards [H, W, C]; "
            "choose an environment of pictures, or PPO."
        )
    smallest = 36 if config.encoder == "nature" else 3
    if min(obs_shape[:2]) < smallest:
        raise ValueError(
            f'QNetworkConfig.encoder "{config.encoder}": got observations {obs_shape}, expected at '
            f'least {smallest} by {smallest}; choose "board" for small boards.'
        )
    return QNetwork(QNet(config, num_actions), obs_shape)


def _to_unit(obs: jax.Array) -> jax.Array:
    """Pixels 0 to 255 to [0, 1]; what is no integer as it is."""
    scale = 1.0 / 255.0 if jnp.issubdtype(obs.dtype, jnp.integer) else 1.0
    return obs.astype(jnp.float32) * scale


def _product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`x @ kernel` in the type of `x`, as float32."""
    return (x @ kernel.astype(x.dtype)).astype(jnp.float32)


def _uniform(size: int) -> Any:
    bound = 1.0 / math.sqrt(size)
    return lambda key, shape: jax.random.uniform(key, shape, minval=-bound, maxval=bound)


def _constant(scale: float, size: int) -> Any:
    return lambda key, shape: jnp.full(shape, scale / math.sqrt(size))
