"""Readouts: which tokens a pool reads, and that what is not kept does not matter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxagent.nn.readout import AttentionPool, Readout, pooled

B, G, D = 3, 4, 8
ALL = jnp.ones((G,), bool)
POOLS = ("last", "mean", "concat", "attention")


def states(seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(B, G, D)), jnp.float32)


def readout(pool):
    module = Readout(pool, (5, 2), output_scale=1.0)
    params = jax.jit(module.init)(jax.random.key(0), states(), ALL)
    return jax.jit(lambda x, kept: module.apply(params, x, kept))


@pytest.mark.parametrize("pool", POOLS)
def test_a_readout_reads_every_kept_token_and_no_other(pool):
    read, kept = readout(pool), ALL.at[1].set(False)
    before = read(states(), kept)
    assert before.shape == (B, 2)
    for token in range(G):
        after = read(states().at[:, token].add(1.0), kept)
        expected = token == G - 1 if pool == "last" else token != 1
        assert (np.abs(after - before).max() > 1e-4) == expected, token


def test_pools_without_parameters_are_what_they_say():
    x, kept = states(), ALL.at[1].set(False)
    np.testing.assert_array_equal(pooled(x, kept, "last"), x[:, -1])
    np.testing.assert_allclose(pooled(x, kept, "mean"), x[:, np.array([0, 2, 3])].mean(1), rtol=1e-6)
    np.testing.assert_array_equal(pooled(x, kept, "concat"), x.at[:, 1].set(0.0).reshape(B, -1))


def test_attention_over_one_token_is_its_values_and_over_equal_ones_too():
    module, one = AttentionPool(2), states()[:, :1]
    params = module.init(jax.random.key(0), one, ALL[:1])
    expected = one[:, 0] @ params["params"]["value"]["kernel"]
    np.testing.assert_allclose(module.apply(params, one, ALL[:1]), expected, rtol=1e-5)
    same = jnp.repeat(one, G, axis=1)
    np.testing.assert_allclose(module.apply(params, same, ALL), expected, rtol=1e-5, atol=1e-6)
