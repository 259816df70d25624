"""Distances between predictions given as log-probabilities, and where a model lies between two."""

import math

import jax
import jax.numpy as jnp


def kl(log_p: jax.Array, log_q: jax.Array) -> jax.Array:
    """KL(p || q) in nats, `[..., K]` twice -> `[...]`; 0 log 0 = 0, and inf where only q is 0."""
    is_zero = log_p == -jnp.inf
    ratio = jnp.where(is_zero, 0.0, log_p) - jnp.where(is_zero, 0.0, log_q)
    return jnp.sum(jnp.exp(log_p) * ratio, axis=-1)


def kl_of_pairs(log_p: jax.Array, log_q: jax.Array) -> jax.Array:
    """KL of every `log_p [M, S, ..., K]` from every `log_q [G, S, ..., K]`, mean over `...`: `[M, S, G]`.

    Its cross term is one product of matrices for all pairs; only finite log-probabilities.
    """
    num_positions = math.prod(log_p.shape[2:-1])
    p, log_p, log_q = (x.reshape(*x.shape[:2], -1) for x in (jnp.exp(log_p), log_p, log_q))
    cross = jnp.einsum("mse,gse->msg", p, log_q, precision=jax.lax.Precision.HIGHEST)
    return (jnp.sum(p * log_p, axis=-1)[..., None] - cross) / num_positions


def symmetric_kl(log_p: jax.Array, log_q: jax.Array) -> jax.Array:
    """Mean of KL(p || q) and KL(q || p) in nats, `[..., K]` twice -> `[...]`."""
    return 0.5 * (kl(log_p, log_q) + kl(log_q, log_p))


def total_variation(log_p: jax.Array, log_q: jax.Array) -> jax.Array:
    """Half the summed absolute difference, in 0..1, `[..., K]` twice -> `[...]`."""
    return 0.5 * jnp.sum(jnp.abs(jnp.exp(log_p) - jnp.exp(log_q)), axis=-1)


def relative_distance(to_b: jax.Array, to_a: jax.Array, between: jax.Array) -> jax.Array:
    """Place of h between B (-1) and A (+1): clip((d(h, B) - d(h, A)) / d(A, B), -1, 1), `[...]`.

    `to_b`, `to_a` and `between` are these distances, `[...]` each.

    Source: Wurgaft et al. 2025, relative distance. Average each distance over positions first.
    Differs: 0 where A and B are the same; where they differ by little (0.02 nats) it is noise, and
    the experiment masks such cells.
    """
    is_same = between <= 0.0
    ratio = (to_b - to_a) / jnp.where(is_same, 1.0, between)
    return jnp.where(is_same, 0.0, jnp.clip(ratio, -1.0, 1.0))


def weight_on_a(relative: jax.Array) -> jax.Array:
    """Relative distance `[...]` in -1..1 as a weight on A in 0..1."""
    return 0.5 * (relative + 1.0)
