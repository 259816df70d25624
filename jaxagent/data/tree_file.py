"""Pytrees of arrays as one file, npz or safetensors; read back into a template, never unpickled."""

import io
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

from envs.common.names import MissingExtra

SUFFIXES = (".npz", ".safetensors")


class TreeFileError(ValueError):
    """A file, named, that does not hold the wanted pytree."""


def save(path: Path, tree: Any) -> None:
    """Write all leaves, named by their number and path in the tree, atomically; the suffix says how.

    Raises `MissingExtra` for safetensors without the extra `export`, ValueError for another suffix or a dtype
    that neither format can hold, such as bfloat16.
    """
    arrays = _named(jax.device_get(tree))
    strange = [
        f"{name} of {x.dtype}" for name, x in arrays.items() if np.asarray(x).dtype.kind not in "biufc"
    ]
    if strange:
        raise ValueError(f"{path}: got {strange[0]}, expected a dtype of numpy's own; cast it to float32.")
    if path.suffix == ".safetensors":
        content = _safetensors().save({name: np.asarray(x, order="C") for name, x in arrays.items()})
    elif path.suffix == ".npz":
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        content = buffer.getvalue()
    else:
        raise ValueError(f"{path}: got a name that ends in {path.suffix!r}, expected .npz or .safetensors.")
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    os.replace(partial, path)


def read(path: Path) -> dict[str, np.ndarray]:
    """Arrays by name, in the order of the tree. Raises `TreeFileError` for what is no such file."""
    try:
        if path.suffix == ".safetensors":
            arrays = _safetensors().load(path.read_bytes())
        else:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
    except MissingExtra:
        raise
    except Exception as error:  # of many kinds, by what the file is instead
        raise TreeFileError(f"{path}: not a readable pytree file ({error}).") from error
    return {name: arrays[name] for name in sorted(arrays)}


def load(path: Path, template: Any) -> Any:
    """Read leaves, as numpy arrays, into the structure of `template`; shapes and dtypes must agree.

    `template` may hold `jax.ShapeDtypeStruct`. Raises `TreeFileError`.
    """
    arrays = read(path)
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


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError:
        raise MissingExtra("safetensors is not installed; pip install 'jaxagent[export]'") from None
    return safetensors.numpy


def _named(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {f"{i:04d}{_plain(p)}": x for i, (p, x) in enumerate(leaves)}


def _plain(path: Any) -> str:
    """A path that zip members may bear."""
    return "".join(c if c.isalnum() or c in "._-" else "." for c in jax.tree_util.keystr(path))
