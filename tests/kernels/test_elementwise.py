"""Every function that bodies of `kernels.scan` may use: the same in a kernel's words, lowered or refused."""

import logging
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from machines import CALLS, num_calls

from kernels import dispatch
from kernels.scan import elementwise, scan
from kernels.scan.substitutes import GPU_LACKS, SUBSTITUTES, TPU_LACKS

REFUSED = {"digamma", "lgamma", "nextafter", "reduce_precision"}
FLOATS, WORDS, BITS = ("float32", "bfloat16"), ("int32", "uint32"), ("bool",)


def cases():
    """`name: (function, number of operands, types)`, of every name that is let in."""
    unary = (
        "acos acosh asin asinh atan atanh cbrt ceil cos cosh digamma erf erf_inv erfc exp exp2 expm1 floor"
    )
    unary += " is_finite lgamma log log1p logistic rsqrt sin sinh sqrt tan tanh round reduce_precision"
    found = {name: (getattr(lax, name), 1, FLOATS) for name in unary.split()}
    found["reduce_precision"] = (lambda x: lax.reduce_precision(x, 8, 7), 1, FLOATS)
    found["stop_gradient"] = (lax.stop_gradient, 1, FLOATS)
    found["copy"] = found["copy_p"] = (lambda x: jnp.array(x, copy=True), 1, FLOATS)
    found["integer_pow"] = (lambda x: lax.integer_pow(x, -3) + lax.integer_pow(x, 2), 1, FLOATS)
    found["abs"] = found["neg"] = (lambda x: abs(-x), 1, (*FLOATS, "int32"))
    found["sign"] = found["square"] = (lambda x: lax.sign(x) + lax.square(x), 1, (*FLOATS, *WORDS))
    found["clz"] = (lax.clz, 1, WORDS)
    found["population_count"] = (lax.population_count, 1, WORDS)
    found["not"] = (lax.bitwise_not, 1, (*WORDS, *BITS))
    for name in ("add", "sub", "mul", "div", "rem"):
        found[name] = (getattr(lax, name), 2, (*FLOATS, *WORDS))
    for name in ("max", "min"):
        found[name] = (getattr(lax, name), 2, (*FLOATS, *WORDS, *BITS))
    for name in ("pow", "atan2", "nextafter"):
        found[name] = (getattr(lax, name), 2, FLOATS)
    for name in ("shift_left", "shift_right_arithmetic", "shift_right_logical"):
        found[name] = (getattr(lax, name), 2, WORDS)
    for name in ("and", "or", "xor"):
        found[name] = (getattr(lax, f"bitwise_{name}"), 2, (*WORDS, *BITS))
    for name in ("eq", "ne", "lt", "le", "gt", "ge"):
        found[name] = (getattr(lax, name), 2, (*FLOATS, *WORDS))
    found["clamp"] = (lambda x, y: lax.clamp(y, x, y), 2, (*FLOATS, *WORDS))
    found["select_n"] = (lambda x, y: lax.select(x != y, x, y), 2, (*FLOATS, *WORDS))
    found["add_any"] = (lambda x: jax.grad(lambda x: x * x)(x) if not x.ndim else x, 1, FLOATS)
    found["bitcast_convert_type"] = (lambda x: lax.bitcast_convert_type(x, jnp.uint32), 1, ("float32",))
    found["convert_element_type"] = (
        lambda x: tuple(lax.convert_element_type(x, of) for of in (*FLOATS, *WORDS, *BITS)),
        1,
        (*FLOATS, *WORDS, *BITS),
    )
    return found


CASES = cases()


def points(dtype):
    """Pairs `[N]` of ordinary numbers and of those where functions end or jump."""
    rng = np.random.default_rng(0)
    if dtype in FLOATS:
        some = [0.0, 0.29, 0.5, 1.0, 2.0, 3.0, 7.5, 40.0, 88.5, 1e4, 1e7, 1e30, np.inf]
        one = [*some, *(-x for x in some), np.nan, *(rng.normal(size=20) * 10.0 ** rng.integers(-6, 2, 20))]
    elif dtype in WORDS:
        one = [0, 1, 2, 3, 31, 255, 2**31 - 1, *rng.integers(0, 2**31, 9)]
        one = [*one, *(-x for x in one)] if dtype == "int32" else one
    else:
        one = [False, True]
    x, y = np.stack(np.meshgrid(np.asarray(one), np.asarray(one))).reshape(2, -1)
    if dtype in FLOATS:  # of larger quotients a remainder is 0
        is_kept = ~np.isfinite(x) | (y == 0.0) | ~(np.abs(x) > 2.0**46 * np.abs(y))
        x, y = x[is_kept], y[is_kept]
    return [jnp.asarray(array).astype(dtype) for array in (x, y)]


def of_type(dtype):
    return {name: (fn, count) for name, (fn, count, types) in CASES.items() if dtype in types}


def test_no_name_is_left_out():
    assert set(CASES) == elementwise.PRIMITIVES
    for lacks in (GPU_LACKS, TPU_LACKS):
        assert lacks - set(SUBSTITUTES) == REFUSED


def difference(got, expected):
    """The largest, relatively, between arrays of one type."""
    assert got.dtype == expected.dtype
    a, b = (np.asarray(x, np.float64) for x in (got, expected))
    is_same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(all="ignore"):
        return np.nan_to_num(np.where(is_same, 0.0, np.abs(a - b) / np.abs(b)), nan=np.inf).max()


# Relative errors in float32; those that are not named are exact. A power's is its logarithm's.
CLOSE = ("acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "erf", "erf_inv", "erfc")
CLOSE = (*CLOSE, "expm1", "log1p", "sqrt", "tan")
WITHIN = dict.fromkeys(CLOSE, 1e-6) | {"cosh": 2e-6, "sinh": 2e-6, "pow": 1e-5}


@pytest.mark.parametrize("dtype", [*FLOATS, *WORDS, *BITS])
def test_functions_in_a_kernels_words_are_the_same(dtype):
    pair, functions = points(dtype), of_type(dtype)
    if dtype == "bfloat16":  # what has a word of its own is that word
        functions = {name: of for name, of in functions.items() if name in SUBSTITUTES}

    def all_of(words):
        return lambda *pair: {name: words(fn)(*pair[:count]) for name, (fn, count) in functions.items()}

    got = jax.jit(all_of(lambda fn: partial(elementwise.plain, fn, lacks=GPU_LACKS | TPU_LACKS)))(*pair)
    expected = jax.jit(all_of(lambda fn: fn))(*pair)
    for name in functions:
        within = 1e-2 if dtype == "bfloat16" else WITHIN.get(name, 0.0)
        pairs = zip(*map(jax.tree.leaves, (got[name], expected[name])), strict=True)
        assert max(difference(*pair) for pair in pairs) <= within, name


@pytest.mark.parametrize("dtype", [*FLOATS, *WORDS, *BITS])
def test_functions_lower_for_accelerators(dtype):
    """All in one kernel, in which one that a platform lacked would name itself."""
    functions = {name: of for name, of in of_type(dtype).items() if name not in REFUSED}

    def body(carry, x):
        for fn, count in functions.values():
            for y in jax.tree.leaves(fn(*(carry, x)[:count])):
                carry = jnp.where(y == y, x, carry)
        return carry, x

    first, inputs = jnp.ones(3, dtype), jnp.ones((2, 3), dtype)
    for platform in CALLS:
        run = partial(scan, body, first, inputs, implementation="pallas")
        assert num_calls(run, platform=platform), platform


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_lowers_nowhere_is_the_reference_and_said_by_name(name, caplog, monkeypatch):
    monkeypatch.setattr(dispatch, "_said", set())
    monkeypatch.setattr(dispatch, "platform", lambda: "cuda")
    fn, count, _ = CASES[name]

    def body(carry, x):
        return jax.jit(fn)(*(carry, x)[:count]), x

    run = partial(scan, body, jnp.ones(3), jnp.ones((2, 3)), implementation="pallas")
    with caplog.at_level(logging.WARNING, logger="kernels.dispatch"):
        assert not any(num_calls(run, platform=platform) for platform in CALLS)
    assert [r.message for r in caplog.records] == [
        f"kernel scan: none for cuda with {name}, where the reference runs"
    ]
