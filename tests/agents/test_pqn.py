"""PQN solves probes, masks and a memory world; learning finds again what acting saw; exploration is timed."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lengths import Lengths
from probe_lanes import FIVE, AnyProbe

import envs
from envs.types import Component
from envs.vector import VectorEnv, broadcast_params
from jaxagent.agents.pqn import batch_of, critic_of, epsilon_at, greedy, pqn
from jaxagent.agents.recollection import Seen
from jaxagent.config import MemoryConfig, PQNConfig, check
from jaxagent.data import normalize
from jaxagent.data.rollout import ActorState, rollout
from jaxagent.evaluate.episodes import play
from jaxagent.train import loops, optimizer, parallel
from jaxagent.types import Masked, Trajectory, see_legal, see_obs

CONFIG = PQNConfig(
    num_envs=32,
    num_steps=8,
    num_minibatches=4,
    num_updates=100,
    updates_per_chunk=100,
    learning_rate=1e-2,
    final_epsilon=0.5,  # all actions have a value to be found
    hidden_size=16,
    discount=0.7,
)
OBS = (Component("noise", "real"), Component("symbol", "category", cardinality=3))
THREE = (Component("move", "category", cardinality=3),)


def loop_of(env, config, memory=None, see=see_obs, **options):
    """The critic, and its loop."""
    critic = critic_of(env.obs_spec, env.action_spec, config, memory)
    adam = optimizer.radam(optimizer.linear_decay(config), config.max_gradient_norm)
    return critic, loops.on_policy(pqn(critic, config), VectorEnv(env), adam, config, see=see, **options)


def trained(env, task, config, memory=None, see=see_obs, devices=1):
    """The critic and the state after all updates; observations are seen as they are."""
    critic, loop = loop_of(env, config, memory, see, is_normalized=False)
    tasks = broadcast_params(task, config.num_envs)
    state = parallel.first_state(*jax.jit(loop.init)(jax.random.key(0), tasks))
    chunk = parallel.chunked(loop, config.updates_per_chunk, devices)
    for _ in range(config.num_chunks):
        state, report = chunk(state, jax.random.key(1))
    return critic, state, report


def played(env, task, critic, params, see=see_obs):
    """Mean return of the greedy policy."""
    tasks = broadcast_params(task, 256)
    run = jax.jit(lambda p, k: play(env, greedy(critic), p, tasks, k, see).returns)
    return float(run(params, jax.random.key(2)).mean())


# --- what it learns -------------------------------------------------------------------------------


@functools.cache
def solved():
    """A critic of the five probes, and a learner for each, as lanes of one program."""
    env = AnyProbe(FIVE)
    critic, loop = loop_of(env, CONFIG)
    tasks = jnp.broadcast_to(jnp.arange(5, dtype=jnp.int32)[:, None], (5, CONFIG.num_envs))
    lanes = loops.lanes(loop)
    state = parallel.first_state(*jax.jit(lanes.init)(jax.random.split(jax.random.key(0), 5), tasks))
    state, _ = parallel.chunked(lanes, CONFIG.updates_per_chunk, 1)(state, jax.random.key(1))
    return critic, state.learner


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "signals", "values"),
    [
        ("ConstantReward", [0.0], [[1, 1]]),
        ("ObservedReward", [-1.0, 1.0], [[-1, -1], [1, 1]]),
        ("DelayedReward", [0.0, 1.0], [[0.7, 0.7], [1, 1]]),  # the first is the discount
        ("ActionReward", [0.0], [[-1, 1]]),
        ("ObservedActionReward", [-1.0, 1.0], [[1, -1], [-1, 1]]),
    ],
)
def test_every_action_of_the_probes_has_its_value(name, signals, values):
    critic, learners = solved()
    learner = jax.tree.map(lambda x: x[FIVE.index(name)], learners)
    obs = normalize.apply(learner.normalizer, jnp.array(signals)[:, None])
    found, _ = critic.step(learner.params, (), obs, jnp.zeros(len(signals), bool))
    np.testing.assert_allclose(found, values, atol=0.1)


@pytest.mark.slow
def test_masks_are_obeyed_in_acting_and_evaluation():
    env, task = envs.make("probe/LegalActions")
    see = see_legal(env)
    config = dataclasses.replace(CONFIG, num_updates=40, updates_per_chunk=40)
    critic, state, report = trained(env, task, config, see=see)
    assert played(env, task, critic, state.learner.params, see) == 1.0
    assert float(report.metrics["train/without_legal_action"].total) == 0.0
    # One illegal action would have cost 10; half of the explored ones pay nothing.
    returned = report.metrics["train/return"]
    assert float((returned.total / returned.count).min()) >= 0.0


@pytest.mark.slow
@pytest.mark.parametrize(("trace", "num_updates", "worth"), [(0.0, 150, 20.0), (0.9, 600, 18.7)])
def test_time_limit_trap_keeps_who_bootstraps_through_truncation(trace, num_updates, worth):
    """To stay is worth 20. Returns with a trace hold what was explored, 2.5 % of second steps cash:

    V = (1 + 0.95 V) / 2 + (1 + 0.95 (0.1 V + 0.9 (0.975 (1 + 0.95 V) + 0.025 * 10))) / 2 = 18.7.
    """
    config = dataclasses.replace(
        CONFIG,
        num_steps=16,
        num_updates=num_updates,
        updates_per_chunk=num_updates,
        discount=0.95,
        reward_scale=0.1,
        trace=trace,
        final_epsilon=0.05,
    )
    env, task = envs.make("probe/TimeLimitTrap")
    critic, state, _ = trained(env, task, config)
    values, _ = critic.step(state.learner.params, (), jnp.zeros((1, 1)), jnp.zeros(1, bool))
    np.testing.assert_allclose(values[0] / config.reward_scale, [worth, 10.0], atol=0.3)


WORLDS = {"TMaze": ({"length": 2}, 40), "RepeatFirst": ({"num_cards": 4}, 200)}  # task, updates
MEMORY_CONFIG = PQNConfig(
    num_envs=32, num_steps=16, num_minibatches=4, learning_rate=3e-3, final_epsilon=0.1, hidden_size=32
)


@pytest.mark.fast("TMaze-gru")
@pytest.mark.parametrize(
    ("world", "kind"),
    [
        ("TMaze", "gru"),
        ("TMaze", "alone"),
        ("RepeatFirst", "none"),
        ("RepeatFirst", "stack"),
        ("RepeatFirst", "gru"),
        ("RepeatFirst", "lru"),
    ],
)
def test_what_was_seen_once_is_known_later_by_who_remembers(world, kind):
    task, num_updates = WORLDS[world]
    env, task = envs.make(f"memory/{world}", **task)
    config = dataclasses.replace(MEMORY_CONFIG, num_updates=num_updates, updates_per_chunk=num_updates)
    remembers = kind not in ("none", "alone")
    memory = None if kind == "alone" else MemoryConfig(kind, 16, context=4, last_action=remembers)
    critic, state, _ = trained(env, task, config, memory)
    reached = played(env, task, critic, state.learner.params)
    assert (reached > 0.95) if remembers else (reached < 0.3), reached


# --- what learning reads again --------------------------------------------------------------------

T, B = 12, 8
KINDS = {
    "alone": None,
    "none": MemoryConfig("none", 8, last_action=False),
    "stack": MemoryConfig("stack", 8, context=3),
    "gru": MemoryConfig("gru", 8),
    "lru": MemoryConfig("lru", 8, num_layers=2),
}
SHORT = PQNConfig(
    num_envs=4 * B,
    num_steps=T,
    num_epochs=2,
    num_minibatches=2,
    num_updates=4,
    updates_per_chunk=2,
    hidden_size=8,
)


class Symbols(Lengths):
    """The same, where an action is one of three symbols and its own reward."""

    action_spec = THREE

    def _reward(self, action):
        return action.astype(jnp.float32)


ENV = Symbols()


@functools.cache
def fresh(kind):
    """Critic and first parameters."""
    critic = critic_of(OBS, THREE, SHORT, KINDS[kind])
    return critic, jax.jit(critic.init)(jax.random.key(0))


@functools.cache
def segments(kind):
    """Critic, params, and of the second of two segments the first carry, the trajectory and acted values."""
    critic, params = fresh(kind)
    agent, vector = pqn(critic, SHORT), VectorEnv(ENV)

    def act(carry, obs, is_first, key):
        values, _ = critic.step(params, carry.recollection, obs, is_first)
        action, extras, carry = agent.act(params, carry, obs, is_first, key)
        return action, {"is_first": is_first, **extras, "values": values}, carry

    @jax.jit
    def run(actor, key):
        return rollout(vector, act, key, actor, T)

    env_state = jax.jit(vector.reset)(jax.random.key(0), broadcast_params(ENV.default_params, B))
    actor, _ = run(ActorState(env_state, agent.init_carry(B), jnp.ones(B, bool)), jax.random.key(1))
    _, trajectory = run(actor, jax.random.key(2))
    return critic, params, actor.carry, trajectory


@functools.cache
def replayed(kind):
    """Values `[T + 1, B, A]` of a segment and of the observation behind it, and one-step targets."""
    critic, params, carry, t = segments(kind)
    config = dataclasses.replace(SHORT, trace=0.0, discount=0.5)

    def longer(x, last):
        return jnp.concatenate([x, last[None]])

    @jax.jit
    def run(carry):
        seen = Seen(
            longer(t.obs, t.final_obs[-1]),
            longer(t.action, t.action[-1]),
            (),
            longer(t.extras["is_first"], jnp.zeros(B, bool)),
        )
        return critic.unroll(params, carry, seen), batch_of(critic, config, params, carry, t)

    return run(carry.recollection)


@pytest.mark.fast("gru")
@pytest.mark.parametrize("kind", KINDS)
def test_the_values_acted_on_are_found_again(kind):
    *_, carry, t = segments(kind)
    found = np.asarray(replayed(kind)[0][:-1])
    begins = np.asarray(t.extras["is_first"])
    assert {1, 2, 5} <= {n for lane in range(B) for n in np.diff(np.flatnonzero(begins[:, lane]))}
    np.testing.assert_allclose(found, t.extras["values"], atol=1e-5)
    assert found.std() > 0.1
    assert (~begins[0]).any()  # some lanes go on from the segment before
    np.testing.assert_array_equal(carry.num_steps, T)


@pytest.mark.fast("gru")
@pytest.mark.parametrize("kind", KINDS)
def test_targets_bootstrap_from_what_acting_on_would_have_said(kind):
    """Q-learning step by step; at a truncation and at the end from the observation that was not acted on."""
    t = segments(kind)[-1]
    values, batch = jax.tree.map(np.asarray, replayed(kind))
    terminated, truncated, reward = map(np.asarray, (t.terminated, t.truncated, t.reward))
    going_on = reward + 0.5 * values[1:].max(-1)
    is_next = ~(terminated | truncated)
    np.testing.assert_allclose(batch.target[is_next], going_on[is_next], atol=1e-5)
    np.testing.assert_allclose(batch.target[terminated], reward[terminated], atol=1e-6)
    cut = truncated[:-1] & ~terminated[:-1]
    assert cut.sum() > 5
    # The values after a reset are of another episode.
    assert (np.abs(batch.target - going_on)[:-1][cut] > 1e-4).mean() > 0.9
    assert (np.abs(batch.target - reward)[:-1][cut] > 1e-4).mean() > 0.9
    assert is_next[-1].any()  # there the segment's end is behind the last step
    assert batch.is_known.all()


def masked_trajectory(terminated, truncated):
    """Three steps of one lane, of rewards 1, 2 and 4; in the second state only the last action is legal."""
    column = lambda x, dtype: jnp.array(x, dtype)[:, None]  # noqa: E731
    legal = jnp.array([[True, True, False], [False, False, True], [True, False, False]])[:, None]
    obs = jnp.array([[0.1, 0.0], [-0.4, 1.0], [0.7, 2.0], [1.3, 0.0]])[:, None]
    action = column([0, 2, 0], jnp.int32)
    ends = column(terminated, bool), column(truncated, bool)
    return Trajectory(obs[:3], action, column([1, 2, 4], jnp.float32), *ends, obs[1:], {"legal": legal})


@pytest.mark.fast("0.6")
@pytest.mark.parametrize("trace", [0.0, 0.6])
def test_nothing_is_bootstrapped_from_actions_that_are_not_known_to_be_legal(trace):
    critic, params = fresh("alone")
    config = dataclasses.replace(SHORT, trace=trace, discount=0.5)
    make = jax.jit(functools.partial(batch_of, critic, config))
    t = masked_trajectory([0, 0, 0], [0, 0, 0])
    q = np.asarray(jax.jit(critic.unroll)(params, (), Seen(t.obs, t.action, (), ())))[:, 0]
    assert q[1].argmax() != 2 or q[2].argmax() != 0, "the masks must matter"
    batch = make(params, (), t)
    # Behind the last step the mask is unknown: the return ends before it, with its state's value.
    second = 2 + 0.5 * q[2, 0]
    first = 1 + 0.5 * ((1 - trace) * q[1, 2] + trace * second)
    np.testing.assert_allclose(batch.target[:2, 0], [first, second], rtol=1e-5)
    np.testing.assert_array_equal(batch.is_known[:, 0], [True, True, False])
    # So it is behind a truncation; what terminates is known.
    batch = make(params, (), masked_trajectory([0, 0, 1], [0, 1, 1]))
    np.testing.assert_allclose(batch.target[::2, 0], [1 + 0.5 * q[1, 2], 4], rtol=1e-5)
    np.testing.assert_array_equal(batch.is_known[:, 0], [True, False, True])
    # Nothing is learned of a step without a target.
    agent = pqn(critic, config)
    flat = jax.tree.map(lambda x: x[:, 0], batch)
    wild = flat._replace(target=flat.target.at[1].set(1e6))
    np.testing.assert_array_equal(*(jax.jit(agent.loss)(params, b)[0] for b in (flat, wild)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["alone", "gru", "lru", "stack"])
def test_one_device_equals_four(kind):
    (_, one, _), (_, four, _) = (
        trained(ENV, ENV.default_params, SHORT, KINDS[kind], devices=n) for n in (1, 4)
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5),
        one.learner.params,
        four.learner.params,
    )
    steps = [np.asarray(s.shards.actor.carry.num_steps).reshape(-1) for s in (one, four)]
    np.testing.assert_array_equal(*steps)
    np.testing.assert_array_equal(steps[0], SHORT.num_updates * T)


# --- how it explores ------------------------------------------------------------------------------


def test_epsilon_falls_linearly_with_the_steps_of_a_lane():
    config = PQNConfig(num_steps=10, num_updates=120, epsilon=0.9, final_epsilon=0.1, epsilon_decay=0.25)
    assert config.decay_steps == 300
    found = epsilon_at(config, jnp.array([0, 75, 150, 300, 301, 10_000], jnp.int32))
    np.testing.assert_allclose(found, [0.9, 0.7, 0.5, 0.1, 0.1, 0.1], atol=1e-6)


def test_each_lane_explores_by_its_own_clock_among_legal_actions():
    """Lanes at the beginning draw uniformly, those behind the decay are greedy; both count on."""
    config = dataclasses.replace(SHORT, epsilon=1.0, final_epsilon=0.0)
    critic, params = fresh("alone")
    agent = pqn(critic, config)
    late = jnp.arange(3000) % 2 == 1
    carry = agent.init_carry(3000)._replace(num_steps=jnp.where(late, 1000, 0))
    obs, is_first = jnp.tile(jnp.array([[0.3, 1.0]]), (3000, 1)), jnp.ones(3000, bool)
    masks = jnp.array([[True, True, True], [False, True, True], [False, False, False]])
    act = jax.jit(agent.act)
    values, _ = jax.jit(critic.step)(params, (), obs[:1], is_first[:1])
    for i, (mask, legal) in enumerate(zip(masks, ([0, 1, 2], [1, 2], [0]), strict=True)):
        seen = Masked(obs, jnp.broadcast_to(mask, (3000, 3)))
        action, extras, after = act(params, carry, seen, is_first, jax.random.key(i))
        share = np.bincount(action[~late], minlength=3) / 1500
        np.testing.assert_allclose(share[legal], 1 / len(legal), atol=0.05)
        assert set(np.unique(action[late])) == {legal[int(np.argmax(values[0, jnp.array(legal)]))]}
        np.testing.assert_array_equal(extras["legal"], seen.legal)
        np.testing.assert_array_equal(after.num_steps, carry.num_steps + 1)


# --- what it refuses ------------------------------------------------------------------------------


def test_actions_that_are_not_one_category_are_refused():
    real = Component("force", "real", -1.0, 1.0)
    for spec in ((real,), THREE * 2, (*THREE, real)):
        with pytest.raises(ValueError, match=r"PQN: got actions .* expected one category; use PPO"):
            critic_of(OBS, spec, CONFIG)


def test_minibatches_that_cut_lanes_of_a_memory_are_refused():
    config = dataclasses.replace(SHORT, num_envs=4)
    check(config)
    pqn(critic_of(OBS, THREE, config), config)
    with pytest.raises(ValueError, match=r"num_envs / shards: got 1, expected a multiple of 2"):
        pqn(critic_of(OBS, THREE, config, MemoryConfig()), config)


@pytest.mark.parametrize(
    "change",
    [{"epsilon": 1.5}, {"epsilon_decay": 0.0}, {"trace": -0.1}, {"num_envs": 6}, {"max_gradient_norm": 0.0}],
)
def test_illegal_configurations_are_named(change):
    (field,) = change
    with pytest.raises(ValueError, match=rf"PQNConfig\.{field}: got .*, expected"):
        check(dataclasses.replace(CONFIG, **change))
