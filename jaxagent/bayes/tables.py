"""Exact in-context predictors of urns and MDPs, and the alternatives to them.

Each predictor takes the rows of one sequence and returns log-probabilities `[T, K]`: at position t,
of the outcome in context t given the rows before t. `vmap` at the edge, also over pools. The float
dtype is that of the pool or table, of `alpha` and the like, and the default float where these are
Python numbers, so that float64 needs only `jax.enable_x64`.

Predictors over a pool are one scan over time that carries the posterior `[D]`. Under `vmap` over B
sequences it holds `[B, K, D]` at a time, all at once it would be `[B, T, K, D]` (4096 sequences,
T = 64, K = 8, D = 256: 34 MB rather than 2 GB), and no product with weights can underflow, as it
would in `weights @ tables`. Predictors from counts hold `[B, T, T]`, one product of matrices. For
more sequences than fit, `jax.lax.map(..., batch_size=)`.
Letters: T steps, C contexts, K outcomes, D tasks of the pool.
Source: Zhang et al. 2023, "What and how does in-context learning learn?" (Bayesian model
averaging); Wurgaft et al. 2025, "In-context learning strategies emerge rationally" (M and G).
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from jaxagent.bayes import posterior as bayes
from jaxagent.data.prompts import Pool, Rows

# (log posterior [D], log tables of the context [K, D], position) -> anything
Rule = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def posterior(pool: Pool, rows: Rows) -> jax.Array:
    """Log posterior over the pool, `[T + 1, D]`: before each step, and after the last."""
    last, before = _scan(pool, rows, lambda log_weights, log_table, t: log_weights)
    return jnp.concatenate([before, last[None]])


def memorising(pool: Pool, rows: Rows) -> jax.Array:
    """Bayesian model averaging over the pool, `[T, K]`: sum_d P(d | rows < t) P_d(. | c_t)."""
    return _scan(pool, rows, _average)[1]


def maximum_a_posteriori(pool: Pool, rows: Rows) -> jax.Array:
    """Table of the task of largest posterior, `[T, K]`; the lowest index among equals."""
    return _scan(pool, rows, _most_probable)[1]


def thompson(key: jax.Array, pool: Pool, rows: Rows) -> jax.Array:
    """Table of one task drawn from the posterior, anew at every position, `[T, K]`."""
    return _scan(pool, rows, partial(_sampled, key))[1]


def _average(log_weights: jax.Array, log_table: jax.Array, t: jax.Array) -> jax.Array:
    return jax.nn.logsumexp(log_weights[None, :] + log_table, axis=-1)


def _most_probable(log_weights: jax.Array, log_table: jax.Array, t: jax.Array) -> jax.Array:
    return log_table[:, jnp.argmax(log_weights)]


def _sampled(key: jax.Array, log_weights: jax.Array, log_table: jax.Array, t: jax.Array):
    # Folded in here: the key-reuse checker refuses a vmapped scan over keys split outside.
    return log_table[:, jax.random.categorical(jax.random.fold_in(key, t), log_weights)]


def _scan(pool: Pool, rows: Rows, rule: Rule) -> tuple[jax.Array, jax.Array]:
    """Last log posterior `[D]`, and `rule` of each position's posterior and tables `[T, ...]`."""
    log_tables = _by_context(pool)

    def step(log_weights: jax.Array, inputs: tuple[Rows, jax.Array]):
        row, t = inputs
        log_table = log_tables[row.context]
        result = rule(log_weights, log_table, t)
        return bayes.update(log_weights, log_table[row.outcome], pool.log_prior), result

    return jax.lax.scan(step, pool.log_prior, (rows, jnp.arange(rows.context.shape[0])))


def _by_context(pool: Pool) -> jax.Array:
    """Log tables `[C, K, D]`; padding is 0, whatever it holds, for its weight is 0 by the prior."""
    is_padding = (pool.log_prior == -jnp.inf)[:, None, None]
    return jnp.moveaxis(jnp.log(jnp.where(is_padding, 1.0, pool.tables)), 0, -1)


def prior_mean(pool: Pool, rows: Rows) -> jax.Array:
    """Average of the pool's tables under the prior, `[T, K]`: nothing is learned in context."""
    log_mean = jax.nn.logsumexp(pool.log_prior[None, None, :] + _by_context(pool), axis=-1)
    return log_mean[rows.context]


def oracle(table: jax.Array, rows: Rows) -> jax.Array:
    """The table `[C, K]` that made the rows, `[T, K]`."""
    return jnp.log(table)[rows.context]


def generalising(rows: Rows, alpha: float | jax.Array, num_outcomes: int) -> jax.Array:
    """Polya's rule, (n[c_t, k] + alpha) / (n[c_t, .] + K alpha), `[T, K]`.

    The exact predictor where every row of the table is Dirichlet(alpha) and all are independent.
    """
    counts = _past(rows, num_outcomes, 1.0, 0.0, _float_dtype(alpha)) + alpha
    return jnp.log(counts / counts.sum(axis=-1, keepdims=True))


def bigram(rows: Rows, num_outcomes: int, floor: float | jax.Array = 1e-6) -> jax.Array:
    """Counts without a prior, n[c_t, k] / n[c_t, .], `[T, K]`; uniform in an unseen context.

    The share `floor` is uniform, since an outcome not yet seen would have log-probability -inf.
    """
    counts = _past(rows, num_outcomes, 1.0, 0.0, _float_dtype(floor))
    total = counts.sum(axis=-1, keepdims=True)
    frequency = jnp.where(total > 0, counts / jnp.maximum(total, 1.0), 1.0 / num_outcomes)
    return jnp.log((1.0 - floor) * frequency + floor / num_outcomes)


def kernel_smoother(
    rows: Rows, bandwidth: float | jax.Array, num_outcomes: int, pseudo_count: float | jax.Array = 1.0
) -> jax.Array:
    """Softmax attention over past outcomes with logit bandwidth * [c_i == c_t], `[T, K]`.

    As if one head attended to contexts by identity: bandwidth 0 ignores them, a large one (below
    80 in float32) is `bigram`. `pseudo_count` rows of logit 0 say "uniform".
    """
    dtype = _float_dtype(bandwidth)
    same = jnp.exp(jnp.asarray(bandwidth, dtype))
    mass = _past(rows, num_outcomes, same, 1.0, dtype) + pseudo_count / num_outcomes
    return jnp.log(mass / mass.sum(axis=-1, keepdims=True))


def _past(rows: Rows, num_outcomes: int, same, other, dtype) -> jax.Array:
    """Weight of each outcome `[T, K]` among the rows before t, `same` from c_t and `other` else."""
    (num_steps,) = rows.context.shape
    is_same = rows.context[:, None] == rows.context[None, :]
    is_past = jnp.tri(num_steps, k=-1, dtype=bool)
    weight = jnp.where(is_past, jnp.where(is_same, same, other), 0.0).astype(dtype)
    outcome = jax.nn.one_hot(rows.outcome, num_outcomes, dtype=dtype)
    return jnp.matmul(weight, outcome, precision=jax.lax.Precision.HIGHEST)


def _float_dtype(value: float | jax.Array):
    return jnp.result_type(float, value)
