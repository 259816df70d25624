"""Nothing that is not ours is deleted, and one run has one lock."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest

from experiments import cli
from experiments.cli import ablation, session
from experiments.cli.rooms import Room
from experiments.pasta import config as pasta
from experiments.quickstart import config as quickstart
from jaxagent import folders
from jaxagent.config import fingerprint
from jaxagent.data import store
from jaxagent.folders import Locked, NotOurs
from jaxagent.study import execution
from jaxagent.study.study import Measure, Study
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
    about = dict.fromkeys(folders.NEEDED, "smoke") | {"experiment": "quickstart", "source": "quickstart"}
    about["fingerprint"] = fingerprint(config)
    files = {
        "manifest.json": json.dumps({"jaxagent": kind, **about} | extra),
        "metrics.jsonl": '{"stage": "first", "step": 1}\n',
        "stages/first/done.json": '{"artefacts": {"hours.npz": ""}}',
        "stages/first/hours.npz": "of work",
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
    config = quickstart.SMOKE
    other = dataclasses.replace(config, seed=1)
    room = Room("quickstart", "quickstart", "experiments.quickstart")
    first, second = (cli._default_out("quickstart", "smoke", room, c) for c in (config, other))
    assert str(first) == "runs/quickstart-smoke"
    assert str(second) == f"runs/quickstart-smoke-{fingerprint(other)[:8]}"


# Runs: what replaces, what comes back, what is held.


def toy(finish, **changes):
    """An experiment of one stage, which does `finish(place)`."""
    one_step = [Measure("first", lambda folder, place: finish(place))]
    scores = {"only": np.zeros((1, 2))}
    return Study(
        **(
            {
                "arms": {"only": ""},
                "tasks": ["one"],
                "steps": one_step,
                "scores": lambda found: scores,
                "claims": [],
            }
            | changes
        )
    )


class Toy(NamedTuple):
    """Stands for a room."""

    build: Callable
    name: str = "toy"
    source: str = "toy"
    is_outside = False
    config = SimpleNamespace(ABLATED="only", DESCRIPTION="a stand-in")

    def study(self, config):
        return self.build(config)


@pytest.fixture
def experiment():
    """Changes what `start` and `resume` run."""

    def install(finish, build=None, **changes):
        ROOMS[0] = Toy(build or (lambda config: toy(finish, **changes)))

    return install


ROOMS = [None]


def start(out, config=quickstart.SMOKE, **changes):
    return session.start(ROOMS[0], "smoke", config, out, "jaxagent run toy", **changes)


def resume(out):
    return session.resume(ROOMS[0], out, quickstart.SMOKE)


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

    experiment(finish, **({"build": refuse} if late == "stages" else {}))
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
    assert resume(out) == 0
    assert sorted(tmp_path.iterdir()) == [out]
    assert "replaces" not in manifest.read(out)


def test_a_finished_replacement_deletes_the_old_run(tmp_path, experiment):
    out = make_run(tmp_path / "place")
    experiment(lambda place: {"seen": len(list(tmp_path.glob("place.replaced-*")))})
    assert start(out, replace=True) == 0
    assert runs.read_done(out, "first")["summary"] == {"seen": 1}
    assert sorted(tmp_path.iterdir()) == [out]
    assert not (out / "policies").exists()


STRANGE = (
    "notes.txt",
    "stages/link",
    "stages/first/thesis.tex",
    "policies/mine.pdf",
    "policies/a/b/params.npz",
    "pictures/me/photo.png",
    "downloads/a.partial",
)


@pytest.mark.parametrize("what", STRANGE)
def test_a_replaced_run_that_holds_others_files_stays_aside(tmp_path, experiment, capsys, what):
    out = make_run(tmp_path / "place")
    others = others_files(tmp_path / "others")
    if what == "stages/link":
        (out / what).symlink_to(others)
    else:
        (out / what).parent.mkdir(parents=True, exist_ok=True)
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
        assert resume(out) == session.BUSY
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

    monkeypatch.setattr(execution, "write_report", write_report)
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
import dataclasses, pathlib, sys, time
sys.path.insert(0, "tests")
from test_folders import Toy, execution, quickstart, session, toy

here, seed = pathlib.Path(sys.argv[1]), int(sys.argv[2])
config = dataclasses.replace(quickstart.SMOKE, seed=seed)
room = Toy(lambda config: time.sleep(0.1 * (seed == 1)) or toy(work))  # it has to be imported
work = lambda place: time.sleep(0.02) or {"seed": seed}
run = execution.runs.run
execution.runs.run = lambda *args, **options: time.sleep(0.02) or run(*args, **options)
session.manifest.describe("toy", "toy", "smoke", config, "")
print("ready", flush=True)
for race, line in enumerate(sys.stdin):
    time.sleep((seed - 1) * 0.02 * (race % 10))  # the second comes up to 180 ms later
    out = here / line.strip()
    code = session.start(room, "smoke", config, out, "race", replace=race % 2 == 1)
    print(code, file=sys.stderr)
    print("done", flush=True)
"""


@pytest.mark.parametrize("num_races", [6, pytest.param(50, marks=pytest.mark.slow)])
def test_of_two_starts_at_once_one_wins_whole(num_races, tmp_path):
    """Races, half to replace a run: the manifest's seed is the one that was computed."""
    pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, "-c", RACE, str(tmp_path)]
    racers = [subprocess.Popen([*command, str(seed)], text=True, cwd=ROOT, **pipe) for seed in (1, 2)]
    try:
        read_until(racers, "ready")
        for race in range(num_races):
            if race % 2:
                make_run(tmp_path / f"race-{race}")
            for racer in racers:
                racer.stdin.write(f"race-{race}\n")
                racer.stdin.flush()
            read_until(racers, "done")
    finally:
        errors = [racer.communicate(timeout=60)[1] for racer in racers]
    codes = [[int(x) for x in e.splitlines() if x.isdigit()] for e in errors]
    for race, pair in enumerate(zip(*codes, strict=True)):
        out, is_replaced = tmp_path / f"race-{race}", race % 2 == 1
        seed = runs.read_done(out, "first")["summary"]["seed"]
        assert manifest.read(out)["config"]["seed"] == seed, errors
        assert (
            json.loads((out / "summary.json").read_text())["fingerprint"] == manifest.read(out)["fingerprint"]
        )
        assert pair[seed - 1] == 0
        assert pair.count(0) == 1 or is_replaced, "the other is told"
        assert set(pair) <= {0, session.BUSY, session.USAGE}
    assert len(list(tmp_path.iterdir())) == num_races, "nothing is left beside them"


def read_until(racers, word):
    for racer in racers:
        while (line := racer.stdout.readline().strip()) != word:
            assert line or racer.poll() is None, racer.stderr.read()


# Grids, kills, and what the system refuses.


def grid_of(out, *names):
    """A grid of toys as `ablate` is given it."""
    cells = {name: dataclasses.replace(quickstart.SMOKE, seed=i) for i, name in enumerate(names)}
    return lambda wanted, **changes: ablation.run(
        ROOMS[0], "smoke", quickstart.SMOKE, cells, {n: cells[n] for n in wanted}, out, "ablate", **changes
    )


@pytest.fixture
def grid(tmp_path, experiment):
    experiment(lambda place: {})
    return grid_of(tmp_path / "abl", "baseline", "b")


def test_a_grid_goes_on_and_its_table_has_all_finished_cells(tmp_path, grid):
    assert grid(["baseline"]) == 0
    assert grid(["b"]) == 0
    assert set(json.loads((tmp_path / "abl/summary.json").read_text())["arms"]) == {"baseline", "b"}


def test_a_replaced_grid_is_deleted_with_the_last_cell_only(tmp_path, grid):
    assert grid(["baseline", "b"]) == 0
    assert grid(["baseline"], replace=True) == 0
    (aside,) = tmp_path.glob("abl.replaced-*")
    assert (aside / "cells/b/summary.json").exists()
    assert grid(["b"]) == 0
    assert list(tmp_path.iterdir()) == [tmp_path / "abl"]


def test_a_grid_that_is_refused_late_leaves_the_old_one(tmp_path, grid, experiment):
    assert grid(["baseline", "b"]) == 0
    before = tree(tmp_path)
    experiment(refuse)
    assert grid(["baseline", "b"], replace=True) == session.FAILED
    after = tree(tmp_path)
    assert {p for p in after if p.name != folders.LOCK} == {p for p in before if p.name != folders.LOCK}


def test_a_cell_at_work_holds_its_grid_and_a_grid_its_cells(tmp_path, grid):
    assert grid(["baseline", "b"]) == 0
    with folders.hold(tmp_path / "abl/cells/b", "run"):
        assert grid(["baseline", "b"], replace=True) == session.BUSY
    with folders.hold(tmp_path / "abl", "grid"):
        assert resume(tmp_path / "abl/cells/b") == session.BUSY
        assert grid(["baseline"]) == session.BUSY


def test_a_run_that_is_held_aside_is_not_deleted(tmp_path):
    out, aside = make_run(tmp_path / "place"), make_run(tmp_path / "place.replaced-x")
    (out / "manifest.json").write_text(json.dumps(manifest.read(out) | {"replaces": [aside.name]}))
    with folders.lock(aside):
        folders.finish(out)
    assert (aside / "summary.json").exists()


@pytest.mark.parametrize("when", ["before the swap", "after the swap"])
def test_a_kill_while_replacing_loses_nothing(tmp_path, experiment, monkeypatch, when):
    out = make_run(tmp_path / "place")
    old = (out / "stages/first/hours.npz").read_text()
    swap = folders._exchange

    class Killed(BaseException):
        pass

    def killed(*args):
        if when == "after the swap":
            swap(*args)
        raise Killed

    monkeypatch.setattr(folders, "_exchange", killed)
    monkeypatch.setattr(folders.shutil, "rmtree", lambda *args, **options: None)  # a kill tidies nothing
    experiment(lambda place: {})
    with pytest.raises(Killed):
        start(out, replace=True)
    monkeypatch.undo()
    held = [p for p in (out, *tmp_path.glob("place.replaced-*")) if (p / "stages/first/hours.npz").exists()]
    assert [(p / "stages/first/hours.npz").read_text() for p in held] == [old]
    experiment(lambda place: refuse())
    if when == "after the swap":  # the next that fails brings it back
        assert resume(out) == session.FAILED
        assert (out / "stages/first/hours.npz").read_text() == old
    assert start(out, replace=True) == session.FAILED
    assert (out / "stages/first/hours.npz").read_text() == old


def test_what_comes_into_the_folder_while_it_waits_for_the_lock_is_seen(tmp_path, monkeypatch):
    out, real = tmp_path / "place", folders.lock

    def lock(folder):
        (folder / "thesis.tex").write_text("ten years")
        return real(folder)

    monkeypatch.setattr(folders, "lock", lock)
    about = {"jaxagent": "run"} | dict.fromkeys(folders.NEEDED, "")
    with pytest.raises(NotOurs), folders.begin(out, about):
        pass
    assert not (out / "manifest.json").exists()


def test_a_killed_start_is_not_in_the_way(tmp_path, experiment):
    (tmp_path / "place").mkdir()
    (tmp_path / "place/manifest.json.partial").write_text("{")
    experiment(lambda place: {})
    assert start(tmp_path / "place") == 0


def test_an_old_run_that_cannot_be_deleted_stays(tmp_path, experiment, monkeypatch, capsys):
    out = make_run(tmp_path / "place")
    experiment(lambda place: {})

    def rmtree(path, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(folders.shutil, "rmtree", rmtree)
    assert start(out, replace=True) == 0
    assert "cannot be deleted" in capsys.readouterr().err
    assert (out / "report.html").exists()


def test_a_run_is_finished_from_inside_too(tmp_path, experiment, monkeypatch):
    out = make_run(tmp_path / "place")
    experiment(lambda place: (place / "work").write_text("x") and refuse())
    assert start(out, replace=True) == session.FAILED
    monkeypatch.chdir(out)
    experiment(lambda place: {})
    assert resume(Path()) == 0
    assert list(tmp_path.iterdir()) == [out]


BAD_PLACES = {
    "a name too long": lambda root: root / ("x" * 300),
    "a file above": lambda root: a_file(root / "file") / "run",
    "a folder for a lock": lambda root: (root / "run" / folders.LOCK).mkdir(parents=True) or root / "run",
}


@pytest.mark.parametrize("kind", BAD_PLACES)
def test_what_the_system_refuses_is_wrong_usage(tmp_path, experiment, kind):
    experiment(lambda place: {})
    assert start(BAD_PLACES[kind](tmp_path)) == session.USAGE


def test_a_folder_that_cannot_be_locked_is_not_said_to_be_in_use(tmp_path, monkeypatch):
    def flock(file, flags):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(folders.fcntl, "flock", flock)
    with pytest.raises(NotOurs, match="No locks"), folders.lock(tmp_path):
        pass


def test_without_renameat2_folders_change_places_in_three_steps(tmp_path, monkeypatch):
    one, two = make_run(tmp_path / "one"), others_files(tmp_path / "two")
    monkeypatch.setattr(folders.ctypes, "CDLL", lambda *args, **options: None)
    folders._exchange(one, two)
    assert (one / "thesis.tex").exists()
    assert (two / "manifest.json").exists()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_page_is_not_written_into_a_run(tmp_path):
    out = make_run(tmp_path / "place")
    page = out / "stages/first/page.html"
    assert cli.main(["report", str(out), "--out", str(page)]) == cli.USAGE
    assert not page.exists()


def test_a_sweep_takes_our_own_alone(tmp_path):
    others_files(tmp_path / "thesis.new-20260101")
    (tmp_path / f"{folders.NEW}store-12345678").mkdir()
    folders.sweep(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.new-20260101"]


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


@pytest.mark.parametrize("kind", PLACES)
def test_a_store_replaces_stores_only(tmp_path, kind):
    from data.test_store import shards

    place = PLACES[kind](tmp_path / "place")
    before = tree(tmp_path)
    with pytest.raises(NotOurs):
        store.write(place, shards())
    assert tree(tmp_path) == before


def test_a_store_is_written_into_the_run_that_asks(tmp_path):
    from data.test_store import shards

    out = make_run(tmp_path / "place")
    store.write(out / "stages/first/store", shards(), within=out)
    assert len(store.read(out / "stages/first/store")) == 2


def test_a_replaced_store_with_others_files_stays(tmp_path, capsys):
    from data.test_store import shards

    store.write(tmp_path / "data", shards())
    (tmp_path / "data/shard_backup").mkdir()
    (tmp_path / "data/shard_backup/mine.npz").write_text("mine")
    store.write(tmp_path / "data", shards())
    assert "mine.npz" in capsys.readouterr().err
    assert [p for p in tmp_path.rglob("mine.npz") if "data" in str(p)]


def test_a_picture_is_not_painted_over(tmp_path, capsys):
    path = tmp_path / "photo.png"
    path.write_text("of my cat")
    assert cli.main(["render", "classic/CartPole-v1", "--out", str(path)]) == cli.USAGE
    assert path.read_text() == "of my cat"
    assert "--overwrite" in capsys.readouterr().err
