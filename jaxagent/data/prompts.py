"""Prompts with a known generator: urns, random MDPs and linear regression, and pools of tasks.

One table serves urns and MDPs: `[C, K]`, a distribution over K outcomes for each of C contexts. An
urn is C = 1; an MDP of S states and A actions is C = S * A, K = S, with context = s * A + a. A pool
holds D tasks of which the first may be in use and the rest padding: padding has log prior -inf, so
pools of several sizes are lanes of one `vmap`. Everything is for one sequence: `vmap` at the edge.
Letters: T steps, C contexts, K outcomes, D tasks, S states, A actions, d size of a regressor.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Rows(NamedTuple):
    """What happened in which context, in order; any leading axes are batches."""

    context: jax.Array  # [..., T] int32 in 0..C-1
    outcome: jax.Array  # [..., T] int32 in 0..K-1


class Pool(NamedTuple):
    """D tables and the prior over them; lanes of one table stack are `Pool(None, 0)` to `vmap`."""

    tables: jax.Array  # [D, C, K], each row a distribution
    log_prior: jax.Array  # [D], normalised; -inf where the task is padding


class LinearPool(NamedTuple):
    """D regression tasks and the prior over them."""

    weights: jax.Array  # [D, d]
    log_prior: jax.Array  # [D], normalised; -inf where the task is padding


def _check_positive(where: str, **values) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{where}: got {name} = {value}, expected above 0; fix: raise {name}")


def dirichlet_tables(
    key: jax.Array, num_tasks: int, num_contexts: int, num_outcomes: int, alpha: float, dtype=jnp.float32
) -> jax.Array:
    """Draw tables `[D, C, K]` whose rows are Dirichlet(alpha, ..., alpha), all independent."""
    shape = {"num_tasks": num_tasks, "num_contexts": num_contexts, "num_outcomes": num_outcomes}
    _check_positive("dirichlet_tables", **shape, alpha=alpha)
    concentration = jnp.full((num_outcomes,), alpha, dtype)
    return jax.random.dirichlet(key, concentration, (num_tasks, num_contexts), dtype)


def urn(key: jax.Array, table: jax.Array, num_steps: int) -> Rows:
    """Draw T outcomes of an urn `[1, K]`, with replacement; the context is always 0."""
    if table.ndim != 2 or table.shape[0] != 1:
        raise ValueError(
            f"urn: got a table of shape {table.shape}, expected [1, K]; "
            "fix: take one task, pool.tables[index]; tables of several contexts go to walk"
        )
    outcome = jax.random.categorical(key, jnp.log(table[0]), shape=(num_steps,))
    return Rows(jnp.zeros((num_steps,), jnp.int32), outcome.astype(jnp.int32))


def walk(key: jax.Array, table: jax.Array, num_actions: int, num_steps: int) -> tuple[jax.Array, jax.Array]:
    """Walk through an MDP `[S A, S]` by uniform actions from a uniform state.

    Returns int32 states `[T + 1]` and actions `[T]`.
    """
    num_states = table.shape[-1]
    if table.ndim != 2 or table.shape[0] != num_states * num_actions:
        raise ValueError(
            f"walk: got a table of shape {table.shape} and {num_actions} actions, expected "
            f"[S * A, S] = {(num_states * num_actions, num_states)}; fix: draw dirichlet_tables "
            "with num_contexts = S * A and num_outcomes = S"
        )
    key_state, key_action, key_noise = jax.random.split(key, 3)
    first = jax.random.randint(key_state, (), 0, num_states, jnp.int32)
    actions = jax.random.randint(key_action, (num_steps,), 0, num_actions, jnp.int32)
    # Gumbel noise for all steps at once: a draw is an argmax, and the loop holds no key.
    noise = jax.random.gumbel(key_noise, (num_steps, num_states), table.dtype)
    log_table = jnp.log(table)

    def step(state: jax.Array, inputs: tuple[jax.Array, jax.Array]):
        action, noise = inputs
        state = jnp.argmax(log_table[state * num_actions + action] + noise).astype(jnp.int32)
        return state, state

    _, later = jax.lax.scan(step, first, (actions, noise))
    return jnp.concatenate([first[None], later]), actions


def walk_rows(states: jax.Array, actions: jax.Array, num_actions: int) -> Rows:
    """Rows of a walk: states `[..., T + 1]`, actions `[..., T]`; outcome t is state t + 1."""
    return Rows(context=states[..., :-1] * num_actions + actions, outcome=states[..., 1:])


def uniform_pool(tables: jax.Array, num_tasks: int | jax.Array) -> Pool:
    """Pool of the first `num_tasks` of the tables `[D, C, K]`, all as likely."""
    return Pool(tables, _log_prior(jnp.zeros(tables.shape[:1], tables.dtype), num_tasks))


def zipf_pool(tables: jax.Array, num_tasks: int | jax.Array, exponent: float) -> Pool:
    """Pool of the first `num_tasks` of the tables `[D, C, K]`, task i (from 1) as likely as i^-exponent."""
    rank = jnp.arange(1, tables.shape[0] + 1, dtype=tables.dtype)
    return Pool(tables, _log_prior(-exponent * jnp.log(rank), num_tasks))


def uniform_linear_pool(weights: jax.Array, num_tasks: int | jax.Array) -> LinearPool:
    """Pool of the first `num_tasks` of the regression tasks `[D, d]`, all as likely."""
    return LinearPool(weights, _log_prior(jnp.zeros(weights.shape[:1], weights.dtype), num_tasks))


def _log_prior(scores: jax.Array, num_tasks: int | jax.Array) -> jax.Array:
    """Normalise log scores `[D]` over the first `num_tasks`; the rest is padding, -inf."""
    (size,) = scores.shape
    if not isinstance(num_tasks, jax.core.Tracer) and not 1 <= int(num_tasks) <= size:
        raise ValueError(
            f"pool: got num_tasks = {num_tasks}, expected 1 to {size}, the tasks that were given; "
            "fix: draw as many tasks as the largest pool has"
        )
    return jax.nn.log_softmax(jnp.where(jnp.arange(size) < num_tasks, scores, -jnp.inf))


def draw_task(key: jax.Array, pool: Pool | LinearPool) -> jax.Array:
    """Draw the index of a task, int32 `[]`, from the pool's prior; never padding."""
    return jax.random.categorical(key, pool.log_prior).astype(jnp.int32)


def linear_tasks(key: jax.Array, num_tasks: int, size: int, scale: float, dtype=jnp.float32) -> jax.Array:
    """Draw regression tasks `[D, d]` from N(0, scale^2 I)."""
    _check_positive("linear_tasks", num_tasks=num_tasks, size=size, scale=scale)
    return scale * jax.random.normal(key, (num_tasks, size), dtype)


def linear(key: jax.Array, w: jax.Array, num_steps: int, noise: float) -> tuple[jax.Array, jax.Array]:
    """Draw x `[T, d]` from N(0, I) and y `[T]` = x.w + noise N(0, 1) of the task w `[d]`."""
    key_x, key_noise = jax.random.split(key)
    x = jax.random.normal(key_x, (num_steps, *w.shape), w.dtype)
    clean = jnp.matmul(x, w, precision=jax.lax.Precision.HIGHEST)
    return x, clean + noise * jax.random.normal(key_noise, (num_steps,), w.dtype)
