"""Generators against their distributions, by chi-square and KS at fixed keys; priors, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxagent.data import prompts

LEVEL = 1e-3  # of a test at a fixed key: it passes for good or not at all


def chi_square(counts, probabilities):
    """p-value of counts [..., K], each row multinomial with the probabilities [..., K]."""
    expected = counts.sum(axis=-1, keepdims=True) * probabilities
    statistic = ((counts - expected) ** 2 / expected).sum()
    degrees = counts.size - counts.size // counts.shape[-1]
    return scipy.stats.chi2.sf(statistic, degrees)


@pytest.mark.parametrize("alpha", [0.3, 1.0, 4.0])
def test_rows_of_dirichlet_tables_have_beta_marginals_and_sum_to_one(alpha):
    num_outcomes = 5
    tables = prompts.dirichlet_tables(jax.random.key(0), 400, 3, num_outcomes, alpha)
    assert tables.shape == (400, 3, num_outcomes)
    assert tables.dtype == jnp.float32
    tables = np.asarray(tables, np.float64)
    np.testing.assert_allclose(tables.sum(axis=-1), 1.0, atol=1e-5)
    beta = scipy.stats.beta(alpha, (num_outcomes - 1) * alpha)
    for outcome in range(num_outcomes):
        assert scipy.stats.kstest(tables[..., outcome].ravel(), beta.cdf).pvalue > LEVEL
    contexts = np.corrcoef(tables[:, 0, 0], tables[:, 1, 0])[0, 1]
    assert abs(contexts) < 4 / np.sqrt(400)


def test_an_urn_draws_its_table_and_never_what_it_lacks():
    table = jnp.array([[0.5, 0.0, 0.3, 0.2]])
    rows = prompts.urn(jax.random.key(1), table, 20_000)
    assert rows.context.dtype == rows.outcome.dtype == jnp.int32
    assert (np.asarray(rows.context) == 0).all()
    counts = np.bincount(rows.outcome, minlength=4)
    assert counts[1] == 0
    assert chi_square(counts[[0, 2, 3]], np.array([0.5, 0.3, 0.2])) > LEVEL
    pairs = np.zeros((4, 4))
    np.add.at(pairs, (rows.outcome[:-1], rows.outcome[1:]), 1)
    used = pairs[np.ix_([0, 2, 3], [0, 2, 3])]
    assert chi_square(used, np.array([[0.5, 0.3, 0.2]])) > LEVEL


@pytest.mark.slow
def test_a_walk_follows_its_table_under_uniform_actions():
    num_states, num_actions, num_steps = 3, 2, 100
    table = prompts.dirichlet_tables(jax.random.key(2), 1, 6, 3, 1.0)[0].at[0].set([0.0, 0.4, 0.6])
    keys = jax.random.split(jax.random.key(3), 300)
    walk = jax.vmap(prompts.walk, in_axes=(0, None, None, None))
    states, actions = walk(keys, table, num_actions, num_steps)
    assert states.shape == (300, num_steps + 1)
    assert states.dtype == actions.dtype == jnp.int32
    rows = prompts.walk_rows(states, actions, num_actions)
    np.testing.assert_array_equal(rows.context, states[:, :-1] * 2 + actions)
    np.testing.assert_array_equal(rows.outcome, states[:, 1:])
    counts = np.zeros((6, num_states))
    np.add.at(counts, (np.asarray(rows.context), np.asarray(rows.outcome)), 1)
    assert counts[0, 0] == 0
    assert chi_square(counts[0, 1:], np.array([0.4, 0.6])) > LEVEL
    assert chi_square(counts[1:], np.asarray(table)[1:]) > LEVEL
    first = np.bincount(states[:, 0], minlength=num_states)
    assert chi_square(first, np.full(num_states, 1 / num_states)) > LEVEL
    by_state = np.zeros((num_states, num_actions))
    np.add.at(by_state, (np.asarray(states[:, :-1]), np.asarray(actions)), 1)
    assert chi_square(by_state, np.full((1, num_actions), 1 / num_actions)) > LEVEL


def test_tasks_are_drawn_by_the_prior_and_padding_never():
    tables = prompts.dirichlet_tables(jax.random.key(4), 6, 1, 3, 1.0)
    draw = jax.vmap(prompts.draw_task, in_axes=(0, None))
    for pool, prior in (
        (prompts.uniform_pool(tables, 4), np.full(4, 0.25)),
        (prompts.zipf_pool(tables, 4, 1.0), np.array([12, 6, 4, 3]) / 25),
        (prompts.uniform_linear_pool(tables[:, 0], 4), np.full(4, 0.25)),
    ):
        np.testing.assert_allclose(np.exp(pool.log_prior), [*prior, 0.0, 0.0], atol=1e-6)
        index = draw(jax.random.split(jax.random.key(5), 5000), pool)
        assert index.dtype == jnp.int32
        counts = np.bincount(index, minlength=6)
        assert counts[4:].sum() == 0
        assert chi_square(counts[:4], prior) > LEVEL
    np.testing.assert_array_equal(
        prompts.zipf_pool(tables, 4, 0.0).log_prior, prompts.uniform_pool(tables, 4).log_prior
    )


def test_pool_sizes_are_lanes_that_share_the_tables():
    tables = prompts.dirichlet_tables(jax.random.key(6), 6, 1, 3, 1.0)
    lanes = jax.vmap(
        prompts.uniform_pool, in_axes=(None, 0), out_axes=prompts.Pool(tables=None, log_prior=0)
    )(tables, jnp.array([1, 3, 6], jnp.int32))
    assert lanes.tables.shape == tables.shape
    for lane, size in enumerate((1, 3, 6)):
        alone = prompts.uniform_pool(tables, size)
        np.testing.assert_array_equal(lanes.log_prior[lane], alone.log_prior)


def test_regression_tasks_inputs_and_noise_are_normal():
    tasks = prompts.linear_tasks(jax.random.key(7), 800, 3, 2.0)
    assert tasks.shape == (800, 3)
    assert tasks.dtype == jnp.float32
    normal = scipy.stats.norm
    assert scipy.stats.kstest(np.asarray(tasks).ravel(), normal(0, 2.0).cdf).pvalue > LEVEL
    x, y = prompts.linear(jax.random.key(8), tasks[0], 2000, 0.25)
    assert x.shape == (2000, 3)
    assert y.shape == (2000,)
    assert scipy.stats.kstest(np.asarray(x).ravel(), normal.cdf).pvalue > LEVEL
    residual = np.asarray(y) - np.asarray(x) @ np.asarray(tasks[0])
    assert scipy.stats.kstest(residual, normal(0, 0.25).cdf).pvalue > LEVEL
    correlations = np.corrcoef(np.column_stack([x, residual]).T)
    np.testing.assert_allclose(correlations, np.eye(4), atol=4 / np.sqrt(2000))


def leaves(key):
    """Everything that a key makes, for one key."""
    tables = prompts.dirichlet_tables(jax.random.clone(key), 2, 4, 2, 1.0)
    w = prompts.linear_tasks(jax.random.clone(key), 2, 3, 1.0)
    return [
        tables,
        prompts.urn(jax.random.clone(key), tables[0, :1], 40).outcome,
        *prompts.walk(jax.random.clone(key), tables[0], 2, 40),
        w,
        *prompts.linear(jax.random.clone(key), w[0], 5, 0.1),
    ]


@pytest.mark.slow
def test_a_key_says_everything_and_another_key_says_otherwise():
    first, again, other = (leaves(jax.random.key(seed)) for seed in (0, 0, 1))
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)


@pytest.mark.slow
def test_jit_and_vmap_draw_what_a_loop_draws():
    tables = prompts.dirichlet_tables(jax.random.key(9), 3, 4, 2, 1.0)
    keys = jax.random.split(jax.random.key(10), 3)
    walk = jax.jit(jax.vmap(prompts.walk, in_axes=(0, 0, None, None)), static_argnums=(2, 3))
    states, actions = walk(jax.random.clone(keys), tables, 2, 20)
    for i in range(3):
        alone = prompts.walk(keys[i], tables[i], 2, 20)
        np.testing.assert_array_equal(states[i], alone[0])
        np.testing.assert_array_equal(actions[i], alone[1])


@pytest.mark.parametrize(
    "change",
    [
        {"alpha": 0.0},
        {"alpha": -1.0},
        {"alpha": float("nan")},
        {"num_tasks": 0},
        {"num_contexts": -1},
        {"num_outcomes": 0},
    ],
)
def test_dirichlet_tables_refuse_what_is_not_positive(change):
    sizes = {"num_tasks": 2, "num_contexts": 1, "num_outcomes": 3, "alpha": 1.0}
    with pytest.raises(ValueError, match=rf"got {next(iter(change))} = .*, expected above 0; fix"):
        prompts.dirichlet_tables(jax.random.key(0), **(sizes | change))


def test_bad_tables_pools_and_tasks_are_refused():
    tables = jnp.full((2, 4, 2), 0.5)
    key = jax.random.key(0)
    with pytest.raises(ValueError, match=r"got a table of shape \(4, 2\), expected \[1, K\]; fix"):
        prompts.urn(key, tables[0], 3)
    with pytest.raises(ValueError, match=r"3 actions, expected \[S \* A, S\] = \(6, 2\); fix"):
        prompts.walk(key, tables[0], 3, 5)
    for num_tasks in (0, 3, jnp.array(5, jnp.int32)):
        with pytest.raises(ValueError, match=r"got num_tasks = .*, expected 1 to 2.*fix"):
            prompts.uniform_pool(tables, num_tasks)
    with pytest.raises(ValueError, match="got scale = 0"):
        prompts.linear_tasks(key, 2, 3, 0.0)
