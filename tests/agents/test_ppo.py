"""PPO solves the five probe MDPs and escapes the time-limit trap; one update does what it must."""

import copy
import dataclasses
import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probe_lanes import FIVE, AnyProbe

import envs
from envs.types import contains
from envs.vector import VectorEnv, broadcast_params
from jaxagent import keys
from jaxagent.agents.actor_critic import greedy, ppo, towers
from jaxagent.config import PPOConfig
from jaxagent.data import normalize
from jaxagent.evaluate.episodes import play
from jaxagent.train import loops, optimizer, parallel
from jaxagent.types import Policy, Trajectory

CONFIG = PPOConfig(
    num_envs=32,
    num_steps=8,
    num_updates=60,
    updates_per_chunk=60,
    learning_rate=5e-3,
    hidden_size=16,
    discount=0.7,
)
INIT_KEY = functools.partial(keys.derive, 0, "init")


def relabelled(agent):
    """The agent that takes a time limit for a termination: wrong on purpose."""

    def targets(params, carry, trajectory, average):
        ends = trajectory.terminated | trajectory.truncated
        never = jnp.zeros_like(trajectory.truncated)
        wrong = trajectory._replace(terminated=ends, truncated=never)
        return agent.targets(params, carry, wrong, average)

    return agent._replace(targets=targets)


class Run:
    """A learner in one environment."""

    def __init__(self, env, task, config=CONFIG, *, change=lambda agent: agent, num_lanes=None, tasks=None):
        self.env, self.config = env, config
        self.agent = ppo(self.env.obs_spec, self.env.action_spec, config)
        adam = optimizer.adam(config.learning_rate, config.max_gradient_norm)
        loop, key = loops.on_policy(change(self.agent), VectorEnv(env), adam, config), INIT_KEY()
        if num_lanes is not None:
            loop, key = loops.lanes(loop), jax.random.split(key, num_lanes)
        tasks = broadcast_params(task, config.num_envs) if tasks is None else tasks
        self.chunk = parallel.chunked(loop, config.updates_per_chunk, 1)
        self.state = parallel.first_state(*jax.jit(loop.init)(key, tasks))

    def train(self):
        """One chunk; its report."""
        chunk = self.chunk(self.state, keys.derive(0, "update"))
        self.state, report = jax.block_until_ready(chunk)
        assert report.is_finite.all()
        return report

    def see(self, signals):
        """Probe signals as the agent sees them, `[N, 1]`."""
        return normalize.apply(self.state.learner.normalizer, jnp.array(signals)[:, None])

    def values(self, *signals):
        """Values of observations: what `targets` attaches to a trajectory that holds them."""
        obs = self.see(signals)[None, None]  # [s, T, N, 1]
        zeros, never = jnp.zeros(obs.shape[:3]), jnp.zeros(obs.shape[:3], bool)
        extras = {"raw_action": zeros.astype(jnp.int32), "log_prob": zeros}
        trajectory = Trajectory(obs, zeros, zeros, never, never, obs, extras)
        average = lambda tree: jax.tree.map(lambda x: jnp.mean(x, axis=0), tree)  # noqa: E731
        return self.agent.targets(self.state.learner.params, (), trajectory, average).value[0]

    def probability(self, action, signal):
        """Probability of one of two actions."""
        obs = self.see([signal])
        drawn, extras, _ = self.agent.act(
            self.state.learner.params, (), obs, jnp.ones((1,), bool), jax.random.key(0)
        )
        drawn_probability = float(jnp.exp(extras["log_prob"][0]))
        return drawn_probability if int(drawn[0]) == action else 1 - drawn_probability


# --- the five probes ------------------------------------------------------------------------------


@functools.cache
def solved():
    """One learner per probe, as lanes of one program."""
    tasks = jnp.broadcast_to(jnp.arange(5, dtype=jnp.int32)[:, None], (5, CONFIG.num_envs))
    env = AnyProbe(FIVE)
    run = Run(env, env.default_params, num_lanes=5, tasks=tasks)
    run.train()
    return run


def lane_of(name):
    """The run of one probe alone."""
    run = copy.copy(solved())
    run.state = jax.tree.map(lambda x: x[FIVE.index(name)], run.state._replace(shards=(), step=()))
    return run


def test_constant_reward():
    np.testing.assert_allclose(lane_of("ConstantReward").values(0.0), [1.0], atol=0.05)


def test_observed_reward():
    np.testing.assert_allclose(lane_of("ObservedReward").values(-1.0, 1.0), [-1, 1], atol=0.1)


def test_delayed_reward():
    """The first value is the discount, 0.7; no other probe tells it from 1 or 0."""
    values = lane_of("DelayedReward").values(0.0, 1.0)
    np.testing.assert_allclose(values, [CONFIG.discount, 1.0], atol=0.05)


def test_action_reward():
    run = lane_of("ActionReward")
    assert run.probability(1, 0.0) > 0.95
    np.testing.assert_allclose(run.values(0.0), [1.0], atol=0.15)


def test_observed_action_reward():
    run = lane_of("ObservedActionReward")
    assert run.probability(1, 1.0) > 0.95
    assert run.probability(0, -1.0) > 0.95
    np.testing.assert_allclose(run.values(-1.0, 1.0), [1.0, 1.0], atol=0.15)
    # The greedy policy of the same parameters plays it without a fault.
    mode = greedy(towers(run.env.obs_spec, run.env.action_spec, run.config), run.env.action_spec)

    def act(learner, carry, obs, is_first, key):
        obs = normalize.apply(learner.normalizer, obs)
        return mode.act(learner.params, carry, obs, is_first, key)

    env, task = envs.make("probe/ObservedActionReward")
    tasks = broadcast_params(task, 32)
    episodes = play(env, Policy(mode.init, act), run.state.learner, tasks, jax.random.key(1))
    np.testing.assert_array_equal(episodes.returns, 1.0)


# --- the trap -------------------------------------------------------------------------------------

TRAP = dataclasses.replace(
    CONFIG, num_steps=16, num_updates=150, updates_per_chunk=150, reward_scale=0.1, discount=0.95
)


@pytest.mark.slow
def test_time_limit_trap_keeps_who_bootstraps_through_truncation():
    run = Run(*envs.make("probe/TimeLimitTrap"), TRAP)
    run.train()
    assert run.probability(0, 0.0) > 0.9
    np.testing.assert_allclose(run.values(0.0)[0] / TRAP.reward_scale, 20.0, atol=3.0)


@pytest.mark.slow
def test_time_limit_trap_catches_who_calls_truncation_termination():
    run = Run(*envs.make("probe/TimeLimitTrap"), TRAP, change=relabelled)
    run.train()
    assert run.probability(0, 0.0) < 0.1
    np.testing.assert_allclose(run.values(0.0)[0] / TRAP.reward_scale, 10.0, atol=1.0)


# --- one update -----------------------------------------------------------------------------------


@functools.cache
def three_updates(num_epochs):
    """Metrics of the first update, and what each of three chunks of one update compiled."""
    config = dataclasses.replace(
        CONFIG, num_epochs=num_epochs, num_minibatches=1, updates_per_chunk=1, learning_rate=1e-3
    )
    run, metrics, compiled = Run(*envs.make("probe/ObservedActionReward"), config), [], []
    logger, handler = logging.getLogger("jax"), logging.Handler()
    logger.addHandler(handler)
    for _ in range(3):
        messages = []
        handler.emit = lambda record, into=messages: into.append(record.getMessage())
        with jax.log_compiles():
            metrics.append(run.train().metrics)
        compiled.append([m[:200] for m in messages if m.startswith("Compiling")])
    logger.removeHandler(handler)
    return {k: float(m.total / m.count) for k, m in metrics[0].items()}, compiled


@pytest.mark.slow
def test_one_update_lowers_the_policy_loss_on_its_own_batch():
    """Two steps on one batch. The first meets a loss of 0, for the ratio is 1 and advantages
    average 0, so the mean over both is half of what the first step made of it."""
    metrics, _ = three_updates(2)
    assert metrics["train/loss/policy"] < -1e-4
    assert metrics["train/kl"] > 0


@pytest.mark.slow
def test_one_update_lowers_every_loss_on_its_own_batch():
    """The metrics average the loss before each step: one epoch gives L0, two give (L0 + L1) / 2."""
    one, two = three_updates(1)[0], three_updates(2)[0]
    for name in ("train/loss", "train/loss/policy", "train/loss/value"):
        assert 2 * two[name] - one[name] < one[name] - 1e-4, name
    assert abs(one["train/kl"]) < 1e-6
    assert abs(one["train/loss/policy"]) < 1e-5


@pytest.mark.slow
def test_the_train_step_compiles_once():
    """In the second chunk only the state's layout may be compiled, in the third nothing."""
    first, second, third = three_updates(2)[1]
    assert any("jit(reshape)" not in m for m in first)
    assert not [m for m in second if "jit(reshape)" not in m]
    assert third == []


@pytest.mark.slow
def test_continuous_actions_stay_in_their_box_and_train():
    tiny = dataclasses.replace(CONFIG, num_envs=8, num_updates=1, updates_per_chunk=1, initial_log_std=1.0)
    run = Run(*envs.make("gymnax/Pendulum-v1"), tiny)
    before = jax.device_get(run.state.learner.params)
    obs = jax.random.normal(jax.random.key(0), (64, 3))
    action, extras, _ = run.agent.act(
        run.state.learner.params, (), obs, jnp.ones((64,), bool), jax.random.key(1)
    )
    assert action.shape == (64, 1)
    assert all(contains(run.env.action_spec, a) for a in np.asarray(action))
    raw = np.asarray(extras["raw_action"])
    assert (np.abs(raw) > 1).any(), "the box must have clipped something"
    np.testing.assert_allclose(action, np.clip(2 * raw, -2, 2), rtol=1e-6)
    run.train()
    after = jax.device_get(run.state.learner.params)
    assert all(
        not np.array_equal(x, y) for x, y in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    ), "every parameter, the standard deviation included, learns"
