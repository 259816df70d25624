"""The action-state transformer as an actor-critic: one token a scalar, acting through its cache.

The tokens of a step are the action before and what is seen now; the policy reads the last of them,
the value a layer of its own. Components of an action are decoded one after another: each sees those
before it, and the log-probability of an action is the sum over its tokens. Learning reads a whole
segment in one pass behind the cache with which it began, as Transformer-XL (Dai et al. 2019) does.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.types import Component
from jaxagent.agents import actions
from jaxagent.agents.actor_critic import Judge, Judgement, Seen
from jaxagent.nn import attention
from jaxagent.nn.attention import Cache, Past
from jaxagent.nn.distributions import Categorical
from jaxagent.nn.initializers import orthogonal
from jaxagent.nn.transformer import Model
from jaxagent.tokens import component, scalar
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
    num_bins, context = model.vocabulary.num_bins, model.config.context
    if model.config.positions == "learned":
        raise ValueError('positions: got "learned", expected "rotary" or "none" to act through a cache.')
    fitted = codec is not None
    codec = jax.tree.map(jnp.asarray, codec if fitted else standard_codec(domain, num_bins))
    n, m, period, rows = domain.obs_size, domain.action_size, domain.period, context + 1
    allowed = component.legal_tokens(domain, num_bins, model.vocabulary.size)  # [m, V + K]
    places = jnp.concatenate([jnp.arange(n, period), jnp.arange(n)]).astype(jnp.int32)  # of a step
    lag = (places >= n).astype(jnp.int32)  # the action is of the step before
    starts = np.cumsum([0, *domain.action_sizes])

    def init(key: jax.Array) -> SequenceActorParams:
        key_network, key_value = jax.random.split(key)
        network = model.init(key_network)
        # A nearly uniform first policy, as the towers' (`actor_critic.ACTOR_OUTPUT_SCALE`).
        network = network | {"head": jax.tree.map(lambda x: 0.1 * x, network["head"])}
        value = orthogonal(1.0)(key_value, (model.config.width, 1))[:, 0]
        return SequenceActorParams(network, jnp.concatenate([value, jnp.zeros(1)]))

    def init_carry(batch_size: int) -> SequenceMemory:
        return SequenceMemory(model.init_cache(batch_size, period), jnp.zeros((batch_size, m), jnp.int32))

    def value_of(params: SequenceActorParams, states: jax.Array) -> jax.Array:
        return states @ params.value[:-1] + params.value[-1]

    def tokens_of_action(raw_action: jax.Array) -> jax.Array:
        values = actions.to_env_action(raw_action, action_spec) if fitted else raw_action
        return component.encode_action(codec, domain, num_bins, values)

    def action_of_tokens(tokens: jax.Array) -> jax.Array:
        values = component.decode_action(codec, domain, num_bins, tokens)
        return actions.from_env_action(values, action_spec) if fitted else values

    def choices(params: SequenceActorParams, states: jax.Array, i: int, legal: Any) -> Categorical:
        """The distribution `[...]` of the tokens of component i, read from `states [..., D]`."""
        logits = model.read(params.network, states)
        size = domain.action_sizes[i]
        if size and not isinstance(legal, tuple):
            hidden = actions.mask_illegal(
                logits[..., num_bins : num_bins + size], legal[..., starts[i] : starts[i + 1]]
            )
            logits = logits.at[..., num_bins : num_bins + size].set(hidden)
        return Categorical(jnp.where(allowed[i][(None,) * (logits.ndim - 1)], logits, actions.HIDDEN))

    def chunk(value: jax.Array, places: jax.Array, time: jax.Array) -> Tokens:
        """Tokens `[B, L]` at `places [L]` of transitions at `time [L]`."""
        return Tokens(
            value=value,
            component=domain.first_component + places,
            kind=(places >= n).astype(jnp.int32),
            domain=jnp.array(domain.index, jnp.int32),
            time=time,
            order=time * period + places,
            segment=jnp.zeros(value.shape, jnp.int32),
        )

    def act(params, carry, obs, legal, is_first, key):
        cache, time = carry.cache, carry.cache.time
        cache = cache._replace(start=jnp.where(is_first, time, cache.start))
        value = jnp.concatenate([carry.action, component.encode_obs(codec, domain, num_bins, obs)], axis=1)
        tokens = chunk(value, places, time - lag)
        states, cache = model.advance(params.network, tokens, (time % rows) * period, cache)
        keys = [None] * m if key is None else jax.random.split(key, m)
        chosen, log_prob = [], 0.0
        for i in range(m):
            if i:
                tokens = chunk(chosen[-1][:, None], jnp.array([n + i - 1]), time[None])
                slot = ((time + 1) % rows) * period + (i - 1)
                states, cache = model.advance(params.network, tokens, slot, cache)
            dist = choices(params, states[:, -1], i, legal)
            chosen.append(dist.mode() if key is None else dist.sample(keys[i]))
            log_prob = log_prob + dist.log_prob(chosen[-1])
        tokens_taken = jnp.stack(chosen, axis=1)
        carry = SequenceMemory(cache._replace(time=time + 1), tokens_taken)
        return action_of_tokens(tokens_taken), log_prob, carry

    def by_lane(carry: SequenceMemory) -> SequenceMemory:
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

    def window(carry: SequenceMemory, seen: Seen) -> Window:
        """The tokens of a segment: of each step the action before and what is seen, then the last action."""
        num_steps, batch_size = seen.is_first.shape
        time = carry.cache.time[0] + jnp.arange(num_steps, dtype=jnp.int32)
        taken = tokens_of_action(seen.raw_action)  # [T, B, m]
        before = jnp.concatenate([carry.action[None], taken[:-1]])
        steps = jnp.concatenate([before, component.encode_obs(codec, domain, num_bins, seen.obs)], axis=-1)
        # Episodes are numbered from that in which the segment begins, or which it leaves at once.
        episode = jnp.cumsum(seen.is_first, axis=0, dtype=jnp.int32)  # [T, B]
        earlier = jnp.concatenate([jnp.zeros((1, batch_size), jnp.int32), episode[:-1]])
        episodes = jnp.where((lag > 0)[None, None], earlier[..., None], episode[..., None])
        last = jnp.array(range(n, period - 1), jnp.int32)  # all but the last component

        def flat(x: jax.Array, tail: jax.Array) -> jax.Array:
            return jnp.concatenate([jnp.moveaxis(x, 1, 0).reshape(batch_size, -1), tail], axis=1)

        tokens = chunk(
            flat(steps, taken[-1, :, : m - 1]),
            jnp.concatenate([jnp.tile(places, num_steps), last]),
            jnp.concatenate([(time[:, None] - lag[None]).reshape(-1), jnp.full((m - 1,), time[-1])]),
        )
        tail = jnp.broadcast_to(episode[-1][:, None], (batch_size, m - 1))
        tokens = tokens._replace(segment=flat(episodes, tail))
        return Window(tokens, jnp.full(tokens.order.shape, REAL, jnp.int32))

    def asides(window: Window, carry: SequenceMemory, seen: Seen, final_obs: jax.Array) -> Window:
        """The window, and an aside a step, seen by nobody else: its action and the observation after it."""
        num_steps, batch_size = seen.is_first.shape
        time = carry.cache.time[0] + jnp.arange(1, num_steps + 1, dtype=jnp.int32)
        obs = component.encode_obs(codec, domain, num_bins, final_obs)
        value = jnp.concatenate([tokens_of_action(seen.raw_action), obs], axis=-1)
        episode = jnp.cumsum(seen.is_first, axis=0, dtype=jnp.int32)
        tokens = chunk(
            jnp.moveaxis(value, 1, 0).reshape(batch_size, -1),
            jnp.tile(places, num_steps),
            (time[:, None] - lag[None]).reshape(-1),
        )
        tokens = tokens._replace(segment=jnp.repeat(episode.T, period, axis=1))
        branch = jnp.repeat(jnp.arange(num_steps, dtype=jnp.int32), period)
        shared = {"domain"}
        both = {
            name: getattr(tokens, name)
            if name in shared
            else jnp.concatenate([getattr(window.tokens, name), getattr(tokens, name)], axis=-1)
            for name in tokens._fields
        }
        return Window(Tokens(**both), jnp.concatenate([window.branch, branch]))

    def read_window(params: SequenceActorParams, carry: SequenceMemory, seen: Window) -> jax.Array:
        """States `[B, L, D]` of the tokens of a window behind the carry."""
        tokens, cache = seen.tokens, carry.cache
        old_order, old_time = cache.order[0], cache.token_time[0]
        order = jnp.concatenate([old_order, tokens.order])
        time = jnp.concatenate([old_time, tokens.time])
        visible = attention.window_mask(tokens.order, tokens.time, order, time, context)
        # Of an action of several components the cache has a part that the window says again.
        is_said = (old_order < tokens.order[0])[None] & (old_time[None] >= cache.start[:, None])
        begun = jnp.where(is_said, 0, REAL)  # [B, slots]
        segment = jnp.concatenate([begun, tokens.segment], axis=1)
        same = tokens.segment[:, :, None] == segment[:, None, :]
        branch = jnp.concatenate([jnp.full(old_order.shape, REAL, jnp.int32), seen.branch])
        is_open = (branch[None] == REAL) | (branch[None] == seen.branch[:, None])
        # An aside stands behind the observation of its own step: what was done then is told in it.
        of_step = (cache.time[0] + seen.branch) * period + n
        behind = (seen.branch == REAL)[:, None] | (branch != REAL)[None] | (order[None] < of_step[:, None])
        # The action before an episode is seen by itself alone, as in `attention.cache_mask`.
        size = tokens.order.shape[0]
        is_self = jnp.pad(jnp.eye(size, dtype=bool), ((0, 0), (old_order.shape[0], 0)))
        mask = (visible & is_open & behind)[None] & same | is_self[None]

        def past(layer: int) -> Past:
            pad = ((0, 0), (0, size), (0, 0), (0, 0))
            keys, values = jnp.pad(cache.keys[:, layer], pad), jnp.pad(cache.values[:, layer], pad)
            return Past(keys, values, jnp.array(old_order.shape[0], jnp.int32))

        return model.extend(params.network, tokens, mask, [past(i) for i in range(model.config.num_layers)])

    def of_steps(states: jax.Array, num_steps: int, place: int) -> jax.Array:
        """States `[T, B, D]` of one token of each step's `period` tokens."""
        by_step = states[:, : num_steps * period].reshape(states.shape[0], num_steps, period, -1)
        return jnp.moveaxis(by_step[:, :, place], 1, 0)

    def judge(params, carry, seen):
        num_steps = seen.is_first.shape[0]
        states = read_window(params, carry, window(carry, seen))
        taken, first = tokens_of_action(seen.raw_action), of_steps(states, num_steps, period - 1)
        log_prob, entropy = 0.0, 0.0
        for i in range(m):
            # Component i is read where component i - 1 is written: at the start of the next step's tokens.
            here = first if i == 0 else of_steps(states[:, period:], num_steps - 1, i - 1)
            if i:
                here = jnp.concatenate([here, states[:, num_steps * period + i - 1][None]])
            dist = choices(params, here, i, seen.legal)
            log_prob, entropy = log_prob + dist.log_prob(taken[..., i]), entropy + dist.entropy()
        return Judgement(log_prob, entropy, value_of(params, first))

    def values(params, carry, seen, final_obs):
        num_steps = seen.is_first.shape[0]
        plain = window(carry, seen)
        states = read_window(params, carry, asides(plain, carry, seen, final_obs))
        size = plain.branch.shape[0]
        now, after = (
            of_steps(states, num_steps, period - 1),
            of_steps(states[:, size:], num_steps, period - 1),
        )
        return value_of(params, now), value_of(params, after)

    return Judge(init, init_carry, act, judge, values, by_lane)
