"""One step of Bayes' rule over a finite pool, in log space."""

import jax
import jax.numpy as jnp


def update(log_weights: jax.Array, log_likelihood: jax.Array, log_prior: jax.Array) -> jax.Array:
    """Log posterior `[D]` from the one before, a step's log-likelihood and the prior, `[D]` each.

    It is normalised at every step rather than at the end: tasks that matter stay near 0, where
    float32 is fine, while a plain cumulative sum over T = 64 rounds at about 1e-5. Where no task of
    the pool could have made what was seen, it starts again from the prior, so there is no NaN.
    """
    joint = log_weights + log_likelihood
    total = jax.nn.logsumexp(joint)
    is_possible = total > -jnp.inf
    return jnp.where(is_possible, joint - jnp.where(is_possible, total, 0.0), log_prior)
