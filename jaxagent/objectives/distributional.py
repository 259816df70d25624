"""Distributions of returns on fixed atoms (C51, Bellemare et al. 2017): arrays in, arrays out."""

import jax
import jax.numpy as jnp


def atoms(max_return: float, num_atoms: int) -> jax.Array:
    """Returns `[Z]` that the atoms stand for, evenly from `-max_return` to `max_return`."""
    return jnp.linspace(-max_return, max_return, num_atoms)


def expected_return(logits: jax.Array, max_return: float) -> jax.Array:
    """Means `[...]` of distributions with logits `[..., Z]`."""
    return jax.nn.softmax(logits) @ atoms(max_return, logits.shape[-1])


def bellman_target(
    reward: jax.Array, discount: jax.Array, probability: jax.Array, max_return: float
) -> jax.Array:
    """`reward + discount Z'` put back on the atoms, `[b, Z]` (ibid., algorithm 1).

    `reward [b]` may be a sum over several steps, with `discount [b]` then of as many, 0 at an end;
    `probability [b, Z]` is that of Z'. Each atom's image gives its weight to the two atoms beside
    it, by nearness; beyond the ends all to the last one.
    """
    support = atoms(max_return, probability.shape[-1])
    gap = 2.0 * max_return / (probability.shape[-1] - 1)
    image = jnp.clip(reward[:, None] + discount[:, None] * support[None], -max_return, max_return)
    share = jnp.clip(1.0 - jnp.abs(image[:, None] - support[None, :, None]) / gap, 0.0, 1.0)
    return jnp.einsum("bij,bj->bi", share, probability)


def divergence(target: jax.Array, logits: jax.Array) -> jax.Array:
    """KL divergence `[b]`, nats, of `target [b, Z]` from logits `[b, Z]`; its gradient is C51's."""
    log_target = jnp.log(jnp.maximum(target, jnp.finfo(target.dtype).tiny))
    terms = target * (log_target - jax.nn.log_softmax(logits))
    return jnp.sum(jnp.where(target > 0.0, terms, 0.0), axis=-1)
