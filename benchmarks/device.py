"""What this accelerator is, and what it reaches: facts, bandwidth, matrix products; JSON lines.

    python -m benchmarks.device                  # a row of facts, then one a measurement
    python -m benchmarks.device --ask            # platform and kind alone
    python -m benchmarks.device --out FILE       # also append the lines to FILE

Bandwidth is of reading and writing an array, 4 GiB on an accelerator, so that launching is no part of it that
counts; products are of large square matrices; medians of five runs. "float32" is measured as JAX multiplies
by default (TF32 on GPUs that have it) and at "highest" precision. Memory is what JAX may take, by default
three quarters of a GPU's; beside it stands what `nvidia-smi` tells, where there is one.
"""

import argparse
import json
import os
import statistics
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.memory import seconds
from benchmarks.rows import emit
from jaxagent.train.peak import ROUNDS, square_product
from kernels import dispatch

QUERY = "name,driver_version,memory.total,power.limit,clocks.max.sm,clocks.max.mem"
PRODUCTS = (("bfloat16", "default"), ("float32", "default"), ("float32", "highest"))


def asked() -> dict[str, Any]:
    """What kernels call this platform, and the kind of its first device."""
    return {"platform": dispatch.platform(), "device": jax.devices()[0].device_kind}


def facts() -> dict[str, Any]:
    """What does not have to be measured."""
    device = jax.devices()[0]
    return {
        "row": "facts",
        "platform": dispatch.platform(),
        "count": jax.device_count(),
        "compute_capability": getattr(device, "compute_capability", None),
        "memory_bytes": (device.memory_stats() or {}).get("bytes_limit"),
        "runtime": device.client.platform_version,
        "nvidia_smi": told_by_driver(),
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def told_by_driver() -> dict[str, str] | None:
    """`QUERY` of the first GPU as nvidia-smi has it; None where there is none."""
    command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    values = told.splitlines()[0].split(", ") if told else []
    return dict(zip(QUERY.split(","), values, strict=False))


def bandwidth() -> dict[str, float]:
    """Bytes a second of reading and writing an array, and its bytes."""
    x = jnp.ones(2**26 if dispatch.platform() == "cpu" else 2**30)
    run = jax.jit(lambda x: x + 1.0)
    run(x).block_until_ready()
    rate = 2 * x.nbytes / statistics.median(seconds(lambda: run(x)) for _ in range(ROUNDS))
    return {"array_bytes": x.nbytes, "bytes_per_second": rate}


def product_rate(dtype: str, precision: str) -> float:
    """Operations a second of a large matrix product at a precision."""
    with jax.default_matmul_precision(precision):
        run, operations = square_product(dtype)
        return operations / statistics.median(seconds(run) for _ in range(ROUNDS))


def rows() -> Iterator[dict[str, Any]]:
    """Rows, each as soon as it is measured."""
    yield facts()
    yield {"row": "bandwidth"} | bandwidth()
    for dtype, precision in PRODUCTS:
        rate = product_rate(dtype, precision)
        yield {"row": "product", "dtype": dtype, "precision": precision, "flops_per_second": rate}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ask", action="store_true", help="platform and kind alone")
    parser.add_argument("--out", type=Path, help="also append the rows to this file")
    given = parser.parse_args()
    if given.ask:
        print(json.dumps(asked()))
        return
    for row in rows():
        emit(row, given.out)


if __name__ == "__main__":
    main()
