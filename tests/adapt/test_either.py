"""Adapters of either kind in one pytree: each lane is what its own kind alone computes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxagent.adapt import either, ia3, lora
from jaxagent.config import TransformerConfig
from jaxagent.nn import transformer
from jaxagent.nn.sequence_model import token_model


@pytest.fixture(scope="module")
def trees():
    """Parameters of a model and adapters of both kinds, all away from where they begin."""
    vocabulary = transformer.Vocabulary(num_bins=4, num_categories=0, num_components=2, num_domains=1)
    config = TransformerConfig(width=8, num_layers=1, num_heads=2, context=2)
    shapes = jax.eval_shape(token_model(config, vocabulary).init, jax.random.key(0))
    rng = np.random.default_rng(0)

    def noise(tree):
        return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), tree)

    base = noise(shapes)
    return base, noise(either.init(jax.random.key(0), base, 1, ("query", "value")))


@pytest.mark.parametrize(("is_lora", "kind"), [(1.0, lora), (0.0, ia3)])
def test_one_kind_acts_and_the_other_rests(trees, is_lora, kind):
    base, adapters = trees
    got = either.merge(base, adapters, jnp.float32(is_lora))
    expected = kind.merge(base, adapters["lora" if kind is lora else "ia3"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), got, expected)


def test_adapters_begin_at_the_base(trees):
    base, _ = trees
    fresh = either.init(jax.random.key(1), base, 1, ("query", "value"))
    for is_lora in (0.0, 1.0):
        got = either.merge(base, fresh, jnp.float32(is_lora))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), got, base)
