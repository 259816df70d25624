"""Functions that act on every lane alone: told apart, and put in the words that kernels have."""

from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core

FlatBody = Callable[[list, list], tuple[list, list]]  # `(carry, x) -> (carry, y)`, of arrays alike

# An element of the result depends on the elements of the operands at its place. (`jnp.where` is jitted.)
NAMES = """
    abs acos acosh add add_any and asin asinh atan atan2 atanh bitcast_convert_type cbrt ceil clamp clz
    convert_element_type copy copy_p cos cosh digamma div eq erf erf_inv erfc exp exp2 expm1 floor ge gt
    imag integer_pow is_finite le lgamma log log1p logistic lt max min mul ne neg nextafter not or
    population_count pow real reduce_precision rem round rsqrt select_n shift_left shift_right_arithmetic
    shift_right_logical sign sin sinh sqrt square stop_gradient sub tan tanh xor
"""
_PRIMITIVES = frozenset(NAMES.split())


def mixing(jaxpr: Any) -> str | None:
    """The first primitive that may mix lanes, or None; a scalar may be broadcast to lanes."""
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        inner = [p for p in eqn.params.values() if isinstance(p, core.ClosedJaxpr | core.Jaxpr)]
        if name == "broadcast_in_dim":
            if eqn.invars[0].aval.shape not in ((), eqn.outvars[0].aval.shape):
                return name
        elif inner:
            for one in inner:
                found = mixing(one.jaxpr if isinstance(one, core.ClosedJaxpr) else one)
                if found:
                    return found
        elif name not in _PRIMITIVES:
            return name
    return None


def plain(fn: Any, *args: Any) -> Any:
    """`fn(*args)` in primitives that kernels have: nothing jitted, nothing of automatic differentiation."""
    closed, made = jax.make_jaxpr(fn, return_shape=True)(*args)
    flat = _evaluate(closed.jaxpr, closed.consts, jax.tree.leaves(args))
    return jax.tree.unflatten(jax.tree.structure(made), flat)


def _evaluate(jaxpr: Any, consts: list, args: list) -> list:
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))

    def read(var: Any) -> Any:
        return var.val if isinstance(var, core.Literal) else values[var]

    for eqn in jaxpr.eqns:
        inputs = [read(var) for var in eqn.invars]
        inner = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
        if isinstance(inner, core.ClosedJaxpr):
            outputs = _evaluate(inner.jaxpr, inner.consts, inputs)
        elif eqn.primitive.name == "add_any":
            outputs = [inputs[0] + inputs[1]]
        else:
            found = eqn.primitive.bind(*inputs, **eqn.params)
            outputs = found if eqn.primitive.multiple_results else [found]
        values.update(zip(eqn.outvars, outputs, strict=True))
    return [read(var) for var in jaxpr.outvars]
