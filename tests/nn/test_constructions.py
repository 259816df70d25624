"""Hand-set attention against closed forms: ridge exactly, the tilted Gaussian in the limit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxagent.nn import constructions

SIZE = 4


def task(num_pairs, seed=0):
    rng = np.random.default_rng(seed)
    x, w, query = rng.normal(size=(num_pairs, SIZE)), rng.normal(size=SIZE), rng.normal(size=SIZE)
    return x, x @ w + 0.3 * rng.normal(size=num_pairs), w, query


@pytest.mark.parametrize("num_pairs", [1, 3, 50])
def test_linear_attention_is_ridge(num_pairs):
    x, y, _, query = task(num_pairs)
    want = query @ np.linalg.solve(x.T @ x + 0.2 * np.eye(SIZE), x.T @ y)
    arrays = (jnp.asarray(a, jnp.float32) for a in (x, y, query))
    got = jax.jit(constructions.ridge_by_attention)(*arrays, 0.2)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_softmax_attention_is_the_weighted_mean():
    x, y, _, query = task(20)
    weights = np.exp(0.7 * x @ query)
    arrays = (jnp.asarray(a, jnp.float32) for a in (x, y, query))
    got = constructions.kernel_by_attention(*arrays, 0.7)
    np.testing.assert_allclose(got, weights @ y / weights.sum(), rtol=1e-5)


def test_softmax_attention_tends_to_the_conditional_mean_as_prompts_grow():
    """The error falls at the rate of a mean, T ** -1/2, up to noise."""

    def error(num_pairs):
        errors = []
        for seed in range(40):
            x, y, w, query = task(num_pairs, seed)
            arrays = (jnp.asarray(a, jnp.float32) for a in (x, y, query))
            got = float(kernel(*arrays, 0.5))
            errors.append(got - 0.5 * w @ query)
        return np.sqrt(np.mean(np.square(errors)))

    kernel = jax.jit(constructions.kernel_by_attention)
    slope = np.log(error(4096) / error(64)) / np.log(64)
    assert -0.65 < slope < -0.35
