"""Streams: windows of transitions as flat token sequences with their ids.

A transition at time t is `o_t` (n tokens) then `a_t` (m tokens). What attends to what follows from
the ids alone (`nn/attention.py`), so a cache may store tokens in any layout.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxagent.tokens import component
from jaxagent.tokens.component import Domain

OBS, ACTION = 0, 1  # kinds
PADDING = -1  # segment of steps that do not exist


class Tokens(NamedTuple):
    """Tokens with what each stands for; `[B, L]` or `[L]` where all rows agree."""

    value: jax.Array  # [B, L] int32: bin or category
    component: jax.Array  # [L] int32: which scalar of which domain
    kind: jax.Array  # [L] int32: OBS or ACTION
    domain: jax.Array  # [] int32
    time: jax.Array  # [L] int32: env steps
    order: jax.Array  # [L] int32: place in the stream, time * P + place within the transition
    segment: jax.Array  # [B, L] int32: episode; tokens of different episodes never meet
    # [B, L, F] float32 where observations are cut into patches, which stand for values; () elsewhere
    patch: Any = ()


def flatten(obs: jax.Array, action: jax.Array, segment: jax.Array, domain: Domain) -> Tokens:
    """Interleave tokens `obs [B, K, n]`, `action [B, K, m]` of K transitions: L = K (n + m).

    `segment [B, K]` is the episode of each transition.
    """
    batch_size, num_steps, _ = obs.shape
    value = jnp.concatenate([obs, action], axis=-1).reshape(batch_size, -1)
    return Tokens(
        value=value.astype(jnp.int32),
        component=jnp.tile(component_ids(domain), num_steps),
        kind=jnp.tile(kind_ids(domain), num_steps),
        domain=jnp.array(domain.index, jnp.int32),
        time=jnp.repeat(jnp.arange(num_steps, dtype=jnp.int32), domain.period),
        order=jnp.arange(num_steps * domain.period, dtype=jnp.int32),
        segment=jnp.repeat(segment.astype(jnp.int32), domain.period, axis=1),
    )


def of_transitions(unit: jax.Array, domain: Domain, num_bins: int) -> Tokens:
    """Tokens `[B, K P]` of K transitions of one episode, scalars `[B, K, P]` (`component.tokens_of`)."""
    value, n = component.tokens_of(domain.sizes, num_bins, unit), domain.obs_size
    return flatten(value[..., :n], value[..., n:], jnp.zeros(unit.shape[:2], jnp.int32), domain)


def at_places(value: jax.Array, places: jax.Array, time: jax.Array, domain: Domain) -> Tokens:
    """Tokens `[B, L]` at `places [L]` of transitions at `time [L]`, as a cache takes them.

    Segments are 0: a cache knows its episodes.
    """
    return Tokens(
        value=value,
        component=domain.first_component + places,
        kind=(places >= domain.obs_size).astype(jnp.int32),
        domain=jnp.array(domain.index, jnp.int32),
        time=time,
        order=time * domain.period + places,
        segment=jnp.zeros(value.shape, jnp.int32),
    )


def pad_patches(patch: Any, before: int = 0, after: int = 0) -> Any:
    """Patches `[..., n, F]`, and zeros for so many tokens of actions around them; () stays."""
    if isinstance(patch, tuple):
        return patch
    return jnp.pad(patch, (*((0, 0),) * (patch.ndim - 2), (before, after), (0, 0)))


def component_ids(domain: Domain) -> jax.Array:
    """Component ids of one transition, int32 `[P]`."""
    return domain.first_component + jnp.arange(domain.period, dtype=jnp.int32)


def kind_ids(domain: Domain) -> jax.Array:
    """Kinds of one transition, int32 `[P]`."""
    return (jnp.arange(domain.period) >= domain.obs_size).astype(jnp.int32)
