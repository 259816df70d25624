"""The action-state model of any granularity: transitions in, one prediction a scalar out.

A transition is n + m scalars: places of reals in the tokenizer's warped space (`tokens/scalar.py`),
ids of categories. Granularity says how they become tokens: "component", one each, or "modality", one
for the state and one for the action. Values say what a real is: "bins", "two_hot" (between two bins)
or "reals"; a category is an id of its own. Whatever the choice, predictions come back as
`[B, K, P, ...]`, one a scalar, so that objectives and measures are written once. A component model of
bins also takes its tokens as they are, any of them, and acts through a cache.

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
from jaxagent.nn import attention
from jaxagent.nn.attention import CAUSAL, Band, Cache, Past
from jaxagent.nn.dense import Dense
from jaxagent.nn.transformer import (
    NUM_FREQUENCIES,
    Embedding,
    Vocabulary,
    features,
    identities,
    run_blocks,
    value_table,
)
from jaxagent.tokens import component, stream
from jaxagent.tokens.component import Domain
from jaxagent.tokens.layout import Layout
from jaxagent.tokens.stream import Tokens
from kernels.attention.masks import Sight, both, same

PART = 16  # width of one component inside a modality's token, on the way in
READ = 64  # and on the way out


def vocabulary_of(tokens: TokenConfig, domains: Sequence[Domain]) -> Vocabulary:
    """The vocabulary that serves some domains."""
    return Vocabulary(
        num_bins=tokens.num_bins,
        num_categories=max(d.widest for d in domains),
        num_components=sum(d.period for d in domains),
        num_domains=len(domains),
    )


class _Scalars(nn.Module):
    """Embed scalars `[..., C]` of a transition as vectors `[..., C, width]`."""

    vocabulary: Vocabulary
    values: str
    width: int

    @nn.compact
    def __call__(self, unit: jax.Array, sizes: tuple[int, ...]) -> jax.Array:
        """`sizes` are the cardinalities of the C components, 0 of a real."""
        num_bins = self.vocabulary.num_bins
        if self.values == "reals":
            shape = (2 * NUM_FREQUENCIES + 1, self.width)
            return features(unit) @ self.param("features", nn.initializers.lecun_normal(), shape)
        table = value_table(self, self.vocabulary, self.width)
        if self.values == "bins":
            return table[component.tokens_of(sizes, num_bins, unit)]
        lower, weight = component.two_hot(sizes, num_bins, unit)
        return table[lower] + weight[..., None] * (table[lower + 1] - table[lower])


class _TokenStem(nn.Module):
    """Tokens of bins, one a scalar, as vectors."""

    vocabulary: Vocabulary
    width: int

    def setup(self) -> None:
        """Name the embedding."""
        self.embedding = Embedding(self.vocabulary, self.width)

    def __call__(self, unit: jax.Array, layout: Layout) -> jax.Array:
        """Transitions `[B, K, P]` to `[B, K, P, D]`."""
        tokens = stream.of_transitions(unit, layout.domain, self.vocabulary.num_bins)
        return self.embed(tokens).reshape(*unit.shape, self.width)

    def embed(self, tokens: Tokens) -> jax.Array:
        """Tokens `[B, L]` to `[B, L, D]`."""
        return self.embedding(tokens)


class _Stem(nn.Module):
    """Transitions `[B, K, P]` to tokens `[B, K, G, D]`, of other values or of modalities."""

    vocabulary: Vocabulary
    values: str
    width: int

    @nn.compact
    def __call__(self, unit: jax.Array, layout: Layout) -> jax.Array:
        d, v = layout.domain, self.vocabulary
        if layout.is_component:
            ids = identities(self, v, self.width, stream.component_ids(d), stream.kind_ids(d), d.index)
            return _Scalars(v, self.values, self.width, name="scalars")(unit, d.sizes) + ids[None, None]
        domain = self._table("domain", v.num_domains)[d.index]
        parts = unit
        if self.values != "reals":
            parts = _Scalars(v, self.values, PART, name="scalars")(unit, d.sizes)
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
    """States `[B, K, G, D]` of tokens to what is predicted of their scalars, each at its own token.

    Products are of `dtype`; predictions are float32 whatever it is, as losses need them: `[B, K, P]`
    of reals, else logits `[B, K, P, V + K]`. Without a layout, states `[..., D]` are of components.
    """

    vocabulary: Vocabulary
    values: str
    dtype: str

    @nn.compact
    def __call__(self, states: jax.Array, layout: Layout | None = None) -> jax.Array:
        outputs = 1 if self.values == "reals" else self.vocabulary.size
        if layout is None or layout.is_component:
            read = self._dense(outputs, "scalar", use_bias=False)(states)
        else:
            read = self._vectors(states, layout, outputs)
        read = read.astype(jnp.float32)
        return read[..., 0] if self.values == "reals" else read

    def _dense(self, size: int, name: str, use_bias: bool = True) -> nn.Module:
        return Dense(size, use_bias=use_bias, dtype=jnp.dtype(self.dtype), name=name)

    def _vectors(self, states: jax.Array, layout: Layout, outputs: int) -> jax.Array:
        d, width = layout.domain, READ if outputs > 1 else 1
        parts = []
        for token, (kind, size) in enumerate((("obs", d.obs_size), ("action", d.action_size))):
            flat = self._dense(size * width, f"{kind}_{d.index}")(states[:, :, token])
            parts.append(flat.reshape(*flat.shape[:2], size, width))
        read = jnp.concatenate(parts, axis=2)
        return self._dense(outputs, "bins", use_bias=False)(read) if outputs > 1 else read


class SequenceNetwork(nn.Module):
    """Stem, trunk and head; the mask vector stands for tokens that are hidden."""

    config: TransformerConfig
    vocabulary: Vocabulary
    tokens: TokenConfig

    def setup(self) -> None:
        """Name the parts."""
        c, v, values = self.config, self.vocabulary, self.tokens.values
        self.stem = _TokenStem(v, c.width) if _has_tokens(self.tokens) else _Stem(v, values, c.width)
        self.trunk = _Trunk(c)
        self.head = _Head(v, values, c.dtype)
        self.mask = self.param("mask", nn.initializers.normal(0.02), (c.width,))

    def encode(
        self,
        unit: jax.Array,
        hidden: jax.Array | None,
        attention: jax.Array | Sight,
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
        return self.trunk(x, time, attention, None, CAUSAL if is_causal else None)[0]

    def of_tokens(
        self, tokens: Tokens, mask: jax.Array | Sight, past: Sequence[Past] | None, band: Band | None
    ) -> tuple[jax.Array, list[tuple[jax.Array, jax.Array]]]:
        """States `[B, L, D]` of tokens `[B, L]`, and keys and values by layer.

        `mask` is `[B, L, Lk]` or a sight, `past` None for a full pass.
        """
        return self.trunk(self.stem.embed(tokens), tokens.time, mask, past, band)

    def read(self, states: jax.Array, layout: Layout | None) -> jax.Array:
        """Predictions of the scalars of tokens, as `_Head` has it."""
        return self.head(states, layout)

    def everything(self, layouts: Sequence[Layout]) -> jax.Array:
        """Touch every parameter, for `init`; returns one of them, the mask vector `[D]`."""
        if _has_tokens(self.tokens):
            one = jnp.zeros((1,), jnp.int32)
            patch = jnp.zeros((1, 1, self.vocabulary.patch_size))
            token = Tokens(one[None], one, one, one[0], one, one, one[None], patch)
            self.read(self.of_tokens(token, jnp.ones((1, 1, 1), bool), None, None)[0], None)
            return self.mask
        for layout in layouts:
            unit = jnp.zeros((1, 1, layout.domain.period))
            size = layout.num_tokens
            attention = jnp.ones((1, size, size), bool)
            states = self.encode(unit, None, attention, layout, None, False)
            self.read(states.reshape(1, 1, size, -1), layout)
        return self.mask


class _Trunk(nn.Module):
    """The blocks, in a scope of their own."""

    config: TransformerConfig

    @nn.compact
    def __call__(self, x, time, mask, past, band):
        return run_blocks(self.config, x, time, mask, past, band)


class SequenceModel(NamedTuple):
    """The network as plain functions of its parameters: of transitions, and of tokens that act."""

    init: Callable[[jax.Array], Any]  # key -> params
    # (params, layout, unit [B, K, P], attention [B or 1, L, L] or a sight, hidden [B, K, G] or None,
    #  num_tokens: only the first so many of the K G tokens, is_causal: the mask hides what is later)
    # -> states [B, L, D]
    encode: Callable[..., jax.Array]
    # (params, layout, states [B, K, G, D]) -> predictions [B, K, P] of reals, else [B, K, P, V + K];
    # (params, None, states [..., D] of components) -> logits [..., V + K]
    read: Callable[[Any, Layout | None, jax.Array], jax.Array]
    # Of component models of bins:
    # (params, tokens [B, L]) -> logits [B, L, V + K] of one causal pass
    apply: Callable[[Any, Tokens], jax.Array]
    # (params, tokens of the next chunk, slot of its first token, cache) -> states [B, L, D], cache;
    # it continues what one pass would compute
    advance: Callable[[Any, Tokens, jax.Array, Cache], tuple[jax.Array, Cache]]
    # (params, tokens [B, L] to go behind the past, mask [B, L, slots + L] or a sight, past, its band)
    # -> states [B, L, D], keys and values [B, slots + L, H, D / H] by layer
    extend: Callable[..., tuple[jax.Array, list[tuple[jax.Array, jax.Array]]]]
    init_cache: Callable[[int, int], Cache]  # batch size, tokens a transition
    layouts: tuple[Layout, ...]
    config: TransformerConfig
    tokens: TokenConfig
    vocabulary: Vocabulary


@functools.cache
def model(config: TransformerConfig, tokens: TokenConfig, domains: tuple[Domain, ...]) -> SequenceModel:
    """Build the model of these domains; equal arguments give the same functions, so jit compiles once.

    Raises ValueError for categories beside the values "reals", which have no ids.
    """
    discrete = [d.index for d in domains if d.widest]
    if discrete and tokens.values == "reals":
        raise ValueError(
            f'sequence model: got domains {discrete} with categories and values "reals", expected '
            '"bins" or "two_hot", which give categories ids of their own.'
        )
    layouts = tuple(Layout(tokens, d) for d in domains)
    return _built(config, tokens, vocabulary_of(tokens, domains), layouts)


@functools.cache
def token_model(config: TransformerConfig, vocabulary: Vocabulary) -> SequenceModel:
    """The component model of bins of a vocabulary, whatever its domains: it takes tokens alone."""
    tokens = TokenConfig(num_bins=vocabulary.num_bins or 2)  # where all are categories, nothing has bins
    return _built(config, tokens, vocabulary, ())


def _built(
    config: TransformerConfig, tokens: TokenConfig, vocabulary: Vocabulary, layouts: tuple[Layout, ...]
) -> SequenceModel:
    network = SequenceNetwork(config, vocabulary, tokens)

    def init(key: jax.Array) -> Any:
        return network.init(key, layouts, method="everything")["params"]

    def encode(params, layout, unit, attention, hidden=None, num_tokens=None, *, is_causal=False):
        return network.apply(
            {"params": params}, unit, hidden, attention, layout, num_tokens, is_causal, method="encode"
        )

    def read(params, layout, states):
        return network.apply({"params": params}, states, layout, method="read")

    def extend(params, tokens, mask, past, band=None):
        return network.apply({"params": params}, tokens, mask, past, band, method="of_tokens")

    def apply(params, tokens):
        mask = attention.window(tokens.order, tokens.time, tokens.order, tokens.time, config.context)
        mask = both(mask, same(tokens.segment, tokens.segment))
        return read(params, None, extend(params, tokens, mask, None, CAUSAL)[0])

    def advance(params, tokens, slot, cache):
        if config.positions == "learned":
            raise ValueError(
                'positions: got "learned", expected "rotary" or "none" to act through a cache: '
                "learned positions end at `context`, an episode need not."
            )
        cache = attention.mark(cache, tokens.order, tokens.time, slot)
        past = [Past(cache.keys[i], cache.values[i], slot) for i in range(config.num_layers)]
        mask = attention.cache_mask(cache, tokens.order, tokens.time, config.context)
        states, layers = extend(params, tokens, mask, past)
        keys, values = zip(*layers, strict=True)
        return states, cache._replace(keys=jnp.stack(keys), values=jnp.stack(values))

    def init_cache(batch_size: int, period: int) -> Cache:
        # One row more than the context: a chunk holds the last action and the next observation,
        # and the action still sees the row that the observation would otherwise overwrite.
        slots, head_size = (config.context + 1) * period, config.width // config.num_heads
        dtype = jnp.dtype(config.dtype)
        return attention.init_cache(config.num_layers, batch_size, slots, config.num_heads, head_size, dtype)

    acting = [apply, advance, extend] if _has_tokens(tokens) else [functools.partial(_refuse, tokens)] * 3
    return SequenceModel(init, encode, read, *acting, init_cache, layouts, config, tokens, vocabulary)


def _has_tokens(tokens: TokenConfig) -> bool:
    """Whether a token is one scalar and one of a list."""
    return (tokens.granularity, tokens.values) == ("component", "bins")


def _refuse(tokens: TokenConfig, *args: Any) -> Any:
    """Raise ValueError: other models have no tokens to act with."""
    del args
    raise ValueError(
        f'tokens: got a model of granularity "{tokens.granularity}" and values "{tokens.values}", '
        'expected "component" and "bins" to read single tokens or to act through a cache.'
    )
