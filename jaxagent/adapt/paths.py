"""Names of parameters, by which adapters say what they change."""

from collections.abc import Sequence
from typing import Any

import jax


def name_of(path: Any) -> str:
    """The path of a leaf as `block_0/query/kernel`."""
    return "/".join(str(entry.key) for entry in path)


def kernels(params: Any, targets: Sequence[str]) -> dict[str, jax.Array]:
    """Kernels `[inputs, ...]`, by name, of every module of `params` called one of `targets`.

    Raises ValueError where a target matches nothing.
    """
    named = {name_of(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    chosen = {n: x for n, x in named.items() if n.endswith("/kernel") and n.split("/")[-2] in targets}
    missing = set(targets) - {n.split("/")[-2] for n in chosen}
    if missing:
        modules = sorted({n.split("/")[-2] for n in named if n.endswith("/kernel")})
        raise ValueError(f"adapters: got targets {sorted(missing)}, expected some of {modules}.")
    return chosen
