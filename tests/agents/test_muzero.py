"""MuZero: batches by hand, losses in float64, gradients, three probes."""

import dataclasses
import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from probe_lanes import AnyProbe

import envs
from envs.vector import VectorEnv
from jaxagent import mcts
from jaxagent.agents import actions, latent_heads, muzero, planning
from jaxagent.agents.muzero import MuZeroStep
from jaxagent.config import LatentConfig, MuZeroConfig, SearchConfig, TrunkConfig
from jaxagent.data import replay as replays
from jaxagent.nn import latent_model
from jaxagent.nn.latent_model import rescale
from jaxagent.objectives.value import squash
from jaxagent.train import loops, parallel

SMALL = LatentConfig(TrunkConfig(width=16, num_blocks=1), num_bins=21, reach=4.0, projection_size=8)
CONFIG = MuZeroConfig(
    num_envs=8,
    num_steps=4,
    num_gradient_steps=4,
    batch_size=32,
    capacity=8192,
    warmup_steps=128,
    num_updates=250,
    updates_per_chunk=125,
    learning_rate=3e-3,
    discount=0.7,
    unroll=2,
    num_td_steps=2,
    tau=0.1,
    model=SMALL,
    search=SearchConfig(num_simulations=8, num_considered=4),
)
K, B, A = 3, 4, 2


def windows(terminated=(), truncated=(), length=6, seed=0):
    """Windows `[L, B]` with ends at the (time, lane) named."""
    rng = np.random.default_rng(seed)
    real = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731

    def flags(where):
        out = np.zeros((length, B), bool)
        for at in where:
            out[at] = True
        return jnp.asarray(out)

    weights = jax.nn.softmax(real(length, B, A))
    action = jnp.asarray(rng.integers(0, A, (length, B)), jnp.int32)
    return MuZeroStep(
        real(length, B, 3), action, real(length, B), flags(terminated), flags(truncated), weights
    )


# --- batches --------------------------------------------------------------------------------------


def test_what_follows_a_termination_is_zero_and_what_follows_a_clock_is_unknown():
    steps = windows(terminated=[(1, 0), (0, 2)], truncated=[(1, 1), (2, 2)])
    returns = jnp.arange(1.0, 17.0).reshape(4, B)
    batch = muzero.make_batch(K, steps, returns, steps.weights)
    yes, no = True, False
    np.testing.assert_array_equal(
        batch.is_alive.T, [[yes, yes, no, no], [yes, yes, no, no], [yes, no, no, no], [yes] * 4]
    )
    # Lane 2 ended before its clock ran out, which then belongs to the next episode.
    np.testing.assert_array_equal(batch.is_known.T, [[yes] * 4, [yes, yes, no, no], [yes] * 4, [yes] * 4])
    np.testing.assert_array_equal(batch.value[:, 0], [1, 5, 0, 0])
    np.testing.assert_array_equal(batch.value[:, 2], [3, 0, 0, 0])
    np.testing.assert_array_equal(batch.value[:, 3], returns[:, 3])
    np.testing.assert_array_equal(batch.reward[:, 0], [*steps.reward[:2, 0], 0])
    np.testing.assert_array_equal(batch.reward[:, 2], [steps.reward[0, 2], 0, 0])
    assert batch.action.shape == (K, B)
    assert batch.obs.shape == (K + 1, B, 3)


@pytest.mark.slow
def test_targets_bootstrap_from_the_slow_copy_and_search_a_share_anew():
    config = dataclasses.replace(CONFIG, reanalyse=0.5, unroll=K, num_td_steps=2)
    agent, model, params = agent_of(config)
    slow = jax.tree.map(lambda x: x + 0.05, params)
    steps = windows(terminated=[(2, 1)])
    batch = jax.jit(agent.targets)(params, slow, steps, jax.random.key(0))
    read = partial(latent_heads.evaluate, model, config.model, slow)
    value = np.stack([np.asarray(read(obs)[1], np.float64) for obs in steps.obs])
    expected = steps.reward[0] + 0.7 * (steps.reward[1] + 0.7 * value[2])
    np.testing.assert_allclose(batch.value[0], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(batch.value[1, 1], steps.reward[1, 1] + 0.7 * steps.reward[2, 1], rtol=1e-4)
    same = np.isclose(batch.weights, steps.weights[: K + 1]).all(-1)
    assert not same[:, :2].any()  # half of the four windows were searched
    assert same[:, 2:].all()
    np.testing.assert_allclose(batch.weights.sum(-1), 1.0, rtol=1e-5)
    none = dataclasses.replace(config, reanalyse=0.0)
    kept = jax.jit(agent_of(none)[0].targets)(params, slow, steps, jax.random.key(0))
    np.testing.assert_array_equal(kept.weights, steps.weights[: K + 1])


# --- losses ---------------------------------------------------------------------------------------


@functools.cache
def agent_of(config):
    spec = (envs.types.Component("action", "category", cardinality=A),)
    agent = muzero.muzero((3,), spec, config)
    model = muzero.model_of((3,), spec, config.model)
    params = jax.jit(agent.init)(jax.random.key(0))
    noise = jax.random.normal(jax.random.key(1), (sum(x.size for x in jax.tree.leaves(params)),))
    leaves, structure = jax.tree.flatten(params)
    cuts = np.cumsum([x.size for x in leaves])[:-1]
    parts = [x + 0.2 * e.reshape(x.shape) for x, e in zip(leaves, jnp.split(noise, cuts), strict=True)]
    return agent, model, jax.tree.unflatten(structure, parts)


def a_batch(config, **ends):
    steps = windows(length=config.unroll + 1 + config.num_td_steps, **ends)
    returns = steps.reward[: config.unroll + 1]
    return muzero.make_batch(config.unroll, steps, returns, steps.weights)


def log_softmax(x):
    x = np.asarray(x, np.float64)
    return x - x.max(-1, keepdims=True) - np.log(np.exp(x - x.max(-1, keepdims=True)).sum(-1, keepdims=True))


def two_bins(target):
    """Weights `[..., V]` of numbers, written anew."""
    size, reach = SMALL.num_bins, SMALL.reach
    place = (np.asarray(squash(target), np.float64) / reach + 1) / 2 * size - 0.5
    place = np.clip(place, 0, size - 1)
    grid = np.arange(size)
    return np.clip(1 - np.abs(grid - place[..., None]), 0, None)


def test_losses_in_float64():
    """Every head at every unrolled state, one call of the model at a time."""
    config = dataclasses.replace(CONFIG, unroll=K)
    agent, model, params = agent_of(config)
    batch = a_batch(config, terminated=[(1, 0)], truncated=[(0, 1)])
    total, found = jax.jit(agent.loss)(params, batch)
    latent = model.encode(params, batch.obs[0])
    sums = dict.fromkeys(("policy", "value", "reward", "consistency"), 0.0)
    for k in range(K + 1):
        alive, known = np.asarray(batch.is_alive[k]), np.asarray(batch.is_known[k])
        logits, value = model.judge(params, latent)
        found_weights = np.asarray(batch.weights[k], np.float64)
        sums["policy"] -= (alive * (found_weights * log_softmax(logits)).sum(-1)).sum()
        sums["value"] -= (known * (two_bins(batch.value[k]) * log_softmax(value)).sum(-1)).sum()
        if k == K:
            break
        latent, reward = model.step(params, latent, batch.action[k])
        sums["reward"] -= (known * (two_bins(batch.reward[k]) * log_softmax(reward)).sum(-1)).sum()
        told = np.asarray(model.predict(params, model.project(params, latent)), np.float64)
        seen = model.project(params, model.encode(params, batch.obs[k + 1]))
        seen = np.asarray(seen, np.float64)
        cosine = (told * seen).sum(-1) / np.linalg.norm(told, axis=-1)
        cosine /= np.linalg.norm(seen, axis=-1)
        sums["consistency"] += (np.asarray(batch.is_alive[k + 1]) * (1 - cosine)).sum()
    alive, known = np.asarray(batch.is_alive), np.asarray(batch.is_known)
    counts = {
        "policy": alive.sum(),
        "value": known.sum(),
        "reward": known[:-1].sum(),
        "consistency": alive[1:].sum(),
    }
    for name, value in sums.items():
        got = float(found[f"train/loss/{name}"])
        np.testing.assert_allclose(got, value / counts[name], rtol=1e-3, err_msg=name)
    weights = {"policy": 1.0, "value": 0.25, "reward": 1.0, "consistency": 2.0}
    expected = sum(weights[n] * sums[n] / counts[n] for n in sums)
    np.testing.assert_allclose(float(total), expected, rtol=1e-3)


def gradients(config, **changes):
    agent, _, params = agent_of(dataclasses.replace(config, **changes))
    batch = a_batch(config)
    grads = jax.jit(jax.grad(lambda p: agent.loss(p, batch)[0]))(params)["params"]
    return {
        name: np.sqrt(sum(float((x**2).sum()) for x in jax.tree.leaves(part))) for name, part in grads.items()
    }


@pytest.mark.slow
def test_the_consistency_loss_alone_moves_the_model_and_leaves_the_heads():
    only = {"value_weight": 0.0, "reward_weight": 0.0}
    with_loss = gradients(CONFIG, **only)
    without = gradients(CONFIG, consistency_weight=0.0, **only)
    assert with_loss["predictor"] > 1e-3
    assert with_loss["projector"] > 1e-3
    assert with_loss["transition"] != pytest.approx(without["transition"], rel=1e-2)
    assert without["predictor"] == without["projector"] == 0.0
    assert with_loss["reward_head"] == with_loss["value_head"] == 0.0


@pytest.mark.slow
def test_the_target_of_the_consistency_loss_gets_no_gradient():
    """What the truth is projected to is a constant: changing it by hand moves no gradient to it."""
    _, model, params = agent_of(CONFIG)
    latent = model.encode(params, jnp.ones((1, 2, 3)).reshape(2, 3))[None]

    def loss(obs):
        return jnp.sum(muzero._consistency(model, params, latent, obs))

    obs = jnp.asarray(np.random.default_rng(0).normal(size=(1, 2, 3)), jnp.float32)
    np.testing.assert_array_equal(jax.grad(loss)(obs), 0.0)
    assert float(loss(obs)) > 0.0


@pytest.mark.slow
def test_the_gradient_is_halved_at_every_unrolled_step(monkeypatch):
    """Of the reward two steps later alone, the encoder gets half of what it would without."""
    config = dataclasses.replace(CONFIG, unroll=2, value_weight=0.0, consistency_weight=0.0)
    _, model, params = agent_of(config)
    batch = a_batch(config)
    nothing, last = jnp.zeros_like(batch.is_alive), jnp.zeros_like(batch.is_known).at[1].set(True)
    batch = batch._replace(is_alive=nothing, is_known=last)

    def gradient():
        loss = lambda p: muzero.unrolled_losses(model, config, p, batch)["reward"]  # noqa: E731
        return jax.grad(loss)(params)["params"]["encoder"]

    half = gradient()
    monkeypatch.setattr(muzero, "TRANSITION_GRADIENT", 1.0)
    whole = gradient()
    for one, two in zip(jax.tree.leaves(half), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(one, 0.5 * two, rtol=1e-4, atol=1e-7)
    assert max(float(np.abs(x).max()) for x in jax.tree.leaves(whole)) > 1e-3


# --- the model ------------------------------------------------------------------------------------


def test_numbers_survive_their_bins():
    numbers = jnp.linspace(-10.0, 10.0, 41)
    logits = jnp.log(jnp.asarray(two_bins(numbers), jnp.float32) + 1e-12)
    np.testing.assert_allclose(latent_heads.to_scalar(SMALL, logits), numbers, rtol=2e-3, atol=2e-3)


def test_latents_lie_between_0_and_1_and_a_constant_one_is_finite():
    latent = jnp.array([[3.0, -1.0, 1.0], [2.0, 2.0, 2.0]])
    np.testing.assert_allclose(rescale(latent), [[1, 0, 0.5], [0, 0, 0]])
    assert np.isfinite(jax.grad(lambda x: rescale(x).sum())(latent)).all()


def test_the_gradient_of_a_rescaled_latent_is_jaxs():
    latent, weight = (
        jnp.array([[0.3, 0.0, 0.0, 0.7], [-1.25, 2.5, 2.5, 2.5]]),
        jnp.array([[1.0, -2.0, 0.5, 3.0]]),
    )

    def plain(x):
        low, high = x.min(1, keepdims=True), x.max(1, keepdims=True)
        return jnp.sum(weight * (x - low) / (high - low))

    ours = jax.grad(lambda x: jnp.sum(weight * rescale(x)))(latent)
    np.testing.assert_allclose(ours, jax.grad(plain)(latent), rtol=1e-6)


def test_the_ends_of_a_latent_are_found_where_another_program_rounded_them(monkeypatch):
    latent = np.array([[0.3, 0.0, 0.1, 0.7]], np.float32)
    low, high = latent.min(1, keepdims=True), np.nextafter(latent.max(1, keepdims=True), np.float32(1))
    monkeypatch.setattr(latent_model, "_ends", lambda x: (low, high))
    _, shares = latent_model._ends_jvp((latent,), (np.array([[1.0, 2.0, 3.0, 4.0]], np.float32),))
    np.testing.assert_array_equal(shares, [[[2.0]], [[4.0]]])  # not 0 / 0


@pytest.mark.slow
@pytest.mark.parametrize("channels", [0, 4])
def test_the_action_reaches_the_next_latent(channels):
    trunk = TrunkConfig(channels=channels, width=8, num_blocks=1)
    config = dataclasses.replace(SMALL, trunk=trunk)
    spec = (envs.types.Component("action", "category", cardinality=3),)
    model = muzero.model_of((5, 5, 2), spec, config)
    params = model.init(jax.random.key(0))
    latent = model.encode(params, jax.random.normal(jax.random.key(1), (3, 5, 5, 2)))
    same = jnp.broadcast_to(latent[:1], latent.shape)
    after, reward = model.step(params, same, jnp.arange(3))
    assert after.shape == latent.shape
    assert reward.shape == (3, SMALL.num_bins)
    assert np.abs(after[0] - after[1]).max() > 1e-3
    assert np.abs(after[1] - after[2]).max() > 1e-3


@pytest.mark.slow
def test_search_in_the_model_equals_a_plain_search_of_it():
    _, model, params = agent_of(CONFIG)
    obs = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), jnp.float32)
    plan = planning.gumbel_search(CONFIG.search)
    found = muzero.decide(model, plan, CONFIG, params, obs, jax.random.key(2))
    logits, value = latent_heads.evaluate(model, SMALL, params, obs)
    root = mcts.RootFnOutput(prior_logits=logits, value=value, embedding=model.encode(params, obs))
    step = muzero.learned_model(model, SMALL, discount=0.7)
    output = mcts.gumbel_muzero_policy(params, jax.random.key(2), root, step, 8, max_num_considered_actions=4)
    np.testing.assert_array_equal(found.action, output.action)
    np.testing.assert_array_equal(found.weights, output.action_weights)


def test_actions_that_are_no_category_are_refused():
    with pytest.raises(ValueError, match="expected one category"):
        muzero.muzero((3,), envs.make("classic/Pendulum-v1")[0].action_spec, CONFIG)


# --- learning -------------------------------------------------------------------------------------

PROBES = ("DelayedReward", "ObservedActionReward", "TimeLimitTrap")


@functools.cache
def learned():
    """A learner a probe, in turn in one program: the model and parameters `[3, ...]`."""
    env = AnyProbe(PROBES, TimeLimitTrap={"cash": 2.0})
    agent = muzero.muzero(env.obs_shape, env.action_spec, CONFIG)
    loop = loops.lanes(
        loops.replay(
            agent,
            VectorEnv(env),
            optax.adam(CONFIG.learning_rate),
            CONFIG,
            explore=actions.uniform(env.action_spec),
            as_steps=muzero.as_steps,
            slow=loops.moving_average(lambda p: p, CONFIG.tau),
            memory=replays.windows(muzero.window(CONFIG)),
            is_normalized=False,
            in_turn=True,
        ),
        in_turn=True,
    )
    size = len(PROBES), CONFIG.num_envs
    tasks = jnp.broadcast_to(jnp.arange(size[0], dtype=jnp.int32)[:, None], size)
    lane_keys = jax.random.split(jax.random.key(0), size[0])
    state = parallel.first_state(*jax.jit(loop.init)(lane_keys, tasks))
    chunk = parallel.chunked(loop, CONFIG.updates_per_chunk, 1)
    for _ in range(CONFIG.num_updates // CONFIG.updates_per_chunk):
        state, _ = chunk(state, jax.random.key(1))
    return muzero.model_of(env.obs_shape, env.action_spec, SMALL), state.learner.params


def of_probe(name, *signals):
    """Values and action probabilities at observations."""
    model, params = learned()
    own = jax.tree.map(lambda x: x[PROBES.index(name)], params)
    obs = jnp.array(signals, jnp.float32)[:, None]
    logits, value = latent_heads.evaluate(model, SMALL, own, obs)
    return np.asarray(value), np.asarray(jax.nn.softmax(logits))


@pytest.mark.slow
def test_delayed_reward():
    """The first value is the discount: rewards, ends and bootstraps are where they belong."""
    value, _ = of_probe("DelayedReward", 0.0, 1.0)
    np.testing.assert_allclose(value, [CONFIG.discount, 1.0], atol=0.08)


@pytest.mark.slow
def test_observed_action_reward():
    """Policy and value together, with two observations and two actions."""
    value, probs = of_probe("ObservedActionReward", -1.0, 1.0)
    assert probs[0, 0] > 0.9
    assert probs[1, 1] > 0.9
    np.testing.assert_allclose(value, [1.0, 1.0], atol=0.2)


@pytest.mark.slow
def test_the_time_limit_is_no_end():
    """Staying is worth up to 1 / (1 - 0.7), the cash 2.

    Who takes the clock for an end believes that staying is worth at most 1.7, and cashes.
    """
    value, probs = of_probe("TimeLimitTrap", 0.0)
    assert probs[0, 0] > 0.9
    assert 2.3 < value[0] < 3.6
