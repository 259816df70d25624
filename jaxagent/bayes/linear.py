"""Exact in-context predictors of linear regression, and kernel regression beside them.

Each takes one sequence, x `[T, d]` and y `[T]`, and predicts y_t from x_t and the pairs before t;
`vmap` at the edge. Letters: T steps, d size of x, D tasks of the pool.
"""

import jax
import jax.numpy as jnp

from jaxagent.bayes import posterior as bayes
from jaxagent.data.prompts import LinearPool

HIGHEST = jax.lax.Precision.HIGHEST


def ridge(x: jax.Array, y: jax.Array, ratio: float | jax.Array) -> tuple[jax.Array, jax.Array]:
    """Predictive mean `[T]` and variance / sigma^2 `[T]` for w ~ N(0, tau^2 I) and noise sigma.

    `ratio` = sigma^2 / tau^2 > 0. With X, Y the pairs before t and G = X^T X + ratio I, the mean is
    x_t^T G^-1 X^T Y and the variance sigma^2 (1 + x_t^T G^-1 x_t).
    Source: Zhang et al. 2023 (attention as ridge); Raventos et al. 2023 (the ridge estimator).
    Differs: no system is solved for each prefix. The Cholesky factor L of the covariance of y,
    x x^T + ratio I up to a constant, holds every prefix: e = L^-1 y are the scaled errors of the
    predictions in order, so the mean is sum_{s<t} L_ts e_s, the variance L_tt^2 / ratio. That is
    one T x T factor, backward stable, where rank-one updates of G^-1 would accumulate errors.
    """
    if not isinstance(ratio, jax.core.Tracer) and not ratio > 0:
        raise ValueError(
            f"ridge: got ratio = {ratio}, expected sigma^2 / tau^2 above 0; "
            "fix: give noiseless data a small ratio such as 1e-4"
        )
    covariance = jnp.matmul(x, x.T, precision=HIGHEST) + ratio * jnp.eye(len(y), dtype=x.dtype)
    factor = jnp.linalg.cholesky(covariance)
    errors = jax.scipy.linalg.solve_triangular(factor, y, lower=True)
    mean = jnp.matmul(jnp.tril(factor, -1), errors, precision=HIGHEST)
    return mean, jnp.diagonal(factor) ** 2 / ratio


def pool_mean(pool: LinearPool, x: jax.Array, y: jax.Array, noise: float | jax.Array) -> jax.Array:
    """Mean `[T]` of each y under the posterior over the pool, noise of standard deviation `noise`.

    Source: Raventos et al. 2023, the discrete minimum mean squared error estimator (dMMSE).
    """
    outputs = _outputs(pool, x)

    def step(log_weights: jax.Array, inputs: tuple[jax.Array, jax.Array]):
        output, target = inputs
        mean = jnp.sum(jnp.exp(log_weights) * output)
        return _observe(pool, log_weights, output, target, noise), mean

    return jax.lax.scan(step, pool.log_prior, (outputs, y))[1]


def pool_posterior(pool: LinearPool, x: jax.Array, y: jax.Array, noise: float | jax.Array) -> jax.Array:
    """Log posterior over the pool, `[T + 1, D]`: before each pair, and after the last."""

    def step(log_weights: jax.Array, inputs: tuple[jax.Array, jax.Array]):
        return _observe(pool, log_weights, *inputs, noise), log_weights

    last, before = jax.lax.scan(step, pool.log_prior, (_outputs(pool, x), y))
    return jnp.concatenate([before, last[None]])


def _outputs(pool: LinearPool, x: jax.Array) -> jax.Array:
    """Output of each task for each x, `[T, D]`; 0 for padding."""
    is_padding = (pool.log_prior == -jnp.inf)[:, None]
    weights = jnp.where(is_padding, 0.0, pool.weights)
    return jnp.matmul(x, weights.T, precision=HIGHEST)


def _observe(pool: LinearPool, log_weights, output, target, noise) -> jax.Array:
    """Log posterior `[D]` after one target `[]`, given the tasks' outputs `[D]`."""
    log_likelihood = -0.5 * ((target - output) / noise) ** 2
    return bayes.update(log_weights, log_likelihood, pool.log_prior)


def kernel_regression(x: jax.Array, y: jax.Array, bandwidth: float | jax.Array) -> jax.Array:
    """Softmax attention over past targets with logit bandwidth * x_t.x_i, `[T]`; 0 at t = 0.

    Source: Zhang et al. 2023: a softmax head is a kernel regression (Nadaraya-Watson).
    """
    logits = bandwidth * jnp.matmul(x, x.T, precision=HIGHEST)
    is_past = jnp.tri(len(y), k=-1, dtype=bool)
    # The first row attends to itself, so that it is no NaN, and is then emptied.
    logits = jnp.where(is_past.at[0, 0].set(True), logits, -jnp.inf)
    weights = jnp.where(is_past, jax.nn.softmax(logits, axis=-1), 0.0)
    return jnp.matmul(weights, y, precision=HIGHEST)
