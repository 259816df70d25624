"""Trackers hear what metrics.jsonl says, at the true steps and times."""

import struct

import pytest

from envs.common.names import MissingExtra, UnknownName
from experiments import cli
from jaxagent.files import write_json
from jaxagent.report import loggers, trackers
from jaxagent.train import metrics_log

LINES = [
    {
        "stage": "train",
        "step": step,
        "env_steps": 3 * 32 * step,  # of three lanes
        "env_steps_per_second": 10.0,
        "train/loss": 1.0 / step,
        "train/return": [1.0 * step, None, 3.0 * step],
        "train/seen": [None, None, None],
        "chunk_seconds": 0.5,
        metrics_log.TIME: 1.7e9 + step,
    }
    for step in (2, 4)
]


@pytest.fixture
def run(tmp_path):
    """A run folder that has said two lines."""
    about = {"started": "now", "fingerprint": "f", "command": "jaxagent run x", "config": {"lr": 1.0}}
    write_json(tmp_path / "manifest.json", about | {"versions": {}, "device": {}})
    for line in LINES:
        metrics_log.append(tmp_path / "metrics.jsonl", line)
    return tmp_path


def test_a_line_is_read_by_lane_over_its_unit():
    now = trackers.said(LINES[0])
    assert (now.stage, now.unit, now.x, now.time) == ("train", "env_steps", 64, 1.7e9 + 2)  # of one lane
    assert now.means["train/return"] == 4.0
    assert "train/seen" not in now.means
    assert [lane.get("train/return") for lane in now.lanes] == [2.0, None, 6.0]


def events(folder):
    """(tag, value, step, time) of the scalars in a folder's event files."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in folder.glob("events.*"):
        content, at = path.read_bytes(), 0
        while at < len(content):
            (size,) = struct.unpack("<Q", content[at : at + 8])
            event = Event.FromString(content[at + 12 : at + 12 + size])
            found += [(v.tag, v.simple_value, event.step, event.wall_time) for v in event.summary.value]
            at += 16 + size
    return found


def test_tensorboard_has_env_steps_true_times_and_a_run_a_lane(run):
    for _ in range(2):  # made anew, and not twice
        trackers.export(["tensorboard"], run)
    told = events(run / "tensorboard")
    assert [x for x in told if x[0] == "train/train/return"] == [
        ("train/train/return", 4.0, 64, 1.7e9 + 2),
        ("train/train/return", 8.0, 128, 1.7e9 + 4),
    ]
    lanes = sorted(p.name for p in (run / "tensorboard").glob("lane-*"))
    assert lanes == ["lane-0", "lane-2"]
    assert events(run / "tensorboard" / "lane-2") == [
        ("train/train/return", 6.0, 64, 1.7e9 + 2),
        ("train/train/return", 12.0, 128, 1.7e9 + 4),
    ]


def test_what_a_stopped_run_does_again_stands_once_in_tensorboard(run):
    followed = trackers.follow(["tensorboard"], run, told_before=["tensorboard"])
    followed.tell(LINES[1])  # again
    followed.close(True)
    assert [x[2] for x in events(run / "tensorboard") if x[0] == "train/train/loss"] == [64, 128]


def test_a_tracker_that_fails_is_left_out_and_the_others_go_on(run, monkeypatch, capsys):
    heard = []

    def tell(line):
        if line["step"] == 4:
            raise ConnectionError("no network")

    opened = {
        "broken": lambda folder: 1 / 0,
        "flaky": lambda folder: trackers.Tracker(tell, lambda is_done: heard.append("closed")),
        "sound": lambda folder: trackers.Tracker(
            lambda line: heard.append(line["step"]), lambda is_done: heard.append(is_done)
        ),
    }
    monkeypatch.setattr(trackers, "OPENERS", opened)
    names = ["broken", "flaky", "sound", "sound"]  # twice is once
    followed = trackers.follow(names, run, told_before=names)
    for line in LINES:
        followed.tell(line)
    followed.close(False)
    assert heard == [2, 4, False]
    heard.clear()
    trackers.follow(names, run).close(True)  # what was said before is told, and a failure once
    assert heard == [2, 4, True]
    told = capsys.readouterr().err
    assert told.count("logger broken: ZeroDivisionError") == 2
    assert told.count("logger flaky: ConnectionError: no network") == 2


def test_what_is_not_there_is_refused(monkeypatch, capsys):
    with pytest.raises(UnknownName, match="wandb"):
        loggers.check_loggers(["wandbb"])
    monkeypatch.setattr(loggers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'jaxagent\[mlflow\]'"):
        loggers.check_loggers(["mlflow"])
    assert cli.main(["train", "ppo", "classic/CartPole-v1", "--logger", "trackio"]) == cli.USAGE
    assert "jaxagent[trackio]" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_mlflow_keeps_steps_and_times(run, monkeypatch, tmp_path):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    trackers.export(["mlflow"], run)
    client = mlflow.MlflowClient()
    (experiment,) = [e for e in client.search_experiments() if e.name == trackers.PROJECT]
    (found,) = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(found.info.run_id, "train/train/return/lane-2")
    assert [(m.value, m.step, m.timestamp) for m in history] == [
        (6.0, 64, 1_700_000_002_000),
        (12.0, 128, 1_700_000_004_000),
    ]
    trackers.follow(["mlflow"], run, told_before=["mlflow"]).close(False)  # goes on with the same run
    assert len(client.search_runs([experiment.experiment_id])) == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_wandb_writes_a_run_offline(run, monkeypatch, tmp_path):
    pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    trackers.export(["wandb"], run)
    (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    content, at, told = path.read_bytes(), 7, []  # a LevelDB log of one block, which begins with its kind
    assert len(content) < 2**15
    while at < len(content):
        size = int.from_bytes(content[at + 4 : at + 6], "little")
        record = Record.FromString(content[at + 7 : at + 7 + size])
        told += [{"/".join(i.nested_key) or i.key: i.value_json for i in record.history.item}]
        at += 7 + size
    told = [x for x in told if "train/env_steps" in x]
    assert [float(x["train/env_steps"]) for x in told] == [64.0, 128.0]
    assert [float(x["train/train/return"]) for x in told] == [4.0, 8.0]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_trackio_keeps_steps(run, monkeypatch, tmp_path):
    pytest.importorskip("trackio")
    monkeypatch.setenv("TRACKIO_PROJECT", tmp_path.parent.name)  # it lies where all of trackio's lie
    trackers.export(["trackio"], run)
    from trackio.sqlite_storage import SQLiteStorage

    (name,) = SQLiteStorage.get_runs(tmp_path.parent.name)
    logs = SQLiteStorage.get_logs(tmp_path.parent.name, name)
    assert [x["train/train/return"] for x in logs] == [4.0, 8.0]
    assert [x["step"] for x in logs] == [64, 128]
