"""Equal to mctx: trees, targets and actions over random configurations, and its own tests."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import jax
import mctx
import numpy as np
import pytest
from search_models import mask, problem, run, stochastic_problem

from jaxagent import mcts

pytestmark = pytest.mark.foreign_oracle


@pytest.fixture(autouse=True)
def keys_as_it_uses_them():
    """mctx draws twice from one key."""
    with jax.debug_key_reuse(False):
        yield


WHOLE = ("node_visits", "parents", "action_from_parent", "children_index", "children_visits")
REAL = (
    "raw_values",
    "node_values",
    "children_prior_logits",
    "children_rewards",
    "children_discounts",
    "children_values",
)


def drawn(number):
    """Configuration of a number."""
    rng = np.random.default_rng(number)
    policy = ("gumbel", "muzero", "stochastic")[number % 3]
    shape = rng.choice([1, 3, 16, 64]), rng.choice([1, 8, 32, 128]), rng.choice([1, 2, 5, 18, 82])
    batch_size, num_simulations, num_actions = map(int, shape)
    if batch_size * num_simulations * num_actions > 40_000:  # mctx would need minutes
        batch_size = 3
    options = {}
    if rng.random() < 0.4:
        options["max_depth"] = int(rng.choice([1, 2, 4]))
    if rng.random() < 0.5 and num_actions > 1:
        options["invalid_actions"] = mask(batch_size, num_actions, number)
    return policy, batch_size, num_simulations, num_actions, options, rng


def transforms(library, policy, rng):
    """A value transform of mctx's three, or its default."""
    name = rng.choice(["default", "min_max", "parent", "mix", "plain mix"])
    kinds = {
        "min_max": (library.qtransform_by_min_max, {"min_value": -5.0, "max_value": 5.0}),
        "parent": (library.qtransform_by_parent_and_siblings, {}),
        "mix": (library.qtransform_completed_by_mix_value, {}),
        "plain mix": (
            library.qtransform_completed_by_mix_value,
            {"use_mixed_value": False, "rescale_values": False, "value_scale": 0.02},
        ),
    }
    if name == "default" or (policy == "gumbel" and name in ("min_max", "parent")):
        return {}
    function, settings = kinds[name]
    return {"qtransform": jax.tree_util.Partial(function, **settings)}


def output(library, number):
    policy, batch_size, num_simulations, num_actions, options, rng = drawn(number)
    options |= transforms(library, policy, rng)
    exact = {"tie_break": "mctx"} if library is mcts and policy != "gumbel" else {}
    if policy != "stochastic":
        tied = policy == "muzero" and number % 2 == 0  # exact only where ties are mctx's
        root, model = problem(library, batch_size, num_actions, number, tied)
        return run(library, policy, root, model, num_simulations, **options, **exact)
    root, decision, outcome = stochastic_problem(library, batch_size, num_actions, 4, number)
    return jax.jit(
        lambda key: library.stochastic_muzero_policy(
            (), key, root, decision, outcome, num_simulations, **options, **exact
        )
    )(jax.random.key(7))


def rows_of(trees, names, equal):
    """Which lanes agree in all fields."""
    agree = [
        equal(*(np.asarray(t[name]) for t in trees)).reshape(trees[0][name].shape[0], -1).all(1)
        for name in names
    ]
    return np.all(agree, axis=0)


def close(a, b):
    return np.isclose(a, b, rtol=1e-5, atol=1e-5)


NUMBERS = [n if n < 9 else pytest.param(n, marks=pytest.mark.slow) for n in range(45)]


@pytest.mark.fast("3")
@pytest.mark.parametrize("number", NUMBERS)
def test_trees_equal_mctx(number):
    ours, theirs = (output(library, number) for library in (mcts, mctx))
    trees = ours.search_tree, theirs.search_tree
    same = rows_of(trees, WHOLE, np.equal) & rows_of(trees, REAL, close)
    assert same.mean() >= 0.999, f"{(~same).sum()} of {len(same)} rows differ: {drawn(number)[:4]}"
    np.testing.assert_array_equal(ours.action, theirs.action)
    np.testing.assert_allclose(ours.action_weights, theirs.action_weights, atol=1e-5)
    summaries = [t.summary() for t in trees]
    for name in ("visit_counts", "visit_probs", "value", "qvalues"):
        np.testing.assert_allclose(summaries[0][name], summaries[1][name], atol=1e-5)
    np.testing.assert_allclose(*(embedding(t) for t in trees), atol=1e-5)


def embedding(tree):
    """What a node's embedding says; of a stochastic one the part that is no dummy."""
    found = tree.embeddings
    if hasattr(found, "is_decision_node"):
        which = np.asarray(found.is_decision_node)[..., None]
        return np.where(which, found.state_embedding, found.afterstate_embedding)
    return np.asarray(found)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["muzero", "gumbel"])
def test_without_ties_one_draw_a_simulation_makes_the_same_trees(policy):
    trees = []
    for library in (mcts, mctx):
        root, model = problem(library, 64, 6)
        trees.append(run(library, policy, root, model, 48).search_tree)
    assert rows_of(trees, WHOLE, np.equal).mean() >= 0.98  # a lane may hold a near tie


ITS_TESTS = """
import importlib, sys, unittest
import mctx, jaxagent.mcts
modules = [importlib.import_module("mctx._src.tests." + n) for n in ("policies_test", "tree_test")]
for module in modules:
    module.mctx = jaxagent.mcts
cases = [unittest.defaultTestLoader.loadTestsFromModule(m) for m in modules]
result = unittest.TextTestRunner().run(unittest.TestSuite(cases))
print(result.testsRun, "run")
sys.exit(not result.wasSuccessful())
"""


@pytest.mark.slow
def test_its_own_tests_pass_with_ours_in_its_place():
    # Its tests look for their stored trees in a folder beside the one they run in.
    place = Path(importlib.util.find_spec("mctx").origin).parent
    command = [sys.executable, "-c", ITS_TESTS]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout.split()[-2]) >= 10
