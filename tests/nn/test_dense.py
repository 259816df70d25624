"""Dense layers over rows: equal to `lax.dot_general`, as products of two matrices."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxagent.nn.dense import Dense, DenseGeneral, dot_rows

CONTRACTIONS = {
    "one axis": ((3, 5, 4), (4, 6), ((2,), (0,))),
    "to heads": ((3, 5, 4), (4, 2, 3), ((2,), (0,))),
    "from heads": ((3, 5, 2, 3), (2, 3, 4), ((2, 3), (0, 1))),
    "a vector": ((4,), (4, 6), ((0,), (0,))),
}


@pytest.mark.parametrize("name", CONTRACTIONS)
def test_equals_dot_general(name):
    shape, kernel_shape, over = CONTRACTIONS[name]
    key_x, key_kernel = jax.random.split(jax.random.key(0))
    x, kernel = jax.random.normal(key_x, shape), jax.random.normal(key_kernel, kernel_shape)
    numbers = (over, ((), ()))

    def of(dot):
        return lambda x, kernel: jnp.sum(jnp.sin(dot(x, kernel, numbers)))

    got, expected = (
        jax.value_and_grad(of(dot), (0, 1))(x, kernel) for dot in (dot_rows, jax.lax.dot_general)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), got, expected)
    assert dot_rows(x, kernel, numbers).shape == jax.lax.dot_general(x, kernel, numbers).shape


@pytest.mark.parametrize(
    "numbers", [(((1,), (0,)), ((), ())), (((2,), (1,)), ((), ())), (((2,), (1,)), ((0,), (0,)))]
)
def test_other_contractions_are_refused(numbers):
    with pytest.raises(ValueError, match="expected the last of `x`"):
        dot_rows(jnp.ones((4, 4, 4)), jnp.ones((4, 4)), numbers)


def ranks_of_products(layer, x):
    """Ranks of the operands of every matrix product in a layer's gradient."""
    params = layer.init(jax.random.key(0), x)
    loss = jax.grad(lambda p, x: jnp.sum(jnp.tanh(layer.apply(p, x))), (0, 1))
    equations = jax.make_jaxpr(loss)(params, x).eqns
    return {v.aval.ndim for e in equations if e.primitive.name == "dot_general" for v in e.invars}


def test_every_product_of_a_gradient_is_of_two_matrices():
    x = jnp.ones((4, 8, 16))
    assert ranks_of_products(Dense(32), x) == {2}
    assert ranks_of_products(DenseGeneral((4, 8), use_bias=False), x) == {2}
    assert ranks_of_products(nn.Dense(32), x) == {2, 3}  # what it is for
