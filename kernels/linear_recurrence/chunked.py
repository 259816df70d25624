"""The recurrence by chunks of time: products of matrices within them, and a short scan over them.

A chunk's states are a lower triangular matrix of its factors times its drives; what came before reaches
them through the products since its beginning. All are products, of factors at most 1 ever smaller: nothing
is divided by them and no logarithm is taken, so that a factor of 0 cuts the past off exactly; a drive that is
not finite reaches all of its chunk, as the zeros of a triangle multiply it. As every lane
has factors of its own, every lane has a matrix of its own, `CHUNK` times the memory of the drives. On a CPU
that takes 2 to 5 times as long as the reference, and gradients 3 to 6 times; accelerators were not measured.
"""

from functools import partial

import jax
import jax.numpy as jnp

from kernels.linear_recurrence.complex import Complex, product

CHUNK = 8  # steps; of 8, 16 and 32 the fastest on a CPU


def recurrence(factor: Complex, drive: Complex, state: Complex) -> Complex:
    """All states `h_t = factor_t h_{t-1} + drive_t`, `[T, ...]`, from `h_{-1} = state [...]`; T at least 1.

    Source: the chunkwise form of Dao and Gu 2024, section 6. Differs: the factors are complex and of a lane.
    """
    length = factor.real.shape[0]
    factor, drive = (Complex(*map(_chunks, parts)) for parts in (factor, drive))
    since = _products(factor)
    local = _applied(since, drive)
    first = Complex(*(part[0] for part in factor))
    reach = product(Complex(*(part[:, 0] for part in since)), Complex(*(part[None] for part in first)))

    def chunk(before: Complex, now: tuple[Complex, Complex]) -> tuple[Complex, Complex]:
        ends, reaches = now
        return _sum(ends, product(reaches, before)), before

    last = tuple(Complex(*(part[-1] for part in parts)) for parts in (local, reach))
    _, before = jax.lax.scan(chunk, state, last)
    states = _sum(local, product(reach, Complex(*(part[None] for part in before))))
    return Complex(*(_steps(part, length) for part in states))


def _chunks(x: jax.Array) -> jax.Array:
    """`[T, ...]` as `[CHUNK, T / CHUNK, ...]`, with zeros behind the end."""
    padded = jnp.pad(x, [(0, -len(x) % CHUNK)] + [(0, 0)] * (x.ndim - 1))
    return jnp.moveaxis(padded.reshape(-1, CHUNK, *x.shape[1:]), 1, 0)


def _steps(x: jax.Array, length: int) -> jax.Array:
    """What `_chunks` made of `length` steps, as steps."""
    return jnp.moveaxis(x, 0, 1).reshape(-1, *x.shape[2:])[:length]


def _products(factor: Complex) -> Complex:
    """Products `[t, s, ...]` of the factors after s up to t: 1 where t is s, 0 where s is later."""

    def row(above: Complex, now: tuple[Complex, jax.Array]) -> tuple[Complex, Complex]:
        here, unit = now
        moved = product(Complex(*(part[None] for part in here)), above)
        row = moved._replace(real=moved.real + unit.reshape(-1, *[1] * here.real.ndim))
        return row, row

    none = jnp.zeros_like(factor.real)
    return jax.lax.scan(row, Complex(none, none), (factor, jnp.eye(CHUNK, dtype=none.dtype)))[1]


def _applied(matrix: Complex, vector: Complex) -> Complex:
    """Products `[t, ...]` of matrices `[t, s, ...]` and vectors `[s, ...]`."""
    times = partial(jnp.einsum, "ts...,s...->t...", precision=jax.lax.Precision.HIGHEST)
    return Complex(
        times(matrix.real, vector.real) - times(matrix.imag, vector.imag),
        times(matrix.real, vector.imag) + times(matrix.imag, vector.real),
    )


def _sum(a: Complex, b: Complex) -> Complex:
    return Complex(a.real + b.real, a.imag + b.imag)
