"""Predictors against enumeration with Python fractions and products, in float64 and float32."""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import logsumexp

from jaxagent.bayes import tables
from jaxagent.data import prompts
from jaxagent.data.prompts import Pool, Rows

D, C, K, T = 3, 2, 3, 6
EXACT = 1e-10


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def random_tables(seed, num_tasks=D, num_contexts=C, num_outcomes=K, zeros=False):
    """Tables of float64 probabilities; with `zeros` a third of the entries are 0."""
    generator = np.random.default_rng(seed)
    mass = generator.gamma(1.0, size=(num_tasks, num_contexts, num_outcomes))
    if zeros:
        mass[np.arange(num_tasks), :, np.arange(num_tasks) % num_outcomes] = 0.0
    return mass / mass.sum(axis=-1, keepdims=True)


def random_rows(seed, num_steps=T, num_contexts=C, num_outcomes=K):
    generator = np.random.default_rng(100 + seed)
    context = generator.integers(num_contexts, size=num_steps)
    outcome = generator.integers(num_outcomes, size=num_steps)
    return Rows(jnp.asarray(context, jnp.int32), jnp.asarray(outcome, jnp.int32))


def pairs(rows):
    return list(zip(np.asarray(rows.context).tolist(), np.asarray(rows.outcome).tolist(), strict=True))


def enumerate_posterior(table, prior, past):
    """Posterior over tasks as exact fractions; the prior where all tasks are ruled out."""
    joint = [Fraction(float(p)) for p in prior]
    table = np.asarray(table, np.float64)
    for d in range(len(joint)):
        for c, r in past:
            joint[d] *= Fraction(float(table[d, c, r]))
    total = sum(joint)
    return [j / total for j in joint]


def enumerated(table, prior, rows, rule):
    """Predictions [T, K] of `rule` (posterior fractions, table [D, K]) -> [K] at each position."""
    steps = pairs(rows)
    return np.array(
        [
            [float(v) for v in rule(enumerate_posterior(table, prior, steps[:t]), table[:, c])]
            for t, (c, _) in enumerate(steps)
        ]
    )


def average(weights, table):
    return [sum(w * Fraction(float(p)) for w, p in zip(weights, column, strict=True)) for column in table.T]


def most_probable(weights, table):
    return table[max(range(len(weights)), key=lambda d: (weights[d], -d))]


PRIORS = (np.full(D, 1 / D), np.array([0.5, 0.25, 0.25]))


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize(
    ("predictor", "rule"), [(tables.memorising, average), (tables.maximum_a_posteriori, most_probable)]
)
def test_predictors_over_a_pool_equal_enumeration(x64, predictor, rule, prior, zeros):
    for seed in range(4):
        table = random_tables(seed, zeros=zeros)
        pool = Pool(jnp.asarray(table), jnp.log(prior))
        rows = random_rows(seed)
        if zeros:  # rows that task 0 can make, so that the posterior exists
            rows = rows._replace(outcome=jnp.maximum(rows.outcome, 1))
        result = jax.jit(predictor)(pool, rows)
        assert result.dtype == jnp.float64
        expected = enumerated(table, prior, rows, rule)
        np.testing.assert_allclose(np.exp(result), expected, rtol=EXACT, atol=0)
        np.testing.assert_allclose(logsumexp(result, axis=-1), 0.0, atol=EXACT)


def test_the_posterior_equals_enumeration_before_each_step_and_after_the_last(x64):
    table, prior, rows = random_tables(7), PRIORS[1], random_rows(7)
    result = tables.posterior(Pool(jnp.asarray(table), jnp.log(prior)), rows)
    assert result.shape == (T + 1, D)
    for t in range(T + 1):
        expected = enumerate_posterior(table, prior, pairs(rows)[:t])
        np.testing.assert_allclose(np.exp(result[t]), [float(w) for w in expected], rtol=EXACT)


@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_generalising_equals_sequential_counting_and_the_marginal_likelihood_ratio(x64, alpha):
    rows = random_rows(3, num_steps=12)
    result = np.exp(tables.generalising(rows, alpha, K))
    steps = pairs(rows)

    def log_marginal(past):
        """Dirichlet-multinomial evidence of the rows, contexts independent."""
        counts = np.zeros((C, K))
        for c, r in past:
            counts[c, r] += 1
        return sum(
            math.lgamma(K * alpha)
            - math.lgamma(K * alpha + n.sum())
            + sum(math.lgamma(alpha + v) - math.lgamma(alpha) for v in n)
            for n in counts
        )

    for t, (c, _) in enumerate(steps):
        past = steps[:t]
        for k in range(K):
            a = Fraction(alpha)
            seen = sum((i, r) == (c, k) for i, r in past)
            counted = (seen + a) / (sum(i == c for i, _ in past) + K * a)
            ratio = math.exp(log_marginal([*past, (c, k)]) - log_marginal(past))
            np.testing.assert_allclose(result[t, k], float(counted), rtol=EXACT)
            np.testing.assert_allclose(result[t, k], ratio, rtol=EXACT)


@pytest.mark.slow
def test_generalising_is_what_memorising_becomes_with_many_tasks():
    """Bayes under a pool of 50,000 Dirichlet tasks is near Bayes under the Dirichlet itself."""
    pool = prompts.uniform_pool(prompts.dirichlet_tables(jax.random.key(0), 50_000, 1, K, 1.0), 50_000)
    rows = random_rows(0, num_steps=8, num_contexts=1)
    error = np.exp(tables.memorising(pool, rows)) - np.exp(tables.generalising(rows, 1.0, K))
    assert np.abs(error).max() < 0.01


def test_bigram_kernel_smoother_prior_mean_and_oracle_by_hand(x64):
    rows = random_rows(5, num_steps=9)
    table, prior = random_tables(5), PRIORS[1]
    pool = Pool(jnp.asarray(table), jnp.log(prior))
    bandwidth, pseudo, floor = 1.3, 0.7, 1e-3
    results = (
        tables.bigram(rows, K, floor),
        tables.kernel_smoother(rows, bandwidth, K, pseudo),
        tables.prior_mean(pool, rows),
        tables.oracle(pool.tables[1], rows),
    )
    steps = pairs(rows)
    for t, (c, _) in enumerate(steps):
        seen = np.bincount([r for i, r in steps[:t] if i == c], minlength=K)
        frequency = seen / seen.sum() if seen.sum() else np.full(K, 1 / K)
        mass = np.full(K, pseudo / K)
        for i, r in steps[:t]:
            mass[r] += math.exp(bandwidth * (i == c))
        expected = ((1 - floor) * frequency + floor / K, mass / mass.sum(), prior @ table[:, c], table[1, c])
        for result, value in zip(results, expected, strict=True):
            assert result.dtype == jnp.float64
            np.testing.assert_allclose(np.exp(result[t]), value, rtol=EXACT)


def test_limits_of_the_smoother():
    rows = random_rows(6, num_steps=20)
    sharp = tables.kernel_smoother(rows, 40.0, K, 1e-9)
    seen = np.asarray([t > 0 and c in np.asarray(rows.context)[:t] for t, (c, _) in enumerate(pairs(rows))])
    np.testing.assert_allclose(np.exp(sharp)[seen], np.exp(tables.bigram(rows, K, 0.0))[seen], atol=1e-6)
    flat = tables.kernel_smoother(rows, 0.0, K, 3.0)
    one = rows._replace(context=jnp.zeros_like(rows.context))
    np.testing.assert_allclose(flat, tables.generalising(one, 1.0, K), atol=1e-6)


@pytest.mark.slow
def test_thompson_samples_the_posterior(x64):
    table, rows = random_tables(8), random_rows(8)
    pool = Pool(jnp.asarray(table), jnp.log(PRIORS[0]))
    keys = jax.random.split(jax.random.key(0), 4000)
    results = jax.vmap(tables.thompson, in_axes=(0, None, None))(keys, pool, rows)
    expected = enumerated(table, PRIORS[0], rows, average)
    np.testing.assert_allclose(np.exp(results).mean(axis=0), expected, atol=4 * 0.5 / np.sqrt(4000))
    own = jnp.log(pool.tables)[:, rows.context].swapaxes(0, 1)  # [T, D, K]
    assert (results[:100, :, None, :] == own[None]).all(axis=-1).any(axis=-1).all()
    first = (results[:, 0, None, :] == own[None, 0]).all(axis=-1)
    both = (results[:, 1, None, :] == own[None, 1]).all(axis=-1)
    first, both = np.asarray(first, float), np.asarray(both, float)
    joint = first.T @ both / 4000  # drawn anew at each position
    np.testing.assert_allclose(joint, np.outer(first.mean(0), both.mean(0)), atol=0.03)


@pytest.mark.slow
def test_float32_stays_near_float64_where_products_underflow():
    num_steps, num_tasks, num_states = 64, 16, 16
    table = random_tables(9, num_tasks, 4, num_states)
    rows = random_rows(9, num_steps, 4, num_states)
    likelihood = np.float32(1.0)
    for c, r in pairs(rows):
        likelihood = likelihood * table[:, c, r].astype(np.float32)
    assert (likelihood == 0.0).all()
    prior = np.full(num_tasks, 1 / num_tasks)
    single = Pool(jnp.asarray(table, jnp.float32), jnp.log(jnp.asarray(prior, jnp.float32)))
    names = ("posterior", "memorising", "prior_mean")
    results = {name: getattr(tables, name)(single, rows) for name in names}
    polya = tables.generalising(rows, 1.0, num_states)
    with jax.enable_x64(True):
        double = Pool(jnp.asarray(single.tables, jnp.float64), jnp.log(prior))
        for name in names:
            assert results[name].dtype == jnp.float32
            exact = np.exp(getattr(tables, name)(double, rows))
            np.testing.assert_allclose(np.exp(results[name]), exact, atol=1e-5, err_msg=name)
        exact = tables.memorising(double, rows)
        np.testing.assert_allclose(results["memorising"], exact, atol=1e-5)
        np.testing.assert_allclose(polya, tables.generalising(rows, 1.0, num_states), atol=1e-5)
        for t in (0, 31, 63):
            weights = enumerate_posterior(single.tables, prior, pairs(rows)[:t])
            expected = average(weights, np.asarray(double.tables)[:, pairs(rows)[t][0]])
            np.testing.assert_allclose(np.exp(exact[t]), [float(v) for v in expected], rtol=EXACT)


POOL_PREDICTORS = ("memorising", "maximum_a_posteriori", "prior_mean")


@pytest.mark.parametrize("filling", ["tables", "zeros", "nan"])
def test_padding_changes_nothing(x64, filling):
    table, rows = random_tables(10, 6), random_rows(10)
    alone = prompts.uniform_pool(jnp.asarray(table[:D]), D)
    if filling != "tables":
        table[D:] = 0.0 if filling == "zeros" else np.nan
    padded = prompts.uniform_pool(jnp.asarray(table), D)
    for name in POOL_PREDICTORS:
        predictor = jax.jit(getattr(tables, name))
        np.testing.assert_allclose(predictor(padded, rows), predictor(alone, rows), atol=1e-14)
    result = tables.posterior(padded, rows)
    np.testing.assert_allclose(result[:, :D], tables.posterior(alone, rows), atol=1e-14)
    assert (np.asarray(result[:, D:]) == -np.inf).all()
    key = jax.random.key(0)
    drawn = tables.thompson(key, padded, rows)
    assert np.isfinite(drawn).all()


@pytest.mark.slow
def test_vmap_over_sequences_and_pool_sizes_is_a_loop():
    table = jnp.asarray(random_tables(11, 6), jnp.float32)
    sizes = jnp.array([1, 3, 6], jnp.int32)
    lanes = Pool(tables=None, log_prior=0)
    pools = jax.vmap(prompts.uniform_pool, in_axes=(None, 0), out_axes=lanes)(table, sizes)
    rows = jax.tree.map(lambda *r: jnp.stack(r), *(random_rows(s, 20) for s in range(4)))
    predict = jax.vmap(jax.vmap(tables.memorising, in_axes=(None, 0)), in_axes=(lanes, None))
    result = jax.jit(predict)(pools, rows)
    assert result.shape == (3, 4, 20, K)

    def row(b):
        return jax.tree.map(lambda r: r[b], rows)

    alone = jax.jit(tables.memorising)
    for lane, size in enumerate((1, 3, 6)):
        pool = prompts.uniform_pool(table, size)
        for b in range(4):
            np.testing.assert_allclose(result[lane, b], alone(pool, row(b)), atol=2e-6)

    def others(r):
        return jnp.stack(
            [
                tables.generalising(r, 1.0, K),
                tables.bigram(r, K),
                tables.kernel_smoother(r, 2.0, K),
                tables.oracle(table[0], r),
            ]
        )

    together, alone = jax.jit(jax.vmap(others))(rows), jax.jit(others)
    for b in range(4):
        np.testing.assert_allclose(together[b], alone(row(b)), atol=1e-6)


def test_an_outcome_that_rules_tasks_out(x64):
    table = jnp.array([[[1.0, 0.0]], [[0.5, 0.5]]])
    pool = prompts.uniform_pool(table, 2)
    rows = Rows(jnp.zeros(3, jnp.int32), jnp.array([0, 1, 0], jnp.int32))
    with jax.debug_nans(True):
        result = np.exp(tables.memorising(pool, rows))
        weights = np.exp(tables.posterior(pool, rows))
    np.testing.assert_allclose(weights, [[1 / 2, 1 / 2], [2 / 3, 1 / 3], [0, 1], [0, 1]], atol=1e-15)
    np.testing.assert_allclose(result[:, 0], [3 / 4, 5 / 6, 1 / 2], rtol=EXACT)


def test_rows_that_no_task_could_have_made_start_again_from_the_prior(x64):
    pool = prompts.uniform_pool(jnp.array([[[1.0, 0.0]], [[1.0, 0.0]]]), 2)
    rows = Rows(jnp.zeros(3, jnp.int32), jnp.array([0, 1, 0], jnp.int32))
    with jax.debug_nans(True):
        results = [getattr(tables, name)(pool, rows) for name in POOL_PREDICTORS]
        results.append(tables.thompson(jax.random.key(0), pool, rows))
    for result in results:
        np.testing.assert_allclose(np.exp(result), [[1.0, 0.0]] * 3, atol=1e-15)


def test_equal_tasks_tie_to_the_lowest_index():
    table = jnp.asarray(random_tables(12), jnp.float32)
    pool = prompts.uniform_pool(table[jnp.array([0, 1, 1])], 3)
    rows = prompts.urn(jax.random.key(0), table[1, :1], 60)
    weights = tables.posterior(pool, rows)
    np.testing.assert_array_equal(weights[:, 1], weights[:, 2])
    assert weights[-1, 1] > weights[-1, 0]
    result = tables.maximum_a_posteriori(pool, rows)
    np.testing.assert_array_equal(result[0], jnp.log(table[0, 0]))
    np.testing.assert_array_equal(result[-1], jnp.log(table[1, 0]))


def test_no_prediction_depends_on_its_own_outcome_or_a_later_one():
    rows = random_rows(13, 20)
    changed = rows._replace(outcome=rows.outcome.at[10:].set((rows.outcome[10:] + 1) % K))
    pool = prompts.uniform_pool(jnp.asarray(random_tables(13), jnp.float32), D)
    key = jax.random.key(0)

    @jax.jit
    def predictors(r):
        over_pool = [getattr(tables, name)(pool, r) for name in POOL_PREDICTORS]
        counting = [tables.generalising(r, 1.0, K), tables.bigram(r, K)]
        drawn = tables.thompson(key, pool, r)
        return jnp.stack([*over_pool, *counting, tables.kernel_smoother(r, 2.0, K), drawn])

    before, after = predictors(rows), predictors(changed)
    np.testing.assert_array_equal(before[:, :11], after[:, :11])
    assert (np.asarray(before[0, 11:]) != np.asarray(after[0, 11:])).any()
