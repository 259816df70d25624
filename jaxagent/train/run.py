"""The chunk loop: Python owns time, XLA owns work.

A run is an ordered list of named stages. A stage loops over compiled chunks of a fixed number of
updates, or only does something once (`num_chunks = 0`). Saving, logging, progress and signals
happen at chunk borders; a done-marker with hashes ends a stage; resume starts at the first stage
without one, from its newest verified checkpoint, and continues bitwise as if never stopped.
"""

import hashlib
import json
import shutil
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxagent.files import sha256_file, write_json
from jaxagent.folders import sweep
from jaxagent.train import checkpoint, manifest, metrics_log
from jaxagent.train.clock import CompileClock
from jaxagent.train.mappings import relieve
from jaxagent.train.parallel import ChunkReport, check_replicas
from jaxagent.train.peak import matmul_rate
from jaxagent.train.progress import Progress
from jaxagent.types import RunState


class Diverged(RuntimeError):
    """Numbers stopped being finite; the last good checkpoint stays."""


class StageError(RuntimeError):
    """A finished stage whose artefacts changed, or which belongs to another run."""


class Work(NamedTuple):
    """The work of a stage once its inputs exist."""

    finish: Callable[[RunState, Path], dict[str, Any]]  # writes artefacts, returns a small summary
    init: Callable[[], RunState] | None = None
    chunk: Callable[[RunState], tuple[RunState, ChunkReport]] | None = None
    num_chunks: int = 0
    updates_per_chunk: int = 0
    units_per_update: Mapping[str, int] = MappingProxyType({})  # e.g. {"tokens": 4096}
    dtype: str = ""  # of the matrix products whose share of the peak, MFU, is told; "": of none


class Stage(NamedTuple):
    """A named part of a run; `prepare(run folder)` is called when the stage starts."""

    name: str
    prepare: Callable[[Path], Work]


class Stop:
    """First SIGINT or SIGTERM: stop at the next chunk border. Second: at once."""

    def __init__(self, *, resumes: bool = True) -> None:
        self.received: int | None = None
        anew = "its environments go with this process: begin anew."
        self._then = "`jaxagent resume` continues from here." if resumes else anew
        is_main = threading.current_thread() is threading.main_thread()  # no other may catch them
        caught = (signal.SIGINT, signal.SIGTERM) if is_main else ()
        self._old = {s: signal.signal(s, self._receive) for s in caught}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.received is not None:
            raise SystemExit(128 + number)
        self.received = number

    def exit_if_received(self) -> None:
        """Leave the process with 130 (SIGINT) or 143 (SIGTERM)."""
        if self.received is not None:
            print(f"\nstopped at a chunk border; {self._then}")
            raise SystemExit(128 + self.received)

    def restore(self) -> None:
        """Give the signals back."""
        for number, handler in self._old.items():
            signal.signal(number, handler)


class _Run(NamedTuple):
    """The values that all stages of a run share."""

    folder: Path
    fingerprint: str  # of its configuration
    chunks_per_save: int
    stop: Stop
    clock: CompileClock
    quiet: bool
    tell: Callable[[dict[str, Any]], None]


def unheard(line: dict[str, Any]) -> None:
    """Tell nobody."""
    del line


def run(
    folder: Path,
    stages: list[Stage],
    *,
    chunks_per_save: int,
    quiet: bool = False,
    tell: Callable[[dict[str, Any]], None] = unheard,
    resumes: bool = True,
) -> None:
    """Run all unfinished stages in `folder`, a run that the caller holds (`jaxagent.folders`).

    `tell` hears every line of the metrics file once it is written; a run that does not resume says so where
    it is stopped.
    Raises `Diverged`, `StageError`, `ForeignCheckpoint`, or SystemExit after a signal.
    """
    fingerprint = manifest.read(folder)["fingerprint"]
    stop, before = Stop(resumes=resumes), ""
    run = _Run(folder, fingerprint, chunks_per_save, stop, CompileClock(), quiet, tell)
    try:
        for stage in stages:
            if not is_done(folder, stage.name):
                _run_stage(run, stage, before)
                relieve()
            before = read_done(folder, stage.name)["chain_sha256"]
    finally:
        stop.restore()


def stage_folder(folder: Path, name: str) -> Path:
    """Where a stage keeps its checkpoints and artefacts."""
    return folder / "stages" / name


def read_done(folder: Path, name: str) -> dict[str, Any]:
    """The done-marker of a stage: summary, state hash, artefact hashes, seconds.

    Raises `StageError` where a run of another configuration wrote it.
    """
    path = stage_folder(folder, name) / "done.json"
    done, expected = json.loads(path.read_text()), manifest.read(folder)["fingerprint"]
    if done.get("fingerprint") != expected:
        raise StageError(
            f"{path}: got a stage of configuration {done.get('fingerprint')}, expected {expected} "
            "of the manifest; do not mix run folders."
        )
    return done


def is_done(folder: Path, name: str) -> bool:
    """Whether a stage is finished; raises `StageError` if one of its artefacts changed since."""
    place = stage_folder(folder, name)
    if not (place / "done.json").exists():
        return False
    for artefact, expected in read_done(folder, name)["artefacts"].items():
        path = place / artefact
        if not path.is_file() or sha256_file(path) != expected:
            raise StageError(
                f"{path}: missing or changed since stage {name} finished; delete "
                f"{place / 'done.json'} to redo the stage."
            )
    return True


def _run_stage(run: _Run, stage: Stage, before: str) -> None:
    folder, stop, clock = run.folder, run.stop, run.clock
    place = stage_folder(folder, stage.name)
    place.mkdir(parents=True, exist_ok=True)
    sweep(place)
    log = folder / "metrics.jsonl"
    start, compiled_before = time.perf_counter(), clock.seconds
    drawn = _pictures(folder)
    work = stage.prepare(folder)
    progress = Progress(stage.name, work.num_chunks * work.updates_per_chunk, clock, run.quiet)
    state, first_chunk = _restore(run, place / "checkpoints", stage.name, work)
    recompiled = 0  # programs after the first chunk, which are a bug: shapes or types that change
    for index in range(first_chunk, work.num_chunks):
        programs = clock.programs
        state, line = _run_chunk(state, work, stage.name)
        metrics_log.append(log, line)
        progress.update(line)
        run.tell(line)
        recompiled += clock.programs - programs if index > first_chunk else 0
        stop_now = stop.received is not None
        if stop_now or (index + 1) % run.chunks_per_save == 0 or index + 1 == work.num_chunks:
            metrics_log.sync(log)
            checkpoint.save(place / "checkpoints", int(state.step), state, run.fingerprint)
        stop.exit_if_received()
    summary = work.finish(state, place)
    seconds = time.perf_counter() - start
    state_sha256, artefacts = checkpoint.digest(state), _hash_artefacts(place)
    chain = hashlib.sha256(before.encode())
    chain.update(json.dumps([stage.name, state_sha256, artefacts, summary]).encode())
    write_json(
        place / "done.json",
        {
            "fingerprint": run.fingerprint,
            "summary": summary,
            "state_sha256": state_sha256,
            "artefacts": artefacts,
            "chain_sha256": chain.hexdigest(),  # of this stage and all before it
            "seconds": seconds,
            "compile_seconds": clock.seconds - compiled_before,
            "recompiled_programs": recompiled,
        },
    )
    pictures = sorted(path for path, _ in _pictures(folder) - drawn)
    progress.close(seconds, clock.seconds - compiled_before, recompiled, pictures)
    stop.exit_if_received()


def _pictures(folder: Path) -> set[tuple[Path, int]]:
    """The run's pictures, and when each was written."""
    return {(path, path.stat().st_mtime_ns) for path in folder.glob("pictures/*")}


def _restore(run: _Run, place: Path, name: str, work: Work) -> tuple[Any, int]:
    """State to go on from and the number of chunks already done; cuts the log to match."""
    log = run.folder / "metrics.jsonl"
    if work.init is None:
        metrics_log.truncate(log, name, -1)
        return (), 0
    first = work.init()
    restored = checkpoint.restore_latest(place, first, run.fingerprint)
    step, state = restored if restored else (0, first)
    metrics_log.truncate(log, name, step)
    return jax.tree.map(jax.numpy.asarray, state), step // work.updates_per_chunk


def _run_chunk(state: RunState, work: Work, name: str) -> tuple[RunState, dict[str, Any]]:
    """The state after a chunk, and the line of the metrics file."""
    assert work.chunk is not None
    start, first = time.perf_counter(), int(state.step)
    state, report = work.chunk(state)
    report = jax.device_get(report)
    seconds = time.perf_counter() - start
    check_replicas(report.checksums)
    _check_finite(report, name, first)
    step = int(state.step)
    line = {"stage": name, "step": step}
    for unit, count in work.units_per_update.items():
        line[unit] = step * count
        line[f"{unit}_per_second"] = (step - first) * count / seconds
    if work.dtype:
        num_devices = len(report.checksums)
        line["mfu"] = line["flops_per_second"] / (matmul_rate(work.dtype) * num_devices)
    line |= metrics_log.values(report.metrics)
    return state, line | {"chunk_seconds": seconds, metrics_log.TIME: time.time()}


def _check_finite(report: ChunkReport, name: str, first: int) -> None:
    is_finite = np.asarray(report.is_finite)
    if not is_finite.all():
        bad = first + int(np.argmin(is_finite))
        raise Diverged(
            f"stage {name}: a metric or parameter is not finite by update {bad + 1} (chunk "
            f"{first + 1}-{first + len(is_finite)}). A loss shows a parameter an update late, and "
            "what no loss reads shows at the chunk's end. The checkpoint before it is kept; lower "
            "the learning rate, or look at the data up to that update."
        )


def _hash_artefacts(place: Path) -> dict[str, str]:
    """Hashes of everything the stage left, checkpoints and partial files excepted."""
    files = (p for p in sorted(place.rglob("*")) if p.is_file())
    wanted = (p for p in files if p.name != "done.json" and "checkpoints" not in p.parts)
    return {str(p.relative_to(place)): sha256_file(p) for p in wanted}


def discard_checkpoints(folder: Path, name: str) -> None:
    """Delete the checkpoints of a finished stage."""
    shutil.rmtree(stage_folder(folder, name) / "checkpoints", ignore_errors=True)
