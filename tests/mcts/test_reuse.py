"""Subtrees: the same numbers under other indices, and a search that goes on as if never stopped."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from search_models import problem, run

from jaxagent import mcts
from jaxagent.mcts.reuse import depths

B, N, A = 6, 40, 3
PLAIN = {"dirichlet_fraction": 0.0}


@functools.cache
def searched():
    root, model = problem(mcts, B, A)
    return root, model, run(mcts, "muzero", root, model, N, **PLAIN).search_tree


def nodes_below(tree, lane, node):
    """Old indices at and below a node, in order of creation, by walking the tree."""
    found, queue = [], [int(node)]
    while queue:
        found.append(queue.pop())
        children = np.asarray(tree.children_index)[lane, found[-1]]
        queue += [int(c) for c in children if c >= 0]
    return sorted(found)


@pytest.mark.slow
@pytest.mark.parametrize("action", range(A))
def test_a_subtree_holds_the_same_numbers(action):
    _, _, tree = searched()
    cut = jax.jit(mcts.subtree)(tree, jnp.full((B,), action))
    for lane in range(B):
        child = np.asarray(tree.children_index)[lane, 0, action]
        old = nodes_below(tree, lane, child) if child >= 0 else []
        count = len(old)
        for name in (
            "node_visits",
            "raw_values",
            "node_values",
            "children_prior_logits",
            "children_visits",
            "children_rewards",
            "children_values",
        ):
            got, expected = np.asarray(cut[name])[lane], np.asarray(tree[name])[lane]
            np.testing.assert_array_equal(got[:count], expected[old], err_msg=name)
            assert not got[count:].any(), f"{name}: an empty slot holds something"
        np.testing.assert_array_equal(
            np.asarray(cut.embeddings)[lane, :count], np.asarray(tree.embeddings)[lane][old]
        )
        new = {n: i for i, n in enumerate(old)}
        children = np.asarray(tree.children_index)[lane][old]
        moved = [[new[c] if c >= 0 else -1 for c in row] for row in children]
        np.testing.assert_array_equal(
            np.asarray(cut.children_index)[lane, :count], np.reshape(moved, (count, A))
        )
        parents = [new.get(int(p), -1) for p in np.asarray(tree.parents)[lane][old]]
        np.testing.assert_array_equal(np.asarray(cut.parents)[lane, :count], parents)


def test_depths_count_edges_to_the_root():
    _, _, tree = searched()
    parents = np.asarray(tree.parents)
    expected = np.zeros_like(parents)
    for node in range(1, N + 1):
        expected[:, node] = expected[np.arange(B), parents[:, node]] + 1
    np.testing.assert_array_equal(depths(tree.parents), expected)


@pytest.mark.slow
def test_going_on_from_a_whole_tree_equals_not_stopping():
    root, model, whole = searched()
    half = run(mcts, "muzero", root, model, N // 2, **PLAIN).search_tree
    both = run(mcts, "muzero", root, model, N // 2, tree=half, **PLAIN).search_tree
    for name in ("children_index", "children_visits", "node_visits", "parents"):
        np.testing.assert_array_equal(both[name], whole[name], err_msg=name)
    np.testing.assert_allclose(both.node_values, whole.node_values, atol=1e-5)


@pytest.mark.slow
def test_search_goes_on_below_the_action_taken():
    _, model, tree = searched()
    taken = tree.summary().visit_counts.argmax(1)
    cut = mcts.subtree(tree, taken)
    before = np.asarray(cut.node_visits[:, 0])
    assert before.min() > 1
    root = mcts.RootFnOutput(
        prior_logits=cut.children_prior_logits[:, 0],
        value=cut.raw_values[:, 0],
        embedding=cut.embeddings[:, 0],
    )
    after = run(mcts, "muzero", root, model, 10, tree=cut, **PLAIN).search_tree
    np.testing.assert_array_equal(after.node_visits[:, 0], before + 10)
    visits = np.asarray(after.children_visits)
    assert (visits[:, : cut.node_visits.shape[1]] >= np.asarray(cut.children_visits)).all()
    qvalues = jax.vmap(lambda n: after.qvalues(jnp.full((B,), n)), out_axes=1)(
        jnp.arange(after.node_visits.shape[1])
    )
    total = np.asarray(after.raw_values) + (visits * np.asarray(qvalues)).sum(-1)
    np.testing.assert_allclose(
        total, np.asarray(after.node_values) * np.asarray(after.node_visits), rtol=1e-4, atol=1e-4
    )


@pytest.mark.slow
def test_what_does_not_fit_is_cut_at_its_edges():
    _, _, tree = searched()
    taken = tree.summary().visit_counts.argmax(1)
    whole, cut = mcts.subtree(tree, taken), mcts.subtree(tree, taken, 4)
    assert cut.node_visits.shape == (B, 4)
    np.testing.assert_array_equal(cut.node_values, whole.node_values[:, :4])
    assert np.asarray(cut.children_index).max() < 4
    dropped = np.asarray(whole.children_index)[:, :4] >= 4
    assert dropped.any()
    assert not np.asarray(cut.children_visits)[dropped].any()


@pytest.mark.slow
def test_an_action_never_taken_starts_anew():
    root, model, _ = searched()
    short = run(mcts, "muzero", root, model, 1, **PLAIN).search_tree
    unvisited = (short.action_from_parent[:, 1] + 1) % A
    cut = mcts.subtree(short, unvisited)
    assert not np.asarray(cut.node_visits).any()
    fresh = run(mcts, "muzero", root, model, 8, **PLAIN).search_tree
    after = run(mcts, "muzero", root, model, 8, tree=cut, **PLAIN).search_tree
    np.testing.assert_array_equal(after.children_visits[:, 0], fresh.children_visits[:, 0])


@pytest.mark.slow
def test_masks_of_the_model_outlive_the_cut():
    root, model, _ = searched()
    banned = jnp.zeros((B, A), bool).at[:, 1].set(True)

    def masking(params, key, action, z):
        step, z = model(params, key, action, z)
        return step.replace(invalid_actions=banned), z

    tree = run(mcts, "muzero", root, masking, N, **PLAIN).search_tree
    cut = mcts.subtree(tree, tree.summary().visit_counts.argmax(1))
    below = mcts.RootFnOutput(
        prior_logits=jnp.zeros((B, A)), value=cut.raw_values[:, 0], embedding=cut.embeddings[:, 0]
    )
    after = run(mcts, "muzero", below, masking, 30, tree=cut, **PLAIN).search_tree
    assert not np.asarray(after.children_visits)[:, 1:, 1].any()
    assert np.asarray(after.children_visits)[:, 1:].sum() > cut.children_visits[:, 1:].sum()


def test_trees_of_others_are_refused():
    root, model, tree = searched()
    with pytest.raises(ValueError, match="go on with the same lanes"):
        run(mcts, "muzero", jax.tree.map(lambda x: x[:2], root), model, 4, tree=tree)
    with pytest.raises(ValueError, match="each lane took"):
        mcts.subtree(tree, jnp.zeros((B - 1,), jnp.int32))


def gumbel(root, model, number, **options):
    return run(mcts, "gumbel", root, model, number, gumbel_scale=0.0, **options)


@pytest.mark.slow
def test_halving_goes_on_with_its_own_rounds_and_all_values():
    """Visits of the second search are those of a fresh one's table; the first one's are kept."""
    root, model, _ = searched()
    first = gumbel(root, model, N).search_tree
    fresh = first.summary().visit_counts
    second = gumbel(root, model, N, tree=first)
    tree = second.search_tree
    added = np.asarray(tree.summary().visit_counts - fresh)
    np.testing.assert_array_equal(np.sort(added, axis=1), np.sort(fresh, axis=1))
    np.testing.assert_array_equal(tree.node_visits[:, 0], 2 * N + 1)
    visits, passed = np.asarray(tree.children_visits), np.asarray(tree.node_visits)
    assert (visits[:, : N + 1] >= np.asarray(first.children_visits)).all()
    qvalues = jax.vmap(lambda n: tree.qvalues(jnp.full((B,), n)), out_axes=1)
    total = tree.raw_values + (visits * np.asarray(qvalues(jnp.arange(2 * N + 1)))).sum(-1)
    np.testing.assert_allclose(total, np.asarray(tree.node_values) * passed, rtol=1e-4, atol=1e-4)
    lanes = np.arange(B)
    np.testing.assert_array_equal(added[lanes, second.action], added.max(1))


@pytest.mark.slow
def test_what_was_kept_tells_halving_where_to_look():
    """With one simulation a fresh search tries the prior's action, a kept one the best known."""
    rewards = jnp.array([[0.0, 0.2, 0.9], [0.0, 0.8, 0.1]])

    def model(params, key, action, lane):
        reward = rewards[lane, action]
        nothing = jnp.zeros_like(reward)
        logits = jnp.zeros((2, 3)).at[:, 0].set(1.0)
        step = mcts.RecurrentFnOutput(reward=reward, discount=nothing, prior_logits=logits, value=nothing)
        return step, lane

    root = mcts.RootFnOutput(
        prior_logits=jnp.zeros((2, 3)).at[:, 0].set(1.0),
        value=jnp.zeros((2,)),
        embedding=jnp.arange(2, dtype=jnp.int32),
    )
    known = gumbel(root, model, 12, max_depth=1).search_tree
    fresh, kept = (gumbel(root, model, 1, max_depth=1, **o) for o in ({}, {"tree": known}))
    np.testing.assert_array_equal(fresh.action, [0, 0])
    np.testing.assert_array_equal(kept.action, [2, 1])


@pytest.mark.slow
def test_halving_starts_anew_in_lanes_without_a_tree():
    root, model, _ = searched()
    first = gumbel(root, model, 4, max_num_considered_actions=2).search_tree
    visits = np.asarray(first.summary().visit_counts)
    taken = np.where(np.arange(B) < 3, visits.argmax(1), visits.argmin(1))
    cut = mcts.subtree(first, jnp.asarray(taken))
    is_empty = np.asarray(cut.node_visits[:, 0]) == 0
    assert is_empty.any()
    assert not is_empty.all()
    fresh, after = (gumbel(root, model, 8, **o) for o in ({}, {"tree": cut}))
    for name in ("children_visits", "children_values"):
        trees = [np.asarray(x.search_tree[name])[is_empty, 0] for x in (fresh, after)]
        np.testing.assert_allclose(*trees, atol=1e-6)
    np.testing.assert_array_equal(after.action[is_empty], fresh.action[is_empty])
    kept = np.asarray(cut.children_visits)[:, 0].sum(1)
    np.testing.assert_array_equal(after.search_tree.summary().visit_counts.sum(1), kept + 8)
