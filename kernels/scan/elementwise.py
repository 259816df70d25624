"""Functions that act on every lane alone: told apart, and put in the words that kernels have."""

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
        elif (name == "select_n" and eqn.invars[0].aval.dtype != jnp.bool_) or name not in PRIMITIVES:
            return name
    return None


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
    values = _evaluate(closed, [_Value(x, x.ndim == 0) for x in flat], lacks)
    return jax.tree.unflatten(jax.tree.structure(made), [value.array for value in values])


class _Value(NamedTuple):
    array: Any
    is_uniform: bool  # one number for all lanes


def _evaluate(closed: core.ClosedJaxpr, args: list[_Value], lacks: frozenset[str]) -> list[_Value]:
    jaxpr = closed.jaxpr
    known = [_Value(const, True) for const in closed.consts]
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*known, *args], strict=True))

    def read(var: Any) -> _Value:
        return _Value(var.val, True) if isinstance(var, core.Literal) else values[var]

    for eqn in jaxpr.eqns:
        inputs = [read(var) for var in eqn.invars]
        if inner := called(eqn):
            outputs = _evaluate(inner, inputs, lacks)
        elif other := substitute(eqn.primitive.name, eqn.invars[0].aval.dtype, lacks):
            words = jax.make_jaxpr(partial(other, **eqn.params))(*(var.aval for var in eqn.invars))
            outputs = _evaluate(words, inputs, lacks)
        else:
            found = _bound(eqn, inputs)
            is_uniform = all(value.is_uniform for value in inputs)
            found = found if eqn.primitive.multiple_results else [found]
            outputs = [_Value(x, is_uniform) for x in found]
        values.update(zip(eqn.outvars, outputs, strict=True))
    return [read(var) for var in jaxpr.outvars]


def _bound(eqn: Any, inputs: list[_Value]) -> Any:
    """A primitive itself, or what is the same on all platforms and lowers on all."""
    name, first, arrays = eqn.primitive.name, inputs[0].array, [value.array for value in inputs]
    is_bits = eqn.invars[0].aval.dtype == jnp.bool_
    if name in ("copy", "copy_p", "stop_gradient"):
        return first
    if name == "add_any":
        return arrays[0] + arrays[1]
    if name == "select_n":
        return _selected(inputs)
    if is_bits and name == "not":
        return first ^ True  # Mosaic GPU of JAX 0.11 turns whole bytes
    if is_bits and name in ("max", "min"):
        return lax.bitwise_or(*arrays) if name == "max" else lax.bitwise_and(*arrays)
    if name == "convert_element_type" and eqn.outvars[0].aval.dtype == jnp.bool_ and not is_bits:
        return first != 0
    return eqn.primitive.bind(*arrays, **eqn.params)


def _selected(inputs: list[_Value]) -> Any:
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
