"""Which agent takes which observations and actions: trained right, or refused in a sentence."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.probes import Probe
from envs.types import Component, blank_action
from envs.vector import VectorEnv, broadcast_params
from jaxagent.agents import actions, actor_critic
from jaxagent.agents.actor_critic import greedy, ppo, remembering, towers
from jaxagent.agents.alphazero import alphazero
from jaxagent.agents.iql import iql
from jaxagent.agents.muzero import muzero
from jaxagent.agents.pqn import critic_of, pqn
from jaxagent.agents.rainbow import rainbow
from jaxagent.agents.sequence_actor import sequence_actor
from jaxagent.agents.soft_actor_critic import as_steps, soft_actor_critic
from jaxagent.agents.td3_bc import td3_bc
from jaxagent.agents.world_model import ModelStep, world_model
from jaxagent.config import (
    AlphaZeroConfig,
    IQLConfig,
    MemoryConfig,
    MuZeroConfig,
    PPOConfig,
    PQNConfig,
    RainbowConfig,
    SACConfig,
    TD3BCConfig,
    TransformerConfig,
    TrunkConfig,
)
from jaxagent.evaluate.episodes import play
from jaxagent.nn.policy_value import policy_value
from jaxagent.nn.sequence_model import token_model
from jaxagent.nn.transformer import Vocabulary
from jaxagent.tokens import component
from jaxagent.train import loops, optimizer, parallel
from jaxagent.types import Masked, see_legal, see_obs

CONFIG = PPOConfig(
    num_envs=64,
    num_steps=1,
    num_epochs=4,
    num_minibatches=1,
    num_updates=60,
    updates_per_chunk=60,
    learning_rate=1e-2,
    hidden_size=16,
    initial_log_std=-1.0,
)


def trained(name, see):
    """Mean return of the greedy policy that PPO learned, and the last update's metrics."""
    env, task = envs.make(f"probe/{name}")
    agent = ppo(env.obs_spec, env.action_spec, CONFIG)
    adam = optimizer.adam(CONFIG.learning_rate, CONFIG.max_gradient_norm)
    loop = loops.on_policy(agent, VectorEnv(env), adam, CONFIG, see=see(env), is_normalized=False)
    tasks = broadcast_params(task, CONFIG.num_envs)
    state = parallel.first_state(*jax.jit(loop.init)(jax.random.key(0), tasks))
    state, report = parallel.chunked(loop, CONFIG.updates_per_chunk, 1)(state, jax.random.key(1))
    policy = greedy(towers(env.obs_spec, env.action_spec, CONFIG), env.action_spec)
    episodes = jax.jit(lambda p, t, k: play(env, policy, p, t, k, see(env)))
    returns = episodes(state.learner.params, tasks, jax.random.key(2)).returns
    return float(returns.mean()), report.metrics


@pytest.mark.fast("TwoCategories", "LegalActions")
@pytest.mark.parametrize(
    ("name", "see", "best"),
    [
        ("TwoCategories", lambda env: see_obs, 1.0),
        ("CategoryAndReal", lambda env: see_obs, 1.0),
        ("LegalActions", see_legal, 1.0),
    ],
    ids=["TwoCategories", "CategoryAndReal", "LegalActions"],
)
def test_ppo_learns_actions_of_every_kind(name, see, best):
    reached, metrics = trained(name, see)
    assert best - 0.1 < reached <= best + 1e-6
    if name == "LegalActions":
        assert float(metrics["train/without_legal_action"].total) == 0.0


# --- distributions of actions ----------------------------------------------------------------------

THREE = Component("first", "category", cardinality=3)
TWO = Component("second", "category", cardinality=2)
REAL = Component("pointer", "real", -2.0, 6.0)


def drawn(spec, outputs, legal=()):
    log_std = jnp.full((sum(c.kind == "real" for c in spec),), -0.5)
    dist = actions.distribution(spec, outputs, log_std, legal)
    keys = jax.random.split(jax.random.key(3), 4000)
    return dist, np.asarray(jax.jit(jax.vmap(dist.sample))(keys))


def test_several_categories_are_independent_with_their_own_logits():
    outputs = jnp.array([[0.0, 1.0, -1.0, 0.5, 2.0]])
    dist, events = drawn((THREE, TWO), outputs)
    first, second = np.asarray(jax.nn.softmax(outputs[0, :3])), np.asarray(jax.nn.softmax(outputs[0, 3:]))
    assert events.shape == (4000, 1, 2)
    assert events.dtype == np.int32
    table = np.zeros((3, 2))
    np.add.at(table, (events[:, 0, 0], events[:, 0, 1]), 1 / 4000)
    np.testing.assert_allclose(table, np.outer(first, second), atol=0.03)
    for a, b in np.ndindex(3, 2):
        found = dist.log_prob(jnp.array([[a, b]]))[0]
        np.testing.assert_allclose(found, np.log(first[a] * second[b]), rtol=1e-5)
    entropy = -sum((p * np.log(p)).sum() for p in (first, second))
    np.testing.assert_allclose(dist.entropy()[0], entropy, rtol=1e-5)
    np.testing.assert_array_equal(dist.mode(), [[1, 1]])


def test_categories_beside_reals_keep_their_columns():
    spec = (REAL, THREE)
    dist, events = drawn(spec, jnp.array([[0.25, 0.0, 1.0, -1.0]]))
    assert events.dtype == np.float32
    assert set(events[:, 0, 1]) == {0.0, 1.0, 2.0}
    np.testing.assert_allclose(events[:, 0, 0].mean(), 0.25, atol=0.05)
    np.testing.assert_allclose(events[:, 0, 0].std(), np.exp(-0.5), atol=0.05)
    np.testing.assert_array_equal(dist.mode(), [[0.25, 1.0]])
    at = dist.log_prob(jnp.array([[0.25, 1.0]]))[0]
    expected = (
        -0.5 * np.log(2 * np.pi) + 0.5 + np.log(np.asarray(jax.nn.softmax(jnp.array([0.0, 1.0, -1.0]))))[1]
    )
    np.testing.assert_allclose(at, expected, rtol=1e-5)
    # A raw real of -1 and 1 is the end of its box; categories stay.
    ends = actions.to_env_action(jnp.array([[-1.0, 2.0], [1.0, 0.0], [3.0, 1.0]]), spec)
    np.testing.assert_allclose(ends, [[-2.0, 2.0], [6.0, 0.0], [6.0, 1.0]])
    np.testing.assert_allclose(actions.encode(jnp.array([[0.5, 2.0]]), spec), [[0.5, 0, 0, 1]])


def test_masks_hide_what_is_illegal_of_each_component():
    legal = jnp.array([[True, False, True, False, True]])
    dist, events = drawn((THREE, TWO), jnp.zeros((1, 5)), legal)
    assert set(map(tuple, events[:, 0])) == {(0, 1), (2, 1)}
    np.testing.assert_allclose(dist.entropy()[0], np.log(2.0), rtol=1e-5)
    np.testing.assert_allclose(dist.log_prob(jnp.array([[2, 1]]))[0], np.log(0.5), rtol=1e-5)
    gradient = jax.grad(lambda x: actions.distribution((THREE,), x, (), legal[:, :3]).entropy().sum())
    found = np.asarray(gradient(jnp.array([[0.3, 5.0, -0.2]])))
    assert np.isfinite(found).all()
    assert found[0, 1] == 0.0


def test_where_nothing_is_legal_the_first_action_is_taken():
    dist, events = drawn((THREE,), jnp.array([[0.0, 4.0, 0.0]]), jnp.zeros((1, 3), bool))
    assert set(events.reshape(-1)) == {0}
    np.testing.assert_allclose(dist.log_prob(jnp.array([0]))[0], 0.0, atol=1e-6)


def test_steps_without_a_legal_action_are_counted():
    spec = (Component("signal", "real"),)
    agent = ppo(spec, (THREE,), CONFIG)
    params = agent.init(jax.random.key(0))
    legal = jnp.array([[True, True, False], [False, False, False]])
    obs = jnp.ones((2, 1))
    action, extras, _ = agent.act(params, (), Masked(obs, legal), jnp.ones(2, bool), jax.random.key(1))
    assert action[1] == 0
    assert action[0] < 2
    zeros = jnp.zeros(2)
    batch = actor_critic.PPOBatch(obs, action, extras["log_prob"], zeros, zeros, zeros, legal)
    _, metrics = agent.loss(params, batch)
    np.testing.assert_allclose(metrics["train/without_legal_action"], 0.5)
    np.testing.assert_allclose(metrics["train/kl"], 0.0, atol=1e-6)


# --- who takes what -------------------------------------------------------------------------------

ACTIONS = {
    "one category": (THREE,),
    "several categories": (THREE, TWO),
    "reals": (REAL, REAL),
    "categories and reals": (REAL, THREE),
}
OBS = (Component("place", "real"), Component("speed", "real"))
SYMBOLS = (*OBS, Component("symbol", "category", cardinality=4))


class World:
    """As much of an environment as AlphaZero asks of one."""

    def __init__(self, spec):
        self.action_spec = spec


def transformer_actor(obs_spec, spec):
    (domain,) = component.domains([(obs_spec, spec)])
    model = token_model(TransformerConfig(width=8, num_layers=1, num_heads=2), Vocabulary(4, 4, 8, 1))
    return ppo(obs_spec, spec, CONFIG, judge=sequence_actor(model, domain, spec))


def dreamt(obs_spec, spec):
    rows, action = jnp.ones((4, len(obs_spec))), jnp.zeros((4, *blank_action(spec).shape))
    ends = jnp.zeros(4, bool)
    steps = ModelStep(rows, action, jnp.ones(4), ends, rows)
    return world_model(steps, spec, discount=0.9, hidden_size=4)


def remembers(obs_spec, spec):
    return ppo(obs_spec, spec, CONFIG, judge=remembering(MemoryConfig(), obs_spec, spec, CONFIG))


def values_actions(obs_spec, spec, memory=None):
    return pqn(critic_of(obs_spec, spec, PQNConfig(), memory), PQNConfig())


NETWORK = policy_value(TrunkConfig(), (2,), 3, is_bounded=True)
AGENTS = {
    "PPO": lambda obs, spec: ppo(obs, spec, CONFIG),
    "PPO with a memory": remembers,
    "PPO with the action-state transformer": transformer_actor,
    "PQN": values_actions,
    "PQN with a memory": lambda obs, spec: values_actions(obs, spec, MemoryConfig()),
    "SAC": lambda obs, spec: soft_actor_critic(obs, spec, SACConfig()),
    "TD3+BC": lambda obs, spec: td3_bc(len(obs), spec, TD3BCConfig()),
    "IQL": lambda obs, spec: iql(len(obs), spec, IQLConfig()),
    "Rainbow": lambda obs, spec: rainbow((5, 5, 2), jnp.float32, spec, RainbowConfig()),
    "MuZero": lambda obs, spec: muzero((len(obs),), spec, MuZeroConfig()),
    "AlphaZero": lambda obs, spec: alphazero(World(spec), NETWORK, None, AlphaZeroConfig()),
    "world model, for search over samples": dreamt,
}
README = Path(__file__).parents[2] / "README.md"


@functools.cache
def taken(agent, kind, obs=OBS):
    """Whether an agent is made; if not, it says in a sentence what it got, and what it expected."""
    said = ""
    try:
        AGENTS[agent](obs, ACTIONS[kind])
    except ValueError as error:
        said = str(error)
    assert not said or ("got" in said and "expected" in said), said
    return not said


def rows():
    """The README's table."""
    yield f"| agent | {' | '.join(ACTIONS)} |"
    yield "| --- |" + " --- |" * len(ACTIONS)
    for agent in AGENTS:
        yield (
            f"| {agent} | "
            + " | ".join("yes" if taken(agent, kind) else "refused" for kind in ACTIONS)
            + " |"
        )


def test_the_readme_says_which_agent_takes_which_actions():
    table = "\n".join(rows())
    assert table in README.read_text(), f"expected in the README:\n{table}"


def test_who_reads_numbers_refuses_symbols():
    assert taken("PPO", "one category", SYMBOLS)
    assert taken("PPO with the action-state transformer", "categories and reals", SYMBOLS)
    assert taken("PQN", "one category", SYMBOLS)
    assert taken("PQN with a memory", "one category", SYMBOLS)
    assert not taken("SAC", "reals", SYMBOLS)


@pytest.mark.parametrize(
    "obs",
    [
        jnp.ones((2, 3), jnp.uint8),
        jnp.ones((2, 5, 5, 1)),
        jnp.ones(()),
        jnp.ones((2, 4)),
        {"eye": jnp.ones(2)},
    ],
    ids=["bytes", "picture", "scalar", "another size", "dict"],
)
def test_observations_of_another_kind_are_named(obs):
    with pytest.raises(ValueError, match=r"observations: got .*, expected float32 \[..., 3\]"):
        trace_act(ppo(SYMBOLS, (THREE,), CONFIG), obs)


def trace_act(agent, obs):
    """Trace one action of two lanes."""

    def first_action(key):
        return agent.act(agent.init(key), agent.init_carry(2), obs, jnp.ones(2, bool), jax.random.clone(key))

    return jax.eval_shape(first_action, jax.random.key(0))


READS_VECTORS = ["PPO", "PPO with a memory", "PPO with the action-state transformer", "SAC"]


class Shown(Probe):
    """A probe whose observations have a shape and a dtype of their own."""

    def __init__(self, obs_shape, obs_dtype):
        super().__init__()
        self.obs_shape, self.obs_dtype = obs_shape, obs_dtype


@pytest.mark.parametrize("name", READS_VECTORS)
def test_agents_refuse_what_they_cannot_read(name):
    """By name when they act, and when a loop is made of them and an environment."""
    agent = AGENTS[name](OBS, (REAL,))
    with pytest.raises(ValueError, match=r"observations: got float32 .*, expected float32 \[..., 2\]"):
        trace_act(agent, jnp.ones((2, 5, 5, 1)))
    for env in (Shown((5, 5, 1), np.uint8), Shown((), np.float32), Shown((3,), np.float32)):
        with pytest.raises(
            ValueError, match=r"probe/Shown: observations: got .*, expected float32 \[..., 2\]"
        ):
            loop_of(name, agent, env)


def loop_of(name, agent, env):
    """The loop that trains the agent `name`."""
    adam = optimizer.adam(1e-3, 1.0)
    if name != "SAC":
        return loops.on_policy(agent, VectorEnv(env), adam, CONFIG)
    slow = loops.moving_average(lambda params: params.critics, 0.1)
    return loops.replay(
        agent, VectorEnv(env), adam, SACConfig(), explore=agent.act, as_steps=as_steps, slow=slow
    )


def test_rainbow_refuses_what_is_no_picture():
    for shape in ((), (7,)):
        with pytest.raises(ValueError, match=r"got observations \(.*expected frames or boards"):
            rainbow(shape, np.float32, (THREE,), RainbowConfig())
