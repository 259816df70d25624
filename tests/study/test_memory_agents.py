"""PPO with a memory in studies: a memory that is cleared is cleared in learning as in acting."""

import jax
import jax.numpy as jnp
import numpy as np

import envs
from jaxagent.agents.memory_policy import cleared, learner_and_player
from jaxagent.config import MemoryConfig, PPOConfig

CONFIG = PPOConfig(
    num_envs=8, num_steps=4, num_minibatches=2, num_updates=1, updates_per_chunk=1, hidden_size=8
)


def test_a_share_of_steps_begins_anew():
    told = []

    def act(params, carry, obs, is_first, key):
        told.append(is_first)
        return is_first, {}, carry

    obs, never = jnp.zeros((1000, 1)), jnp.zeros(1000, bool)
    cleared(act, 0.3)((), (), obs, never, jax.random.key(0))
    cleared(act, 0.3)((), (), obs, ~never, jax.random.key(1))
    np.testing.assert_allclose(told[0].mean(), 0.3, atol=0.05)
    assert told[1].all()


def test_what_was_cleared_is_recorded_and_nothing_remembered():
    env, _ = envs.make("memory/RepeatFirst")
    agent, player = learner_and_player(env, CONFIG, MemoryConfig("gru", 8), forget=1.0)
    key_params, key_obs = jax.random.split(jax.random.key(0))
    params = jax.jit(agent.init)(key_params)
    obs = np.asarray(jax.random.randint(key_obs, (8, 2), 0, 2), np.float32)
    blank, never = agent.init_carry(8), np.zeros(8, bool)
    past, act = blank._replace(memory=np.ones_like(blank.memory)), jax.jit(agent.act)
    _, fresh, _ = act(params, blank, obs, ~never, jax.random.key(1))
    _, extras, carry = act(params, past, obs, never, jax.random.key(1))
    assert extras["is_first"].all()
    np.testing.assert_array_equal(extras["log_prob"], fresh["log_prob"])
    assert jax.tree.structure(carry) == jax.tree.structure(player.init(8))
