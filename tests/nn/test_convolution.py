"""Convolutions as products against XLA's own, values and gradients, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxagent.nn.convolution import Conv, convolve

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


@pytest.mark.parametrize("padding", ["SAME", "VALID", [(2, 1), (0, 3)]])
@pytest.mark.parametrize(
    ("size", "stride"),
    [
        ((3, 3), (1, 1)),
        ((4, 4), (3, 3)),
        ((2, 3), (2, 1)),
        ((4, 4), (2, 2)),
        ((4, 3), (2, 3)),
        ((8, 8), (4, 4)),
    ],
)
def test_equals_xla_s_convolution(size, stride, padding):
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x = jnp.asarray(rng.normal(size=(2, 13, 11, 3)))
        kernel = jnp.asarray(rng.normal(size=(*size, 3, 4)))

        def run(convolution):
            """Values, and gradients of their weighted sum."""

            def weighted(x, kernel):
                out = convolution(x, kernel, stride, padding, dimension_numbers=DIMENSIONS)
                weight = jnp.cos(jnp.arange(out.size, dtype=out.dtype)).reshape(out.shape)
                return jnp.sum(weight * out), out

            (_, out), gradients = jax.value_and_grad(weighted, (0, 1), has_aux=True)(x, kernel)
            return out, gradients

        found, expected = (jax.jit(lambda f=f: run(f))() for f in (convolve, jax.lax.conv_general_dilated))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11), found, expected)


def test_a_layer_has_the_parameters_and_values_of_flax_s():
    import flax.linen as nn

    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 6, 3)), jnp.float32)
    ours, theirs = Conv(5, (3, 3)), nn.Conv(5, (3, 3))
    params = theirs.init(jax.random.key(0), x)
    same = ours.init(jax.random.key(0), x)
    jax.tree.map(np.testing.assert_array_equal, params, same)
    np.testing.assert_allclose(ours.apply(params, x), theirs.apply(params, x), atol=1e-5)


@pytest.mark.parametrize("options", [{"kernel_dilation": 2}, {"feature_group_count": 3}])
def test_what_is_dilated_or_grouped_is_left_to_xla(options):
    import flax.linen as nn

    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 7, 7, 3)), jnp.float32)
    ours, theirs = Conv(6, (3, 3), **options), nn.Conv(6, (3, 3), **options)
    params = theirs.init(jax.random.key(0), x)
    np.testing.assert_allclose(ours.apply(params, x), theirs.apply(params, x), atol=1e-5)
