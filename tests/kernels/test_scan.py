"""`kernels.scan` against `jax.lax.scan`: values and gradients, odd shapes and masks, every way to map it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jax.experimental.pallas import tpu as pltpu
from jax.test_util import check_grads
from machines import CALLS, gpu_interpreter, num_calls

from kernels.scan import cost, elementwise, pallas, reference, scan

INTERPRET = partial(scan, implementation="interpret")


def returned(following, now):
    """Of a return: a float carry, cut by a flag."""
    reward, is_last = now
    following = reward + 0.9 * jnp.where(is_last, 0.0, following)
    return following, following


def counted(carry, now):
    """Of mixed types: a float, a count and a flag, of which the last two have no gradient."""
    total, count, was_last = carry
    reward, is_last = now
    total = jnp.sin(total) * jnp.where(was_last, 0.5, 1.0) + reward * count.astype(jnp.float32)
    return (total, count + is_last.astype(jnp.int32), is_last), {"total": total * total, "count": count}


def data(shape, seed=0, share=0.3):
    rng = np.random.default_rng(seed)
    reward = rng.normal(size=shape).astype(np.float32)
    return jnp.asarray(reward), jnp.asarray(rng.random(shape) < share)


def carries(lanes, seed=1):
    first = jnp.asarray(np.random.default_rng(seed).normal(size=lanes).astype(np.float32))
    return {returned: first, counted: (first, jnp.ones(lanes, jnp.int32), jnp.zeros(lanes, bool))}


def assert_equal(got, expected, rtol=1e-5):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-6)


def weighed(run, body, reverse, init, inputs):
    """A number of all outputs, to differentiate."""
    outputs = jax.tree.leaves(run(body, init, inputs, reverse=reverse))
    return sum(jnp.sum(jnp.cos(x)) for x in outputs if x.dtype == jnp.float32)


@pytest.mark.parametrize("body", [returned, counted])
@pytest.mark.parametrize(("shape", "reverse"), [((1, 1), True), ((9, 2, 3), False), ((17, 130), True)])
def test_values_and_gradients_equal_the_reference(body, shape, reverse):
    init, inputs = carries(shape[1:])[body], data(shape)
    got = INTERPRET(body, init, inputs, reverse=reverse)
    assert_equal(got, reference.scan(body, init, inputs, reverse=reverse))

    def of(run):
        def total(reward, first):
            begin = jax.tree.map(lambda a: first if a.dtype == jnp.float32 else a, init)
            return weighed(run, body, reverse, begin, (reward, inputs[1]))

        return jax.grad(total, argnums=(0, 1))(inputs[0], jax.tree.leaves(init)[0])

    assert_equal(of(INTERPRET), of(reference.scan), rtol=1e-4)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**16), st.sampled_from([0.0, 0.2, 1.0]), st.booleans())
def test_segments_begin_and_end_anywhere(seed, share, all_lanes):
    reward, is_last = data((5, 3), seed, share)
    is_last = is_last.any(axis=1, keepdims=True) | jnp.zeros((5, 3), bool) if all_lanes else is_last
    first = carries((3,), seed)[returned]
    assert_equal(
        RUN(first, (reward, is_last)), reference.scan(returned, first, (reward, is_last), reverse=True)
    )


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    st.sampled_from([(1, 1), (1, 129), (9, 3), (4, 0), (0, 2)]), st.integers(0, 2**16), st.floats(0.0, 1.0)
)
def test_shapes_that_are_no_blocks_give_the_returns_of_a_loop(shape, seed, share):
    reward, is_last = data(shape, seed, share)
    first = carries(shape[1:], seed)[returned]
    expected, following = [], np.asarray(first, np.float64)
    for r, ends in zip(np.asarray(reward)[::-1], np.asarray(is_last)[::-1], strict=True):
        following = r + 0.9 * np.where(ends, 0.0, following)
        expected.insert(0, following)
    last, made = RUN(first, (reward, is_last))
    np.testing.assert_allclose(last, following, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(made, np.reshape(expected, shape), rtol=1e-5, atol=1e-5)


RUN = jax.jit(lambda first, inputs: INTERPRET(returned, first, inputs, reverse=True))


@pytest.mark.parametrize("length", [pallas.STEPS, pallas.STEPS + 3])
@pytest.mark.parametrize("reverse", [False, True])
def test_blocks_of_time_follow_each_other(length, reverse):
    init, inputs = carries((2,))[counted], data((length, 2))
    got = INTERPRET(counted, init, inputs, reverse=reverse)
    assert_equal(got, reference.scan(counted, init, inputs, reverse=reverse))


@pytest.mark.parametrize("reverse", [False, True])
def test_what_lanes_share_comes_in_blocks_of_time(reverse):
    """However long: a TPU's scalar memory would not hold it at once."""

    def body(carry, now):
        return carry * 0.5 + (now & 7).astype(jnp.float32), carry

    seeds, first = jnp.arange(pallas.STEPS + 3), jnp.ones(2)
    got = INTERPRET(body, first, seeds, reverse=reverse)
    assert_equal(got, reference.scan(body, first, seeds, reverse=reverse))
    run = partial(scan, body, reverse=reverse, implementation="pallas")
    many = jax.ShapeDtypeStruct((100_000,), jnp.int32)
    lowered = jax.jit(run).trace(first, many).lower(lowering_platforms=("tpu",))
    text = lowered.as_text()
    assert CALLS["tpu"] in text
    assert f"{-(-100_000 // pallas.STEPS)}x1x{pallas.STEPS}xi32" in text


def test_gradients_are_those_of_finite_differences_and_have_gradients():
    reward, is_last = data((4, 3))

    def f(reward, first):
        return weighed(INTERPRET, returned, True, first, (reward, is_last))

    check_grads(f, (reward, carries((3,))[returned]), order=1, modes=["rev"], rtol=1e-2)

    def squared(run):
        return lambda x: jnp.sum(
            jnp.square(jax.grad(lambda x: weighed(run, returned, True, jnp.ones(3), (x, is_last)))(x))
        )

    assert_equal(jax.grad(squared(INTERPRET))(reward), jax.grad(squared(reference.scan))(reward), rtol=1e-4)


def test_forward_mode_is_refused():
    with pytest.raises(TypeError, match="jvp"):
        jax.jvp(lambda x: INTERPRET(returned, x, data((3, 2))), [jnp.ones(2)], [jnp.ones(2)])


def test_scalars_that_the_body_closes_over_have_gradients_and_may_be_mapped():
    inputs, first = data((4, 3)), jnp.ones(3)

    def total(run, discount):
        def body(carry, now):
            return (now[0] + discount * carry, carry * discount)

        return jnp.sum(jnp.square(run(body, first, inputs)[1]))

    discounts = jnp.array([0.5, 0.9])
    for of in (jax.vmap, lambda f: jax.vmap(jax.grad(f))):
        assert_equal(of(partial(total, INTERPRET))(discounts), of(partial(total, reference.scan))(discounts))


@pytest.mark.parametrize("axes", [(0, 0, None), (None, 0, 0)])
def test_members_become_lanes_though_they_differ_in_what_lanes_share(axes):
    """A scalar, and an input that all lanes read: a TPU keeps neither with an axis of members."""
    shares, seeds, first = jnp.array([0.5, 0.9]), jnp.arange(8).reshape(2, 4), jnp.ones((2, 3))
    args = [x if axis == 0 else x[0] for x, axis in zip((shares, seeds, first), axes, strict=True)]
    rewards = data((4, 3))[0]

    def of(implementation):
        def total(share, seeds, first):
            def body(carry, now):
                carry = now[0] + share * carry + now[1].astype(jnp.float32)
                return carry, carry * share

            made = scan(body, first, (rewards, seeds), reverse=True, implementation=implementation)
            return sum(jnp.sum(jnp.sin(x)) for x in made)

        return jax.vmap(jax.value_and_grad(total, argnums=(0, 2)), in_axes=axes)

    assert_equal(of("interpret")(*args), of("xla")(*args), rtol=1e-4)
    for platform in CALLS:
        assert num_calls(of("pallas"), *args, platform=platform)


def test_members_of_members_become_lanes():
    def run(implementation, share, seed):
        def body(carry, now):
            return share * carry + now[0], carry * now[1].astype(jnp.float32)

        inputs = jnp.ones((4, 3)), seed + jnp.arange(4)
        return scan(body, jnp.ones(3), inputs, implementation=implementation)

    def of(implementation):
        inner = jax.vmap(partial(run, implementation), in_axes=(None, 0))
        return jax.vmap(inner, in_axes=(0, None))(jnp.array([0.5, 0.9]), jnp.arange(2))

    assert_equal(of("interpret"), of("xla"))


def test_half_precision_is_close_to_single():
    reward, is_last = data((7, 3))
    first = jnp.ones(3)
    _, got = INTERPRET(returned, first.astype(jnp.bfloat16), (reward.astype(jnp.bfloat16), is_last))
    assert got.dtype == jnp.bfloat16
    _, expected = reference.scan(returned, first, (reward, is_last))
    np.testing.assert_allclose(np.asarray(got, np.float32), expected, rtol=2e-2, atol=2e-2)


def test_it_is_mapped_over_batches_and_devices():
    first, inputs = carries((2, 3))[returned], data((2, 4, 3))
    run, plain = partial(INTERPRET, returned), partial(reference.scan, returned, reverse=False)
    expected = jax.vmap(plain)(first, inputs)
    assert_equal(jax.vmap(run)(first, inputs), expected)
    assert_equal(jax.pmap(run)(first, inputs), expected)


def test_the_kernel_of_a_gpu_writes_all_and_races_nowhere():
    reward, is_last = data((pallas.UNROLL + 3, pallas.LANES + 2))
    first = carries((pallas.LANES + 2,))[returned]

    def body(scalars, carry, x):
        return tuple([value] for value in returned(carry[0], x))

    machine = pallas.GPU._replace(run=partial(pallas.gpu, interpret=gpu_interpreter()))
    got = pallas.padded(machine, body, [], [first], [reward, is_last], reverse=True)
    expected = reference.scan(returned, first, (reward, is_last), reverse=True)
    assert_equal(got, tuple([x] for x in expected))


def test_the_kernel_of_a_tpu_writes_all_and_reads_nothing_unwritten(monkeypatch):
    """In an interpreter of its memories, in which what was never written is NaN; the last block is cut."""
    monkeypatch.setattr(pallas, "STEPS", 4)
    reward, is_last = data((9, pallas.LANES + 2))
    first, seeds = carries((pallas.LANES + 2,))[returned], jnp.arange(9)

    def body(scalars, carry, x):
        after, y = returned(carry[0] + x[2].astype(jnp.float32), x[:2])
        return [after], [y, y > 0.0]

    poisoned = pltpu.InterpretParams(uninitialized_memory="nan", detect_races=True)
    machine = pallas.TPU._replace(run=partial(pallas.tpu, interpret=poisoned))
    inputs = [reward, is_last, seeds]
    got = jax.jit(lambda *args: pallas.padded(machine, body, [], *args, reverse=True))([first], inputs)
    assert_equal(got, reference.scan(partial(body, []), [first], inputs, reverse=True))


@pytest.mark.parametrize("body", [counted, returned])
def test_it_lowers_for_accelerators(body):
    run = partial(weighed, partial(scan, implementation="pallas"), body, True)
    init, (reward, is_last) = carries((5,))[body], data((11, 5))
    gradient = jax.grad(lambda reward: run(init, (reward, is_last)))
    for platform in CALLS:
        assert num_calls(run, init, (reward, is_last), platform=platform)
        assert num_calls(gradient, reward, platform=platform)
        assert num_calls(jax.vmap(gradient), jnp.stack([reward] * 2), platform=platform)
        # Nothing was measured there.
        assert not num_calls(lambda: scan(body, init, (reward, is_last)), platform=platform)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (lambda carry, now: (carry - jnp.mean(carry), carry), "a body with reduce_sum"),
        (lambda carry, now: (carry[::-1], carry), "a body with rev"),
        (lambda carry, now: (carry + jnp.arange(3, dtype=jnp.float32), carry), "a body with iota"),
        (lambda carry, now: (lax.fori_loop(0, 3, lambda i, x: 2.0 * x, carry), carry), "a body with scan"),
        (lambda carry, now: (jax.jit(lambda x: lax.map(jnp.sin, x))(carry), carry), "a body with scan"),
        (lambda carry, now: (carry, 1.0), r"an array of shape \(\), expected \(3,\)"),
        (lambda carry, now: (carry > 0, carry), "a carry of"),
        (lambda carry, now: ((carry, carry), carry), "a carry of"),
    ],
)
def test_bodies_outside_its_domain_are_refused(body, told):
    with pytest.raises(ValueError, match=told):
        INTERPRET(body, jnp.ones(3), data((4, 3)))


@pytest.mark.parametrize(
    ("init", "inputs", "told"),
    [
        (jnp.ones(3), data((4, 2)), r"inputs has a leaf of shape \(4, 2\), expected \(4, 3\)"),
        ((jnp.ones(3), jnp.ones(2)), data((4, 3)), r"init has a leaf of shape \(2,\), expected \(3,\)"),
        (jnp.ones(3, jnp.float16), data((4, 3)), "init has a leaf of float16, expected one of float32"),
        ((), data((4, 3)), "0 leaves of a carry"),
    ],
)
def test_arrays_outside_its_domain_are_refused(init, inputs, told):
    with pytest.raises(ValueError, match=told):
        INTERPRET(returned, init, inputs)


def test_an_array_of_its_own_is_refused():
    own = jnp.ones((3,))
    with pytest.raises(ValueError, match="closes over arrays of shapes"):
        INTERPRET(
            lambda carry, now: (carry + (own if carry.ndim else own[0]), carry), jnp.ones(3), data((4, 3))
        )


def test_nothing_to_do_is_done():
    first, none = jnp.ones(3), (jnp.zeros((0, 3)), jnp.zeros((0, 3), bool))
    assert_equal(INTERPRET(returned, first, none), (first, jnp.zeros((0, 3))))


def test_lanes_are_told_from_what_mixes_them():
    def mixing(f):
        return elementwise.mixing(jax.make_jaxpr(f)(jnp.ones(3)).jaxpr)

    assert mixing(lambda x: jnp.where(x > 0, x, 0.0) + jax.nn.relu(x)) is None
    assert mixing(lambda x: jax.jit(jnp.cumsum)(x)) is not None
    assert mixing(lambda x: x @ x) == "dot_general"


def test_its_cost_counts_each_array_once():
    assert cost(128, 4096, num_inputs=3, num_outputs=1, operations=3) == (3 * 128 * 4096, 16 * 128 * 4096)


@pytest.mark.accelerator
@pytest.mark.parametrize("body", [returned, counted])
@pytest.mark.parametrize("shape", [(1, 1), (17, 130), (128, 4096)])
def test_the_device_computes_the_same(body, shape):
    init, inputs = carries(shape[1:])[body], data(shape)
    run = jax.jit(partial(scan, body, reverse=True, implementation="pallas"))
    assert_equal(run(init, inputs), reference.scan(body, init, inputs, reverse=True))


@pytest.mark.accelerator
@pytest.mark.parametrize("shape", [(1, 1), (17, 130)])
def test_the_device_computes_the_same_gradients(shape):
    init, (reward, is_last) = carries(shape[1:])[counted], data(shape)

    def of(run):
        def total(reward, first, scale):
            def body(carry, now):
                carry, y = counted(carry, now)
                return (carry[0] * scale, *carry[1:]), y

            return weighed(run, body, True, (first, *init[1:]), (reward, is_last))

        return jax.jit(jax.grad(total, argnums=(0, 1, 2)))(reward, init[0], jnp.float32(0.9))

    assert_equal(of(partial(scan, implementation="pallas")), of(reference.scan), rtol=1e-4)


@pytest.mark.accelerator
def test_the_device_keeps_the_sign_of_integers_that_are_chosen():
    """Mosaic GPU would compare them unsigned, where the constant is what is chosen if true."""

    def body(carry, now):
        one = jnp.where(now > 0.0, jnp.int32(-3), jnp.int32(2))
        other = jnp.where(now > 0.0, carry, jnp.int32(-1))
        third = jnp.where(now < 0.0, jnp.int32(-5), carry)
        return carry + one, (one < 0, other < 0, jnp.maximum(third, -4), jnp.sign(one), other >> 1)

    init, inputs = jnp.arange(-2, 3), data((9, 5))[0]
    got = jax.jit(partial(scan, body, implementation="pallas"))(init, inputs)
    assert_equal(got, reference.scan(body, init, inputs))
