"""D4RL import: borders leak nothing, what is unknown is dropped, a bad file is refused by name."""

import sys

import h5py
import numpy as np
import pytest
from test_minari import assert_windows_stay_in_their_episode

from envs.common.names import MissingExtra
from envs.types import Component
from jaxagent.data import d4rl, store
from jaxagent.data.store import FIELDS, StoreError

BOX = (Component("x", "real", -1.0, 1.0), Component("y", "real", -1.0, 1.0))
# Length and how it ends. A one-step timeout, two terminations in a row, an unfinished last one.
EPISODES = ((4, "timeout"), (3, "terminal"), (1, "timeout"), (1, "terminal"), (5, "timeout"))
UNFINISHED = (3, "nothing")


def arrays(episodes=EPISODES, has_next=False):
    """Flat arrays; observations say (episode, step) and something drawn."""
    rng = np.random.default_rng(0)
    obs, following, terminals, timeouts = [], [], [], []
    for number, (length, end) in enumerate(episodes):
        steps = np.arange(length + 1)
        drawn = rng.normal(size=length + 1)
        every = np.stack([np.full(length + 1, number), steps, drawn], axis=-1).astype(np.float32)
        last = np.arange(length) == length - 1
        obs.append(every[:-1])
        following.append(every[1:])
        terminals.append(last & (end in ("terminal", "both")))
        timeouts.append(last & (end in ("timeout", "both")))
    num_steps = sum(length for length, _ in episodes)
    result = {
        "observations": np.concatenate(obs),
        "actions": rng.uniform(-1, 1, (num_steps, 2)).astype(np.float32),
        "rewards": rng.normal(size=num_steps).astype(np.float32),
        "terminals": np.concatenate(terminals),
        "timeouts": np.concatenate(timeouts),
        "next_observations": np.concatenate(following),
    }
    if not has_next:
        del result["next_observations"]
    return result


def write(path, content):
    with h5py.File(path, "w") as file:
        for name, values in content.items():
            if values is not None:
                file[name] = values
        file["infos/qpos"] = np.zeros((2, 2))
        file["metadata/algorithm"] = "SAC"
    return path


def read_one(path, **options):
    (shard,) = d4rl.read(path, **options)
    t = shard.trajectory
    return t._replace(**{name: getattr(t, name)[:, 0] for name in FIELDS})


def refuses(tmp_path, content, match, **options):
    with pytest.raises(StoreError, match=match) as caught:
        d4rl.read(write(tmp_path / "probe-v2.hdf5", content), **options)
    assert "probe-v2.hdf5" in str(caught.value)


def transitions(data):
    """Transitions by D4RL's own rules: a step that timed out and the file's last are dropped."""
    kept = []
    for i in range(len(data["rewards"]) - 1):
        if data["timeouts"][i]:
            continue
        row = [data[name][i] for name in ("observations", "actions", "rewards", "terminals")]
        kept.append((*row, data["observations"][i + 1]))
    return kept


# What is read.


def test_with_next_observations_everything_comes_back_exactly(tmp_path):
    content = arrays((*EPISODES, UNFINISHED), has_next=True)
    t = read_one(write(tmp_path / "a.hdf5", content))
    assert [str(x.dtype) for x in t[:6]] == ["float32"] * 3 + ["bool"] * 2 + ["float32"]
    np.testing.assert_array_equal(t.obs, content["observations"])
    np.testing.assert_array_equal(t.action, content["actions"])
    np.testing.assert_array_equal(t.reward, content["rewards"])
    np.testing.assert_array_equal(t.terminated, content["terminals"])
    np.testing.assert_array_equal(t.final_obs, content["next_observations"])
    expected = content["timeouts"].copy()
    expected[-1] = True  # the recording ended there
    np.testing.assert_array_equal(t.truncated, expected)


@pytest.mark.parametrize("last", [(), (UNFINISHED,)], ids=["finished", "unfinished"])
def test_without_them_the_transitions_are_those_of_d4rl(tmp_path, last):
    content = arrays((*EPISODES, *last))
    t = read_one(write(tmp_path / "a.hdf5", content))
    expected = transitions(content)
    assert len(t.reward) == len(expected) == 11 + 2 * len(last)
    for i, (obs, action, reward, is_terminal, following) in enumerate(expected):
        np.testing.assert_array_equal(t.obs[i], obs)
        np.testing.assert_array_equal(t.action[i], action)
        assert t.reward[i] == reward
        assert t.terminated[i] == is_terminal
        if not is_terminal:
            np.testing.assert_array_equal(t.final_obs[i], following)


@pytest.mark.parametrize("last", [(), (UNFINISHED,)], ids=["finished", "unfinished"])
@pytest.mark.parametrize("has_next", [False, True])
def test_no_final_observation_is_of_another_episode(tmp_path, has_next, last):
    t = read_one(write(tmp_path / "a.hdf5", arrays((*EPISODES, *last), has_next)))
    np.testing.assert_array_equal(t.final_obs[:, 0], t.obs[:, 0])
    is_next = ~t.terminated | has_next
    np.testing.assert_array_equal(t.final_obs[:, 1], t.obs[:, 1] + is_next)
    # What terminated and has no next observation repeats its own.
    np.testing.assert_array_equal(t.final_obs[~is_next], t.obs[~is_next])


def test_an_episode_ends_before_its_dropped_step(tmp_path):
    path = write(tmp_path / "a.hdf5", arrays((*EPISODES, UNFINISHED)))
    t = read_one(path)
    np.testing.assert_array_equal(t.obs[:, 0], [0, 0, 0, 1, 1, 1, 3, 4, 4, 4, 4, 5, 5])
    np.testing.assert_array_equal(np.flatnonzero(t.terminated), [5, 6])
    np.testing.assert_array_equal(np.flatnonzero(t.truncated), [2, 10, 12])
    (shard,) = d4rl.read(path)
    assert shard.meta["num_dropped"] == 4
    assert shard.meta["num_episodes"] == 5  # the one of a single step is gone


def test_a_step_that_terminated_is_kept_at_the_end_of_the_file_and_beside_a_timeout(tmp_path):
    content = arrays(((2, "both"), (2, "terminal")))
    t = read_one(write(tmp_path / "a.hdf5", content))
    np.testing.assert_array_equal(t.obs, content["observations"])
    np.testing.assert_array_equal(t.terminated, [False, True, False, True])
    np.testing.assert_array_equal(t.truncated, [False, True, False, False])


def test_discrete_actions_and_columns(tmp_path):
    content = arrays(has_next=True)
    content["actions"] = np.arange(14, dtype=np.uint8)
    plain = read_one(write(tmp_path / "a.hdf5", content))
    for name in ("actions", "rewards", "terminals", "timeouts"):
        content[name] = content[name][:, None]
    columns = read_one(write(tmp_path / "b.hdf5", content))
    for t in (plain, columns):
        assert t.action.dtype == np.int32
        np.testing.assert_array_equal(t.action, np.arange(14))
        np.testing.assert_array_equal(t.reward, content["rewards"][:, 0])


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_flags_may_be_numbers(tmp_path, dtype):
    content = arrays()
    expected = read_one(write(tmp_path / "a.hdf5", content))
    for name in ("terminals", "timeouts"):
        content[name] = content[name].astype(dtype)
    got = read_one(write(tmp_path / "b.hdf5", content))
    np.testing.assert_array_equal(got.terminated, expected.terminated)
    np.testing.assert_array_equal(got.truncated, expected.truncated)


# Ends that the file does not mark.


@pytest.mark.parametrize("has_next", [False, True])
def test_without_timeouts_the_limit_marks_them(tmp_path, has_next):
    content = arrays(
        ((4, "timeout"), (2, "terminal"), (4, "timeout"), (4, "both"), (3, "terminal")), has_next
    )
    expected = read_one(write(tmp_path / "a.hdf5", content))
    content["timeouts"] = None
    got = read_one(write(tmp_path / "b.hdf5", content), max_episode_steps=4)
    for a, b in zip(got[:6], expected[:6], strict=True):
        np.testing.assert_array_equal(a, b)
    refuses(tmp_path, content, r"got no timeouts, expected them or max_episode_steps; pass")


def test_a_limit_below_one_is_refused(tmp_path):
    path = write(tmp_path / "a.hdf5", arrays())
    with pytest.raises(ValueError, match="got max_episode_steps 0, expected 1 or more"):
        d4rl.read(path, max_episode_steps=0)


def test_an_episode_beyond_the_limit_is_refused(tmp_path):
    content = arrays()
    assert len(read_one(write(tmp_path / "a.hdf5", content), max_episode_steps=5).reward) == 11
    refuses(
        tmp_path,
        content,
        r"probe-v2\.hdf5: episode 4: got 5 steps up to row 13, expected at most .* = 4",
        max_episode_steps=4,
    )


def test_an_end_that_is_not_marked_is_refused_or_cut(tmp_path):
    """As in files that were joined: row 3 is the last of an episode, and no flag says so."""
    content = arrays(has_next=True)
    expected = read_one(write(tmp_path / "a.hdf5", content))
    content["timeouts"][3] = False
    refuses(
        tmp_path,
        content,
        r"episode 0: next_observations\[3\] is not observations\[4\], .* at 1 rows an end is not",
    )
    got = read_one(write(tmp_path / "b.hdf5", content), cut_at_jumps=True)
    for a, b in zip(got[:6], expected[:6], strict=True):
        np.testing.assert_array_equal(a, b)


def test_rounding_is_no_jump(tmp_path):
    content = arrays(has_next=True)
    content["next_observations"] *= 1 + 1e-6
    assert len(read_one(write(tmp_path / "a.hdf5", content)).reward) == 14


@pytest.mark.parametrize("is_cut", [False, True])
def test_next_observations_made_by_a_shift_are_refused(tmp_path, is_cut):
    content = arrays(has_next=True)
    obs = content["observations"]
    content["next_observations"] = np.concatenate([obs[1:], obs[-1:]])
    refuses(
        tmp_path,
        content,
        r"episode 0: next_observations\[3\] is the first observation of the next episode",
        cut_at_jumps=is_cut,
    )


# Where it goes.


def test_shards_go_through_the_store(tmp_path):
    shards = d4rl.read(write(tmp_path / "a.hdf5", arrays((*EPISODES, UNFINISHED))), shard_steps=4)
    assert [len(s.trajectory.reward) for s in shards] == [3, 4, 4, 2]
    assert [s.meta["first_episode"] for s in shards] == [0, 1, 3, 4]
    assert {s.meta["dataset"] for s in shards} == {"a"}
    back = store.read(store.write(tmp_path / "store", shards))
    for got, expected in zip(back, shards, strict=True):
        assert got.meta == expected.meta
        for a, b in zip(got.trajectory[:6], expected.trajectory[:6], strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("limit", [4, 100])
@pytest.mark.parametrize("has_next", [False, True])
def test_windows_never_leave_their_episode(tmp_path, has_next, limit):
    path = write(tmp_path / "a.hdf5", arrays((*EPISODES, UNFINISHED), has_next))
    assert_windows_stay_in_their_episode(d4rl.read(path, shard_steps=limit), BOX)


# What is refused.


@pytest.mark.parametrize("name", ["observations", "actions", "rewards", "terminals"])
def test_a_missing_array_is_refused(tmp_path, name):
    content = arrays()
    content[name] = None
    refuses(tmp_path, content, rf"probe-v2\.hdf5: got .*infos.*, of which {name} are missing")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("name", "index", "shown"),
    [
        ("observations", (5, 1), r"episode 1: observations\[5, 1\]"),
        ("next_observations", (3, 0), r"episode 0: next_observations\[3, 0\]"),
        ("actions", (13, 1), r"episode 4: actions\[13, 1\]"),
        ("rewards", (7,), r"episode 2: rewards\[7\]"),
        ("terminals", (2,), r"terminals\[2\]"),
        ("timeouts", (3,), r"timeouts\[3\]"),
    ],
)
def test_numbers_that_are_not_finite_are_refused(tmp_path, name, index, shown, bad):
    content = arrays(has_next=True)
    content[name] = content[name].astype(np.float32)
    content[name][index] = bad
    refuses(tmp_path, content, rf"probe-v2\.hdf5: {shown} is {bad}, expected a (finite|flag)")


@pytest.mark.parametrize("name", [*arrays(has_next=True)])
@pytest.mark.parametrize("kind", ["object", "complex64", r"\|S3"])
def test_a_wrong_dtype_is_refused(tmp_path, name, kind):
    content = arrays(has_next=True)
    content[name] = {
        "object": np.array(["a", "b"], h5py.string_dtype()),
        "complex64": np.zeros((14, 2), np.complex64),
        r"\|S3": np.zeros((14, 2), "S3"),
    }[kind]
    refuses(tmp_path, content, rf"probe-v2\.hdf5: {name} has dtype {kind}, expected float or int")


@pytest.mark.parametrize("name", ["observations", "actions", "terminals", "timeouts", "next_observations"])
def test_unequal_lengths_are_refused(tmp_path, name):
    content = arrays(has_next=True)
    content[name] = content[name][1:]
    refuses(tmp_path, content, rf"probe-v2\.hdf5: {name} has 13 rows, expected 14, as many as")


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("observations", np.zeros(14), r"observations has shape \[14\], expected rank 2"),
        ("observations", np.zeros((14, 2, 2)), r"observations has shape \[14, 2, 2\], expected"),
        ("next_observations", np.zeros((14, 4)), r"next_observations has shape \[14, 4\], expect"),
        ("rewards", np.zeros((14, 2)), r"rewards has shape \[14, 2\], expected one scalar per row"),
        ("actions", np.zeros(14), r"actions is float64 of shape \[14\], expected reals as \[14, A"),
        ("actions", np.arange(14) - 3, r"episode 0: actions\[0\] is -3, expected a discrete"),
        ("terminals", np.arange(14), r"terminals\[2\] is 2, expected a flag, 0 or 1"),
        ("rewards", np.zeros(0), "rewards is empty, expected at least one row"),
        ("rewards", h5py.Empty("f4"), "rewards is no array"),
        ("timeouts", h5py.SoftLink("/terminals"), "timeouts is a link to elsewhere"),
        ("timeouts", h5py.SoftLink("/nowhere"), "timeouts is a link to elsewhere"),
        ("next_observations", h5py.ExternalLink("b.hdf5", "x"), "next_observations is a link to"),
    ],
)
def test_a_wrong_shape_or_value_is_refused(tmp_path, name, values, message):
    content = arrays(has_next=True)
    content[name] = values
    refuses(tmp_path, content, rf"probe-v2\.hdf5: .*{message}")


def test_a_file_of_which_nothing_is_known_is_refused(tmp_path):
    refuses(tmp_path, arrays(((1, "timeout"), (1, "nothing"))), "nothing is left")


def test_another_schema_is_refused(tmp_path):
    content = {"episode_0/rewards": np.zeros(3)}
    refuses(tmp_path, content, r"got episode_0, infos, metadata, expected .*jaxagent\.data\.minari")


@pytest.mark.parametrize("kind", ["half", "nothing", "text", "absent"])
def test_a_damaged_file_is_refused(tmp_path, kind):
    path = write(tmp_path / "probe-v2.hdf5", arrays())
    data = path.read_bytes()
    path.unlink()
    if kind != "absent":
        path.write_bytes({"half": data[: len(data) // 2], "nothing": b"", "text": b"x" * 99}[kind])
    with pytest.raises(StoreError, match=r"probe-v2\.hdf5: not a readable HDF5 file"):
        d4rl.read(path)


def test_without_h5py_the_error_says_what_to_install(tmp_path, monkeypatch):
    path = write(tmp_path / "a.hdf5", arrays())
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtra, match=r"pip install 'jaxagent\[datasets\]'"):
        d4rl.read(path)
