"""Pretraining of the agent of all parts: it reads histories as it will episodes, and begins with them."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from jaxagent.agents import predictive_pretraining, sequence
from jaxagent.config import SequencePlannerConfig, SPRConfig, TokenConfig, TransformerConfig
from jaxagent.data import sampler, store
from jaxagent.study import agents, collection, planner_agents

SPR = SPRConfig(num_steps=2, weight=1.0)
CONFIG = SequencePlannerConfig(spr=SPR, projection_size=8)
MODEL = TransformerConfig(width=8, num_layers=1, num_heads=2, context=4)
B = 3
WORLDS = [("memory/CountRecall", 0), ("minatar/Breakout", 5)]  # and the side of a patch


def read(name, patch=0):
    """An environment, its reading of noise, and an agent on it."""
    env, _ = envs.make(name)
    played = [collection.stand_in(env, 16, 2)]
    model = dataclasses.replace(MODEL, patch=patch)
    of = planner_agents.reading(env, played, 1, TokenConfig(num_bins=8), model)
    return env, played, of, planner_agents.planner_on(of.actor, CONFIG)


def begun(name, patch):
    """A network, a batch of windows of noise, and first parameters."""
    _, _, of, planner = read(name, patch)
    batch = sampler.sample(of.data[0], jax.random.key(0), B, MODEL.context)
    return planner.predictive, batch, jax.jit(planner.predictive.init)(jax.random.key(1))


@pytest.mark.fast("scalars")
@pytest.mark.parametrize(("name", "patch"), WORLDS, ids=["scalars", "patches"])
def test_a_stored_window_is_read_as_an_episode_is(name, patch):
    net, batch, params = begun(name, patch)

    @jax.jit
    def both(params):
        window = predictive_pretraining._of_patches if patch else predictive_pretraining._of_tokens
        stored = window(net, params, batch)[0].states.reshape(MODEL.context, B, -1)
        carry, acted = net.actor.init_carry(B), []
        for t in range(MODEL.context):
            state, carry = net.see(params, carry, batch.obs[:, t], jnp.full((B,), t == 0))
            tokens = net.actor.num_bins + batch.unit[:, t, -1:].astype(jnp.int32)
            carry = sequence.acted(carry, tokens)
            acted.append(state)
        return stored, jnp.stack(acted)

    stored, acted = both(params)
    is_real = np.asarray(batch.is_real).T
    np.testing.assert_allclose(stored[is_real], acted[is_real], atol=2e-5)


@pytest.mark.fast("scalars")
@pytest.mark.parametrize(("name", "patch"), WORLDS, ids=["scalars", "patches"])
def test_pretraining_reaches_the_encoder_and_the_dynamics_but_no_value(name, patch):
    net, batch, params = begun(name, patch)
    loss = partial(predictive_pretraining.loss, net, SPR)
    (_, told), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params, batch)
    assert all(jnp.isfinite(x) for x in told.values())
    assert {"train/loss/spr", "train/loss/decoded"} <= told.keys()

    def moves(tree):
        return any(float(jnp.abs(x).max()) > 0.0 for x in jax.tree.leaves(tree))

    assert moves(gradient.network["stem"])
    assert moves(gradient.dynamics["params"]["listener"])
    assert not moves(gradient.value)
    assert not moves(gradient.dynamics["params"]["reward_output"])


def test_windows_of_boards_are_the_boards_and_the_actions_as_they_were():
    _, played, of, _ = read("minatar/Breakout", 5)
    data, (steps,) = of.data[0], played
    assert data.obs.shape == (2 * 16 + MODEL.context - 1, 10, 10, 4)
    np.testing.assert_array_equal(data.obs[:16], steps.obs[:, 0])
    np.testing.assert_array_equal(data.unit[16:32, 0], steps.action[:, 1])
    assert int(data.num_real) == 32


def test_shuffled_boards_keep_their_numbers_and_lose_their_actions():
    _, _, of, _ = read("minatar/Breakout", 5)
    (data,) = of.data
    mixed = sampler.shuffled(data, jax.random.key(0))
    for name in ("obs", "unit"):
        before, after = (np.asarray(getattr(x, name)[:32]).reshape(32, -1) for x in (data, mixed))
        assert not np.array_equal(before, after)
        np.testing.assert_array_equal(*(x[np.lexsort(x.T)] for x in (before, after)))
    np.testing.assert_array_equal(mixed.segment, data.segment)


def test_a_seed_plays_alike_whoever_plays_beside_it(tmp_path):
    env, task = envs.make("memory/CountRecall")
    for folder, seeds in (("a", (3, 4)), ("b", (4, 5))):
        place = tmp_path / folder
        place.mkdir()
        policy, nobody = agents.uniform_policy(env), np.zeros((3, 1))  # three players of a seed
        planner_agents.play(env, task, policy, [nobody] * 2, seeds, 2, 8, "play", place, tmp_path)
    first, second = (store.read(tmp_path / f / "store") for f in ("a", "b"))
    np.testing.assert_array_equal(first[1].trajectory.obs, second[0].trajectory.obs)
    assert not np.array_equal(first[0].trajectory.action, first[1].trajectory.action)
    assert first[0].trajectory.obs.shape == (8, 6, *env.obs_shape)
    lanes = first[0].trajectory.action.T
    assert len({tuple(lane) for lane in lanes}) == 6


def test_adapters_leave_what_was_pretrained_alone():
    env, _, _, planner = read("memory/CountRecall")
    first = jax.jit(planner.init)(jax.random.key(0))
    given = planner_agents.Given(first.network, first.dynamics)
    tuned = planner_agents.beginning(planner, "lora", 2)
    params = jax.jit(tuned.init)(jax.random.key(1), given)
    obs, is_first = jnp.zeros((B, *env.obs_shape)), jnp.ones((B,), bool)

    def value(params):
        carry = planner.predictive.actor.init_carry(B)
        return planner.predictive.see(tuned.whole(params), carry, obs, is_first)[0].sum()

    begun, gradient = jax.jit(jax.value_and_grad(value))(params)
    whole = jax.jit(value)(
        params._replace(network=planner_agents.Adapted(first.network, params.network.adapters))
    )
    assert float(begun) == float(whole)
    assert all(float(jnp.abs(x).max()) == 0.0 for x in jax.tree.leaves(gradient.network.base))
    assert any(float(jnp.abs(x).max()) > 0.0 for x in jax.tree.leaves(gradient.network.adapters))
