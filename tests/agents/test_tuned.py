"""A pretrained transformer as PPO's first policy: it acts as it did, and only what may learn moves."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.types import Component
from jaxagent.agents import sequence
from jaxagent.agents.actor_critic import Seen, greedy
from jaxagent.agents.sequence_actor import sequence_actor, tuned
from jaxagent.config import TokenConfig, TransformerConfig
from jaxagent.nn.sequence_model import model
from jaxagent.tokens import component

OBS = (Component("height", "real"), Component("symbol", "category", cardinality=3))
ACTION = (Component("move", "category", cardinality=2), Component("force", "real", -2.0, 4.0))
TOKENS = TokenConfig(num_bins=8)
CONFIG = TransformerConfig(width=8, num_layers=2, num_heads=2, context=3)
T, B = 4, 3
(DOMAIN,) = component.domains([(OBS, ACTION)])


@functools.cache
def pretrained():
    """The model, parameters that are far from their first ones, and bins fitted to data."""
    rng = np.random.default_rng(0)
    obs = np.column_stack([rng.normal(30.0, 9.0, 200), rng.integers(0, 3, 200)]).astype(np.float32)
    action = np.column_stack([rng.integers(0, 2, 200), rng.uniform(-2, 4, 200)]).astype(np.float32)
    codec = jax.tree.map(jnp.asarray, component.fit(obs, action, ACTION, TOKENS))
    made = model(CONFIG, TOKENS, (DOMAIN,))
    network = jax.tree.map(lambda x: 2.0 * x, jax.jit(made.init)(jax.random.key(0)))
    return made, network, codec, jnp.asarray(obs[: T * B].reshape(T, B, 2))


def begun(way):
    made, network, codec, _ = pretrained()
    judge = tuned(sequence_actor(made, DOMAIN, ACTION, codec, network), network, way, rank=2)
    return judge, jax.jit(judge.init)(jax.random.key(1))


def moved(tree):
    """Names of leaves with a gradient."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path) for path, x in leaves if float(jnp.abs(x).max()) > 0.0}


@pytest.mark.fast("lora")
@pytest.mark.parametrize("way", ["full", "last_layer", "lora"])
def test_it_begins_as_the_pretrained_policy_and_moves_what_may_move(way):
    made, network, codec, obs = pretrained()
    judge, params = begun(way)
    ours, theirs = greedy(judge, ACTION), sequence.policy(made, DOMAIN, "argmax")
    act, act_before = jax.jit(ours.act), jax.jit(theirs.act)
    carry, memory = ours.init(B), theirs.init(B)
    for t in range(T):
        is_first = jnp.full((B,), t == 0)
        action, _, carry = act(params, carry, obs[t], is_first, jax.random.key(t))
        before = sequence.SequenceParams(network, codec)
        expected, _, memory = act_before(before, memory, obs[t], is_first, jax.random.key(t))
        np.testing.assert_allclose(action, expected, rtol=1e-5)

    def loss(params):
        raw = jnp.stack([jnp.ones((T, B)), jnp.full((T, B), 0.3)], axis=-1)
        seen = Seen(obs, raw, (), jnp.zeros((T, B), bool).at[0].set(True))
        judged = judge.judge(params, judge.by_lane(judge.init_carry(B)), seen)
        return jnp.sum(judged.log_prob) + jnp.sum(judged.value)

    names = moved(jax.jit(jax.grad(loss))(params))
    assert ".value" in names
    network_names = {n for n in names if n.startswith(".network")}
    if way == "lora":  # `up` is zero at first, so that `down` has no gradient yet
        assert network_names == {n for n in network_names if n.endswith("['up']")}
        assert len(network_names) == 12
    elif way == "last_layer":
        assert all("block_1" in n or "['norm']" in n for n in network_names)
        assert any("block_1" in n for n in network_names)
    else:
        assert {n.split("']")[0] for n in network_names} >= {
            ".network['stem",
            ".network['trunk",
            ".network['head",
        }


def test_its_value_is_its_own():
    """Of another seed the network is the same and the value is not."""
    judge, params = begun("full")
    other = jax.jit(judge.init)(jax.random.key(2))
    jax.tree.map(np.testing.assert_array_equal, params.network, other.network)
    assert np.abs(params.value - other.value).max() > 0.1
