"""Where the files of a dataset lie, importable without JAX."""

from pathlib import Path

from jaxagent.files import sha256_file
from jaxagent.folders import INDEX

MAIN_FILE = "main_data.hdf5"  # of Minari


def file_of(path: str | Path) -> Path:
    """The file that stands for a dataset: the index of a store, Minari's main file, or the path itself.

    Raises ValueError where there is none.
    """
    place = Path(path)
    candidates = (place / INDEX, place, place / MAIN_FILE, place / "data" / MAIN_FILE)
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise ValueError(
        f"dataset {path}: got nothing there, expected a store, Minari's folder, or a file, .hdf5 or .npz."
    )


def digest(path: str | Path) -> str:
    """SHA-256 of the file that stands for a dataset; the index of a store holds those of its shards."""
    return sha256_file(file_of(path))
