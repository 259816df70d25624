"""TD3+BC and IQL: losses and targets in float64, their limits, who moves whom and when, and a task
that cloning fails."""

import dataclasses
import functools
import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from envs.types import Component
from jaxagent import keys
from jaxagent.agents.actions import from_env_action, to_env_action
from jaxagent.agents.iql import IQLBatch, iql
from jaxagent.agents.soft_actor_critic import Step
from jaxagent.agents.td3_bc import TD3BCBatch, as_steps, smoothed, td3_bc
from jaxagent.config import IQLConfig, TD3BCConfig
from jaxagent.data import normalize
from jaxagent.data import replay as replays
from jaxagent.objectives.policy import advantage_weight, value_weight
from jaxagent.objectives.value import expectile_loss, soft_update, squared_errors, td_target
from jaxagent.train import loops, optimizer, parallel
from jaxagent.types import Trajectory

n, A, b, WIDTH = 3, 2, 8, 16  # observation, action, batch, hidden size
SPEC = (Component("pull", "real", -2.0, 2.0), Component("push", "real", 0.0, 1.0))
TD3BC = TD3BCConfig(hidden_size=WIDTH, critic_hidden_size=WIDTH, discount=0.9, reward_scale=2.0)
IQL = IQLConfig(hidden_size=WIDTH, critic_hidden_size=WIDTH, discount=0.9, reward_scale=2.0)
BOTH = pytest.mark.parametrize(("make", "config"), [(td3_bc, TD3BC), (iql, IQL)], ids=["td3_bc", "iql"])
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def linear(params, obs):
    """An encoder with parameters."""
    return obs @ params


def some_steps(seed=0):
    rng = np.random.default_rng(seed)
    real = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    action = jnp.asarray(rng.uniform(-1, 1, (b, A)), jnp.float32)
    terminated = jnp.asarray(np.arange(b) % 3 == 0)
    return Step(real(b, n), action, real(b), terminated, real(b, n))


def sized(params, seed=1):
    """Parameters of which none is zero or small."""
    leaves, structure = jax.tree.flatten(params)
    rng = np.random.default_rng(seed)
    noise = [jnp.asarray(0.4 * rng.normal(size=x.shape), jnp.float32) for x in leaves]
    return jax.tree.unflatten(structure, [x + e for x, e in zip(leaves, noise, strict=True)])


@functools.cache
def setting(make, config, **options):
    """An agent, its parameters, others as slow copy, and some steps."""
    agent = make(n, SPEC, config, **options)
    encoder = jnp.eye(n) if options else ()
    params = sized(jax.jit(agent.init)(jax.random.key(0), encoder))
    target = agent.slow(sized(params, seed=2))
    return agent, params, target, some_steps()


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


@pytest.mark.slow
def test_td3_bc_targets_in_float64():
    """The slow actor, smoothed, valued by the smaller slow critic; a termination ends it."""
    agent, params, target, steps = setting(td3_bc, dataclasses.replace(TD3BC, noise_scale=0.4))
    batch = agent.targets(params, target, steps, jax.random.key(7))
    noise = 0.4 * np.asarray(jax.random.normal(jax.random.key(7), (b, A)))
    assert (np.abs(noise) > 0.5).any()
    action = np.tanh(forward(target.actor, steps.final_obs)) + np.clip(noise, -0.5, 0.5)
    next_value = both_values(target.critics, steps.final_obs, np.clip(action, -1, 1)).min(0)
    going = 1.0 - np.asarray(steps.terminated)
    expected = 2.0 * np.asarray(steps.reward, np.float64) + 0.9 * going * next_value
    np.testing.assert_allclose(batch.target, expected, **CLOSE)
    np.testing.assert_array_equal(batch.action, steps.action)


def test_td3_bc_loss_in_float64():
    agent, params, _, steps = setting(td3_bc, TD3BC)
    target = np.linspace(-1, 1, b)
    batch = TD3BCBatch(steps.obs, steps.action, jnp.asarray(target, jnp.float32))
    total, metrics = agent.loss(params, batch)
    values = both_values(params.critics, steps.obs, steps.action)
    critic = np.mean((values[0] - target) ** 2) + np.mean((values[1] - target) ** 2)
    own = np.tanh(forward(params.actor, steps.obs))
    own_value = both_values(params.critics, steps.obs, own)[0]
    lam = 2.5 / np.mean(np.abs(own_value))
    actor = -lam * np.mean(own_value) + np.mean((own - np.asarray(steps.action)) ** 2)
    np.testing.assert_allclose(metrics["train/loss/critic"], critic, **CLOSE)
    np.testing.assert_allclose(metrics["train/loss/actor"], actor, **CLOSE)
    np.testing.assert_allclose(total, critic + actor, **CLOSE)


@pytest.mark.slow
def test_iql_targets_in_float64():
    """The critics' target is the value that learns; the value's are the slow critics."""
    agent, params, target, steps = setting(iql, IQL)
    batch = agent.targets(params, target, steps, jax.random.key(0))
    next_value = forward(params.value, steps.final_obs)[:, 0]
    going = 1.0 - np.asarray(steps.terminated)
    expected = 2.0 * np.asarray(steps.reward, np.float64) + 0.9 * going * next_value
    np.testing.assert_allclose(batch.target, expected, **CLOSE)
    slow = both_values(target.critics, steps.obs, steps.action).min(0)
    np.testing.assert_allclose(batch.action_value, slow, **CLOSE)


def iql_batch(seed=3):
    rng, steps = np.random.default_rng(seed), some_steps()
    target, action_value = jnp.asarray(rng.normal(size=(2, b)), jnp.float32)
    return IQLBatch(steps.obs, steps.action, target, 3.0 * action_value)


@pytest.mark.slow
def test_iql_loss_in_float64():
    agent, params, _, _ = setting(iql, IQL)
    params = params._replace(log_std=jnp.array([-0.5, -7.0]))  # the second is cut to -5
    batch = iql_batch()
    total, metrics = agent.loss(params, batch)
    values = both_values(params.critics, batch.obs, batch.action)
    target, action_value = np.float64(batch.target), np.float64(batch.action_value)
    critic = np.mean((values[0] - target) ** 2) + np.mean((values[1] - target) ** 2)
    advantage = action_value - forward(params.value, batch.obs)[:, 0]
    value = np.mean(np.where(advantage > 0, 0.7, 0.3) * advantage**2)
    mean, std = np.tanh(forward(params.actor, batch.obs)), np.exp([-0.5, -5.0])
    z = (np.asarray(batch.action) - mean) / std
    log_prob = np.sum(-0.5 * z**2 - np.log(std) - 0.5 * np.log(2 * np.pi), axis=-1)
    weight = np.minimum(np.exp(3.0 * advantage), 100.0)
    assert (weight == 100).any()
    assert (weight < 100).any()
    actor = -np.mean(weight * log_prob)
    np.testing.assert_allclose(metrics["train/loss/critic"], critic, **CLOSE)
    np.testing.assert_allclose(metrics["train/loss/value"], value, **CLOSE)
    np.testing.assert_allclose(metrics["train/loss/actor"], actor, **CLOSE)
    np.testing.assert_allclose(total, critic + value + actor, **CLOSE)


# --- objectives: by hand and at their limits ------------------------------------------------------


def test_expectile_loss_by_hand():
    error = jnp.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    np.testing.assert_allclose(expectile_loss(error, 0.7), [1.2, 0.3, 0.0, 0.7, 2.8], rtol=1e-6)
    np.testing.assert_allclose(2 * expectile_loss(error, 0.5), np.square(error), rtol=1e-6)


@pytest.mark.parametrize("expectile", [0.5, 0.7, 0.9])
def test_the_expectile_lies_where_the_loss_is_least(expectile):
    """Of 0 and 1 in equal parts the expectile is itself: tau (1 - v) = (1 - tau) v."""
    sample = jnp.array([0.0, 1.0])
    slope = jax.grad(lambda v: jnp.sum(expectile_loss(sample - v, expectile)))
    assert float(slope(jnp.array(expectile))) == pytest.approx(0.0, abs=1e-6)
    assert float(slope(jnp.array(expectile - 0.1))) < -0.1
    assert float(slope(jnp.array(expectile + 0.1))) > 0.1


def test_advantage_weight_by_hand_and_without_overflow():
    advantage = jnp.array([0.0, 0.5, -1.0, 2.0, 1e6, -1e6])
    with jax.debug_infs(True):
        weight = advantage_weight(advantage, beta=3.0, largest=100.0)
    expected = [1.0, np.exp(1.5), np.exp(-3.0), 100.0, 100.0, 0.0]
    np.testing.assert_allclose(weight, expected, rtol=1e-5)
    np.testing.assert_array_equal(advantage_weight(advantage, beta=0.0, largest=100.0), 1.0)
    slope = jax.grad(lambda a: jnp.sum(advantage_weight(a, beta=3.0, largest=100.0)))
    np.testing.assert_array_equal(slope(advantage), 0.0)


def test_value_weight_by_hand_and_of_nothing():
    value = jnp.array([1.0, -3.0, 4.0, 0.0])
    np.testing.assert_allclose(value_weight(value, alpha=2.5), 1.25)
    np.testing.assert_array_equal(jax.grad(lambda v: value_weight(v, alpha=2.5))(value), jnp.zeros(4))
    # Ten times the rewards are the same pull: lambda Q does not change.
    np.testing.assert_allclose(value_weight(10.0 * value, alpha=2.5), 0.125)
    assert jnp.isfinite(value_weight(jnp.zeros(4), alpha=2.5))


def test_td_target_squared_errors_and_soft_update_by_hand():
    reward, next_value = jnp.array([1.0, 1.0]), jnp.array([10.0, jnp.nan])
    terminated = jnp.array([False, True])
    np.testing.assert_allclose(td_target(reward, terminated, next_value, discount=0.5), [6.0, 1.0])
    values = jnp.array([[1.0, 2.0], [3.0, 5.0]])
    np.testing.assert_array_equal(squared_errors(values, jnp.array([1.0, 3.0])), [4.0, 5.0])
    old, new = {"w": jnp.array([0.0, 4.0])}, {"w": jnp.array([1.0, 0.0])}
    np.testing.assert_allclose(soft_update(old, new, 0.25)["w"], [0.25, 3.0])


def test_smoothing_by_hand():
    noise = jnp.array([0.1, -0.9, 0.9, 0.4])
    action = jnp.array([0.2, 0.0, -0.2, 0.9])
    np.testing.assert_allclose(smoothed(action, noise, clip=0.5), [0.3, -0.5, 0.3, 1.0], rtol=1e-6)


def actor_gradient(make, config, batch_of, **change):
    config = dataclasses.replace(config, **change)
    agent, params, _, _ = setting(make, config)
    gradient = jax.grad(lambda p: agent.loss(p, batch_of)[0])(params)
    return gradient, params


@pytest.mark.slow
def test_td3_bc_without_alpha_is_cloning():
    steps = some_steps()
    batch = TD3BCBatch(steps.obs, steps.action, jnp.zeros(b))
    gradient, params = actor_gradient(td3_bc, TD3BC, batch, alpha=0.0)

    def cloning(actor):
        layers = [actor["params"][f"Dense_{i}"] for i in range(3)]
        x = batch.obs
        for i, layer in enumerate(layers):
            x = x @ layer["kernel"] + layer["bias"][None]
            x = jax.nn.relu(x) if i < 2 else x
        return jnp.mean(jnp.square(jnp.tanh(x) - batch.action))

    expected = jax.grad(cloning)(params.actor)
    jax.tree.map(partial(np.testing.assert_allclose, **CLOSE), gradient.actor, expected)
    pulled, _ = actor_gradient(td3_bc, TD3BC, batch)  # alpha 2.5 is something else
    assert difference(pulled.actor, expected) > 0.1


@pytest.mark.slow
def test_iql_without_beta_is_cloning():
    """The policy's gradient is that of the log-likelihood, whatever the values say."""
    batch = iql_batch()
    gradient, params = actor_gradient(iql, IQL, batch, beta=0.0)
    agent = iql(n, SPEC, IQL)
    expected = jax.grad(lambda p: agent.loss(p, batch)[1]["train/cloning"])(params)
    for part in ("actor", "log_std"):
        jax.tree.map(
            partial(np.testing.assert_allclose, **CLOSE), getattr(gradient, part), getattr(expected, part)
        )
    pulled, _ = actor_gradient(iql, IQL, batch)
    assert difference(pulled.actor, expected.actor) > 0.1


@pytest.mark.slow
def test_iql_at_half_fits_the_mean():
    """At expectile 1/2 the value's loss is half the mean squared error."""
    batch = iql_batch()
    agent, params, _, _ = setting(iql, dataclasses.replace(IQL, expectile=0.5))
    advantage = np.float64(batch.action_value) - forward(params.value, batch.obs)[:, 0]
    _, metrics = agent.loss(params, batch)
    np.testing.assert_allclose(metrics["train/loss/value"], np.mean(advantage**2) / 2, **CLOSE)


# --- who moves whom -------------------------------------------------------------------------------


def size(tree):
    """The largest entry of a pytree."""
    return max((float(jnp.max(jnp.abs(x))) for x in jax.tree.leaves(tree)), default=0.0)


def difference(a, b):
    """The largest difference of two pytrees."""
    return size(jax.tree.map(lambda x, y: x - y, a, b))


def batch_for(agent, params, target, steps):
    return agent.targets(params, target, steps, jax.random.key(0))


# Each loss and the parameters that it moves, with an encoder that learns.
MOVES = [
    (td3_bc, TD3BC, "critic", {"critics", "encoder"}),
    (td3_bc, TD3BC, "actor", {"actor"}),
    (iql, IQL, "critic", {"critics", "encoder"}),
    (iql, IQL, "value", {"value"}),
    (iql, IQL, "actor", {"actor", "log_std"}),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "config", "name", "moved"), MOVES, ids=[f"{m.__name__}-{k}" for m, _, k, _ in MOVES]
)
def test_each_loss_is_blind_to_the_parameters_of_the_others(make, config, name, moved):
    agent, params, target, steps = setting(make, config, encoder=linear, is_frozen=False)
    batch = batch_for(agent, params, target, steps)
    with jax.debug_nans(True):
        gradient = jax.jit(jax.grad(lambda p: agent.loss(p, batch)[1][f"train/loss/{name}"]))(params)
    sizes = {part: size(value) for part, value in gradient._asdict().items()}
    assert {part for part, value in sizes.items() if value > 0} == moved
    whole = jax.jit(jax.grad(lambda p: agent.loss(p, batch)[0]))(params)
    for part in moved:  # and nothing else moves these
        jax.tree.map(
            partial(np.testing.assert_allclose, **CLOSE), getattr(whole, part), getattr(gradient, part)
        )


@pytest.mark.slow
@BOTH
def test_a_frozen_encoder_gets_no_gradient_and_no_slow_copy(make, config):
    agent, params, target, steps = setting(make, config, encoder=linear, is_frozen=True)
    batch = batch_for(agent, params, target, steps)
    gradient = jax.grad(lambda p: agent.loss(p, batch)[0])(params)
    assert size(gradient.encoder) == 0
    assert size(gradient.critics) > 0
    assert (target.encoder, agent.periods.encoder) == ((), 0)


@pytest.mark.slow
@BOTH
def test_an_encoder_is_the_agent_on_its_features(make, config):
    """Frozen or not, the losses are those of the agent that is given the features."""
    matrix = jnp.asarray(np.random.default_rng(5).normal(size=(n, n)), jnp.float32)
    plain, params, target, steps = setting(make, config)
    features = steps._replace(obs=steps.obs @ matrix, final_obs=steps.final_obs @ matrix)
    wanted, _ = plain.loss(params, batch_for(plain, params, target, features))
    for is_frozen in (True, False):
        agent = make(n, SPEC, config, encoder=linear, is_frozen=is_frozen)
        full = params._replace(encoder=matrix)
        slow = target._replace(encoder=() if is_frozen else matrix)
        got, _ = agent.loss(full, batch_for(agent, full, slow, steps))
        np.testing.assert_allclose(got, wanted, **CLOSE)
        act = partial(agent.policy.act, full._replace(critics=()), ())
        action, _, _ = act(steps.obs, jnp.zeros(b, bool), jax.random.key(0))
        expected = np.tanh(forward(params.actor, features.obs)) * [2.0, 0.5] + [0.0, 0.5]
        np.testing.assert_allclose(action, expected, **CLOSE)


@BOTH
def test_targets_read_the_slow_copy(make, config):
    """Slow critics set the targets (IQL: the value's); the fast ones do not matter there."""
    agent, params, target, steps = setting(make, config)
    first = batch_for(agent, params, target, steps)
    jumped = params._replace(critics=jax.tree.map(lambda x: x + 1.0, params.critics))
    assert difference(first, batch_for(agent, jumped, target, steps)) == 0
    jumped = target._replace(critics=jax.tree.map(lambda x: x + 1.0, target.critics))
    assert difference(first, batch_for(agent, params, jumped, steps)) > 0.1


@pytest.mark.slow
@BOTH
def test_slow_critics_read_a_slow_encoder(make, config):
    agent, params, target, steps = setting(make, config, encoder=linear, is_frozen=False)
    name = {td3_bc: "target", iql: "action_value"}[make]  # what the slow critics say
    said = lambda p, t: getattr(batch_for(agent, p, t, steps), name)  # noqa: E731
    slow = target._replace(encoder=2.0 * target.encoder)
    fast = params._replace(encoder=2.0 * params.encoder)
    assert difference(said(params, target), said(params, slow)) > 0.1
    assert difference(said(params, target), said(fast, target)) == 0


@BOTH
def test_a_termination_hides_what_follows_and_a_truncation_does_not(make, config):
    agent, params, target, steps = setting(make, config)
    first = batch_for(agent, params, target, steps).target
    moved = steps._replace(final_obs=steps.final_obs + 1.0)
    changed = np.asarray(batch_for(agent, params, target, moved).target != first)
    np.testing.assert_array_equal(changed, ~np.asarray(steps.terminated))


# --- stored data ----------------------------------------------------------------------------------


def test_stored_actions_come_back_in_units_of_the_box():
    free = Component("free", "real"), Component("half", "real", 0.0)
    spec = (*SPEC, *free)
    unit = jnp.asarray(np.random.default_rng(0).uniform(0, 1, (5, 2, 4)), jnp.float32)
    back = from_env_action(to_env_action(unit, spec), spec)
    np.testing.assert_allclose(back, unit, atol=1e-6)
    np.testing.assert_allclose(from_env_action(jnp.array([2.0, 0.0]), SPEC), [1.0, -1.0])
    obs, flags = jnp.ones((5, 2, n)), jnp.zeros((5, 2), bool)
    stored = Trajectory(obs, to_env_action(unit, spec), jnp.ones((5, 2)), flags, ~flags, obs + 1.0)
    steps = as_steps(stored, spec)
    np.testing.assert_allclose(steps.action, unit, atol=1e-6)
    assert not steps.terminated.any()


@BOTH
def test_categories_are_refused(make, config):
    with pytest.raises(ValueError, match="expected reals"):
        make(n, (Component("a", "category", cardinality=2),), config)


def test_illegal_configurations_are_refused():
    for config, change in (
        (TD3BC, {"policy_period": 0}),
        (TD3BC, {"alpha": -1.0}),
        (IQL, {"expectile": 1.1}),
        (IQL, {"max_weight": 0.5}),
        (IQL, {"batch_size": 6}),
    ):
        with pytest.raises(ValueError, match="expected"):
            dataclasses.replace(config, **change)


# --- the loop -------------------------------------------------------------------------------------


DRAW = partial(replays.sample, batch_size=4)


def small_run(make, config, num_updates, devices=1, weights=optimizer.plain_adam, **options):
    """The states before and after each of some chunks of one update."""
    agent = make(n, SPEC, config, **options)
    loop = loops.offline_rl(agent, DRAW, weights(0.01), config.tau)
    params = jax.jit(agent.init)(jax.random.key(0), jnp.eye(n) if options else ())
    steps = some_steps()
    chunk = parallel.chunked(loop, 1, devices, replays.full(steps))
    states = [parallel.first_state(*jax.jit(loop.init)(params))]
    for _ in range(num_updates):
        state, report = jax.block_until_ready(chunk(states[-1], keys.derive(0, "update")))
        parallel.check_replicas(report.checksums)
        assert report.is_finite.all()
        states.append(state)
    return jax.device_get([state.learner for state in states])


@functools.cache
def td3_bc_learners():
    return small_run(td3_bc, TD3BC, 4, encoder=linear, is_frozen=False)


@pytest.mark.slow
def test_the_policy_and_the_slow_copy_move_at_every_second_update():
    learners = td3_bc_learners()
    for number, (before, after) in enumerate(itertools.pairwise(learners)):
        is_due = number % 2 == 1
        assert difference(before.params.critics, after.params.critics) > 1e-3
        assert difference(before.params.encoder, after.params.encoder) > 1e-3
        assert (difference(before.params.actor, after.params.actor) > 1e-3) == is_due
        assert (difference(before.target.params, after.target.params) > 0) == is_due
    assert int(learners[-1].target.num_updates) == 4


@pytest.mark.slow
def test_the_first_move_of_the_policy_is_adams_first():
    """The skipped update left no trace in the moments: Adam's first step is the learning rate.

    A zero gradient before it, which a masked loss would give, makes the step 0.744 of that.
    """
    _, first, second, *_ = td3_bc_learners()
    step = jax.tree.map(lambda x, y: np.abs(x - y), second.params.actor, first.params.actor)
    step = np.concatenate([np.ravel(x) for x in jax.tree.leaves(step)])
    assert step.max() == pytest.approx(0.01, rel=1e-3)
    assert np.median(step[step > 0]) == pytest.approx(0.01, rel=1e-2)


@pytest.mark.slow
def test_the_slow_copy_is_the_polyak_average():
    learners = td3_bc_learners()
    expected = soft_update(learners[1].target.params, learners[2].params, TD3BC.tau)
    assert difference(learners[2].target.params, expected) < 1e-6
    assert difference(learners[0].target.params, learners[0].params) == 0


def test_by_period_equals_adam_on_every_second_gradient():
    gradients = [jnp.array([float(g)]) for g in (1, -2, 3, 5, -1, 2)]
    params = {"often": jnp.zeros(1), "rarely": jnp.zeros(1), "never": jnp.ones(1)}
    adam = optax.adamw(0.1, weight_decay=0.1)
    mixed = optimizer.by_period(adam, {"often": 1, "rarely": 2, "never": 0})
    state = optimizer.init(mixed, params)
    for g in gradients:
        params, state = optimizer.apply(mixed, dict.fromkeys(params, g), state, params)
    for name, seen in (("often", gradients), ("rarely", gradients[1::2])):
        alone, state = jnp.zeros(1), optimizer.init(adam, jnp.zeros(1))
        for g in seen:
            alone, state = optimizer.apply(adam, g, state, alone)
        np.testing.assert_allclose(params[name], alone, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(params["never"], 1.0)  # not even decayed


@pytest.mark.slow
def test_iql_moves_at_every_update_and_a_frozen_encoder_at_none():
    learners = small_run(
        iql, IQL, 2, weights=partial(optax.adamw, weight_decay=0.1), encoder=linear, is_frozen=True
    )
    for before, after in itertools.pairwise(learners):
        for part in ("actor", "log_std", "value", "critics"):
            assert difference(getattr(before.params, part), getattr(after.params, part)) > 1e-4
        assert difference(before.target.params, after.target.params) > 1e-6
    np.testing.assert_array_equal(learners[-1].params.encoder, jnp.eye(n))
    assert learners[-1].target.params.encoder == ()
    assert learners[-1].target.params.actor == ()


@pytest.mark.slow
def test_one_device_computes_what_two_compute():
    one = td3_bc_learners()[2]
    two = small_run(td3_bc, TD3BC, 2, devices=2, encoder=linear, is_frozen=False)[2]
    assert difference(one.params, two.params) < 1e-5


def test_moments_of_stored_observations():
    obs = 5.0 + 3.0 * some_steps().obs
    moments = normalize.moments_of(obs)
    np.testing.assert_allclose(moments.mean, np.mean(obs, axis=0), rtol=1e-5)
    np.testing.assert_allclose(moments.variance, np.var(obs, axis=0), rtol=1e-5)
    assert int(moments.count) == obs.shape[0]
    with pytest.raises(ValueError, match=r"got nan at \[1, 0\], expected finite"):
        normalize.moments_of(np.array([[1.0], [np.nan]], np.float32))


# --- learning -------------------------------------------------------------------------------------

N, SEEDS = 2048, 2
ONE = (Component("action", "real", -1.0, 1.0),)
LEARN = {
    "hidden_size": 32,
    "critic_hidden_size": 32,
    "batch_size": 64,
    "learning_rate": 3e-3,
    "discount": 0.9,
    "tau": 0.02,
    "num_updates": 600,
}


def two_steps(seed=0):
    """Steps `[N]` of episodes of two, half of the actions near -1/2 and half near 1/2.

    The first action is fined half of itself and is where the second step stands, which pays 3/2 of
    that and the second action. So up is the better action at both steps, at the first for what
    follows alone: its own reward says down. Who clones does the average, 0.
    """
    rng = np.random.default_rng(seed)
    first, second = rng.choice([-0.5, 0.5], (2, N // 2)) + rng.normal(size=(2, N // 2)) / 10
    nought, one = np.zeros(N // 2), np.ones(N // 2)
    steps = Step(
        obs=np.concatenate([np.stack([nought, nought], -1), np.stack([one, first], -1)]),
        action=np.concatenate([first, second])[:, None],
        reward=np.concatenate([-0.5 * first, 1.5 * first + second]),
        terminated=np.arange(N) >= N // 2,
        final_obs=np.concatenate([np.stack([one, first], -1), np.stack([one, second], -1)]),
    )
    dtypes = Step(np.float32, np.float32, np.float32, bool, np.float32)
    return jax.tree.map(lambda x, dtype: jnp.asarray(x, dtype), steps, dtypes)


@functools.cache
def learned(make, config):
    """Actions `[2, seeds, 2]` at both steps, of lanes with the data and with myopic ones.

    To the myopic every step is the last: the control that a wrong bootstrap would pass.
    """
    config = dataclasses.replace(config, reward_scale=1.0, **LEARN)
    agent = make(2, ONE, config)
    draw = partial(replays.sample, batch_size=config.batch_size // 4)
    loop = loops.offline_rl(agent, draw, optimizer.plain_adam(config.learning_rate), config.tau)
    loop = loops.lanes(loop, data_axis=0)
    steps = two_steps()
    myopic = steps._replace(terminated=jnp.ones((N,), bool))
    kinds = [replays.full(kind) for kind in (steps, myopic) for _ in range(SEEDS)]
    data = jax.tree.map(lambda *x: jnp.stack(x), *kinds)
    params = jax.jit(jax.vmap(agent.init))(jax.random.split(jax.random.key(1), 2 * SEEDS))
    chunk = parallel.chunked(loop, config.num_updates, 1, data)
    state = parallel.first_state(*jax.jit(loop.init)(params))
    state, report = jax.block_until_ready(chunk(state, keys.derive(0, "update")))
    assert report.is_finite.all()
    seen = jnp.array([[0.0, 0.0], [1.0, 0.5]])
    act = lambda p: agent.policy.act(p, (), seen, jnp.zeros(2, bool), jax.random.key(0))[0]  # noqa: E731
    return np.asarray(jax.vmap(act)(state.learner.params)).reshape(2, SEEDS, 2)


@pytest.mark.slow
@BOTH
def test_the_better_action_is_found_where_cloning_averages(make, config):
    far_sighted, myopic = learned(make, config)
    assert (far_sighted > 0.3).all(), far_sighted
    # The second action is the same to both; the first is not.
    assert (myopic[:, 0] < -0.2).all(), myopic
    assert (myopic[:, 1] > 0.3).all(), myopic


@pytest.mark.slow
@BOTH
def test_cloning_averages(make, config):
    name = {td3_bc: "alpha", iql: "beta"}[make]
    actions = learned(make, dataclasses.replace(config, **{name: 0.0}))
    assert (np.abs(actions) < 0.15).all(), actions
