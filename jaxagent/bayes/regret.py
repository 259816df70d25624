"""Log-loss of a predictor over that of the best task in hindsight, and its Bayesian bound.

All for one sequence; losses are in nats. Letters: T steps, C contexts, K outcomes, D tasks.
Source: Zhang et al. 2023, regret of Bayesian model averaging: for every prefix and every task z,
sum -log P(r_t) <= sum -log P_z(r_t) + log 1 / p(z).
"""

import jax
import jax.numpy as jnp

from jaxagent.data.prompts import Pool, Rows


def log_losses(log_predictive: jax.Array, outcome: jax.Array) -> jax.Array:
    """-log P(r_t) `[T]` of predictions `[T, K]` and outcomes `[T]`."""
    return -jnp.take_along_axis(log_predictive, outcome[:, None], axis=-1)[:, 0]


def task_losses(pool: Pool, rows: Rows) -> jax.Array:
    """-log P_z(r_t | c_t) of every task, `[T, D]`; inf for padding."""
    losses = -jnp.log(pool.tables[:, rows.context, rows.outcome]).T
    return jnp.where((pool.log_prior == -jnp.inf)[None, :], jnp.inf, losses)


def hindsight_losses(rows: Rows, num_contexts: int, num_outcomes: int) -> jax.Array:
    """Summed loss of the best of all tables for each prefix, `[T]`: sum_ck -n log(n / n_c).

    The frequencies in hindsight are the best table; for fresh tasks it stands for the pool.
    """
    dtype = jnp.result_type(float)
    context = jax.nn.one_hot(rows.context, num_contexts, dtype=dtype)
    outcome = jax.nn.one_hot(rows.outcome, num_outcomes, dtype=dtype)

    def step(counts: jax.Array, row: tuple[jax.Array, jax.Array]):
        counts = counts + row[0][:, None] * row[1][None, :]
        total = counts.sum(axis=-1)
        return counts, jnp.sum(_x_log_x(total)) - jnp.sum(_x_log_x(counts))

    return jax.lax.scan(step, jnp.zeros((num_contexts, num_outcomes), dtype), (context, outcome))[1]


def _x_log_x(x: jax.Array) -> jax.Array:
    """x log x, 0 at 0."""
    return x * jnp.log(jnp.where(x > 0.0, x, 1.0))


def excess(losses: jax.Array, reference: jax.Array) -> jax.Array:
    """Summed losses `[T]` over those of a reference `[T]`, for each prefix `[T]`."""
    return jnp.cumsum(losses - reference)


def regret(log_predictive: jax.Array, pool: Pool, rows: Rows) -> jax.Array:
    """Summed loss of predictions `[T, K]` over that of the pool's best task, per prefix `[T]`.

    -inf from the first row on that no task of the pool could have made.
    """
    best = jnp.cumsum(task_losses(pool, rows), axis=0).min(axis=-1)
    total = jnp.cumsum(log_losses(log_predictive, rows.outcome))
    return _minus(total, best)


def bound(pool: Pool) -> jax.Array:
    """log 1 / p(z) `[D]`: the most that the exact predictor can lose to task z on any prefix."""
    return -pool.log_prior


def worst_violation(log_predictive: jax.Array, pool: Pool, rows: Rows) -> jax.Array:
    """Largest summed loss over z's summed loss and bound, of all prefixes and tasks, `[]`.

    At most 0, up to rounding, for the exact predictor of the pool.
    """
    tasks = jnp.cumsum(task_losses(pool, rows), axis=0) + bound(pool)[None, :]
    total = jnp.cumsum(log_losses(log_predictive, rows.outcome))
    return jnp.max(_minus(total[:, None], tasks))


def _minus(total: jax.Array, reference: jax.Array) -> jax.Array:
    """total - reference; -inf where the reference is infinite, even if the total is too."""
    is_infinite = reference == jnp.inf
    return jnp.where(is_infinite, -jnp.inf, total - jnp.where(is_infinite, 0.0, reference))
