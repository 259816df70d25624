"""Which implementation of a kernel runs: by argument, by environment variable, by what was measured.

"xla" is the reference, which is the specification. "pallas" is the kernel of the platform that the
program is lowered for; a platform without one takes the reference, with one warning. "interpret" runs
the kernel's body in Pallas's interpreter, which every platform has and which is slow. "auto" is what
`JAXAGENT_KERNELS` says, else "pallas" on devices where the kernel has been measured to win, else "xla".
The variable holds a word for all kernels, words by kernel, or both: "xla", "scan=pallas,rollout=xla",
"pallas,scan=xla". A kernel may have more implementations than these, `Kernel.also`.
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
FOR_ALL = ""
OLDER = "older cuda"
HOPPER = 9.0  # the first compute capability that Mosaic GPU lowers for


class Kernel(NamedTuple):
    """A kernel by name, where it was measured to win, and what it has beside the implementations of all."""

    name: str
    wins_on: tuple[str, ...] = ()  # `device_kind` of devices with a row in benchmarks/results/kernels.jsonl
    also: tuple[str, ...] = ()  # implementations that it alone has


def forced(kernel: Kernel) -> str | None:
    """What the environment variable asks of a kernel: its own word, else that for all, else None.

    Raises ValueError for what is no implementation of it, and for a variable that says a thing twice.
    """
    asked = _asked()
    word = asked.get(kernel.name, asked.get(FOR_ALL))
    if word is not None:
        _check(VARIABLE, word, kernel)
    return word


def choose(kernel: Kernel, implementation: str = "auto") -> str:
    """ "xla", "pallas", "interpret" or one of `kernel.also`; said once a kernel.

    Raises ValueError for another name.
    """
    _check("implementation", implementation, kernel)
    if implementation == "auto":
        implementation = forced(kernel) or "auto"
    if implementation == "auto":
        implementation = "pallas" if jax.devices()[0].device_kind in kernel.wins_on else "xla"
    _say(f"kernel {kernel.name}: {implementation}", logging.INFO)
    return implementation


def choices(kernels: Iterable[Kernel]) -> dict[str, str]:
    """What "auto" means for each of them, for a manifest.

    Raises ValueError where the environment variable names a kernel that is none of them.
    """
    kernels = tuple(kernels)
    known = [kernel.name for kernel in kernels]
    if unknown := sorted(set(_asked()) - {*known, FOR_ALL}):
        raise ValueError(f"{VARIABLE}: got {', '.join(unknown)}, expected some of {', '.join(known)}.")
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
        warn(kernel, f"none for {here}" + (f" with {lacks[here]}" if lacks.get(here) else ""))
    if here == OLDER:  # it would be lowered for as any other
        programs = {name: program for name, program in programs.items() if name != "cuda"}
    return jax.lax.platform_dependent(*args, default=reference, **programs)


def usable(kernel: Kernel, lacks: Mapping[str, str], implementation: str = "auto") -> str:
    """What `choose` says, or "xla" where this accelerator has no kernel of such operands, with the warning.

    A CPU keeps the choice, as a program may be lowered there for another platform.
    """
    how, here = choose(kernel, implementation), platform()
    if how != "pallas" or (here in ("cpu", "tpu", "cuda") and here not in lacks):
        return how
    warn(kernel, f"none for {here}" + (f" with {lacks[here]}" if here in lacks else ""))
    return "xla"


def without_wgmma() -> str | None:
    """The capability of a GPU that has not the products of warpgroups that Hopper has; None: it has them."""
    device = jax.devices()[0]
    if device.platform != "gpu" or platform() != "cuda":
        return None
    capability = str(getattr(device, "compute_capability", ""))
    return None if capability.startswith("9.") else f"compute capability {capability}"


def warn(kernel: Kernel, why: str) -> None:
    """Say once why the reference runs in place of what was asked for."""
    _say(f"kernel {kernel.name}: {why}, where the reference runs", logging.WARNING)


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


def _asked() -> dict[str, str]:
    """The words of the environment variable by kernel, that for all under `FOR_ALL`."""
    words: dict[str, str] = {}
    for item in os.environ[VARIABLE].split(",") if VARIABLE in os.environ else ():
        name, _, word = item.rpartition("=")
        name = name.strip()
        if name in words:
            raise ValueError(f"{VARIABLE}: got two words for {name or 'all kernels'}, expected one.")
        words[name] = word.strip()
    return words


def _check(name: str, value: str, kernel: Kernel) -> None:
    known = (*IMPLEMENTATIONS, *kernel.also)
    if value not in known:
        raise ValueError(
            f"{name}: got {value!r}, expected one of {', '.join(known)} for the kernel {kernel.name}."
        )


def _say(text: str, level: int) -> None:
    if text not in _said:
        _said.add(text)
        log.log(level, text)
