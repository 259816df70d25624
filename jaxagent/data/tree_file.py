"""Pytrees of arrays as one npz file; read back into a template, never unpickled."""

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import jax
import numpy as np


class TreeFileError(ValueError):
    """A file, named, that does not hold the wanted pytree."""


def save(path: Path, tree: Any) -> None:
    """Write all leaves, named by their path in the tree, atomically."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **_named(jax.device_get(tree)))
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(buffer.getvalue())
    os.replace(partial, path)


def load(path: Path, template: Any) -> Any:
    """Read leaves, as numpy arrays, into the structure of `template`; shapes and dtypes must agree.

    `template` may hold `jax.ShapeDtypeStruct`. Raises `TreeFileError`.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise TreeFileError(f"{path}: not a readable pytree file ({error}).") from error
    wanted = _named(template)
    if set(arrays) != set(wanted):
        differing = sorted(set(arrays) ^ set(wanted))[:3]
        raise TreeFileError(f"{path}: got other leaves than expected, e.g. {differing}.")
    for name, leaf in wanted.items():
        if arrays[name].shape != leaf.shape or arrays[name].dtype != leaf.dtype:
            raise TreeFileError(
                f"{path}: {name} is {arrays[name].dtype}{arrays[name].shape}, expected "
                f"{leaf.dtype}{leaf.shape}."
            )
    return jax.tree.unflatten(jax.tree.structure(template), [arrays[name] for name in wanted])


def _named(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {f"{i:04d}{_plain(p)}": x for i, (p, x) in enumerate(leaves)}


def _plain(path: Any) -> str:
    """A path that zip members may bear."""
    return "".join(c if c.isalnum() or c in "._-" else "." for c in jax.tree_util.keystr(path))
