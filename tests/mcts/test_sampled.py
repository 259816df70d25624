"""Search over samples: the prior stands for the policy, and good samples are found."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
    return jax.jit(lambda key: policy((), key, root, model, num_simulations, **options))(jax.random.key(1))


def test_samples_of_the_policy_have_flat_priors():
    np.testing.assert_allclose(sampled.corrected_logits(draw(jax.random.key(0), B)), 0.0, atol=1e-5)


@pytest.mark.slow
def test_without_rewards_visits_stand_for_the_policy_whatever_was_proposed():
    """Self-normalised importance weights: the mean action is the policy's 0, not the proposal's."""
    samples = draw(jax.random.key(0), B, mean=0.5, scale=1.5)
    found = searched(mcts.muzero_policy, samples, jnp.zeros_like, 400, dirichlet_fraction=0.0)
    mean = (np.asarray(found.action_weights) * np.asarray(samples.actions)).sum(1)
    assert abs(np.asarray(samples.actions).mean() - 0.5) < 0.15
    assert abs(mean.mean()) < 0.15


@pytest.mark.slow
def test_the_best_sample_is_taken():
    samples = draw(jax.random.key(0), B)
    options = {"max_num_considered_actions": K, "gumbel_scale": 0.0}
    found = searched(mcts.gumbel_muzero_policy, samples, lambda a: -jnp.abs(a - TARGET), 200, **options)
    distance = np.abs(np.asarray(samples.actions) - TARGET)
    np.testing.assert_array_equal(found.action, distance.argmin(1))


@pytest.mark.slow
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


def test_copies_are_merged_by_hand():
    """Actions of two leaves; [1, 0] comes three times, with weights 1, 2 and 4."""
    actions = {
        "kind": jnp.array([[1, 2, 1, 1, 2]]),
        "place": jnp.array([[[0.0], [0.5], [0.0], [0.0], [0.25]]]),
    }
    log_policy = jnp.log(jnp.array([[1.0, 3.0, 2.0, 4.0, 5.0]]))
    found = sampled.merge_copies(Samples(actions, log_policy, jnp.zeros((1, 5))))
    np.testing.assert_array_equal(found.is_copy, [[False, False, True, True, False]])
    weight = np.exp(np.asarray(sampled.corrected_logits(found)))
    np.testing.assert_allclose(weight[0, [0, 1, 4]], [7.0, 3.0, 5.0], rtol=1e-6)


@pytest.mark.slow
def test_copies_are_never_searched_and_keep_their_weight():
    """Two actions drawn as copies: visits without rewards are those of the merged prior."""
    drawn = jax.random.bernoulli(jax.random.key(2), 0.8, (B, 8)).astype(jnp.float32)
    flat = jnp.zeros((B, 8))
    samples = sampled.merge_copies(Samples(drawn, flat, flat))

    def step(params, key, action, state):
        return jnp.zeros_like(action), jnp.ones_like(action), state

    def propose(params, key, state):
        return jnp.zeros(state.shape), samples

    model = sampled.sampled_model(step, propose)
    root = sampled.sampled_root(jnp.zeros((B,)), jnp.zeros((B,)), samples)
    found = jax.jit(
        lambda key: mcts.muzero_policy(
            (), key, root, model, 200, invalid_actions=samples.is_copy, dirichlet_fraction=0.0
        )
    )(jax.random.key(1))
    visits, is_copy = found.search_tree.children_visits, np.asarray(samples.is_copy)
    of_copies = np.where(is_copy[:, None], np.asarray(visits), 0)
    assert of_copies.sum() == 0
    share = (np.asarray(found.action_weights) * np.asarray(drawn)).sum(1)
    np.testing.assert_allclose(share, drawn.mean(1), atol=0.02)
