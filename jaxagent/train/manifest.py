"""The manifest of a run: what it was asked, and what it ran on."""

import datetime
import json
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

import kernels
from jaxagent.config import fingerprint, to_dict
from jaxagent.folders import KIND, MANIFEST

ROOT = Path(__file__).parents[2]  # of the repository
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "chex", "gymnax", "numpy")
# What summaries and result rows repeat.
ASKED = (
    "experiment",
    "preset",
    "command",
    "fingerprint",
    "git",
    "versions",
    "device",
    "precision",
    "frozen",
    "seeds",
)
# A run resumed under other values of these would not continue bitwise.
MUST_AGREE = ("versions", "device", "cores", "xla_flags")


class ManifestError(RuntimeError):
    """A run folder that this process must not continue."""


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide numbers."""
    return {"python": platform.python_version()} | {p: metadata.version(p) for p in PACKAGES}


def describe(
    experiment: str, source: str, preset: str, config: Any, command: str, kind: str = "run"
) -> dict[str, Any]:
    """The manifest of a run or grid that starts now.

    It is what makes the folder ours (`jaxagent.folders`), and holds no user name and no
    environment variable.
    """
    device = jax.devices()[0]
    return {
        KIND: kind,
        "experiment": experiment,
        "source": source,  # its name, or the path of a folder outside as the command had it
        "preset": preset,
        "command": command,
        "config": to_dict(config),
        "fingerprint": fingerprint(config),
        "versions": versions(),
        "device": {"platform": device.platform, "kind": device.device_kind, "count": len(jax.devices())},
        "precision": jax.config.jax_default_matmul_precision or "default",
        "kernels": kernels.choices(),
        "prng": jax.config.jax_default_prng_impl,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "cores": len(os.sched_getaffinity(0)),
        "git": _git_state(),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def read(folder: Path) -> dict[str, Any]:
    """The manifest of a run folder; raises `ManifestError` where there is none to read."""
    path = folder / MANIFEST
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ManifestError(f"{path}: not a run folder's manifest ({error}).") from error


def check_same_machine(folder: Path, now: dict[str, Any]) -> None:
    """Raise `ManifestError` unless a resumed run would be bitwise the run that began."""
    then = read(folder)
    differing = [
        f"{key}: was {then.get(key)!r}, is {now.get(key)!r}"
        for key in (*MUST_AGREE, "precision", "fingerprint")
        if then.get(key) != now.get(key)
    ]
    ran = then.get("kernels", {})  # those that it does not name came later: then XLA ran
    changed = [
        f"kernel {name}: was {ran.get(name, 'xla')!r}, is {how!r}"
        for name, how in now["kernels"].items()
        if ran.get(name, "xla") != how
    ]
    if changed:
        value = os.environ.get(kernels.dispatch.VARIABLE)
        changed[-1] += f" ({kernels.dispatch.VARIABLE} is {'not set' if value is None else repr(value)})"
    differing += changed
    if differing:
        raise ManifestError(
            f"{folder}: cannot resume exactly: {'; '.join(differing)}. Resume where it began, or "
            "start a new run."
        )


def git(root: Path, *args: str) -> str:
    """What a git command says in a repository; raises OSError where there is none."""
    try:
        command = ["git", "-C", str(root), *args]
        result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except subprocess.SubprocessError as error:
        raise OSError(f"git {args[0]} failed: {error}") from error
    return result.stdout.strip()


def _git_state() -> dict[str, Any]:
    """The commit that runs, and whether the working tree has changes; None where git does not say."""
    try:
        commit, changes = git(ROOT, "rev-parse", "HEAD"), git(ROOT, "status", "--porcelain")
    except OSError:
        return {"commit": None, "dirty": None}
    return {"commit": commit, "dirty": bool(changes)}
