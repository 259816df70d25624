"""A study carried out in a run folder: its stages, then what it tells, as `summary.json` and a page."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from jaxagent import folders
from jaxagent.files import write_json
from jaxagent.report import trackers
from jaxagent.report.html import write_report
from jaxagent.study.study import Study, stages, summary
from jaxagent.train import manifest, metrics_log
from jaxagent.train import run as runs
from jaxagent.train.checkpoint import ForeignCheckpoint
from jaxagent.train.emulator_loop import EmulatorError

# What a run may end in by itself; anything else is a bug and keeps its traceback.
ENDS = (runs.Diverged, runs.StageError, ForeignCheckpoint, EmulatorError, ValueError)


def execute(
    out: Path, study: Study, runtime: Any, *, quiet: bool = False, told_before: Collection[str] | None = None
) -> dict[str, Any]:
    """Run what is unfinished in `out`, a run that the caller holds; returns the content of its summary.

    The trackers that its manifest names follow it; those that are not among `told_before` (None: all are)
    hear first what it has said so far. Where it ends by one of `ENDS`, the page shows how far it came.
    """
    about = manifest.read(out)
    names = about.get("loggers", ())
    followed = trackers.follow(names, out, told_before=names if told_before is None else told_before)
    is_done = False
    try:
        ordered = stages(study, runtime.devices)
        if not study.resumes:
            _refuse_halves(out, ordered)
        options = {"chunks_per_save": runtime.chunks_per_save, "quiet": quiet, "tell": followed.tell}
        runs.run(out, ordered, resumes=study.resumes, **options)
        told = summary(study, out, about["preset"]) | _record(out, about, ordered)
        is_done = True
    except ENDS:
        write_report(out)
        raise
    finally:
        followed.close(is_done)
    write_json(out / "summary.json", told)
    folders.finish(out)
    write_report(out)
    return told


def _refuse_halves(out: Path, ordered: list[runs.Stage]) -> None:
    """Raise ValueError where a stage was stopped, whose environments went with their process."""
    for stage in ordered:
        half = (runs.stage_folder(out, stage.name) / "checkpoints").exists()
        if half and not runs.is_done(out, stage.name):
            raise ValueError(
                f"{out}: got stage {stage.name} half done, expected a whole one, as its environments lived "
                "in the process that was stopped; begin anew in another folder."
            )


def _record(out: Path, about: dict[str, Any], stages: list[runs.Stage]) -> dict[str, Any]:
    """What every summary holds beside its comparison."""
    done = {s.name: runs.read_done(out, s.name) for s in stages}
    return {
        **{key: about[key] for key in manifest.ASKED if key in about},
        # Stages that a kill interrupted count from their resume.
        "wall_seconds": sum(d["seconds"] for d in done.values()),
        "compile_seconds": sum(d["compile_seconds"] for d in done.values()),
        "recompiled_programs": sum(d.get("recompiled_programs", 0) for d in done.values()),
        "stage_seconds": {name: d["seconds"] for name, d in done.items()},
        "state_sha256": done[stages[-1].name]["chain_sha256"],
        "metrics_sha256": metrics_log.digest(out / "metrics.jsonl"),
    }
