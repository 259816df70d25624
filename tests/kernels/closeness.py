"""How close arrays of a kernel are to those of its reference."""

import jax
import numpy as np


def assert_close(got, expected, tolerance=1e-5):
    """Leaves of two trees, in float32, relatively and absolutely."""
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
