"""Nothing that is not ours is deleted, and one run has one lock."""

import dataclasses
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from experiments import cli, session
from experiments.configs import pasta, quickstart
from jaxagent import folders
from jaxagent.config import fingerprint
from jaxagent.data import store
from jaxagent.folders import Locked, NotOurs
from jaxagent.train import manifest
from jaxagent.train import run as runs

ROOT = Path(__file__).parents[1]
RUN = ["run", "quickstart", "--preset", "smoke", "--out"]


def tree(folder):
    """Everything below a folder: what a refused command must leave as it was."""
    below = sorted(folder.rglob("*"))
    return {p: p.read_bytes() if p.is_file() else os.path.realpath(p) for p in below}


def make_run(folder, kind="run", config=quickstart.SMOKE, **extra):
    """A folder as a finished run leaves it."""
    about = {"experiment": "quickstart", "preset": "smoke", "fingerprint": fingerprint(config)}
    files = {
        "manifest.json": json.dumps({"jaxagent": kind, **about} | extra),
        "metrics.jsonl": '{"stage": "first", "step": 1}\n',
        "stages/first/done.json": "{}",
        "policies/finetune--CartPole-v1/policy.json": "{}",
        "summary.json": "{}",
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def others_files(place):
    (place / "sub").mkdir(parents=True)
    (place / "thesis.tex").write_text("ten years")
    (place / "sub/data.csv").write_text("1,2")
    return place


def lost_manifest(place):
    (make_run(place) / "manifest.json").unlink()
    return place


def linked(place):
    place.symlink_to(others_files(place.with_name("elsewhere")))
    return place


def linked_run(place):
    place.symlink_to(make_run(place.with_name("elsewhere")))
    return place


def webs_manifest(place):
    place.mkdir()
    (place / "manifest.json").write_text('{"name": "a web page"}')
    return place


def older_run(place):
    make_run(place)
    about = json.loads((place / "manifest.json").read_text())
    del about["jaxagent"]
    (place / "manifest.json").write_text(json.dumps(about))
    return place


def a_file(place):
    place.write_text("a letter")
    return place


PLACES = {
    "others' files": others_files,
    "lost manifest": lost_manifest,
    "a folder of runs": lambda place: make_run(place / "one").parent,
    "inside a run": lambda place: make_run(place) / "policies",
    "new, inside a run": lambda place: make_run(place) / "again",
    "a grid": lambda place: make_run(place, "grid"),
    "a link": linked,
    "a link to a run": linked_run,
    "another's manifest": webs_manifest,
    "an older run": older_run,
    "a file": a_file,
}


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]], ids=["", "overwrite"])
@pytest.mark.parametrize("kind", PLACES)
def test_a_folder_that_is_not_ours_is_refused_and_left_alone(tmp_path, capsys, kind, overwrite):
    place = PLACES[kind](tmp_path / "place")
    before = tree(tmp_path)
    assert cli.main([*RUN, str(place), *overwrite]) == cli.USAGE
    assert str(place) in capsys.readouterr().err
    assert tree(tmp_path) == before


@pytest.mark.parametrize("kind", ["others' files", "lost manifest", "new, inside a run"])
def test_a_grid_does_not_take_it_either(tmp_path, kind):
    place = PLACES[kind](tmp_path / "place")
    before = tree(tmp_path)
    command = ["ablate", "pasta", "--preset", "smoke", "--overwrite", "--out", str(place)]
    assert cli.main(command) == cli.USAGE
    assert tree(tmp_path) == before


def test_it_is_refused_before_jax_is_imported(tmp_path):
    from test_cli import GUARD

    others_files(tmp_path / "place")
    result = subprocess.run(
        [sys.executable, "-c", GUARD, *RUN, str(tmp_path / "place")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    assert result.returncode == cli.USAGE, result.stderr
    assert "sub, thesis.tex" in result.stderr


def test_here_is_not_a_place(tmp_path, monkeypatch):
    make_run(tmp_path / "runs/one")
    monkeypatch.chdir(tmp_path)
    before = tree(tmp_path)
    for place in (".", "runs", "runs/", "./runs/../runs"):
        assert cli.main([*RUN, place]) == cli.USAGE
    assert tree(tmp_path) == before


def test_a_run_needs_overwrite_and_the_hint_says_resume(tmp_path, capsys):
    make_run(tmp_path / "place")
    assert cli.main([*RUN, str(tmp_path / "place")]) == cli.USAGE
    assert "jaxagent resume" in capsys.readouterr().err


def make_grid(out, cells):
    make_run(out, "grid", pasta.SMOKE)
    for name in cells:
        make_run(out / "cells" / name, config=pasta.ablations(pasta.SMOKE)[name])
    return out


@pytest.mark.parametrize("flags", [["--seed", "5"], ["--only", "baseline", "--seed", "5"]])
def test_a_grid_with_another_flag_is_refused(tmp_path, capsys, flags):
    out = make_grid(tmp_path / "abl", ["baseline"])
    before = tree(tmp_path)
    command = ["ablate", "pasta", "--preset", "smoke", "--out", str(out), *flags]
    assert cli.main(command) == cli.USAGE
    assert "got configuration" in capsys.readouterr().err
    assert tree(tmp_path) == before


def test_a_cell_of_another_configuration_is_refused(tmp_path, capsys):
    out = make_run(tmp_path / "abl", "grid", pasta.SMOKE)
    make_run(out / "cells/baseline", config=quickstart.CPU)
    command = ["ablate", "pasta", "--preset", "smoke", "--out", str(out)]
    assert cli.main(command) == cli.USAGE
    assert "cells/baseline" in capsys.readouterr().err


def test_one_cell_does_not_replace_a_grid(tmp_path, capsys):
    out = make_grid(tmp_path / "abl", ["baseline"])
    command = ["ablate", "pasta", "--preset", "smoke", "--out", str(out)]
    assert cli.main([*command, "--only", "baseline", "--overwrite"]) == cli.USAGE
    assert "other cells" in capsys.readouterr().err


def test_a_grid_is_not_resumed_as_a_run(tmp_path, capsys):
    make_run(tmp_path / "abl", "grid")
    assert cli.main(["resume", str(tmp_path / "abl")]) == cli.USAGE
    assert "jaxagent ablate" in capsys.readouterr().err


def test_default_folders_differ_where_flags_differ():
    config, module = quickstart.SMOKE, quickstart
    other = dataclasses.replace(config, seed=1)
    first, second = (cli._default_out("quickstart", "smoke", module, c) for c in (config, other))
    assert str(first) == "runs/quickstart-smoke"
    assert str(second) == f"runs/quickstart-smoke-{fingerprint(other)[:8]}"


# Runs: what replaces, what comes back, what is held.


def toy(finish, name="toy"):
    """An experiment of one stage, which does `finish(place)`."""
    stage = runs.Stage("first", lambda folder: runs.Work(lambda state, place: finish(place)))
    return types.SimpleNamespace(
        __name__=f"experiments.{name}",
        claims=lambda config: [],
        stages=lambda config: [stage],
        summary=lambda config, out, preset: {
            "tasks": [],
            "arms": {},
            "scores": {},
            "preconditions": [],
            "claims": [],
        },
    )


@pytest.fixture
def experiment(monkeypatch):
    """Puts an experiment under the name "toy"."""
    monkeypatch.setattr(session, "table", lambda summary: "")

    def install(finish, **changes):
        module = toy(finish)
        vars(module).update(changes)
        monkeypatch.setitem(sys.modules, "experiments.toy", module)

    return install


def start(out, **changes):
    return session.start("toy", "smoke", quickstart.SMOKE, out, "jaxagent run toy", **changes)


def refuse(*args):
    raise ValueError("refused late")


def die(place):
    raise RuntimeError("a bug")


@pytest.mark.parametrize("late", ["stages", "first stage", "bug", "stopped"])
def test_what_is_refused_late_leaves_the_old_run(tmp_path, experiment, late):
    out = make_run(tmp_path / "place")
    before = tree(tmp_path)
    stop = {"bug": RuntimeError, "stopped": KeyboardInterrupt}.get(late)

    def finish(place):
        if stop:
            raise stop
        refuse()

    experiment(finish, **({"stages": refuse} if late == "stages" else {}))
    if stop:
        with pytest.raises(stop):
            start(out, replace=True)
    else:
        assert start(out, replace=True) == session.FAILED
    after = tree(tmp_path)
    assert after.pop(out / folders.LOCK, None) is not None or late == "stages"
    assert after == before


def test_a_run_that_fails_after_work_keeps_both_until_one_is_finished(tmp_path, experiment):
    out = make_run(tmp_path / "place")

    def finish(place):
        (place / "hours.txt").write_text("of work")
        refuse()

    experiment(finish)
    assert start(out, replace=True) == session.FAILED
    (aside,) = tmp_path.glob("place.replaced-*")
    assert (aside / "summary.json").exists()
    assert (out / "stages/first/hours.txt").exists()
    experiment(lambda place: {})
    assert session.resume(out, quickstart.SMOKE) == 0
    assert sorted(tmp_path.iterdir()) == [out]
    assert "replaces" not in manifest.read(out)


def test_a_finished_replacement_deletes_the_old_run(tmp_path, experiment):
    out = make_run(tmp_path / "place")
    experiment(lambda place: {"seen": len(list(tmp_path.glob("place.replaced-*")))})
    assert start(out, replace=True) == 0
    assert runs.read_done(out, "first")["summary"] == {"seen": 1}
    assert sorted(tmp_path.iterdir()) == [out]
    assert not (out / "policies").exists()


@pytest.mark.parametrize("what", ["notes.txt", "stages/link", "policies/mine.pdf"])
def test_a_replaced_run_that_holds_others_files_stays_aside(tmp_path, experiment, capsys, what):
    out = make_run(tmp_path / "place")
    others = others_files(tmp_path / "others")
    if what == "stages/link":
        (out / what).symlink_to(others)
    else:
        (out / what).write_text("mine")
    experiment(lambda place: {})
    assert start(out, replace=True) == 0
    (aside,) = tmp_path.glob("place.replaced-*")
    assert (aside / what).exists()
    assert (others / "thesis.tex").exists()
    assert what in capsys.readouterr().err


def test_a_manifest_cannot_name_another_folder_to_delete(tmp_path):
    victim = make_run(tmp_path / "victim")
    out = make_run(tmp_path / "place", replaces=["victim", "../victim", "place.replaced-/../victim"])
    folders.finish(out)
    assert (victim / "summary.json").exists()


@pytest.mark.parametrize("inside", ["stages", "metrics.jsonl", "stages/first/checkpoints"])
def test_a_run_with_a_link_inside_is_not_continued(tmp_path, capsys, inside):
    out = make_run(tmp_path / "place", config=quickstart.SMOKE)
    path, target = out / inside, tmp_path / "target"
    path.rename(target) if path.exists() else target.mkdir()
    path.symlink_to(target)
    assert cli.main(["report", str(out)]) == cli.USAGE
    assert "symbolic link" in capsys.readouterr().err


def test_a_held_run_is_busy_for_all_who_write(tmp_path, experiment, capsys):
    out = make_run(tmp_path / "place")
    experiment(lambda place: {})
    with folders.hold(out, "run"):
        before = tree(tmp_path)
        assert start(out, replace=True) == session.BUSY
        assert session.resume(out, quickstart.SMOKE) == session.BUSY
        assert cli.main(["report", str(out)]) == cli.BUSY
        assert "--out page.html" in capsys.readouterr().err
        assert tree(tmp_path) == before
        page = tmp_path / "page.html"
        assert cli.main(["report", str(out), "--out", str(page)]) == 0
        assert page.stat().st_size > 1000
        assert cli.main(["report", str(out), "--out", str(page)]) == cli.USAGE


def test_a_run_is_held_until_its_report_is_written(tmp_path, experiment, monkeypatch):
    held = []

    def write_report(folder):
        with pytest.raises(Locked), folders.hold(folder, "run"):
            pass
        held.append(folder)
        return folder / "report.html"

    monkeypatch.setattr(session, "write_report", write_report)
    experiment(lambda place: {})
    assert start(tmp_path / "place") == 0
    assert held == [tmp_path / "place"]
    with folders.hold(tmp_path / "place", "run"):
        pass


def test_a_folder_that_is_moved_away_cannot_be_held(tmp_path, monkeypatch):
    """Another process may replace it between the opening of the lock and its taking."""
    out = make_run(tmp_path / "place")
    real = folders.fcntl.flock

    def flock(file, flags):
        out.rename(tmp_path / "aside")
        make_run(out)
        real(file, flags)

    monkeypatch.setattr(folders.fcntl, "flock", flock)
    with pytest.raises(Locked, match="replaced"), folders.lock(out):
        pass


def test_a_stage_of_another_configuration_is_refused(tmp_path, experiment, capsys):
    experiment(lambda place: {})
    assert start(tmp_path / "one") == 0
    about = manifest.read(tmp_path / "one") | {"fingerprint": "0123456789abcdef"}
    (tmp_path / "one/manifest.json").write_text(json.dumps(about))
    with pytest.raises(runs.StageError, match="0123456789abcdef"):
        runs.read_done(tmp_path / "one", "first")


RACE = """
import pathlib, sys, time
sys.path.insert(0, "tests")
from test_folders import toy
import dataclasses
from experiments import session
from experiments.configs import quickstart

here, seed = pathlib.Path(sys.argv[1]), int(sys.argv[2])
config = dataclasses.replace(quickstart.SMOKE, seed=seed)
experiment = toy(lambda place: time.sleep(0.002) or {"seed": seed})
experiment.claims = lambda config: time.sleep(0.1 * (seed == 1)) or []  # it has to be imported
sys.modules["experiments.toy"] = experiment
session.table = lambda summary: ""
session.manifest.describe("toy", "smoke", config, "")
print("ready", flush=True)
for race, line in enumerate(sys.stdin):
    time.sleep((seed - 1) * 0.02 * (race % 10))  # the second comes up to 180 ms later
    print(session.start("toy", "smoke", config, here / line.strip(), "race"), file=sys.stderr)
    print("done", flush=True)
"""


def test_of_two_starts_at_once_one_wins_whole(tmp_path):
    """Fifty races: the manifest's seed is the one that was computed, whoever comes first."""
    pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, "-c", RACE, str(tmp_path)]
    racers = [subprocess.Popen([*command, str(seed)], text=True, cwd=ROOT, **pipe) for seed in (1, 2)]
    try:
        read_until(racers, "ready")
        for race in range(50):
            for racer in racers:
                racer.stdin.write(f"race-{race}\n")
                racer.stdin.flush()
            read_until(racers, "done")
    finally:
        errors = [racer.communicate(timeout=60)[1] for racer in racers]
    codes = [[int(x) for x in e.splitlines() if x.isdigit()] for e in errors]
    for race, pair in enumerate(zip(*codes, strict=True)):
        out = tmp_path / f"race-{race}"
        seed = runs.read_done(out, "first")["summary"]["seed"]
        assert manifest.read(out)["config"]["seed"] == seed, errors
        assert pair.count(0) == 1, "the other is told"
        assert pair[seed - 1] == 0
        assert set(pair) <= {0, session.BUSY, session.USAGE}
        assert (out / "report.html").exists()


def read_until(racers, word):
    for racer in racers:
        while (line := racer.stdout.readline().strip()) != word:
            assert line or racer.poll() is None, racer.stderr.read()


# Stores.


def test_a_store_leaves_its_siblings_alone(tmp_path):
    from data.test_store import shards

    for name in ("data.partial", "data.old"):
        others_files(tmp_path / name)
    before = tree(tmp_path)
    for _ in range(2):
        store.write(tmp_path / "data", shards())
    after = tree(tmp_path)
    assert {p: x for p, x in after.items() if tmp_path / "data" not in (p, p.parent)} == before


@pytest.mark.parametrize("kind", [k for k in PLACES if "inside" not in k])
def test_a_store_replaces_stores_only(tmp_path, kind):
    from data.test_store import shards

    place = PLACES[kind](tmp_path / "place")
    before = tree(tmp_path)
    with pytest.raises(NotOurs):
        store.write(place, shards())
    assert tree(tmp_path) == before


def test_a_picture_is_not_painted_over(tmp_path, capsys):
    path = tmp_path / "photo.png"
    path.write_text("of my cat")
    assert cli.main(["render", "classic/CartPole-v1", "--out", str(path)]) == cli.USAGE
    assert path.read_text() == "of my cat"
    assert "--overwrite" in capsys.readouterr().err
