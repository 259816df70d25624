"""The trajectory store: npz shards and one JSON index with a SHA-256 of each.

A store is complete or absent: it is written beside its place and moved there in a rename. Every
read checks the hash, the dtypes, the shapes, that arrays are of the same steps and that numbers are
finite, and names the file that fails; so does every write. Nothing is ever unpickled.
"""

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxagent.finite import first_not_finite
from jaxagent.folders import INDEX, replacement
from jaxagent.types import Trajectory

VERSION = 1
ENTRY = {"file", "sha256", "arrays", "meta"}
FIELDS = ("obs", "action", "reward", "terminated", "truncated", "final_obs")


class StoreError(ValueError):
    """A store, named by file, that cannot be trusted."""


class Shard(NamedTuple):
    """Trajectories of one source, on the host."""

    meta: dict[str, Any]  # JSON-safe: environment, agent, split, ...
    trajectory: Trajectory  # numpy arrays [T, B, ...]


def write(folder: Path, shards: Iterable[Shard], within: Path | None = None) -> Path:
    """Write a store; an existing one at `folder` is replaced when the new one is whole.

    `within` is the run that the caller writes it in. Raises `StoreError` where there are no shards,
    or where arrays of one are not of the same steps or not finite; `folders.NotOurs` where `folder` is
    no store, or lies in another run.
    """
    folder = Path(folder)
    with replacement(folder, "store", within) as new:
        entries = [_write_shard(new, i, shard) for i, shard in enumerate(shards)]
        if not entries:
            raise StoreError(f"{folder}: got no shards, expected at least one.")
        content = {"version": VERSION, "shards": entries}
        _write_synced(new / INDEX, json.dumps(content, indent=1).encode())
    return folder


def read(folder: Path, select: Callable[[dict], bool] = lambda meta: True) -> list[Shard]:
    """Read and verify the shards whose meta `select` accepts; raises `StoreError`."""
    folder = Path(folder)
    shards = [_read_shard(folder, e) for e in index(folder) if select(e["meta"])]
    if not shards:
        raise StoreError(f"{folder}: the selection is empty, expected at least one shard.")
    return shards


def index(folder: Path) -> list[dict[str, Any]]:
    """Index entries of a store: file, sha256, arrays, meta."""
    path = Path(folder) / INDEX
    try:
        content = json.loads(path.read_text())
        entries, version = content["shards"], content["version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path}: not a readable index ({error}); collect the data again.") from error
    for entry in entries:
        if not set(entry) >= ENTRY or set(entry["arrays"]) != set(FIELDS):
            raise StoreError(f"{path}: an entry lacks {sorted(ENTRY)} or arrays {FIELDS}.")
    if version != VERSION:
        raise StoreError(f"{path}: got version {version}, expected {VERSION}; collect again.")
    return entries


def digest(folder: Path) -> str:
    """SHA-256 over the index, which holds those of all shards."""
    return hashlib.sha256((Path(folder) / INDEX).read_bytes()).hexdigest()


def _write_shard(folder: Path, number: int, shard: Shard) -> dict[str, Any]:
    arrays = {name: np.asarray(getattr(shard.trajectory, name)) for name in FIELDS}
    name = f"shard_{number:04d}.npz"
    _check_steps(folder / name, arrays)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    _write_synced(folder / name, buffer.getvalue())
    return {
        "file": name,
        "sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
        "arrays": {k: [str(a.dtype), list(a.shape)] for k, a in arrays.items()},
        "meta": shard.meta,
    }


def _read_shard(folder: Path, entry: dict[str, Any]) -> Shard:
    path = folder / Path(entry["file"]).name  # never outside the folder
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error}).") from error
    got = hashlib.sha256(data).hexdigest()
    if got != entry["sha256"]:
        raise StoreError(
            f"{path}: got SHA-256 {got[:12]}..., expected {entry['sha256'][:12]}...; the file is "
            "corrupt or truncated, collect the data again."
        )
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in FIELDS}
    except (ValueError, KeyError, TypeError, zipfile.BadZipFile, EOFError) as error:
        raise StoreError(f"{path}: not a trajectory shard ({error}).") from error
    for name, (dtype, shape) in entry["arrays"].items():
        _check_array(path, name, arrays[name], dtype, tuple(shape))
    _check_steps(path, arrays)
    return Shard(entry["meta"], Trajectory(**arrays))


def _check_array(path: Path, name: str, array: np.ndarray, dtype: str, shape: tuple) -> None:
    if str(array.dtype) != dtype or array.shape != shape:
        raise StoreError(
            f"{path}: {name} is {array.dtype}{array.shape}, expected {dtype}{shape} of the index."
        )


def _check_steps(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """All arrays are of the same steps and lanes `[T, B]`, observations before and after of one form."""
    steps = arrays["reward"].shape
    for name, array in arrays.items():
        if len(steps) != 2 or array.shape[:2] != steps:
            raise StoreError(
                f"{path}: {name} has shape {array.shape} beside rewards of {steps}, expected the same "
                "[steps, lanes] first in all; each observation stands beside what was done there."
            )
        first = first_not_finite(array) if np.issubdtype(array.dtype, np.floating) else None
        if first is not None:
            raise StoreError(f"{path}: {name}{first} is not finite; the source diverged there.")
    before, after = arrays["obs"], arrays["final_obs"]
    if (before.shape, before.dtype) != (after.shape, after.dtype):
        raise StoreError(
            f"{path}: final_obs is {after.dtype}{after.shape}, expected {before.dtype}{before.shape} as obs."
        )


def _write_synced(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
