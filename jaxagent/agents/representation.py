"""T(s): the contextual vector of the state, which replaces it as a policy's input (PASTA)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxagent.config import Pool
from jaxagent.nn.readout import pooled
from jaxagent.nn.sequence_model import SequenceModel
from jaxagent.objectives import masking
from jaxagent.tokens.layout import Layout
from kernels.attention import masks


def states(model: SequenceModel, layout: Layout, *, is_causal: bool) -> Callable[..., Any]:
    """A function `(params, unit [B, K, P], is_known [B, K], failure=None)` of windows that end now.

    It gives the states `[B, G, D]` of the present observation's tokens, and which of them `is_kept
    [G]`. `unit` are places in the tokenizer's warped space; the last action is not read, nor are
    steps that are not known. `failure`: see `fail`.
    """
    size, num_tokens = layout.num_tokens, layout.num_obs_tokens

    def apply(params: Any, unit: jax.Array, is_known: jax.Array, failure: Any = None) -> Any:
        length = (unit.shape[1] - 1) * size + num_tokens
        order = jnp.arange(length, dtype=jnp.int32)
        is_seen = is_known[:, order // size]
        hidden, is_kept = None, jnp.ones((num_tokens,), bool)
        if failure is not None:
            is_hidden, is_dropped = (jnp.pad(x, (0, size - num_tokens)) for x in failure)
            hidden, is_kept = is_hidden[None, None], ~is_dropped[:num_tokens]
            is_seen = is_seen & ~is_dropped[order % size][None]
        attention = masking.only(masks.causal(length) if is_causal else masks.everyone(length), is_seen)
        return model.encode(params, layout, unit, attention, hidden, length)[:, -num_tokens:], is_kept

    return apply


def features(
    model: SequenceModel, layout: Layout, *, is_causal: bool, pool: Pool
) -> Callable[..., jax.Array]:
    """A function `(params, unit [..., n], failure=None) -> T(s) [..., F]` of states alone, no history.

    `pool` is one without parameters: not "attention".
    """
    read = states(model, layout, is_causal=is_causal)

    def apply(params: Any, unit: jax.Array, failure: Any = None) -> jax.Array:
        flat = unit.reshape(-1, layout.domain.obs_size)
        transition = jnp.pad(flat, ((0, 0), (0, layout.domain.action_size)))[:, None]
        known = jnp.ones((1, 1), bool)
        return pooled(*read(params, transition, known, failure), pool).reshape(*unit.shape[:-1], -1)

    return apply


def fail(layout: Layout, sensor: int, mode: str) -> tuple[jax.Array, jax.Array]:
    """Which state tokens are hidden and which are dropped, each bool `[G_obs]`, when one fails.

    "mask": its token is replaced by the mask; "drop": nobody looks at it either, nor is it pooled
    (the pool "last" reads at the last place all the same). "mean" changes the observation itself
    and needs nothing here. Raises ValueError for it, and at modality level, where a sensor has no
    token of its own.
    """
    if mode not in ("mask", "drop") or not layout.is_component:
        raise ValueError(
            f'sensor failure: got mode "{mode}" at {layout.tokens.granularity} level, expected '
            '"mask" or "drop" at component level; else change the observation.'
        )
    failed = jnp.arange(layout.num_obs_tokens) == sensor
    return failed, failed & (mode == "drop")


def size(model: SequenceModel, layout: Layout, pool: Pool) -> int:
    """Width F of T(s)."""
    return model.config.width * (layout.num_obs_tokens if pool == "concat" else 1)
