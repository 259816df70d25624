"""The action-state transformer as an actor-critic: one token a scalar, acting through its cache.

The tokens of a step are the action before and what is seen now; the policy reads the last of them,
the value a layer of its own. Components of an action are decoded one after another: each sees those
before it, and the log-probability of an action is the sum over its tokens. Learning reads a whole
segment in one pass behind the cache with which it began, as Transformer-XL (Dai et al. 2019) does.
"""

import dataclasses
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.types import Component
from jaxagent.adapt import lora, subset
from jaxagent.agents import actions, sequence
from jaxagent.agents.actor_critic import Judge, Judgement, within
from jaxagent.agents.recollection import Seen
from jaxagent.agents.sequence import Memory
from jaxagent.nn import attention, stem
from jaxagent.nn.attention import Band, Cache, Past
from jaxagent.nn.distributions import Categorical
from jaxagent.nn.initializers import orthogonal
from jaxagent.nn.sequence_model import SequenceModel
from jaxagent.tokens import component, scalar, stream
from jaxagent.tokens.component import Codec, Domain
from jaxagent.tokens.patches import Patches
from jaxagent.tokens.stream import Tokens
from kernels.attention.masks import table

REACH = 5.0  # standard deviations that bins of standardised observations span
Way = Literal["full", "last_layer", "lora"]  # which parameters of a pretrained model learn


class SequenceActorParams(NamedTuple):
    """Parameters of the transformer and of the value that reads its states."""

    network: Any
    value: jax.Array  # [D + 1]: a linear layer, its bias last


class Known(NamedTuple):
    """Ids of tokens that may be seen, those of the past and then those of a window, `[S]`."""

    order: jax.Array  # [S] int32: place in the stream
    time: jax.Array  # [S] int32: env step
    segment: jax.Array  # [B, S] int32: episode, 0 of that in which the window begins; -1: forgotten


def standard_codec(domain: Domain, num_bins: int) -> Codec:
    """Bins before there are any data: observations standardised, actions in units of their half-range."""

    def bins(size: int, reach: float) -> scalar.Bins:
        return scalar.uniform(np.full(size, -reach), np.full(size, reach), num_bins)

    has_reals = not all(domain.action_sizes)
    return Codec(bins(domain.obs_size, REACH), bins(domain.action_size, 1.0) if has_reals else ())


def actor_of(
    model: SequenceModel,
    domain: Domain,
    action_spec: tuple[Component, ...],
    codec: Codec | None = None,
    pretrained: Any = None,
    patches: Patches | None = None,
) -> "SequenceActor":
    """The transformer `model` as what acts and judges in one domain, for any actions.

    Raw actions are what the tokens decode to: categories, and reals in units of the half-range of
    their box. `codec` is `standard_codec` unless given, as that of a pretrained model in whose units
    (the environment's) observations then are. `pretrained` are parameters of the model that training
    begins with, in place of fresh ones. With `patches` the observed components of the domain are
    patches. Raises ValueError for learned positions.
    """
    if model.config.positions == "learned":
        raise ValueError('positions: got "learned", expected "rotary" or "none" to act through a cache.')
    bins = standard_codec(domain, model.vocabulary.num_bins) if codec is None else codec
    bins = jax.tree.map(jnp.asarray, bins)
    return SequenceActor(model, domain, action_spec, bins, codec is not None, pretrained, patches)


def sequence_actor(*args: Any, **options: Any) -> Judge:
    """A judge of the transformer in one domain; arguments are those of `actor_of`."""
    return actor_of(*args, **options).as_judge


def tuned(judge: Judge, network: Any, way: Way, rank: int) -> Judge:
    """`judge`, which begins with the parameters `network`, learning a part of them and its value.

    "full": all of them; "last_layer": the last block and the norm behind it; "lora": adapters of
    `rank` beside them.
    """
    if way == "full":
        return judge
    if way == "last_layer":
        mask = subset.last_layer(network)
        return within(judge, judge.init, lambda p: p._replace(network=subset.moving(p.network, mask)))

    def init(key: jax.Array) -> SequenceActorParams:
        key_judge, key_adapters = jax.random.split(key)
        return judge.init(key_judge)._replace(network=lora.init(key_adapters, network, rank))

    return within(judge, init, lambda p: p._replace(network=lora.merge(network, p.network)))


@dataclasses.dataclass(frozen=True)
class SequenceActor:
    """The functions of the judge, and what they share."""

    model: SequenceModel
    domain: Domain
    action_spec: tuple[Component, ...]
    codec: Codec
    is_fitted: bool  # the codec is in units of the environment
    pretrained: Any = None
    patches: Patches | None = None

    @property
    def as_judge(self) -> Judge:
        """The policy and value of an actor-critic."""
        functions = self.init, self.init_carry, self.act, self.judge, self.values, self.by_lane
        return Judge(*functions, self.obs_size)

    @property
    def obs_size(self) -> int:
        """Length of the vectors that it reads; 0: they are cut into patches."""
        return 0 if self.patches else self.domain.obs_size

    @property
    def num_bins(self) -> int:
        """Tokens of reals."""
        return self.model.vocabulary.num_bins

    def init(self, key: jax.Array) -> SequenceActorParams:
        """First parameters."""
        key_network, key_value = jax.random.split(key)
        network = self.pretrained
        if network is None:
            network = self.model.init(key_network)
            # A nearly uniform first policy, as the towers' (`actor_critic.ACTOR_OUTPUT_SCALE`).
            network = network | {"head": jax.tree.map(lambda x: 0.1 * x, network["head"])}
        value = orthogonal(1.0)(key_value, (self.model.config.width, 1))[:, 0]
        return SequenceActorParams(network, jnp.concatenate([value, jnp.zeros(1)]))

    def init_carry(self, batch_size: int) -> Memory:
        """An empty cache."""
        return sequence.init_memory(self.model, self.domain, batch_size)

    def value_of(self, params: SequenceActorParams, states: jax.Array) -> jax.Array:
        """Values `[...]` of states `[..., D]`."""
        return states @ params.value[:-1] + params.value[-1]

    def tokens_of_action(self, raw_action: jax.Array) -> jax.Array:
        """Tokens `[..., m]` of raw actions `[...]` or `[..., m]`."""
        values = actions.to_env_action(raw_action, self.action_spec) if self.is_fitted else raw_action
        return component.encode_action(self.codec, self.domain, self.num_bins, values)

    def shown(self, obs: jax.Array) -> tuple[jax.Array, Any]:
        """Tokens `[..., n]` of observations, and their patches `[..., n, F]`, or ()."""
        if self.patches is None:
            stem.require_vectors(self.domain.obs_size, obs)
            return component.encode_obs(self.codec, self.domain, self.num_bins, obs), ()
        patch = self.patches.cut(obs)
        return jnp.zeros(patch.shape[:-1], jnp.int32), patch

    def action_of_tokens(self, tokens: jax.Array) -> jax.Array:
        """Raw actions `[...]` or `[..., m]` of tokens `[..., m]`."""
        values = component.decode_action(self.codec, self.domain, self.num_bins, tokens)
        return actions.from_env_action(values, self.action_spec) if self.is_fitted else values

    def choices(self, logits: jax.Array, i: int, legal: Any) -> Categorical:
        """The distribution `[...]` of the tokens of component i, of `logits [..., V + K]`."""
        first, sizes = self.num_bins, self.domain.action_sizes
        if sizes[i] and not isinstance(legal, tuple):
            start = sum(sizes[:i])  # of its mask among those of all categories
            of_component = legal[..., start : start + sizes[i]]
            hidden = actions.mask_illegal(logits[..., first : first + sizes[i]], of_component)
            logits = logits.at[..., first : first + sizes[i]].set(hidden)
        allowed = component.legal_tokens(self.domain, first, self.model.vocabulary.size)[i]
        return Categorical(jnp.where(allowed[(None,) * (logits.ndim - 1)], logits, attention.HIDDEN))

    def act(self, params, carry, obs, legal, is_first, key):
        """As `Judge.act`, by `sequence.decode`."""
        keys = None if key is None else jax.random.split(key, self.domain.action_size)
        log_probs = []

        def choose(logits: jax.Array, i: int) -> jax.Array:
            dist = self.choices(logits, i, legal)
            token = dist.mode() if keys is None else dist.sample(keys[i])
            log_probs.append(dist.log_prob(token))
            return token

        obs, patch = self.shown(obs)
        tokens, carry = sequence.decode(
            self.model, self.domain, params.network, carry, obs, is_first, choose, patch
        )
        return self.action_of_tokens(tokens), sum(log_probs), carry

    def by_lane(self, carry: Memory) -> Memory:
        """Lanes first and the oldest step first: keys and values `[B, layers, slots, H, D / H]`.

        What all lanes share is repeated. The row that the next step goes to is left out: it holds the
        step before the first that is still seen, and parts of the last action, which a window says
        again.
        """
        cache, batch_size, period = carry.cache, carry.action.shape[0], self.domain.period
        oldest = cache.time % (self.model.config.context + 1) * period

        def in_turn(x: jax.Array, axis: int) -> jax.Array:
            turned = jnp.roll(x, -oldest, axis)
            return jax.lax.slice_in_dim(turned, period, None, axis=axis)

        def repeated(x: jax.Array) -> jax.Array:
            return jnp.broadcast_to(x, (batch_size, *x.shape))

        lanes = Cache(
            keys=jnp.moveaxis(in_turn(cache.keys, 2), 1, 0),
            values=jnp.moveaxis(in_turn(cache.values, 2), 1, 0),
            order=repeated(in_turn(cache.order, 0)),
            token_time=repeated(in_turn(cache.token_time, 0)),
            start=cache.start,
            time=repeated(cache.time),
        )
        return carry._replace(cache=lanes)

    def window(self, carry: Memory, seen: Seen) -> Tokens:
        """The tokens of a segment: of each step the action before and what is seen, then the last action."""
        num_steps, batch_size = seen.is_first.shape
        domain, time = self.domain, carry.cache.time[0] + jnp.arange(num_steps, dtype=jnp.int32)
        places, lag = sequence.step_places(domain)
        taken = self.tokens_of_action(seen.raw_action)  # [T, B, m]
        before = jnp.concatenate([carry.action[None], taken[:-1]])
        obs, patch = self.shown(seen.obs)
        steps = jnp.concatenate([before, obs], axis=-1)
        # Episodes are numbered from that in which the segment begins, or which it leaves at once.
        episode = jnp.cumsum(seen.is_first, axis=0, dtype=jnp.int32)  # [T, B]
        earlier = jnp.concatenate([jnp.zeros((1, batch_size), jnp.int32), episode[:-1]])
        episodes = jnp.where((lag > 0)[None, None], earlier[..., None], episode[..., None])
        tail = jnp.arange(domain.obs_size, domain.period - 1, dtype=jnp.int32)  # all but the last component

        def flat(x: jax.Array, last: jax.Array) -> jax.Array:
            return jnp.concatenate([jnp.moveaxis(x, 1, 0).reshape(batch_size, -1), last], axis=1)

        tokens = stream.at_places(
            flat(steps, taken[-1, :, : tail.size]),
            jnp.concatenate([jnp.tile(places, num_steps), tail]),
            jnp.concatenate([(time[:, None] - lag[None]).reshape(-1), jnp.full(tail.shape, time[-1])]),
            domain,
        )
        of_tail = jnp.broadcast_to(episode[-1][:, None], (batch_size, tail.size))
        patch = stream.pad_patches(self.by_step(patch), after=tail.size)
        return tokens._replace(segment=flat(episodes, of_tail), patch=patch)

    def by_step(self, patch: Any) -> Any:
        """Patches `[T, B, n, F]` of observations as those of tokens `[B, T P, F]`; () stays."""
        if isinstance(patch, tuple):
            return patch
        steps = jnp.moveaxis(stream.pad_patches(patch, before=self.domain.action_size), 1, 0)
        return steps.reshape(steps.shape[0], -1, steps.shape[-1])

    def known(self, carry: Memory, tokens: Tokens) -> Known:
        """The ids of what is remembered and of a window behind it."""
        cache = carry.cache
        is_of_episode = cache.token_time[0][None] >= cache.start[:, None]
        return Known(
            jnp.concatenate([cache.order[0], tokens.order]),
            jnp.concatenate([cache.token_time[0], tokens.time]),
            jnp.concatenate([jnp.where(is_of_episode, 0, -1), tokens.segment], axis=1),
        )

    def read_window(
        self, params: SequenceActorParams, carry: Memory, tokens: Tokens
    ) -> tuple[jax.Array, list[tuple[jax.Array, jax.Array]]]:
        """States `[B, L, D]` of the tokens of a window, and keys and values `[B, S, H, D / H]` by layer."""
        known, config, num_past = self.known(carry, tokens), self.model.config, carry.cache.order.shape[1]
        visible = attention.window(tokens.order, tokens.time, known.order, known.time, config.context)
        # The action before an episode is seen by itself alone, as in `attention.cache_mask`.
        mask = attention.within_segment(visible, tokens.segment, known.segment)
        size = config.width // config.num_heads
        mask = attention.laid_out(config.attention, mask, jnp.dtype(config.dtype), size)
        mask = jax.lax.optimization_barrier(mask)  # else it is made anew for each head and layer
        cache = carry.cache
        past = [Past(cache.keys[:, i], cache.values[:, i], None) for i in range(config.num_layers)]
        band = Band(num_past, (config.context + 1) * self.domain.period)
        return self.model.extend(params.network, tokens, mask, past, band)

    def of_steps(self, states: jax.Array, num_steps: int, place: int) -> jax.Array:
        """States `[T, B, D]` of one token of each step's `period` tokens."""
        period = self.domain.period
        by_step = states[:, : num_steps * period].reshape(states.shape[0], num_steps, period, -1)
        return jnp.moveaxis(by_step[:, :, place], 1, 0)

    def judge(self, params, carry, seen):
        """As `Judge.judge`, in one pass."""
        num_steps, period = seen.is_first.shape[0], self.domain.period
        states, _ = self.read_window(params, carry, self.window(carry, seen))
        taken, first = self.tokens_of_action(seen.raw_action), self.of_steps(states, num_steps, period - 1)
        log_prob, entropy, parts = 0.0, 0.0, []
        for i in range(self.domain.action_size):
            here = first
            if i:  # read where component i - 1 is written: at the start of the next step's tokens
                here = self.of_steps(states[:, period:], num_steps - 1, i - 1)
                here = jnp.concatenate([here, states[:, num_steps * period + i - 1][None]])
            dist = self.choices(self.model.read(params.network, None, here), i, seen.legal)
            log_prob, entropy = log_prob + dist.log_prob(taken[..., i]), entropy + dist.entropy()
            parts.append(dist)
        return Judgement(log_prob, entropy, self.value_of(params, first), tuple(parts))

    def values(self, params, carry, seen, final_obs):
        """As `Judge.values`: one pass over the window, and an aside for each end of an episode in it.

        The value after a step is that before the next one, where its episode goes on.
        """
        num_steps, period = seen.is_first.shape[0], self.domain.period
        tokens = self.window(carry, seen)
        states, layers = self.read_window(params, carry, tokens)
        before = self.value_of(params, self.of_steps(states, num_steps, period - 1))
        obs, patch = self.shown(final_obs)
        patch = stream.pad_patches(patch, before=self.domain.action_size)
        shown = jnp.concatenate([self.tokens_of_action(seen.raw_action), obs], axis=-1), patch
        known = self.known(carry, tokens)
        axes = Known(None, None, 0), 0, jax.tree.map(lambda x: 1, shown), 0
        of_lanes = jax.vmap(partial(self.aside, params, carry.cache.time[0]), axes)
        is_left = jnp.concatenate([seen.is_first[1:], jnp.ones_like(seen.is_first[:1])])  # [T, B]
        place = jnp.cumsum(is_left, axis=0) - 1  # of a step among those that are left, in its lane

        def with_aside(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            i, after = state
            is_now = is_left & (place == i)
            told = of_lanes(known, layers, shown, jnp.argmax(is_now, axis=0).astype(jnp.int32))
            return i + 1, jnp.where(is_now, told[None], after)

        begun = jnp.zeros((), jnp.int32), jnp.concatenate([before[1:], before[:1]])
        _, after = jax.lax.while_loop(lambda state: state[0] <= jnp.max(place), with_aside, begun)
        return before, after

    def aside(
        self, params: SequenceActorParams, start: jax.Array, known: Known, layers: Any, shown: Any, step: Any
    ) -> jax.Array:
        """The value `[]` after a step of one lane, of a window that began at time `start`.

        Its action and what was seen after it, `shown [T, P]` and patches, stand behind the observation
        of that step, and nobody else sees them.
        """
        places, lag = sequence.step_places(self.domain)
        values, patch = jax.tree.map(lambda x: x[step][None], shown)
        tokens = stream.at_places(values, places, start + step + 1 - lag, self.domain)
        tokens = tokens._replace(patch=patch)
        of_step = (start + step) * self.domain.period + self.domain.obs_size
        here = jnp.argmax(known.order == of_step - 1)  # what was seen last at that step
        context = self.model.config.context
        visible = table(attention.window(tokens.order, tokens.time, known.order, known.time, context))[0]
        visible = visible & ((known.order < of_step) & (known.segment == known.segment[here]))[None]
        own = tokens.order[None] <= tokens.order[:, None]
        mask = jnp.concatenate([visible, own], axis=1)[None]
        past = [Past(keys[None], values[None], None) for keys, values in layers]
        states, _ = self.model.extend(params.network, tokens, mask, past)
        return self.value_of(params, states[0, -1])
