"""The rate of a large matrix product here: what model operations a second are compared with."""

import functools
import statistics
import time

import jax
import jax.numpy as jnp

ROUNDS = 5


def product_size() -> int:
    """Rows of the square product that fills this machine without costing a run seconds."""
    return 8192 if jax.default_backend() == "gpu" else 2048


@functools.cache
def matmul_rate(dtype: str = "float32") -> float:
    """Operations a second of a square product of random matrices on one device, measured once.

    The median of a few: MFU (model FLOPs utilisation, Chowdhery et al. 2022, appendix B) is the
    model's operations over this.
    """
    size = product_size()
    a, b = jax.random.normal(jax.random.key(0), (2, size, size)).astype(dtype)
    product = jax.jit(jnp.dot)
    jax.block_until_ready(product(a, b))
    rates = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        jax.block_until_ready(product(a, b))
        rates.append(2.0 * size**3 / (time.perf_counter() - started))
    return statistics.median(rates)
