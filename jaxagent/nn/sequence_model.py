"""The action-state model of any granularity: transitions in, one prediction a scalar out.

A transition is n + m scalars in the tokenizer's warped space (`tokens/scalar.py`). Granularity says
how they become tokens: "component", one each, or "modality", one for the state and one for the
action. Values say what a scalar is: "bins", "two_hot" (between two bins) or "reals". Whatever the
choice, predictions come back as `[B, K, P, ...]`, one a scalar, so that objectives and measures are
written once. The trunk is `transformer.run_blocks`; a component model of bins has the parameters of
`transformer.model`, which acts with them through its cache.

Odd choices, and why:
- a modality's vector of bins is embedded by small embeddings side by side: a sum over components
  would forget whose value it was;
- its head makes a small vector a component, read against one table of bins: one matrix to n times
  V logits would be most of the parameters.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxagent.config import TokenConfig, TransformerConfig
from jaxagent.nn.dense import Dense
from jaxagent.nn.transformer import NUM_FREQUENCIES, Embedding, Vocabulary, run_blocks, value_features
from jaxagent.tokens import scalar, stream
from jaxagent.tokens.component import Domain

PART = 16  # width of one component inside a modality's token, on the way in
READ = 64  # and on the way out


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


def _features(unit: jax.Array) -> jax.Array:
    """The features of `transformer.value_features` at any place: `[...]` to `[..., 2 F + 1]`."""
    angle = jnp.pi * unit[..., None] * _frequencies(unit.ndim)
    return jnp.concatenate([unit[..., None], jnp.sin(angle), jnp.cos(angle)], axis=-1)


def _frequencies(lead: int) -> jax.Array:
    return (2.0 ** jnp.arange(NUM_FREQUENCIES, dtype=jnp.float32))[(None,) * lead]


class _Scalars(nn.Module):
    """Embed scalars `[...]` in the warped space as vectors `[..., width]`."""

    vocabulary: Vocabulary
    values: str
    width: int

    @nn.compact
    def __call__(self, unit: jax.Array) -> jax.Array:
        size = self.vocabulary.size
        linear = self.param("features", nn.initializers.lecun_normal(), (2 * NUM_FREQUENCIES + 1, self.width))
        if self.values == "reals":
            return _features(unit) @ linear
        table = self.param("value", nn.initializers.normal(0.02), (size, self.width))
        table = table + value_features(self.vocabulary) @ linear
        if self.values == "bins":
            return table[scalar.bin_of(unit, self.vocabulary.num_bins)]
        lower, weight = scalar.two_hot(unit, self.vocabulary.num_bins)
        return table[lower] + weight[..., None] * (table[lower + 1] - table[lower])


class _Stem(nn.Module):
    """Transitions `[B, K, P]` to tokens `[B, K, G, D]`."""

    vocabulary: Vocabulary
    values: str
    width: int

    @nn.compact
    def __call__(self, unit: jax.Array, layout: Layout) -> jax.Array:
        d, v = layout.domain, self.vocabulary
        if layout.is_component and self.values == "bins":
            batch_size, num_steps, period = unit.shape
            tokens = stream.flatten(
                scalar.bin_of(unit[..., : d.obs_size], v.num_bins),
                scalar.bin_of(unit[..., d.obs_size :], v.num_bins),
                jnp.zeros((batch_size, num_steps), jnp.int32),
                d,
            )
            x = Embedding(v, self.width, name="embedding")(tokens)
            return x.reshape(batch_size, num_steps, period, self.width)
        domain = self._table("domain", v.num_domains)[d.index]
        if layout.is_component:
            ids = self._table("component", v.num_components)[stream.component_ids(d)]
            ids = ids + self._table("kind", 2)[stream.kind_ids(d)] + domain[None]
            return _Scalars(v, self.values, self.width, name="scalars")(unit) + ids[None, None]
        parts = unit
        if self.values != "reals":
            parts = _Scalars(v, self.values, PART, name="scalars")(unit)
        split = {"obs": parts[:, :, : d.obs_size], "action": parts[:, :, d.obs_size :]}
        made = [
            Dense(self.width, name=f"{kind}_{d.index}")(x.reshape(*x.shape[:2], -1))
            for kind, x in split.items()
        ]
        ids = self._table("kind", 2) + domain[None]
        return jnp.stack(made, axis=2) + ids[None, None]

    def _table(self, name: str, size: int) -> jax.Array:
        return self.param(name, nn.initializers.normal(0.02), (size, self.width))


class _Head(nn.Module):
    """States of the tokens that scalars are read from, to what is predicted of each scalar.

    Products are of `dtype`; predictions are float32 whatever it is, as losses need them.
    """

    vocabulary: Vocabulary
    values: str
    dtype: str

    @nn.compact
    def __call__(self, hidden: jax.Array, layout: Layout) -> jax.Array:
        """`hidden [B, K, G, D]`, aligned with the tokens predicted: `[B, K, P]` or `[..., V]`."""
        outputs = 1 if self.values == "reals" else self.vocabulary.size
        if layout.is_component:
            read = self._dense(outputs, "scalar", use_bias=False)(hidden)
        else:
            read = self._vectors(hidden, layout, outputs)
        read = read.astype(jnp.float32)
        return read[..., 0] if self.values == "reals" else read

    def _dense(self, size: int, name: str, use_bias: bool = True) -> nn.Module:
        return Dense(size, use_bias=use_bias, dtype=jnp.dtype(self.dtype), name=name)

    def _vectors(self, hidden: jax.Array, layout: Layout, outputs: int) -> jax.Array:
        d, width = layout.domain, READ if outputs > 1 else 1
        parts = []
        for token, (kind, size) in enumerate((("obs", d.obs_size), ("action", d.action_size))):
            flat = self._dense(size * width, f"{kind}_{d.index}")(hidden[:, :, token])
            parts.append(flat.reshape(*flat.shape[:2], size, width))
        read = jnp.concatenate(parts, axis=2)
        return self._dense(outputs, "bins", use_bias=False)(read) if outputs > 1 else read


class SequenceNetwork(nn.Module):
    """Stem, trunk and head; the mask vector stands for tokens that are hidden."""

    config: TransformerConfig
    vocabulary: Vocabulary
    values: str

    def setup(self) -> None:
        """Name the parts."""
        self.stem = _Stem(self.vocabulary, self.values, self.config.width)
        self.trunk = _Trunk(self.config)
        self.head = _Head(self.vocabulary, self.values, self.config.dtype)
        self.mask = self.param("mask", nn.initializers.normal(0.02), (self.config.width,))

    def encode(
        self,
        unit: jax.Array,
        hidden: jax.Array | None,
        attention: jax.Array,
        layout: Layout,
        num_tokens: int | None,
        is_causal: bool,
    ) -> jax.Array:
        """States `[B, L, D]` of the tokens of `unit [B, K, P]`; see `SequenceModel.encode`."""
        x = self.stem(unit, layout)
        batch_size, num_steps, group, width = x.shape
        if hidden is not None:
            # What is known of a hidden token: that it is one, of which scalar, and when.
            blank = self.stem(jnp.zeros((1, 1, layout.domain.period)), layout)
            blank = blank + self.mask[None, None, None]
            x = jnp.where(hidden[..., None], blank, x)
        x = x.reshape(batch_size, num_steps * group, width)[:, :num_tokens]
        time = jnp.repeat(jnp.arange(num_steps, dtype=jnp.int32), group)[:num_tokens]
        return self.trunk(x, time, attention, is_causal)

    def read(self, hidden: jax.Array, layout: Layout) -> jax.Array:
        """Predictions `[B, K, P]` of reals, else `[B, K, P, V]`, from states `[B, K, G, D]`."""
        return self.head(hidden, layout)

    def everything(self, layouts: Sequence[Layout]) -> jax.Array:
        """Touch every parameter, for `init`; returns one of them, the mask vector `[D]`."""
        for layout in layouts:
            unit = jnp.zeros((1, 1, layout.domain.period))
            size = layout.num_tokens
            attention = jnp.ones((1, size, size), bool)
            hidden = self.encode(unit, None, attention, layout, None, False)
            self.read(hidden.reshape(1, 1, size, -1), layout)
        return self.mask


class _Trunk(nn.Module):
    """The blocks, in a scope of their own."""

    config: TransformerConfig

    @nn.compact
    def __call__(self, x, time, attention, is_causal):
        return run_blocks(self.config, x, time, attention, None, is_causal)[0]


class SequenceModel(NamedTuple):
    """The network as plain functions of its parameters."""

    init: Callable[[jax.Array], Any]  # key -> params
    # (params, layout, unit [B, K, P], attention [B or 1, L, L], hidden [B, K, G] or None,
    #  num_tokens: only the first so many of the K G tokens, is_causal as in `attention.mix`)
    # -> states [B, L, D]
    encode: Callable[..., jax.Array]
    # (params, layout, states [B, K, G, D]) -> predictions [B, K, P] of reals, else [B, K, P, V]
    read: Callable[[Any, Layout, jax.Array], jax.Array]
    layouts: tuple[Layout, ...]
    config: TransformerConfig
    tokens: TokenConfig
    vocabulary: Vocabulary


@functools.cache
def model(config: TransformerConfig, tokens: TokenConfig, all_domains: tuple[Domain, ...]) -> SequenceModel:
    """Build the model of these domains; equal arguments give the same functions.

    Raises ValueError for categories, which lie in no warped space.
    """
    if discrete := [d.index for d in all_domains if d.widest]:
        raise ValueError(
            f"sequence model: got domains {discrete} with categories, expected reals; use "
            "`transformer.model`, whose tokens have categories."
        )
    vocabulary = Vocabulary(
        num_bins=tokens.num_bins,
        num_categories=0,
        num_components=sum(d.period for d in all_domains),
        num_domains=len(all_domains),
    )
    layouts = tuple(Layout(tokens, d) for d in all_domains)
    network = SequenceNetwork(config, vocabulary, tokens.values)

    def init(key: jax.Array) -> Any:
        return network.init(key, layouts, method="everything")["params"]

    def encode(params, layout, unit, attention, hidden=None, num_tokens=None, *, is_causal=False):
        return network.apply(
            {"params": params}, unit, hidden, attention, layout, num_tokens, is_causal, method="encode"
        )

    def read(params, layout, states):
        return network.apply({"params": params}, states, layout, method="read")

    return SequenceModel(init, encode, read, layouts, config, tokens, vocabulary)


def acting_params(params: Any) -> dict[str, Any]:
    """The tree of a component model of bins, renamed as `transformer.model` names its parameters."""
    return {"embedding": params["stem"]["embedding"], **params["trunk"], "head": params["head"]["scalar"]}
