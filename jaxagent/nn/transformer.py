"""The parts of the action-state transformer: token embeddings and pre-norm decoder blocks.

Odd choices, and why:
- an embedding is `table[value] + linear(features of the bin centre) + component + kind + domain`:
  bins alone share nothing with their neighbours, so a few demonstrations cannot interpolate;
- rotary positions run over *time*; the place within a transition is the component embedding;
- the mask is data, so pretraining, cloning and cached acting run the same blocks.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxagent.config import TransformerConfig
from jaxagent.nn import attention
from jaxagent.nn.dense import Dense, DenseGeneral
from jaxagent.tokens.scalar import unit_centres
from jaxagent.tokens.stream import OBS, Tokens
from kernels import decode, mlp
from kernels.attention.masks import Sight

GATE_BIAS = 2.0  # of gates: they begin at 0.12
NUM_FREQUENCIES = 6  # sin and cos of pi 2^k u, k = 0..5, beside the bin centre u itself


class Vocabulary(NamedTuple):
    """Sizes of the embedding tables."""

    num_bins: int
    num_categories: int
    num_components: int
    num_domains: int
    patch_size: int = 0  # numbers in a patch of an observation; 0: observations are tokens

    @property
    def size(self) -> int:
        """Number of tokens."""
        return self.num_bins + self.num_categories


def features(unit: jax.Array) -> jax.Array:
    """Features of places in the warped space: `[...]` to `[..., 2 F + 1]`."""
    frequencies = 2.0 ** jnp.arange(NUM_FREQUENCIES, dtype=jnp.float32)
    angle = jnp.pi * unit[..., None] * frequencies[(None,) * unit.ndim]
    return jnp.concatenate([unit[..., None], jnp.sin(angle), jnp.cos(angle)], axis=-1)


def value_features(vocabulary: Vocabulary) -> jax.Array:
    """Features of each token's value: `[V + K, 2 F + 1]`; zero for categories."""
    of_bins = features(unit_centres(vocabulary.num_bins))
    return jnp.pad(of_bins, ((0, vocabulary.num_categories), (0, 0)))


def value_table(module: nn.Module, vocabulary: Vocabulary, width: int) -> jax.Array:
    """The vectors `[V + K, width]` of all tokens' values, made of parameters of `module`.

    One small product makes the whole table; looking it up is cheaper than per-token features.
    """
    linear = module.param("features", nn.initializers.lecun_normal(), (2 * NUM_FREQUENCIES + 1, width))
    table = module.param("value", nn.initializers.normal(0.02), (vocabulary.size, width))
    return table + value_features(vocabulary) @ linear


def identities(
    module: nn.Module, vocabulary: Vocabulary, width: int, component: Any, kind: Any, domain: Any
) -> jax.Array:
    """What is known of a token beside its value, `[..., width]`, made of parameters of `module`.

    Ids are int32, `component [...]`, `kind [...]` and `domain []`.
    """

    def table(name: str, size: int) -> jax.Array:
        return module.param(name, nn.initializers.normal(0.02), (size, width), jnp.float32)

    ids = table("component", vocabulary.num_components)[component]
    ids = ids + table("kind", 2)[kind]
    return ids + table("domain", vocabulary.num_domains)[domain][(None,) * (ids.ndim - 1)]


class Embedding(nn.Module):
    """Tokens `[B, L]` to vectors `[B, L, D]`."""

    vocabulary: Vocabulary
    width: int

    @nn.compact
    def __call__(self, tokens: Tokens) -> jax.Array:
        values = value_table(self, self.vocabulary, self.width)
        ids = identities(self, self.vocabulary, self.width, tokens.component, tokens.kind, tokens.domain)
        x = values[tokens.value]
        if self.vocabulary.patch_size:
            drawn = Dense(self.width, name="patch")(tokens.patch)
            x = jnp.where((tokens.kind == OBS)[None, :, None], drawn, x)
        return x + ids[None]


def rms_norm(x: jax.Array, name: str) -> jax.Array:
    """Root-mean-square norm of `x [..., D]` (Zhang and Sennrich 2019), computed in float32 always."""
    return nn.RMSNorm(name=name)(x.astype(jnp.float32)).astype(x.dtype)


class Block(nn.Module):
    """Attention and MLP, each behind an RMS norm and added to the stream.

    `x [B, L, D]`, `time [L]`, `mask [B, L, Lk]` or a sight; returns `x` and its keys and values.
    """

    config: TransformerConfig
    band: attention.Band | None = None

    @nn.compact
    def __call__(
        self, x: jax.Array, time: jax.Array, mask: jax.Array | Sight, past: attention.Past | None
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        c = self.config
        dense = functools.partial(DenseGeneral, use_bias=False, dtype=jnp.dtype(c.dtype))
        head = (c.num_heads, c.width // c.num_heads)

        norm = rms_norm(x, "attention_norm")
        rotate = attention.rotary if c.positions == "rotary" else lambda x, time: x
        query = rotate(dense(head, name="query")(norm), time)
        key = rotate(dense(head, name="key")(norm), time)
        value = dense(head, name="value")(norm)
        key, value = attention.remember(past, key, value)
        mixed = attention.mix(c.attention, query, key, value, mask, self.band)
        is_acting = past is not None and past.slot is not None
        if is_acting and c.gate == "sum" and decode.chosen(x.dtype, c.width) != "xla":
            return self._behind(x, mixed), (key, value)
        x = self._join(x, dense(c.width, axis=(-2, -1), name="output")(mixed), "attention_gate")
        return self._join(x, self._mlp(rms_norm(x, "mlp_norm")), "mlp_gate"), (key, value)

    def _behind(self, x: jax.Array, mixed: jax.Array) -> jax.Array:
        """All behind the attention `[B, L, H, D / H]`, by a kernel of few rows: the same parameters."""
        c = self.config
        output = _Kernel((c.width, c.width), mixed.shape[-2:], name="output")()
        weights = [output.reshape(c.width, c.width), *self._wide()]
        output, up, down = (w.astype(x.dtype) for w in weights)
        weights = decode.Weights(output, _Scale(c.width, name="mlp_norm")(), up, down)
        return decode.behind(x, mixed.reshape(x.shape), weights)

    def _wide(self) -> tuple[jax.Array, jax.Array]:
        """Weights of the wide layer and of the way back."""
        width, wide = self.config.width, self.config.mlp_factor * self.config.width
        return _Kernel((width, wide), name="up")(), _Kernel((wide, width), name="down")()

    def _mlp(self, x: jax.Array) -> jax.Array:
        """The wide layer and back, `[B, L, D]`; a kernel, where one is chosen, takes the same parameters."""
        c = self.config
        dense = functools.partial(DenseGeneral, use_bias=False, dtype=jnp.dtype(c.dtype))
        wide = c.mlp_factor * c.width
        if mlp.chosen(x.dtype, c.width) != "xla":
            return mlp.mlp(x, *(w.astype(x.dtype) for w in self._wide()))
        hidden = dense(wide, name="up")(x)
        hidden = nn.gelu(hidden, approximate=True)  # the erf form is 1.15x slower on a CPU
        return dense(c.width, name="down")(hidden)

    def _join(self, x: jax.Array, y: jax.Array, name: str) -> jax.Array:
        """The stream `x [B, L, D]` with what a sublayer says of it, `y [B, L, D]`."""
        return x + y if self.config.gate == "sum" else Gate(self.config, name=name)(x, nn.relu(y))


class _Kernel(nn.Module):
    """The weights `[D, F]` of a dense layer of this name, to multiply by elsewhere; `heads` splits D."""

    shape: tuple[int, int]
    heads: tuple[int, ...] = ()

    @nn.compact
    def __call__(self) -> jax.Array:
        def init(key: jax.Array) -> jax.Array:
            flat = nn.initializers.lecun_normal()(key, self.shape)
            return flat.reshape(*(self.heads or self.shape[:1]), self.shape[1])

        return self.param("kernel", init)


class _Scale(nn.Module):
    """The scale `[D]` of a norm of this name."""

    size: int

    @nn.compact
    def __call__(self) -> jax.Array:
        return self.param("scale", nn.initializers.ones, (self.size,))


class Gate(nn.Module):
    """A gate as a GRU's between the stream and a sublayer (GTrXL, Parisotto et al. 2020, section 3.2).

    Its bias lets it begin near the identity, so that a policy can act on what it sees now first.
    """

    config: TransformerConfig

    @nn.compact
    def __call__(self, x: jax.Array, y: jax.Array) -> jax.Array:
        """The next stream `[B, L, D]` of stream `x` and sublayer `y`, `[B, L, D]`."""
        width = self.config.width
        dense = functools.partial(Dense, use_bias=False, dtype=jnp.dtype(self.config.dtype))
        of_y = jnp.split(dense(3 * width, name="y")(y), 3, axis=-1)
        of_x = jnp.split(dense(2 * width, name="x")(x), 2, axis=-1)
        bias = self.param("bias", nn.initializers.constant(GATE_BIAS), (width,)).astype(x.dtype)
        reset = jax.nn.sigmoid(of_y[0] + of_x[0])
        update = jax.nn.sigmoid(of_y[1] + of_x[1] - bias[None, None])
        new = jnp.tanh(of_y[2] + dense(width, name="reset")(reset * x))
        return (1.0 - update) * x + update * new


def run_blocks(
    config: TransformerConfig,
    x: jax.Array,
    time: jax.Array,
    mask: jax.Array | Sight,
    past: Sequence[attention.Past] | None,
    band: attention.Band | None = None,
) -> tuple[jax.Array, list[tuple[jax.Array, jax.Array]]]:
    """The trunk of every model here: positions, blocks, a final norm; called inside a module.

    `x [B, L, D]` embedded tokens, `time [L]`, `mask [B, L, Lk]` or a sight; returns float32 `[B, L, D]`
    and each layer's keys and values `[B, Lk, H, D / H]`. `band` as in `attention.mix`.
    """
    mask = attention.laid_out(
        config.attention, mask, jnp.dtype(config.dtype), config.width // config.num_heads
    )
    if config.positions == "learned":
        table = nn.Embed(config.context, config.width, name="position").embedding
        # A time beyond the table is NaN, not its last row.
        x = x + table.at[time].get(mode="fill", fill_value=jnp.nan)[None]
    x, remembered = x.astype(config.dtype), []
    for i in range(config.num_layers):
        block = Block(config, band, name=f"block_{i}")
        x, layer = block(x, time, mask, None if past is None else past[i])
        remembered.append(layer)
    return rms_norm(x, "norm").astype(jnp.float32), remembered


def num_parameters(params: Any) -> int:
    """Count the scalars of a pytree."""
    return sum(x.size for x in jax.tree.leaves(params))


def flops_per_token(config: TransformerConfig, outputs: int, period: int) -> int:
    """Floating-point operations of one training token, forward and backward (6 per weight used).

    Weights are those of matrix products, to a token's `outputs` too; attention adds 12 D per key seen
    (Kaplan et al. 2020, table 1, with the mean number of keys under the causal mask).
    """
    per_layer = (4 + 2 * config.mlp_factor) * config.width**2
    weights = config.num_layers * per_layer + config.width * outputs
    keys_seen = config.context * period / 2
    return int(6 * weights + 12 * config.num_layers * config.width * keys_seen)
