"""Several leaves at once: a plain reference, identities, strength where optima are known."""

import functools
import importlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from search_models import mask, normal, problem, run, stochastic_problem

from jaxagent import mcts
from jaxagent.mcts.leaves import simulate_several

B, N, A = 5, 24, 4
PLAIN = {"muzero": {"dirichlet_fraction": 0.0}, "gumbel": {"gumbel_scale": 0.0}}


def flat_problem(batch_size=B, num_actions=A, discount=0.97, sharpness=0.3):
    """`problem` with priors so flat that most walks of a step end apart."""
    root, model = problem(mcts, batch_size, num_actions, discount=discount)

    def flat(params, key, action, z):
        step, z = model(params, key, action, z)
        return step.replace(prior_logits=sharpness * step.prior_logits), z

    return root.replace(prior_logits=sharpness * root.prior_logits), flat


class Plain:
    """One lane of PUCT with L leaves a step, in lists and loops; statistics by node and action."""

    def __init__(self, root, model, lane, virtual_visits, virtual_loss, max_depth):
        self.model, self.max_depth = model, max_depth
        self.weight, self.loss = virtual_visits, virtual_loss
        self.nodes = []
        self.make(*(np.asarray(x[lane]) for x in (root.prior_logits, root.value, root.embedding)))

    def make(self, logits, value, embedding, reward=0.0, discount=0.0):
        prior = np.exp(logits - logits.max())
        size = len(logits)
        self.nodes.append(
            {
                "prior": prior / prior.sum(),
                "raw": float(value),
                "embedding": embedding,
                "reward": float(reward),
                "discount": float(discount),
                "backed": [float(value)],
                "child": [None] * size,
                "visits": np.zeros(size),
                "flying": np.zeros(size),
            }
        )

    def mean(self, node):
        return np.mean(self.nodes[node]["backed"])

    def qvalues(self, at):
        return np.array(
            [
                0.0 if c is None else self.nodes[c]["reward"] + self.nodes[c]["discount"] * self.mean(c)
                for c in at["child"]
            ]
        )

    def choose(self, node):
        at, value = self.nodes[node], self.mean(node)
        visits, flying, qvalues = at["visits"], self.weight * at["flying"], self.qvalues(at)
        seen = total = visits + flying
        if self.loss is None:
            seen = visits
        else:
            lost = (visits * qvalues - flying * self.loss) / np.maximum(total, 1)
            qvalues = np.where(flying > 0, lost, qvalues)
        known = np.where(seen > 0, qvalues, value)
        low, high = min(value, known.min()), max(value, known.max())
        scaled = (np.where(seen > 0, qvalues, low) - low) / max(high - low, 1e-8)
        passed = len(at["backed"]) + flying.sum()
        weight = np.sqrt(passed) * (1.25 + np.log((passed + 19653.0) / 19652.0))
        return int((scaled + weight * at["prior"] / (total + 1)).argmax())

    def walk(self):
        path, node = [], 0
        while node is not None and len(path) < self.max_depth:
            path.append((node, self.choose(node)))
            self.nodes[node]["flying"][path[-1][1]] += 1
            node = self.nodes[node]["child"][path[-1][1]]
        return path

    def step(self, num_leaves):
        paths = [self.walk() for _ in range(num_leaves)]
        before = len(self.nodes)
        fresh = {}
        for path in paths:
            node, action = path[-1]
            if path[-1] in fresh:
                continue
            z = self.nodes[node]["embedding"][None]
            out, z = self.model((), None, jnp.array([action]), z)
            out = jax.tree.map(lambda x: np.asarray(x[0]), out)
            child = self.nodes[node]["child"][action]
            if child is None:
                child = before + sum(c >= before for c in fresh.values())
                self.make(out.prior_logits, out.value, np.asarray(z[0]), out.reward, out.discount)
                self.nodes[child]["backed"] = []
                self.nodes[node]["child"][action] = child
            fresh[path[-1]] = child
        for path in paths:
            node = fresh[path[-1]]
            found = self.nodes[node]["raw"]
            self.nodes[node]["backed"].append(found)
            for parent, action in reversed(path):
                found = self.nodes[node]["reward"] + self.nodes[node]["discount"] * found
                self.nodes[parent]["backed"].append(found)
                self.nodes[parent]["visits"][action] += 1
                self.nodes[parent]["flying"][action] -= 1
                node = parent


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_leaves", "virtual_visits", "virtual_loss", "discount", "max_depth"),
    [
        (2, 1.0, 0.7, 0.97, None),
        (8, 4.0, None, -1.0, None),
        (8, 3.0, 0.7, -1.0, 2),
        pytest.param(4, 1.0, None, 0.97, 2, marks=pytest.mark.slow),
        pytest.param(2, 1.0, None, 0.97, None, marks=pytest.mark.slow),
    ],
)
def test_trees_are_those_of_a_plain_loop(num_leaves, virtual_visits, virtual_loss, discount, max_depth):
    root, model = flat_problem(discount=discount)
    virtual = {"virtual_visits": virtual_visits, "virtual_loss": virtual_loss}
    options = {"num_leaves": num_leaves, "max_depth": max_depth} | virtual | PLAIN["muzero"]
    found = run(mcts, "muzero", root, model, N, **options).search_tree
    model = jax.jit(model)
    for lane in range(2):
        plain = Plain(root, model, lane, max_depth=max_depth or N, **virtual)
        for _ in range(N // num_leaves):
            plain.step(num_leaves)
        parents = np.asarray(found.parents)[lane]
        slots = [0, *np.flatnonzero(parents >= 0)]  # ours leave holes
        assert len(slots) == len(plain.nodes)
        visits = np.stack([node["visits"] for node in plain.nodes])
        np.testing.assert_array_equal(np.asarray(found.children_visits)[lane, slots], visits)
        assert not any(node["flying"].any() for node in plain.nodes)
        counts = [len(node["backed"]) for node in plain.nodes]
        np.testing.assert_array_equal(np.asarray(found.node_visits)[lane, slots], counts)
        means = [plain.mean(n) for n in range(len(slots))]
        np.testing.assert_allclose(np.asarray(found.node_values)[lane, slots], means, atol=1e-5)
        qvalues = np.stack([plain.qvalues(node) for node in plain.nodes])
        np.testing.assert_allclose(
            np.stack([found.qvalues(jnp.full((B,), s))[lane] for s in slots]), qvalues, atol=1e-5
        )


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["muzero", "gumbel"])
def test_one_leaf_is_the_search_there_was(policy, monkeypatch):
    """`search` runs other code for one leaf; that of several makes the same trees of one."""
    root, model = problem(mcts, B, A)
    options = {"invalid_actions": mask(B, A, 0), "max_depth": 6} | PLAIN[policy]
    default = run(mcts, policy, root, model, N, **options).search_tree
    module = importlib.import_module("jaxagent.mcts.search")
    monkeypatch.setattr(module, "simulate", functools.partial(simulate_several, num_leaves=1))
    several = run(mcts, policy, root, model, N, num_leaves=1, **options).search_tree
    for name in ("parents", "action_from_parent", "children_index", "children_visits"):
        np.testing.assert_array_equal(several[name], default[name], err_msg=name)
    np.testing.assert_allclose(several.node_values, default.node_values, atol=1e-6)


@functools.cache
def searched(policy, num_leaves, **options):
    root, model = flat_problem()
    options = {"num_leaves": num_leaves} | PLAIN[policy] | options
    return run(mcts, policy, root, model, N, **options).search_tree


def check_statistics(tree, num_simulations):
    """Every visit was backed up, and every value is the mean of what was backed up."""
    visits, passed = np.asarray(tree.children_visits), np.asarray(tree.node_visits)
    np.testing.assert_array_equal(visits[:, 0].sum(1), num_simulations)
    np.testing.assert_array_equal(passed[:, 0], num_simulations + 1)
    children = np.asarray(tree.children_index)
    lane = np.arange(len(children))[:, None, None]
    reached = np.where(children >= 0, passed[lane, children], 0)
    np.testing.assert_array_equal(visits, reached)
    size = passed.shape[1]
    qvalues = jax.vmap(lambda n: tree.qvalues(jnp.full((len(children),), n)), out_axes=1)
    ended = passed - visits.sum(-1)  # here, not below: once, unless walks shared the edge
    total = ended * np.asarray(tree.raw_values)
    total = total + (visits * np.asarray(qvalues(jnp.arange(size)))).sum(-1)
    np.testing.assert_allclose(total, np.asarray(tree.node_values) * passed, rtol=1e-4, atol=1e-4)


@pytest.mark.fast("gumbel-options2")
@pytest.mark.parametrize(
    ("policy", "options"), [("muzero", {}), ("muzero", {"max_depth": 2}), ("gumbel", {})]
)
def test_statistics_hold_no_virtual_visit(policy, options):
    check_statistics(searched(policy, 4, **options), N)


@pytest.mark.slow
def test_walks_that_share_an_edge_make_one_node():
    """A prior of one action: all walks of a step end in the same edge, and count there."""
    root, model = flat_problem(sharpness=0.0)
    sure = 50.0 * jax.nn.one_hot(jnp.full((B,), 2), A)

    def certain(params, key, action, z):
        step, z = model(params, key, action, z)
        return step.replace(prior_logits=jnp.resize(sure, (z.shape[0], A))), z

    root = root.replace(prior_logits=sure)
    tree = run(mcts, "muzero", root, certain, 12, num_leaves=4, **PLAIN["muzero"]).search_tree
    check_statistics(tree, 12)
    assert ((np.asarray(tree.parents) >= 0).sum(1) < 12).all()
    first = np.asarray(tree.children_index)[:, 0, 2]
    np.testing.assert_array_equal(first, 1)
    np.testing.assert_array_equal(np.asarray(tree.parents)[:, 2:5], -1)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["muzero", "gumbel"])
def test_lanes_do_not_meet(policy):
    order = np.array([3, 0, 4, 1, 2])
    root, model = flat_problem()
    root, here = jax.tree.map(lambda x: x[order], root), searched(policy, 4)
    there = run(mcts, policy, root, model, N, num_leaves=4, **PLAIN[policy]).search_tree
    np.testing.assert_array_equal(np.asarray(here.children_visits)[order], there.children_visits)
    np.testing.assert_allclose(np.asarray(here.node_values)[order], there.node_values, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["gumbel", pytest.param("muzero", marks=pytest.mark.slow)])
def test_masks_of_root_and_model_hold(policy):
    root, model = flat_problem()
    invalid, banned = mask(B, A, 1), np.arange(A) == 1

    def masking(params, key, action, z):
        step, z = model(params, key, action, z)
        return step.replace(invalid_actions=jnp.tile(banned, (z.shape[0], 1))), z

    options = {"num_leaves": 4, "invalid_actions": invalid}
    tree = run(mcts, policy, root, masking, N, **options).search_tree
    check_statistics(tree, N)
    visits = np.asarray(tree.children_visits)
    assert (visits[:, 0] * np.asarray(invalid)).sum() == 0
    assert visits[:, 1:].sum() > 0
    assert (visits[:, 1:] * banned).sum() == 0


@pytest.mark.slow
def test_halving_of_several_is_that_of_one():
    """Gumbel's root visits as its table says, whatever is on its way."""
    one, several = (searched("gumbel", n).summary().visit_counts for n in (1, 4))
    np.testing.assert_array_equal(np.sort(one, axis=1), np.sort(several, axis=1))


@pytest.mark.slow
def test_chance_nodes_and_rollouts_take_several_too():
    root, decision, outcome = stochastic_problem(mcts, B, A, 3)
    policy = functools.partial(mcts.stochastic_muzero_policy, num_leaves=4, dirichlet_fraction=0.0)
    found = jax.jit(lambda key: policy((), key, root, decision, outcome, N))(jax.random.key(0))
    np.testing.assert_array_equal(found.search_tree.summary().visit_counts.sum(1), N)
    root, model = flat_problem()
    found = jax.jit(lambda key: mcts.uct_policy((), key, root, model, N, num_leaves=4))(jax.random.key(0))
    check_statistics(found.search_tree, N)


@pytest.mark.slow
def test_a_tree_is_gone_on_from_and_a_decided_search_stops():
    root, model = flat_problem()
    first = searched("muzero", 4)
    both = run(mcts, "muzero", root, model, N, num_leaves=4, tree=first, **PLAIN["muzero"])
    check_statistics(both.search_tree, 2 * N)
    before = np.asarray(first.parents)
    after = np.asarray(both.search_tree.parents)[:, : N + 1]  # empty slots at the end may be taken
    np.testing.assert_array_equal(np.where(before >= 0, after, -1), before)
    sharp = root.replace(prior_logits=20.0 * jax.nn.one_hot(jnp.arange(B) % A, A))
    options = {"num_leaves": 4, "early_stop": True}
    cut = run(mcts, "muzero", sharp, model, 100, **options, **PLAIN["muzero"]).search_tree
    visits = np.sort(cut.summary().visit_counts, axis=1)
    assert (visits.sum(1) < 100).all()
    assert (visits[:, -1] - visits[:, -2] > 100 - visits.sum(1)).all()


@pytest.mark.slow
def test_the_model_is_called_with_all_leaves_of_a_lane_side_by_side():
    root, model = flat_problem()
    lane = jnp.arange(B, dtype=jnp.int32)
    steps, rows = [], []

    def with_lane(params, key, action, state):
        rows.append(action.shape[0])
        step, z = model(params, key, action, state[0])
        at = jnp.repeat(lane, action.shape[0] // B)
        return step.replace(value=jnp.where(state[1] == at, step.value, jnp.nan)), (z, state[1])

    def loop(low, high, body, state):
        steps.append(high - low)
        return jax.lax.fori_loop(low, high, body, state)

    root = root.replace(embedding=(root.embedding, lane))
    tree = run(mcts, "muzero", root, with_lane, N, num_leaves=4, loop_fn=loop).search_tree
    assert set(rows) == {4 * B}
    assert steps == [N // 4]
    assert np.isfinite(tree.node_values).all()


@pytest.mark.parametrize("num_leaves", [0, 5])
def test_leaves_that_do_not_divide_the_simulations_are_named(num_leaves):
    with pytest.raises(ValueError, match=re.escape(f"num_leaves: got {num_leaves} with 24")):
        searched("muzero", num_leaves)


@functools.cache
def world(discount, num_states=600):
    """A random deterministic world: next states, rewards and optimal values `[S, A]`.

    A discount below 0 makes it a game of two players.
    """
    rng = np.random.default_rng(0)
    shape = (num_states, A)
    after = rng.integers(0, num_states, shape)
    reward = 0.3 * rng.normal(size=shape) * np.where(rng.random(shape) < 0.3, 3.0, 1.0)
    best = np.zeros(shape)
    for _ in range(400):
        best = reward + discount * best.max(1)[after]
    return after, reward, best


def guessing(discount, value_noise=0.7, prior_noise=0.5):
    """A search from every state of `world` with a noisy guess of values and policy."""
    after, reward, best = world(discount)
    value, advantage = best.max(1), (best - best.mean(1, keepdims=True)) / best.std()
    value = value + value_noise * value.std() * np.asarray(normal(1, *value.shape))
    prior = advantage + prior_noise * np.asarray(normal(2, *best.shape))
    reward, prior, value = (jnp.asarray(x, jnp.float32) for x in (reward, prior, value))
    after = jnp.asarray(after, jnp.int32)

    def model(params, key, action, state):
        to = after[state, action]
        step = mcts.RecurrentFnOutput(
            reward=reward[state, action],
            discount=jnp.full(to.shape, discount, jnp.float32),
            prior_logits=prior[to],
            value=value[to],
        )
        return step, to

    state = jnp.arange(len(value), dtype=jnp.int32)
    return mcts.RootFnOutput(prior_logits=prior, value=value, embedding=state), model, best


def recommended(policy, discount, num_leaves):
    """Optimal values of the actions recommended after 64 simulations, and of the prior's."""
    root, model, best = guessing(discount)
    found = run(mcts, policy, root, model, 64, num_leaves=num_leaves, **PLAIN[policy])
    action = found.action if policy == "gumbel" else found.action_weights.argmax(1)
    states = np.arange(len(best))
    return best[states, np.asarray(action)], best[states, np.asarray(root.prior_logits).argmax(1)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("policy", "discount"),
    [
        ("gumbel", 0.95),
        ("muzero", -0.95),
        pytest.param("gumbel", -0.95, marks=pytest.mark.slow),
        pytest.param("muzero", 0.95, marks=pytest.mark.slow),
    ],
)
def test_several_leaves_are_as_strong_as_one(policy, discount):
    """The value found is within 1 %, its gain over an average action within 3."""
    _, _, best = guessing(discount)
    average, most = best.mean(1), (best.max(1) - best.mean(1)).mean()
    one, prior = recommended(policy, discount, 1)
    gain = (one - average).mean() / most
    assert gain > (prior - average).mean() / most + 0.05  # search does something
    for num_leaves in (4, 8):
        several, _ = recommended(policy, discount, num_leaves)
        if discount > 0:
            assert several.mean() > 0.99 * one.mean()
        assert (several - average).mean() / most > gain - 0.03


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["muzero", "gumbel"])
def test_no_loop_copies_or_selects_a_tree(policy):
    """As of one leaf: no [B (N + 1), A] copy or select in any loop body."""
    batch_size, num_simulations, num_actions = 32, 20, 7
    root, model = problem(mcts, batch_size, num_actions)
    search = {"muzero": mcts.muzero_policy, "gumbel": mcts.gumbel_muzero_policy}[policy]
    text = (
        jax.jit(lambda key: search((), key, root, model, num_simulations, num_leaves=4))
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
    assert not big.findall(text[: text.index("\nENTRY")]), "in a loop or a fusion of one"
