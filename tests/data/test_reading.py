"""One call reads every kind of dataset."""

import json

import h5py
import numpy as np
import pytest

import jaxagent
from jaxagent.data import place, reading, store
from jaxagent.data.store import StoreError

ARRAYS = {
    "observations": np.arange(12.0).reshape(6, 2),
    "actions": np.arange(6, dtype=np.int64) % 2,
    "rewards": np.ones(6),
    "terminals": np.array([0, 0, 1, 0, 0, 0]),
    "timeouts": np.array([0, 0, 0, 0, 0, 1]),
    "next_observations": np.arange(12.0).reshape(6, 2) + 2.0,
}
ARRAYS["next_observations"][2] = 99.0


def minari(folder, observations):
    with h5py.File(folder / "main_data.hdf5", "w") as file:
        group = file.create_group("episode_0")
        for name, value in observations.items():
            group[f"observations/{name}"] = value
        group["actions"], group["rewards"] = np.zeros((2, 1)), np.ones(2)
        group["terminations"], group["truncations"] = np.array([False, True]), np.zeros(2, bool)
        group.attrs["total_steps"], group.attrs["id"] = 2, 0
    box = {name: {"type": "Box", "shape": list(np.shape(x)[1:])} for name, x in observations.items()}
    space = {"type": "Dict", "subspaces": box}
    about = {"total_steps": 2, "total_episodes": 1, "observation_space": json.dumps(space)}
    (folder / "metadata.json").write_text(json.dumps(about))
    return folder


def test_npz_hdf5_and_a_store_say_the_same(tmp_path):
    np.savez(tmp_path / "a.npz", **ARRAYS)
    with h5py.File(tmp_path / "b.hdf5", "w") as file:
        for name, value in ARRAYS.items():
            file[name] = value
    shards = jaxagent.data.load(tmp_path / "a.npz")
    again = reading.load(tmp_path / "b.hdf5")
    stored = reading.load(store.write(tmp_path / "c", shards))
    for other in (again, stored):
        for x, y in zip(shards[0].trajectory[:6], other[0].trajectory[:6], strict=True):
            np.testing.assert_array_equal(x, y)
    assert shards[0].trajectory.obs.shape == (6, 1, 2)
    assert shards[0].trajectory.final_obs[2, 0].tolist() == [99.0, 99.0]
    assert reading.num_episodes(shards) == 2
    assert len({place.digest(tmp_path / name) for name in ("a.npz", "b.hdf5", "c")}) == 3


def test_observations_of_a_dict_lie_side_by_side_in_its_order(tmp_path):
    parts = {"goal": np.full((3, 1), 7.0), "body": np.arange(6.0).reshape(3, 2)}
    (shard,) = reading.load(minari(tmp_path, parts))
    np.testing.assert_array_equal(shard.trajectory.obs[:, 0], [[7, 0, 1], [7, 2, 3]])
    np.testing.assert_array_equal(shard.trajectory.final_obs[:, 0], [[7, 2, 3], [7, 4, 5]])
    (tmp_path / "metadata.json").write_text(json.dumps({"total_steps": 2, "total_episodes": 1}))
    (shard,) = reading.load(tmp_path)  # names in order where no space is stated
    np.testing.assert_array_equal(shard.trajectory.obs[:, 0], [[0, 1, 7], [2, 3, 7]])


def test_a_dict_of_other_parts_than_stated_is_refused(tmp_path):
    minari(tmp_path, {"goal": np.zeros((3, 1)), "body": np.zeros((3, 2))})
    with h5py.File(tmp_path / "main_data.hdf5", "a") as file:
        del file["episode_0/observations/goal"]
    with pytest.raises(StoreError, match=r"observations has \['body'\], expected observation_space's"):
        reading.load(tmp_path)


def test_a_dict_of_unequal_lengths_is_refused(tmp_path):
    minari(tmp_path, {"goal": np.zeros((2, 1)), "body": np.zeros((3, 2))})
    with pytest.raises(StoreError, match="observations/body has 3 rows"):
        reading.load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"observations": np.array([["a"]] * 6)}, "observations is <U1"),
        ({"rewards": np.ones((6, 2))}, "rewards has shape"),
        ({"actions": np.ones(5, np.int64)}, "actions has 5 rows"),
        ({"observations": np.full((6, 2), np.nan)}, "finite"),
    ],
)
def test_npz_files_are_checked(tmp_path, changes, match):
    np.savez(tmp_path / "a.npz", **(ARRAYS | changes))
    with pytest.raises(StoreError, match=match):
        reading.load(tmp_path / "a.npz")


def test_what_is_no_dataset_is_refused(tmp_path):
    with pytest.raises(ValueError, match="got nothing there"):
        place.digest(tmp_path / "none.hdf5")
    with pytest.raises(StoreError, match="got nothing there"):
        reading.load(tmp_path / "none.hdf5")
    (tmp_path / "a.npz").write_bytes(b"PK")
    with pytest.raises(StoreError, match="not a readable npz"):
        reading.load(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", observations=np.array([{}], dtype=object))
    with pytest.raises(StoreError, match="not a readable npz"):
        reading.load(tmp_path / "b.npz")
