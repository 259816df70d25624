"""`kernels.linear_recurrence` against numbers that are complex, and the memory policy that uses it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from machines import CALLS, num_calls

from jaxagent.config import MemoryConfig
from jaxagent.nn.memory import memory
from kernels import dispatch
from kernels.linear_recurrence import Complex, cost, recurrence
from kernels.linear_recurrence.chunked import CHUNK

DEVICE = pytest.param("pallas", marks=pytest.mark.accelerator)


def data(shape, seed=0):
    rng = np.random.default_rng(seed)

    def complex_(*shape):
        return rng.normal(size=shape) + 1j * rng.normal(size=shape)

    factor = 0.9 * np.exp(1j * rng.random(shape)) * (rng.random(shape) > 0.2)
    return factor, complex_(*shape), complex_(*shape[1:])


def parts(*arrays):
    return [Complex(jnp.asarray(x.real, jnp.float32), jnp.asarray(x.imag, jnp.float32)) for x in arrays]


@pytest.mark.parametrize("implementation", ["xla", "interpret", "chunked", "sequential", DEVICE])
@pytest.mark.parametrize("shape", [(1, 2), (13, 3, 5)])
def test_states_are_those_of_complex_numbers(implementation, shape):
    factor, drive, state = data(shape)
    expected, now = [], state
    for f, d in zip(factor, drive, strict=True):
        now = f * now + d
        expected.append(now)
    got = recurrence(*parts(factor, drive, state), implementation=implementation)
    np.testing.assert_allclose(got.real, np.real(expected), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(got.imag, np.imag(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("implementation", ["xla", "interpret", "chunked", DEVICE])
def test_gradients_are_those_of_complex_numbers(implementation):
    factor, drive, state = data((CHUNK + 1, 3))

    def total(*args):
        return sum(jnp.sum(jnp.sin(x)) for x in recurrence(*args, implementation=implementation))

    got = jax.jit(jax.grad(total, argnums=(0, 1, 2)))(*parts(factor, drive, state))
    states = [state]
    for f, d in zip(factor, drive, strict=True):
        states.append(f * states[-1] + d)
    adjoint, of_factor, of_drive = np.zeros_like(state), [], []
    for f, before, now in reversed(list(zip(factor, states[:-1], states[1:], strict=True))):
        adjoint = adjoint + np.cos(now.real) + 1j * np.cos(now.imag)
        of_factor.append(np.conj(before) * adjoint)
        of_drive.append(adjoint)
        adjoint = np.conj(f) * adjoint
    for x, expected in zip(got, (of_factor[::-1], of_drive[::-1], adjoint), strict=True):
        np.testing.assert_allclose(x.real, np.real(expected), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(x.imag, np.imag(expected), rtol=1e-4, atol=1e-5)


def test_chunks_are_cut_by_zeros_exactly_and_divide_by_nothing():
    """Factors of 0, and products that underflow, in value and gradient."""
    numbers = np.random.default_rng(0).normal(size=(4, CHUNK + 1, 2)).astype(np.float32)
    tiny, drive = Complex(*map(jnp.asarray, 1e-30 * numbers[:2])), Complex(*map(jnp.asarray, numbers[2:]))

    @jax.jit
    def states_and_pulled(factor):
        first = Complex(jnp.ones(2), jnp.ones(2))
        made, pull = jax.vjp(lambda drive: recurrence(factor, drive, first, implementation="chunked"), drive)
        return made, pull(jax.tree.map(jnp.ones_like, made))[0]

    for factor in (tiny, jax.tree.map(jnp.zeros_like, tiny)):
        made, pulled = states_and_pulled(factor)
        for x, expected in zip((*made, *pulled), (*drive, *jax.tree.map(jnp.ones_like, drive)), strict=True):
            np.testing.assert_allclose(x, expected, rtol=1e-6)


def test_it_lowers_for_accelerators():
    run = partial(recurrence, implementation="pallas")
    for platform in CALLS:
        assert num_calls(run, *parts(*data((9, 3))), platform=platform)


def test_a_factor_that_is_not_broadcast_is_refused():
    factor, drive, state = parts(*data((4, 2, 3)))
    with pytest.raises(
        ValueError, match=r"factor has a part of float32 \(4, 2, 1\), expected .* \(4, 2, 3\)"
    ):
        recurrence(Complex(factor.real, factor.imag[..., :1]), drive, state)
    with pytest.raises(ValueError, match=r"drive has a part of float32 \(3, 2, 3\), expected .* \(4, 2, 3\)"):
        recurrence(factor, Complex(*(part[1:] for part in drive)), state)
    with pytest.raises(ValueError, match=r"state has a part of float32 \(1, 3\), expected float32 \(2, 3\)"):
        recurrence(factor, drive, state._replace(imag=state.imag[:1]))
    with pytest.raises(ValueError, match="state has a part of bfloat16"):
        recurrence(factor, drive, state._replace(imag=state.imag.astype(jnp.bfloat16)))


@pytest.mark.parametrize("implementation", ["xla", "interpret"])
def test_no_steps_make_no_states(implementation):
    factor, drive, state = parts(*data((1, 2)))
    factor, drive = (Complex(*(part[:0] for part in of)) for of in (factor, drive))
    made = recurrence(factor, drive, state, implementation=implementation)
    assert [(part.shape, part.dtype.name) for part in made] == [((0, 2), "float32")] * 2


def test_a_memory_learns_the_same_by_the_kernel(monkeypatch):
    network = memory(MemoryConfig("lru", width=4, num_layers=2), 3)
    params = network.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (6, 2, 3))
    is_first = jnp.zeros((6, 2), bool).at[3, 1].set(True)

    def loss(params):
        return jnp.mean(
            jnp.square(network.unroll(params, network.init_carry(2), x, is_first)[0][..., 0] - 1.0)
        )

    plain = jax.value_and_grad(loss)(params)
    monkeypatch.setenv(dispatch.VARIABLE, "interpret")
    jaxpr = str(jax.make_jaxpr(loss)(params))
    assert "pallas_call" in jaxpr
    by_kernel = jax.value_and_grad(loss)(params)
    for got, expected in zip(*map(jax.tree.leaves, (by_kernel, plain)), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


def test_its_cost_counts_each_array_once():
    assert cost(10, 100) == (8000, 24000)
