"""The Q-network: shapes of the published encoders, noise, dropout, what the head computes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxagent.config import QNetworkConfig
from jaxagent.nn.q_network import ConvTransition, NoisyDense, noise_factors, q_network
from jaxagent.nn.transformer import num_parameters

SMALL = QNetworkConfig(hidden_size=8, num_atoms=5)


def board(seed=0, batch=4, shape=(6, 5, 3)):
    return jnp.asarray(np.random.default_rng(seed).random((batch, *shape)), jnp.float32)


def built(config=SMALL, shape=(6, 5, 3), num_actions=3):
    network = q_network(config, shape, num_actions)
    return network, network.init(jax.random.key(0))


@pytest.mark.parametrize(
    ("config", "latent"),
    [
        (QNetworkConfig(encoder="nature"), (7, 7, 64)),
        (QNetworkConfig(encoder="impala", width=4, hidden_size=64, noise=0.0), (11, 11, 128)),
    ],
)
def test_encoders_of_frames_have_the_published_shapes(config, latent):
    network = q_network(config, (84, 84, 4), 6)
    params = jax.eval_shape(network.init, jax.random.key(0))
    frames = jax.ShapeDtypeStruct((2, 84, 84, 4), jnp.uint8)
    assert jax.eval_shape(network.encode, params, frames).shape == (2, *latent)


def test_spr_s_network_has_the_published_sizes():
    """Convolutions, transition, noisy head with two streams of 256, linear predictor of 512."""
    network = q_network(QNetworkConfig(encoder="nature"), (84, 84, 4), 6)
    parts = jax.eval_shape(network.init, jax.random.key(0))["params"]
    flat, atoms = 7 * 7 * 64, 51
    encoder = (8 * 8 * 4 + 1) * 32
    encoder += (4 * 4 * 32 + 1) * 64 + (3 * 3 * 64 + 1) * 64
    assert num_parameters(parts["encoder"]) == encoder
    transition = (9 * (64 + 6) + 1) * 64 + 2 * 64 + (9 * 64 + 1) * 64
    assert num_parameters(parts["transition"]) == transition
    head = 2 * (2 * (flat + 1) * 256 + 257 * atoms + 257 * 6 * atoms)  # means and spreads
    assert num_parameters(parts["head"]) == head
    assert num_parameters(parts["predictor"]) == 513 * 512


@pytest.mark.slow
def test_latents_lie_in_the_unit_interval_and_reach_its_ends():
    network, params = built()
    latent = network.encode(params, board())
    after = network.step(params, latent, jnp.array([0, 1, 2, 0]))
    for x in (latent, after):
        flat = np.asarray(x).reshape(4, -1)
        np.testing.assert_allclose(flat.min(1), 0.0, atol=1e-6)
        np.testing.assert_allclose(flat.max(1), 1.0, atol=1e-6)


@pytest.mark.slow
def test_pixels_are_scaled_and_boards_are_not():
    network, params = built()
    pixels = np.random.default_rng(0).integers(0, 256, (2, 6, 5, 3)).astype(np.uint8)
    as_unit = jnp.asarray(pixels, jnp.float32) / 255
    same = network.encode(params, jnp.asarray(pixels)), network.encode(params, as_unit)
    np.testing.assert_allclose(*same, atol=1e-5)
    cells = jnp.asarray(pixels > 128)
    same = network.encode(params, cells), network.encode(params, cells.astype(jnp.float32))
    np.testing.assert_array_equal(*same)


@pytest.mark.slow
def test_the_action_moves_the_next_latent_where_it_is_told():
    latent = jax.random.uniform(jax.random.key(1), (2, 4, 4, 3))
    module = ConvTransition(num_actions=3)
    params = module.init(jax.random.key(0), latent, jnp.array([0, 0]))
    one, other = (np.asarray(module.apply(params, latent, jnp.array([0, a]))) for a in (0, 2))
    np.testing.assert_array_equal(one[0], other[0])
    assert np.abs(one[1] - other[1]).max() > 1e-3


def test_noise_is_factorised_with_the_published_scale():
    size, features, scale = 20, 30, 0.5
    layer = NoisyDense(features, scale)
    x = jnp.eye(size)
    params = layer.init(jax.random.key(0), x)
    weights = params["params"]
    np.testing.assert_allclose(weights["kernel_scale"], scale / np.sqrt(size), rtol=1e-6)
    np.testing.assert_allclose(weights["bias_scale"], scale / np.sqrt(features), rtol=1e-6)
    calm = layer.apply(params, x)
    np.testing.assert_allclose(calm, weights["kernel"] + weights["bias"][None], atol=1e-6)

    def noise(key):
        return layer.apply(params, x, noise_factors(key, size + features)) - calm

    rows = np.asarray(jax.vmap(noise)(jax.random.split(jax.random.key(1), 4000)))
    # Row differences have no bias noise: an outer product of rank one.
    singular = np.linalg.svd(rows[0] - rows[0][:1], compute_uv=False)
    assert singular[1] < 1e-5 * singular[0]
    # E f(x)^2 = E |x| = sqrt(2 / pi) for each factor.
    expected = np.sqrt(2 / np.pi) ** 2 * scale**2 / size + np.sqrt(2 / np.pi) * scale**2 / features
    np.testing.assert_allclose(rows.var(0).mean(), expected, rtol=0.05)
    np.testing.assert_allclose(rows.mean(0), 0.0, atol=0.02)


@pytest.mark.parametrize("is_shared", [False, True])
def test_every_layer_of_the_head_has_noise_of_its_own(is_shared):
    """Of one draw, no two layers, and no layer's inputs and outputs, get the same part."""
    network, params = built(dataclasses.replace(SMALL, is_shared=is_shared, noise=0.5))
    latent = network.encode(params, board())
    head = network.net.bind(params, rngs={"noise": jax.random.key(0)}).head
    factors = [np.asarray(f) for f in head._factors(int(np.prod(latent.shape[1:])))]
    assert len(factors) == (3 if is_shared else 4)
    together = np.concatenate(factors)
    assert len(np.unique(together)) == len(together)
    hidden, atoms = network.net.config.hidden_size, network.net.config.num_atoms
    wanted = [hidden + atoms, hidden + network.net.num_actions * atoms]
    assert [len(f) for f in factors[-2:]] == wanted


@pytest.mark.slow
def test_without_a_key_there_is_no_noise_and_with_one_there_is():
    network, params = built()
    latent = network.encode(params, board())
    calm = network.judge(params, latent)
    np.testing.assert_array_equal(calm, network.judge(params, latent))
    noisy = [network.judge(params, latent, jax.random.key(s)) for s in (0, 1)]
    assert np.abs(np.asarray(noisy[0] - noisy[1])).max() > 1e-3
    plain = built(dataclasses.replace(SMALL, noise=0.0))
    same = (plain[0].judge(plain[1], latent, key) for key in (None, jax.random.key(0)))
    np.testing.assert_array_equal(*same)


def test_dueling_advantages_have_mean_zero():
    """The mean over actions is the value stream's, whatever the advantages."""
    network, params = built()
    latent = network.encode(params, board())
    moved = jax.tree.map(lambda x: x, params)
    moved["params"]["head"]["advantage"]["kernel"] = -3 * params["params"]["head"]["advantage"]["kernel"]
    before, after = (network.judge(p, latent) for p in (params, moved))
    np.testing.assert_allclose(before.mean(1), after.mean(1), atol=1e-5)
    assert np.abs(np.asarray(before - after)).max() > 1e-3


def test_the_projection_is_the_head_s_first_layer():
    """A change of it changes values and projections; one of the second layer only values."""
    network, params = built()
    latent = network.encode(params, board())
    assert network.project(params, latent).shape == (4, 16)
    for layer, moves_projection in (("hidden_0", True), ("value", False)):
        moved = jax.tree.map(lambda x: x, params)
        moved["params"]["head"][layer]["bias"] += 1.0
        same = np.allclose(network.project(params, latent), network.project(moved, latent))
        assert same != moves_projection
        assert not np.allclose(network.judge(params, latent), network.judge(moved, latent))


def test_one_hidden_layer_may_serve_both_streams():
    network, params = built(dataclasses.replace(SMALL, is_shared=True, noise=0.0))
    latent = network.encode(params, board())
    assert network.project(params, latent).shape == (4, 8)
    assert network.judge(params, latent).shape == (4, 3, 5)
    assert set(params["params"]["head"]) == {"hidden_0", "value", "advantage"}


def test_dropout_acts_with_a_key_alone():
    network, params = built(dataclasses.replace(SMALL, dropout=0.5))
    calm = [network.encode(params, board()) for _ in range(2)]
    np.testing.assert_array_equal(*calm)
    dropped = network.encode(params, board(), jax.random.key(0))
    share = float((np.asarray(dropped) == 0).mean() - (np.asarray(calm[0]) == 0).mean())
    assert share > 0.1


def test_what_is_no_picture_is_refused():
    with pytest.raises(ValueError, match=r"got observations \(4,\), expected frames or boards"):
        q_network(SMALL, (4,), 2)
    with pytest.raises(ValueError, match="at least 36 by 36"):
        q_network(QNetworkConfig(encoder="nature"), (10, 10, 4), 2)


@pytest.mark.slow
@pytest.mark.parametrize(("encoder", "noise"), [("nature", 0.5), ("impala", 0.0)])
def test_latents_of_half_the_bits_say_nearly_the_same(encoder, noise):
    """Parameters, logits, projections and gradients stay float32."""
    config = dataclasses.replace(SMALL, encoder=encoder, noise=noise, dropout=0.25)
    size = 40 if encoder == "nature" else 12
    full, half = (
        q_network(dataclasses.replace(config, dtype=dtype), (size, size, 4), 3)
        for dtype in ("float32", "bfloat16")
    )
    params = jax.jit(full.init)(jax.random.key(0))
    shapes = (jax.eval_shape(n.init, jax.random.key(0)) for n in (half, full))
    assert next(shapes) == next(shapes)
    obs = jax.random.uniform(jax.random.key(1), (6, size, size, 4))
    action = jnp.arange(6) % 3

    def run(network, params):
        key_drop, key_noise = jax.random.split(jax.random.key(2))
        latent = network.encode(params, obs, key_drop)
        after = network.step(params, latent, action)
        logits = network.judge(params, latent, key_noise if noise else None)
        found = latent, after, logits, network.predict(params, network.project(params, after))
        return sum(jnp.mean(jnp.square(x)) for x in found[2:]), found

    @functools.partial(jax.jit, static_argnums=0)
    def gradient(network, params):
        return jax.grad(lambda p: run(network, p), has_aux=True)(params)

    (ours, found), (theirs, expected) = (gradient(network, params) for network in (half, full))
    types = [x.dtype for x in found]
    assert types == [jnp.bfloat16, jnp.bfloat16, jnp.float32, jnp.float32]
    for x, y in zip(found, expected, strict=True):
        far = np.abs(np.asarray(x, np.float32) - np.asarray(y))
        assert 0.0 < far.mean() < 0.02 * np.abs(np.asarray(y)).mean()
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(ours))
    assert all(np.abs(x).max() > 0.0 for x in jax.tree.leaves(ours["params"]["encoder"]))
    a, b = (np.concatenate([x.ravel() for x in jax.tree.leaves(jax.device_get(g))]) for g in (ours, theirs))
    assert a @ b > 0.95 * np.linalg.norm(a) * np.linalg.norm(b)
