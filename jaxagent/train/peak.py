"""The rate of a large matrix product here: what model operations a second are compared with."""

import functools
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

ROUNDS = 5


def square_product(dtype: str) -> tuple[Callable[[], jax.Array], float]:
    """A compiled product of random matrices `[size, size]` that fills this machine, and its operations."""
    size = 8192 if jax.default_backend() == "gpu" else 2048
    a, b = jax.random.normal(jax.random.key(0), (2, size, size)).astype(dtype)
    product = jax.jit(jnp.dot)
    jax.block_until_ready(product(a, b))
    return lambda: product(a, b), 2.0 * size**3


@functools.cache
def matmul_rate(dtype: str = "float32") -> float:
    """Operations a second of `square_product` on one device, the median of a few, measured once.

    MFU (model FLOPs utilisation, Chowdhery et al. 2022, appendix B) is the model's operations over
    this.
    """
    product, operations = square_product(dtype)
    rates = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        jax.block_until_ready(product())
        rates.append(operations / (time.perf_counter() - started))
    return statistics.median(rates)
