"""`kernels.attention` against all logits at once, and the model that trains by it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import assert_close
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.experimental.pallas import tpu as pltpu
from jax.test_util import check_grads
from machines import CALLS, gpu_interpreter, num_calls

from jaxagent.agents import pretraining
from jaxagent.config import TokenConfig, TransformerConfig
from jaxagent.data.sampler import Batch
from jaxagent.nn import attention as nn_attention
from jaxagent.nn import sequence_model
from jaxagent.tokens.component import Domain
from kernels import dispatch, warpgroup
from kernels.attention import attention, chosen, cost, library, masks, passes, reference, tiles
from kernels.attention.masks import Sight, table

LENGTH = 130  # two tiles of a TPU, three of a GPU, the last one nearly empty
INTERPRET = partial(attention, implementation="interpret")
BLOCKS = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0]], bool)  # nobody sees the last block


def segments(length, seed=0):
    """Where random segments of a batch of two begin anew, int32 `[2, length]`."""
    begins = np.random.default_rng(seed).random((2, length)) < 0.05
    return jnp.asarray(np.cumsum(begins, axis=1), jnp.int32)


def causal_in_segments(length):
    ids = segments(length)
    return masks.both(masks.causal(length), masks.same(ids, ids))


def some_real(length):
    """Causal over keys that exist; the first queries see nothing."""
    is_real = jnp.arange(length)[None] >= jnp.array([[3], [length // 2]])
    return masks.both(masks.causal(length), masks.those(length, is_real))


SIGHTS = {
    "causal in segments": causal_in_segments,
    "behind a prefix": lambda n: masks.behind(n, jnp.array([5, n // 2], jnp.int32)),
    "everyone": masks.everyone,
    "blocks": lambda n: masks.blocks(jnp.asarray(BLOCKS), -(-n // 3), n),
    "nothing for some": some_real,
}


def arrays(num_queries=LENGTH, num_keys=LENGTH, size=32, seed=0, dtype=jnp.float32):
    """Query, key, value and a cotangent, two heads of two lanes."""
    keys = jax.random.split(jax.random.key(seed), 4)
    lengths = (num_queries, num_keys, num_keys, num_queries)
    return [jax.random.normal(k, (2, n, 2, size), dtype) for k, n in zip(keys, lengths, strict=True)]


@partial(jax.jit, static_argnames="run")
def passed(run, query, key, value, cotangent, sight):
    """The output and the three cotangents."""
    out, back = jax.vjp(lambda *args: run(*args, sight), query, key, value)
    return (out, *back(cotangent))


# --- who sees whom --------------------------------------------------------------------------------


def test_rules_by_hand():
    ids = jnp.array([[0, 0, 1, 1]], jnp.int32)
    by_block = masks.ordered(ids, ids)
    np.testing.assert_array_equal(table(masks.causal(3)), [np.tril(np.ones((3, 3)))])
    np.testing.assert_array_equal(table(masks.everyone(3)), np.ones((1, 3, 3)))
    np.testing.assert_array_equal(table(by_block)[0], [[1, 1, 0, 0]] * 2 + [[1, 1, 1, 1]] * 2)
    np.testing.assert_array_equal(table(masks.same(ids, ids))[0], [[1, 1, 0, 0]] * 2 + [[0, 0, 1, 1]] * 2)
    prefix = table(masks.behind(4, jnp.array([0, 2], jnp.int32)))
    np.testing.assert_array_equal(prefix[0], np.tril(np.ones((4, 4))))
    np.testing.assert_array_equal(prefix[1], [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]])
    time = jnp.arange(4, dtype=jnp.int32)[None]
    window = masks.both(masks.causal(4), masks.recent(time, time, 2))
    np.testing.assert_array_equal(table(window)[0], np.tril(np.ones((4, 4))) - np.tril(np.ones((4, 4)), -2))
    seen = table(masks.those(2, jnp.array([[True, False], [False, False]])))
    np.testing.assert_array_equal(seen, [[[1, 0], [1, 0]], [[0, 0], [0, 0]]])


@pytest.mark.parametrize("count", [2, masks.WORD, masks.WORD + 3])
def test_blocks_see_those_that_they_are_told_to(count):
    seen = np.random.default_rng(count).random((count, count)) < 0.5
    found = table(masks.blocks(jnp.asarray(seen), 2, 2 * count - 1))[0]
    np.testing.assert_array_equal(found, np.kron(seen, np.ones((2, 2)))[:-1, :-1])


def test_equal_rules_are_one_program_and_others_are_not():
    traced = []
    count = jax.jit(lambda sight: traced.append(1) or table(sight))
    for length in (3, 3, 4):
        count(masks.both(masks.causal(length), masks.everyone(length)))
    assert len(traced) == 2
    both, either = (of(masks.causal(3), masks.everyone(3)) for of in (masks.both, masks.either))
    np.testing.assert_array_equal(count(both), table(masks.causal(3)))
    np.testing.assert_array_equal(count(either), table(masks.everyone(3)))
    assert both.rule != either.rule


def test_a_rule_that_reads_one_side_or_none_is_of_all_pairs():
    ids = jnp.zeros((1, 3), jnp.int32), jnp.array([[0, 1], [1, 1]], jnp.int32)
    np.testing.assert_array_equal(table(Sight(lambda q, k: k > 0, *ids)), [[[0, 1]] * 3, [[1, 1]] * 3])
    np.testing.assert_array_equal(table(Sight(lambda q, k: True, *ids)), np.ones((2, 3, 2)))


def test_tiles_without_a_pair_are_not_listed():
    sight = masks.blocks(jnp.asarray(BLOCKS), 4, 12)
    visible = tiles.Visible(sight.rule, *map(jax.tree.structure, (sight.query, sight.key)), 12)
    of_queries, of_keys = tiles.lists(visible, list(sight.query), [sight.key], 4)
    np.testing.assert_array_equal(of_queries.count, [[1, 2, 1]])
    np.testing.assert_array_equal(of_queries.which[0, :, 0], [0, 0, 1])
    np.testing.assert_array_equal(of_keys.count, [[2, 2, 0]])


# --- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SIGHTS)
def test_values_and_gradients_are_those_of_all_logits(name):
    args, sight = arrays(), SIGHTS[name](LENGTH)
    assert_close(passed(INTERPRET, *args, sight), passed(reference.attention, *args, sight))


@pytest.mark.parametrize("shape", [(1, 1), (3, 140)])
def test_queries_and_keys_may_differ_in_number(shape):
    num_queries, num_keys = shape
    order = [jnp.arange(n, dtype=jnp.int32)[None] for n in shape]
    sight = masks.ordered(order[0] + num_keys - num_queries, order[1])
    args = arrays(*shape)
    assert_close(passed(INTERPRET, *args, sight), passed(reference.attention, *args, sight))


def test_the_reference_is_softmax_attention():
    query, key, value, _ = (np.asarray(x, np.float64) for x in arrays(3, 3))
    logits = np.einsum("bqhd,bkhd->bhqk", query, key) / np.sqrt(32.0)
    weights = np.exp(logits) * np.tril(np.ones((3, 3)))
    weights /= weights.sum(-1, keepdims=True)
    expected = np.einsum("bhqk,bkhd->bqhd", weights, value)
    got = reference.attention(*arrays(3, 3)[:3], masks.causal(3))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_gradients_are_finite_differences():
    query, key, value, _ = arrays(4, 4)
    check_grads(partial(INTERPRET, sight=some_real(4)), (query, key, value), 1, ["rev"], rtol=2e-2)


def test_half_precision_is_close_to_single():
    half, sight = arrays(dtype=jnp.bfloat16), causal_in_segments(LENGTH)
    out, *gradients = passed(INTERPRET, *half, sight)
    assert {x.dtype.name for x in (out, *gradients)} == {"bfloat16"}
    single = passed(reference.attention, *[x.astype(jnp.float32) for x in half], sight)
    assert_close((out, *gradients), single, tolerance=3e-2)


def test_a_query_that_sees_nothing_gives_nothing_and_learns_nothing():
    args, sight = arrays(), some_real(LENGTH)
    out, *gradients = passed(INTERPRET, *args, sight)
    is_blind = ~np.asarray(table(sight)).any(-1)
    assert is_blind.any(axis=1).all()
    assert not np.asarray(out)[is_blind].any()
    assert not np.asarray(gradients[0])[is_blind].any()
    assert all(np.isfinite(x).all() for x in gradients)


def test_what_no_tile_sees_is_never_read():
    """The last of three blocks is NaN, which a weight of 0 would not remove."""
    sight = masks.blocks(jnp.asarray(BLOCKS), tiles.TPU_TILE, 3 * tiles.TPU_TILE)
    query, key, value, cotangent = arrays(3 * tiles.TPU_TILE, 3 * tiles.TPU_TILE, size=8)
    last = slice(2 * tiles.TPU_TILE, None)
    bad = [x.at[:, last].set(jnp.nan) for x in (key, value)]
    got = passed(INTERPRET, query, *bad, cotangent, sight)
    assert_close(got, passed(reference.attention, query, key, value, cotangent, sight), 1e-5)


def test_it_is_mapped_over_batches_in_one_launch_and_over_devices():
    args = [jnp.stack([a, 2.0 * b]) for a, b in zip(arrays(9, 9), arrays(9, 9, seed=1), strict=True)]
    ids = jnp.stack([segments(9), segments(9, 1)])
    own = jax.vmap(lambda ids: masks.both(masks.causal(9), masks.same(ids, ids)))(ids)
    in_axes = (0, 0, None, 0, 0)
    run, plain = (jax.vmap(partial(passed, f), in_axes) for f in (INTERPRET, reference.attention))
    args[2] = args[2][0]
    expected = plain(*args, own)
    assert_close(run(*args, own), expected)
    assert str(jax.make_jaxpr(run)(*args, own)).count("pallas_call[") == 3
    assert_close(jax.pmap(partial(passed, INTERPRET), in_axes=in_axes)(*args, own), expected)


# --- machines -------------------------------------------------------------------------------------


def test_the_kernels_of_a_gpu_compute_the_same_and_race_nowhere():
    """All but the matrix unit, which interpreters do not have."""
    args, sight = [x[:1, :, :1] for x in arrays(100, 100, dtype=jnp.float16)], masks.causal(100)
    ids = jnp.arange(100, dtype=jnp.int32)[None] // 70
    sight = masks.both(sight, masks.same(ids, ids))
    visible = tiles.Visible(sight.rule, *map(jax.tree.structure, (sight.query, sight.key)), 100)
    unit, ids = warpgroup.plain(gpu_interpreter()), [jax.tree.leaves(of) for of in (sight.query, sight.key)]
    out, log_sum = passes._gpu_forward(visible, args[:3], ids, unit)
    delta = jnp.sum(args[3].astype(jnp.float32) * out.astype(jnp.float32), axis=-1)
    gradients = passes._gpu_backward(visible, [*args, log_sum, delta], ids, unit)
    single = passed(reference.attention, *[x.astype(jnp.float32) for x in args], sight)
    assert_close((out, *gradients), single, tolerance=1e-2)


def test_a_tpus_kernels_write_all_that_they_read():
    """Memory that nobody wrote is NaN, and writes that race raise."""
    args, sight = [x[:, :, :1, :8] for x in arrays()], causal_in_segments(LENGTH)
    visible = tiles.Visible(sight.rule, *map(jax.tree.structure, (sight.query, sight.key)), LENGTH)
    ids = [jax.tree.leaves(of) for of in (sight.query, sight.key)]
    poisoned = pltpu.InterpretParams(uninitialized_memory="nan", detect_races=True)

    @jax.jit
    def run(*args):
        out, log_sum = passes._tpu_forward(visible, args[:3], ids, interpret=poisoned)
        delta = jnp.sum(args[3] * out, axis=-1)
        return out, *passes._tpu_backward(visible, [*args, log_sum, delta], ids, interpret=poisoned)

    assert_close(run(*args), passed(reference.attention, *args, sight))


@pytest.mark.slow
@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(1, 150), st.integers(1, 300), st.floats(0.0, 0.3), st.integers(0, 2**16))
def test_any_lengths_and_segments_give_the_same(num_queries, num_keys, rate, seed):
    """Segments that are empty, of one token, or of all; queries and keys that have none in common."""
    rng = np.random.default_rng(seed)
    segment = [
        jnp.asarray(np.cumsum(rng.random((2, n)) < rate, axis=1), jnp.int32) for n in (num_queries, num_keys)
    ]
    order = [jnp.arange(n, dtype=jnp.int32)[None] for n in (num_queries, num_keys)]
    sight = masks.both(masks.ordered(*order), masks.same(*segment))
    args = [x[:, :, :1, :8] for x in arrays(num_queries, num_keys, seed=seed)]
    assert_close(passed(INTERPRET, *args, sight), passed(reference.attention, *args, sight))


@pytest.mark.parametrize("size", [32, 64])
def test_it_lowers_for_accelerators(size):
    run = partial(passed, partial(attention, implementation="pallas"))
    for platform in CALLS:
        args, sight = arrays(5, 70, size, dtype=jnp.bfloat16), Sight(*_last_of(5, 70))
        assert num_calls(run, *args, sight, platform=platform)
        assert not num_calls(partial(passed, attention), *args, sight, platform=platform)
    single = [x.astype(jnp.float32) for x in args]
    assert num_calls(run, *single, sight, platform="tpu")
    assert not num_calls(run, *single, sight, platform="cuda")  # its units round
    odd = arrays(5, 70, size + 8, dtype=jnp.bfloat16)  # rows that no unit reads
    assert not num_calls(run, *odd, sight, platform="cuda")
    assert num_calls(run, *odd, sight, platform="tpu")


def test_what_a_gpu_lacks_is_known_before_a_layer_begins(monkeypatch):
    """Where there is no kernel, layers take what is fast without one."""
    monkeypatch.setenv(dispatch.VARIABLE, "pallas")
    assert chosen(jnp.dtype("float32"), 64) == "pallas"  # on a CPU it may be for elsewhere
    for platform, dtype, size, expected in (
        ("cuda", "bfloat16", 64, "pallas"),
        ("cuda", "float32", 64, "xla"),
        ("cuda", "bfloat16", 24, "xla"),
        ("tpu", "float32", 24, "pallas"),
        (dispatch.OLDER, "bfloat16", 64, "xla"),
        ("rocm", "bfloat16", 64, "xla"),
    ):
        monkeypatch.setattr(dispatch, "platform", lambda platform=platform: platform)
        assert chosen(jnp.dtype(dtype), size) == expected


def test_linear_attention_reads_a_sight_too():
    query, key, value, _ = arrays(4, 4)
    got = nn_attention.mix("linear", query, key, value, masks.causal(4))
    expected = nn_attention.attend_linearly(query, key, value, table(masks.causal(4)))
    np.testing.assert_array_equal(got, expected)


def _last_of(num_queries, num_keys):
    order = [jnp.arange(n, dtype=jnp.int32)[None] for n in (num_queries, num_keys)]
    sight = masks.ordered(order[0] + num_keys - num_queries, order[1])
    return sight.rule, sight.query, sight.key


def test_without_cudnn_the_reference_runs_and_its_masks_are_the_same():
    args, sight = arrays(9, 9), some_real(9)
    expected = passed(reference.attention, *args, sight)
    assert_close(passed(partial(attention, implementation="cudnn"), *args, sight), expected)
    assert_close(passed(partial(library.masked, implementation="xla"), *args, sight), expected)


@pytest.mark.accelerator
@pytest.mark.skipif(dispatch.platform() != "cuda", reason="cuDNN is NVIDIA's")
@pytest.mark.parametrize("name", SIGHTS)
def test_cudnn_computes_the_same(name):
    args, sight = arrays(500, 500, 64, dtype=jnp.bfloat16), SIGHTS[name](500)
    got = passed(partial(attention, implementation="cudnn"), *args, sight)
    single = passed(reference.attention, *[x.astype(jnp.float32) for x in args], sight)
    assert_close(got, single, tolerance=3e-2)


@pytest.mark.accelerator
@pytest.mark.parametrize("size", [32, 64, 128])
@pytest.mark.parametrize("name", SIGHTS)
def test_the_device_computes_the_same(name, size):
    args, sight = arrays(500, 500, size, dtype=jnp.bfloat16), SIGHTS[name](500)
    got = passed(partial(attention, implementation="pallas"), *args, sight)
    single = passed(reference.attention, *[x.astype(jnp.float32) for x in args], sight)
    assert_close(got, single, tolerance=3e-2)


# --- what it refuses ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"key": jnp.zeros((2, 4, 3, 32))}, r"expected query \[B, Lq, H, D\], key and value \[B, Lk, H, D\]"),
        (
            {"key": jnp.zeros((1, 4, 2, 32)), "value": jnp.zeros((1, 4, 2, 32))},
            r"got keys of \(1, 4, 2, 32\)",
        ),
        ({"query": jnp.zeros((2, 4, 2, 32), jnp.bfloat16)}, "got bfloat16, float32"),
        ({name: jnp.zeros((2, 4, 2, 200)) for name in ("query", "key", "value")}, "heads of size 200"),
        ({"sight": masks.causal(5)}, r"ids of a query int32 \(1, 5\), expected int32 \(2 or 1, 4\)"),
        ({"sight": Sight(lambda q, k: True, (), ())}, "without ids of a query"),
        (
            {"sight": Sight(lambda q, k: jnp.cumsum(k, axis=-1) > q, *[jnp.zeros((1, 4), jnp.int32)] * 2)},
            "a rule with",
        ),
    ],
)
def test_what_is_outside_its_domain_is_refused(changed, told):
    query, key, value, _ = arrays(4, 4)
    given = {"query": query, "key": key, "value": value, "sight": masks.causal(4)} | changed
    with pytest.raises(ValueError, match=told):
        INTERPRET(**given)


def test_a_rule_of_arrays_of_its_own_and_too_few_blocks_are_refused():
    own, ids = jnp.arange(4, dtype=jnp.int32), jnp.zeros((1, 4), jnp.int32)
    with pytest.raises(ValueError, match=r"a rule (that closes over arrays|with slice)"):
        INTERPRET(*arrays(4, 4)[:3], Sight(lambda q, k: k == own[2], ids, ids))
    with pytest.raises(ValueError, match=r"got seen of shape \(3, 3\) for 13 tokens in blocks of 4"):
        masks.blocks(jnp.asarray(BLOCKS), 4, 13)


def test_nothing_to_see_is_done():
    query, key, value, _ = arrays(4, 0)
    assert not INTERPRET(
        query, key, value, masks.ordered(*(jnp.zeros((1, n), jnp.int32) for n in (4, 0)))
    ).any()


def test_its_cost_is_two_products():
    assert cost(2, 100, 50, 3, 32, share=0.5) == (4 * 32 * 2 * 3 * 100 * 50 // 2, 2 * 32 * 6 * 300)


# --- the model ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gpt", "mtm"])
def test_pretraining_takes_the_same_step_by_the_kernel(monkeypatch, name):
    config = TransformerConfig(width=16, num_layers=1, num_heads=2, mlp_factor=2, context=3)
    model = sequence_model.model(config, TokenConfig(num_bins=8), (Domain(3, 2, 0, 0, 0),))
    objective = pretraining.OBJECTIVES[name]
    params = pretraining.init(model, objective, jax.random.key(0))
    unit = jax.random.uniform(jax.random.key(1), (2, 3, 5), minval=-1.0)
    batch = Batch(unit, jnp.array([[True, True, False], [True, True, True]]))

    def loss(params):
        key, progress = jax.random.key(2), jnp.zeros(())
        return objective.loss(model, params, params, model.layouts[0], batch, key, progress)[0]

    plain = jax.value_and_grad(loss)(params)
    monkeypatch.setenv(dispatch.VARIABLE, "interpret")
    assert "pallas_call" in str(jax.make_jaxpr(loss)(params))
    assert_close(jax.value_and_grad(loss)(params), plain)
