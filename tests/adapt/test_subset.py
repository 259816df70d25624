"""Subsets of parameters: what may move gets a gradient, what may not gets none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxagent.adapt import subset
from jaxagent.adapt.paths import name_of

PARAMS = {
    "stem": {"w": jnp.ones((2,))},
    "trunk": {
        "block_0": {"up": jnp.ones((3,))},
        "block_1": {"up": jnp.ones((3,))},
        "block_10": {"up": jnp.ones((4,))},
        "norm": {"scale": jnp.ones((5,))},
    },
    "head": {"w": jnp.ones((2,))},
}


def moved(method):
    mask = subset.SUBSETS[method](PARAMS)

    def loss(params):
        return sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(subset.moving(params, mask)))

    value, gradient = jax.value_and_grad(loss)(PARAMS)
    assert value == 19.0, "the values are the parameters' own"
    named = {name_of(p): x for p, x in jax.tree_util.tree_leaves_with_path(gradient)}
    return {n for n, x in named.items() if np.any(np.asarray(x) != 0.0)}, mask


def test_full_moves_all():
    names, mask = moved("full")
    assert len(names) == 6
    assert subset.count(PARAMS, mask) == 19


def test_probe_moves_nothing():
    names, mask = moved("probe")
    assert not names
    assert subset.count(PARAMS, mask) == 0


def test_last_layer_moves_the_block_of_the_largest_number_and_the_norm():
    names, mask = moved("last_layer")
    assert names == {"trunk/block_10/up", "trunk/norm/scale"}
    assert subset.count(PARAMS, mask) == 9


def test_a_model_without_blocks_has_no_last_layer():
    with pytest.raises(ValueError, match="block_0"):
        subset.last_layer({"w": jnp.ones((2,))})
