"""The chunk loop on a model of one number: exact resume, signals, divergence, corruption, locks."""

import json
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxagent import keys
from jaxagent.folders import Locked, lock
from jaxagent.train import checkpoint, metrics_log, parallel
from jaxagent.train import run as runs
from jaxagent.train.parallel import Mean
from jaxagent.types import Loop


def make_stages(num_chunks=4, poison=None, on_chunk=lambda state: None):
    """One trained stage and one that reads its artefact."""

    def update(learner, shards, data, shard_ids, key):
        noise = jnp.mean(jax.vmap(jax.random.normal)(jax.random.split(key, shards.shape[0])))
        learner = {"w": learner["w"] * 0.9 + noise, "n": learner["n"] + 1}
        if poison is not None:
            learner["w"] = jnp.where(learner["n"] == poison, jnp.nan, learner["w"])
        metrics = {
            "train/loss": Mean(learner["w"], jnp.ones(())),
            "train/none": Mean(0.0 * noise, 0.0 * noise),
        }
        return learner, shards + 1, metrics

    def prepare(folder):
        compiled = parallel.chunked(Loop((), update), 3, 1)

        def chunk(state):
            on_chunk(state)
            return compiled(state, keys.derive(0, "toy"))

        def finish(state, place):
            (place / "weights.txt").write_text(f"{float(state.learner['w']):.9g}")
            return {"w": float(state.learner["w"])}

        def init():
            learner = {"w": jnp.ones(()), "n": jnp.zeros((), jnp.int32)}
            return parallel.first_state(learner, jnp.zeros((4, 2)))

        return runs.Work(finish, init, chunk, num_chunks, 3, {"tokens": 5})

    def prepare_second(folder):
        def finish(state, place):
            text = (runs.stage_folder(folder, "first") / "weights.txt").read_text()
            return {"read": text}

        return runs.Work(finish)

    return [runs.Stage("first", prepare), runs.Stage("second", prepare_second)]


def go(folder, stages, **changes):
    folder.mkdir(exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps({"fingerprint": "a1"}))
    runs.run(folder, stages, **({"chunks_per_save": 1, "quiet": True} | changes))


def result(folder):
    chain = runs.read_done(folder, "second")["chain_sha256"]
    return chain, metrics_log.digest(folder / "metrics.jsonl")


@pytest.fixture
def reference(tmp_path):
    go(tmp_path / "reference", make_stages())
    return result(tmp_path / "reference")


def test_a_run_logs_every_chunk_once(tmp_path):
    go(tmp_path, make_stages())
    lines = metrics_log.read(tmp_path / "metrics.jsonl")
    assert [x["step"] for x in lines] == [3, 6, 9, 12]
    assert [x["tokens"] for x in lines] == [15, 30, 45, 60]
    assert all(x["train/none"] is None for x in lines)
    clocks = {k for k in lines[0] if metrics_log.is_clock(k)}
    assert clocks == {"chunk_seconds", "tokens_per_second", metrics_log.TIME}


def test_every_line_is_told_as_it_is_written(tmp_path):
    heard = []
    go(tmp_path, make_stages(), tell=heard.append)
    assert heard == metrics_log.read(tmp_path / "metrics.jsonl")


def test_a_finished_stage_names_the_pictures_that_it_left(tmp_path, capsys):
    pictures = tmp_path / "pictures"

    def draw(place):
        pictures.mkdir(exist_ok=True)
        for name in ("b.gif", "a.gif"):
            (pictures / name).write_text(str(place))
        return {}

    drawing = [runs.Stage("draw", lambda folder: runs.Work(lambda state, place: draw(place)))]
    go(tmp_path, drawing, quiet=False)
    assert f"see {pictures / 'a.gif'} and 1 more" in capsys.readouterr().out
    (tmp_path / "stages" / "draw" / "done.json").unlink()  # redone, it writes the same names
    go(tmp_path, drawing, quiet=False)
    assert "and 1 more" in capsys.readouterr().out


def test_programs_are_dropped_between_stages_where_there_are_too_many(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(runs, "relieve", lambda: asked.append(None))
    go(tmp_path, make_stages())
    assert len(asked) == 2  # after each stage


def test_programs_after_the_first_chunk_are_counted(tmp_path, capsys):
    go(tmp_path / "clean", make_stages())
    assert runs.read_done(tmp_path / "clean", "first")["recompiled_programs"] == 0
    grown = []

    def compile_anew(state):
        grown.append(0)
        jax.jit(lambda x: x + 1)(jnp.zeros(len(grown)))

    go(tmp_path / "dirty", make_stages(on_chunk=compile_anew), quiet=False)
    assert runs.read_done(tmp_path / "dirty", "first")["recompiled_programs"] >= 3
    assert "compiled after the first chunk" in capsys.readouterr().out


def test_mfu_is_of_the_matrix_product_and_a_clock(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "matmul_rate", lambda dtype: {"float32": 5.0}[dtype])
    stages = make_stages()
    prepare = stages[0].prepare

    def with_flops(folder):
        return prepare(folder)._replace(units_per_update={"flops": 10}, dtype="float32")

    go(tmp_path, [stages[0]._replace(prepare=with_flops), *stages[1:]])
    for line in metrics_log.read(tmp_path / "metrics.jsonl"):
        assert line["mfu"] == pytest.approx(line["flops_per_second"] / 5.0)
    assert metrics_log.is_clock("mfu")


@pytest.mark.parametrize("crash_at", [0, 3, 6, 9])
@pytest.mark.parametrize("chunks_per_save", [1, 2])
def test_resume_after_a_crash_is_bitwise(tmp_path, reference, crash_at, chunks_per_save):
    class Crash(Exception):
        pass

    def crash(state):
        if int(state.step) == crash_at:
            raise Crash

    with pytest.raises(Crash):
        go(tmp_path, make_stages(on_chunk=crash), chunks_per_save=chunks_per_save)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"stage": "first", "st')  # torn by the crash
    go(tmp_path, make_stages())
    assert result(tmp_path) == reference


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_at_the_chunk_border(tmp_path, reference, number):
    def interrupt(state):
        if int(state.step) == 3:
            os.kill(os.getpid(), number)

    with pytest.raises(SystemExit) as stopped:
        go(tmp_path, make_stages(on_chunk=interrupt), chunks_per_save=100)
    assert stopped.value.code == 128 + number
    assert checkpoint.steps(tmp_path / "stages/first/checkpoints") == [6]
    go(tmp_path, make_stages())
    assert result(tmp_path) == reference


def test_divergence_names_the_update_and_keeps_the_checkpoint(tmp_path):
    with pytest.raises(runs.Diverged, match=r"by update 8 \(chunk 7-9\)"):
        go(tmp_path, make_stages(poison=8))
    assert checkpoint.steps(tmp_path / "stages/first/checkpoints")[-1] == 6
    assert not (tmp_path / "stages/first/done.json").exists()


def test_a_flipped_byte_is_named_and_the_previous_checkpoint_used(tmp_path, reference, capsys):
    class Crash(Exception):
        pass

    def crash(state):
        if int(state.step) == 9:
            raise Crash

    with pytest.raises(Crash):
        go(tmp_path, make_stages(on_chunk=crash))
    newest = tmp_path / "stages/first/checkpoints/step_00000009"
    data_files = [p for p in newest.rglob("*") if p.is_file() and "/d/" in str(p)]
    target = max(data_files, key=lambda p: p.stat().st_size)
    content = bytearray(target.read_bytes())
    content[len(content) // 2] ^= 1
    target.write_bytes(content)
    go(tmp_path, make_stages())
    assert str(target) in capsys.readouterr().err
    assert result(tmp_path) == reference


@pytest.mark.parametrize("damage", ["truncate", "delete", "manifest"])
def test_other_damage_falls_back_too(tmp_path, damage):
    state = {"a": jnp.arange(5000.0), "b": jnp.ones((3,), jnp.int32)}
    for step in (1, 2):
        checkpoint.save(tmp_path, step, jax.tree.map(lambda x, s=step: x * s, state), "a1")
    largest = max((tmp_path / "step_00000002").rglob("*"), key=lambda p: p.stat().st_size)
    if damage == "truncate":
        largest.write_bytes(largest.read_bytes()[:10])
    elif damage == "delete":
        largest.unlink()
    else:
        (tmp_path / "step_00000002.json").write_text("{")
    step, restored = checkpoint.restore_latest(tmp_path, state, "a1")
    assert step == 1
    assert checkpoint.digest(restored) == checkpoint.digest(state)


def test_a_checkpoint_of_another_program_is_refused(tmp_path):
    checkpoint.save(tmp_path, 1, {"a": jnp.ones((2,))}, "a1")
    for other in ({"b": jnp.ones((2,))}, {"a": jnp.ones((3,))}, {"a": jnp.ones((2,), jnp.int32)}):
        with pytest.raises(checkpoint.CheckpointError):
            checkpoint.restore(tmp_path, 1, other, "a1")


def test_a_checkpoint_of_another_configuration_is_refused_and_stays(tmp_path):
    state = {"a": jnp.ones((2,))}
    checkpoint.save(tmp_path, 1, state, "a1")
    with pytest.raises(checkpoint.ForeignCheckpoint, match=r"a1, expected b2"):
        checkpoint.restore_latest(tmp_path, state, "b2")
    assert checkpoint.restore_latest(tmp_path, state, "a1")[0] == 1


def test_a_stage_that_is_redone_sweeps_what_a_kill_left(tmp_path):
    go(tmp_path / "whole", make_stages())
    left = tmp_path / "killed/stages/second/.jaxagent-new-store-abcd1234"
    left.mkdir(parents=True)
    (left / "shard_0000.npz").write_text("half")
    go(tmp_path / "killed", make_stages())
    assert result(tmp_path / "killed") == result(tmp_path / "whole")


def test_two_checkpoints_stay(tmp_path):
    for step in range(1, 5):
        checkpoint.save(tmp_path, step, {"a": jnp.ones(())}, "a1")
    assert checkpoint.steps(tmp_path) == [3, 4]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "step_00000003",
        "step_00000003.json",
        "step_00000004",
        "step_00000004.json",
    ]


def test_a_changed_artefact_is_refused(tmp_path):
    go(tmp_path, make_stages())
    (tmp_path / "stages/first/weights.txt").write_text("0")
    with pytest.raises(runs.StageError, match=r"weights\.txt"):
        go(tmp_path, make_stages())


def test_a_finished_run_does_nothing_again(tmp_path, reference):
    go(tmp_path, make_stages())
    go(tmp_path, make_stages(on_chunk=lambda state: pytest.fail("worked again")))
    assert result(tmp_path) == reference


def test_two_processes_cannot_write_one_run(tmp_path):
    program = "import sys; from pathlib import Path; from jaxagent.folders import lock, Locked\n"
    program += "try:\n    with lock(Path(sys.argv[1])): print('entered')\n"
    program += "except Locked as error: print(error)"
    command = [sys.executable, "-c", program, str(tmp_path)]
    run = {"capture_output": True, "text": True, "check": True, "cwd": Path(__file__).parents[2]}
    with lock(tmp_path):
        other = subprocess.run(command, **run)
        assert f"in use by process {os.getpid()}" in other.stdout
    assert subprocess.run(command, **run).stdout == "entered\n"
    assert issubclass(Locked, RuntimeError)


def test_the_digest_ignores_clocks_only(tmp_path):
    line = {"stage": "a", "step": 1, "train/loss": 0.5, "chunk_seconds": 1.0, "tokens_per_second": 2}
    digests = []
    for changes in ({}, {"chunk_seconds": 9.0, "tokens_per_second": 3}, {"train/loss": 0.6}):
        path = tmp_path / f"{len(digests)}.jsonl"
        metrics_log.append(path, line | changes)
        digests.append(metrics_log.digest(path))
    assert digests[0] == digests[1] != digests[2]


def test_metrics_of_lanes_become_lists():
    mean = Mean(np.array([2.0, 0.0]), np.array([4.0, 0.0]))
    assert metrics_log.values({"a": mean, "b": Mean(np.float32(3), np.float32(2))}) == {
        "a": [0.5, None],
        "b": 1.5,
    }


def test_warnings_are_errors_here():
    with pytest.raises(UserWarning):
        warnings.warn("a warning", UserWarning, stacklevel=1)


@pytest.mark.parametrize(("resumes", "said"), [(True, "`jaxagent resume` continues"), (False, "begin anew")])
def test_a_stop_says_what_comes_of_the_run(resumes, said, capsys):
    stop = runs.Stop(resumes=resumes)
    stop.restore()
    stop.received = 2
    with pytest.raises(SystemExit):
        stop.exit_if_received()
    assert said in capsys.readouterr().out
