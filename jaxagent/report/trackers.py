"""Experiment trackers, told every line of metrics.jsonl, which stays the truth.

The x axis is the stage's own unit (env steps, tokens, transitions) of one lane, times are those at which a
chunk ended; of several lanes each is told beside their mean. What a stopped run does again after its last
checkpoint, it says again.
"""

import hashlib
import math
import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxagent.report.loggers import check_loggers
from jaxagent.train import manifest, metrics_log

Line = Mapping[str, Any]
PROJECT = "jaxagent"


class Tracker(NamedTuple):
    """One way to follow a run."""

    tell: Callable[[Line], None]
    close: Callable[[bool], None]  # whether the run was finished


class Said(NamedTuple):
    """A line, as trackers take it."""

    stage: str
    unit: str  # of its x axis, such as env_steps
    x: float  # of one lane
    time: float  # seconds since 1970
    means: dict[str, float]  # by name, of all lanes
    lanes: list[dict[str, float]]  # by name, of each lane


def said(line: Line) -> Said:
    """What a line says; values that nothing was seen of are left out."""
    unit = next((name.removesuffix("_per_second") for name in line if name.endswith("_per_second")), "step")
    told = {
        k: v for k, v in line.items() if k not in ("stage", "step", unit, metrics_log.TIME) and v is not None
    }
    several = {name: value for name, value in told.items() if isinstance(value, list)}
    means = {name: _mean(value) for name, value in told.items()}
    width = max((len(value) for value in several.values()), default=0)
    lanes = [{n: v[i] for n, v in several.items() if i < len(v) and v[i] is not None} for i in range(width)]
    known = {name: value for name, value in means.items() if math.isfinite(value)}
    return Said(
        line["stage"], unit, line[unit] / max(width, 1), line.get(metrics_log.TIME, 0.0), known, lanes
    )


def _mean(value: Any) -> float:
    seen = [x for x in np.ravel(value) if x is not None]
    return float(np.mean(seen)) if seen else math.nan


def follow(names: Sequence[str], folder: Path, *, told_before: Collection[str] = ()) -> Tracker:
    """All trackers of a run as one; those not `told_before` hear first what the run has said so far.

    Whatever a tracker raises is told once and ends it: no run is lost by a tracker.
    """
    opened: dict[str, Tracker] = {}

    def attempt(name: str, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except Exception as error:  # of a network, a disk, an account
            opened.pop(name, None)
            print(f"logger {name}: {type(error).__name__}: {error}; it is left out", file=sys.stderr)
            return None

    def tell(line: Line) -> None:
        for name, tracker in list(opened.items()):
            attempt(name, lambda tracker=tracker: tracker.tell(line))

    def close(is_done: bool) -> None:
        for name, tracker in list(opened.items()):
            attempt(name, lambda tracker=tracker: tracker.close(is_done))

    def tell_all(tracker: Tracker) -> None:
        for line in metrics_log.read(folder / "metrics.jsonl"):
            tracker.tell(line)

    for name in dict.fromkeys(names):
        tracker = attempt(name, lambda name=name: OPENERS[name](folder))
        if tracker is not None:
            opened[name] = tracker
            if name not in told_before or name == "tensorboard":  # whose files are made anew
                attempt(name, lambda tracker=tracker: tell_all(tracker))
    return Tracker(tell, close)


def export(names: Sequence[str], folder: Path) -> None:
    """Tell trackers all of a run, finished or not."""
    check_loggers(names)
    follow(names, folder).close((folder / "summary.json").exists())


def _open_tensorboard(folder: Path) -> Tracker:
    """Events in `folder/tensorboard`; each lane is a run of its own there, under the same tags.

    They are written anew at the beginning and at the end, as what a stopped run did again stands there twice.
    """
    from tensorboardX import SummaryWriter

    target = folder / "tensorboard"
    writers: dict[str, Any] = {}

    def clear() -> None:
        for old in target.rglob("events.*") if target.exists() else ():
            old.unlink()
        writers.clear()

    def write(place: str, about: Said, values: Mapping[str, float]) -> None:
        if values and place not in writers:
            writers[place] = SummaryWriter(str(target / place))
        for name, value in values.items():
            writers[place].add_scalar(f"{about.stage}/{name}", value, round(about.x), walltime=about.time)

    def tell(line: Line) -> None:
        about = said(line)
        write("", about, about.means)
        for number, values in enumerate(about.lanes):
            write(f"lane-{number}", about, values)
        for writer in writers.values():
            writer.flush()

    def all_anew() -> None:
        clear()
        for line in metrics_log.read(folder / "metrics.jsonl"):
            tell(line)

    def close(is_done: bool) -> None:
        del is_done
        for writer in writers.values():
            writer.close()
        all_anew()
        for writer in writers.values():
            writer.close()

    clear()
    return Tracker(tell, close)


def _flat(about: Said) -> dict[str, float]:
    """Values by name: of all lanes, and of each."""
    values = {f"{about.stage}/{name}": value for name, value in about.means.items()}
    for number, lane in enumerate(about.lanes):
        values |= {f"{about.stage}/{name}/lane-{number}": value for name, value in lane.items()}
    return values


def identity(folder: Path) -> str:
    """What a run is known by, where it goes on after a stop."""
    about = manifest.read(folder)
    text = f"{about['started']} {about['fingerprint']} {folder.resolve()}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _open_wandb(folder: Path) -> Tracker:
    import wandb

    about, known = manifest.read(folder), set[str]()
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        id=identity(folder),
        name=folder.name,
        resume="allow",
        config={key: about[key] for key in ("config", "versions", "device", "fingerprint", "command")},
        settings=wandb.Settings(silent=True),
    )

    def tell(line: Line) -> None:
        now = said(line)
        axis = f"{now.stage}/{now.unit}"
        if now.stage not in known:
            known.add(now.stage)
            run.define_metric(axis)
            run.define_metric(f"{now.stage}/*", step_metric=axis)
        run.log(_flat(now) | {axis: now.x})

    return Tracker(tell, lambda is_done: run.finish(exit_code=0 if is_done else 1))


def _open_mlflow(folder: Path) -> Tracker:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

    client, about, own = MlflowClient(), manifest.read(folder), identity(folder)
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
    found = client.get_experiment_by_name(name)
    experiment = found.experiment_id if found else client.create_experiment(name)
    runs = client.search_runs([experiment], f"tags.`jaxagent.id` = '{own}'")
    if runs:
        run = runs[0].info.run_id
        client.update_run(run, status="RUNNING")
    else:
        run = client.create_run(experiment, tags={"jaxagent.id": own}, run_name=folder.name).info.run_id
        asked = {"command": about["command"], "fingerprint": about["fingerprint"]}
        client.log_batch(run, params=[Param(key, str(value)[:500]) for key, value in asked.items()])

    def tell(line: Line) -> None:
        now = said(line)
        values = [Metric(_safe(k), v, int(now.time * 1000), round(now.x)) for k, v in _flat(now).items()]
        for start in range(0, len(values), 1000):  # as many as a server takes
            client.log_batch(run, metrics=values[start : start + 1000])

    def close(is_done: bool) -> None:
        client.set_terminated(run, status="FINISHED" if is_done else "FAILED")

    return Tracker(tell, close)


def _safe(name: str) -> str:
    """A name of characters that mlflow takes."""
    return "".join(c if c.isalnum() or c in "_-. /" else "_" for c in name)


def _open_trackio(folder: Path) -> Tracker:
    import trackio

    config = {"command": manifest.read(folder)["command"], "folder": str(folder)}
    name = f"{folder.name}-{identity(folder)}"
    project = os.environ.get("TRACKIO_PROJECT", PROJECT)
    run = trackio.init(project, name=name, resume="allow", config=config, embed=False, auto_log_cpu=False)

    def tell(line: Line) -> None:
        now = said(line)
        run.log(_flat(now) | {f"{now.stage}/{now.unit}": now.x}, step=round(now.x))

    return Tracker(tell, lambda is_done: run.finish())


OPENERS = {
    "tensorboard": _open_tensorboard,
    "wandb": _open_wandb,
    "mlflow": _open_mlflow,
    "trackio": _open_trackio,
}
