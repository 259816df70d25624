"""Regression against one solve for each prefix, enumeration, and hand-made limits."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxagent.bayes import linear
from jaxagent.data import prompts
from jaxagent.data.prompts import LinearPool

T, SIZE = 20, 5


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def pairs(seed, num_steps=T, size=SIZE, noise=0.3):
    generator = np.random.default_rng(seed)
    x, w = generator.normal(size=(num_steps, size)), generator.normal(size=size)
    return x, x @ w + noise * generator.normal(size=num_steps)


def solved(x, y, ratio):
    """Mean and variance factor of every prefix, by the textbook formula."""
    mean, variance = np.zeros(len(y)), np.zeros(len(y))
    for t in range(len(y)):
        gram = x[:t].T @ x[:t] + ratio * np.eye(x.shape[1])
        mean[t] = x[t] @ np.linalg.solve(gram, x[:t].T @ y[:t])
        variance[t] = 1.0 + x[t] @ np.linalg.solve(gram, x[t])
    return mean, variance


@pytest.mark.parametrize("ratio", [1e-3, 0.09, 1.0, 50.0])
@pytest.mark.parametrize("size", [1, SIZE, 30])
def test_ridge_equals_a_solve_for_each_prefix(x64, ratio, size):
    x, y = pairs(0, size=size)
    mean, variance = linear.ridge(jnp.asarray(x), jnp.asarray(y), ratio)
    expected = solved(x, y, ratio)
    np.testing.assert_allclose(mean, expected[0], rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(variance, expected[1], rtol=1e-9)
    assert mean[0] == 0.0
    np.testing.assert_allclose(variance[0], 1.0 + x[0] @ x[0] / ratio, rtol=1e-12)


def test_ridge_in_float32_at_the_size_of_the_experiments():
    num_steps, size, ratio = 64, 16, 16 / 256
    x, y = pairs(1, num_steps, size, math.sqrt(ratio))
    results = linear.ridge(jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32), ratio)
    for result, expected in zip(results, solved(x, y, ratio), strict=True):
        assert result.dtype == jnp.float32
        np.testing.assert_allclose(result, expected, rtol=2e-4, atol=2e-4)


@pytest.mark.slow
def test_the_predictive_distribution_is_calibrated(x64):
    """Errors over their predicted deviations are N(0, 1) and uncorrelated on tasks of the prior."""
    tau, sigma, num_steps = 2.0, 0.5, 12

    def one(key):
        key_task, key_pairs = jax.random.split(key)
        w = prompts.linear_tasks(key_task, 1, 3, tau, jnp.float64)[0]
        x, y = prompts.linear(key_pairs, w, num_steps, sigma)
        mean, variance = linear.ridge(x, y, sigma**2 / tau**2)
        return (y - mean) / (sigma * jnp.sqrt(variance))

    scaled = np.asarray(jax.vmap(one)(jax.random.split(jax.random.key(0), 5000)))
    np.testing.assert_allclose(scaled.T @ scaled / 5000, np.eye(num_steps), atol=5 / np.sqrt(5000))


def test_ridge_refuses_a_ratio_of_zero():
    with pytest.raises(ValueError, match=r"got ratio = 0.0, expected sigma.* above 0; fix"):
        linear.ridge(jnp.ones((3, 2)), jnp.ones(3), 0.0)


@pytest.mark.parametrize("prior", [[1 / 3] * 3, [0.6, 0.3, 0.1]])
def test_the_pool_mean_equals_enumeration(x64, prior):
    x, y = pairs(2, 6, 2, 0.5)
    weights, noise = np.random.default_rng(3).normal(size=(3, 2)), 0.5
    pool = LinearPool(jnp.asarray(weights), jnp.log(jnp.asarray(prior)))
    result = linear.pool_mean(pool, jnp.asarray(x), jnp.asarray(y), noise)
    log_posterior = linear.pool_posterior(pool, jnp.asarray(x), jnp.asarray(y), noise)
    for t in range(7):
        joint = [
            p
            * math.prod(
                math.exp(-((v - u @ w) ** 2) / (2 * noise**2)) for u, v in zip(x[:t], y[:t], strict=True)
            )
            for p, w in zip(prior, weights, strict=True)
        ]
        posterior = np.array(joint) / sum(joint)
        np.testing.assert_allclose(np.exp(log_posterior[t]), posterior, rtol=1e-10)
        if t < 6:
            np.testing.assert_allclose(result[t], posterior @ (weights @ x[t]), rtol=1e-10)


@pytest.mark.slow
def test_padding_changes_nothing_and_float32_survives_foreign_tasks():
    num_steps, size, noise = 64, 16, 0.25
    weights = prompts.linear_tasks(jax.random.key(0), 40, size, 1.0)
    x, y = prompts.linear(jax.random.key(1), weights[39], num_steps, noise)
    alone = prompts.uniform_linear_pool(weights[:32], 32)
    padded = prompts.uniform_linear_pool(weights.at[36:].set(jnp.nan), 32)
    mean = jax.jit(linear.pool_mean)
    result = mean(alone, x, y, noise)
    np.testing.assert_allclose(mean(padded, x, y, noise), result, atol=1e-5)
    with jax.enable_x64(True):
        double = LinearPool(jnp.asarray(alone.weights, jnp.float64), jnp.full((32,), -np.log(32.0)))
        x64, y64 = jnp.asarray(x, jnp.float64), jnp.asarray(y, jnp.float64)
        np.testing.assert_allclose(result, linear.pool_mean(double, x64, y64, noise), atol=2e-3)


def test_the_pool_mean_of_many_tasks_is_ridge(x64):
    weights = prompts.linear_tasks(jax.random.key(2), 100_000, 2, 1.0, jnp.float64)
    x, y = (jnp.asarray(a) for a in pairs(4, 8, 2, 0.8))
    pool = prompts.uniform_linear_pool(weights, 100_000)
    mean, _ = linear.ridge(x, y, 0.8**2)
    np.testing.assert_allclose(linear.pool_mean(pool, x, y, 0.8), mean, atol=0.03)


def test_kernel_regression_by_hand_and_in_its_limits(x64):
    x, y = pairs(5)
    result = linear.kernel_regression(jnp.asarray(x), jnp.asarray(y), 0.7)
    assert result[0] == 0.0
    for t in range(1, T):
        weights = np.exp(0.7 * x[:t] @ x[t])
        np.testing.assert_allclose(result[t], weights @ y[:t] / weights.sum(), rtol=1e-10)
    flat = linear.kernel_regression(jnp.asarray(x), jnp.asarray(y), 0.0)
    np.testing.assert_allclose(flat[1:], np.cumsum(y)[:-1] / np.arange(1, T), rtol=1e-10)
    sharp = linear.kernel_regression(jnp.asarray(x), jnp.asarray(y), 1e4)
    nearest = [y[np.argmax(x[:t] @ x[t])] for t in range(1, T)]
    np.testing.assert_allclose(sharp[1:], nearest, rtol=1e-10)
    with jax.debug_nans(True):
        grad = jax.grad(lambda b: linear.kernel_regression(jnp.asarray(x), jnp.asarray(y), b).sum())
        assert np.isfinite(grad(0.7))


@pytest.mark.slow
def test_vmap_is_a_loop_and_the_future_changes_nothing():
    x, y = (jnp.asarray(np.stack(a), jnp.float32) for a in zip(*map(pairs, range(3)), strict=True))
    pool = prompts.uniform_linear_pool(prompts.linear_tasks(jax.random.key(3), 4, SIZE, 1.0), 4)

    def predictors(x, y):
        over_pool = linear.pool_mean(pool, x, y, 0.5)
        return jnp.stack([*linear.ridge(x, y, 0.1), over_pool, linear.kernel_regression(x, y, 1.0)])

    together, alone = jax.jit(jax.vmap(predictors))(x, y), jax.jit(predictors)
    for i in range(3):
        np.testing.assert_allclose(together[i], alone(x[i], y[i]), rtol=1e-4, atol=1e-4)
    changed = alone(x[0], y[0].at[10:].add(3.0))
    np.testing.assert_array_equal(changed[:, :11], alone(x[0], y[0])[:, :11])
    moved = np.abs(np.asarray(changed - alone(x[0], y[0])))[:, 11]
    assert (moved[[0, 3]] > 0.0).all()  # ridge and the kernel; a pool of 4 is already certain
