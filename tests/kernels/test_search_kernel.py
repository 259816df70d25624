"""`kernels.search` against its reference, and searches by it against XLA's, node for node."""

import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import CALLS, gpu_interpreter

from jaxagent import mcts
from jaxagent.mcts import launches
from kernels import dispatch, search
from kernels.scan.substitutes import GPU_LACKS
from kernels.search import pallas, rows

B, N, A, D = 3, 9, 5, 4


def random_trees(seed, num_trees=B, num_nodes=N, num_actions=A, fullness=0.8, masks=True):
    """Trees of any shape, with room for one node more; what is unused holds numbers too."""
    rng = np.random.default_rng(seed)
    row, number = (num_trees, num_nodes, num_actions), (num_trees, 1, num_nodes)
    children = np.full(row, search.UNVISITED, np.int32)
    parent, action = (np.full(number, -1, np.int32) for _ in range(2))
    choice = rng.integers(0, num_actions, number).astype(np.int32)
    for b in range(num_trees):
        for node in range(1, 1 + int(fullness * (num_nodes - 2))):
            free = np.argwhere(children[b, :node] < 0)
            free = free[free[:, 0] >= node - 3]  # deep, and mostly chosen
            parent[b, 0, node], action[b, 0, node] = at = free[rng.integers(len(free))]
            children[b, at[0], at[1]] = node
            if rng.random() < 0.8:
                choice[b, 0, at[0]] = at[1]

    def normal(shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    logits = normal(row)
    return search.Trees(
        children=jnp.asarray(children),
        logits=logits,
        probs=jax.nn.softmax(logits),
        visits=jnp.asarray(rng.integers(0, 4, row), jnp.float32),
        qvalues=normal(row),
        invalid=jnp.asarray(rng.random(row) < 0.3, jnp.int32) if masks else None,
        choice=jnp.asarray(choice),
        parent=jnp.asarray(parent),
        action=jnp.asarray(action),
        num_visits=jnp.asarray(rng.integers(1, 9, number), jnp.float32),
        **{name: normal(number) for name in ("value", "raw_value", "reward", "discount")},
    )


def random_step(seed, num_trees=B, num_actions=A, masks=True):
    """What a model might say, and noise."""
    rng = np.random.default_rng(seed)
    logits, noise = (jnp.asarray(rng.normal(size=(num_trees, num_actions)), jnp.float32) for _ in range(2))
    value, reward, discount = (jnp.asarray(rng.normal(size=num_trees), jnp.float32) for _ in range(3))
    invalid = jnp.asarray(rng.random((num_trees, num_actions)) < 0.3) if masks else None
    judged = search.Judged(logits, jax.nn.softmax(logits), invalid, value, reward, discount)
    return judged, noise


def chosen(node, lane):
    """A rule that reads all of a node, and adds up, compares and counts its actions."""
    noise, is_bold = lane
    scale = jnp.sqrt(node.num_visits) / (1.0 + jnp.sum(node.visits))
    spread = jnp.max(node.qvalues) - jnp.min(node.qvalues) + jnp.abs(node.value - node.raw_value)
    scores = node.qvalues / spread + scale * node.probs + 0.1 * noise + 0.01 * node.logits
    scores = jnp.where(is_bold & (node.depth % 2 == 0), -scores, scores)
    scores = jnp.where(node.invalid & jnp.any(~node.invalid), -jnp.inf, scores)
    return jnp.argmax(scores).astype(jnp.int32)


def simulated(implementation, trees, action, judged, lane, max_depth=D):
    """A walk, and its backup."""
    walk = search.descend(trees, action, max_depth=max_depth, implementation=implementation)
    slot = jnp.where(walk.child < 0, trees.choice.shape[-1] - 1, walk.child)
    trees = search.back_up(trees, walk, slot, judged, chosen, lane, implementation=implementation)
    return walk, trees


def assert_alike(got, expected, num_actions=A, rtol=1e-6):
    """Walks as far as they went, and trees but for their padding; integers are the same."""
    (walk, trees), (walk_expected, trees_expected) = got, expected
    walk, walk_expected = (jax.tree.map(np.asarray, x) for x in (walk, walk_expected))
    is_met = np.arange(walk.path.shape[-1]) < walk_expected.length[..., None]
    np.testing.assert_array_equal(walk.path * is_met, walk_expected.path * is_met)
    for x, y in zip(walk[1:], walk_expected[1:], strict=True):
        np.testing.assert_array_equal(x, y)
    trees, trees_expected = (search.cut(x, num_actions) for x in (trees, trees_expected))
    for name, x in trees._asdict().items():
        y = getattr(trees_expected, name)
        if y is not None:
            assert x.dtype == y.dtype, name
            exact = jnp.issubdtype(y.dtype, jnp.integer)
            np.testing.assert_allclose(
                x, y, rtol=0 if exact else rtol, atol=0 if exact else 1e-6, err_msg=name
            )


BY = {how: jax.jit(partial(simulated, how)) for how in ("xla", "interpret")}


def data(seed, fullness=0.8):
    trees = random_trees(seed, fullness=fullness)
    judged, noise = random_step(seed + 1)
    # To the first child that there is; a root without one takes action 0.
    action = jnp.argmax(trees.children[:, 0] >= 0, axis=-1).astype(jnp.int32)
    return search.padded(trees), action, judged, (noise, jnp.asarray([True, False, True]))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**16), st.sampled_from([0.0, 0.5, 1.0]))
def test_any_tree_is_changed_as_by_the_reference(seed, fullness):
    args = data(seed, fullness)
    assert_alike(BY["interpret"](*args), BY["xla"](*args))


@pytest.mark.accelerator
@pytest.mark.parametrize("seed", range(12))
def test_the_device_changes_trees_as_the_reference_does(seed):
    run = jax.jit(partial(simulated, "pallas"))
    args = data(seed, (0.0, 0.5, 1.0)[seed % 3])
    assert_alike(run(*args), BY["xla"](*args))


@pytest.mark.accelerator
@pytest.mark.parametrize("num_actions", [1, 5, 128, 130])
def test_the_device_searches_as_xla_does(num_actions):
    """A slip shows in all simulations after it; rounding may turn a choice that is nearly a tie."""
    trees = [searched(how, num_actions) for how in ("pallas", "xla")]
    is_same = jnp.all(trees[0].children_visits == trees[1].children_visits, axis=(1, 2))
    assert is_same.mean() >= 0.9
    values = [jnp.where(is_same[:, None], tree.node_values, 0.0) for tree in trees]
    np.testing.assert_allclose(*values, rtol=1e-5, atol=1e-5)


def searched(implementation, num_actions, num_trees=64):
    """Trees of a model of draws; no step gives just what its state was worth, which would be a tie."""
    draws = jax.random.normal(jax.random.key(0), (7, num_actions))

    def model(params, key, action, embedding):
        at = (embedding * 31 + action + 1) % 7
        value = jnp.tanh(draws[at, action])
        ones = jnp.ones_like(value)
        step = mcts.RecurrentFnOutput(
            reward=0.37 * value, discount=0.9 * ones, prior_logits=draws[at], value=value
        )
        return step, at

    begin = jnp.arange(num_trees) % 7
    value = jnp.zeros(num_trees)
    root = mcts.RootFnOutput(prior_logits=draws[begin], value=value, embedding=begin)
    rule = mcts.muzero_action_selection
    return jax.jit(
        partial(
            mcts.search,
            recurrent_fn=model,
            root_action_selection_fn=partial(rule, depth=0),
            interior_action_selection_fn=rule,
            num_simulations=16,
            implementation=implementation,
        )
    )((), jax.random.key(1), root=root)


def test_searches_of_a_model_of_draws_are_equal():
    trees = [searched(how, A, 3) for how in ("interpret", "xla")]
    np.testing.assert_array_equal(trees[0].children_visits, trees[1].children_visits)


def test_what_the_kernel_lacks_is_searched_by_xla_unless_it_is_named(monkeypatch):
    assert launches.implementation_of("interpret", "mctx", 1, ["float32"]) == "xla"
    with pytest.raises(ValueError, match="implementation: got 'nonsense'"):
        launches.implementation_of("nonsense", "mctx", 4, ["float32"])
    monkeypatch.setenv(dispatch.VARIABLE, "interpret")
    assert launches.implementation_of("auto", "simulation", 1, ["float32", "float32"]) == "interpret"
    assert launches.implementation_of("auto", "simulation", 1, ["float32", "bfloat16"]) == "xla"
    assert launches.implementation_of("interpret", "simulation", 1, ["bfloat16"]) == "interpret"


def test_random_trees_have_walks_of_every_kind():
    walks = [BY["xla"](*data(seed, seed % 2))[0] for seed in range(12)]
    length, child = (np.concatenate([getattr(w, name) for w in walks]) for name in ("length", "child"))
    assert set(length) == set(range(1, D + 1))
    assert (child[length == D] >= 0).any()  # ended by `max_depth`
    assert (child[length == D] < 0).any()


def traced():
    """The rule of these tests, as a kernel has it."""
    row, bit = (jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in (((A,), jnp.float32), ((), bool)))
    return rows.traced(lambda node, *lane: chosen(node, lane), A, search._node_like(A), row, bit)


def test_the_walk_of_a_gpu_writes_what_it_met():
    trees, action, judged, lane = data(3)
    path, ends = pallas.gpu_descend(trees, action, max_depth=D, interpret=gpu_interpreter())
    walk, changed = BY["xla"](trees, action, judged, lane)
    assert_alike((search.Walk(path[:, 0], *ends[:, 0].T), changed), (walk, changed))


@pytest.mark.skipif(jax.__version_info__ < (0, 11), reason="its interpreter takes no arrays changed in place")
def test_the_backup_of_a_gpu_races_nowhere():
    """Of trees with each other: a warpgroup is one thread of the interpreter."""
    trees, action, judged, lane = data(3)
    walk, expected = BY["xla"](trees, action, judged, lane)
    slot = jnp.where(walk.child < 0, N - 1, walk.child)
    rule, consts = traced()
    given = pallas.given(walk, slot, judged, list(lane), consts, trees.logits.shape[-1])
    got = pallas.gpu_back_up(rule, trees, given, interpret=gpu_interpreter())
    assert_alike((walk, got), (walk, expected))


def test_it_is_mapped_over_batches_and_devices():
    """Of data that lanes share, too."""
    args, lane = jax.tree.map(lambda *x: jnp.stack(x), data(5)[:3], data(6)[:3]), data(5)[3]
    run, axes = partial(simulated, "interpret"), (0, 0, 0, None)
    for over in (lambda f, in_axes: jax.jit(jax.vmap(f, in_axes)), jax.pmap):
        got = jax.device_get(over(run, in_axes=axes)(*args, lane))
        for i in range(2):
            one, given = (jax.tree.map(lambda x, i=i: x[i], x) for x in (got, args))
            assert_alike(one, BY["xla"](*given, lane))
    jaxpr = jax.make_jaxpr(jax.vmap(run, axes))(*args, lane).jaxpr
    assert [e.params["grid_mapping"].grid for e in calls(jaxpr)] == [(2 * B,), (2 * B,)]  # one launch each


def calls(jaxpr):
    """Calls of kernels in a program."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "pallas_call":
            yield eqn
        elif eqn.primitive.name == "custom_vmap_call":
            yield from calls(eqn.params["call"].jaxpr)


def test_it_lowers_for_accelerators_in_place():
    args = data(0)
    for platform in CALLS:
        lowered = jax.jit(partial(simulated, "pallas")).trace(*args).lower(lowering_platforms=(platform,))
        text = lowered.as_text()
        assert text.count(f"custom_call @{TARGETS[platform]}(") == 2  # a walk and a backup
        changed = len(jax.tree.leaves(args[0]))
        assert text.count("#stablehlo.output_operand_alias<") == changed


TARGETS = {"cuda": "mosaic_gpu_v2", "tpu": "tpu_custom_call"}

# --- rules ------------------------------------------------------------------------------------------

READINGS = (
    lambda x, n: jnp.argmax(jax.nn.softmax(x)),
    lambda x, n: jnp.argmin(x[None], axis=1)[0],
    lambda x, n: jnp.argmax(jnp.where(x > 0, jnp.nan, x)),
    lambda x, n: jnp.argmax(jnp.full_like(x, n)),
    lambda x, n: jnp.sum(x > 0, dtype=jnp.int32) + jnp.sum(jnp.full_like(x, 3.0)).astype(jnp.int32),
    lambda x, n: (jnp.any(x > 1.5) | jnp.all(x < 0.0, keepdims=True)[0]).astype(jnp.int32),
    lambda x, n: jnp.min(jnp.where(x == jnp.max(x), jnp.arange(x.shape[0], dtype=jnp.int32), 99)),
    lambda x, n: (10.0 * jnp.sqrt(jnp.abs(n)) * jnp.max(jnp.sqrt(jnp.square(x)))).astype(jnp.int32),
    lambda x, n: (jnp.max(x[:, None], axis=0) * 10.0)[0].astype(jnp.int32),
    lambda x, n: jnp.argmax(x > 1e9) + 10 * jnp.argmin(x < 1e9) + 100 * jnp.argmax(x > 0.0),
)


@pytest.mark.parametrize("num_actions", [1, 5])
def test_rules_of_rows_read_a_padded_row_as_the_row(num_actions):
    rng = np.random.default_rng(0)
    row = jnp.asarray(rng.normal(size=(9, num_actions)), jnp.float32)
    number, place = jnp.arange(9.0) / 3.0, jnp.arange(128, dtype=jnp.int32)
    shapes = jax.ShapeDtypeStruct((num_actions,), jnp.float32), jax.ShapeDtypeStruct((), jnp.float32)
    plain = [lambda x, n, rule=rule: rule(x, n).astype(jnp.int32) for rule in READINGS]
    read = [rows.traced(rule, num_actions, *shapes) for rule in plain]
    garbage = jnp.pad(row, [(0, 0), (0, 128 - num_actions)], constant_values=7.7)

    @jax.jit
    def both(row, garbage, number):
        asked = [rows.ask(rule, place, [garbage, number], consts, lacks=GPU_LACKS) for rule, consts in read]
        return jnp.stack([rule(row, number) for rule in plain]), jnp.stack(asked)

    expected, got = jax.vmap(both)(row, garbage, number)
    np.testing.assert_array_equal(got, expected)
    assert len(np.unique(expected)) > (3 if num_actions > 1 else 1)


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        (lambda x: jnp.argsort(x)[0], r"a rule with sort of \(5,\), .*implementation='xla'"),
        (lambda x: jnp.cumsum(x)[0].astype(jnp.int32), "a rule with cumsum"),
        (lambda x: jnp.argmax(x[::-1]).astype(jnp.int32), "a rule with rev"),
        (lambda x: jnp.argmax(x[:3]).astype(jnp.int32), "a rule with slice"),
        (lambda x: jnp.sum(x[:, None] + x[None]).astype(jnp.int32), r"a rule with add of .*\(5, 5\)"),
        (lambda x: jax.random.categorical(jax.random.key(0), x).astype(jnp.int32), "a rule with random"),
        (lambda x: jnp.argmax(x + jnp.arange(5.0)[jnp.zeros(5, jnp.int32)]).astype(jnp.int32), "a rule"),
        (lambda x: jnp.argmax(x + OWN).astype(jnp.int32), r"closes over an array of shape \(5,\)"),
        (lambda x: jnp.max(x), "a rule that returns"),
        (lambda x: jnp.argmax(x, keepdims=True).astype(jnp.int32), "a rule that returns"),
    ],
)
def test_rules_that_no_vector_has_are_refused(rule, told):
    with pytest.raises(ValueError, match=told):
        rows.traced(rule, 5, jax.ShapeDtypeStruct((5,), jnp.float32))


OWN = jnp.ones(5)


def test_data_of_lanes_that_are_no_rows_may_be_there_but_not_be_read():
    trees, action, judged, (noise, is_bold) = data(0)
    walk = search.descend(trees, action, max_depth=D, implementation="xla")
    lane = noise, is_bold, jnp.ones((B, 2))
    slot = jnp.where(walk.child < 0, N - 1, walk.child)

    def run(rule):
        return search.back_up(trees, walk, slot, judged, rule, lane, implementation="interpret")

    with pytest.raises(ValueError, match=r"reads data of shape \(2,\), expected \(\) or \(5,\)"):
        run(lambda node, lane: jnp.sum(lane[2]).astype(jnp.int32))
    jax.eval_shape(lambda: run(lambda node, lane: chosen(node, lane[:2])))


def test_arrays_outside_its_domain_are_refused():
    trees, action, judged, lane = data(0)
    walk = search.descend(trees, action, max_depth=D, implementation="xla")

    def back_up(trees=trees, judged=judged, slot=action):
        return search.back_up(trees, walk, slot, judged, chosen, lane, implementation="interpret")

    short, half = search.cut(trees, A), trees._replace(value=trees.value.astype(jnp.bfloat16))
    for told, run in {
        "rows of 5, expected .* multiple of 128; begin with `padded`": lambda: back_up(short),
        "value of bfloat16, expected float32": lambda: back_up(half),
        r"slot of shape \(2,\), expected \(3,\)": lambda: back_up(slot=action[:2]),
        r"judged.logits of shape \(2, 5\)": lambda: back_up(judged=judged._replace(logits=jnp.ones((2, A)))),
        "none of judged.invalid": lambda: back_up(judged=judged._replace(invalid=None)),
        r"actions float32 \(3,\)": lambda: search.descend(trees, jnp.ones(B), max_depth=D),
        "max_depth 0": lambda: search.descend(trees, action, max_depth=0),
    }.items():
        with pytest.raises(ValueError, match=told):
            run()


def test_its_cost_is_of_levels_and_of_a_new_node():
    def of(depth, num_trees=1):
        return search.cost(num_trees, 82, depth, num_rows=3, operations=40)

    assert of(0) == (0, 4 * (4 * 82 + 9))
    assert of(1)[1] - of(0)[1] == of(7)[1] - of(6)[1] == 2 * 32 + 4 * (7 * 82 + 10)
    assert of(6, 1024) == (1024 * 6 * 82 * 40, 1024 * of(6)[1])


# --- whole searches ---------------------------------------------------------------------------------


def tabular(num_actions, seed=0, num_states=11, masks=False):
    """Roots of `B` lanes and a model, of tables by state; the value of state 4 is NaN."""
    rng = np.random.default_rng(seed)
    logits = jnp.asarray(rng.normal(size=(num_states, num_actions)), jnp.float32)
    value, reward = jnp.asarray(rng.normal(size=(2, num_states)), jnp.float32)
    value = value.at[4].set(jnp.nan)
    after = jnp.asarray(rng.integers(0, num_states, (num_states, num_actions)), jnp.int32)
    invalid = jnp.asarray(rng.random((num_states, num_actions)) < 0.4).at[2].set(True)

    def model(params, key, action, state):
        state = after[state, action]
        step = mcts.RecurrentFnOutput(
            reward=reward[state],
            discount=jnp.where(state == 7, 0.0, 0.9),
            prior_logits=logits[state],
            value=value[state],
            invalid_actions=invalid[state] if masks else None,
        )
        return step, state

    first = jnp.asarray([0, 1, 3], jnp.int32)
    return mcts.RootFnOutput(prior_logits=logits[first], value=value[first], embedding=first), model


def puct(key, root_and_model):
    """A root with no valid action, a limit to depth, an end when all is decided."""
    root, model = root_and_model(A)
    return mcts.search(
        (),
        key,
        root=root,
        recurrent_fn=model,
        root_action_selection_fn=partial(mcts.muzero_action_selection, depth=0),
        interior_action_selection_fn=mcts.muzero_action_selection,
        num_simulations=16,
        invalid_actions=jnp.zeros((B, A), bool).at[0, 1].set(True).at[2].set(True),
        max_depth=3,
        early_stop=True,
    )


def gumbel(key, root_and_model):
    """Actions that the model masks, in what an earlier search left."""
    root, model = root_and_model(A, masks=True)
    return mcts.gumbel_muzero_policy((), key, root, model, 6, tree=left(root_and_model))


@functools.cache
def left(root_and_model):
    """Subtrees of a search, by XLA."""
    root, model = root_and_model(A, masks=True)

    @jax.jit
    def first(key):
        interior = mcts.gumbel_muzero_interior_action_selection
        rules = {
            "root_action_selection_fn": partial(interior, depth=0),
            "interior_action_selection_fn": interior,
        }
        options = rules | {"num_simulations": 12, "implementation": "xla"}
        tree = mcts.search((), key, root=root, recurrent_fn=model, **options)
        return mcts.subtree(tree, jnp.argmax(tree.summary().visit_counts, axis=-1), 9)

    return first(jax.random.key(2))


def uct(key, root_and_model):
    """Two searches at once."""
    return jax.vmap(lambda key: mcts.uct_policy((), key, *root_and_model(A), 9))(jax.random.split(key))


def chain(key, root_and_model):
    """One action, by MuZero's whole policy: every walk is one deeper."""
    scale = partial(mcts.qtransform_by_min_max, min_value=-1.0, max_value=1.0)
    return mcts.muzero_policy((), key, *root_and_model(1), 10, qtransform=scale)


def biased(key, root_and_model):
    """A rule of one's own: the improved policy's, of data of lanes."""

    def interior(key, tree, index, depth):
        bias, scale = tree.extra_data
        tree = tree._replace(children_prior_logits=tree.children_prior_logits + (scale * bias)[None])
        return mcts.gumbel_muzero_interior_action_selection(key, tree, index, depth)

    root, model = root_and_model(A)
    bias = jnp.ones((B, A)).at[:, 0].set(3.0), jnp.arange(3.0)
    return mcts.search(
        (),
        key,
        root=root,
        recurrent_fn=model,
        root_action_selection_fn=partial(interior, depth=0),
        interior_action_selection_fn=interior,
        num_simulations=12,
        extra_data=bias,
    )


@pytest.mark.fast("puct", "gumbel")
@pytest.mark.parametrize("policy", [puct, gumbel, uct, biased, chain])
def test_searches_make_the_trees_of_xla(monkeypatch, policy):
    made = {}
    if policy is gumbel:
        left(tabular)  # once, and outside of what is compiled
    for how in ("xla", "interpret"):
        monkeypatch.setenv(dispatch.VARIABLE, how)
        called = []
        back_up = pallas.tpu_back_up
        monkeypatch.setattr(
            pallas, "tpu_back_up", lambda *a, f=back_up, c=called, **k: c.append(1) or f(*a, **k)
        )
        made[how] = jax.jit(lambda key: policy(key, tabular))(jax.random.key(1))
        assert bool(called) == (how == "interpret")
    pairs = zip(*(jax.tree.leaves_with_path(made[how]) for how in made), strict=True)
    for (path, x), (_, y) in pairs:
        exact = not jnp.issubdtype(x.dtype, jnp.floating)
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(y, x, rtol=0 if exact else 1e-6, atol=0 if exact else 1e-6, err_msg=name)
    if policy is chain:
        assert made["xla"].search_tree.parents[0].tolist() == list(range(-1, 10))


def test_a_search_that_the_kernel_has_not_takes_the_other_way(monkeypatch):
    """Ties of mctx, several leaves, and a machine without the kernel."""
    root, model = tabular(A)
    called = []
    monkeypatch.setattr(pallas, "tpu_back_up", lambda *args, **options: called.append(args))

    def actions(**options):
        policy = partial(mcts.muzero_policy, (), root=root, recurrent_fn=model, num_simulations=2)
        return jax.eval_shape(lambda key: policy(key, **options), KEY).action

    monkeypatch.setenv(dispatch.VARIABLE, "interpret")
    for options in ({"tie_break": "mctx"}, {"num_leaves": 2}):
        assert actions(**options).shape == root.value.shape
    monkeypatch.setenv(dispatch.VARIABLE, "pallas")  # which this machine has not
    assert actions().shape == root.value.shape
    assert not called


KEY = jax.eval_shape(lambda: jax.random.key(0))


def test_a_search_lowers_to_two_calls_a_simulation(monkeypatch):
    monkeypatch.setenv(dispatch.VARIABLE, "pallas")
    for platform in CALLS:
        monkeypatch.setattr(dispatch, "platform", lambda here=platform: here)
        root, model = tabular(A)
        lowered = jax.jit(lambda key: mcts.muzero_policy((), key, root, model, 2)).trace(KEY)  # noqa: B023
        text = lowered.lower(lowering_platforms=(platform,)).as_text()
        assert text.count(f"custom_call @{TARGETS[platform]}(") == 2


def test_a_rule_that_draws_is_refused_by_name():
    root, model = tabular(A)

    def interior(key, tree, index, depth):
        return jax.random.randint(key, (), 0, A)

    with pytest.raises(ValueError, match="a rule with random"):
        mcts.search(
            (),
            jax.random.key(0),
            root=root,
            recurrent_fn=model,
            root_action_selection_fn=partial(interior, depth=0),
            interior_action_selection_fn=interior,
            num_simulations=2,
            implementation="interpret",
        )
