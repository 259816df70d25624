"""SAC: targets and losses in float64, who moves whom, the replay loop, a pendulum swung up."""

import dataclasses
import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.types import Component, contains
from envs.vector import VectorEnv, broadcast_params
from jaxagent import keys
from jaxagent.agents import actions
from jaxagent.agents import soft_actor_critic as sac
from jaxagent.agents.soft_actor_critic import SACBatch, Step, soft_actor_critic
from jaxagent.config import NUM_SHARDS, SACConfig
from jaxagent.data import normalize
from jaxagent.evaluate.episodes import play
from jaxagent.objectives.value import soft_update
from jaxagent.train import loops, optimizer, parallel
from jaxagent.types import Policy, Trajectory

n, A, b = 3, 2, 8  # observation, action, batch
OBS = (Component("place", "real"),) * n
SPEC = (Component("pull", "real", -2.0, 2.0), Component("push", "real", 0.0, 1.0))
CONFIG = SACConfig(
    hidden_size=16, critic_hidden_size=16, discount=0.9, reward_scale=2.0, initial_temperature=0.5
)
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def some_steps(seed=0):
    rng = np.random.default_rng(seed)
    real = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    action = jnp.asarray(rng.uniform(-1, 1, (b, A)), jnp.float32)
    return Step(real(b, n), action, real(b), jnp.asarray(np.arange(b) % 3 == 0), real(b, n))


def sized(params, seed=1):
    """Parameters of which none is zero or small."""
    leaves, structure = jax.tree.flatten(params)
    rng = np.random.default_rng(seed)
    noise = [jnp.asarray(0.4 * rng.normal(size=x.shape), jnp.float32) for x in leaves]
    return jax.tree.unflatten(structure, [x + e for x, e in zip(leaves, noise, strict=True)])


@functools.cache
def setting():
    """The agent, its parameters, slow critics of others, and some steps."""
    agent = soft_actor_critic(OBS, SPEC, CONFIG)
    agent = agent._replace(targets=jax.jit(agent.targets), loss=jax.jit(agent.loss))
    params = sized(jax.jit(agent.init)(jax.random.key(0)))
    return agent, params, sized(params, seed=3).critics, some_steps()


def batch(seed=3):
    rng, steps = np.random.default_rng(seed), some_steps()
    target, noise = rng.normal(size=b), rng.normal(size=(b, A))
    as_float = partial(jnp.asarray, dtype=jnp.float32)
    return SACBatch(steps.obs, steps.action, as_float(target), as_float(noise))


def size(tree):
    return max(float(np.abs(x).max()) for x in jax.tree.leaves(tree))


def difference(first, second):
    return size(jax.tree.map(lambda x, y: x - y, first, second))


# --- the same in numpy, float64 -------------------------------------------------------------------


def forward(params, x):
    """A relu MLP in float64."""
    layers = [params["params"][f"Dense_{i}"] for i in range(len(params["params"]))]
    x = np.asarray(x, np.float64)
    for i, layer in enumerate(layers):
        x = x @ np.asarray(layer["kernel"], np.float64) + np.asarray(layer["bias"], np.float64)
        x = np.maximum(x, 0) if i + 1 < len(layers) else x
    return x


def both_values(critics, obs, action):
    one = lambda i: jax.tree.map(lambda x: x[i], critics)  # noqa: E731
    joint = np.concatenate([np.asarray(obs), np.asarray(action)], axis=-1)
    return np.stack([forward(one(i), joint)[:, 0] for i in (0, 1)])


def drawn(actor, obs, noise):
    """Actions in (-1, 1) and their log-densities."""
    mean, raw = np.split(forward(actor, obs), 2, axis=-1)
    log_std = -5.0 + 3.5 * (np.tanh(raw) + 1.0)
    noise = np.asarray(noise, np.float64)
    event = mean + np.exp(log_std) * noise
    normal = -0.5 * noise**2 - log_std - 0.5 * np.log(2 * np.pi)
    return np.tanh(event), (normal - np.log1p(-(np.tanh(event) ** 2))).sum(-1)


@pytest.mark.slow
def test_targets_in_float64():
    """The smaller slow critic of the policy's own action, less its log-density."""
    agent, params, target_critics, steps = setting()
    made = agent.targets(params, target_critics, steps, jax.random.key(7))
    key_next, key_own = jax.random.split(jax.random.key(7))
    action, log_prob = drawn(params.actor, steps.final_obs, jax.random.normal(key_next, (b, A)))
    values = both_values(target_critics, steps.final_obs, action)
    assert (values[0] < values[1]).any()
    assert (values[0] > values[1]).any()
    soft = values.min(0) - np.exp(float(params.log_temperature)) * log_prob
    going = 1.0 - np.asarray(steps.terminated)
    expected = 2.0 * np.asarray(steps.reward, np.float64) + 0.9 * going * soft
    np.testing.assert_allclose(made.target, expected, **CLOSE)
    np.testing.assert_array_equal(made.obs, steps.obs)
    np.testing.assert_array_equal(made.action, steps.action)
    np.testing.assert_array_equal(made.noise, jax.random.normal(key_own, (b, A)))


def test_losses_in_float64():
    agent, params, _, _ = setting()
    given = batch()
    total, metrics = agent.loss(params, given)
    error = both_values(params.critics, given.obs, given.action) - np.asarray(given.target)
    critic = 0.5 * np.mean((error**2).sum(0))
    action, log_prob = drawn(params.actor, given.obs, given.noise)
    value = both_values(params.critics, given.obs, action).min(0)
    temperature = np.exp(float(params.log_temperature))
    actor = np.mean(temperature * log_prob - value)
    of_temperature = np.mean(temperature * (-log_prob + 1.0 * A))  # target entropy -1 an action
    np.testing.assert_allclose(metrics["train/loss/critic"], critic, **CLOSE)
    np.testing.assert_allclose(metrics["train/loss/actor"], actor, **CLOSE)
    np.testing.assert_allclose(metrics["train/entropy"], -log_prob.mean(), **CLOSE)
    np.testing.assert_allclose(metrics["train/temperature"], temperature, rtol=1e-5)
    np.testing.assert_allclose(metrics["train/value"], value.mean(), **CLOSE)
    np.testing.assert_allclose(total, critic + actor + of_temperature, **CLOSE)


# --- who moves whom -------------------------------------------------------------------------------


@pytest.mark.fast("critic-critics")
@pytest.mark.parametrize(("name", "moved"), [("critic", "critics"), ("actor", "actor")])
def test_each_loss_is_blind_to_the_parameters_of_the_others(name, moved):
    agent, params, _, _ = setting()
    slope = jax.jit(jax.grad(lambda p: agent.loss(p, batch())[1][f"train/loss/{name}"]))(params)
    whole = jax.jit(jax.grad(lambda p: agent.loss(p, batch())[0]))(params)
    sizes = {part: size(value) for part, value in slope._asdict().items()}
    assert {part for part, value in sizes.items() if value > 0} == {moved}
    assert difference(getattr(whole, moved), getattr(slope, moved)) < 1e-5  # and nothing else
    for leaf in jax.tree.leaves(getattr(slope, moved)):
        assert np.abs(leaf).max() > 0


@pytest.mark.slow
def test_the_actors_gradient_is_that_of_soft_values_through_its_action():
    """Central differences of the float64 loss along random directions."""
    agent, params, _, _ = setting()
    given = batch()
    slope = jax.grad(lambda p: agent.loss(p, given)[0])(params).actor
    temperature = np.exp(float(params.log_temperature))

    def loss(actor):
        action, log_prob = drawn(actor, given.obs, given.noise)
        value = both_values(params.critics, given.obs, action).min(0)
        return np.mean(temperature * log_prob - value)

    for seed in range(3):
        rng = np.random.default_rng(seed)
        way = jax.tree.map(lambda x, rng=rng: rng.normal(size=x.shape), params.actor)
        ahead, back = (
            jax.tree.map(lambda x, d, s=s: np.asarray(x, np.float64) + s * d, params.actor, way)
            for s in (1e-6, -1e-6)
        )
        expected = (loss(ahead) - loss(back)) / 2e-6
        along = sum(
            float(np.sum(np.asarray(g, np.float64) * d))
            for g, d in zip(jax.tree.leaves(slope), jax.tree.leaves(way), strict=True)
        )
        assert along == pytest.approx(expected, rel=1e-2, abs=1e-2)


@pytest.mark.slow
def test_the_temperature_rises_where_the_policy_is_too_sure():
    """Its gradient is the temperature times the surplus of entropy over its target."""
    _, params, _, _ = setting()
    _, log_prob = drawn(params.actor, batch().obs, batch().noise)
    temperature, entropy = np.exp(float(params.log_temperature)), -np.mean(log_prob)
    for per_action in (-1.0, 2.0):
        other = soft_actor_critic(OBS, SPEC, dataclasses.replace(CONFIG, entropy_per_action=per_action))
        slope = jax.jit(jax.grad(lambda p, o=other: o.loss(p, batch())[0]))(params).log_temperature
        np.testing.assert_allclose(slope, temperature * (entropy - per_action * A), **CLOSE)
    assert slope < 0, "more entropy is wanted than there is: descent raises the temperature"


def test_a_termination_hides_what_follows_and_a_truncation_does_not():
    """A stored step says nothing of truncations: all that is not terminated bootstraps."""
    agent, params, critics, steps = setting()
    make = lambda steps: agent.targets(params, critics, steps, jax.random.key(0)).target  # noqa: E731
    first, moved = make(steps), make(steps._replace(final_obs=steps.final_obs + 1.0))
    np.testing.assert_array_equal(np.asarray(first != moved), ~np.asarray(steps.terminated))
    ended = np.asarray(steps.terminated)
    np.testing.assert_allclose(first[ended], 2.0 * steps.reward[ended], rtol=1e-6)
    ones, never = jnp.ones((4, 2)), jnp.zeros((4, 2), bool)
    obs = jnp.zeros((4, 2, n))
    t = Trajectory(obs, obs, ones, never, ~never, obs + 1.0, {"action": jnp.zeros((4, 2, A))})
    kept = sac.as_steps(t)
    assert not kept.terminated.any()
    np.testing.assert_array_equal(kept.final_obs, 1.0)
    np.testing.assert_array_equal(kept.action, t.extras["action"])


def test_targets_read_the_slow_critics():
    agent, params, critics, steps = setting()
    first = agent.targets(params, critics, steps, jax.random.key(0)).target
    jumped = params._replace(critics=jax.tree.map(lambda x: x + 1.0, params.critics))
    same = agent.targets(jumped, critics, steps, jax.random.key(0)).target
    np.testing.assert_array_equal(first, same)
    slow = jax.tree.map(lambda x: x + 1.0, critics)
    assert difference(first, agent.targets(params, slow, steps, jax.random.key(0)).target) > 0.1


# --- acting ---------------------------------------------------------------------------------------


def test_actions_stay_in_their_box_and_the_loss_sees_them_before_it():
    agent, params, _, steps = setting()
    first = jnp.ones((b,), bool)
    action, extras, carry = agent.act(params, (), steps.obs, first, jax.random.key(1))
    assert carry == ()
    assert all(contains(SPEC, a) for a in np.asarray(action))
    unit = np.asarray(extras["action"])
    assert np.abs(unit).max() <= 1
    np.testing.assert_allclose(action, unit * [2.0, 0.5] + [0.0, 0.5], rtol=1e-5, atol=1e-6)
    expected, _ = drawn(params.actor, steps.obs, jax.random.normal(jax.random.key(1), (b, A)))
    np.testing.assert_allclose(unit, expected, **CLOSE)


def test_the_policy_alone_is_that_of_the_agent_and_its_greedy_action_the_tanh_of_the_mean():
    agent, params, _, steps = setting()
    first = jnp.ones((b,), bool)
    policy = sac.sac_policy(SPEC, CONFIG, is_greedy=False)
    ours, _, _ = policy.act(params.actor, policy.init(b), steps.obs, first, jax.random.key(1))
    theirs, _, _ = agent.act(params, (), steps.obs, first, jax.random.key(1))
    np.testing.assert_array_equal(ours, theirs)
    greedy = sac.sac_policy(SPEC, CONFIG, is_greedy=True)
    ours, _, _ = greedy.act(params.actor, (), steps.obs, first, jax.random.key(2))
    mean = np.tanh(np.split(forward(params.actor, steps.obs), 2, axis=-1)[0])
    np.testing.assert_allclose(ours, mean * [2.0, 0.5] + [0.0, 0.5], **CLOSE)


def test_the_first_actions_cover_the_box_evenly():
    act = actions.uniform(SPEC)
    action, extras, _ = act((), jnp.zeros((4000, n)), jnp.ones((4000,), bool), jax.random.key(0))
    unit = np.asarray(extras["action"])
    assert unit.shape == (4000, A)
    for column in unit.T:
        counts, _ = np.histogram(column, bins=8, range=(-1, 1))
        assert counts.sum() == 4000
        assert np.abs(counts - 500).max() < 100
    np.testing.assert_allclose(action, unit * [2.0, 0.5] + [0.0, 0.5], atol=1e-6)


def test_the_first_parameters():
    agent, *_ = setting()
    params = jax.jit(agent.init)(jax.random.key(0))
    assert float(params.log_temperature) == pytest.approx(np.log(0.5))
    kernel = params.critics["params"]["Dense_0"]["kernel"]
    assert kernel.shape == (2, n + A, 16)
    assert np.abs(kernel[0] - kernel[1]).max() > 0.1, "critics must differ"
    dist = sac.policy_of(sac._actor(A, CONFIG), params.actor, some_steps().obs)
    assert np.abs(dist.mean).max() < 0.1
    np.testing.assert_allclose(dist.log_std, -1.5, atol=0.2)


def test_the_spread_stays_in_its_range_with_a_slope():
    _, params, _, _ = setting()
    actor = jax.tree.map(lambda x: 50.0 * x, params.actor)
    dist = sac.policy_of(sac._actor(A, CONFIG), actor, some_steps().obs)
    assert dist.log_std.min() >= -5.0
    assert dist.log_std.max() <= 2.0
    assert dist.log_std.max() - dist.log_std.min() > 6.9


def test_categories_are_refused():
    button = (Component("a", "category", cardinality=2),)
    with pytest.raises(ValueError, match=r"got actions of kind \['category'\], expected reals"):
        soft_actor_critic(OBS, button, CONFIG)


# --- the loop -------------------------------------------------------------------------------------

HORIZON = 6
TINY = SACConfig(
    num_envs=4,
    num_steps=2,
    num_gradient_steps=2,
    batch_size=8,
    capacity=64,
    warmup_steps=16,
    num_updates=3,
    updates_per_chunk=3,
    learning_rate=1e-2,
    tau=0.1,
    hidden_size=8,
    critic_hidden_size=8,
)


def pendulum_loop(config=TINY):
    env, _ = envs.make("classic/Pendulum-v1")
    return loops.replay(
        soft_actor_critic(env.obs_spec, env.action_spec, config),
        VectorEnv(env),
        optimizer.plain_adam(config.learning_rate),
        config,
        explore=actions.uniform(env.action_spec),
        as_steps=sac.as_steps,
        slow=loops.moving_average(lambda params: params.critics, config.tau),
    )


def pendulum_tasks(config=TINY, max_steps=HORIZON):
    """Short episodes, so that a few updates see their ends."""
    return broadcast_params(envs.make("classic/Pendulum-v1", max_steps=max_steps)[1], config.num_envs)


@functools.cache
def begun():
    loop = pendulum_loop()
    return loop, jax.jit(loop.init)(keys.derive(0, "init"), pendulum_tasks())


def run(loop, first, num_updates, devices=1):
    chunk = parallel.chunked(loop, num_updates, devices)
    state, report = jax.block_until_ready(chunk(parallel.first_state(*first), keys.derive(0, "update")))
    parallel.check_replicas(report.checksums)
    assert report.is_finite.all()
    return jax.device_get(state), jax.device_get(report)


@functools.cache
def result(devices=1):
    return run(*begun(), 3, devices)


@pytest.mark.slow
def test_the_warm_up_is_kept_and_nothing_learned_from_it_yet():
    learner, shards = jax.device_get(begun()[1])
    ring = shards.replay
    np.testing.assert_array_equal(ring.num_written, [TINY.warmup_steps // NUM_SHARDS] * NUM_SHARDS)
    assert ring.data.reward.shape == (NUM_SHARDS, TINY.capacity // NUM_SHARDS)
    held = jax.tree.map(lambda x: x[:, :4], ring.data)
    assert difference(learner.target, learner.params.critics) == 0
    assert learner.normalizer.count == TINY.warmup_steps
    obs = held.obs.reshape(-1, 3)
    np.testing.assert_allclose(learner.normalizer.mean, obs.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(learner.normalizer.variance, obs.var(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(ring.data.obs[:, 4:], 0.0)


@pytest.mark.slow
def test_the_replay_holds_the_stream_of_every_shard_in_order():
    """One lane a shard here: a step begins where the one before ended, but at episodes' ends."""
    state, _ = result()
    ring = state.shards.replay
    written = TINY.warmup_steps // NUM_SHARDS + 3 * TINY.num_steps
    np.testing.assert_array_equal(ring.num_written, [written] * NUM_SHARDS)
    assert not ring.data.terminated.any()
    assert (np.abs(ring.data.action) <= 1).all()
    same = (ring.data.obs[:, 1:written] == ring.data.final_obs[:, : written - 1]).all(-1)
    in_episode = np.arange(1, written) % HORIZON != 0
    np.testing.assert_array_equal(same, np.broadcast_to(in_episode, same.shape))
    assert state.learner.normalizer.count == NUM_SHARDS * written


@pytest.mark.slow
def test_returns_are_of_whole_episodes_with_their_part_in_the_warm_up():
    state, report = result()
    written = TINY.warmup_steps // NUM_SHARDS + 3 * TINY.num_steps
    reward = np.asarray(state.shards.replay.data.reward)[:, :written]
    whole = reward[:, : written // HORIZON * HORIZON].reshape(NUM_SHARDS, -1, HORIZON).sum(-1)
    finished = report.metrics["train/return"]
    np.testing.assert_allclose(finished.total / finished.count, whole.mean(), rtol=1e-5)


@pytest.mark.slow
def test_everything_learns_and_the_slow_critics_follow():
    learner, _ = jax.device_get(begun()[1])
    after, report = result()
    for part in ("actor", "critics", "log_temperature"):
        pairs = [getattr(x.params, part) for x in (learner, after.learner)]
        assert difference(*pairs) > 1e-3, part
    moved = difference(after.learner.target, learner.target)
    assert 0 < moved < difference(after.learner.params.critics, learner.params.critics)
    assert all(np.isfinite(m.total) for m in report.metrics.values())


@pytest.mark.slow
def test_the_slow_critics_are_the_polyak_average():
    config = dataclasses.replace(TINY, num_gradient_steps=1)
    loop = pendulum_loop(config)
    first = begun()[1]
    after, _ = run(loop, first, 1)
    expected = soft_update(first[0].target, after.learner.params.critics, TINY.tau)
    assert difference(after.learner.target, expected) < 1e-6


@pytest.mark.slow
def test_one_device_computes_what_four_compute():
    (one, one_report), (four, four_report) = result(1), result(4)
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(four), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5)
    for name, mean in one_report.metrics.items():
        np.testing.assert_allclose(
            mean.total, four_report.metrics[name].total, rtol=1e-3, atol=1e-4, err_msg=name
        )
    assert len(set(four_report.checksums.tolist())) == 1


@pytest.mark.slow
def test_a_lane_is_the_loop_alone():
    """Lane i under `fold_in(key, i)`; shards come first, lanes second, the replay's too."""
    loop, index = pendulum_loop(), 1
    lanes = loops.lanes(loop)
    lane_keys = keys.per_index(keys.derive(0, "init"), jnp.arange(2))
    first = jax.jit(lanes.init)(lane_keys, broadcast_params(pendulum_tasks(), 2))
    assert first[1].replay.data.obs.shape == (NUM_SHARDS, 2, TINY.capacity // NUM_SHARDS, 3)
    both, _ = run(lanes, first, 2)

    def update(learner, shards, data, shard_ids, key):
        return loop.update(learner, shards, data, shard_ids, jax.random.fold_in(key, index))

    start = jax.jit(loop.init)(jax.random.fold_in(keys.derive(0, "init"), index), pendulum_tasks())
    alone, _ = run(loop._replace(update=update), start, 2)
    ours = (jax.tree.map(lambda x: x[index], both.learner), jax.tree.map(lambda x: x[:, index], both.shards))
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves((alone.learner, alone.shards)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5)


def test_illegal_configurations_are_refused():
    for change in ({"batch_size": 6}, {"warmup_steps": 128}, {"capacity": 60}, {"tau": 1.5}):
        with pytest.raises(ValueError, match="expected"):
            dataclasses.replace(TINY, **change)


# --- learning -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_sac_swings_a_pendulum_up():
    """Uniform actions return about -1200 in 200 steps, a pendulum held upright about -150."""
    config = SACConfig(
        num_envs=8,
        num_gradient_steps=4,
        batch_size=64,
        capacity=16_384,
        warmup_steps=1024,
        num_updates=1200,
        updates_per_chunk=1200,
        learning_rate=2e-3,
        critic_hidden_size=64,
        reward_scale=0.1,
        hidden_size=32,
        discount=0.98,
        tau=0.01,
    )
    loop = pendulum_loop(config)
    tasks = pendulum_tasks(config, max_steps=200)
    first = jax.jit(loop.init)(keys.derive(0, "init"), tasks)
    after, _ = run(loop, first, config.num_updates)
    env, task = envs.make("classic/Pendulum-v1")
    greedy = sac.sac_policy(env.action_spec, config, is_greedy=True)

    def act(params, carry, obs, is_first, key):
        network, moments = params
        return greedy.act(network, carry, normalize.apply(moments, obs), is_first, key)

    def mean_return(learner):
        params = learner.params.actor, learner.normalizer
        policy = Policy(greedy.init, act)
        tasks = broadcast_params(task, 16)
        return float(np.mean(play(env, policy, params, tasks, jax.random.key(1)).returns))

    assert mean_return(first[0]) < -900
    assert mean_return(after.learner) > -250
