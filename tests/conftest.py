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


def pytest_addoption(parser):
    parser.addoption("--part", default="1/1", help="run one part of several, such as 2/4; files stay whole")


def files_of_part(files: list[str], part: str) -> set[str]:
    """Every n-th file of the sorted ones, so that the parts of a run hold each file once."""
    number, count = map(int, part.split("/"))
    if not 1 <= number <= count:
        raise pytest.UsageError(f"--part: got {part}, expected NUMBER/COUNT with 1 <= NUMBER <= COUNT.")
    return set(sorted(set(files))[number - 1 :: count])


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Leave out the files of other parts, of the tests that markers have left."""
    part = config.getoption("--part")
    if part == "1/1":
        return
    files = [item.nodeid.split("::")[0] for item in items]
    kept = files_of_part(files, part)
    config.hook.pytest_deselected(items=[i for i, f in zip(items, files, strict=True) if f not in kept])
    items[:] = [item for item, file in zip(items, files, strict=True) if file in kept]
