"""The action-state transformer as an actor-critic: one token a scalar, acting through its cache.

The tokens of a step are the action before and what is seen now; the policy reads the last of them,
the value a layer of its own. Components of an action are decoded one after another: each sees those
before it, and the log-probability of an action is the sum over its tokens. Learning reads a whole
segment in one pass behind the cache with which it began, as Transformer-XL (Dai et al. 2019) does.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.types import Component
from jaxagent.agents import actions
from jaxagent.agents.actor_critic import Judge, Judgement
from jaxagent.agents.recollection import Seen
from jaxagent.nn import attention
from jaxagent.nn.attention import Cache, Past
from jaxagent.nn.distributions import Categorical
from jaxagent.nn.initializers import orthogonal
from jaxagent.nn.transformer import Model
from jaxagent.tokens import component, scalar, stream
from jaxagent.tokens.component import Codec, Domain
from jaxagent.tokens.stream import Tokens

REACH = 5.0  # standard deviations that bins of standardised observations span
REAL = -1  # the branch of tokens that were acted on; others are asides of one step


class SequenceActorParams(NamedTuple):
    """Parameters of the transformer and of the value that reads its states."""

    network: Any
    value: jax.Array  # [D + 1]: a linear layer, its bias last


class SequenceMemory(NamedTuple):
    """What the actor carries: past keys and values, and the last action's tokens."""

    cache: Cache
    action: jax.Array  # [B, m] int32


class Window(NamedTuple):
    """New tokens `[B, L]` behind a past, with what says who sees whom."""

    tokens: Tokens
    branch: jax.Array  # [L] int32: REAL, or the step whose aside it is


def standard_codec(domain: Domain, num_bins: int) -> Codec:
    """Bins before there are any data: observations standardised, actions in units of their half-range."""

    def bins(size: int, reach: float) -> scalar.Bins:
        return scalar.uniform(np.full(size, -reach), np.full(size, reach), num_bins)

    has_reals = not all(domain.action_sizes)
    return Codec(bins(domain.obs_size, REACH), bins(domain.action_size, 1.0) if has_reals else ())


def sequence_actor(
    model: Model, domain: Domain, action_spec: tuple[Component, ...], codec: Codec | None = None
) -> Judge:
    """A judge of the transformer `model` in one domain, for any actions.

    Raw actions are what the tokens decode to: categories, and reals in units of the half-range of
    their box. `codec` is `standard_codec` unless given, as that of a pretrained model in whose units
    (the environment's) observations then are. Raises ValueError for learned positions.
    """
    if model.config.positions == "learned":
        raise ValueError('positions: got "learned", expected "rotary" or "none" to act through a cache.')
    bins = standard_codec(domain, model.vocabulary.num_bins) if codec is None else codec
    actor = SequenceActor(model, domain, action_spec, jax.tree.map(jnp.asarray, bins), codec is not None)
    return Judge(actor.init, actor.init_carry, actor.act, actor.judge, actor.values, actor.by_lane)


@dataclasses.dataclass(frozen=True)
class SequenceActor:
    """The functions of the judge, and what they share."""

    model: Model
    domain: Domain
    action_spec: tuple[Component, ...]
    codec: Codec
    is_fitted: bool  # the codec is in units of the environment

    @property
    def num_bins(self) -> int:
        """Tokens of reals."""
        return self.model.vocabulary.num_bins

    @property
    def rows(self) -> int:
        """Transitions that the cache holds."""
        return self.model.config.context + 1

    @property
    def places(self) -> jax.Array:
        """Places in a transition of the tokens of a step: the action before, then what is seen."""
        n, period = self.domain.obs_size, self.domain.period
        return jnp.concatenate([jnp.arange(n, period), jnp.arange(n)]).astype(jnp.int32)

    @property
    def lag(self) -> jax.Array:
        """How many steps ago each of these was."""
        return (self.places >= self.domain.obs_size).astype(jnp.int32)

    def init(self, key: jax.Array) -> SequenceActorParams:
        """First parameters."""
        key_network, key_value = jax.random.split(key)
        network = self.model.init(key_network)
        # A nearly uniform first policy, as the towers' (`actor_critic.ACTOR_OUTPUT_SCALE`).
        network = network | {"head": jax.tree.map(lambda x: 0.1 * x, network["head"])}
        value = orthogonal(1.0)(key_value, (self.model.config.width, 1))[:, 0]
        return SequenceActorParams(network, jnp.concatenate([value, jnp.zeros(1)]))

    def init_carry(self, batch_size: int) -> SequenceMemory:
        """An empty cache."""
        return SequenceMemory(
            self.model.init_cache(batch_size, self.domain.period),
            jnp.zeros((batch_size, self.domain.action_size), jnp.int32),
        )

    def value_of(self, params: SequenceActorParams, states: jax.Array) -> jax.Array:
        """Values `[...]` of states `[..., D]`."""
        return states @ params.value[:-1] + params.value[-1]

    def tokens_of_action(self, raw_action: jax.Array) -> jax.Array:
        """Tokens `[..., m]` of raw actions `[...]` or `[..., m]`."""
        values = actions.to_env_action(raw_action, self.action_spec) if self.is_fitted else raw_action
        return component.encode_action(self.codec, self.domain, self.num_bins, values)

    def tokens_of_obs(self, obs: jax.Array) -> jax.Array:
        """Tokens `[..., n]` of observations `[..., n]`."""
        return component.encode_obs(self.codec, self.domain, self.num_bins, obs)

    def action_of_tokens(self, tokens: jax.Array) -> jax.Array:
        """Raw actions `[...]` or `[..., m]` of tokens `[..., m]`."""
        values = component.decode_action(self.codec, self.domain, self.num_bins, tokens)
        return actions.from_env_action(values, self.action_spec) if self.is_fitted else values

    def choices(self, params: SequenceActorParams, states: jax.Array, i: int, legal: Any) -> Categorical:
        """The distribution `[...]` of the tokens of component i, read from `states [..., D]`."""
        logits = self.model.read(params.network, states)
        first, sizes = self.num_bins, self.domain.action_sizes
        if sizes[i] and not isinstance(legal, tuple):
            start = sum(sizes[:i])  # of its mask among those of all categories
            of_component = legal[..., start : start + sizes[i]]
            hidden = actions.mask_illegal(logits[..., first : first + sizes[i]], of_component)
            logits = logits.at[..., first : first + sizes[i]].set(hidden)
        allowed = component.legal_tokens(self.domain, first, self.model.vocabulary.size)[i]
        return Categorical(jnp.where(allowed[(None,) * (logits.ndim - 1)], logits, attention.HIDDEN))

    def act(self, params, carry, obs, legal, is_first, key):
        """As `Judge.act`: one pass for the first component, and one of a token for each further one."""
        if obs.shape[0] != carry.action.shape[0]:
            raise ValueError(
                f"memory: got a carry of {carry.action.shape[0]} lanes for observations of {obs.shape[0]}, "
                "expected as many; begin with `init_carry(batch_size)`."
            )
        cache, time, m, period = carry.cache, carry.cache.time, self.domain.action_size, self.domain.period
        cache = cache._replace(start=jnp.where(is_first, time, cache.start))
        tokens = stream.at_places(
            jnp.concatenate([carry.action, self.tokens_of_obs(obs)], axis=1),
            self.places,
            time - self.lag,
            self.domain,
        )
        states, cache = self.model.advance(params.network, tokens, (time % self.rows) * period, cache)
        keys = [None] * m if key is None else jax.random.split(key, m)
        chosen, log_prob = [], 0.0
        for i in range(m):
            if i:
                place = jnp.array([self.domain.obs_size + i - 1])
                tokens = stream.at_places(chosen[-1][:, None], place, time[None], self.domain)
                slot = ((time + 1) % self.rows) * period + (i - 1)
                states, cache = self.model.advance(params.network, tokens, slot, cache)
            dist = self.choices(params, states[:, -1], i, legal)
            chosen.append(dist.mode() if key is None else dist.sample(keys[i]))
            log_prob = log_prob + dist.log_prob(chosen[-1])
        tokens_taken = jnp.stack(chosen, axis=1)
        carry = SequenceMemory(cache._replace(time=time + 1), tokens_taken)
        return self.action_of_tokens(tokens_taken), log_prob, carry

    def by_lane(self, carry: SequenceMemory) -> SequenceMemory:
        """Lanes first: keys and values `[B, layers, slots, H, D / H]`, what all lanes share repeated."""
        cache, batch_size = carry.cache, carry.action.shape[0]

        def repeated(x: jax.Array) -> jax.Array:
            return jnp.broadcast_to(x, (batch_size, *x.shape))

        lanes = Cache(
            keys=jnp.moveaxis(cache.keys, 1, 0),
            values=jnp.moveaxis(cache.values, 1, 0),
            order=repeated(cache.order),
            token_time=repeated(cache.token_time),
            start=cache.start,
            time=repeated(cache.time),
        )
        return carry._replace(cache=lanes)

    def window(self, carry: SequenceMemory, seen: Seen) -> Window:
        """The tokens of a segment: of each step the action before and what is seen, then the last action."""
        num_steps, batch_size = seen.is_first.shape
        domain, time = self.domain, carry.cache.time[0] + jnp.arange(num_steps, dtype=jnp.int32)
        taken = self.tokens_of_action(seen.raw_action)  # [T, B, m]
        before = jnp.concatenate([carry.action[None], taken[:-1]])
        steps = jnp.concatenate([before, self.tokens_of_obs(seen.obs)], axis=-1)
        # Episodes are numbered from that in which the segment begins, or which it leaves at once.
        episode = jnp.cumsum(seen.is_first, axis=0, dtype=jnp.int32)  # [T, B]
        earlier = jnp.concatenate([jnp.zeros((1, batch_size), jnp.int32), episode[:-1]])
        episodes = jnp.where((self.lag > 0)[None, None], earlier[..., None], episode[..., None])
        tail = jnp.arange(domain.obs_size, domain.period - 1, dtype=jnp.int32)  # all but the last component

        def flat(x: jax.Array, last: jax.Array) -> jax.Array:
            return jnp.concatenate([jnp.moveaxis(x, 1, 0).reshape(batch_size, -1), last], axis=1)

        tokens = stream.at_places(
            flat(steps, taken[-1, :, : tail.size]),
            jnp.concatenate([jnp.tile(self.places, num_steps), tail]),
            jnp.concatenate([(time[:, None] - self.lag[None]).reshape(-1), jnp.full(tail.shape, time[-1])]),
            domain,
        )
        of_tail = jnp.broadcast_to(episode[-1][:, None], (batch_size, tail.size))
        tokens = tokens._replace(segment=flat(episodes, of_tail))
        return Window(tokens, jnp.full(tokens.order.shape, REAL, jnp.int32))

    def asides(self, window: Window, carry: SequenceMemory, seen: Seen, final_obs: jax.Array) -> Window:
        """The window, and an aside a step, seen by nobody else: its action and the observation after it."""
        num_steps, batch_size = seen.is_first.shape
        time = carry.cache.time[0] + jnp.arange(1, num_steps + 1, dtype=jnp.int32)
        value = jnp.concatenate(
            [self.tokens_of_action(seen.raw_action), self.tokens_of_obs(final_obs)], axis=-1
        )
        episode = jnp.cumsum(seen.is_first, axis=0, dtype=jnp.int32)
        tokens = stream.at_places(
            jnp.moveaxis(value, 1, 0).reshape(batch_size, -1),
            jnp.tile(self.places, num_steps),
            (time[:, None] - self.lag[None]).reshape(-1),
            self.domain,
        )
        tokens = tokens._replace(segment=jnp.repeat(episode.T, self.domain.period, axis=1))
        branch = jnp.repeat(jnp.arange(num_steps, dtype=jnp.int32), self.domain.period)
        one_domain = tokens._replace(domain=())
        both = jax.tree.map(
            lambda a, b: jnp.concatenate([a, b], axis=-1), window.tokens._replace(domain=()), one_domain
        )
        return Window(both._replace(domain=tokens.domain), jnp.concatenate([window.branch, branch]))

    def read_window(self, params: SequenceActorParams, carry: SequenceMemory, seen: Window) -> jax.Array:
        """States `[B, L, D]` of the tokens of a window behind the carry."""
        tokens, cache = seen.tokens, carry.cache
        old_order, old_time = cache.order[0], cache.token_time[0]
        order = jnp.concatenate([old_order, tokens.order])
        time = jnp.concatenate([old_time, tokens.time])
        visible = attention.window_mask(tokens.order, tokens.time, order, time, self.model.config.context)
        # Of an action of several components the cache has a part that the window says again.
        is_said = (old_order < tokens.order[0])[None] & (old_time[None] >= cache.start[:, None])
        begun = jnp.where(is_said, 0, REAL)  # [B, slots]
        segment = jnp.concatenate([begun, tokens.segment], axis=1)
        same = tokens.segment[:, :, None] == segment[:, None, :]
        branch = jnp.concatenate([jnp.full(old_order.shape, REAL, jnp.int32), seen.branch])
        is_open = (branch[None] == REAL) | (branch[None] == seen.branch[:, None])
        # An aside stands behind the observation of its own step: what was done then is told in it.
        of_step = (cache.time[0] + seen.branch) * self.domain.period + self.domain.obs_size
        behind = (seen.branch == REAL)[:, None] | (branch != REAL)[None] | (order[None] < of_step[:, None])
        # The action before an episode is seen by itself alone, as in `attention.cache_mask`.
        size = tokens.order.shape[0]
        is_self = jnp.pad(jnp.eye(size, dtype=bool), ((0, 0), (old_order.shape[0], 0)))
        mask = (visible & is_open & behind)[None] & same | is_self[None]

        def past(layer: int) -> Past:
            pad = ((0, 0), (0, size), (0, 0), (0, 0))
            keys, values = jnp.pad(cache.keys[:, layer], pad), jnp.pad(cache.values[:, layer], pad)
            return Past(keys, values, jnp.array(old_order.shape[0], jnp.int32))

        return self.model.extend(
            params.network, tokens, mask, [past(i) for i in range(self.model.config.num_layers)]
        )

    def of_steps(self, states: jax.Array, num_steps: int, place: int) -> jax.Array:
        """States `[T, B, D]` of one token of each step's `period` tokens."""
        period = self.domain.period
        by_step = states[:, : num_steps * period].reshape(states.shape[0], num_steps, period, -1)
        return jnp.moveaxis(by_step[:, :, place], 1, 0)

    def judge(self, params, carry, seen):
        """As `Judge.judge`, in one pass."""
        num_steps, period = seen.is_first.shape[0], self.domain.period
        states = self.read_window(params, carry, self.window(carry, seen))
        taken, first = self.tokens_of_action(seen.raw_action), self.of_steps(states, num_steps, period - 1)
        log_prob, entropy = 0.0, 0.0
        for i in range(self.domain.action_size):
            here = first
            if i:  # read where component i - 1 is written: at the start of the next step's tokens
                here = self.of_steps(states[:, period:], num_steps - 1, i - 1)
                here = jnp.concatenate([here, states[:, num_steps * period + i - 1][None]])
            dist = self.choices(params, here, i, seen.legal)
            log_prob, entropy = log_prob + dist.log_prob(taken[..., i]), entropy + dist.entropy()
        return Judgement(log_prob, entropy, self.value_of(params, first))

    def values(self, params, carry, seen, final_obs):
        """As `Judge.values`, in one pass over the window and its asides."""
        num_steps, last = seen.is_first.shape[0], self.domain.period - 1
        plain = self.window(carry, seen)
        states = self.read_window(params, carry, self.asides(plain, carry, seen, final_obs))
        before = self.of_steps(states, num_steps, last)
        after = self.of_steps(states[:, plain.branch.shape[0] :], num_steps, last)
        return self.value_of(params, before), self.value_of(params, after)
