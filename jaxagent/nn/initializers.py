"""Initialisers of weights."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def orthogonal(scale: float) -> Callable[..., jax.Array]:
    """An initialiser `(key, shape, dtype)` of `[rows, columns]`, orthonormal times `scale` (Saxe 2014).

    The values are those of `jax.nn.initializers.orthogonal` up to rounding.
    Differs: Gram-Schmidt in place of LAPACK's QR. On CPUs XLA runs batched LAPACK calls as tasks of
    the pool whose threads wait for them; two such calls in one vmapped program wait for ever.
    """

    def init(key: jax.Array, shape: tuple[int, int], dtype: jnp.dtype = jnp.float32) -> jax.Array:
        rows, columns = shape
        is_tall = rows >= columns
        normal = jax.random.normal(key, shape if is_tall else shape[::-1], dtype)
        basis = scale * orthonormalise(normal.T)
        return basis.T if is_tall else basis

    return init


def orthonormalise(vectors: jax.Array) -> jax.Array:
    """Gram-Schmidt on the rows of `[n, m]`, n <= m; projects twice, which keeps float32 exact."""
    index = jnp.arange(vectors.shape[0])

    def step(basis: jax.Array, i: jax.Array) -> tuple[jax.Array, None]:
        done = jnp.where((index < i)[:, None], basis, 0.0)
        row = basis[i]
        for _ in range(2):
            row = row - (done @ row) @ done
        return basis.at[i].set(row / jnp.linalg.norm(row)), None

    return jax.lax.scan(step, vectors, index)[0]
