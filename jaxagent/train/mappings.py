"""Compiled programs of a long process: dropped before the kernel gives it no more memory to map.

On a CPU every program maps dozens to hundreds of regions, and stays in JAX's caches; Linux grants a process
65,530 of them (`vm.max_map_count`). A run of 27 stages reached that in three hours, and LLVM ended it.
"""

import gc
from pathlib import Path

import jax

SHARE = 0.5  # of the regions that a process may have, above which programs are dropped
MAPS, LIMIT = Path("/proc/self/maps"), Path("/proc/sys/vm/max_map_count")


def relieve() -> bool:
    """Drop compiled programs where half of the regions are in use; they compile anew, or come from the cache.

    For places where no program runs, as between stages. Returns whether they were dropped; does nothing
    where there is no Linux to ask.
    """
    try:
        limit = int(LIMIT.read_text())
        with MAPS.open("rb") as file:
            count = sum(1 for _ in file)
    except (OSError, ValueError):
        return False
    if count <= SHARE * limit:
        return False
    jax.clear_caches()
    gc.collect()
    return True
