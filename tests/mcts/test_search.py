"""What holds of any search: identities, invariances, bandits with known answers, bad input."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from search_models import mask, normal, problem, run

from jaxagent import mcts
from jaxagent.mcts import selection

POLICIES = ("muzero", "gumbel")


@functools.cache
def tree(policy, batch_size=5, num_simulations=24, num_actions=4, max_depth=None):
    root, model = problem(mcts, batch_size, num_actions)
    options = {"dirichlet_fraction": 0.0} if policy == "muzero" else {}
    return run(mcts, policy, root, model, num_simulations, max_depth=max_depth, **options)


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("max_depth", [None, 2])
def test_root_visits_sum_to_the_simulations(policy, max_depth):
    found = tree(policy, max_depth=max_depth).search_tree
    np.testing.assert_array_equal(found.summary().visit_counts.sum(1), 24)
    np.testing.assert_array_equal(found.node_visits[:, 0], 25)


@pytest.mark.fast("muzero")
@pytest.mark.parametrize("policy", POLICIES)
def test_a_node_is_worth_the_mean_of_what_passed_it(policy):
    """V(s) N(s) = v(s) + sum over actions of N(s, a) Q(s, a), at every node."""
    found = tree(policy).search_tree
    nodes = jnp.arange(25)
    qvalues = jax.vmap(lambda n: found.qvalues(jnp.full((5,), n)), out_axes=1)(nodes)
    visits, passed = np.asarray(found.children_visits), np.asarray(found.node_visits)
    total = found.raw_values + (visits * np.asarray(qvalues)).sum(-1)
    np.testing.assert_allclose(total, np.asarray(found.node_values) * passed, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
def test_fewer_simulations_are_a_prefix(policy):
    """Gumbel's schedule depends on the budget, so its root is asked to consider one action."""
    root, model = problem(mcts, 5, 4)
    options = {"max_num_considered_actions": 1} if policy == "gumbel" else {}
    short, long = (run(mcts, policy, root, model, n, **options).search_tree for n in (8, 24))
    np.testing.assert_array_equal(short.parents, long.parents[:, :9])
    np.testing.assert_array_equal(short.action_from_parent, long.action_from_parent[:, :9])


@pytest.mark.fast("muzero")
@pytest.mark.parametrize("policy", POLICIES)
def test_lanes_do_not_meet(policy):
    """Permuted lanes give permuted trees, whatever is deep beside them."""
    order = np.array([3, 0, 4, 1, 2])
    root, model = problem(mcts, 5, 4)
    plain = {"dirichlet_fraction": 0.0} if policy == "muzero" else {"gumbel_scale": 0.0}
    here = run(mcts, policy, root, model, 24, **plain).search_tree
    moved = run(mcts, policy, jax.tree.map(lambda x: x[order], root), model, 24, **plain).search_tree
    np.testing.assert_array_equal(np.asarray(here.children_visits)[order], moved.children_visits)
    np.testing.assert_allclose(np.asarray(here.node_values)[order], moved.node_values, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 31, 64, 300])
def test_every_width_of_the_backup_makes_the_same_trees(batch_size):
    """Lanes are climbed in chunks that depend on how many there are; lane 0 must not notice."""
    plain = {"dirichlet_fraction": 0.0}
    root, model = problem(mcts, batch_size, 3)
    alone = jax.tree.map(lambda x: x[:1], root)
    all_of, one = (run(mcts, "muzero", r, model, 32, **plain).search_tree for r in (root, alone))
    np.testing.assert_array_equal(all_of.children_visits[:1], one.children_visits)
    np.testing.assert_allclose(all_of.node_values[:1], one.node_values, atol=2e-5)


def bandit(rewards, discount=0.0):
    """One step: every action ends with its reward."""
    batch_size, num_actions = rewards.shape

    def model(params, key, action, lane):
        reward = rewards[lane, action]
        nothing = jnp.zeros((batch_size, num_actions))
        step = mcts.RecurrentFnOutput(
            reward=reward,
            discount=jnp.full_like(reward, discount),
            prior_logits=nothing,
            value=jnp.zeros_like(reward),
        )
        return step, lane

    root = mcts.RootFnOutput(
        prior_logits=jnp.zeros((batch_size, num_actions)),
        value=jnp.zeros((batch_size,)),
        embedding=jnp.arange(batch_size, dtype=jnp.int32),
    )
    return root, model


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
def test_bandits_are_solved(policy):
    rewards = normal(0, 16, 5)
    options = {"max_num_considered_actions": 5, "gumbel_scale": 0.0} if policy == "gumbel" else {}
    found = run(mcts, policy, *bandit(rewards), 100, max_depth=1, **options)
    summary = found.search_tree.summary()
    # Sequential halving ends with two actions visited alike, and takes the better.
    taken = found.action if policy == "gumbel" else summary.visit_counts.argmax(1)
    np.testing.assert_array_equal(taken, rewards.argmax(1))
    np.testing.assert_allclose(summary.qvalues, rewards, atol=1e-6)
    mean = (summary.visit_counts * rewards).sum(1) / 101  # the root's own value is 0
    np.testing.assert_allclose(summary.value, mean, atol=1e-5)


@pytest.mark.slow
def test_two_players_by_a_discount_of_minus_one():
    """Of two moves, the one whose reply is worse for the other is taken."""
    replies = jnp.array([[1.0, -1.0], [-0.5, -0.6]])  # to the other player, after my move

    def model(params, key, action, state):
        first = state[:, 0] < 0
        reward = jnp.where(first, 0.0, replies[jnp.maximum(state[:, 0], 0), action])
        step = mcts.RecurrentFnOutput(
            reward=reward,
            discount=jnp.where(first, -1.0, 0.0),
            prior_logits=jnp.zeros((1, 2)),
            value=jnp.zeros((1,)),
        )
        return step, jnp.where(first, action, state[:, 0])[:, None]

    root = mcts.RootFnOutput(
        prior_logits=jnp.zeros((1, 2)), value=jnp.zeros((1,)), embedding=jnp.full((1, 1), -1, jnp.int32)
    )
    found = run(mcts, "muzero", root, model, 200, max_depth=2, dirichlet_fraction=0.0)
    assert found.search_tree.summary().visit_counts.argmax() == 1
    assert found.search_tree.summary().qvalues[0, 1] == pytest.approx(0.5, abs=0.05)


@pytest.mark.fast("gumbel")
@pytest.mark.parametrize("policy", POLICIES)
def test_invalid_actions_are_never_taken_and_a_lane_without_a_valid_one_takes_the_first(policy):
    root, model = problem(mcts, 6, 5)
    invalid = mask(6, 5, 0).at[2].set(1.0)
    found = run(mcts, policy, root, model, 16, invalid_actions=invalid)
    others = np.arange(6) != 2
    visits = np.asarray(found.search_tree.summary().visit_counts)
    assert (visits * np.asarray(invalid))[others].sum() == 0
    assert not np.asarray(invalid)[np.arange(6), found.action][others].any()
    assert found.action[2] == 0 or policy == "muzero"  # which draws among what was visited
    assert visits[2, 0] == 16
    assert all(np.isfinite(x).all() for x in (found.action_weights, visits))


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
def test_nan_of_one_lane_stays_in_it(policy):
    root, model = problem(mcts, 4, 3)

    def poisoned(params, key, action, z):
        step, z = model(params, key, action, z)
        bad = jnp.arange(4) == 1
        return step.replace(value=jnp.where(bad, jnp.nan, step.value)), z

    options = {"dirichlet_fraction": 0.0} if policy == "muzero" else {}
    clean, sick = (run(mcts, policy, root, m, 16, **options) for m in (model, poisoned))
    others = np.array([0, 2, 3])
    trees = [np.asarray(x.search_tree.children_visits)[others] for x in (clean, sick)]
    np.testing.assert_array_equal(*trees)
    assert 0 <= sick.action[1] < 3
    np.testing.assert_array_equal(sick.search_tree.summary().visit_counts[1].sum(), 16)


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
def test_actions_that_the_model_calls_invalid_are_never_taken_below_the_root(policy):
    root, model = problem(mcts, 6, 4)
    banned = (np.arange(24).reshape(6, 4) % 3 == 0) & (np.arange(4) > 0)

    def masking(params, key, action, z):
        step, z = model(params, key, action, z)
        return step.replace(invalid_actions=jnp.asarray(banned)), z

    found = run(mcts, policy, root, masking, 64).search_tree
    below = np.asarray(found.children_visits)[:, 1:]
    assert below.sum() > 0
    assert (below * banned[:, None]).sum() == 0
    free = run(mcts, policy, root, model, 64).search_tree
    assert (np.asarray(free.children_visits)[:, 1:] * banned[:, None]).sum() > 0


@pytest.mark.slow
def test_an_early_stop_changes_no_decision_and_saves_simulations():
    rewards = jnp.array([[1.0, 0.0, 0.0], [0.9, 0.1, 0.0]])
    root, model = bandit(rewards)
    plain = {"dirichlet_fraction": 0.0, "max_depth": 1, "temperature": 0.0}
    whole, cut = (run(mcts, "muzero", root, model, 200, early_stop=e, **plain) for e in (False, True))
    np.testing.assert_array_equal(whole.action, cut.action)
    visits = np.asarray(cut.search_tree.summary().visit_counts)
    assert (visits.sum(1) < 180).all()
    best = np.sort(visits, axis=1)
    assert (best[:, -1] - best[:, -2] > 200 - visits.sum(1)).all()


def test_shapes_that_do_not_fit_are_named():
    root, model = problem(mcts, 4, 3)

    def go(root=root, model=model, number=4, **options):
        return mcts.muzero_policy((), jax.random.key(0), root, model, number, **options)

    def wrong(**changes):
        def broken(params, key, action, z):
            step, z = model(params, key, action, z)
            others = {k: v for k, v in changes.items() if k != "embedding"}
            return step.replace(**others), changes.get("embedding", z)

        return broken

    cases = {
        "num_simulations: got 0": {"number": 0},
        "max_depth: got 0": {"max_depth": 0},
        "invalid_actions: got shape (4, 2)": {"invalid_actions": jnp.zeros((4, 2))},
        "root.value: got shape (3,)": {"root": root.replace(value=jnp.zeros((3,)))},
        "root.embedding: got shape (2, 8)": {"root": root.replace(embedding=jnp.ones((2, 8)))},
        "recurrent_fn's value: got shape ()": {"model": wrong(value=jnp.zeros(()))},
        "recurrent_fn's prior_logits: got shape (3,)": {"model": wrong(prior_logits=jnp.zeros((3,)))},
        "recurrent_fn's embedding: got": {"model": wrong(embedding=jnp.zeros((4, 9)))},
    }
    for message, changes in cases.items():
        with pytest.raises(ValueError, match=re.escape(message)):
            go(**changes)


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
def test_no_loop_copies_or_selects_a_tree(policy):
    """The structure that makes search fast: no [B (N + 1), A] copy or select in any loop body."""
    batch_size, num_simulations, num_actions = 32, 20, 7
    root, model = problem(mcts, batch_size, num_actions)
    search = {"muzero": mcts.muzero_policy, "gumbel": mcts.gumbel_muzero_policy}[policy]
    text = (
        jax.jit(lambda key: search((), key, root, model, num_simulations))
        .lower(jax.random.key(0))
        .compile()
        .as_text()
    )
    rows = batch_size * (num_simulations + 1)
    big = re.compile(
        rf"(?:f32|s32)\[(?:{rows},{num_actions}|{batch_size},{num_simulations + 1},{num_actions})\]"
        r"\S* (?:copy|select)\("
    )
    assert f"f32[{rows},{num_actions}]" in text  # the trees are there
    entry = text.index("\nENTRY")
    assert not big.findall(text[:entry]), "in a loop or a fusion of one"


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([0.1, 0.7, 0.7], 1),
        ([np.nan, -np.inf, 2.0], 2),
        ([np.nan, np.nan, np.nan], 0),
        ([-np.inf, -np.inf, -np.inf], 0),
        ([-3.0, np.inf, np.inf], 1),
        ([-0.7, -0.7 - 1e-7, -2.0], 0),  # near is not the same
    ],
)
def test_the_first_of_the_largest_is_chosen(scores, expected):
    scores = np.array(scores, np.float32)
    assert selection.first_argmax(scores) == expected


@pytest.mark.parametrize(
    ("scores", "expected"), [([0.1, 0.7, 0.7], 1), ([-3.0, -0.7, -2.0], 1), ([2.0, 0.5, 1.0], 0)]
)
def test_it_is_found_where_another_program_rounded_the_largest(scores, expected):
    scores = np.array(scores, np.float32)
    for up in (-np.inf, np.inf):
        largest = np.nextafter(scores.max(keepdims=True), np.float32(up))
        assert selection._first_of(scores, largest) == expected


def test_what_is_found_is_legal_where_the_largest_is_what_is_left_of_large_numbers():
    scores = np.array([1e-6, -1.0, -2.0, np.finfo(np.float32).min], np.float32)
    assert selection._first_of(scores, np.array([4e-6], np.float32)) == 0  # 16 + 1e-6 - 16, rounded otherwise
