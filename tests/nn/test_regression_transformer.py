"""The transformer over real vectors: it sees pairs before and the input itself, nothing else."""

import jax
import numpy as np

from jaxagent.config import TransformerConfig
from jaxagent.nn import regression_transformer as regression

CONFIG = TransformerConfig(width=16, num_layers=2, num_heads=2, context=6)


def built():
    model = regression.model(CONFIG, 3)
    return jax.jit(model.init)(jax.random.key(0)), jax.jit(model.apply)


def prompt():
    key_x, key_y = jax.random.split(jax.random.key(1))
    return jax.random.normal(key_x, (2, 6, 3)), jax.random.normal(key_y, (2, 6))


def test_a_prediction_depends_on_its_input_and_on_earlier_pairs_only():
    params, apply = built()
    x, y = prompt()

    by_x, by_y = jax.jit(jax.jacrev(lambda x, y: apply(params, x, y)[0], (0, 1)))(x, y)
    for t in range(6):
        sees_x, sees_y = np.abs(by_x[t])[0].max(-1), np.abs(by_y[t])[0]
        np.testing.assert_array_equal(sees_x > 1e-7, np.arange(6) <= t)
        np.testing.assert_array_equal(sees_y > 1e-7, np.arange(6) < t)


def test_rows_of_a_batch_do_not_meet():
    params, apply = built()
    x, y = prompt()
    both = apply(params, x, y)
    np.testing.assert_allclose(both[:1], apply(params, x[:1], y[:1]), rtol=1e-5, atol=1e-6)


def test_equal_arguments_give_the_same_model():
    assert regression.model(CONFIG, 3) is regression.model(CONFIG, 3)
    assert regression.model(CONFIG, 3) is not regression.model(CONFIG, 4)
