"""Functions that act on every lane alone: told apart, and put in the words that kernels have."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core

from kernels.scan.substitutes import SUBSTITUTES, substitute

# An element of the result depends on the elements of the operands at its place. (`jnp.where` is jitted.)
_NAMES = """
    abs acos acosh add add_any and asin asinh atan atan2 atanh bitcast_convert_type cbrt ceil clamp clz
    convert_element_type copy copy_p cos cosh digamma div eq erf erf_inv erfc exp exp2 expm1 floor ge gt
    integer_pow is_finite le lgamma log log1p logistic lt max min mul ne neg nextafter not or
    population_count pow reduce_precision rem round rsqrt select_n shift_left shift_right_arithmetic
    shift_right_logical sign sin sinh sqrt square stop_gradient sub tan tanh xor
"""
PRIMITIVES = frozenset(_NAMES.split())
# Primitives that call a function once; loops and branches are none of them.
_CALLS = frozenset(["jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call"])


def called(eqn: Any) -> core.ClosedJaxpr | None:
    """What an equation calls once, with its operands."""
    if eqn.primitive.name not in _CALLS:
        return None
    inner = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
    return inner if isinstance(inner, core.ClosedJaxpr) else None


def mixing(jaxpr: Any) -> str | None:
    """The first primitive that may mix lanes, or loops, or None; a scalar may be broadcast to lanes."""
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        if inner := called(eqn):
            if found := mixing(inner.jaxpr):
                return found
        elif name == "broadcast_in_dim":
            if eqn.invars[0].aval.shape not in ((), eqn.outvars[0].aval.shape):
                return name
        elif not is_elementwise(eqn):
            return name
    return None


def is_elementwise(eqn: Any) -> bool:
    """Whether an equation is one primitive, which acts on every lane alone; broadcasts are none."""
    if eqn.primitive.name == "select_n":
        return eqn.invars[0].aval.dtype == jnp.bool_
    return eqn.primitive.name in PRIMITIVES


def missing(jaxpr: Any, lacks: frozenset[str]) -> str | None:
    """The first primitive that a platform lacks and for which nothing stands, or None."""
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        if inner := called(eqn):
            if found := missing(inner.jaxpr, lacks):
                return found
        elif name in lacks and name not in SUBSTITUTES:
            return name
    return None


def plain(fn: Any, *args: Any, lacks: frozenset[str] = frozenset()) -> Any:
    """`fn(*args)` in primitives that kernels have: nothing jitted, nothing of automatic differentiation.

    What a platform `lacks` is put in other words, where `substitutes` has them.
    """
    closed, made = jax.make_jaxpr(fn, return_shape=True)(*args)
    flat = jax.tree.leaves(args)
    values = evaluate(closed, [Value(x, x.ndim == 0) for x in flat], partial(_of_lanes, lacks))
    return jax.tree.unflatten(jax.tree.structure(made), [value.array for value in values])


class Value(NamedTuple):
    """What a variable stands for."""

    array: Any
    is_uniform: bool  # one number for all lanes


def evaluate(
    closed: core.ClosedJaxpr, args: list[Value], apply: Callable[[Any, list[Value]], list[Value]]
) -> list[Value]:
    """A program's results, of equations that `apply(equation, operands)` evaluates; calls are followed."""
    jaxpr, known = closed.jaxpr, [Value(const, True) for const in closed.consts]
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*known, *args], strict=True))

    def read(var: Any) -> Value:
        return Value(var.val, True) if isinstance(var, core.Literal) else values[var]

    for eqn in jaxpr.eqns:
        inputs = [read(var) for var in eqn.invars]
        inner = called(eqn)
        outputs = evaluate(inner, inputs, apply) if inner else apply(eqn, inputs)
        values.update(zip(eqn.outvars, outputs, strict=True))
    return [read(var) for var in jaxpr.outvars]


def _of_lanes(lacks: frozenset[str], eqn: Any, inputs: list[Value]) -> list[Value]:
    if words := in_words(eqn, lacks):
        return evaluate(words, inputs, partial(_of_lanes, lacks))
    is_uniform = all(value.is_uniform for value in inputs)
    return [Value(x, is_uniform) for x in applied(eqn, inputs)]


def in_words(eqn: Any, lacks: frozenset[str]) -> core.ClosedJaxpr | None:
    """What stands for an equation where a platform lacks its primitive; None where nothing need."""
    other = substitute(eqn.primitive.name, eqn.invars[0].aval.dtype, lacks) if eqn.invars else None
    return other and jax.make_jaxpr(partial(other, **eqn.params))(*(var.aval for var in eqn.invars))


def applied(eqn: Any, inputs: list[Value]) -> list:
    """What one primitive makes of its operands: itself, or what is the same and lowers on all platforms."""
    name, first, arrays = eqn.primitive.name, inputs[0].array, [value.array for value in inputs]
    is_bits = eqn.invars[0].aval.dtype == jnp.bool_
    if name in ("copy", "copy_p", "stop_gradient"):
        return [first]
    if name == "add_any":
        return [arrays[0] + arrays[1]]
    if name == "select_n":
        return [_selected(inputs)]
    if is_bits and name == "not":
        return [first ^ True]  # Mosaic GPU of JAX 0.11 turns whole bytes
    if is_bits and name in ("max", "min"):
        return [lax.bitwise_or(*arrays) if name == "max" else lax.bitwise_and(*arrays)]
    if name == "convert_element_type" and eqn.outvars[0].aval.dtype == jnp.bool_ and not is_bits:
        return [first != 0]
    found = eqn.primitive.bind(*arrays, **eqn.params)
    return found if eqn.primitive.multiple_results else [found]


def _selected(inputs: list[Value]) -> Any:
    """`select_n`, of integers written so that Mosaic GPU keeps their sign.

    It takes the sign of what a varying condition chooses from the condition, which has none, where the
    number that is chosen if true is the same for all lanes; comparisons would then be unsigned.
    """
    condition, if_false, if_true = inputs
    chosen, other, is_true = if_true.array, if_false.array, condition.array
    if other.dtype != jnp.int32 or condition.is_uniform or not if_true.is_uniform:
        return lax.select_n(is_true, other, chosen)
    if not if_false.is_uniform:
        return lax.select_n(is_true ^ True, chosen, other)
    return other + is_true.astype(jnp.int32) * (chosen - other)
