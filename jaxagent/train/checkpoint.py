"""Checkpoints: orbax writes the arrays, a SHA-256 manifest beside them says what they must be.

Orbax is atomic against kills but restores a flipped bit without a word; the manifest, written last
(fsync and rename), makes a checkpoint complete or invisible and corruption an error that names the
file. Zero-size leaves, which orbax refuses, live in the manifest alone.
"""

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxagent.files import sha256_file, write_json

KEEP = 2  # verified checkpoints that stay
VERSION = 1


class CheckpointError(ValueError):
    """A checkpoint, named by file, that cannot be trusted."""


class ForeignCheckpoint(RuntimeError):
    """A sound checkpoint of another configuration."""


def save(folder: Path, step: int, state: Any, fingerprint: str) -> None:
    """Write `state` (a pytree of arrays) as checkpoint `step`, then drop all but the last two.

    `fingerprint` is that of the configuration; who restores must bring the same.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    name = f"step_{step:08d}"
    arrays = _flatten(state)
    shutil.rmtree(folder / name, ignore_errors=True)
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(folder.absolute() / name, {k: v for k, v in arrays.items() if v.size})
    manifest = {
        "version": VERSION,
        "step": step,
        "fingerprint": fingerprint,
        "leaves": {k: _describe(v) for k, v in arrays.items()},
        "files": {str(p.relative_to(folder / name)): sha256_file(p) for p in _files(folder / name)},
    }
    write_json(folder / f"{name}.json", manifest)
    for old in steps(folder)[:-KEEP]:
        (folder / f"step_{old:08d}.json").unlink()
        shutil.rmtree(folder / f"step_{old:08d}", ignore_errors=True)


def steps(folder: Path) -> list[int]:
    """Steps that have a manifest, ascending."""
    return sorted(int(p.stem.removeprefix("step_")) for p in Path(folder).glob("step_*.json"))


def restore(folder: Path, step: int, template: Any, fingerprint: str) -> Any:
    """Read and verify checkpoint `step`: numpy arrays in the structure of `template`.

    Raises `CheckpointError`, or `ForeignCheckpoint` where the fingerprint is another.
    """
    path = Path(folder) / f"step_{step:08d}"
    try:
        manifest = json.loads(path.with_suffix(".json").read_text())
        files, leaves, written_by = manifest["files"], manifest["leaves"], manifest["fingerprint"]
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path.with_suffix('.json')}: not readable ({error}).") from error
    if written_by != fingerprint:
        raise ForeignCheckpoint(
            f"{path}: got a checkpoint of configuration {written_by}, expected {fingerprint}; do "
            "not mix run folders."
        )
    for name, expected in files.items():
        if not (path / name).is_file() or sha256_file(path / name) != expected:
            raise CheckpointError(f"{path / name}: missing or changed since it was written.")
    wanted = _flatten(template)
    if set(wanted) != set(leaves):
        differing = sorted(set(wanted) ^ set(leaves))[:3]
        raise CheckpointError(f"{path}: got other leaves than the program's, e.g. {differing}.")
    arrays = _read_arrays(path)
    for name, leaf in wanted.items():
        array = arrays[name] if leaf.size else leaf
        same_kind = (array.dtype, array.shape) == (leaf.dtype, leaf.shape)
        if _describe(array) != leaves[name] or not same_kind:
            raise CheckpointError(f"{path}: leaf {name} differs from its manifest or the program.")
    structure = jax.tree.structure(template)
    ordered = [arrays[name] if leaf.size else leaf for name, leaf in wanted.items()]
    return jax.tree.unflatten(structure, ordered)


def restore_latest(folder: Path, template: Any, fingerprint: str) -> tuple[int, Any] | None:
    """Newest checkpoint that verifies, or None; warns of each that does not.

    Raises `ForeignCheckpoint`.
    """
    folder = Path(folder)
    if not folder.is_dir():
        return None
    for stale in folder.glob("*.orbax-checkpoint-tmp*"):
        shutil.rmtree(stale, ignore_errors=True)
    for step in reversed(steps(folder)):
        try:
            return step, restore(folder, step, template, fingerprint)
        except CheckpointError as error:
            print(f"warning: {error} Falling back to the one before.", file=sys.stderr)
            os.replace(folder / f"step_{step:08d}.json", folder / f"step_{step:08d}.json.bad")
    return None


def digest(state: Any) -> str:
    """SHA-256 of all leaves: names, dtypes, shapes and bytes."""
    text = json.dumps({k: _describe(v) for k, v in _flatten(state).items()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _flatten(state: Any) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(state))
    return {f"{i:04d}{jax.tree_util.keystr(p)}": np.asarray(x) for i, (p, x) in enumerate(leaves)}


def _describe(array: np.ndarray) -> list[str | list[int]]:
    array = np.ascontiguousarray(array)
    return [str(array.dtype), list(array.shape), hashlib.sha256(array.tobytes()).hexdigest()]


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            restored = checkpointer.restore(path.absolute())
    except Exception as error:  # orbax raises many kinds; every one means the same here
        raise CheckpointError(f"{path}: orbax cannot read it ({error}).") from error
    return {name: np.asarray(array) for name, array in restored.items()}
