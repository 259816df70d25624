"""`kernels.mlp` against two products, and the transformer that trains by it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import assert_close
from machines import CALLS, gpu_interpreter, num_calls

from jaxagent.config import TransformerConfig
from jaxagent.nn.transformer import run_blocks
from kernels import dispatch, warpgroup
from kernels.attention.masks import causal
from kernels.mlp import cost, mlp, on_gpu
from kernels.mlp.reference import mlp as reference

INTERPRET = partial(mlp, implementation="interpret")


def arrays(num_rows=130, width=64, hidden=200, dtype=jnp.float32):
    """Rows and weights, none a multiple of a block."""
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = (num_rows, width), (width, hidden), (hidden, width)
    return [jax.random.normal(k, s, dtype) / float(s[0]) ** 0.5 for k, s in zip(keys, shapes, strict=True)]


def exact(x, up, down):
    """In double precision, by the formula."""
    x, up, down = (np.asarray(a, np.float64) for a in (x, up, down))
    wide = x @ up
    wide = 0.5 * wide * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (wide + 0.044715 * wide**3)))
    return wide @ down


@pytest.mark.parametrize("num_rows", [1, 130])
def test_values_are_those_of_the_formula(num_rows):
    args = arrays(num_rows)
    assert_close(INTERPRET(*args), exact(*args))
    assert_close(mlp(*args), exact(*args))


def test_gradients_are_those_of_the_reference():
    args = arrays()

    def gradients(run):
        return jax.grad(lambda *args: jnp.sum(jnp.sin(run(*args))), argnums=(0, 1, 2))(*args)

    assert_close(gradients(INTERPRET), gradients(reference))


def test_half_precision_is_close_to_single():
    half = arrays(dtype=jnp.bfloat16)
    assert INTERPRET(*half).dtype == jnp.bfloat16
    assert_close(INTERPRET(*half), exact(*half), tolerance=1e-2)


def test_the_kernel_of_a_gpu_computes_the_same_and_races_nowhere():
    half = arrays(dtype=jnp.bfloat16)
    assert_close(on_gpu(*half, warpgroup.plain(gpu_interpreter())), exact(*half), tolerance=1e-2)


def test_it_is_mapped_over_rows_and_weights_and_devices():
    x, up, down = arrays(6)
    rows = x.reshape(2, 3, 64)
    assert_close(INTERPRET(rows, up, down), exact(x, up, down).reshape(rows.shape))
    by_rows = jax.vmap(INTERPRET, in_axes=(0, None, None))
    assert_close(by_rows(rows, up, down), exact(x, up, down).reshape(rows.shape))
    assert "grid=(1, 1)" in str(jax.make_jaxpr(by_rows)(rows, up, down))  # one launch of more rows
    ups = jnp.stack([up, -up])
    expected = np.stack([exact(rows[0], up, down), exact(rows[1], -up, down)])
    assert_close(jax.vmap(INTERPRET, in_axes=(0, 0, None))(rows, ups, down), expected)
    assert_close(jax.pmap(INTERPRET, in_axes=(0, 0, None))(rows, ups, down), expected)


@pytest.mark.parametrize("width", [64, 256])
def test_it_lowers_for_accelerators(width):
    half = arrays(5, width, 2 * width, jnp.bfloat16)
    run = partial(mlp, implementation="pallas")
    for platform in CALLS:
        assert num_calls(run, *half, platform=platform)
        assert num_calls(jax.value_and_grad(lambda *args: jnp.sum(run(*args))), *half, platform=platform)
        assert not num_calls(mlp, *half, platform=platform)  # nothing was measured there
    assert not num_calls(run, *arrays(5, width, 2 * width), platform="cuda")  # its units round


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"down": jnp.zeros((200, 63))}, r"expected x \[..., D\], up \[D, F\] and down \[F, D\]"),
        ({"x": jnp.zeros((5, 63))}, r"got \[\(5, 63\), \(64, 200\)"),
        ({"up": jnp.zeros((64, 200), jnp.bfloat16)}, "got bfloat16, float32"),
    ],
)
def test_what_is_outside_its_domain_is_refused(changed, told):
    with pytest.raises(ValueError, match=told):
        INTERPRET(**dict(zip(("x", "up", "down"), arrays(), strict=True)) | changed)


def test_no_rows_are_no_rows():
    assert INTERPRET(*arrays(0)).shape == (0, 64)


def test_its_cost_counts_the_weights_once():
    assert cost(10, 64, 256) == (4 * 10 * 64 * 256, 2 * (2 * 640 + 2 * 64 * 256))


def test_a_transformer_takes_the_same_step_by_the_kernels(monkeypatch):
    """Attention and MLP, whose parameters are the same and begin the same."""
    import flax.linen as nn

    class Trunk(nn.Module):
        @nn.compact
        def __call__(self, x):
            config = TransformerConfig(width=16, num_layers=2, num_heads=2, mlp_factor=2, context=4)
            return run_blocks(config, x, jnp.arange(5, dtype=jnp.int32), causal(5), None)[0]

    x = jax.random.normal(jax.random.key(1), (2, 5, 16))

    def step():
        params = Trunk().init(jax.random.key(0), x)
        return params, jax.grad(lambda p: jnp.sum(jnp.square(Trunk().apply(p, x)[0, :, 0])))(params)

    plain = step()
    monkeypatch.setenv(dispatch.VARIABLE, "interpret")
    by_kernel = step()
    assert jax.tree.structure(by_kernel) == jax.tree.structure(plain)
    assert_close(by_kernel[0], plain[0], tolerance=0.0)
    assert_close(by_kernel[1], plain[1], tolerance=1e-4)


@pytest.mark.accelerator
@pytest.mark.parametrize("shape", [(1, 64, 64), (1000, 256, 1024), (16384, 128, 512)])
def test_the_device_computes_the_same(shape):
    half = arrays(*shape, jnp.bfloat16)
    got = jax.jit(partial(mlp, implementation="pallas"))(*half)
    assert_close(got, np.asarray(reference(*[x.astype(jnp.float32) for x in half])), tolerance=2e-2)
