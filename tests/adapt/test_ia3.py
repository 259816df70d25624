"""(IA)^3: scales start at the identity and are what scaling the activations computes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxagent.adapt import ia3
from jaxagent.config import TransformerConfig
from jaxagent.nn import transformer
from jaxagent.nn.sequence_model import token_model
from jaxagent.nn.transformer import Block, num_parameters

CONFIG = TransformerConfig(width=8, num_layers=2, num_heads=2, mlp_factor=3, context=2)


@pytest.fixture(scope="module")
def base():
    vocabulary = transformer.Vocabulary(6, 0, 3, 1)
    shapes = jax.eval_shape(token_model(CONFIG, vocabulary).init, jax.random.key(0))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: jnp.asarray(0.3 * rng.normal(size=x.shape), x.dtype), shapes)


def test_scales_of_one_are_the_base_model(base):
    merged = ia3.merge(base, ia3.init(base))
    jax.tree.map(np.testing.assert_array_equal, merged, base)


def test_number_of_parameters_is_two_vectors_of_width_and_one_of_the_hidden_units(base):
    assert num_parameters(ia3.init(base)) == CONFIG.num_layers * (8 + 8 + 3 * 8)


def test_only_keys_values_and_hidden_units_are_scaled(base):
    merged = ia3.merge(base, jax.tree.map(lambda x: 2.0 * x, ia3.init(base)))
    changed = {
        "/".join(str(k.key) for k in path)
        for (path, a), b in zip(
            jax.tree_util.tree_leaves_with_path(merged), jax.tree.leaves(base), strict=True
        )
        if not np.array_equal(a, b)
    }
    assert changed == {f"trunk/block_{i}/{name}/kernel" for i in (0, 1) for name in ("key", "value", "down")}


def test_merging_is_scaling_the_activations(base):
    """By hand in float64: keys and values behind their product, hidden units behind the GELU."""
    rng = np.random.default_rng(1)
    block = {"block_0": base["trunk"]["block_0"]}
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), block["block_0"])
    scales = {k: rng.uniform(0.5, 1.5, v.shape) for k, v in ia3.init(block).items()}
    x = rng.normal(size=(1, 3, 8))

    def norm(x, scale):
        return x / np.sqrt(np.mean(x**2, -1, keepdims=True) + 1e-6) * scale

    def gelu(x):
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    h = norm(x, p["attention_norm"]["scale"])
    query = np.einsum("bld,dhk->blhk", h, p["query"]["kernel"])
    key = np.einsum("bld,dhk->blhk", h, p["key"]["kernel"]) * scales["block_0/key/kernel"]
    value = np.einsum("bld,dhk->blhk", h, p["value"]["kernel"]) * scales["block_0/value/kernel"]
    logits = np.einsum("bqhk,bshk->bhqs", query, key) / np.sqrt(4)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    mixed = np.einsum("bhqs,bshk->bqhk", weights, value)
    y = x + np.einsum("bqhk,hkd->bqd", mixed, p["output"]["kernel"])
    h = norm(y, p["mlp_norm"]["scale"])
    hidden = gelu(h @ p["up"]["kernel"]) * scales["block_0/down/kernel"]
    expected = y + hidden @ p["down"]["kernel"]

    merged = ia3.merge(block, {k: jnp.asarray(v, jnp.float32) for k, v in scales.items()})
    block = Block(CONFIG)
    time = jnp.zeros((3,), jnp.int32)  # no rotation
    mask = jnp.ones((1, 3, 3), bool)
    ours, _ = block.apply({"params": merged["block_0"]}, jnp.asarray(x, jnp.float32), time, mask, None)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


def test_a_stranger_among_the_scales_is_refused(base):
    with pytest.raises(ValueError, match="expected names"):
        ia3.merge(base, {"block_9/key/kernel": jnp.ones((2, 4))})
