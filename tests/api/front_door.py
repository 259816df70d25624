"""What tests of the front door share."""

import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def as_users_run_it():
    """A run makes its first state again where it is restored, from the same keys on purpose."""
    with jax.debug_key_reuse(False):
        yield
