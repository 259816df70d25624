"""Datasets of whatever kind as shards: `jaxagent.data.load("file.hdf5")`.

A store of ours (a folder), Minari (a folder, or its main_data.hdf5), D4RL's layout in HDF5, or the same
arrays as npz: `observations [N, n]`, `actions`, `rewards`, `terminals`, and `timeouts` or
`next_observations` where there are any.
"""

from pathlib import Path
from typing import Any

from jaxagent.data import d4rl, minari, store
from jaxagent.data.foreign_arrays import open_hdf5
from jaxagent.data.place import MAIN_FILE
from jaxagent.data.store import Shard, StoreError
from jaxagent.folders import INDEX


def load(path: str | Path, **options: Any) -> list[Shard]:
    """Read a dataset into shards of trajectories `[T, B, ...]`, checked; see `store.write` to keep them.

    `options` are of the reader, such as `max_episode_steps` of D4RL's layout. Raises `StoreError` naming
    file and place for what is no dataset or is damaged, `MissingExtra` for HDF5 without h5py.
    """
    place = Path(path)
    kind = kind_of(place)
    if kind == "store":
        return store.read(place, **options)
    return {"minari": minari, "d4rl": d4rl}[kind].read(place, **options)


def kind_of(path: Path) -> str:
    """Which of "store", "minari" and "d4rl" a dataset is. Raises `StoreError` for anything else."""
    if (path / INDEX).is_file():
        return "store"
    if path.is_dir() or path.name == MAIN_FILE:
        return "minari"
    if not path.is_file():
        raise StoreError(f"{path}: got nothing there, expected a dataset: a store, Minari, HDF5 or npz.")
    if path.suffix == ".npz":
        return "d4rl"
    with open_hdf5(path) as file:
        return "minari" if "episode_0" in file else "d4rl"


def num_episodes(shards: list[Shard]) -> int:
    """Episodes that end, and stretches of lanes that are cut off."""
    count = 0
    for shard in shards:
        ends = shard.trajectory.terminated | shard.trajectory.truncated
        count += int(ends.sum()) + int((~ends[-1]).sum())
    return count
