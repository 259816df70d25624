"""Rules of one node, read so that a row of A actions may lie in a longer vector.

What a rule computes element by element is computed of the padding too, and means nothing there; what
it reduces counts the actions alone. Every other way to look at a row is refused by name.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core

from kernels.scan import elementwise
from kernels.scan.elementwise import Value

# Primitives that move no number of a row; as to a vector, they do nothing.
_SHAPES = ("squeeze", "reshape", "broadcast_in_dim", "stop_gradient", "copy", "copy_p")
_SUM, _MOST, _LEAST = "reduce_sum", ("reduce_max", "reduce_or"), ("reduce_min", "reduce_and")


class Rule(NamedTuple):
    """A rule of flat operands, numbers `[]` and rows `[A]`."""

    jaxpr: Any  # operands to the action, int32 `[]`; of its equations those that matter
    is_used: list[bool]  # by operand
    is_const_used: list[bool]  # by number that it closes over
    num_actions: int


def traced(rule: Callable, num_actions: int, *args: Any) -> tuple[Rule, list[jax.Array]]:
    """A rule of `args`, which are given as shapes, and the numbers `[]` that it closes over and reads.

    Raises ValueError for a rule that returns anything but an int32 `[]`, that reads or closes over what is
    neither number nor row, or that looks at a row in a way that no vector has.
    """
    closed, made = jax.make_jaxpr(rule, return_shape=True)(*args)
    if [(x.shape, x.dtype.name) for x in jax.tree.leaves(made)] != [((), "int32")]:
        raise ValueError(f"search: got a rule that returns {made}, expected an action, int32 [].")
    jaxpr, live = _living(closed.jaxpr)
    found = Rule(jaxpr, [v in live for v in jaxpr.invars], [v in live for v in jaxpr.constvars], num_actions)
    consts = [jnp.asarray(c) for c, used in zip(closed.consts, found.is_const_used, strict=True) if used]
    for what, leaves, shapes in (
        ("closes over an array", [c.shape for c in consts], [()]),
        ("reads data", [v.aval.shape for v in jaxpr.invars if v in live], [(), (num_actions,)]),
    ):
        if wrong := [shape for shape in leaves if shape not in shapes]:
            expected = " or ".join(map(str, shapes))
            raise ValueError(
                f"search: got a rule that {what} of shape {wrong[0]}, expected {expected}; give rows "
                f"[{num_actions}] as data of lanes, or take implementation='xla'."
            )
    place = jax.ShapeDtypeStruct((num_actions + 1,), jnp.int32)  # as nothing may depend on its length
    operands = [_lying(v.aval, place) if v in live else None for v in jaxpr.invars]
    jax.eval_shape(partial(ask, found), place, operands, consts)
    return found, consts


def ask(
    rule: Rule,
    place: Any,
    operands: Sequence[Any],
    consts: Sequence[Any],
    lacks: frozenset[str] = frozenset(),
) -> Any:
    """The action, int32 `[]`, of numbers `[]` and rows `[P]`; `place [P]` counts from 0.

    Operands that are not used may be None. What a platform `lacks` is put in other words.
    """
    if rule.num_actions == 1:
        operands = [x if x is None or not x.ndim else _first(x, place) for x in operands]
    given = iter(consts)
    filled = [next(given) if used else None for used in rule.is_const_used]
    args = [Value(x, x is None or not x.ndim) for x in operands]
    apply = partial(_apply, rule.num_actions, place, lacks)
    return elementwise.evaluate(core.ClosedJaxpr(rule.jaxpr, filled), args, apply)[0].array


def _living(jaxpr: Any) -> tuple[Any, set]:
    """A program without equations that nothing reads, and the variables that are read."""

    def variables(atoms: Sequence[Any]) -> set:
        return {v for v in atoms if not isinstance(v, core.Literal)}

    live, kept = variables(jaxpr.outvars), []
    for eqn in reversed(jaxpr.eqns):
        if live & set(eqn.outvars):
            kept.append(eqn)
            live |= variables(eqn.invars)
    return jaxpr.replace(eqns=kept[::-1]), live


def _lying(aval: Any, place: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(place.shape if aval.shape else (), aval.dtype)


def _first(x: Any, place: Any) -> Any:
    """The number that a row of one action is."""
    if x.dtype == jnp.bool_:
        return _first(x.astype(jnp.int32), place) != 0
    return jnp.sum(jnp.where(place == 0, x, jnp.zeros((), x.dtype)))


def _apply(size: int, place: Any, lacks: frozenset[str], eqn: Any, inputs: list[Value]) -> list[Value]:
    """One equation of numbers `[]`, which are the same for all actions, and rows `[P]`."""
    name, is_number = eqn.primitive.name, all(value.is_uniform for value in inputs)
    if not is_number and not name.startswith(("reduce_", "arg")) and eqn.outvars[0].aval.size != size:
        raise _refused(eqn)
    if name in _SHAPES:
        return inputs
    if name == "iota":
        return [_counted(size, place, eqn)]
    if name in (_SUM, *_MOST, *_LEAST):
        return [_reduced(size, place, eqn, inputs[0])]
    if name in ("argmax", "argmin"):
        return [_best(size, place, eqn, inputs[0])]
    if not elementwise.is_elementwise(eqn):
        raise _refused(eqn)
    if words := elementwise.in_words(eqn, lacks):
        return elementwise.evaluate(words, inputs, partial(_apply, size, place, lacks))
    if name == "convert_element_type" and inputs[0].array.dtype == jnp.bool_:
        # Mosaic GPU makes nothing of bits but words.
        return [Value(inputs[0].array.astype(jnp.int32).astype(eqn.params["new_dtype"]), is_number)]
    if not is_number:
        inputs = [_spread(value, var.aval, place) for value, var in zip(inputs, eqn.invars, strict=True)]
    return [Value(x, is_number) for x in elementwise.applied(eqn, inputs)]


def _spread(value: Value, aval: Any, place: Any) -> Value:
    """A row, of a number too, which stays known as one."""
    return Value(lax.full(place.shape, value.array, aval.dtype), True) if value.is_uniform else value


def _counted(size: int, place: Any, eqn: Any) -> Value:
    shape, dtype = eqn.outvars[0].aval.shape, eqn.outvars[0].aval.dtype
    if math.prod(shape) not in (1, size):
        raise _refused(eqn)
    if shape[eqn.params["dimension"]] == 1:
        return Value(jnp.zeros((), dtype), True)
    return Value(place.astype(dtype), False)


def _reduced(size: int, place: Any, eqn: Any, value: Value) -> Value:
    name, shape = eqn.primitive.name, eqn.invars[0].aval.shape
    count = math.prod(shape[axis] for axis in eqn.params["axes"])
    if count == 1 or (value.is_uniform and name != _SUM):
        return value
    if count != size:
        raise _refused(eqn)
    row = _spread(value, eqn.invars[0].aval, place).array
    if name == _SUM:
        return Value(jnp.sum(jnp.where(place < size, row, jnp.zeros((), row.dtype))), True)
    if row.dtype == jnp.bool_:
        found = _extreme(size, place, row.astype(jnp.int32), name in _MOST) != 0
    else:
        found = _extreme(size, place, row, name in _MOST)
    return Value(found, True)


def _extreme(size: int, place: Any, row: Any, is_most: bool) -> Any:
    if jnp.issubdtype(row.dtype, jnp.integer):
        never = jnp.iinfo(row.dtype).min if is_most else jnp.iinfo(row.dtype).max
    else:
        never = -np.inf if is_most else np.inf
    row = jnp.where(place < size, row, jnp.asarray(never, row.dtype))
    return jnp.max(row) if is_most else jnp.min(row)


def _best(size: int, place: Any, eqn: Any, value: Value) -> Value:
    """The first of the largest or smallest, or the first NaN."""
    if eqn.invars[0].aval.shape[eqn.params["axes"][0]] != size:
        raise _refused(eqn)
    if value.is_uniform:
        return Value(jnp.zeros((), eqn.params["index_dtype"]), True)
    is_most, row = eqn.primitive.name == "argmax", value.array
    row = row.astype(jnp.int32) if row.dtype == jnp.bool_ else row
    is_nan = row != row
    never = jnp.asarray(0, row.dtype)
    known = jnp.where(is_nan, never, row)
    # A NaN counts as nothing here: where there is one it is chosen anyway.
    best = known == _extreme(size, place, known, is_most)
    has_nan = _extreme(size, place, is_nan.astype(jnp.int32), True)
    chosen = (best.astype(jnp.int32) * (1 - has_nan) + is_nan.astype(jnp.int32)) > 0
    first = jnp.where(chosen, place, jnp.full_like(place, size))
    return Value(_extreme(size, place, first, False).astype(eqn.params["index_dtype"]), True)


def _refused(eqn: Any) -> ValueError:
    shapes = ", ".join(str(v.aval.shape) for v in (*eqn.invars, *eqn.outvars))
    return ValueError(
        f"search: got a rule with {eqn.primitive.name} of {shapes}, expected what acts on every action alone "
        "or reduces over them (sum, max, min, any, all, argmax, argmin); take implementation='xla'."
    )
