"""Optional sources in tests: skipped with their pip line, failed where CI has installed them."""

import os

import pytest

from envs.registry import FAMILIES, missing_package


def need(family: str) -> None:
    """Skip the caller (or the module) unless the source of `family` is installed."""
    missing = missing_package(family)
    if missing is None:
        return
    extra = FAMILIES[family].extra
    reason = f"no package {missing!r}: pip install 'jaxagent[{extra}]'"
    if extra in os.environ.get("JAXAGENT_REQUIRED_EXTRAS", "").split(","):
        pytest.fail(f"{family}: the extra {extra!r} was to be installed, but {reason}")
    pytest.skip(reason, allow_module_level=True)
