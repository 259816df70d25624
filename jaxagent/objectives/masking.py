"""Masks and attention of a pretraining pass: booleans and rules, no networks.

Masks say True for what is *hidden* (`[B, K, G]` or `[K, G]`: K transitions of G tokens), attention
True for what is *seen*, of L = K G tokens by L (`Sight`, whose `table` is the array).
The papers' conventions differ: MTM's arrays mark what is visible.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxagent.tokens.stream import ACTION, OBS
from kernels.attention import masks
from kernels.attention.masks import Sight

KEEP_RATIOS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0)  # MTM's `mask_ratios`: shares kept
DROP_RATES = (0.15, 0.35, 0.55, 0.75, 0.95)  # MaskDP
CUT_ON_ACTION = 0.78  # MTM's (state .2, return .1, action .7) without returns


def causal(num_steps: int, group: int) -> Sight:
    """Every token sees itself and those before it."""
    return masks.causal(num_steps * group)


def block_causal(num_steps: int, kinds: jax.Array) -> Sight:
    """Every token sees the earlier blocks and all of its own.

    A block is a state or an action: a state's tokens see each other, and no action of their own
    step (`kinds [G]`), or they would know what comes.
    """
    time, kind = _times(num_steps, kinds)
    block = 2 * time + kind
    return masks.ordered(block, block)


def full(num_steps: int, group: int) -> Sight:
    """Every token sees all."""
    return masks.everyone(num_steps * group)


def inverse(num_steps: int, kinds: jax.Array) -> Sight:
    """Each action sees its own token, the state before it and the state after it.

    States see their own state alone, so that nothing of another action or time leaks through them
    (SMART, Sun et al. 2023, inverse dynamics).
    """
    place = jnp.arange(num_steps * kinds.shape[0], dtype=jnp.int32)[None]
    ids = (*_times(num_steps, kinds), place)
    return Sight(_sees_states_beside, ids, ids)


def _sees_states_beside(query: tuple, key: tuple) -> jax.Array:
    """The rule of `inverse`, of a token's step, kind and place."""
    ahead, of_state = key[0] - query[0], key[1] == OBS
    next_state = (query[1] == ACTION) & of_state & (ahead == 1)
    return (of_state & (ahead == 0)) | next_state | (query[2] == key[2])


def _times(num_steps: int, kinds: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Each token's step and kind, int32 `[1, L]`."""
    time = jnp.repeat(jnp.arange(num_steps, dtype=jnp.int32), kinds.shape[0])
    return time[None], jnp.tile(kinds.astype(jnp.int32), num_steps)[None]


def hide_from_others(attention: Sight, hidden: jax.Array) -> Sight:
    """Hidden tokens, `[B, K, G]`, are looked at by themselves alone: an encoder sees only what is kept.

    Source: MTM, MaskDP (masked autoencoders).
    """
    return only(attention, ~hidden.reshape(hidden.shape[0], -1))


def within_episode(attention: Sight, is_real: jax.Array, group: int) -> Sight:
    """Remove steps that do not exist, `is_real [B, K]`, from attention. Every token still sees itself."""
    return only(attention, jnp.repeat(is_real, group, axis=1))


def only(attention: Sight, is_seen: jax.Array) -> Sight:
    """Of attention the tokens that are seen, bool `[B, L]`; each token sees itself."""
    size = is_seen.shape[1]
    place = jnp.arange(size, dtype=jnp.int32)[None]
    return masks.either(masks.both(attention, masks.those(size, is_seen)), masks.same(place, place))


def first(attention: Sight, count: int) -> Sight:
    """That of the first `count` tokens alone."""
    return jax.tree.map(lambda x: x[:, :count], attention)


def bert(key: jax.Array, shape: tuple[int, int, int], rate: float) -> tuple[jax.Array, jax.Array]:
    """Tokens to be predicted, bool `[B, K, G]`, and the fate of each, in [0, 1].

    Of the chosen, 80 % are hidden (a fate below 0.8), 10 % get another token's value (below 0.9)
    and 10 % stay (Devlin et al. 2019, section 3.1); the fate of what was not chosen is 1.
    """
    key_choose, key_kind = jax.random.split(key)
    chosen = jax.random.uniform(key_choose, shape) < rate
    fate = jax.random.uniform(key_kind, shape)
    return chosen, jnp.where(chosen, fate, 1.0)


def mtm(key: jax.Array, num_steps: int, kinds: jax.Array, ratios: Sequence[float] = KEEP_RATIOS) -> jax.Array:
    """MTM's random autoregressive mask, hidden bool `[K, G]` (Wu et al. 2023, section 3.2).

    A share of the tokens, drawn from `ratios`, is kept at random. Then a time t and a kind are
    drawn: that kind and those after it are hidden from t on, the kinds before it from t + 1 on, so
    that something is always predicted from its past alone. One mask a batch, as in their code.
    """
    key_ratio, key_rank, key_time, key_kind = jax.random.split(key, 4)
    size = num_steps * kinds.shape[0]
    ratio = jax.random.choice(key_ratio, jnp.array(ratios, jnp.float32))
    rank = jax.random.permutation(key_rank, size)
    kept = (rank < jnp.floor(size * ratio + 1e-4).astype(jnp.int32)).reshape(num_steps, -1)
    cut = jax.random.randint(key_time, (), 0, num_steps)
    on_action = jax.random.bernoulli(key_kind, CUT_ON_ACTION)
    first_kind = jnp.where(on_action, ACTION, OBS)
    time = jnp.arange(num_steps)[:, None]
    starts = jnp.where(kinds >= first_kind, cut, cut + 1)[None, :]
    return ~kept | (time >= starts)


def maskdp(key: jax.Array, shape: tuple[int, int, int], rates: Sequence[float] = DROP_RATES) -> jax.Array:
    """MaskDP's random mask, hidden bool `[B, K, G]`: one rate a batch (Liu et al. 2022, 3.1)."""
    key_rate, key_token = jax.random.split(key)
    rate = jax.random.choice(key_rate, jnp.array(rates, jnp.float32))
    return jax.random.uniform(key_token, shape) < rate


def hindsight(
    key: jax.Array, batch_size: int, num_steps: int, kinds: jax.Array, progress: jax.Array
) -> jax.Array:
    """SMART's masks of whole actions and states, hidden bool `[B, K, G]`; they grow with training.

    With `progress []` in [0, 1]: `max(1, floor(K progress))` actions and at most half as many states
    as there are steps (Sun et al. 2023, section 4.1 and its curriculum).
    """
    key_obs, key_action = jax.random.split(key)
    num_actions = jnp.maximum(1, jnp.floor(num_steps * progress).astype(jnp.int32))
    num_obs = jnp.minimum(num_steps // 2, num_actions)

    def choose(key: jax.Array, count: jax.Array) -> jax.Array:
        scores = jax.random.uniform(key, (batch_size, num_steps))
        return jnp.argsort(jnp.argsort(scores, axis=1), axis=1) < count

    obs, action = choose(key_obs, num_obs), choose(key_action, num_actions)
    is_action = (kinds == ACTION)[None, None, :]
    return jnp.where(is_action, action[..., None], obs[..., None])
