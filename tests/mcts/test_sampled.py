"""Search over samples: the prior stands for the policy, and good samples are found."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxagent import mcts
from jaxagent.mcts import sampled
from jaxagent.mcts.sampled import Samples

B, K = 32, 24
TARGET = 0.6


def log_normal(x, mean, scale):
    return -0.5 * jnp.square((x - mean) / scale) - jnp.log(scale * jnp.sqrt(2 * jnp.pi))


def draw(key, size, mean=0.0, scale=1.0, policy_scale=1.0):
    """Samples of N(mean, scale) where the policy is N(0, policy_scale)."""
    actions = mean + scale * jax.random.normal(key, (size, K))
    log_policy = log_normal(actions, 0.0, jnp.float32(policy_scale))
    return Samples(actions, log_policy, log_normal(actions, mean, jnp.float32(scale)))


def bandit(reward_of):
    def step(params, key, action, state):
        return reward_of(action), jnp.zeros_like(action), state

    def propose(params, key, state):
        return jnp.zeros(state.shape), draw(key, state.shape[0])

    return sampled.sampled_model(step, propose)


def searched(policy, samples, reward_of, num_simulations, **options):
    root = sampled.sampled_root(jnp.zeros((B,)), jnp.zeros((B,)), samples)
    model = bandit(reward_of)
    return jax.jit(lambda key: policy((), key, root, model, num_simulations, **options))(
        jax.random.key(1)
    )


def test_samples_of_the_policy_have_flat_priors():
    np.testing.assert_allclose(sampled.corrected_logits(draw(jax.random.key(0), B)), 0.0, atol=1e-5)


def test_without_rewards_visits_stand_for_the_policy_whatever_was_proposed():
    """Self-normalised importance weights: the mean action is the policy's 0, not the proposal's."""
    samples = draw(jax.random.key(0), B, mean=0.5, scale=1.5)
    found = searched(mcts.muzero_policy, samples, jnp.zeros_like, 400, dirichlet_fraction=0.0)
    mean = (np.asarray(found.action_weights) * np.asarray(samples.actions)).sum(1)
    assert abs(np.asarray(samples.actions).mean() - 0.5) < 0.15
    assert abs(mean.mean()) < 0.15


def test_the_best_sample_is_taken():
    samples = draw(jax.random.key(0), B)
    options = {"max_num_considered_actions": K, "gumbel_scale": 0.0}
    found = searched(
        mcts.gumbel_muzero_policy, samples, lambda a: -jnp.abs(a - TARGET), 200, **options
    )
    distance = np.abs(np.asarray(samples.actions) - TARGET)
    np.testing.assert_array_equal(found.action, distance.argmin(1))


def test_nodes_below_have_samples_of_their_own():
    def step(params, key, action, state):
        return -jnp.square(action - TARGET), jnp.ones_like(action), state + action

    def propose(params, key, state):
        return jnp.zeros(state.shape), draw(key, state.shape[0])

    root = sampled.sampled_root(jnp.zeros((B,)), jnp.zeros((B,)), draw(jax.random.key(0), B))
    model = sampled.sampled_model(step, propose)
    found = jax.jit(lambda k: mcts.gumbel_muzero_policy((), k, root, model, 40))(jax.random.key(1))
    tree = found.search_tree
    parent, action = np.asarray(tree.parents), np.asarray(tree.action_from_parent)
    state, actions = (np.asarray(x) for x in tree.embeddings)
    lane = np.arange(B)[:, None]
    steps = actions[lane, parent[:, 1:], action[:, 1:]]
    np.testing.assert_allclose(state[:, 1:], state[lane, parent[:, 1:]] + steps, atol=1e-5)
    assert len(np.unique(actions[:, :5])) > 0.99 * B * 5 * K
