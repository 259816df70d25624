"""Observations as tokens: what the latents of MuZero's model then do."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxagent.agents import muzero, self_prediction
from jaxagent.agents.muzero import MuZeroBatch
from jaxagent.config import LatentConfig, MuZeroConfig, SearchConfig, TrunkConfig
from jaxagent.nn.latent_model import latent_model
from jaxagent.nn.policy_value import policy_value

TRUNK = TrunkConfig(width=16, num_blocks=1, patch=2, num_heads=2)
CONFIG = LatentConfig(TRUNK, num_bins=11, projection_size=8)
SHAPE = (5, 4, 3)


def boards(count=3, seed=0, shape=SHAPE):
    return jnp.asarray(np.random.default_rng(seed).random((count, *shape)), jnp.float32)


@pytest.mark.fast("shape1-4")
@pytest.mark.parametrize(("shape", "tokens"), [(SHAPE, 6), ((4,), 4)])
def test_latents_are_tokens(shape, tokens):
    model = latent_model(CONFIG, shape, 3)
    params = jax.jit(model.init)(jax.random.key(0))
    latent = jax.jit(model.encode)(params, boards(shape=shape))
    assert latent.shape == (3, tokens, 16)
    after, reward = jax.jit(model.step)(params, latent, jnp.array([0, 1, 2]))
    assert after.shape == latent.shape
    assert reward.shape == (3, 11)
    assert model.project(params, latent).shape == (3, tokens, 8)
    logits, value = model.judge(params, latent)
    assert (logits.shape, value.shape) == ((3, 3), (3, 11))


@pytest.mark.slow
def test_every_token_and_the_action_reach_every_next_token():
    model = latent_model(CONFIG, SHAPE, 3)
    params = model.init(jax.random.key(0))
    latent, action = model.encode(params, boards()), jnp.array([0, 1, 2])
    after = np.asarray(model.step(params, latent, action)[0])
    moved = np.asarray(model.step(params, latent, jnp.array([0, 1, 0]))[0])
    np.testing.assert_array_equal(after[:2], moved[:2])
    assert (np.abs(after[2] - moved[2]).max(-1) > 1e-5).all()
    other = latent.at[0, 0].add(1.0)
    moved = np.asarray(model.step(params, other, action)[0])
    assert (np.abs(after[0] - moved[0]).max(-1) > 1e-5).all()


@pytest.mark.slow
def test_places_and_scalars_are_told_apart():
    """The same cell elsewhere, or the same number of another scalar, is another latent."""
    model = latent_model(CONFIG, (4,), 2)
    params = model.init(jax.random.key(0))
    one, other = model.encode(params, jnp.array([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]]))
    pooled = one.mean(0) - other.mean(0)
    assert float(jnp.abs(pooled).max()) > 1e-4


@pytest.mark.slow
def test_a_policy_and_value_may_stand_on_tokens():
    network = policy_value(TRUNK, SHAPE, 3, is_bounded=True)
    params = network.init(jax.random.key(0))
    logits, value = network(params, boards())
    assert (logits.shape, value.shape) == ((3, 3), (3,))


@pytest.mark.slow
def test_muzero_searches_with_the_transition_that_self_prediction_trains():
    """One module, two users: the consistency loss alone moves what `recurrent_fn` steps with."""
    config = MuZeroConfig(unroll=2, model=CONFIG, search=SearchConfig(num_simulations=4))
    model = latent_model(CONFIG, SHAPE, 3)
    params = model.init(jax.random.key(0))
    steps = boards(9).reshape(3, 3, *SHAPE)
    known = jnp.ones((3, 3), bool)
    batch = MuZeroBatch(
        obs=steps,
        action=jnp.array([[0, 1, 2], [1, 1, 0]]),
        reward=jnp.zeros((2, 3)),
        value=jnp.zeros((3, 3)),
        weights=jnp.full((3, 3, 3), 1 / 3),
        is_alive=known,
        is_known=known,
    )

    def consistency(params):
        return muzero.unrolled_losses(model, config, params, batch)["consistency"]

    gradient = jax.jit(jax.grad(consistency))(params)["params"]
    for part in ("encoder", "transition", "projector", "predictor"):
        assert max(float(jnp.abs(x).max()) for x in jax.tree.leaves(gradient[part])) > 0
    for part in ("policy_head", "value_head", "reward_head"):
        assert not any(np.asarray(x).any() for x in jax.tree.leaves(gradient[part]))
    # The same loss from the parts that SPR takes, but for its factor of two.
    parts = self_prediction.latent_parts(model)
    latent = jax.jit(parts.encode)(params, steps[0])

    def loss(params):
        later = self_prediction.projections(parts, params, steps[1:])
        alive = jnp.ones((2, 3), bool)
        return self_prediction.prediction_loss(parts, params, latent, batch.action, later, alive)

    found = jax.jit(loss)(params)
    np.testing.assert_allclose(0.5 * found.mean(), jax.jit(consistency)(params), rtol=1e-5)
    moved = jax.tree.map(lambda x, g: x - 0.5 * g, params["params"], gradient)
    recurrent_fn = jax.jit(muzero.learned_model(model, CONFIG, discount=0.9))
    key = jax.random.key(0)
    before = recurrent_fn(params, key, batch.action[0], latent)[1]
    after = recurrent_fn({"params": moved}, jax.random.clone(key), batch.action[0], latent)[1]
    assert float(jnp.abs(before - after).max()) > 1e-4


def test_tokens_exclude_convolutions_and_heads_divide():
    with pytest.raises(ValueError, match="choose tokens or convolutions"):
        dataclasses.replace(TRUNK, channels=4)
    with pytest.raises(ValueError, match="multiple of 3"):
        dataclasses.replace(TRUNK, num_heads=3)
