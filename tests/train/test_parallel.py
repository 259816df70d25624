"""Devices: one equals four, replicas stay equal, a forgotten average shows, chunks change nothing.

Every chunk is waited for before the next one: with several fake devices on two cores, collectives
enqueued without blocking abort the process.
"""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.vector import VectorEnv, broadcast_params
from jaxagent import keys
from jaxagent.agents.actor_critic import ppo
from jaxagent.agents.pretraining import next_scalars
from jaxagent.config import NUM_SHARDS, PPOConfig, TokenConfig, TransformerConfig
from jaxagent.data.sampler import Batch
from jaxagent.nn.sequence_model import model
from jaxagent.tokens.component import Domain
from jaxagent.train import history, loops, optimizer, parallel
from jaxagent.train.clock import CompileClock
from jaxagent.train.parallel import Mean, ReplicaDrift
from jaxagent.types import Loop

KEY = functools.partial(keys.derive, 3, "update")
TINY = PPOConfig(num_envs=8, num_steps=8, num_epochs=2, num_minibatches=2, hidden_size=8, learning_rate=3e-3)


# --- the programs under test ----------------------------------------------------------------------


def cartpole_loop():
    env, _ = envs.make("gymnax/CartPole-v1")
    agent = ppo(env.obs_spec, env.action_spec, TINY)
    adam = optimizer.adam(TINY.learning_rate, TINY.max_gradient_norm)
    return loops.on_policy(agent, VectorEnv(env), adam, TINY)


def cartpole_tasks():
    """Short episodes, so that a few updates see their ends."""
    _, task = envs.make("gymnax/CartPole-v1", max_steps_in_episode=6)
    return broadcast_params(task, TINY.num_envs)


def ppo_program():
    loop = cartpole_loop()
    return loop, jax.jit(loop.init)(keys.derive(0, "init"), cartpole_tasks()), ()


def linear_program():
    def loss(params, minibatch, data):
        x, y = minibatch
        error = jnp.mean(jnp.square(x @ params["w"] + params["b"] - y))
        return error, {"train/bias": params["b"]}

    def sample(data, key):
        index = jax.random.randint(key, (4,), 0, data[0].shape[0])
        return data[0][index], data[1][index]

    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(64, 3)), jnp.float32)
    data = (x, x @ jnp.array([1.0, -2.0, 0.5]) + 0.3)
    loop = loops.supervised(loss, sample, optimizer.adam(0.03, 1.0))
    return loop, loop.init({"w": jnp.zeros((3,)), "b": jnp.zeros(())}), data


def transformer_program():
    """Pretraining of a tiny transformer on random tokens."""
    domain = Domain(obs_size=2, action_size=1, action_cardinality=3, index=0, first_component=0)
    config = TransformerConfig(width=8, num_layers=1, num_heads=2, mlp_factor=2, context=3)
    net = model(config, TokenConfig(num_bins=5), (domain,))

    def loss(params, minibatch, data):
        return next_scalars(net, params, net.layouts[0], minibatch)

    def sample(data, key):
        unit = data[jax.random.randint(key, (2,), 0, len(data))]
        return Batch(unit, jnp.ones(unit.shape[:2], bool))

    rng = np.random.default_rng(0)
    data = jnp.asarray(np.dstack([rng.uniform(-1, 1, (16, 3, 2)), rng.integers(0, 3, (16, 3))]), jnp.float32)
    loop = loops.supervised(loss, sample, optimizer.adam(0.01, 1.0))
    return loop, loop.init(jax.jit(net.init)(keys.derive(0, "init"))), data


PROGRAMS = {"ppo": ppo_program, "linear": linear_program, "transformer": transformer_program}
NAMES = [
    pytest.param("ppo", marks=pytest.mark.slow),
    "linear",
    pytest.param("transformer", marks=pytest.mark.slow),
]


def run(program, num_devices, chunks=(3,)):
    """Final state and the report of each chunk, on the host."""
    loop, first, data = program
    state, reports = parallel.first_state(*first), []
    compiled = {n: parallel.chunked(loop, n, num_devices, data) for n in set(chunks)}
    for num_updates in chunks:
        state, report = jax.block_until_ready(compiled[num_updates](state, KEY()))
        reports.append(jax.device_get(report))
    return jax.device_get(state), reports


@functools.cache
def program(name):
    return PROGRAMS[name]()


@functools.cache
def result(name, num_devices, chunks=(3,)):
    return run(program(name), num_devices, chunks)


def assert_close(a, b, rtol=0.0, atol=0.0):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for (path, x), y in zip(jax.tree.leaves_with_path(a), jax.tree.leaves(b), strict=True):
        name = jax.tree_util.keystr(path)
        assert np.shape(x) == np.shape(y), name
        np.testing.assert_allclose(x, y, rtol=rtol, atol=atol, err_msg=name)


def distance(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(np.abs(x - y).max()) for x, y in pairs if np.size(x))


# --- one device equals four -----------------------------------------------------------------------


@pytest.mark.fast("linear")
@pytest.mark.parametrize("name", NAMES)
def test_one_device_equals_four(name):
    """Only the order of a sum differs: 1e-4 is far below the step of one update."""
    (one, one_reports), (four, four_reports) = result(name, 1), result(name, 4)
    loop_start = jax.device_get(parallel.first_state(*program(name)[1]))
    assert distance(one.learner.params, loop_start.learner.params) > 5e-3, "nothing was learned"
    assert_close(one, four, rtol=1e-4, atol=1e-6)
    for a, b in zip(one_reports, four_reports, strict=True):
        assert_close(a.metrics, b.metrics, rtol=1e-4, atol=1e-6)


def test_two_devices_equal_one():
    (one, _), (two, _) = result("linear", 1), result("linear", 2)
    assert_close(one, two, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_return_metric_is_the_mean_of_finished_episodes():
    """Episodes of CartPole last 6 steps here, too few to fall: every return is 6."""
    finished = result("ppo", 1)[1][0].metrics["train/return"]
    assert finished.count == TINY.num_envs * (3 * TINY.num_steps // 6) / NUM_SHARDS  # of a shard
    assert finished.total == 6 * finished.count


@pytest.mark.slow
@pytest.mark.parametrize("num_devices", [1, 4])
def test_learning_statistics_cover_all_shards(num_devices):
    """The moments of observations after 3 updates have counted every env step of every shard."""
    learner = result("ppo", num_devices)[0].learner
    assert learner.normalizer.count == 3 * TINY.num_envs * TINY.num_steps


# --- replicas -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_replicas_are_bit_identical(name):
    (report,) = result(name, 4)[1]
    assert report.checksums.shape == (4,)
    assert len(set(report.checksums.tolist())) == 1
    parallel.check_replicas(report.checksums)
    assert report.is_finite.all()


@pytest.mark.parametrize("name", ["linear", pytest.param("ppo", marks=pytest.mark.slow)])
def test_a_forgotten_gradient_average_raises_replica_drift(name, monkeypatch):
    true_version = parallel.value_and_mean_grad

    def forgetful(loss_fn, in_turn=False):
        differentiate = true_version(loss_fn, in_turn)

        def local(*args):
            with monkeypatch.context() as patch:
                patch.setattr(parallel, "average_devices", lambda tree: tree)
                return differentiate(*args)

        return local

    monkeypatch.setattr(loops, "value_and_mean_grad", forgetful)
    broken = PROGRAMS[name]()
    _, (report,) = run(broken, 4, (1,))
    with pytest.raises(ReplicaDrift, match="not averaged"):
        parallel.check_replicas(report.checksums)
    parallel.check_replicas(run(broken, 1, (1,))[1][0].checksums)


@pytest.mark.slow
def test_a_forgotten_statistic_raises_replica_drift(monkeypatch):
    def local_mean(tree):
        return jax.tree.map(lambda x: jnp.mean(x, axis=0), tree)

    monkeypatch.setattr(loops, "average_shards", local_mean)
    _, (report,) = run(ppo_program(), 4, (1,))
    with pytest.raises(ReplicaDrift):
        parallel.check_replicas(report.checksums)


def test_check_replicas_names_the_checksums():
    parallel.check_replicas(np.array([7, 7], np.uint32))
    with pytest.raises(ReplicaDrift, match=re.escape("[7, 7, 8, 7]")):
        parallel.check_replicas(np.array([7, 7, 8, 7], np.uint32))


def test_checksum_sees_one_bit_and_swapped_leaves():
    tree = {
        "a": jnp.ones((3,)),
        "b": jnp.zeros((3,)),
        "n": jnp.array(3, jnp.int32),
        "flag": jnp.array(True),
        "half": jnp.ones((2,), jnp.bfloat16),
    }
    base = int(parallel.checksum(tree))
    assert base == int(parallel.checksum(dict(tree)))
    changes = {
        "last bit": tree | {"a": tree["a"].at[1].set(jnp.nextafter(1.0, 2.0))},
        "swap": tree | {"a": tree["b"], "b": tree["a"]},
        "sign of zero": tree | {"b": tree["b"].at[0].set(-0.0)},
        "integer": tree | {"n": jnp.array(4, jnp.int32)},
        "bool": tree | {"flag": jnp.array(False)},
        "half": tree | {"half": tree["half"].at[0].set(1.0078125)},
    }
    for name, changed in changes.items():
        assert int(parallel.checksum(changed)) != base, name


@pytest.mark.parametrize("num_leaves", [1, 2, 3])
def test_any_number_of_leaves_keeps_its_axes(num_leaves):
    """With as many leaves as arguments, pmap of jax 0.10 mixed up which of them are mapped."""

    def update(learner, shards, data, shard_ids, key):
        return jax.tree.map(lambda x: x + 1.0, learner), shards + shard_ids, {}

    learner = [jnp.zeros(()) for _ in range(num_leaves)]
    state = parallel.first_state(learner, jnp.zeros((NUM_SHARDS,), jnp.int32))
    state, _ = parallel.chunked(Loop((), update), 2, 2)(state, KEY())
    assert jax.device_get(state.learner) == [2.0] * num_leaves
    assert state.shards.tolist() == [0, 2, 4, 6]


def test_an_empty_leaf_is_refused_by_name():
    """It would end the process inside jaxlib 0.11 (Shardy drops the input and crashes)."""
    with pytest.raises(ValueError, match=r"log_std.*got shape \(0,\), expected at least one"):
        parallel.first_state({"log_std": jnp.zeros((0,))})


# --- devices that do not fit ----------------------------------------------------------------------


def test_too_many_devices_say_how_to_get_them():
    with pytest.raises(ValueError, match=r"got 8, expected at most 4 .*device_count=8"):
        parallel.chunked(Loop((), lambda *args: args), 1, 8)


def test_shards_must_divide_over_devices():
    with pytest.raises(ValueError, match=rf"got 3, expected a divisor of {NUM_SHARDS}"):
        parallel.chunked(Loop((), lambda *args: args), 1, 3)


# --- chunks ---------------------------------------------------------------------------------------


@pytest.mark.fast("linear-4-chunks2")
@pytest.mark.parametrize(
    ("name", "num_devices", "chunks"), [("ppo", 1, (1, 1, 1)), ("linear", 1, (2, 2)), ("linear", 4, (2, 2))]
)
def test_several_chunks_are_one_long_one(name, num_devices, chunks):
    """Update i draws from `fold_in(key, i)`, whatever the chunk; bit by bit."""
    split, split_reports = result(name, num_devices, chunks)
    whole, (whole_report,) = result(name, num_devices, (sum(chunks),))
    assert_close(split, whole)
    assert split.step == whole.step == sum(chunks)
    np.testing.assert_array_equal(split_reports[-1].checksums, whole_report.checksums)
    for metric, mean in whole_report.metrics.items():
        parts = [r.metrics[metric] for r in split_reports]
        np.testing.assert_allclose(sum(p.total for p in parts), mean.total, rtol=1e-6)
        np.testing.assert_allclose(sum(p.count for p in parts), mean.count)


@pytest.mark.parametrize("num_devices", [1, 2, 4])
def test_every_update_and_every_shard_has_a_key_of_its_own(num_devices):
    """Records the draw of each shard: by hand `fold_in(fold_in(key, update), shard)`."""

    def update(learner, shards, data, shard_ids, key):
        draws = jax.vmap(jax.random.uniform)(keys.per_index(key, shard_ids))
        shards = shards.at[:, learner["i"]].set(draws)
        return {"i": learner["i"] + 1}, shards, {"x": Mean(jnp.ones(()), jnp.ones(()))}

    state = parallel.first_state({"i": jnp.array(0, jnp.int32)}, jnp.zeros((NUM_SHARDS, 3)))
    state, _ = jax.block_until_ready(parallel.chunked(Loop((), update), 3, num_devices)(state, KEY()))
    expected = [
        [jax.random.uniform(jax.random.fold_in(jax.random.fold_in(KEY(), i), s)) for i in range(3)]
        for s in range(NUM_SHARDS)
    ]
    np.testing.assert_array_equal(state.shards, np.array(expected))


def test_a_slow_copy_follows_the_parameters_and_no_gradient_reaches_it():
    """By hand: `slow + tau (params - slow)` after each update; the loss reads the one before."""
    start = {"w": jnp.array([1.0, -2.0])}

    def loss(params, minibatch, data, slow):
        pull = jnp.sum(jnp.square(params["w"] - minibatch)) + jnp.sum(slow.params["w"] * params["w"])
        return pull, {"slow": slow.params["w"][0], "count": slow.num_updates.astype(jnp.float32)}

    def sample(data, key):
        return data + 0.0 * jax.random.normal(key, (2,))

    adam = optimizer.plain_adam(0.1)
    loop = loops.supervised(loss, sample, adam, slow=loops.averaged(0.25))
    state = parallel.first_state(*loop.init(start))
    chunk = parallel.chunked(loop, 1, 1, jnp.array([3.0, 3.0]))
    slow = np.array([1.0, -2.0])
    for update in range(3):
        state, report = chunk(state, KEY())
        assert float(report.metrics["slow"].total) == pytest.approx(slow[0], rel=1e-6)
        assert float(report.metrics["count"].total) == update
        slow = slow + 0.25 * (np.asarray(state.learner.params["w"]) - slow)
        np.testing.assert_allclose(state.learner.target.params["w"], slow, rtol=1e-6)
    assert int(state.learner.target.num_updates) == 3


# --- lanes ----------------------------------------------------------------------------------------


def linear_lanes(num_lanes):
    """Copies of the linear program that start alike and draw their own batches."""
    loop, first, data = program("linear")
    start = jax.tree.map(lambda x: jnp.stack([x] * num_lanes), first)
    return run((loops.lanes(loop), start, data), 1)


def test_lane_does_not_depend_on_the_number_of_lanes():
    (two, (two_report,)), (five, (five_report,)) = linear_lanes(2), linear_lanes(5)
    for i in range(2):
        ours, theirs = (
            jax.tree.map(lambda x, i=i: x[i], (state.learner, report.metrics))
            for state, report in ((two, two_report), (five, five_report))
        )
        assert_close(ours, theirs, rtol=1e-5, atol=1e-7)
    weights = five.learner.params["w"]
    assert len(np.unique(weights[:, 0])) == 5, "lanes draw their own batches"


def test_lanes_of_equal_ids_are_paired():
    loop, first, data = program("linear")
    start = jax.tree.map(lambda x: jnp.stack([x] * 3), first)
    paired = loops.lanes(loop, lane_ids=jnp.array([4, 7, 4], jnp.int32))
    weights = run((paired, start, data), 1)[0].learner.params["w"]
    np.testing.assert_array_equal(weights[0], weights[2])
    assert not np.array_equal(weights[0], weights[1])


@pytest.mark.slow
def test_lanes_in_turn_are_the_lanes_at_once():
    loop, first, data = program("linear")
    start = jax.tree.map(lambda x: jnp.stack([x] * 3), first)
    at_once, in_turn = (run((loops.lanes(loop, in_turn=flag), start, data), 1)[0] for flag in (False, True))
    assert_close(at_once, in_turn, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("data_axis", [None, 0, (0, None)])
def test_lanes_in_turn_take_shards_and_data_by_lane(data_axis):
    """Every argument's lane reaches its update, and shards keep their axes `[N, s]`."""

    def update(learner, shards, data, shard_ids, key):
        seen = sum(jnp.sum(x) for x in jax.tree.leaves(data))
        draws = jax.vmap(jax.random.uniform)(keys.per_index(key, shard_ids))
        return learner + seen, shards + learner + draws, {"x": learner}

    loop = Loop(lambda: None, update)
    data = (jnp.arange(3.0), jnp.ones((3, 2))) if data_axis == (0, None) else jnp.arange(3.0)
    learner, shards = jnp.array([1.0, 2.0, 3.0]), jnp.arange(6.0).reshape(3, 2)
    at_once, in_turn = (
        loops.lanes(loop, data_axis, in_turn=flag).update(
            learner, shards, data, jnp.arange(2, dtype=jnp.int32), KEY()
        )
        for flag in (False, True)
    )
    assert at_once[1].shape == (3, 2)
    for ours, theirs in zip(jax.tree.leaves(in_turn), jax.tree.leaves(at_once), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def laned_ppo(num_lanes):
    loop = loops.lanes(cartpole_loop())
    tasks = broadcast_params(cartpole_tasks(), num_lanes)
    lane_keys = keys.per_index(keys.derive(0, "init"), jnp.arange(num_lanes))
    first = jax.jit(loop.init)(lane_keys, tasks)
    return first, run((loop, first, ()), 1, (2,))[0]


@pytest.mark.slow
def test_lane_equals_the_loop_alone():
    """Lane i is the plain loop under `fold_in(key, i)`; shards come first, lanes second."""
    first, state = laned_ppo(2)
    for leaf in jax.tree.leaves(first[1]):
        assert leaf.shape[:2] == (NUM_SHARDS, 2)
    for leaf, before in zip(jax.tree.leaves(state.shards), jax.tree.leaves(first[1]), strict=True):
        assert leaf.shape == before.shape
    loop, index = cartpole_loop(), 1

    def update(learner, shards, data, shard_ids, key):
        return loop.update(learner, shards, data, shard_ids, jax.random.fold_in(key, index))

    key = jax.random.fold_in(keys.derive(0, "init"), index)
    alone = Loop(loop.init, update)
    start = jax.jit(loop.init)(key, cartpole_tasks())
    expected, _ = run((alone, start, ()), 1, (2,))
    assert_close(jax.tree.map(lambda x: x[index], state.learner), expected.learner, rtol=1e-4, atol=1e-6)
    assert_close(jax.tree.map(lambda x: x[:, index], state.shards), expected.shards, rtol=1e-4, atol=1e-6)


@pytest.mark.fast("4")
@pytest.mark.parametrize("num_devices", [1, 2, 4])
def test_shards_in_turn_have_the_gradient_of_all_at_once(num_devices):
    def loss(params, minibatch, data, slow):
        error = jnp.mean(jnp.square(minibatch @ params["w"] - 1.0))
        return error, {"train/w": params["w"][0], "train/slow": slow.params["w"][0]}

    def sample(data, key):
        return jax.random.normal(key, (4, 3)) + data

    def program(in_turn):
        slow, adam = loops.averaged(0.1), optimizer.adam(0.03, 1.0)
        loop = loops.supervised(loss, sample, adam, slow=slow, in_turn=in_turn)
        return loop, loop.init({"w": jnp.zeros((3,))}), jnp.ones(())

    (state, (report,)), (expected, (told,)) = (
        run(program(in_turn), num_devices, (3,)) for in_turn in (True, False)
    )
    assert_close(state.learner, expected.learner, rtol=1e-5, atol=1e-6)
    assert_close(report.metrics, told.metrics, rtol=1e-5, atol=1e-6)


# --- numbers that are not finite ------------------------------------------------------------------


def poisoned(learner_value, metric_value, update_number, is_read=True):
    """A loop that counts, and yields the given values from one update on (learner) or at it.

    Where it `is_read`, the learner is in the loss, as parameters are.
    """

    def update(learner, shards, data, shard_ids, key):
        now = learner["i"] == update_number
        loss = jnp.where(now, metric_value, learner["w"] if is_read else 1.0)
        weight = jnp.where(now, learner_value, learner["w"])
        metrics = {"train/loss": Mean(loss, jnp.ones(()))}
        return {"i": learner["i"] + 1, "w": weight}, shards, metrics

    state = parallel.first_state({"i": jnp.array(0, jnp.int32), "w": jnp.zeros(())}, ())
    return parallel.chunked(Loop((), update), 4, 1)(state, KEY())[1]


def test_a_metric_that_is_not_finite_is_reported_at_its_update():
    nan, inf = float("nan"), float("inf")
    assert poisoned(0.0, 1.0, 2).is_finite.tolist() == [True] * 4
    assert poisoned(0.0, nan, 2).is_finite.tolist() == [True, True, False, True]
    assert poisoned(0.0, inf, 3).is_finite.tolist() == [True, True, True, False]


def test_a_parameter_that_is_not_finite_is_reported_by_the_loss_after_it_or_at_the_end():
    nan = float("nan")
    assert poisoned(nan, 1.0, 1).is_finite.tolist() == [True, True, False, False]
    assert poisoned(nan, 1.0, 3).is_finite.tolist() == [True, True, True, False]
    assert poisoned(nan, 1.0, 0, is_read=False).is_finite.tolist() == [True, True, True, False]


@pytest.mark.parametrize("num_devices", [1, 4])
def test_nan_loss_of_one_shard_is_reported_at_its_update(num_devices):
    """The third update of one shard reads the poison; the others, and other updates, do not."""

    def loss(params, minibatch, data):
        poison = (params["i"] > -2.5) & (params["i"] < -1.5) & (minibatch == NUM_SHARDS - 1)
        return jnp.where(poison, jnp.nan, 1.0) + params["i"], {}

    def update(learner, shards, data, shard_ids, key):
        (value, _), gradients = parallel.value_and_mean_grad(loss)(learner, shard_ids, data)
        learner = jax.tree.map(lambda x, g: x - g, learner, gradients)
        return learner, shards, {"train/loss": Mean(value, jnp.ones(()))}

    first = {"i": jnp.zeros(())}, ()
    state, (report,) = run((Loop(None, update), first, ()), num_devices, (4,))
    assert report.is_finite.tolist() == [True, True, False, True]
    assert np.isnan(report.metrics["train/loss"].total)
    assert state.learner["i"] == -4.0  # gradient 1 and rate 1: the learner counts downward


def test_alone_an_average_over_devices_is_what_it_averages():
    def fit(x, tree):
        return parallel.average_devices({"x": x * 2.0, **tree}), x

    found, kept = jax.jit(parallel.alone(fit))(jnp.float32(3.0), {"y": jnp.arange(2.0)})
    assert float(found["x"]) == 6.0
    np.testing.assert_array_equal(found["y"], [0.0, 1.0])
    assert float(kept) == 3.0
    lanes = jax.vmap(parallel.alone(lambda x: parallel.average_devices(x)))(jnp.arange(3.0))
    np.testing.assert_array_equal(lanes, [0.0, 1.0, 2.0])  # lanes are not averaged


def test_the_host_s_programs_stay_there_and_the_learner_s_elsewhere(monkeypatch):
    """With the fake devices: a host beside a first device that is another one."""
    host, other = jax.devices()[0], jax.devices()[1]
    local = jax.local_devices
    monkeypatch.setattr(jax, "local_devices", lambda backend=None: local() if backend == "cpu" else [other])
    there = parallel.to_device({"x": jnp.arange(3.0)})
    assert there["x"].devices() == {other}
    back = parallel.on_host(jax.jit(lambda x: jnp.sum(x) + jnp.zeros(())))(there["x"])
    assert back.devices() == {host}


def test_the_second_chunk_compiles_nothing():
    """Neither where the loop has shards, which the first call is given unplaced, nor with a history."""
    loop, clock, key = cartpole_loop(), CompileClock(), KEY()
    one, tasks = parallel.chunked(loop, 1, 1), cartpole_tasks()
    chunk = history.remembering(lambda state: one(state, key), loops.params_of, 1)

    @jax.jit
    def first(key):
        state = parallel.first_state(*loop.init(key, tasks))
        return history.first_state(state, loops.params_of, 2)

    state, _ = jax.block_until_ready(chunk(first(jax.random.key(0))))
    before = clock.programs
    jax.block_until_ready(chunk(state))
    assert clock.programs == before
