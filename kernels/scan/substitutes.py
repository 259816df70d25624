"""Functions that Mosaic has no word for, in words that it has: add, multiply, compare, exp, log, tanh.

Each takes what its primitive takes, computes in float32, and may use another substitute. They are within
1e-6, relatively, of what XLA computes on a CPU, hyperbolic functions within 2e-6 and powers within 1e-5
(`tests/kernels/test_elementwise.py`); where a device's `exp`, `log` and `rsqrt` are less exact, so are they.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

WHOLE = 2.0**23  # from here on every float32 is a whole number


def _in_single(fn: Callable) -> Callable:
    """`fn` of floats, in float32."""

    def single(*args: jax.Array, **params: Any) -> jax.Array:
        del params  # of accuracy
        return fn(*(x.astype(jnp.float32) for x in args)).astype(args[0].dtype)

    return single


def _polynomial(x: jax.Array, coefficients: Sequence[float]) -> jax.Array:
    """By Horner, the highest power first."""
    total = jnp.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        total = total * x + coefficient
    return total


def _sqrt(x: jax.Array) -> jax.Array:
    root = x * lax.rsqrt(x)
    root = root + 0.5 * (x - root * root) * lax.rsqrt(x)
    return jnp.where((x == 0.0) | (x == jnp.inf), x, root)


def _is_negative(x: jax.Array) -> jax.Array:
    """By its sign, which zeros have too."""
    return lax.bitcast_convert_type(x, jnp.uint32) >= jnp.uint32(0x80000000)


def _truncated(x: jax.Array) -> jax.Array:
    is_small = jnp.abs(x) < WHOLE
    return jnp.where(is_small, jnp.where(is_small, x, 0.0).astype(jnp.int32).astype(x.dtype), x)


def _floor(x: jax.Array) -> jax.Array:
    whole = _truncated(x)
    return jnp.where(whole > x, whole - 1.0, whole)


def _halves(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A number as a sum of two of 12 bits, whose products are exact."""
    bits = lax.bitcast_convert_type(x, jnp.uint32) & jnp.uint32(0xFFFFF000)
    high = lax.bitcast_convert_type(bits, jnp.float32)
    return high, x - high


def _less_multiples(x: jax.Array, y: jax.Array) -> jax.Array:
    """`x` less the whole number of `y` in it or one more or fewer, exactly (Dekker 1971)."""
    count = _truncated(x / y)
    (a, b), (c, d), near = _halves(count), _halves(y), count * y
    return (x - near) - (((a * c - near) + a * d + b * c) + b * d)


def _rem(x: jax.Array, y: jax.Array) -> jax.Array:
    """Exact up to quotients of 2^46, and 0 of larger ones."""
    size, of = jnp.abs(x), jnp.abs(y)
    left = _less_multiples(_less_multiples(size, of), of)
    left = jnp.where(left < 0.0, left + of, left)
    left = jnp.where(left >= of, left - of, left)
    left = jnp.where((left < 0.0) | (left >= of), 0.0, left)
    left = jnp.where(size < of, size, left)
    return jnp.where(x < 0.0, -left, left)


def _expm1(x: jax.Array) -> jax.Array:
    small = jnp.where(jnp.abs(x) < 0.5, x, 0.0)
    series = small * _polynomial(small, [1.0 / math.factorial(n) for n in range(9, 0, -1)])
    return jnp.where(jnp.abs(x) < 0.5, series, jnp.exp(x) - 1.0)


def _log1p(x: jax.Array) -> jax.Array:
    is_small = (x > -0.29) & (x < 0.41)
    small = jnp.where(is_small, x, 0.0)
    ratio = small / (2.0 + small)
    series = 2.0 * ratio * _polynomial(ratio * ratio, [1 / 9, 1 / 7, 1 / 5, 1 / 3, 1.0])
    return jnp.where(is_small, series, jnp.log(1.0 + x))


def _cosh(x: jax.Array) -> jax.Array:
    root = jnp.exp(0.5 * jnp.abs(x))
    return 0.5 * root * root + 0.5 / root / root


def _sinh(x: jax.Array) -> jax.Array:
    size = jnp.abs(x)
    root, less = jnp.exp(0.5 * size), jnp.expm1(jnp.minimum(size, 1.0))
    result = jnp.where(size < 1.0, 0.5 * (less + less / (less + 1.0)), 0.5 * root * root - 0.5 / root / root)
    return jnp.where(x < 0.0, -result, result)


def _atan(x: jax.Array) -> jax.Array:
    """Cephes, atanf.c."""
    size = jnp.abs(x)
    is_large, is_middle = size > 2.414213562373095, size > 0.4142135623730950
    part = jnp.where(is_middle, (size - 1.0) / (size + 1.0), size)
    part = jnp.where(is_large, -1.0 / size, part)
    base = jnp.where(is_large, math.pi / 2, jnp.where(is_middle, math.pi / 4, 0.0))
    z = part * part
    odd = _polynomial(z, [8.05374449538e-2, -1.38776856032e-1, 1.99777106478e-1, -3.33329491539e-1])
    angle = base + (odd * z * part + part)
    return jnp.where(x < 0.0, -angle, angle)


def _atan2(y: jax.Array, x: jax.Array) -> jax.Array:
    wide, high = jnp.abs(x), jnp.abs(y)
    low, large = jnp.minimum(wide, high), jnp.maximum(wide, high)
    ratio = jnp.where(low == large, jnp.where(large == 0.0, 0.0, 1.0), low / large)
    angle = _atan(jnp.where(jnp.isnan(low + large), jnp.nan, ratio))
    angle = jnp.where(high > wide, math.pi / 2 - angle, angle)
    angle = jnp.where(_is_negative(x), math.pi - angle, angle)
    return jnp.where(_is_negative(y), -angle, angle)


def _asin(x: jax.Array) -> jax.Array:
    return 2.0 * _atan(x / (1.0 + jnp.sqrt((1.0 - x) * (1.0 + x))))


def _acos(x: jax.Array) -> jax.Array:
    return 2.0 * _atan(jnp.sqrt((1.0 - x) / (1.0 + x)))


def _asinh(x: jax.Array) -> jax.Array:
    size = jnp.abs(x)
    near = jnp.minimum(size, 1e4)
    result = jnp.log1p(near + near * near / (1.0 + jnp.sqrt(near * near + 1.0)))
    result = jnp.where(size > 1e4, jnp.log(size) + math.log(2.0), result)
    return jnp.where(x < 0.0, -result, result)


def _acosh(x: jax.Array) -> jax.Array:
    more = jnp.minimum(x, 1e4) - 1.0
    near = jnp.log1p(more + jnp.sqrt(2.0 * more + more * more))
    return jnp.where(x < 1.0, jnp.nan, jnp.where(x > 1e4, jnp.log(x) + math.log(2.0), near))


def _atanh(x: jax.Array) -> jax.Array:
    size = jnp.abs(x)
    result = 0.5 * jnp.log1p(2.0 * size / (1.0 - size))
    return jnp.where(x < 0.0, -result, result)


def _cbrt(x: jax.Array) -> jax.Array:
    size = jnp.abs(x)
    root = jnp.exp(jnp.log(size) / 3.0)
    root = root - (root - size / (root * root)) / 3.0
    root = jnp.where((size == 0.0) | (size == jnp.inf), size, root)
    return jnp.where(x < 0.0, -root, root)


def _pow(x: jax.Array, y: jax.Array) -> jax.Array:
    """To the precision of `y log x`, which is as large as the logarithm of the result."""
    size = jnp.where(jnp.abs(x) == 1.0, 1.0, jnp.exp(y * jnp.log(jnp.abs(x))))
    is_whole = _truncated(y) == y
    is_odd = is_whole & (_truncated(0.5 * y) != 0.5 * y)
    signed = jnp.where(_is_negative(x) & is_odd, -size, size)
    signed = jnp.where((x < 0.0) & (x > -jnp.inf) & ~is_whole, jnp.nan, signed)
    return jnp.where((y == 0.0) | (x == 1.0), 1.0, signed)


def _erf(x: jax.Array) -> jax.Array:
    """Eigen's rational approximation, as XLA's."""
    x = lax.clamp(-3.7439211627767994, x, 3.7439211627767994)
    above = [2.2905065861350646e-4, 3.4082910107109506e-3, 5.0955695062380861e-2, 1.8520832239976145e-1]
    below = [-1.1791602954361697e-7, 2.3547966471313185e-5, 1.0179625278914885e-3, 1.4070470171167667e-2]
    above += [1.128379143519084]
    below += [1.1098505178285362e-1, 4.9746925110067538e-1, 1.0]
    return x * _polynomial(x * x, above) / _polynomial(x * x, below)


def _erfc(x: jax.Array) -> jax.Array:
    """Cephes, ndtrf.c, as XLA's."""
    size = jnp.maximum(jnp.abs(x), 1.0)
    z = 1.0 / (size * size)
    middle = [2.326819970068386e-2, -1.387039388740657e-1, 3.687424674597105e-1, -5.824733027278666e-1]
    middle += [6.210004621745983e-1, -4.944515323274145e-1, 3.404879937665872e-1, -2.741127028184656e-1]
    far = [-1.047766399936249e1, 1.297719955372516e1, -7.495518717768503, 2.921019019210786]
    far += [-1.015265279202700, 4.218463358204948e-1, -2.820767439740514e-1, 5.641895067754075e-1]
    series = jnp.where(size < 2.0, _polynomial(z, [*middle, 5.638259427386472e-1]), _polynomial(z, far))
    tail = jnp.exp(-size * size) / size * series
    return jnp.where(jnp.abs(x) < 1.0, 1.0 - _erf(x), jnp.where(x < 0.0, 2.0 - tail, tail))


def _erf_inv(x: jax.Array) -> jax.Array:
    """Giles 2010, as XLA's."""
    w = -jnp.log1p(-x * x)
    centre = [2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087]
    centre += [-0.00125372503, -0.00417768164, 0.246640727, 1.50140941]
    tail = [-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773]
    tail += [-0.0076224613, 0.00943887047, 1.00167406, 2.83297682]
    far = jnp.sqrt(jnp.maximum(w, 5.0)) - 3.0
    result = x * jnp.where(w < 5.0, _polynomial(w - 2.5, centre), _polynomial(far, tail))
    return jnp.where(jnp.abs(x) == 1.0, x * jnp.inf, result)


def _integer_pow(x: jax.Array, *, y: int) -> jax.Array:
    result, power = None, x
    for bit in reversed(f"{abs(y):b}"):
        if bit == "1":
            result = power if result is None else result * power
        power = power * power
    result = jnp.ones_like(x) if result is None else result
    return result if y >= 0 else 1.0 / result


def _sign(x: jax.Array) -> jax.Array:
    if jnp.issubdtype(x.dtype, jnp.floating):
        return jnp.where(x > 0.0, 1.0, jnp.where(x < 0.0, -1.0, x)).astype(x.dtype)
    one = jnp.ones_like(x)
    return jnp.minimum(x, one) if x.dtype == jnp.uint32 else jnp.clip(x, -one, one)


def _population_count(x: jax.Array) -> jax.Array:
    """Sums of ever more bits side by side (Warren, Hacker's Delight, 5-1)."""
    bits = x.astype(jnp.uint32)
    for shift, mask in ((1, 0x55555555), (2, 0x33333333), (4, 0x0F0F0F0F), (8, 0x00FF00FF)):
        bits = (bits & jnp.uint32(mask)) + ((bits >> jnp.uint32(shift)) & jnp.uint32(mask))
    return ((bits & jnp.uint32(0xFFFF)) + (bits >> jnp.uint32(16))).astype(x.dtype)


_OF_FLOATS = {
    "acos": _acos,
    "acosh": _acosh,
    "asin": _asin,
    "asinh": _asinh,
    "atan": _atan,
    "atan2": _atan2,
    "atanh": _atanh,
    "cbrt": _cbrt,
    "ceil": lambda x: -_floor(-x),
    "cosh": _cosh,
    "erf": _erf,
    "erf_inv": _erf_inv,
    "erfc": _erfc,
    "expm1": _expm1,
    "floor": _floor,
    "log1p": _log1p,
    "pow": _pow,
    "rem": _rem,
    "sinh": _sinh,
    "sqrt": _sqrt,
    "tan": lambda x: jnp.sin(x) / jnp.cos(x),
}
_OF_ALL = {
    "integer_pow": _integer_pow,
    "is_finite": lambda x: jnp.abs(x) < jnp.inf,
    "population_count": _population_count,
    "sign": _sign,
}
SUBSTITUTES: dict[str, Callable] = {name: _in_single(fn) for name, fn in _OF_FLOATS.items()} | _OF_ALL
_NOWHERE = """
    acos acosh asin asinh atan atanh cbrt cosh digamma erf_inv erfc expm1 is_finite lgamma nextafter
    reduce_precision sinh
"""
_NO_GPU = "atan2 ceil erf floor integer_pow log1p population_count pow rem sqrt tan"
# What does not lower in JAX 0.10.2 or 0.11.2, for some type; `sign` asks which TPU is there.
GPU_LACKS = frozenset(f"{_NOWHERE} {_NO_GPU}".split())
TPU_LACKS = frozenset(f"{_NOWHERE} sign".split())


def substitute(name: str, dtype: Any, lacks: frozenset[str]) -> Callable | None:
    """What stands for a primitive of such operands where a platform lacks it; None if nothing need."""
    if name not in lacks or (name in _OF_FLOATS and not jnp.issubdtype(dtype, jnp.floating)):
        return None
    return SUBSTITUTES.get(name)
