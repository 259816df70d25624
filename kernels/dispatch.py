"""Which implementation of a kernel runs: by argument, by environment variable, by what was measured.

"xla" is the reference, which is the specification. "pallas" is the kernel of the platform that the
program is lowered for; a platform without one takes the reference, with one warning. "interpret" runs
the kernel's body in Pallas's interpreter, which every platform has and which is slow. "auto" is what
`JAXAGENT_KERNELS` says, else "pallas" on devices where the kernel has been measured to win, else "xla".
"""

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax

IMPLEMENTATIONS = ("auto", "xla", "pallas", "interpret")
VARIABLE = "JAXAGENT_KERNELS"
log = logging.getLogger(__name__)
_said: set[str] = set()
OLDER = "older cuda"
HOPPER = 9.0  # the first compute capability that Mosaic GPU lowers for


class Kernel(NamedTuple):
    """A kernel by name, and where it was measured to win."""

    name: str
    wins_on: tuple[str, ...] = ()  # `device_kind` of devices with a row in benchmarks/results/kernels.jsonl


def forced() -> str | None:
    """What the environment variable asks for. Raises ValueError for what is no implementation."""
    value = os.environ.get(VARIABLE)
    if value is not None:
        _check(VARIABLE, value)
    return value


def choose(kernel: Kernel, implementation: str = "auto") -> str:
    """ "xla", "pallas" or "interpret"; said once a kernel. Raises ValueError for another name."""
    _check("implementation", implementation)
    if implementation == "auto":
        implementation = forced() or "auto"
    if implementation == "auto":
        implementation = "pallas" if jax.devices()[0].device_kind in kernel.wins_on else "xla"
    _say(f"kernel {kernel.name}: {implementation}", logging.INFO)
    return implementation


def choices(kernels: Iterable[Kernel]) -> dict[str, str]:
    """What "auto" means for each of them, for a manifest."""
    return {kernel.name: choose(kernel) for kernel in kernels}


def by_platform(
    kernel: Kernel,
    programs: dict[str, Callable],
    reference: Callable,
    *args: Any,
    lacks: Mapping[str, str | None] = MappingProxyType({}),
) -> Any:
    """Call the program of the platform that is lowered for, or the reference where there is none.

    `lacks` names by platform what keeps it from having one, which the warning tells.
    """
    here = platform()
    if here not in programs:
        why = f" with {lacks[here]}" if lacks.get(here) else ""
        _say(f"kernel {kernel.name}: none for {here}{why}, where the reference runs", logging.WARNING)
    if here == OLDER:  # it would be lowered for as any other
        programs = {name: program for name, program in programs.items() if name != "cuda"}
    return jax.lax.platform_dependent(*args, default=reference, **programs)


def platform() -> str:
    """ "cpu", "tpu", "cuda", or "older cuda" where Mosaic has no GPU to lower for."""
    device = jax.devices()[0]
    if device.platform != "gpu":
        return device.platform
    try:
        capability = float(getattr(device, "compute_capability", 0))
    except ValueError:  # of another maker: "gfx90a"
        return "rocm"
    return "cuda" if capability >= HOPPER else OLDER


def _check(name: str, value: str) -> None:
    if value not in IMPLEMENTATIONS:
        raise ValueError(f"{name}: got {value!r}, expected one of {', '.join(IMPLEMENTATIONS)}.")


def _say(text: str, level: int) -> None:
    if text not in _said:
        _said.add(text)
        log.log(level, text)
