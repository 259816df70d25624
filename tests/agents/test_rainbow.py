"""Rainbow and SPR: the loss by hand, what its targets read, what its copies do, what it learns."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probe_lanes import AnyProbe

import envs
from envs.types import Component
from envs.vector import VectorEnv, broadcast_params
from jaxagent.agents import actions, rainbow, self_prediction
from jaxagent.agents.rainbow import Copies, Step
from jaxagent.config import QNetworkConfig, RainbowConfig, SPRConfig
from jaxagent.data.prioritized import Drawn, prioritized_windows
from jaxagent.objectives.distributional import bellman_target, expected_return
from jaxagent.objectives.latent import cosine_distance
from jaxagent.train import loops, optimizer, parallel

SHAPE, ACTIONS, K, B = (5, 5, 2), 3, 3, 6
SPEC = (Component("action", "category", cardinality=ACTIONS),)
CALM = QNetworkConfig(hidden_size=8, num_atoms=11, max_return=5.0, noise=0.0)
CONFIG = RainbowConfig(num_td_steps=2, discount=0.9, batch_size=8, model=CALM, spr=SPRConfig(num_steps=K))
LENGTH = CONFIG.window


@functools.cache
def compiled(config):
    """The agent, its targets and loss as programs, its first parameters; once a configuration."""
    agent = rainbow.rainbow(SHAPE, np.float32, SPEC, config)
    params = jax.jit(agent.init)(jax.random.key(0))
    return agent, jax.jit(agent.targets), jax.jit(agent.loss), params


def agent_of(config=CONFIG):
    agent, _, _, params = compiled(config)
    return agent, rainbow.network_of(SHAPE, SPEC, config), params


def windows(seed=0, terminated=(), truncated=(), length=LENGTH):
    """Random steps `[L, B]`; ends are pairs (time, window)."""
    rng = np.random.default_rng(seed)
    flags = np.zeros((2, length, B), bool)
    for flag, ends in zip(flags, (terminated, truncated), strict=True):
        for time, window in ends:
            flag[time, window] = True
    return Step(
        jnp.asarray(rng.random((length, B, *SHAPE)), jnp.float32),
        jnp.asarray(rng.integers(0, ACTIONS, (length, B)), jnp.int32),
        jnp.asarray(rng.normal(size=(length, B)), jnp.float32),
        *jnp.asarray(flags),
    )


def drawn(steps, rarity=None):
    rarity = jnp.ones((B,)) if rarity is None else jnp.asarray(rarity, jnp.float32)
    return Drawn(steps, jnp.arange(B, dtype=jnp.int32), rarity)


def batch_of(steps, config=CONFIG, copies=None, rarity=None):
    _, targets, _, params = compiled(config)
    copies = rainbow.first_copies(config, params) if copies is None else copies
    return targets(params, copies, drawn(steps, rarity), jax.random.key(1), jax.random.key(3))


def losses(batch, config=CONFIG):
    _, _, loss, params = compiled(config)
    total, (metrics, priority) = loss(params, batch, jax.random.key(2))
    return float(total), {n.split("/")[-1]: float(x) for n, x in metrics.items()}, priority


def spr_loss(network, params, latent, batch):
    return self_prediction.prediction_loss(network, params, latent, batch.action, batch.later, batch.is_same)


# --- value targets --------------------------------------------------------------------------------


def test_value_targets_by_hand():
    """Double Q-learning over two steps, one window at a time, with ends of every kind."""
    steps = windows(terminated=[(0, 1), (1, 2)], truncated=[(1, 3), (0, 4)])
    _, network, params = agent_of()
    slow = jax.tree.map(lambda x: 0.7 * x, params)
    copies = Copies(slow, params, jnp.int32(0))
    batch = batch_of(steps, copies=copies)
    reward, gamma = np.asarray(steps.reward), CONFIG.discount
    total, weight, at = (
        np.array(column)
        for column in zip(
            (reward[0, 0] + gamma * reward[1, 0], gamma**2, 2),
            (reward[0, 1], 0.0, 1),
            (reward[0, 2] + gamma * reward[1, 2], 0.0, 2),
            (reward[0, 3], gamma, 1),  # what the time limit hid is the state before it
            (0.0, 1.0, 0),
            (reward[0, 5] + gamma * reward[1, 5], gamma**2, 2),
            strict=True,
        )
    )
    after = steps.obs[at, np.arange(B)]
    judge = jax.jit(lambda p: network.judge(p, network.encode(p, after)))
    best = np.argmax(expected_return(judge(params), 5.0), axis=1)
    probability = jax.nn.softmax(judge(slow)[np.arange(B), best])
    real = jnp.asarray(total, jnp.float32), jnp.asarray(weight, jnp.float32)
    expected = bellman_target(*real, probability, 5.0)
    np.testing.assert_allclose(batch.returns, expected, atol=1e-5)
    np.testing.assert_array_equal(batch.is_known, [True, True, True, True, False, True])


def test_rewards_are_clipped_where_learned_from():
    steps = windows(terminated=[(0, w) for w in range(B)])
    config = dataclasses.replace(CONFIG, reward_limit=0.5)
    means = np.asarray(batch_of(steps, config).returns) @ np.linspace(-5, 5, 11)
    np.testing.assert_allclose(means, np.clip(steps.reward[0], -0.5, 0.5), atol=1e-5)


def test_annealed_horizons_begin_again_after_a_reset():
    config = dataclasses.replace(
        CONFIG,
        first_td_steps=10,
        num_td_steps=3,
        first_discount=0.97,
        discount=0.997,
        anneal_updates=10_000,
        reset_period=20_000,
        num_updates=6250,
        updates_per_chunk=625,
        num_gradient_steps=8,
    )
    # 50,000 gradient steps: one reset, at 20,000; another would leave only 10,000.
    assert config.num_resets == 1
    times = (0, 5000, 10_000, 19_999, 20_000, 45_000)
    found = [rainbow.horizon(config, jnp.int32(n)) for n in times]
    assert [int(n) for n, _ in found] == [10, round(np.sqrt(30)), 3, 3, 10, 3]
    expected = [0.97, 1 - np.sqrt(0.03 * 0.003), 0.997, 0.997, 0.97, 0.997]
    resets = [bool(rainbow.is_reset_after(config, jnp.int32(n))) for n in (*times[1:], 40_000)]
    assert resets == [False, False, False, True, False, False]
    np.testing.assert_allclose([float(g) for _, g in found], expected, atol=1e-6)
    assert config.window == 11


# --- the self-predictive loss ---------------------------------------------------------------------


@pytest.mark.slow
def test_five_times_the_mean_is_twice_the_sum_of_one_minus_cosine():
    """The weight of the code is lambda = 2 of the paper, for K = 5."""
    config = dataclasses.replace(CONFIG, spr=SPRConfig(num_steps=5, weight=5.0))
    steps = windows(length=config.window)
    batch = batch_of(steps, config)
    _, network, params = agent_of(config)
    latent = network.encode(params, batch.obs)
    predicted = self_prediction.predictions(network, params, latent, batch.action)
    by_paper = 2 * jnp.sum(cosine_distance(predicted, batch.later), axis=0)
    distance = spr_loss(network, params, latent, batch)
    np.testing.assert_allclose(5.0 * distance, by_paper, rtol=1e-5)
    total, found, _ = losses(batch, config)
    assert total == pytest.approx(found["q"] + float(by_paper.mean()), rel=1e-5)


@pytest.mark.slow
def test_no_gradient_reaches_what_is_predicted():
    """With tau 1 the target is the online encoder; its side of the loss must stay constant."""
    agent, _, params = agent_of()
    steps = windows()

    def through_targets(params):
        copies = rainbow.first_copies(CONFIG, params)
        batch = agent.targets(params, copies, drawn(steps), jax.random.key(1), jax.random.key(3))
        return jnp.sum(batch.later)

    gradient = jax.grad(through_targets)(params)
    assert all(not np.asarray(x).any() for x in jax.tree.leaves(gradient))


@pytest.mark.slow
def test_the_mutant_s_target_has_a_gradient_and_the_sound_one_none():
    _, network, params = agent_of()
    obs = windows().obs[:2]

    def size(params, has_gradient):
        found = self_prediction.projections(network, params, obs, has_gradient=has_gradient)
        return jnp.sum(jnp.square(found))

    for has_gradient in (False, True):
        gradient = jax.tree.leaves(jax.grad(size)(params, has_gradient))
        assert any(np.asarray(x).any() for x in gradient) == has_gradient


@pytest.mark.slow
def test_what_lies_behind_an_end_is_not_predicted():
    """Of window 1 nothing counts after step 0, of window 2 after step 1; K still divides."""
    steps = windows(terminated=[(0, 1)], truncated=[(1, 2)])
    batch = batch_of(steps)
    np.testing.assert_array_equal(batch.is_same[:, :3], [[1, 0, 1], [1, 0, 0], [1, 0, 0]])
    _, network, params = agent_of()
    latent = network.encode(params, batch.obs)
    predicted = self_prediction.predictions(network, params, latent, batch.action)
    each = 2 * np.asarray(cosine_distance(predicted, batch.later))
    found = spr_loss(network, params, latent, batch)
    np.testing.assert_allclose(found[:3], [each[:, 0].mean(), 0.0, each[0, 2] / K], rtol=1e-5)


@pytest.mark.slow
def test_both_losses_carry_the_importance_weight():
    rarity = np.array([1.0, 2.0, 4.0, 1.0, 1.0, 8.0])
    batch = batch_of(windows(), rarity=rarity)
    beta = CONFIG.importance_exponent
    np.testing.assert_allclose(batch.weight, (rarity / 8) ** beta, rtol=1e-5)
    alone = []
    for i in range(B):
        one = batch._replace(weight=jnp.where(jnp.arange(B) == i, 1.0, 0.0))
        alone.append([losses(one)[1][name] for name in ("q", "spr")])
    both = np.asarray(batch.weight) @ np.array(alone)
    _, found, _ = losses(batch)
    np.testing.assert_allclose([found["q"], found["spr"]], both, rtol=1e-4)


@pytest.mark.slow
def test_predictions_see_no_later_observation_and_every_earlier_action():
    _, network, params = agent_of()
    steps = windows()
    batch = batch_of(steps)
    other = steps._replace(obs=steps.obs.at[1:].set(0.5))
    latent = network.encode(params, batch.obs)
    predict = functools.partial(self_prediction.predictions, network, params)
    predicted = predict(latent, batch.action)
    changed = batch_of(other)
    np.testing.assert_array_equal(predicted, predict(network.encode(params, changed.obs), changed.action))
    assert np.abs(np.asarray(batch.later - changed.later)).max() > 1e-3
    for k in range(K):
        action = batch.action.at[k].set((batch.action[k] + 1) % ACTIONS)
        moved = np.abs(np.asarray(predict(latent, action) - predicted)).max(axis=(1, 2))
        assert (moved[:k] == 0).all()
        assert (moved[k:] > 1e-6).all()


@pytest.mark.slow
def test_without_weight_there_is_no_self_predictive_loss():
    config = dataclasses.replace(CONFIG, spr=SPRConfig(weight=0.0))
    batch = batch_of(windows(length=config.window), config)
    total, found, _ = losses(batch, config)
    assert set(found) == {"q"}
    assert total == pytest.approx(found["q"])


# --- copies, priorities, schedules ----------------------------------------------------------------


@pytest.mark.slow
def test_latents_of_half_the_bits_give_nearly_the_same_losses():
    half = dataclasses.replace(CONFIG, model=dataclasses.replace(CALM, dtype="bfloat16"))
    found, expected = (losses(batch_of(windows(), config), config) for config in (half, CONFIG))
    assert found[1].keys() == expected[1].keys()
    for name, value in expected[1].items():
        assert 0.0 < abs(found[1][name] - value) < 0.02 * value
    assert found[2].dtype == jnp.float32
    np.testing.assert_allclose(found[2], expected[2], rtol=0.05)


def test_copies_follow_at_their_own_rates():
    config = dataclasses.replace(
        CONFIG, target_tau=0.25, spr=SPRConfig(tau=0.5), reset_period=3, num_updates=1, updates_per_chunk=1
    )
    assert config.num_resets == 1  # of 8 gradient steps
    zero, one = {"x": jnp.zeros((2,))}, {"x": jnp.ones((2,))}
    copies = Copies(zero, zero, jnp.int32(0))
    for q, spr in ((0.25, 0.5), (1 - 0.75**2, 0.75), (1.0, 1.0)):  # a reset copies all
        copies = rainbow.follow(config, copies, one)
        np.testing.assert_allclose(copies.q["x"], q)
        np.testing.assert_allclose(copies.spr["x"], spr)
    assert int(copies.num_updates) == 3


@pytest.mark.slow
def test_tau_one_is_the_online_network():
    _, _, params = agent_of()
    """And no copy of it is kept, nor one of what no loss reads."""
    first = rainbow.first_copies(CONFIG, params)
    copies = rainbow.follow(CONFIG, first, jax.tree.map(jnp.sin, params))
    assert jax.tree.leaves(copies) == [1]
    assert rainbow.followed(copies.q, params) is params
    slow = dataclasses.replace(CONFIG, target_tau=0.5, spr=SPRConfig(tau=0.1, weight=0.0))
    kept = rainbow.follow(slow, rainbow.first_copies(slow, params), jax.tree.map(jnp.sin, params))
    assert kept.spr == ()
    half = jax.tree.map(lambda x: 0.5 * (x + jnp.sin(x)), params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), kept.q, half)
    assert rainbow.followed(kept.q, params) is kept.q


def test_priorities_are_surprises_and_nothing_is_learned_of_a_cut_first_step():
    batch = batch_of(windows(truncated=[(0, 2)]))
    _, network, params = agent_of()
    _, found, priority = losses(batch)
    assert priority[2] == 0.0
    logits = network.judge(params, network.encode(params, batch.obs))
    taken = jax.nn.log_softmax(logits[jnp.arange(B), batch.action[0]])
    target = np.asarray(batch.returns, np.float64)
    entropy = np.where(target > 0, target * np.log(np.maximum(target, 1e-300)), 0).sum(1)
    expected = entropy - (target * np.asarray(taken)).sum(1)
    expected[2] = 0.0
    np.testing.assert_allclose(priority, expected, atol=1e-5)
    assert found["q"] == pytest.approx(expected.mean(), rel=1e-4)


def test_importance_becomes_whole_in_the_end():
    _, _, params = agent_of()
    copies = Copies(params, params, jnp.int32(CONFIG.total_gradient_steps))
    rarity = np.array([1.0, 2.0, 4.0, 1.0, 1.0, 8.0])
    np.testing.assert_allclose(batch_of(windows(), CONFIG, copies, rarity).weight, rarity / 8)


@pytest.mark.slow
def test_augmented_frames_differ_by_example_and_time_and_need_pixels():
    config = dataclasses.replace(CONFIG, is_augmented=True)
    agent = rainbow.rainbow(SHAPE, np.uint8, SPEC, config)
    params = agent.init(jax.random.key(0))
    frame = np.random.default_rng(0).integers(0, 256, SHAPE).astype(np.uint8)
    same = windows()._replace(obs=jnp.broadcast_to(jnp.asarray(frame), (LENGTH, B, *SHAPE)))
    copies = rainbow.first_copies(CONFIG, params)
    batch = agent.targets(params, copies, drawn(same), jax.random.key(1), jax.random.key(3))
    assert batch.obs.dtype == jnp.float32
    assert len(np.unique(np.asarray(batch.obs).reshape(B, -1), axis=0)) == B
    assert len(np.unique(np.asarray(batch.later).reshape(K * B, -1), axis=0)) == K * B
    with pytest.raises(ValueError, match=r"got observations of float32, expected\s+frames"):
        rainbow.rainbow(SHAPE, np.float32, SPEC, config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"warmup_steps": 16, "capacity": 64}, "at least 4, a window"),
        (
            {"num_envs": 4, "capacity": 128, "warmup_steps": 128, "num_td_steps": 20},
            "minibatch of n-step targets",
        ),
        ({"spr": SPRConfig(num_steps=40), "warmup_steps": 128, "capacity": 128}, "at least 41"),
        ({"batch_size": 6}, "multiple of 4"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, message):
    changes = {"num_envs": 8} | changes
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **changes)


def test_actions_that_are_no_category_are_refused():
    with pytest.raises(ValueError, match="expected one category"):
        rainbow.rainbow(SHAPE, np.float32, envs.make("classic/Pendulum-v1")[0].action_spec, CONFIG)


@pytest.mark.slow
def test_policies_explore_by_their_share():
    _, network, params = agent_of()
    obs = windows().obs.reshape(-1, *SHAPE)
    best = rainbow.greedy(network, CONFIG, params, obs)

    def acts(epsilon, key):
        policy = rainbow.policy(network, CONFIG, epsilon=epsilon)
        return policy.act(params, (), obs, jnp.ones((len(obs),), bool), key)[0]

    np.testing.assert_array_equal(acts(0.0, jax.random.key(0)), best)
    keys = jax.random.split(jax.random.key(1), 300)
    differs = np.asarray(jax.vmap(functools.partial(acts, 0.6))(keys)) != np.asarray(best)
    assert abs(differs.mean() - 0.6 * (1 - 1 / ACTIONS)) < 0.03


# --- learning -------------------------------------------------------------------------------------


class AsBoard(AnyProbe):
    """The probe's signal -1, 0 or 1 as a plane of a board."""

    obs_shape = (3, 3, 3)
    obs_spec = tuple(Component(f"cell{i}", "real", 0.0, 1.0) for i in range(27))

    def reset(self, key, params):
        obs, state = super().reset(key, params)
        return self.board(obs), state

    def step(self, key, state, action, params):
        obs, *rest = super().step(key, state, action, params)
        return self.board(obs), *rest

    def board(self, obs):
        kind = jnp.round(obs[0]).astype(jnp.int32) + 1
        return jnp.zeros((3, 3, 3)).at[:, 1].set(jax.nn.one_hot(kind, 3)[None])


PROBES = ("DelayedReward", "ObservedActionReward", "TimeLimitTrap")
TINY = RainbowConfig(
    num_envs=4,
    num_steps=1,
    num_gradient_steps=2,
    batch_size=16,
    capacity=512,
    warmup_steps=64,
    num_updates=400,
    updates_per_chunk=200,
    learning_rate=3e-3,
    discount=0.7,
    num_td_steps=2,
    target_tau=0.05,
    model=QNetworkConfig(hidden_size=16, num_atoms=21, max_return=4.0),
    spr=SPRConfig(num_steps=2, weight=1.0),
)


@functools.cache
def learned():
    """A learner a probe, in one program: the network and parameters `[3, ...]`."""
    env = AsBoard(PROBES, TimeLimitTrap={"cash": 2.0})
    agent = rainbow.rainbow(env.obs_shape, env.obs_dtype, env.action_spec, TINY)
    loop = loops.lanes(
        loops.replay(
            agent,
            VectorEnv(env),
            optimizer.rainbow_adam(TINY),
            TINY,
            explore=actions.uniform(env.action_spec),
            as_steps=rainbow.as_steps,
            slow=loops.SlowCopy(*rainbow.copying(TINY)),
            memory=prioritized_windows(TINY.window, TINY.priority_exponent),
            is_normalized=False,
        )
    )
    size = len(PROBES), TINY.num_envs
    tasks = jnp.broadcast_to(jnp.arange(size[0], dtype=jnp.int32)[:, None], size)
    lane_keys = jax.random.split(jax.random.key(0), size[0])
    state = parallel.first_state(*jax.jit(loop.init)(lane_keys, tasks))
    chunk = parallel.chunked(loop, TINY.updates_per_chunk, 1)
    for _ in range(TINY.num_updates // TINY.updates_per_chunk):
        state, report = chunk(state, jax.random.key(1))
    assert bool(report.is_finite.all())
    return env, rainbow.network_of(env.obs_shape, env.action_spec, TINY), state.learner.params


def of_probe(name, *signals):
    """Values `[signals, actions]`."""
    env, network, params = learned()
    own = jax.tree.map(lambda x: x[PROBES.index(name)], params)
    obs = jnp.stack([env.board(jnp.array([s], jnp.float32)) for s in signals])
    return np.asarray(expected_return(network.judge(own, network.encode(own, obs)), 4.0))


@pytest.mark.slow
def test_delayed_reward():
    """The first value is the discount: rewards, ends and bootstraps are where they belong."""
    values = of_probe("DelayedReward", 0.0, 1.0).max(1)
    np.testing.assert_allclose(values, [TINY.discount, 1.0], atol=0.1)


@pytest.mark.slow
def test_observed_action_reward():
    values = of_probe("ObservedActionReward", -1.0, 1.0)
    np.testing.assert_array_equal(values.argmax(1), [0, 1])
    np.testing.assert_allclose(values.max(1), 1.0, atol=0.2)


@pytest.mark.slow
def test_the_time_limit_is_no_end():
    """Staying is worth up to 1 / (1 - 0.7), the cash 2: who takes the clock for an end cashes."""
    values = of_probe("TimeLimitTrap", 0.0)[0]
    np.testing.assert_allclose(values, [1 / 0.3, 2.0], atol=0.35)


SLOW = dataclasses.replace(
    TINY,
    num_updates=6,
    updates_per_chunk=2,
    num_gradient_steps=2,
    reset_period=4,
    acts_by_target=True,
    anneal_updates=4,
    first_td_steps=3,
    target_tau=0.01,
    model=QNetworkConfig(hidden_size=8, num_atoms=11, noise=0.0, is_shared=True),
)


def breakout_loop(config, acts_by=loops.params_of, **changes):
    env, task = envs.make("minatar/Breakout")
    agent = rainbow.rainbow(env.obs_shape, env.obs_dtype, env.action_spec, config)
    resets = functools.partial(rainbow.is_reset_after, config)
    arguments = {
        "explore": actions.uniform(env.action_spec),
        "as_steps": rainbow.as_steps,
        "slow": loops.SlowCopy(*rainbow.copying(config)),
        "memory": prioritized_windows(config.window, config.priority_exponent),
        "acts_by": acts_by,
        "is_normalized": False,
    } | changes
    optimiser = optimizer.rainbow_adam(config)
    if config.num_resets:
        shares = optimizer.rainbow_shares(config)
        optimiser = optimizer.with_resets(optimiser, agent.init, resets, shares)
    loop = loops.replay(agent, VectorEnv(env), optimiser, config, **arguments)
    tasks = broadcast_params(task, config.num_envs)
    return loop, parallel.first_state(*jax.jit(loop.init)(jax.random.key(0), tasks))


@pytest.mark.slow
def test_resets_annealing_and_acting_by_the_slow_copy_go_together():
    """SR-SPR's and BBF's parts in one program: resets after 4 and 8 of 12 gradient steps."""
    loop, state = breakout_loop(SLOW, acts_by=lambda x: x.target.q)
    chunk = parallel.chunked(loop, SLOW.updates_per_chunk, 1)
    head = lambda learner: learner.params["params"]["head"]["value"]["Dense_0"]["kernel"]  # noqa: E731
    first = np.asarray(head(state.learner))
    for updates in (4, 8, 12):
        weight = np.asarray(state.shards.replay.tree.levels[-1])
        state, report = chunk(state, jax.random.key(1))
        assert bool(report.is_finite.all())
        assert int(state.learner.target.num_updates) == updates
        # What was drawn has a priority of its own by now, beside the new windows'.
        leaves = np.asarray(state.shards.replay.tree.levels[-1])
        assert len(np.unique(leaves)) > len(np.unique(weight))
        moved = np.abs(np.asarray(head(state.learner)) - first).max()
        copied = jax.tree.map(np.array_equal, state.learner.target.q, state.learner.params)
        assert all(jax.tree.leaves(copied)) == (updates < 12)  # none at the end
        assert moved > 0.1


@pytest.mark.slow
def test_one_device_equals_two():
    """Prioritised replay is a shard's own; noise and dropout are drawn alike."""
    config = dataclasses.replace(
        SLOW,
        reset_period=0,
        acts_by_target=False,
        model=dataclasses.replace(SLOW.model, noise=0.5, dropout=0.2),
    )
    loop, state = breakout_loop(config)
    results = []
    for devices in (1, 2):
        after, report = parallel.chunked(loop, 2, devices)(state, jax.random.key(1))
        parallel.check_replicas(report.checksums)
        results.append(jax.device_get((after.learner.params, after.shards.replay.tree)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), *results)


@pytest.mark.slow
def test_what_acts_is_what_is_told():
    """By a network that values one action above all, that action alone is taken."""

    def first_action(learner):
        bias = learner.params["params"]["head"]["advantage"]["Dense_0"]["bias"]
        atoms = jnp.zeros((3, 11)).at[2, -1].set(100.0).at[:2, 0].set(100.0)
        params = jax.tree.map(jnp.zeros_like, learner.params)
        params["params"]["head"]["advantage"]["Dense_0"]["bias"] = atoms.reshape(bias.shape)
        return params

    loop, state = breakout_loop(dataclasses.replace(SLOW, reset_period=0), acts_by=first_action)
    state, _ = parallel.chunked(loop, 2, 1)(state, jax.random.key(1))
    ring = state.shards.replay.ring
    warmup = SLOW.warmup_steps // SLOW.num_envs
    new = np.asarray(ring.data.action)[:, warmup : warmup + 2]
    np.testing.assert_array_equal(new, 2)


@pytest.mark.parametrize("changes", [{"is_normalized": True}, {"in_turn": True}])
def test_a_memory_that_ranks_takes_observations_as_they_are(changes):
    with pytest.raises(ValueError, match="with a memory that ranks"):
        breakout_loop(SLOW, **changes)


def test_steps_that_only_reset_are_refused():
    steps = windows()
    from jaxagent.types import Trajectory

    trajectory = Trajectory(*steps[:5], steps.obs, (), jnp.ones((LENGTH, B), bool))
    with pytest.raises(ValueError, match="steps that only reset"):
        rainbow.as_steps(trajectory)


@pytest.mark.slow
def test_dropout_is_drawn_by_shard():
    batch = batch_of(windows())
    other, network, params = agent_of()
    found = other.targets(
        params, rainbow.first_copies(CONFIG, params), drawn(windows()), jax.random.key(9), jax.random.key(3)
    )
    del network
    assert (jax.random.key_data(batch.key) != jax.random.key_data(found.key)).any()
