"""Arrays of foreign HDF5 files, checked before anything is made of them.

The readers of offline datasets (`minari`, `d4rl`) share here what they ask of a file and how they
refuse it: a `StoreError` names the file, the episode and the offset. Nothing is ever unpickled and
no link leads out of the file.
"""

import hashlib
import io
import math
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from envs.common.names import MissingExtra
from jaxagent.data.store import FIELDS, Shard, StoreError
from jaxagent.types import Trajectory

REALS, FLAGS = "fiu", "fiub"  # kinds of numpy dtypes
SHARD_STEPS = 100_000
Where = Callable[[int], str]  # row -> file and episode, for errors


@contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """Open a file to read; damage met inside the block raises `StoreError`.

    Raises `MissingExtra` where h5py is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingExtra(
            f"{path}: got no package 'h5py', expected the extra 'datasets'; install it: "
            "pip install 'jaxagent[datasets]'"
        ) from error
    try:
        with h5py.File(path, "r") as file:
            yield file
    except StoreError:
        raise
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:  # all from h5py
        raise StoreError(
            f"{path}: not a readable HDF5 file ({error}); it is absent, truncated or of another "
            "format, get it again."
        ) from error


@contextmanager
def open_npz(path: Path) -> Iterator[dict[str, np.ndarray]]:
    """The arrays of an npz file by name; raises `StoreError` where it is none, or holds objects."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, TypeError, AttributeError) as error:
        raise StoreError(f"{path}: not a readable npz file of numbers ({error}); get it again.") from error
    yield arrays


def array_of_npz(
    path: Path, arrays: dict[str, np.ndarray], name: str, kinds: str, ranks: tuple[int, ...]
) -> np.ndarray:
    """An array of an npz file, checked as `array` checks one of HDF5."""
    values = arrays[name]
    if values.dtype.kind not in kinds or values.ndim not in ranks or len(values) == 0:
        raise StoreError(
            f"{path}: {name} is {values.dtype} of shape {list(values.shape)}, expected {_named(kinds)} of "
            f"rank {_either(ranks)} with at least one row."
        )
    return values


def place_of(group: Any) -> str:
    """File and, below its root, the group: what an error begins with."""
    name = group.name.strip("/")
    return f"{group.file.filename}: {name}" if name else group.file.filename


def member(group: Any, name: str) -> Any:
    """A dataset or group that lies in the file itself."""
    from h5py import HardLink

    link = group.get(name, getlink=True)
    if link is None:
        got = ", ".join(sorted(group)) or "nothing"
        raise StoreError(
            f"{place_of(group)}: got {got}, expected {name!r} among them; the file is incomplete "
            "or of another schema."
        )
    if not isinstance(link, HardLink):
        raise StoreError(
            f"{place_of(group)}: {name} is a link to elsewhere, expected the data itself; copy it "
            "into the file."
        )
    return group[name]


def array(group: Any, name: str, kinds: str, ranks: tuple[int, ...]) -> np.ndarray:
    """Read a dataset `[T, ...]` of one of the `kinds` of dtype and one of the `ranks`; T is 1 or more."""
    item, place = member(group, name), place_of(group)
    shape = getattr(item, "shape", None)  # None: a group, a bare type or a null dataset
    if shape is None:
        raise StoreError(
            f"{place}: {name} is no array, expected one of rank {_either(ranks)}; dictionary and "
            "tuple spaces are not supported, flatten them to vectors first."
        )
    if item.external or item.is_virtual:
        raise StoreError(
            f"{place}: {name} lies in other files, expected the data itself; copy it into the file."
        )
    if item.dtype.kind not in kinds:
        raise StoreError(
            f"{place}: {name} has dtype {item.dtype}, expected {_named(kinds)}; objects, strings "
            "and complex numbers are not supported, convert them first."
        )
    if len(shape) not in ranks:
        raise StoreError(
            f"{place}: {name} has shape {list(shape)}, expected rank {_either(ranks)}; supported "
            "are vectors of observations, scalars, and actions that are a vector of reals or one "
            "integer."
        )
    if shape[0] == 0:
        raise StoreError(f"{place}: {name} is empty, expected at least one row.")
    if not _is_written(item):
        raise StoreError(
            f"{place}: {name} was not written in full, and what is missing would read as 0; the "
            "writer was interrupted, get the data again."
        )
    return item[()]


def column(values: np.ndarray, place: str, name: str) -> np.ndarray:
    """One scalar per row, `[T]`, of values `[T]` or `[T, 1]`: both formats write either."""
    if values.ndim == 2 and values.shape[1] != 1:
        raise StoreError(
            f"{place}: {name} has shape {list(values.shape)}, expected one scalar per row, "
            f"[{len(values)}] or [{len(values)}, 1]."
        )
    return values.reshape(len(values))


def check_rows(values: np.ndarray, expected: int, place: str, name: str, reason: str) -> None:
    """Refuse values `[T, ...]` unless T is `expected`."""
    if len(values) != expected:
        raise StoreError(
            f"{place}: {name} has {len(values)} rows, expected {expected}, {reason}; the arrays "
            "are of different lengths, get the data again."
        )


def reals(values: np.ndarray, where: Where, name: str) -> np.ndarray:
    """Values `[...]` as finite float32 of the same shape."""
    with np.errstate(over="ignore", invalid="ignore"):
        result = values.astype(np.float32)
    if not np.isfinite(result).all():
        first = tuple(int(i) for i in np.argwhere(~np.isfinite(result))[0])
        raise StoreError(
            f"{where(first[0])}: {name}{list(first)} is {values[first]}, expected a finite "
            "float32; the source diverged there, drop the episode."
        )
    return result


def flags(values: np.ndarray, where: Where, name: str) -> np.ndarray:
    """Values `[T]` as bool `[T]`; numbers must be 0 or 1."""
    bad = np.flatnonzero((values != 0) & (values != 1))
    if bad.size:
        row = int(bad[0])
        raise StoreError(
            f"{where(row)}: {name}[{row}] is {values[row]}, expected a flag, 0 or 1; is it another quantity?"
        )
    return values.astype(bool)


def actions(values: np.ndarray, where: Where, name: str) -> np.ndarray:
    """Actions as float32 `[T, A]`, or as int32 `[T]` where they are integers `[T]` or `[T, 1]`."""
    if values.dtype.kind == "f":
        if values.ndim != 2:
            raise StoreError(
                f"{where(0)}: {name} is {values.dtype} of shape {list(values.shape)}, expected "
                f"reals as [{len(values)}, A] or integers as [{len(values)}]; reshape them."
            )
        return reals(values, where, name)
    values = column(values, where(0), name)
    bad = np.flatnonzero((values < 0) | (values > np.iinfo(np.int32).max))
    if bad.size:
        row = int(bad[0])
        raise StoreError(
            f"{where(row)}: {name}[{row}] is {values[row]}, expected a discrete action, counted "
            "from 0 and within int32; renumber them."
        )
    return values.astype(np.int32)


def shards(flat: Trajectory, meta: dict[str, Any], max_steps: int) -> list[Shard]:
    """Cut episodes laid one after another, `[N, ...]`, into shards `[T, 1, ...]`.

    A shard is one lane of whole episodes: as many as fit into `max_steps`, but at least one. Every
    episode ends with a flag, where `sampler.windows` cuts it. A shard per episode would make a
    store of tens of thousands of files. `first_episode` of the meta counts those imported.
    """
    ends = np.flatnonzero(flat.terminated | flat.truncated) + 1
    if not len(ends) or ends[-1] != len(flat.reward):
        raise ValueError(f"shards: got {len(flat.reward)} steps, expected the last to be an end.")
    result, start, first = [], 0, 0
    while first < len(ends):
        last = max(int(np.searchsorted(ends, start + max_steps, side="right")), first + 1)
        stop = int(ends[last - 1])
        part = {name: np.asarray(getattr(flat, name)[start:stop, None]) for name in FIELDS}
        about = {**meta, "first_episode": first, "num_episodes": last - first}
        result.append(Shard(about, Trajectory(**part)))
        start, first = stop, last
    return result


def digest(path: Path) -> str:
    """SHA-256 of a file, which says in a store what was imported."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_written(item: Any) -> bool:
    """Whether the file holds every chunk of a dataset; HDF5 makes up those that it does not."""
    if item.chunks is None:
        return item.id.get_storage_size() >= item.nbytes
    per_axis = (-(-n // c) for n, c in zip(item.shape, item.chunks, strict=True))
    return item.id.get_num_chunks() == math.prod(per_axis)


def _either(ranks: tuple[int, ...]) -> str:
    return " or ".join(str(r) for r in ranks)


def _named(kinds: str) -> str:
    names = {"f": "float", "i": "int", "u": "unsigned int", "b": "bool"}
    return " or ".join(names[k] for k in kinds)
