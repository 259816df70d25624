"""A scan that is written out is the scan."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxagent.nn.short_scan import short_scan


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_is_the_scan_whatever_the_machine(backend, monkeypatch):
    def step(carry, x):
        return carry * 2.0 + x, carry

    xs = jnp.arange(5.0)
    expected = jax.lax.scan(step, jnp.float32(1.0), xs)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    found = short_scan(step, jnp.float32(1.0), xs)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    program = str(jax.make_jaxpr(lambda c, x: short_scan(step, c, x))(jnp.float32(1.0), xs))
    assert ("unroll=5" in program or "scan[" not in program) == (backend == "gpu")
