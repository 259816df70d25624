"""The replay loop where its memory has nothing to draw: nothing is learned, and it says so."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.vector import VectorEnv, broadcast_params
from jaxagent.agents import actions
from jaxagent.config import SACConfig
from jaxagent.data import replay
from jaxagent.data.prioritized import prioritized_windows
from jaxagent.train import loops, optimizer, parallel
from jaxagent.types import Agent

CONFIG = SACConfig(
    num_envs=8,
    num_steps=1,
    num_gradient_steps=2,
    batch_size=8,
    capacity=128,
    warmup_steps=16,
    num_updates=4,
    updates_per_chunk=1,
)
ENV, TASK = envs.make("probe/DelayedReward")
WINDOW = 4  # two steps are there after the warm-up: two updates come too early


def run(memory, ranks):
    """Parameters, Adam's count and the share of skipped gradient steps after each update."""

    def targets(params, copy, steps, *keys):
        return steps.steps if ranks else steps

    def loss(params, batch, *key):
        value = jnp.sum(jnp.square(params["w"] - 1.0)) + 0.0 * jnp.mean(batch.reward)
        metrics = {"train/w": params["w"]}
        # What was drawn taught nothing: it is not drawn again.
        return value, ((metrics, jnp.zeros(CONFIG.batch_size // 4)) if ranks else metrics)

    agent = Agent(lambda key: {"w": jnp.zeros(())}, None, targets, loss)
    loop = loops.replay(
        agent._replace(act=lambda params, *args: actions.uniform(ENV.action_spec)(*args)),
        VectorEnv(ENV),
        optimizer.adam(0.1, 1.0),
        CONFIG,
        explore=actions.uniform(ENV.action_spec),
        as_steps=lambda trajectory: trajectory._replace(extras=()),
        slow=loops.averaged(0.5),
        memory=memory,
        is_normalized=False,
    )
    tasks = broadcast_params(TASK, CONFIG.num_envs)
    state = parallel.first_state(*jax.jit(loop.init)(jax.random.key(0), tasks))
    chunk, rows = parallel.chunked(loop, 1, 1), []
    for _ in range(CONFIG.num_updates):
        state, report = chunk(state, jax.random.key(1))
        assert bool(report.is_finite.all())
        skipped, count = report.metrics["train/skipped"].total, report.metrics["train/w"].count
        learner = state.learner
        rows.append([learner.params["w"], learner.target.num_updates, skipped, count])
    return np.asarray(rows)


def test_windows_are_fitted_once_there_is_one():
    rows = run(replay.windows(WINDOW), ranks=False)
    np.testing.assert_array_equal(rows[:, 1], [0, 2, 4, 6])  # gradient steps that the slow copy saw
    np.testing.assert_array_equal(rows[:, 2], [1, 0, 0, 0])
    np.testing.assert_array_equal(rows[:, 3], [0, 1, 1, 1])  # a mean over nothing counts for nothing
    np.testing.assert_allclose(rows[:, 0], [0.0, 0.2, 0.4, 0.6], atol=0.02)


@pytest.mark.slow
def test_nothing_is_learned_from_what_may_never_be_drawn():
    rows = run(
        prioritized_windows(WINDOW, 1.0, may_begin=lambda steps: jnp.zeros(steps.reward.shape, bool)),
        ranks=True,
    )
    np.testing.assert_array_equal(rows[:, :3], [[0, 0, 1]] * 4)


def test_one_shard_with_nothing_to_draw_stops_all():
    """Of what the other shard drew nothing is learned, so nothing of it is ranked either."""
    memory = prioritized_windows(2, 1.0)

    def loss(params, batch, key):
        value = jnp.sum(jnp.square(params["w"] - 1.0)) + 0.0 * jnp.mean(batch)
        return value, ({"train/w": params["w"]}, jnp.full(batch.shape[1:], 9.0))

    agent = Agent(None, None, lambda params, copy, drawn, *keys: drawn.steps, loss)
    adam, slow = optimizer.adam(0.1, 1.0), loops.averaged(0.5)
    fit = loops.fit_from_memory(agent, adam, memory, slow, 2, standardize=None, over_shards=jax.vmap)
    steps, params = jnp.arange(8.0).reshape(4, 2), {"w": jnp.zeros(())}
    empty = memory.init(steps, 16)
    held = memory.add(empty, steps)
    learner = loops.Learner(params, optimizer.init(adam, params), target=slow.first(params))

    @jax.jit
    def fitted(*rings):
        both = jax.tree.map(lambda *x: jnp.stack(x), *rings)
        return parallel.alone(fit)(learner, both, jnp.arange(2), jax.random.key(0))

    after, rings, _, did = fitted(held, empty)
    assert did == 0.0
    jax.tree.map(np.testing.assert_array_equal, after, learner)
    np.testing.assert_array_equal(rings.tree.levels[-1], [held.tree.levels[-1], empty.tree.levels[-1]])
    np.testing.assert_array_equal(rings.largest, 1.0)
    after, rings, _, did = fitted(held, held)
    assert did == 1.0
    assert after.params["w"] > 0.0
    assert (np.asarray(rings.tree.levels[-1]) == 9.0).any(axis=1).all()
