"""Adapters: they start at the identity, merge by the formula, and never touch the base."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxagent.adapt import lora
from jaxagent.config import TransformerConfig
from jaxagent.nn import transformer
from jaxagent.nn.sequence_model import token_model
from jaxagent.tokens.stream import Tokens

CONFIG = TransformerConfig(width=8, num_layers=2, num_heads=2, mlp_factor=3, context=2)
TARGETS = ("query", "value", "output", "up")
# A kernel as a matrix [inputs, outputs]; heads are outputs of `query`, inputs of `output`.
SHAPES = {"query": (8, 8), "value": (8, 8), "output": (8, 8), "up": (8, 24), "down": (24, 8)}


@pytest.fixture(scope="module")
def model():
    vocabulary = transformer.Vocabulary(num_bins=6, num_categories=0, num_components=3, num_domains=1)
    return token_model(CONFIG, vocabulary)


@pytest.fixture(scope="module")
def base(model):
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    rng = np.random.default_rng(0)  # no compilation: any parameters will do
    return jax.tree.map(lambda x: jnp.asarray(0.3 * rng.normal(size=x.shape), x.dtype), shapes)


@pytest.fixture
def tokens():
    place = jnp.arange(6, dtype=jnp.int32)
    return Tokens(
        value=jnp.array([[0, 1, 2, 3, 4, 5]], jnp.int32),
        component=place % 3,
        kind=(place % 3) // 2,
        domain=jnp.zeros((), jnp.int32),
        time=place // 3,
        order=place,
        segment=jnp.zeros((1, 6), jnp.int32),
    )


def filled(adapters):
    """Adapters with random, non-zero `up`."""
    return jax.tree.map(
        lambda x: jnp.asarray(np.random.default_rng(x.size).normal(size=x.shape), jnp.float32), adapters
    )


def test_adapters_start_at_the_identity(model, base, tokens):
    merged = lora.merge(base, lora.init(jax.random.key(1), base, 2, TARGETS))
    jax.tree.map(np.testing.assert_array_equal, merged, base)
    apply = jax.jit(model.apply)
    np.testing.assert_array_equal(apply(merged, tokens), apply(base, tokens))


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_merge_by_hand(base, scale):
    adapters = filled(lora.init(jax.random.key(1), base, 2, TARGETS))
    merged = lora.merge(base, adapters, scale)
    for block in ("block_0", "block_1"):
        for name, kernel in base["trunk"][block].items():
            got = np.asarray(jax.tree.leaves(merged["trunk"][block][name])[0])
            before = np.asarray(jax.tree.leaves(kernel)[0])
            if name not in TARGETS:
                np.testing.assert_array_equal(got, before)
                continue
            adapter = adapters[f"trunk/{block}/{name}/kernel"]
            product = np.asarray(adapter["down"]) @ np.asarray(adapter["up"])
            assert product.shape == SHAPES[name]
            change = (got - before).reshape(SHAPES[name])
            np.testing.assert_allclose(change, scale * product, atol=1e-5)
    np.testing.assert_array_equal(merged["head"]["scalar"]["kernel"], base["head"]["scalar"]["kernel"])
    jax.tree.map(np.testing.assert_array_equal, merged["stem"], base["stem"])


def test_an_adapted_layer_adds_the_low_rank_path(model, base):
    """x (W + down up) = x W + (x down) up, also where a kernel has head axes."""
    adapters = filled(lora.init(jax.random.key(1), base, 2, ("query", "output")))
    merged = lora.merge(base, adapters)
    x = jax.random.normal(jax.random.key(2), (5, 8))
    for name, contract in (("query", "nd,dhk->nhk"), ("output", "nhk,hkd->nd")):
        adapter = adapters[f"trunk/block_0/{name}/kernel"]
        inputs = x if name == "query" else x.reshape(5, 2, 4)
        outputs = jnp.einsum(contract, inputs, merged["trunk"]["block_0"][name]["kernel"])
        plain = jnp.einsum(contract, inputs, base["trunk"]["block_0"][name]["kernel"])
        path = (x @ adapter["down"]) @ adapter["up"]
        np.testing.assert_allclose(outputs, plain + path.reshape(plain.shape), atol=2e-5)


def test_training_moves_the_adapters_and_leaves_the_base(model, base, tokens):
    def loss(adapters):
        return jnp.mean(jnp.square(model.apply(lora.merge(base, adapters), tokens)))

    before = jax.tree.map(np.array, base)
    adapters = lora.init(jax.random.key(1), base, 2, TARGETS)
    value_and_grad = jax.jit(jax.value_and_grad(loss))
    first, gradient = value_and_grad(adapters)
    for name, adapter in gradient.items():
        np.testing.assert_array_equal(adapter["down"], 0)  # up is zero: down cannot matter yet
        assert (adapter["up"] != 0).any(), name
    adapters = jax.tree.map(lambda x, g: x - 0.01 * g, adapters, gradient)
    second, gradient = value_and_grad(adapters)
    assert second < first
    assert all((g != 0).any() for g in jax.tree.leaves(gradient))
    jax.tree.map(np.testing.assert_array_equal, base, before)


def test_adapters_are_every_kernel_of_the_targets_at_the_given_rank(base):
    adapters = lora.init(jax.random.key(1), base, 3, (*TARGETS, "down"))
    assert set(adapters) == {f"trunk/block_{i}/{n}/kernel" for i in (0, 1) for n in (*TARGETS, "down")}
    for name, adapter in adapters.items():
        rows, columns = SHAPES[name.split("/")[2]]
        assert adapter["down"].shape == (rows, 3)
        assert adapter["up"].shape == (3, columns)
    expected = 2 * sum(3 * (SHAPES[n][0] + SHAPES[n][1]) for n in (*TARGETS, "down"))
    assert transformer.num_parameters(adapters) == expected


def test_adapters_differ_between_kernels_and_follow_the_key(base):
    first, same, other = (lora.init(jax.random.key(s), base, 2, TARGETS) for s in (1, 1, 2))
    jax.tree.map(np.testing.assert_array_equal, first, same)
    downs = [np.asarray(a["down"]) for a in (*first.values(), *other.values())]
    assert len({d.tobytes() for d in downs}) == len(downs)


def test_down_keeps_the_size_of_its_input():
    params = {"wide": {"kernel": jnp.zeros((400, 5))}}
    down = lora.init(jax.random.key(0), params, 50, ("wide",))["wide/kernel"]["down"]
    np.testing.assert_allclose(np.asarray(down).std(), 400**-0.5, rtol=0.05)


def test_an_unknown_target_is_refused_with_the_known_ones(base):
    with pytest.raises(ValueError, match=r"\['qery'\].*'query'"):
        lora.init(jax.random.key(0), base, 2, ("qery", "value"))


def test_adapters_of_another_model_are_refused(base):
    adapters = lora.init(jax.random.key(0), {"elsewhere": {"kernel": jnp.ones((3, 3))}}, 2, ("elsewhere",))
    with pytest.raises(ValueError, match="elsewhere"):
        lora.merge(base, adapters)
