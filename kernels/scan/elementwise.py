"""Functions that act on every lane alone: told apart, and put in the words that kernels have."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core

# An element of the result depends on the elements of the operands at its place. (`jnp.where` is jitted.)
_NAMES = """
    abs acos acosh add add_any and asin asinh atan atan2 atanh bitcast_convert_type cbrt ceil clamp clz
    convert_element_type copy copy_p cos cosh digamma div eq erf erf_inv erfc exp exp2 expm1 floor ge gt
    imag integer_pow is_finite le lgamma log log1p logistic lt max min mul ne neg nextafter not or
    population_count pow real reduce_precision rem round rsqrt select_n shift_left shift_right_arithmetic
    shift_right_logical sign sin sinh sqrt square stop_gradient sub tan tanh xor
"""
_PRIMITIVES = frozenset(_NAMES.split())
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
        elif (name == "select_n" and eqn.invars[0].aval.dtype != jnp.bool_) or name not in _PRIMITIVES:
            return name
    return None


def plain(fn: Any, *args: Any) -> Any:
    """`fn(*args)` in primitives that kernels have: nothing jitted, nothing of automatic differentiation."""
    closed, made = jax.make_jaxpr(fn, return_shape=True)(*args)
    flat = jax.tree.leaves(args)
    values = _evaluate(closed.jaxpr, closed.consts, [_Value(x, x.ndim == 0) for x in flat])
    return jax.tree.unflatten(jax.tree.structure(made), [value.array for value in values])


class _Value(NamedTuple):
    array: Any
    is_uniform: bool  # one number for all lanes


def _evaluate(jaxpr: Any, consts: list, args: list[_Value]) -> list[_Value]:
    known = [_Value(const, True) for const in consts]
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*known, *args], strict=True))

    def read(var: Any) -> _Value:
        return _Value(var.val, True) if isinstance(var, core.Literal) else values[var]

    for eqn in jaxpr.eqns:
        inputs = [read(var) for var in eqn.invars]
        arrays = [value.array for value in inputs]
        if inner := called(eqn):
            outputs = _evaluate(inner.jaxpr, inner.consts, inputs)
        else:
            if eqn.primitive.name == "add_any":
                found = arrays[0] + arrays[1]
            elif eqn.primitive.name == "not" and arrays[0].dtype == jnp.bool_:
                found = arrays[0] ^ True  # Mosaic GPU of JAX 0.11 turns whole bytes
            elif eqn.primitive.name == "select_n":
                found = _selected(inputs)
            else:
                found = eqn.primitive.bind(*arrays, **eqn.params)
            is_uniform = all(value.is_uniform for value in inputs)
            found = found if eqn.primitive.multiple_results else [found]
            outputs = [_Value(x, is_uniform) for x in found]
        values.update(zip(eqn.outvars, outputs, strict=True))
    return [read(var) for var in jaxpr.outvars]


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
