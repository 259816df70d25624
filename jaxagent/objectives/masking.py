"""Masks and attention of a pretraining pass: arrays of booleans, no networks.

Masks say True for what is *hidden* (`[B, K, G]` or `[K, G]`: K transitions of G tokens), attention
True for what is *seen* (`[L, L]`, L = K G, row: who looks). The papers' conventions differ: MTM's
arrays mark what is visible.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxagent.tokens.stream import ACTION, OBS

KEEP_RATIOS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0)  # MTM's `mask_ratios`: shares kept
DROP_RATES = (0.15, 0.35, 0.55, 0.75, 0.95)  # MaskDP
CUT_ON_ACTION = 0.78  # MTM's (state .2, return .1, action .7) without returns


def causal(num_steps: int, group: int) -> jax.Array:
    """Every token sees itself and those before it, bool `[L, L]`."""
    order = jnp.arange(num_steps * group)
    return order[None, :] <= order[:, None]


def block_causal(num_steps: int, kinds: jax.Array) -> jax.Array:
    """Every token sees the earlier blocks and all of its own, bool `[L, L]`.

    A block is a state or an action: a state's tokens see each other, and no action of their own
    step (`kinds [G]`), or they would know what comes.
    """
    group = kinds.shape[0]
    block = 2 * jnp.repeat(jnp.arange(num_steps), group) + jnp.tile(kinds, num_steps)
    return block[None, :] <= block[:, None]


def full(num_steps: int, group: int) -> jax.Array:
    """Every token sees all, bool `[L, L]`."""
    size = num_steps * group
    return jnp.ones((size, size), bool)


def inverse(num_steps: int, kinds: jax.Array) -> jax.Array:
    """Each action sees its own token, the state before it and the state after it, bool `[L, L]`.

    States see their own state alone, so that nothing of another action or time leaks through them
    (SMART, Sun et al. 2023, inverse dynamics).
    """
    group = kinds.shape[0]
    time, kind = jnp.repeat(jnp.arange(num_steps), group), jnp.tile(kinds, num_steps)
    ahead = time[None, :] - time[:, None]
    sees_state = (kind == OBS)[None, :] & (ahead == 0)
    next_state = (kind == ACTION)[:, None] & (kind == OBS)[None, :] & (ahead == 1)
    itself = jnp.eye(num_steps * group, dtype=bool)
    return sees_state | next_state | itself


def hide_from_others(attention: jax.Array, hidden: jax.Array) -> jax.Array:
    """Hidden tokens are looked at by themselves alone: an encoder that sees only what is kept.

    `attention [L, L]`, `hidden [B, K, G]`; returns `[B, L, L]` (MTM, MaskDP: masked autoencoders).
    """
    flat = hidden.reshape(hidden.shape[0], -1)
    itself = jnp.eye(flat.shape[1], dtype=bool)[None]
    return (attention[None] & ~flat[:, None, :]) | itself


def within_episode(attention: jax.Array, is_real: jax.Array, group: int) -> jax.Array:
    """Remove steps that do not exist, `is_real [B, K]`, from `attention` (`[L, L]` or `[B, L, L]`).

    Every token still sees itself.
    """
    flat = jnp.repeat(is_real, group, axis=1)
    rows = attention if attention.ndim == 3 else attention[None]
    itself = jnp.eye(flat.shape[1], dtype=bool)[None]
    return (rows & flat[:, None, :]) | itself


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
