"""Multilayer perceptrons: as many parameters as they are given."""

import jax
import jax.numpy as jnp
import pytest

from jaxagent.nn import mlp
from jaxagent.nn.transformer import num_parameters


@pytest.mark.parametrize("limit", [2_000, 100_000])
def test_a_network_of_a_size_is_the_widest_that_fits(limit):
    network = mlp.of_size(5, 3, limit)
    wider = network.clone(sizes=(*(width + 1 for width in network.sizes[:3]), 3))
    sizes = [
        num_parameters(jax.eval_shape(n.init, jax.random.key(0), jnp.zeros((1, 5)))) for n in (network, wider)
    ]
    assert sizes[0] <= limit < sizes[1]
    assert network.sizes[-1] == 3
