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
from jaxagent.agents import alphazero, planning
from jaxagent.agents.alphazero import AlphaZeroBatch
from jaxagent.config import AlphaZeroConfig, SearchConfig, TrunkConfig
from jaxagent.data.rollout import ActorState, rollout
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
    num_gradient_steps=4,
    capacity=8192,
    warmup_steps=1024,
    search=SearchConfig(num_simulations=24, num_considered=9, value_range=1.0),
)
TRUNK = TrunkConfig(width=64, num_blocks=1)
BOARD = envs.make("pgx/tic_tac_toe")[0].symmetries


@functools.cache
def parts(config=CONFIG):
    """Game, network, agent and loop."""
    env, task = self_play(*envs.make("pgx/tic_tac_toe"))
    network = policy_value(TRUNK, env.obs_shape, 9, is_bounded=True)
    plan = planning.gumbel_search(config.search)
    agent = alphazero.alphazero(env, network, plan, config, symmetries=BOARD)
    loop = loops.replay(
        agent,
        VectorEnv(env, pool_size=4),
        optimizer.adam(optimizer.linear_decay(config), config.max_gradient_norm),
        config,
        explore=alphazero.random_play(env),
        as_steps=functools.partial(alphazero.examples, config=config),
        slow=loops.moving_average(lambda params: (), 1.0),
        see=View,
        is_normalized=False,
        in_turn=True,
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


def test_a_turned_position_is_the_position_turned():
    """Stones, legal moves and what search chose stay together; the target is the position's."""
    rng = np.random.default_rng(0)
    stones = rng.integers(0, 3, (256, 9))
    obs = np.stack([stones == 1, stones == 2], axis=-1).reshape(256, 3, 3, 2).astype(np.float32)
    batch = AlphaZeroBatch(obs, stones == 0, stones * np.arange(9.0), np.arange(256.0), np.ones(256))
    result = jax.device_get(alphazero.turned(batch, BOARD, jax.random.key(0)))
    turned = result.obs.reshape(256, 9, 2) @ np.array([1, 2])
    np.testing.assert_array_equal(result.legal, turned == 0)
    np.testing.assert_array_equal(np.sort(result.weights), np.sort(batch.weights))
    np.testing.assert_array_equal(result.weights > 0, (turned > 0) & (result.weights > 0))
    np.testing.assert_array_equal(result.target, batch.target)
    assert (turned != stones).any(1).mean() > 0.5


def test_only_the_first_moves_of_a_game_are_explored():
    env, task, network, agent, _ = parts(dataclasses.replace(CONFIG, exploration=1.0, num_explored=2))
    vector = VectorEnv(env)
    state = jax.jit(vector.reset)(jax.random.key(0), broadcast_params(task, 8))
    actor = ActorState(state, agent.init_carry(8), jnp.ones((8,), bool))
    params = network.init(jax.random.key(1))
    play = jax.jit(lambda key: rollout(vector, functools.partial(agent.act, params), key, actor, 20, View)[1])
    played = jax.device_get(play(jax.random.key(2)))
    move = np.zeros(8, int)
    for t in range(20):
        np.testing.assert_array_equal(played.extras["is_explored"][t], move < 2)
        move = np.where(played.terminated[t], 0, move + 1)
    assert played.terminated.sum() > 8


def test_random_play_fills_the_replay_with_legal_moves_and_outcomes():
    """Of a game that ends the last mover's target is the reward, that of the one before its opposite."""
    env, task, _, agent, _ = parts()
    vector = VectorEnv(env)
    state = jax.jit(vector.reset)(jax.random.key(0), broadcast_params(task, 16))
    actor = ActorState(state, agent.init_carry(16), jnp.ones((16,), bool))
    act = alphazero.random_play(env)
    played = jax.jit(lambda key: rollout(vector, act, key, actor, 24, View)[1])(jax.random.key(1))
    kept = jax.device_get(alphazero.examples(jax.tree.map(lambda x: x[None], played), CONFIG))
    played, kept = jax.device_get(played), jax.tree.map(lambda x: x[0], kept)
    times, lanes = np.nonzero(played.terminated)
    assert np.take_along_axis(kept.legal, played.action[..., None], axis=-1).all()
    np.testing.assert_allclose(kept.weights, kept.legal / kept.legal.sum(-1, keepdims=True), rtol=1e-6)
    assert {-1.0, 0.0} >= set(np.abs(played.reward[times, lanes]) - 1.0), "won, or drawn"
    for back, sign in ((0, 1.0), (1, -1.0), (2, 1.0)):
        np.testing.assert_allclose(
            kept.target[times - back, lanes], sign * played.reward[times, lanes], atol=1e-6
        )
    assert kept.has_target[:-1].all()


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
        CONFIG, num_envs=8, num_steps=4, batch_size=32, updates_per_chunk=2, search=SearchConfig(4, 4)
    )
    _, task, _, _, loop = parts(config)
    tasks = broadcast_params(task, config.num_envs)

    def after(num_devices):
        state = parallel.first_state(*jax.jit(loop.init)(jax.random.key(0), tasks))
        state, _ = parallel.chunked(loop, 2, num_devices)(state, jax.random.key(1))
        return jax.device_get((state.learner.params, state.shards.actors.actor.env.obs))

    (params_1, obs_1), (params_4, obs_4) = after(1), after(4)
    np.testing.assert_array_equal(obs_1, obs_4)
    for one, four in zip(jax.tree.leaves(params_1), jax.tree.leaves(params_4), strict=True):
        np.testing.assert_allclose(one, four, rtol=2e-4, atol=1e-5)  # an update moves them by 2e-3
