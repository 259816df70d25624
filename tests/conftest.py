"""Checkers that turn silent errors into failures, the tiers of tests, and what each folder costs."""

import os
import sys
import time
import tomllib
from collections import Counter, defaultdict
from importlib.metadata import version
from pathlib import Path

# Tests mostly compile, so what compiles fastest runs them: it halves their CPU seconds. Of flags given
# twice the last counts; jaxlib 0.11 knows one way to emit fusions only.
os.environ["XLA_FLAGS"] = " ".join(
    [
        # A device's kernels are compared with what XLA makes of the reference for a user.
        *([] if "accelerator" in sys.argv else ["--xla_backend_optimization_level=0"]),
        *(["--xla_cpu_use_fusion_emitters=false"] if version("jaxlib").startswith("0.10.") else []),
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=4",
    ]
)
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".cache" / "jax"))

import jax
import pytest

from kernels import dispatch

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)

BUDGET = tomllib.loads((Path(__file__).parent / "budget.toml").read_text())["cpu_seconds"]
LONG_FILE = 300  # tests; a longer file is run in pieces


@pytest.fixture(autouse=True)
def strict_dtypes(request):
    """Strict dtype promotion for our modules; foreign code relaxes it itself (`envs.common.foreign`)."""
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
    parser.addoption("--part", default="1/1", help="run one part of several, such as 2/4")
    parser.addoption("--first-ids", action="store_true", help="of each parametrized test only the first id")


# --- tiers ----------------------------------------------------------------------------------------


def mark_slow(items) -> None:
    """Of a test marked `fast(*ids)`, put the other ids into the slow tier; an id that is none is an error."""
    groups = defaultdict(dict)
    for item in items:
        if marker := item.get_closest_marker("fast"):
            groups[item.nodeid.split("[")[0], marker.args][item.callspec.id] = item
    for (test, kept), by_id in groups.items():
        if unknown := set(kept) - set(by_id):
            raise pytest.UsageError(f"{test}: fast ids {sorted(unknown)}, expected some of {sorted(by_id)}.")
        for item in (item for name, item in by_id.items() if name not in kept):
            item.add_marker(pytest.mark.slow)


def groups_of(items) -> list[str]:
    """What of the tests stays together, as it shares programs: a file, of a long one the ids alike."""
    files = [item.nodeid.split("::")[0] for item in items]
    count = Counter(files)
    ids = [item.callspec.id if hasattr(item, "callspec") else "" for item in items]
    return [f"{f}[{i}]" if count[f] > LONG_FILE else f for f, i in zip(files, ids, strict=True)]


def of_part(groups: list[str], part: str) -> set[str]:
    """Every n-th of the sorted groups, so that the parts of a run hold each once."""
    number, count = map(int, part.split("/"))
    if not 1 <= number <= count:
        raise pytest.UsageError(f"--part: got {part}, expected NUMBER/COUNT with 1 <= NUMBER <= COUNT.")
    return set(sorted(set(groups))[number - 1 :: count])


def keep(config, items, is_kept) -> None:
    """Deselect all items but some."""
    if dropped := [i for i in items if not is_kept(i)]:
        config.hook.pytest_deselected(items=dropped)
    items[:] = [i for i in items if is_kept(i)]


def skip_without_accelerator(items) -> None:
    """Say so where a test needs a GPU or TPU that the kernels lower for."""
    waiting = [item for item in items if item.get_closest_marker("accelerator")]
    if waiting and dispatch.platform() not in ("cuda", "tpu"):
        why = f"needs a Hopper GPU or a TPU; this machine has a {dispatch.platform()}"
        for item in waiting:
            item.add_marker(pytest.mark.skip(reason=why))


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config, items):
    """Tiers before `-m` selects among them, parts and first ids after it."""
    mark_slow(items)
    skip_without_accelerator(items)
    yield
    if config.getoption("--first-ids"):
        first = {}
        for item in items:
            first.setdefault(item.nodeid.split("[")[0], item)
        keep(config, items, lambda i: first[i.nodeid.split("[")[0]] is i)
    group = dict(zip(items, groups_of(items), strict=True))
    kept = of_part(list(group.values()), config.getoption("--part"))
    keep(config, items, lambda i: group[i] in kept)
    for item in items if config.pluginmanager.hasplugin("xdist") else ():
        item.add_marker(pytest.mark.xdist_group(group[item]))


# --- what each folder costs -----------------------------------------------------------------------

SPENT = defaultdict(float)  # CPU seconds by folder of tests, in the process that reports


class Clock:
    """CPU seconds of this process and its children between readings."""

    def __init__(self):
        self.last = sum(os.times()[:4])

    def lap(self):
        last, self.last = self.last, sum(os.times()[:4])
        return self.last - last


CLOCK, START = Clock(), time.time()


def pytest_collection_finish():
    CLOCK.lap()  # imports are nobody's


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Attach to the report of each phase what it has cost; it comes through xdist's workers too."""
    del item, call
    report = yield
    report.cpu_seconds = CLOCK.lap()
    return report


def pytest_runtest_logreport(report):
    parts = report.nodeid.split("::")[0].split("/")
    # A worker that crashed is reported by xdist itself, which has no clock.
    SPENT[parts[1] if len(parts) > 2 else "tests"] += getattr(report, "cpu_seconds", 0.0)


def pytest_terminal_summary(terminalreporter, config):
    """CPU seconds of each folder; of the fast tier beside its budget (`tests/budget.toml`)."""
    if not SPENT:
        return
    terminalreporter.section("CPU seconds of tests")
    for folder, spent in sorted(SPENT.items(), key=lambda x: -x[1]):
        over = spent - BUDGET.get(folder, 0)
        is_over = over > 0 and config.option.markexpr == "not slow"
        terminalreporter.write_line(f"{folder:12s} {spent:6.0f}{f', over by {over:.0f}' if is_over else ''}")
    total, allowed = sum(SPENT.values()), sum(BUDGET.values())
    ended = f"{time.time() - START:.0f} s; the fast tier may take {allowed} CPU seconds"
    terminalreporter.write_line(f"{'together':12s} {total:6.0f} in {ended}")
