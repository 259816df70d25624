"""Attention with weights set by hand that computes what Bayes' rule would (Zhang et al. 2023).

Both run through the attention of the models (`nn/attention.py`): keys are the inputs of a prompt,
values its targets, and the query is that of the newest input.
"""

import jax
import jax.numpy as jnp

from jaxagent.nn.attention import attend, attend_linearly


def ridge_by_attention(x: jax.Array, y: jax.Array, query: jax.Array, ratio: float) -> jax.Array:
    """Linear attention whose query is preconditioned: the ridge prediction `q (X'X + r I)^-1 X'y`.

    From `x [T, d]`, `y [T]`, `query [d]` to `[]`; the posterior mean of a linear task with a Gaussian
    prior where `ratio` is noise variance over prior variance.
    """
    num_pairs, size = x.shape
    precision = x.T @ x + ratio * jnp.eye(size, dtype=x.dtype)
    # Undo the mean over keys and the scale by sqrt d, which attention brings along.
    preconditioned = jnp.linalg.solve(precision, query) * num_pairs * size**0.5
    return _one_query(attend_linearly, x, y, preconditioned)


def kernel_by_attention(x: jax.Array, y: jax.Array, query: jax.Array, sharpness: float) -> jax.Array:
    """Softmax attention: the mean of `y` under weights `exp(sharpness q . x)`.

    From `x [T, d]`, `y [T]`, `query [d]` to `[]`. For x ~ N(0, I) and y = w . x the weights tilt
    the Gaussian, so it tends to `sharpness * w . q` as the prompt grows, at the rate of a mean.
    """
    return _one_query(attend, x, y, query * sharpness * query.shape[-1] ** 0.5)


def _one_query(attention, x: jax.Array, y: jax.Array, query: jax.Array) -> jax.Array:
    """One head, one query that sees every key."""
    mask = jnp.ones((1, 1, x.shape[0]), bool)
    value = jnp.broadcast_to(y[:, None], x.shape)  # a value is as wide as a key
    return attention(query[None, None, None], x[None, :, None], value[None, :, None], mask)[0, 0, 0, 0]
