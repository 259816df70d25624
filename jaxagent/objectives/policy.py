"""Policy objectives: arrays in, losses out."""

import jax
import jax.numpy as jnp


def ppo_clip(log_prob: jax.Array, old_log_prob: jax.Array, advantage: jax.Array, *, clip: float) -> jax.Array:
    """Clipped surrogate loss `[...]` of arguments `[...]` (Schulman et al. 2017, eq. 7, negated)."""
    ratio = jnp.exp(log_prob - old_log_prob)
    clipped = jnp.clip(ratio, 1.0 - clip, 1.0 + clip)
    return -jnp.minimum(ratio * advantage, clipped * advantage)


def clipped_value_loss(
    value: jax.Array, old_value: jax.Array, target: jax.Array, *, clip: float
) -> jax.Array:
    """Half the squared error `[...]`, the new value `[...]` kept within `clip` of the old.

    The pessimistic maximum of OpenAI baselines' PPO2; `clip = inf` clips nothing.
    """
    clipped = old_value + jnp.clip(value - old_value, -clip, clip)
    return 0.5 * jnp.maximum(jnp.square(value - target), jnp.square(clipped - target))


def approximate_kl(log_prob: jax.Array, old_log_prob: jax.Array) -> jax.Array:
    """Non-negative unbiased estimates `[...]` of KL(old, new), nats, from `[...]` (Schulman 2020, "k3")."""
    log_ratio = log_prob - old_log_prob
    return jnp.expm1(log_ratio) - log_ratio


def value_weight(value: jax.Array, *, alpha: float) -> jax.Array:
    """The weight `alpha / mean |Q|` of values `[b]` against cloning, `[]`; nothing flows back.

    Fujimoto and Gu 2021, eq. 5 (lambda). Differs: values that are all nearly zero count as 1e-6.
    """
    size = jnp.mean(jnp.abs(jax.lax.stop_gradient(value)))
    return alpha / jnp.maximum(size, 1e-6)


def advantage_weight(advantage: jax.Array, *, beta: float, largest: float) -> jax.Array:
    """`min(exp(beta advantage), largest)` `[...]` of `advantage [...]`, the weight of cloning an action.

    Kostrikov et al. 2022, eq. 7; nothing flows back. `beta = 0` is behaviour cloning.
    """
    exponent = jax.lax.stop_gradient(beta * advantage)
    return jnp.exp(jnp.minimum(exponent, jnp.log(largest)))


def cross_entropy(logits: jax.Array, weights: jax.Array) -> jax.Array:
    """`-sum_a w_a log pi_a` (nats) `[...]` of logits `[..., A]` under weights `[..., A]`.

    A masked action has the least finite logit and no weight, and counts 0.
    """
    return -jnp.sum(weights * jax.nn.log_softmax(logits), axis=-1)
