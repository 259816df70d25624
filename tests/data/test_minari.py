"""Minari import: a good file round-trips, anything else is refused by file, episode and offset."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.common.names import MissingExtra
from envs.types import Component
from jaxagent.config import TokenConfig
from jaxagent.data import minari, sampler, store
from jaxagent.data.store import StoreError
from jaxagent.tokens import component, tokenizer

LENGTHS = (4, 1, 3)
BOX = {"type": "Box", "dtype": "float32", "shape": [2], "low": [-1.0, -1.0], "high": [1.0, 1.0]}
DISCRETE = {"type": "Discrete", "dtype": "int64", "start": 0, "n": 5}


def episode(number, length, is_discrete=False):
    """Arrays as Minari writes them; observations say (episode, step) and something drawn."""
    rng = np.random.default_rng(number)
    steps = np.arange(length + 1)
    drawn = rng.normal(size=length + 1)
    obs = np.stack([np.full(length + 1, number), steps, drawn], axis=-1)
    actions = rng.uniform(-1, 1, (length, 2)).astype(np.float32)
    last = np.arange(length) == length - 1
    return {
        "observations": obs.astype(np.float32),
        "actions": rng.integers(0, 5, length) if is_discrete else actions,
        "rewards": rng.normal(size=length),  # float64, as Minari stores them
        "terminations": last & (number % 2 == 0),
        "truncations": last & (number % 2 == 1),
    }


def episodes(lengths=LENGTHS, is_discrete=False):
    return [episode(i, n, is_discrete) for i, n in enumerate(lengths)]


def write(folder, content, **metadata):
    """Lay out `content` in the folder of a dataset as Minari 0.5.3 does; returns the folder."""
    data = folder / "data"
    data.mkdir(parents=True)
    with h5py.File(data / "main_data.hdf5", "w", track_order=True) as file:
        for i, arrays in enumerate(content):
            group = file.create_group(f"episode_{i}")
            group.attrs.update(id=i, seed=i, total_steps=len(arrays["rewards"]))
            group.create_group("infos").create_dataset("angle", data=np.zeros(3))
            for name, values in arrays.items():
                group.create_dataset(name, data=values, chunks=True, maxshape=(None, *values.shape[1:]))
    is_discrete = content[0]["actions"].ndim == 1
    about = {
        "total_episodes": len(content),
        "total_steps": sum(len(e["rewards"]) for e in content),
        "data_format": "hdf5",
        "observation_space": json.dumps({"type": "Box", "dtype": "float32", "shape": [3]}),
        "action_space": json.dumps(DISCRETE if is_discrete else BOX),
        "env_spec": json.dumps({"id": "Pendulum-v1"}),
        "dataset_id": "pendulum/probe-v0",
        "minari_version": "0.5.3",
    }
    (data / "metadata.json").write_text(json.dumps({**about, **metadata}))
    return folder


def edited(folder, change):
    """Change the HDF5 file of a dataset in place."""
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        change(file)
    return folder


def replace(file, name, values):
    del file[name]
    file[name] = values


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "probe-v0", episodes())


def refuses(path, match, **options):
    with pytest.raises(StoreError, match=match) as caught:
        minari.read(path, **options)
    assert "main_data.hdf5" in str(caught.value) or "metadata.json" in str(caught.value)


def windows_of(shards, spec, context=3):
    """Sampled windows, as host arrays, and whether each entry is real."""
    trajectories = [s.trajectory for s in shards]
    obs = np.concatenate([t.obs.reshape(-1, t.obs.shape[-1]) for t in trajectories])
    action = np.concatenate([t.action.reshape(-1, *t.action.shape[2:]) for t in trajectories])
    config = TokenConfig(num_bins=8)
    obs_spec = tuple(Component(f"obs{i}", "real") for i in range(obs.shape[-1]))
    (domain,) = component.domains([(obs_spec, spec)])
    env = SimpleNamespace(name="probe", obs_spec=obs_spec, action_spec=spec)
    data = sampler.windows(trajectories, tokenizer.fit(env, domain, obs, action, config), context)
    batch = jax.jit(sampler.sample, static_argnums=(2, 3))(data, jax.random.key(0), 200, context)
    assert int(data.num_real) == len(obs)
    return np.asarray(batch.obs), np.asarray(batch.is_real)


def assert_windows_stay_in_their_episode(shards, spec):
    """Observations begin with (episode, step)."""
    obs, is_real = windows_of(shards, spec)
    lengths = set()
    for row, real in zip(obs, is_real, strict=True):
        inside = row[real]
        assert (inside[:, 0] == inside[0, 0]).all()
        np.testing.assert_array_equal(np.diff(inside[:, 1]), 1)
        lengths.add(len(inside))
    assert lengths == {1, 2, 3}  # some are cut short, some are not


# What is read.


def test_episodes_come_back_exactly(folder):
    (shard,) = minari.read(folder)
    t, expected = shard.trajectory, episodes()
    assert t.obs.shape == (8, 1, 3)
    assert [str(x.dtype) for x in t[:6]] == ["float32"] * 3 + ["bool"] * 2 + ["float32"]

    def joined(name, part=slice(None)):
        return np.concatenate([e[name][part] for e in expected])[:, None]

    np.testing.assert_array_equal(t.obs, joined("observations", slice(-1)))
    np.testing.assert_array_equal(t.final_obs, joined("observations", slice(1, None)))
    np.testing.assert_array_equal(t.action, joined("actions"))
    np.testing.assert_array_equal(t.reward, joined("rewards").astype(np.float32))
    np.testing.assert_array_equal(t.terminated, joined("terminations"))
    np.testing.assert_array_equal(t.truncated, joined("truncations"))


def test_the_final_observation_is_of_its_own_episode_always(folder):
    (shard,) = minari.read(folder)
    obs, final = shard.trajectory.obs[:, 0], shard.trajectory.final_obs[:, 0]
    np.testing.assert_array_equal(final[:, 0], obs[:, 0])  # the episode
    np.testing.assert_array_equal(final[:, 1], obs[:, 1] + 1)  # the step


def test_the_meta_say_what_was_imported(folder):
    (shard,) = minari.read(folder)
    sha256 = shard.meta.pop("sha256")
    assert len(sha256) == 64
    assert shard.meta == {
        "source": "minari",
        "dataset": "pendulum/probe-v0",
        "env": "Pendulum-v1",
        "first_episode": 0,
        "num_episodes": 3,
    }
    edited(folder, lambda file: replace(file, "episode_0/rewards", np.zeros(4)))
    assert minari.read(folder)[0].meta["sha256"] != sha256


def test_discrete_actions_are_int32(tmp_path):
    content = episodes(is_discrete=True)
    (shard,) = minari.read(write(tmp_path / "d", content))
    assert shard.trajectory.action.dtype == np.int32
    expected = np.concatenate([e["actions"] for e in content])[:, None]
    np.testing.assert_array_equal(shard.trajectory.action, expected)


@pytest.mark.parametrize("part", ["", "data", "data/main_data.hdf5"])
def test_the_dataset_is_found_from_its_folder_or_its_file(folder, part):
    (shard,) = minari.read(str(folder / part))
    assert shard.meta["num_episodes"] == 3


def test_episodes_are_in_the_order_of_their_numbers(tmp_path):
    (shard,) = minari.read(write(tmp_path / "d", episodes([1] * 12)))
    np.testing.assert_array_equal(shard.trajectory.obs[:, 0, 0], np.arange(12))


@pytest.mark.parametrize(
    ("limit", "lengths"), [(1, [4, 1, 3]), (4, [4, 4]), (5, [5, 3]), (7, [5, 3]), (8, [8])]
)
def test_a_shard_holds_whole_episodes_up_to_the_limit(folder, limit, lengths):
    shards = minari.read(folder, shard_steps=limit)
    assert [len(s.trajectory.reward) for s in shards] == lengths
    joined = np.concatenate([s.trajectory.obs for s in shards])
    np.testing.assert_array_equal(joined, minari.read(folder)[0].trajectory.obs)
    for s in shards:
        assert s.meta["first_episode"] == s.trajectory.obs[0, 0, 0]
        assert s.meta["num_episodes"] == len(np.unique(s.trajectory.obs[..., 0]))
        assert (s.trajectory.terminated | s.trajectory.truncated)[-1].all()


def test_columns_and_both_flags_at_the_end_are_fine(tmp_path):
    content = episodes()
    for e in content:
        e["terminations"][-1] = e["truncations"][-1] = True
    plain = minari.read(write(tmp_path / "a", content))[0].trajectory
    for e in content:
        e.update({k: e[k][:, None] for k in ("rewards", "terminations", "truncations")})
    columns = minari.read(write(tmp_path / "b", content))[0].trajectory
    assert plain.terminated.sum() == plain.truncated.sum() == 3
    for a, b in zip(plain[:6], columns[:6], strict=True):
        np.testing.assert_array_equal(a, b)


def test_metadata_of_before_minari_0_5_are_attributes_of_the_root(folder):
    path = folder / "data" / "metadata.json"
    about = json.loads(path.read_text())
    path.unlink()
    refuses(folder, r"total_episodes is None, expected an integer")
    edited(folder, lambda file: file.attrs.update(about))
    assert minari.read(folder)[0].meta["env"] == "Pendulum-v1"
    edited(folder, lambda file: file.attrs.update(total_steps=7))
    refuses(folder, "got 8 steps, expected 7")


# Where it goes.


def test_shards_go_through_the_store(folder, tmp_path):
    shards = minari.read(folder, shard_steps=4)
    back = store.read(store.write(tmp_path / "store", shards))
    assert [s.meta for s in back] == [s.meta for s in shards]
    for got, expected in zip(back, shards, strict=True):
        for a, b in zip(got.trajectory[:6], expected.trajectory[:6], strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("limit", [4, 100])
@pytest.mark.parametrize("is_discrete", [False, True])
def test_windows_never_leave_their_episode(tmp_path, is_discrete, limit):
    folder = write(tmp_path / "d", episodes((4, 1, 3, 2), is_discrete))
    spec = (
        (Component("button", "category", cardinality=5),)
        if is_discrete
        else (Component("x", "real", -1.0, 1.0), Component("y", "real", -1.0, 1.0))
    )
    assert_windows_stay_in_their_episode(minari.read(folder, shard_steps=limit), spec)


# What is refused: arrays.


@pytest.mark.parametrize("name", ["observations", "actions", "rewards", "terminations", "truncations"])
def test_a_missing_array_is_refused(folder, name):
    edited(folder, lambda file: file["episode_2"].pop(name))
    refuses(folder, rf"main_data\.hdf5: episode_2: got .*infos.*, expected '{name}'")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("name", "index", "shown"),
    [
        ("observations", (3, 1), r"observations\[3, 1\]"),  # the last one, after the last step
        ("observations", (0, 2), r"observations\[0, 2\]"),
        ("actions", (2, 1), r"actions\[2, 1\]"),
        ("rewards", (1,), r"rewards\[1\]"),
    ],
)
def test_numbers_that_are_not_finite_are_refused(folder, name, index, shown, bad):
    def change(file):
        file[f"episode_2/{name}"][index] = bad

    edited(folder, change)
    refuses(folder, rf"main_data\.hdf5: episode_2: {shown} is {bad}, expected a finite float32")


def test_a_number_beyond_float32_is_refused(folder):
    edited(folder, lambda file: replace(file, "episode_0/rewards", [0.0, 1e39, 0.0, 0.0]))
    refuses(folder, r"episode_0: rewards\[1\] is 1e\+39, expected a finite float32")


@pytest.mark.parametrize(
    ("name", "values", "dtype"),
    [
        ("observations", np.zeros((2, 3), np.complex64), "complex64"),
        ("observations", np.zeros((2, 3), bool), "bool"),
        ("actions", np.zeros((1, 2), "S3"), r"\|S3"),
        ("actions", np.zeros(1, bool), "bool"),
        ("rewards", np.array(["1.0"], h5py.string_dtype()), "object"),
        ("rewards", np.zeros(1, [("a", "f4")]), r"\[\('a', '<f4'\)\]"),
        ("terminations", np.array(["yes"], h5py.string_dtype()), "object"),
        ("truncations", np.zeros(1, np.complex64), "complex64"),
    ],
)
def test_a_wrong_dtype_is_refused(folder, name, values, dtype):
    edited(folder, lambda file: replace(file, f"episode_1/{name}", values))
    refuses(folder, rf"main_data\.hdf5: episode_1: {name} has dtype {dtype}, expected float or int")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("observations", lambda x: x[:-1], "observations has 3 rows, expected 4, one more"),
        ("observations", lambda x: np.append(x, x[:1], 0), "observations has 5 rows, expected 4"),
        ("actions", lambda x: x[1:], "actions has 2 rows, expected 3, as many as rewards"),
        ("rewards", lambda x: x[1:], "observations has 4 rows, expected 3"),
        ("terminations", lambda x: x[1:], "terminations has 2 rows, expected 3"),
        ("truncations", lambda x: np.append(x, x), "truncations has 6 rows, expected 3"),
    ],
)
def test_unequal_lengths_are_refused(folder, name, change, message):
    edited(folder, lambda file: replace(file, f"episode_2/{name}", change(file[f"episode_2/{name}"][()])))
    refuses(folder, rf"main_data\.hdf5: episode_2: {message}")


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("observations", np.zeros(5), r"observations has shape \[5\], expected rank 2"),
        ("observations", np.zeros((5, 8, 8)), r"observations has shape \[5, 8, 8\], expected rank"),
        ("observations", np.float32(1), r"observations has shape \[\], expected rank 2"),
        ("observations", h5py.Empty("f4"), "observations is no array"),
        ("actions", np.zeros(4), r"actions is float64 of shape \[4\], expected reals as \[4, A\]"),
        ("actions", np.zeros((4, 3), int), r"actions has shape \[4, 3\], expected one scalar"),
        ("rewards", np.zeros((4, 2)), r"rewards has shape \[4, 2\], expected one scalar per row"),
        ("rewards", np.zeros(0), "rewards is empty, expected at least one row"),
        ("terminations", np.full(4, 0.5), r"terminations\[0\] is 0\.5, expected a flag, 0 or 1"),
        ("actions", np.array([0, 1, -1, 0]), r"actions\[2\] is -1, expected a discrete action"),
        ("actions", np.array([0, 2**31, 1, 0]), r"actions\[1\] is 2147483648, expected a discrete"),
    ],
)
def test_a_wrong_shape_or_value_is_refused(folder, name, values, message):
    edited(folder, lambda file: replace(file, f"episode_0/{name}", values))
    refuses(folder, rf"main_data\.hdf5: episode_0: {message}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("observations", r"observations has \['position'\], expected observation_space's"),
        ("actions", "actions is no array, .*dictionary and tuple spaces are not"),
    ],
)
def test_groups_that_no_space_states_are_refused(folder, name, message):
    def change(file):
        del file["episode_0"][name]
        file[f"episode_0/{name}/position"] = np.zeros((5, 3))

    edited(folder, change)
    refuses(folder, rf"episode_0: {message}")


@pytest.mark.parametrize("kind", ["soft", "dangling", "external", "virtual", "raw file"])
def test_nothing_is_read_from_elsewhere(folder, tmp_path, kind):
    outside = tmp_path / "outside.hdf5"
    with h5py.File(outside, "w") as file:
        file["rewards"] = np.ones(4)
    (tmp_path / "raw").write_bytes(np.ones(4).tobytes())

    def change(file):
        group = file["episode_0"]
        del group["rewards"]
        if kind == "virtual":
            layout = h5py.VirtualLayout((4,), "f8")
            layout[:] = h5py.VirtualSource(str(outside), "rewards", (4,))
            group.create_virtual_dataset("rewards", layout)
        elif kind == "raw file":
            where = [(str(tmp_path / "raw"), 0, 32)]
            group.create_dataset("rewards", (4,), "f8", external=where)
        else:
            group["rewards"] = {
                "soft": h5py.SoftLink("/episode_1/rewards"),
                "dangling": h5py.SoftLink("/nowhere"),
                "external": h5py.ExternalLink(str(outside), "rewards"),
            }[kind]

    edited(folder, change)
    refuses(folder, "episode_0: rewards (is a link to elsewhere|lies in other files)")


@pytest.mark.parametrize(
    ("chunks", "compression"), [(None, None), ((2,), None), ((3,), None), ((3,), "gzip")]
)
def test_rows_that_were_never_written_are_refused(folder, chunks, compression):
    """HDF5 reads them as zeros."""

    def change(file):
        del file["episode_0/rewards"]
        options = {"chunks": chunks, "compression": compression}
        rewards = file.create_dataset("episode_0/rewards", (4,), "f8", **options)
        if chunks:
            rewards[:2] = 1.0
        np.testing.assert_array_equal(rewards[3:], 0)

    edited(folder, change)
    refuses(folder, r"main_data\.hdf5: episode_0: rewards was not written in full")

    def finish(file):
        file["episode_0/rewards"][:] = 1.0

    assert (minari.read(edited(folder, finish))[0].trajectory.reward[:4] == 1).all()


# What is refused: episodes.


@pytest.mark.parametrize("name", ["terminations", "truncations"])
def test_an_end_inside_an_episode_is_refused(folder, name):
    def change(file):
        file[f"episode_2/{name}"][1] = True

    edited(folder, change)
    refuses(folder, rf"main_data\.hdf5: episode_2: {name}\[1\] is True, expected only the last of 3")


def test_an_episode_without_an_end_is_refused(folder):
    def change(file):
        file["episode_2/terminations"][2] = False

    edited(folder, change)
    refuses(folder, r"main_data\.hdf5: episode_2: terminations\[2\] and truncations\[2\] are False")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("total_steps", 5, "total_steps is 5, expected 4, the rows of rewards"),
        ("total_steps", "4", "total_steps is '4', expected an integer"),
        ("total_steps", None, "total_steps is None, expected an integer"),
        ("id", 2, "id is 2, expected 0 of its name"),
    ],
)
def test_attributes_of_an_episode_must_agree(folder, name, value, message):
    def change(file):
        del file["episode_0"].attrs[name]
        if value is not None:
            file["episode_0"].attrs[name] = value

    edited(folder, change)
    refuses(folder, rf"main_data\.hdf5: episode_0: {message}")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"total_steps": 9}, "got 8 steps, expected 9, total_steps of the metadata"),
        ({"total_episodes": 4}, "got 3 episodes, expected 4, total_episodes of the metadata"),
        ({"total_episodes": None}, "total_episodes is None, expected an integer"),
        ({"total_steps": True}, "total_steps is True, expected an integer"),
    ],
)
def test_totals_of_the_metadata_must_agree(tmp_path, metadata, message):
    refuses(write(tmp_path / "d", episodes(), **metadata), rf"main_data\.hdf5: {message}")


def test_a_missing_episode_is_refused(folder):
    edited(folder, lambda file: file.pop("episode_1"))
    refuses(folder, r"got episode_2 among 2 members, expected episode_0 to episode_1 without a gap")


def test_an_episode_of_another_kind_is_refused(tmp_path):
    content = [*episodes(), episode(3, 2, is_discrete=True)]
    content[1]["observations"] = np.zeros((2, 4), np.float32)
    folder = write(tmp_path / "d", content, observation_space=None, action_space=None)
    refuses(folder, r"episode_1: observations has float32 rows of shape \[4\], expected episode_0's")
    edited(folder, lambda f: replace(f, "episode_1/observations", np.zeros((2, 3), np.float32)))
    refuses(folder, r"episode_3: actions has int32 rows of shape \[\], expected episode_0's float32")


# What is refused: spaces.


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"observation_space": {"type": "Dict"}}, "observation_space is Dict, supported is Box"),
        (
            {"observation_space": {"type": "Box", "shape": [8, 8, 3]}},
            r"observation_space is Box \{'shape': \[8, 8, 3\]\}, supported is Box of shape \[n\]",
        ),
        ({"observation_space": {"type": "Discrete", "n": 4}}, "observation_space is Discrete"),
        ({"action_space": {"type": "MultiDiscrete"}}, "action_space is MultiDiscrete, supported"),
        (
            {"action_space": {**DISCRETE, "start": 1}},
            r"action_space is Discrete \{'n': 5, 'start': 1\}, supported are Box",
        ),
        (
            {"observation_space": {"type": "Box", "shape": [7]}},
            r"episode_0: observations has rows of shape \[3\], expected observation_space's \[7\]",
        ),
        (
            {"action_space": {"type": "Box", "shape": [3]}},
            r"episode_0: actions has float32 rows of shape \[2\], expected action_space's Box",
        ),
        ({"action_space": DISCRETE}, r"episode_0: actions has float32 rows of shape \[2\]"),
        ({"action_space": [1]}, r"action_space of the metadata is '\[1\]', expected an object"),
    ],
)
def test_spaces_that_do_not_fit_are_refused(tmp_path, metadata, message):
    metadata = {k: json.dumps(v) for k, v in metadata.items()}
    refuses(write(tmp_path / "d", episodes(), **metadata), message)


def test_an_action_out_of_its_space_is_refused(tmp_path):
    content = episodes(is_discrete=True)
    content[2]["actions"][1] = 5
    refuses(write(tmp_path / "d", content), r"episode_2: actions\[1\] is 5, expected less than 5")


def test_a_space_that_is_no_json_is_refused(tmp_path):
    folder = write(tmp_path / "d", episodes(), action_space="Box(2,)")
    refuses(folder, "action_space of the metadata is not JSON")


# What is refused: files.


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_broken_metadata_are_refused(folder, text):
    (folder / "data" / "metadata.json").write_text(text)
    refuses(folder, r"metadata\.json: (not readable JSON|got a list, expected an object)")


def test_another_schema_is_refused(folder):
    def change(file):
        for name in list(file):
            del file[name]

    edited(folder, change)
    refuses(folder, r"main_data\.hdf5: the file is empty, expected groups episode_0")
    edited(folder, lambda file: file.create_dataset("observations", data=np.zeros((4, 3))))
    refuses(folder, r"main_data\.hdf5: got observations among 1 members.*jaxagent\.data\.d4rl")
    edited(folder, change)
    edited(folder, lambda file: file.create_dataset("episode_0", data=np.zeros(3)))
    refuses(folder, r"main_data\.hdf5: episode_0: got an array, expected a group")


def test_a_folder_without_the_file_is_refused(tmp_path):
    refuses(tmp_path, r"got no main_data\.hdf5, expected it there or in its folder data")


@pytest.mark.parametrize("kind", ["half", "head", "nothing", "text"])
def test_a_damaged_file_is_refused(folder, kind):
    path = folder / "data" / "main_data.hdf5"
    data = path.read_bytes()
    path.write_bytes(
        {"half": data[: len(data) // 2], "head": data[:100], "nothing": b"", "text": b"x" * 999}[kind]
    )
    refuses(folder, r"main_data\.hdf5: not a readable HDF5 file")


def test_a_chunk_that_cannot_be_unpacked_is_refused(folder):
    values = np.random.default_rng(0).normal(size=4)

    def change(file):
        del file["episode_0/rewards"]
        file.create_dataset("episode_0/rewards", data=values, chunks=(4,), fletcher32=True)

    edited(folder, change)
    path = Path(folder / "data" / "main_data.hdf5")
    data = bytearray(path.read_bytes())
    place = data.find(values.tobytes())
    assert place > 0
    data[place] ^= 1
    path.write_bytes(bytes(data))
    refuses(folder, r"main_data\.hdf5: not a readable HDF5 file")


def test_a_number_format_that_numpy_lacks_is_refused(folder):
    odd = h5py.h5t.IEEE_F64LE.copy()
    odd.set_fields(63, 43, 20, 0, 43)  # an exponent of 20 bits

    def change(file):
        del file["episode_0/rewards"]
        space = h5py.h5s.create_simple((4,))
        h5py.h5d.create(file["episode_0"].id, b"rewards", odd, space)

    edited(folder, change)
    refuses(folder, r"main_data\.hdf5: not a readable HDF5 file \(Insufficient precision")


def test_without_h5py_the_error_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtra, match=r"pip install 'jaxagent\[datasets\]'"):
        minari.read(folder)


def test_what_is_read_is_what_jax_takes(folder):
    """No float64 and no int64, which JAX would cast in silence."""
    for x in minari.read(folder)[0].trajectory[:6]:
        assert jnp.asarray(x).dtype == x.dtype
