"""Checkers that turn silent errors into failures, switched on before JAX starts a backend."""

import os
from pathlib import Path

# Level 1 as in the presets for CPUs: tests mostly compile, and it takes a sixth of that away. Of
# flags given twice the last counts.
os.environ["XLA_FLAGS"] = (
    "--xla_backend_optimization_level=1 "
    + os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=4"
)
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".cache" / "jax"))

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


@pytest.fixture(autouse=True)
def strict_dtypes(request):
    """Strict dtype promotion for our modules; foreign code relaxes it itself (`envs.foreign`)."""
    if "foreign_oracle" in request.keywords:
        yield
        return
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture(autouse=True, scope="module")
def free_programs():
    """Drop compiled programs after each file: many hundreds in one process crash XLA's compiler."""
    yield
    jax.clear_caches()
