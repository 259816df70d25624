"""AlphaZero: losses by hand, one update, a game that is learned, shards in turn on devices."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from extras import need

import envs
from envs.vector import VectorEnv, broadcast_params
from envs.wrappers import self_play
from jaxagent.agents import planning
from jaxagent.agents.alphazero import AlphaZeroBatch, alphazero
from jaxagent.config import AlphaZeroConfig, SearchConfig, TrunkConfig
from jaxagent.evaluate.matches import play_match, points
from jaxagent.nn.policy_value import policy_value
from jaxagent.train import loops, optimizer, parallel
from jaxagent.types import View

need("pgx")
CONFIG = AlphaZeroConfig(
    num_envs=64,
    num_steps=16,
    num_updates=40,
    updates_per_chunk=20,
    exploration=0.25,
    search=SearchConfig(num_simulations=24, num_considered=9),
)
TRUNK = TrunkConfig(width=64, num_blocks=1)


@functools.cache
def parts(config=CONFIG):
    """Game, network, agent and loop."""
    env, task = self_play(*envs.make("pgx/tic_tac_toe"))
    network = policy_value(TRUNK, env.obs_shape, 9, is_bounded=True)
    plan = planning.gumbel_search(config.search, qtransform=planning.results_as_they_are)
    agent = alphazero(env, network, plan, config)
    adam = optimizer.adam(optimizer.linear_decay(config), config.max_gradient_norm)
    loop = loops.on_policy(
        agent, VectorEnv(env, pool_size=4), adam, config, see=View, is_normalized=False, in_turn=True
    )
    return env, task, network, agent, loop


def test_the_loss_by_hand():
    """Masked moves cost nothing; steps without a target have no value loss."""
    _, _, network, agent, _ = parts()
    params = network.init(jax.random.key(0))
    params = jax.tree.map(lambda x: x + 0.1, params)
    rng = np.random.default_rng(0)
    obs = jnp.asarray(rng.integers(0, 2, (4, 3, 3, 2)), jnp.float32)
    legal = np.ones((4, 9), bool)
    legal[0, :3] = legal[1, 5] = False
    weights = rng.dirichlet(np.ones(9), 4) * legal
    weights /= weights.sum(-1, keepdims=True)
    target, has_target = rng.uniform(-1, 1, 4), np.array([1.0, 1.0, 0.0, 1.0])
    batch = AlphaZeroBatch(
        obs, jnp.asarray(legal), *(jnp.asarray(x, jnp.float32) for x in (weights, target, has_target))
    )
    total, found = agent.loss(params, batch)
    logits, value = (np.asarray(x, np.float64) for x in network(params, obs))
    masked = np.where(legal, logits, -np.inf)
    log_probs = masked - np.log(np.exp(masked).sum(-1, keepdims=True))
    policy = -(weights * np.where(legal, log_probs, 0.0)).sum(-1).mean()
    error = (has_target * (value - target) ** 2).sum() / 3
    np.testing.assert_allclose(found["train/loss/policy"], policy, rtol=1e-4)
    np.testing.assert_allclose(found["train/loss/value"], error, rtol=1e-4)
    np.testing.assert_allclose(total, policy + error, rtol=1e-4)
    grads = jax.grad(lambda p: agent.loss(p, batch)[0])(params)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(grads))


@functools.cache
def trained():
    """Parameters before and after two chunks of self-play."""
    _, task, _, _, loop = parts()
    tasks = broadcast_params(task, CONFIG.num_envs)
    state = parallel.first_state(*jax.jit(loop.init)(jax.random.key(0), tasks))
    first = state.learner.params
    chunk = parallel.chunked(loop, CONFIG.updates_per_chunk, 1)
    for _ in range(2):
        state, report = chunk(state, jax.random.key(1))
        assert report.is_finite.all()
    return first, state.learner.params


@pytest.mark.slow
def test_self_play_teaches_the_network_alone_to_beat_its_first_self():
    """Both without search, so what is compared is what was learned."""
    first, last = trained()
    env, task = envs.make("pgx/tic_tac_toe")
    network = parts()[2]
    raw = planning.planner(env, network, planning.no_search(is_greedy=False), discount=1.0)
    tasks = broadcast_params(task, 256)
    match = jax.jit(lambda p, key: play_match(env, (raw, raw), p, tasks, key).returns)
    won = points(match((last, first), jax.random.key(2))).mean()
    assert won > 0.7


@pytest.mark.slow
def test_the_value_knows_who_is_about_to_win():
    """The mover can complete a row, or has just let the other complete one next."""
    _, last = trained()
    env, task = envs.make("pgx/tic_tac_toe")
    network = parts()[2]

    def value_after(*moves):
        obs, state = env.reset(jax.random.key(0), task)
        for move in moves:
            obs, state, *_ = env.step(jax.random.key(0), state, jnp.int32(move), task)
        return float(network(last, obs[None])[1][0])

    winning = np.mean([value_after(0, 3, 1, 4), value_after(4, 0, 8, 1), value_after(2, 0, 5, 1)])
    losing = np.mean([value_after(0, 3, 1, 8, 6), value_after(4, 1, 0, 3, 2)])
    assert winning > 0.25
    assert losing < winning - 0.3


@pytest.mark.slow
def test_shards_in_turn_are_the_same_on_four_devices():
    config = dataclasses.replace(
        CONFIG, num_envs=8, num_steps=4, updates_per_chunk=2, search=SearchConfig(4, 4)
    )
    _, task, _, _, loop = parts(config)
    tasks = broadcast_params(task, config.num_envs)

    def after(num_devices):
        state = parallel.first_state(*jax.jit(loop.init)(jax.random.key(0), tasks))
        state, _ = parallel.chunked(loop, 2, num_devices)(state, jax.random.key(1))
        return jax.device_get((state.learner.params, state.shards.actor.env.obs))

    (params_1, obs_1), (params_4, obs_4) = after(1), after(4)
    np.testing.assert_array_equal(obs_1, obs_4)
    for one, four in zip(jax.tree.leaves(params_1), jax.tree.leaves(params_4), strict=True):
        np.testing.assert_allclose(one, four, rtol=2e-4, atol=2e-6)
