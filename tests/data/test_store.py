"""The store: what was written is read, anything else is refused by the name of its file."""

import hashlib
import io
import json
import os
import pickle
import shutil

import numpy as np
import pytest

from jaxagent import folders
from jaxagent.data import store
from jaxagent.data.store import Shard, StoreError
from jaxagent.types import Trajectory


def trajectory(seed=0, num_steps=4, batch_size=2, continuous=False):
    rng = np.random.default_rng(seed)
    shape = (num_steps, batch_size)
    action = rng.normal(size=(*shape, 2)).astype(np.float32)
    return Trajectory(
        obs=rng.normal(size=(*shape, 3)).astype(np.float32),
        action=action if continuous else rng.integers(0, 3, shape).astype(np.int32),
        reward=rng.normal(size=shape).astype(np.float32),
        terminated=rng.random(shape) < 0.3,
        truncated=rng.random(shape) < 0.3,
        final_obs=rng.normal(size=(*shape, 3)).astype(np.float32),
    )


def shards():
    return [
        Shard({"env": "probe", "split": "train"}, trajectory(0)),
        Shard({"env": "probe", "split": "test"}, trajectory(1, 3, 5, continuous=True)),
    ]


@pytest.fixture
def folder(tmp_path):
    return store.write(tmp_path / "data", shards())


def edit_index(folder, change):
    path = folder / store.INDEX
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def plant(folder, data, number=0):
    """Put `data` in the place of a shard, with an index that vouches for it."""
    (folder / f"shard_{number:04d}.npz").write_bytes(data)
    edit_index(folder, lambda c: c["shards"][number].update(sha256=hashlib.sha256(data).hexdigest()))


def archive(**changes):
    arrays = {**trajectory()._asdict(), **changes}
    buffer = io.BytesIO()
    np.savez(buffer, **{k: v for k, v in arrays.items() if v is not None and k != "extras"})
    return buffer.getvalue()


def assert_equal(got, expected):
    assert got.meta == expected.meta
    for name in store.FIELDS:
        a, b = getattr(got.trajectory, name), getattr(expected.trajectory, name)
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


# Round trip.


def test_what_was_written_is_read(folder):
    for got, expected in zip(store.read(folder), shards(), strict=True):
        assert_equal(got, expected)
    files = {p.name for p in folder.iterdir()}
    assert files == {"index.json", "shard_0000.npz", "shard_0001.npz"}


def test_the_index_describes_every_array(folder):
    first, second = store.index(folder)
    assert first["meta"] == {"env": "probe", "split": "train"}
    assert first["arrays"]["obs"] == ["float32", [4, 2, 3]]
    assert second["arrays"]["action"] == ["float32", [3, 5, 2]]
    data = (folder / second["file"]).read_bytes()
    assert second["sha256"] == hashlib.sha256(data).hexdigest()


def test_a_selection_reads_only_its_own_shards(folder):
    (folder / "shard_0000.npz").unlink()
    (got,) = store.read(folder, lambda meta: meta["split"] == "test")
    assert_equal(got, shards()[1])
    with pytest.raises(StoreError, match="data: the selection is empty"):
        store.read(folder, lambda meta: meta["split"] == "dev")


def test_the_digest_changes_with_any_array_and_only_then(tmp_path):
    first = store.write(tmp_path / "a", shards())
    same = store.write(tmp_path / "b", shards())
    other = shards()
    other[1].trajectory.reward[0, 0] += 1
    changed = store.write(tmp_path / "c", other)
    assert store.digest(first) == store.digest(same) != store.digest(changed)


# Damage.


def test_a_flipped_byte_anywhere_is_refused(folder):
    path = folder / "shard_0001.npz"
    good = path.read_bytes()
    for place in np.random.default_rng(0).integers(0, len(good), 20):
        bad = bytearray(good)
        bad[place] ^= 1
        path.write_bytes(bytes(bad))
        with pytest.raises(StoreError, match=r"shard_0001\.npz: got SHA-256"):
            store.read(folder)
    path.write_bytes(good)
    assert len(store.read(folder)) == 2


@pytest.mark.parametrize("length", [0, 1, 100, -1])
def test_a_truncated_file_is_refused(folder, length):
    path = folder / "shard_0000.npz"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(StoreError, match=r"shard_0000\.npz: .*truncated"):
        store.read(folder)


def test_a_missing_file_is_refused(folder):
    (folder / "shard_0001.npz").unlink()
    with pytest.raises(StoreError, match=r"shard_0001\.npz: cannot be read"):
        store.read(folder)


@pytest.mark.parametrize("missing", ["folder", "index"])
def test_a_store_without_index_is_refused(folder, missing):
    shutil.rmtree(folder) if missing == "folder" else (folder / store.INDEX).unlink()
    with pytest.raises(StoreError, match=r"index\.json: not a readable index"):
        store.read(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"version": 1}', '{"shards": []}'])
def test_a_broken_index_is_refused(folder, text):
    (folder / store.INDEX).write_text(text)
    with pytest.raises(StoreError, match=r"index\.json"):
        store.read(folder)


def test_another_version_is_refused(folder):
    edit_index(folder, lambda c: c.update(version=2))
    with pytest.raises(StoreError, match=r"index\.json: got version 2, expected 1"):
        store.read(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sha256", "0" * 64),
        ("arrays", {"obs": ["float64", [4, 2, 3]]}),
        ("arrays", {"obs": ["float32", [4, 2, 4]]}),
        ("file", "shard_0001.npz"),
    ],
)
def test_an_edited_entry_is_refused(folder, field, value):
    edit_index(folder, lambda c: c["shards"][0].update({field: value}))
    with pytest.raises(StoreError, match=r"shard_000[01]\.npz|index\.json"):
        store.read(folder)


@pytest.mark.parametrize("field", ["file", "sha256", "arrays", "meta"])
def test_an_entry_without_a_field_is_refused(folder, field):
    edit_index(folder, lambda c: c["shards"][0].pop(field))
    with pytest.raises(StoreError, match="data"):
        store.read(folder)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("field", ["obs", "reward", "final_obs"])
def test_numbers_that_are_not_finite_are_refused(tmp_path, field, bad):
    t = trajectory()
    folder = store.write(tmp_path / "data", [Shard({}, t)])
    getattr(t, field)[2, 1] = bad
    plant(folder, archive(**t._asdict()))
    for use in (lambda: store.read(folder), lambda: store.write(tmp_path / "other", [Shard({}, t)])):
        with pytest.raises(StoreError, match=rf"shard_0000\.npz: {field}\[2, 1.*not finite"):
            use()
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("field", ["obs", "action", "terminated", "final_obs"])
@pytest.mark.parametrize("axis", [0, 1])
def test_arrays_of_other_steps_are_refused(tmp_path, field, axis):
    """A row short, every later observation stood beside another episode's action."""
    short = np.delete(getattr(trajectory(), field), 1, axis)
    bad = trajectory()._replace(**{field: short})
    match = rf"shard_0000\.npz: {field} has shape .* beside rewards of \(4, 2\), expected the same"
    with pytest.raises(StoreError, match=match):
        store.write(tmp_path / "data", [Shard({}, bad)])
    folder = store.write(tmp_path / "data", [Shard({}, trajectory())])
    plant(folder, archive(**bad._asdict()))
    edit_index(
        folder, lambda c: c["shards"][0]["arrays"].update({field: [str(short.dtype), list(short.shape)]})
    )
    with pytest.raises(StoreError, match=match):
        store.read(folder)


def test_observations_of_two_forms_are_refused(tmp_path):
    bad = trajectory()._replace(final_obs=np.zeros((4, 2, 7), np.float32))
    with pytest.raises(
        StoreError, match=r"final_obs is float32\(4, 2, 7\), expected float32\(4, 2, 3\) as obs"
    ):
        store.write(tmp_path / "data", [Shard({}, bad)])


def test_an_array_that_the_index_forgets_is_refused(folder):
    plant(folder, archive(reward=np.full((4, 2), np.nan, np.float32)))
    edit_index(folder, lambda c: c["shards"][0]["arrays"].pop("reward"))
    with pytest.raises(StoreError, match=r"shard_0000\.npz.*reward|index\.json"):
        store.read(folder)


# Shards that the index vouches for.


@pytest.mark.parametrize(
    "changes",
    [
        {"obs": trajectory().obs.astype(np.float64)},
        {"terminated": trajectory().terminated.astype(np.int8)},
        {"reward": trajectory().reward[:-1]},
        {"reward": None},
    ],
    ids=["float64", "int8", "shorter", "absent"],
)
def test_other_arrays_than_the_index_lists_are_refused(folder, changes):
    plant(folder, archive(**changes))
    (name,) = changes
    with pytest.raises(StoreError, match=rf"shard_0000\.npz: .*{name}"):
        store.read(folder)


class Bomb:
    """Leaves a mark where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("kind", ["object array", "bare pickle"])
def test_a_pickle_is_refused_and_not_run(folder, tmp_path, kind):
    mark = tmp_path / "mark"
    bomb = Bomb(mark)
    if kind == "bare pickle":
        data = pickle.dumps(bomb)
    else:
        data = archive(reward=np.array([[bomb] * 2] * 4, dtype=object))
    plant(folder, data)
    with pytest.raises(StoreError, match=r"shard_0000\.npz: not a trajectory shard"):
        store.read(folder)
    assert not mark.exists()


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 not an archive", b"text", b"npy"])
def test_a_file_of_another_format_is_refused(folder, data):
    if data == b"npy":
        buffer = io.BytesIO()
        np.save(buffer, np.zeros(3))
        data = buffer.getvalue()
    plant(folder, data)
    with pytest.raises(StoreError, match=r"shard_0000\.npz: not a trajectory shard"):
        store.read(folder)


@pytest.mark.parametrize("kind", ["relative", "absolute", "parent"])
def test_an_index_cannot_lead_out_of_its_folder(folder, tmp_path, kind):
    outside = tmp_path / "outside"
    outside.mkdir()
    shutil.move(folder / "shard_0000.npz", outside / "shard_0000.npz")
    name = {
        "relative": "../outside/shard_0000.npz",
        "absolute": str(outside / "shard_0000.npz"),
        "parent": "..",
    }[kind]
    edit_index(folder, lambda c: c["shards"][0].update(file=name))
    with pytest.raises(StoreError, match="cannot be read"):
        store.read(folder)


# Writing.


def test_a_write_replaces_the_whole_store(folder):
    store.write(folder, shards()[1:])
    (got,) = store.read(folder)
    assert_equal(got, shards()[1])
    assert not (folder / "shard_0001.npz").exists()
    assert list(folder.parent.iterdir()) == [folder]


def test_an_empty_write_is_refused_and_leaves_the_old_store(folder):
    with pytest.raises(StoreError, match="got no shards"):
        store.write(folder, [])
    assert len(store.read(folder)) == 2


def test_an_interrupted_write_leaves_the_old_store(folder):
    def source():
        yield shards()[1]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.write(folder, source())
    assert len(store.read(folder)) == 2
    assert list(folder.parent.iterdir()) == [folder]


def test_a_failed_last_rename_leaves_the_old_store(folder, monkeypatch):
    real = os.replace

    def failing(source, target):
        if target == folder and not failed:
            failed.append(source)
            raise OSError("disk went away")
        real(source, target)

    failed = []
    monkeypatch.setattr(folders.ctypes, "CDLL", lambda *args, **options: None)
    monkeypatch.setattr(folders.os, "replace", failing)
    with pytest.raises(OSError, match="disk went away"):
        store.write(folder, shards()[:1])
    assert len(store.read(folder)) == 2
    assert list(folder.parent.iterdir()) == [folder]


def test_objects_are_not_written(tmp_path):
    t = trajectory()._replace(reward=np.array([[{}] * 2] * 4, dtype=object))
    with pytest.raises(ValueError, match=r"[Oo]bject"):
        store.write(tmp_path / "data", [Shard({}, t)])
    assert not (tmp_path / "data").exists()
