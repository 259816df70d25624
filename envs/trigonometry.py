"""Sine and cosine by polynomials: what XLA's CPU backend computes one at a time, many at once."""

import jax
import jax.numpy as jnp


def sincos(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sine and cosine `[...]` of float32 `x [...]` in radians; within 2e-7 for |x| up to 1000.

    Argument reduction in three parts (Cody and Waite) and the minimax polynomials of Cephes' sinf
    and cosf. No branch and no table, so a step that calls it stays one vectorised loop.
    """
    quarter = jnp.round(x * 0.6366197723675814)  # 2 / pi
    r = ((x - quarter * 1.5703125) - quarter * 4.837512969970703e-4) - quarter * 7.54978994e-8
    r2 = r * r
    s = r + r * r2 * (-1.6666654611e-1 + r2 * (8.3321608736e-3 + r2 * -1.9515295891e-4))
    c = (
        1.0
        - 0.5 * r2
        + r2 * r2 * (4.166664568298827e-2 + r2 * (-1.388731625493765e-3 + r2 * 2.443315711809948e-5))
    )
    turn = quarter.astype(jnp.int32)
    is_swapped = (turn & 1) == 1
    sine, cosine = jnp.where(is_swapped, c, s), jnp.where(is_swapped, s, c)
    return (jnp.where((turn & 2) == 2, -sine, sine), jnp.where(((turn + 1) & 2) == 2, -cosine, cosine))


def wrap_angle(x: jax.Array) -> jax.Array:
    """`x [...]` in radians moved by whole turns into [-pi, pi), in two parts as in `sincos`."""
    turns = jnp.floor((x + jnp.pi) * (0.5 / jnp.pi))
    return (x - turns * 6.28125) - turns * 1.9353071795864769e-3
