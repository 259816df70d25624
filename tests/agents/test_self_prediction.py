"""Self-prediction beside an on-policy agent: what is predicted, what is masked, what it changes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.vector import VectorEnv, broadcast_params
from jaxagent.agents import self_prediction as spr
from jaxagent.agents.actor_critic import on_latents, ppo
from jaxagent.config import LatentConfig, PPOConfig, SPRConfig, TrunkConfig
from jaxagent.nn.latent_model import latent_model
from jaxagent.train import loops, optimizer, parallel
from jaxagent.types import Trajectory

K, T, B = 3, 6, 2
LATENT = LatentConfig(TrunkConfig(width=8, num_blocks=0), num_bins=5, projection_size=6)
TOKENS = dataclasses.replace(LATENT, trunk=TrunkConfig(width=8, num_blocks=1, patch=5, num_heads=2))
CONFIG = PPOConfig(
    num_envs=8, num_steps=8, num_epochs=8, num_minibatches=1, num_updates=16, updates_per_chunk=8
)
env, TASK = envs.make("minatar/Breakout")


def agent_of(weight=1.0, latent=LATENT, num_steps=K):
    model = latent_model(latent, env.obs_shape, env.action_spec[0].cardinality)
    plain = ppo((), env.action_spec, CONFIG, judge=on_latents(model, latent))
    parts = spr.latent_parts(model)
    config = SPRConfig(num_steps=num_steps, weight=weight)
    return spr.with_self_prediction(plain, parts, config), plain, parts


def mean_over_shards(tree):
    return jax.tree.map(lambda x: jnp.mean(x, axis=0), tree)


def by_step(items):
    """Items `[s, T B, ...]` as `[s, T, B, ...]`."""
    return jax.tree.map(lambda x: x.reshape(x.shape[0], T, B, *x.shape[2:]), items)


def rollout(seed=0, ends=(), cuts=()):
    """One shard `[1, T, B]`; lane 0 ends after steps `ends`, is cut after `cuts`."""
    rng = np.random.default_rng(seed)
    obs = (rng.random((1, T + 1, B, *env.obs_shape)) < 0.2).astype(np.float32)
    none = np.zeros((1, T, B), bool)
    terminated, truncated = none.copy(), none.copy()
    terminated[0, list(ends), 0], truncated[0, list(cuts), 0] = True, True
    action = rng.integers(0, 3, (1, T, B)).astype(np.int32)
    extras = {"raw_action": action, "log_prob": np.full((1, T, B), -1.0, np.float32)}
    reward = rng.random((1, T, B)).astype(np.float32)
    parts = (obs[:, :-1], action, reward, terminated, truncated, obs[:, 1:])
    return Trajectory(*map(jnp.asarray, parts), jax.tree.map(jnp.asarray, extras))


@pytest.mark.slow
def test_what_follows_is_paired_with_the_actions_that_led_there():
    agent, _, parts = agent_of()
    params, steps = agent.init(jax.random.key(0)), rollout()
    found = by_step(jax.jit(lambda p, t: agent.targets(p, (), t, mean_over_shards))(params, steps))
    vectors = spr.projections(parts, params, steps.final_obs[0])  # [T, B, P]
    for t in range(T):
        for k in range(K):
            is_inside = t + k < T
            np.testing.assert_array_equal(found.is_same[0, t, :, k], is_inside)
            if is_inside:
                np.testing.assert_allclose(found.later[0, t, :, k], vectors[t + k], rtol=1e-5, atol=1e-6)
                np.testing.assert_array_equal(found.action[0, t, :, k], steps.action[0, t + k])


@pytest.mark.parametrize("how", ["ends", "cuts"])
def test_nothing_is_predicted_over_the_end_of_an_episode(how):
    agent, _, _ = agent_of()
    params = agent.init(jax.random.key(0))
    found = by_step(agent.targets(params, (), rollout(**{how: (2,)}), mean_over_shards))
    # As in mila-iqia/spr, the step that ends it is masked too.
    np.testing.assert_array_equal(
        found.is_same[0, :, 0], [[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 1], [1, 1, 0], [1, 0, 0]]
    )
    np.testing.assert_array_equal(found.is_same[0, :4, 1], True)


@pytest.mark.fast("latent0")
@pytest.mark.parametrize("latent", [LATENT, TOKENS])
def test_the_loss_is_the_agent_s_and_the_weighted_distance(latent):
    agent, plain, _ = agent_of(weight=2.0, latent=latent)
    params = agent.init(jax.random.key(0))
    both = jax.tree.map(lambda x: x[0], agent.targets(params, (), rollout(), mean_over_shards))
    total, metrics = jax.jit(agent.loss)(params, both)
    own, _ = jax.jit(plain.loss)(params, both.batch)
    np.testing.assert_allclose(total, own + 2.0 * metrics["train/loss/spr"], rtol=1e-5)
    assert float(metrics["train/loss/spr"]) > 0.01


@pytest.mark.slow
def test_no_gradient_reaches_what_is_predicted():
    agent, _, _ = agent_of()
    params = agent.init(jax.random.key(0))

    def later(p):
        return jnp.sum(agent.targets(p, (), rollout(), mean_over_shards).later)

    for leaf in jax.tree.leaves(jax.grad(later)(params)):
        np.testing.assert_array_equal(leaf, 0.0)


@pytest.mark.slow
def test_ppo_trains_with_it():
    agent, _, _ = agent_of(weight=5.0)
    loop = loops.on_policy(agent, VectorEnv(env), optimizer.adam(5e-3, 1.0), CONFIG, is_normalized=False)
    tasks = broadcast_params(TASK, CONFIG.num_envs)
    state = parallel.first_state(*jax.jit(loop.init)(jax.random.key(0), tasks))
    chunk, distances = parallel.chunked(loop, 8, 1), []
    for _ in range(2):
        state, report = chunk(state, jax.random.key(1))
        assert report.is_finite.all()
        mean = report.metrics["train/loss/spr"]
        distances.append(float(mean.total / mean.count))
    assert distances[1] < 0.7 * distances[0], distances


def test_refuses_what_it_cannot_do():
    _, plain, parts = agent_of()
    with pytest.raises(ValueError, match=r"got 0\.01 for an on-policy agent"):
        spr.with_self_prediction(plain, parts, SPRConfig(tau=0.01))
    agent, _, _ = agent_of(num_steps=T + 1)
    with pytest.raises(ValueError, match="at most the 6 steps of a rollout"):
        agent.targets(agent.init(jax.random.key(0)), (), rollout(), mean_over_shards)
