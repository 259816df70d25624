"""Operations of a program, counted in what was traced: products of matrices, times their loops."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np


def flops_of(fn: Callable, *args: Any) -> float:
    """Multiplications and additions in the matrix products and convolutions of `fn(*args)`.

    `args` may be shapes. The body of a scan counts as often as it runs, of branches the dearest
    counts, the body of a loop of unknown length counts once. What is no product is left out.
    """
    return _count(jax.make_jaxpr(fn)(*args).jaxpr)


def _count(jaxpr: Any) -> float:
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation: Any) -> float:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        return 2.0 * _size(equation) * float(np.prod([shape[axis] for axis in contracted]))
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        outputs = kernel[params["dimension_numbers"].rhs_spec[0]]
        return 2.0 * _size(equation) * float(np.prod(kernel)) / outputs
    inner = [_count(jaxpr) for jaxpr in _jaxprs(params)]
    if name == "cond":
        return max(inner)
    return sum(inner) * (params["length"] if name == "scan" else 1)


def _size(equation: Any) -> float:
    return float(np.prod(equation.outvars[0].aval.shape))


def _jaxprs(params: dict[str, Any]) -> Iterator[Any]:
    """Programs inside an equation; of a differentiated one, what it stands for."""
    for value in params.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            inner = getattr(one, "jaxpr", one)  # closed or not
            if hasattr(inner, "eqns"):
                yield inner
