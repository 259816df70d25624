"""`kernels.decode` against the parts of a block, and the transformer that acts by it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import assert_close
from machines import CALLS, gpu_interpreter, num_calls

from jaxagent.config import TransformerConfig
from jaxagent.nn import transformer
from jaxagent.nn.sequence_model import token_model
from jaxagent.tokens.stream import Tokens
from kernels import decode, dispatch, warpgroup
from kernels.decode import Weights, behind
from kernels.decode.reference import behind as reference

INTERPRET = partial(behind, implementation="interpret")


def arrays(num_rows=70, width=64, hidden=200, dtype=jnp.float32):
    """Rows and weights, none a multiple of a tile."""
    keys = jax.random.split(jax.random.key(0), 6)

    def drawn(key, *shape):
        return jax.random.normal(key, shape, dtype) / float(shape[0]) ** 0.5

    rows = [jax.random.normal(key, (num_rows, width), dtype) for key in keys[:2]]
    scale = 1.0 + 0.3 * jax.random.normal(keys[2], (width,))
    up, down = drawn(keys[4], width, hidden), drawn(keys[5], hidden, width)
    return [*rows, Weights(drawn(keys[3], width, width), scale, up, down)]


def exact(x, mixed, weights):
    """In double precision, by the formulas."""
    x, mixed, *weights = (np.asarray(a, np.float64) for a in (x, mixed, *weights))
    output, scale, up, down = weights
    x = x + mixed @ output
    wide = x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + 1e-6) * scale @ up
    return x + 0.5 * wide * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (wide + 0.044715 * wide**3))) @ down


@pytest.mark.parametrize("num_rows", [1, 130])
def test_values_are_those_of_the_formulas(num_rows):
    args = arrays(num_rows)
    assert_close(INTERPRET(*args), exact(*args))
    assert_close(behind(*args), exact(*args))


def test_gradients_are_those_of_the_reference():
    def gradients(run):
        return jax.grad(lambda *args: jnp.sum(jnp.sin(run(*args))), argnums=(0, 1, 2))(*arrays())

    assert_close(gradients(INTERPRET), gradients(reference))


def test_the_kernel_of_a_gpu_computes_the_same_and_races_nowhere():
    half = arrays(width=128, dtype=jnp.bfloat16)
    got = decode.on_gpu(*half, warpgroup.plain(gpu_interpreter()))
    assert got.dtype == jnp.bfloat16
    assert_close(got, exact(*half), tolerance=3e-2)
    assert_close(INTERPRET(*half), exact(*half), tolerance=3e-2)


def test_it_is_mapped_over_rows_and_weights():
    x, mixed, weights = arrays(6)
    rows = [a.reshape(2, 3, 64) for a in (x, mixed)]
    run = jax.vmap(INTERPRET, in_axes=(0, 0, None))
    assert_close(run(*rows, weights), exact(x, mixed, weights).reshape(2, 3, 64))
    assert "grid=(1,)" in str(jax.make_jaxpr(run)(*rows, weights))  # one launch of more rows
    members = jax.tree.map(lambda w: jnp.stack([w, 2.0 * w]), weights)
    own = [
        exact(a, b, jax.tree.map(lambda w, i=i: w[i], members))
        for i, (a, b) in enumerate(zip(*rows, strict=True))
    ]
    assert_close(jax.vmap(INTERPRET)(*rows, members), np.stack(own), tolerance=1e-4)
    assert_close(jax.pmap(INTERPRET)(*rows, members), np.stack(own), tolerance=1e-4)


@pytest.mark.parametrize("width", [64, 256])
def test_it_lowers_for_accelerators(width):
    half, run = arrays(5, width, 2 * width, jnp.bfloat16), partial(behind, implementation="pallas")
    for platform in CALLS:
        assert num_calls(run, *half, platform=platform)
        assert not num_calls(behind, *half, platform=platform)  # nothing was measured there
    assert not num_calls(run, *arrays(5, width, 2 * width), platform="cuda")  # its units round


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"mixed": jnp.zeros((70, 63))}, r"got x \(70, 64\) and mixed \(70, 63\)"),
        ({"x": jnp.zeros((70, 64), jnp.bfloat16)}, "got bfloat16, float32 with a scale of float32"),
        ({"weights": arrays(hidden=8)[2]._replace(down=jnp.zeros((9, 64)))}, r"got down of shape \(9, 64\)"),
    ],
)
def test_what_is_outside_its_domain_is_refused(changed, told):
    with pytest.raises(ValueError, match=told):
        INTERPRET(**dict(zip(("x", "mixed", "weights"), arrays(), strict=True)) | changed)


def test_no_rows_are_no_rows():
    assert INTERPRET(*arrays(0)).shape == (0, 64)


def test_its_cost_counts_the_weights_once():
    assert decode.cost(10, 64, 256) == (20 * (64 * 64 + 2 * 64 * 256), 2 * (1920 + 36864) + 256)


def test_a_cached_step_is_the_same_by_the_kernels(monkeypatch):
    """Attention over the ring, and all behind it; parameters are the same and begin the same."""
    config = TransformerConfig(width=16, num_layers=2, num_heads=2, mlp_factor=2, context=3)
    model = token_model(config, transformer.Vocabulary(8, 0, 2, 1))
    places = jnp.arange(2, dtype=jnp.int32)
    value = jnp.array([[1, 5], [7, 2]], jnp.int32)
    component, patch = jnp.zeros_like(places), jnp.zeros((2, 2, 0))

    def acted():
        params, cache, states = model.init(jax.random.key(0)), model.init_cache(2, 2), []
        for step in range(4):  # the ring has four
            tokens = Tokens(
                value, component, component, component[0], places + 2 * step, component + step, value, patch
            )
            made, cache = model.advance(params, tokens, jnp.int32(2 * step), cache)
            states.append(made)
        return params, jnp.stack(states), cache.keys

    plain = acted()
    for word in ("interpret", "xla,decode=interpret"):
        monkeypatch.setenv(dispatch.VARIABLE, word)
        by_kernel = acted()
        assert jax.tree.structure(by_kernel) == jax.tree.structure(plain)
        assert_close(by_kernel[0], plain[0], tolerance=0.0)
        assert_close(by_kernel[1:], plain[1:], tolerance=2e-5)


@pytest.mark.accelerator
@pytest.mark.parametrize("shape", [(1, 64, 64), (512, 256, 1024), (5632, 128, 512)])
def test_the_device_computes_the_same(shape):
    half = arrays(*shape, jnp.bfloat16)
    got = jax.jit(partial(behind, implementation="pallas"))(*half)
    assert_close(got, exact(*half), tolerance=5e-2)
