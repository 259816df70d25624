"""The doctor: is this installation able to run what it promises?

Exit code 0: all well; 2: usable with warnings; 1: broken. Each finding says how to fix it.
"""

import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

OK, WARNING, BROKEN = "ok", "warning", "broken"
VERDICTS = {BROKEN: (1, "broken"), WARNING: (2, "usable, with warnings"), OK: (0, "all well")}  # worst first
LANES = {(3, 11): "0.10", (3, 12): "0.11"}  # Python to the JAX minor that CI runs on it
MINIMUM = {"jax": (0, 10, 2), "gymnax": (1, 0, 1), "numpy": (2, 1)}
JAX_CEILING = (0, 12)  # gymnax 1.0.1 caps below it
NUMERICAL = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "chex", "gymnax", "numpy")
PACKAGES = (*NUMERICAL, "six", "tensorboardX", "tyro", "matplotlib", "pillow")

PSUM = """
import os
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
os.environ["JAX_PLATFORMS"] = "cpu"
import jax, jax.numpy as jnp
total = jax.pmap(lambda x: jax.lax.psum(x, "device"), axis_name="device")(jnp.arange(4.0))
assert total.tolist() == [6.0] * 4, total
"""


class Finding(NamedTuple):
    """Result of one check."""

    status: str
    what: str
    fix: str = ""


def main() -> int:
    """Run all checks, print them, return the exit code."""
    findings = [finding for check in CHECKS for finding in _safely(check)]
    for f in findings:
        print(f"{f.status:8s} {f.what}" + (f"\n         fix: {f.fix}" if f.fix else ""))
    statuses = {finding.status for finding in findings}
    code, said = next(verdict for status, verdict in VERDICTS.items() if status in statuses)
    print(f"\n{said}. Next: jaxagent run quickstart --preset cpu")
    return code


def _safely(check: Callable[[], list[Finding]]) -> list[Finding]:
    try:
        return check()
    except Exception as error:  # a doctor that falls ill still says where
        name = check.__name__.strip("_")
        return [Finding(BROKEN, f"{name}: {type(error).__name__}: {error}", "reinstall: make venv")]


def _good(is_good: bool, what: str, fix: str = "") -> list[Finding]:
    return [Finding(OK, what) if is_good else Finding(BROKEN, what, fix)]


def _versions() -> list[Finding]:
    installed = {}
    for package in PACKAGES:
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            return [Finding(BROKEN, f"{package} is missing", "pip install -e .")]
    shown = ", ".join(f"{p} {v}" for p, v in installed.items())
    python = Finding(OK, f"Python {platform.python_version()}; {shown}")
    return [python, *judge_versions(installed), _lane(installed["jax"])]


def _lane(jax_version: str) -> Finding:
    lane = LANES.get(sys.version_info[:2])
    if lane and jax_version.startswith(lane):
        return Finding(OK, f"version lane py{sys.version_info[0]}{sys.version_info[1]} + jax {lane}")
    mix = f"Python {platform.python_version()} with jax {jax_version}"
    return Finding(WARNING, f"no CI lane runs {mix}", "use Python 3.11 with jax 0.10 or 3.12 with 0.11")


def judge_versions(installed: dict[str, str]) -> list[Finding]:
    """Known-bad mixes."""
    findings = []
    for package, minimum in MINIMUM.items():
        if _parse(installed[package]) < minimum:
            wanted = ".".join(map(str, minimum))
            what = f"{package} {installed[package]} is older than {wanted}"
            findings.append(Finding(BROKEN, what, f"pip install '{package}>={wanted}'"))
    if _parse(installed["jax"]) >= JAX_CEILING:
        what = f"jax {installed['jax']} is newer than what was tested"
        findings.append(Finding(WARNING, what, "pip install 'jax<0.12'"))
    if installed["jax"] != installed["jaxlib"]:
        findings.append(Finding(WARNING, "jax and jaxlib differ in version", "pip install -U jax"))
    return findings


def _parse(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:3] if part.isdigit())


def _devices() -> list[Finding]:
    import jax

    devices = jax.devices()
    kind, platform_name = devices[0].device_kind, devices[0].platform
    cores = len(os.sched_getaffinity(0))
    findings = [Finding(OK, f"JAX runs on {len(devices)} x {kind} ({platform_name}), {cores} cores")]
    if platform_name == "cpu" and has_nvidia():
        what = "an NVIDIA GPU is visible but JAX uses the CPU"
        findings.append(Finding(BROKEN, what, "pip install -e '.[cuda]'"))
    return findings


def has_nvidia() -> bool:
    """Whether this machine shows an NVIDIA device."""
    return Path("/dev/nvidia0").exists() or Path("/proc/driver/nvidia/version").exists()


def _gradient() -> list[Finding]:
    import jax
    import jax.numpy as jnp

    gradient = jax.jit(jax.grad(lambda w: jnp.sum(jnp.tanh(jnp.ones((4, 8)) @ w))))
    return _good(bool(jnp.allclose(gradient(jnp.zeros((8, 2))), 4.0)), "jitted forward and backward pass")


def _fake_devices() -> list[Finding]:
    what, command = "psum over four fake devices", [sys.executable, "-c", PSUM]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if result.returncode:
        last = result.stderr.strip().splitlines()[-1:] or ["no message"]
        return [Finding(BROKEN, f"{what}: {last[0]}", "reinstall jaxlib")]
    return [Finding(OK, what)]


def _checkpoint() -> list[Finding]:
    import jax.numpy as jnp

    from jaxagent.train import checkpoint

    state = {"weights": jnp.arange(6.0).reshape(2, 3), "step": jnp.array(3, jnp.int32)}
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(Path(folder), 1, state, "doctor")
        restored = checkpoint.restore(Path(folder), 1, state, "doctor")
    return _good(checkpoint.digest(restored) == checkpoint.digest(state), "checkpoint round trip with hashes")


def _environment() -> list[Finding]:
    import jax

    import envs

    env, params = envs.make("gymnax/CartPole-v1")
    obs, state = env.reset(jax.random.key(0), params)
    out = env.step(jax.random.key(1), state, jax.numpy.array(1, jax.numpy.int32), params)
    is_good = len(out) == 6 and obs.shape == env.obs_shape
    return _good(is_good, "gymnax steps with six values", "pip install 'gymnax>=1.0.1'")


def _writable() -> list[Finding]:
    if os.access(Path.cwd(), os.W_OK):
        return [Finding(OK, "the working folder is writable")]
    return [Finding(WARNING, f"{Path.cwd()} is read-only", "pass --out DIR to run")]


CHECKS = (_versions, _devices, _gradient, _fake_devices, _checkpoint, _environment, _writable)
