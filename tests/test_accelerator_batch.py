"""The batch for borrowed accelerators: its order and clock, what it keeps, and what it refuses."""

import importlib.util
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from benchmarks import accelerator, agenda, batch
from benchmarks.batch import Batch, Step
from experiments.cli import rooms

ABOUT = {"source": "a", "device": "none", "rehearsal": True}


def step(name, program, least=1.0, **options):
    """A step that runs a program given as text."""
    command = ("-c", program)
    return Step(name, command, command, least, 1.0, **options)


def row(**fields):
    """A program that prints a row."""
    return f"import json; print(json.dumps({fields!r}), flush=True)"


def begun(folder, seconds=60.0, **about):
    deadline = time.monotonic() + seconds + batch.RESERVE
    return Batch(folder, folder, ABOUT | about, {"commit": None}, os.environ, deadline)


def statuses(made, name):
    return [ending["status"] for ending in batch.endings(made.rows, name)]


def ends(process, within=5.0):
    """Whether a process that was killed is gone, or a zombie, after a moment."""
    stat, deadline = Path(f"/proc/{process}/stat"), time.monotonic() + within
    while time.monotonic() < deadline:
        if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


def test_a_limit_is_a_share_of_what_is_left_and_at_least_what_is_needed():
    first, second = Step("a", (), (), 30, 1), Step("b", (), (), 10, 3)
    assert batch.limit_of(first, [second], 200.0) == 50.0
    assert batch.limit_of(first, [second], 100.0) == 30.0
    assert batch.limit_of(first, [], 100.0) == 100.0
    assert batch.limit_of(first, [second], 29.0) == 0.0


def test_steps_run_in_order_and_what_is_done_is_not_done_again(tmp_path):
    made, said = begun(tmp_path), []
    table = [step("b", row(x=1)), step("a", row(x=2))]
    batch.carry_out(made, table, said.append)
    rows = made.rows
    assert [(r["step"], r.get("x", r.get("status"))) for r in rows] == [
        ("b", 1), ("b", "done"), ("a", 2), ("a", "done"),
    ]  # fmt: skip
    assert all(r["rehearsal"] is True and r["source"] == "a" and r["try"] == 1 for r in rows)
    batch.carry_out(made, table, said.append)
    assert made.rows == rows
    other = begun(tmp_path, source="b")
    batch.carry_out(other, table[:1], said.append)
    assert [r.get("x") for r in other.rows] == [1, None]
    assert "| a | done |" in batch.summary(made, table)


def test_a_step_that_fails_says_why_and_is_tried_once_more(tmp_path):
    made, fails = (
        begun(tmp_path),
        row(x=1) + "; import sys; print('the reason', file=sys.stderr); sys.exit(3)",
    )
    for count in (1, 2, 2):
        batch.carry_out(made, [step("fails", fails)], str)
        assert statuses(made, "fails") == ["failed"] * count
    last = made.rows[-1]
    assert (last["why"], last["last_lines"], last["try"], last["rows"]) == (
        "exit code 3",
        ["the reason"],
        2,
        1,
    )
    assert [r["x"] for r in made.rows if "x" in r] == [1, 1]
    assert "the reason" in batch.summary(made, [step("fails", fails)])


def test_a_step_that_hangs_is_cut_with_its_children_and_its_rows_are_kept(tmp_path):
    hangs = (
        "import json, signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(json.dumps({'child': child.pid}), flush=True); print('{\"torn', end='', flush=True)\n"
        "time.sleep(60)"
    )
    made, table = begun(tmp_path, 4.0), [step("hangs", hangs, grace=0.5), step("late", row(x=1), least=0.3)]
    began = time.monotonic()
    batch.carry_out(made, table, str)
    assert time.monotonic() - began < 6.0
    kept, ending = made.rows[:2]
    assert (ending["status"], ending["rows"]) == ("cut", 1)
    assert ends(kept["child"])
    assert made.rows[2]["x"] == 1  # what a step did not take is left for those behind it


def test_a_step_is_begun_only_if_what_it_needs_is_left(tmp_path):
    made, said = begun(tmp_path, 5.0), []
    batch.carry_out(made, [step("long", row(x=1), least=10.0), step("short", row(x=2))], said.append)
    assert [r.get("x") for r in made.rows] == [2, None]
    assert said[0].startswith("long: not begun, needs 10 s")
    assert "| long | not begun |" in batch.summary(made, [step("long", "")])


def test_a_step_that_goes_on_may_be_cut_often(tmp_path):
    path, cut = tmp_path / batch.ROWS, step("on", "")
    for _ in range(3):
        assert batch.is_open(batch.read(path), cut._replace(resumes=True))
        batch.append(path, {"step": "on", "status": "cut"})
    assert not batch.is_open(batch.read(path), cut)
    for _ in range(batch.TRIES):
        assert batch.is_open(batch.read(path), cut._replace(resumes=True))
        batch.append(path, {"step": "on", "status": "failed"})
    assert not batch.is_open(batch.read(path), cut._replace(resumes=True))


def test_a_step_without_its_module_is_not_run(tmp_path):
    made = begun(tmp_path)
    batch.carry_out(made, [step("needs", row(x=1), needs=("no_such_module",))], str)
    assert [(r["status"], r["why"]) for r in made.rows] == [
        ("not run", "needs no_such_module, which is not installed")
    ]


def test_an_interrupt_keeps_rows_and_the_step_is_open(tmp_path, capsys):
    made, table = begun(tmp_path), [step("long", row(x=1) + "; import time; time.sleep(60)", grace=1.0)]

    def interrupt():
        while not made.rows:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    assert accelerator.conducted(made, table, "A title") == accelerator.INTERRUPTED
    assert (made.rows[0]["x"], statuses(made, "long")) == (1, ["interrupted"])
    assert batch.is_open(made.rows, table[0])
    assert "| long | interrupted |" in (tmp_path / "summary.md").read_text()
    assert "A title" in capsys.readouterr().out


def test_a_torn_line_costs_no_other(tmp_path):
    path = tmp_path / batch.ROWS
    batch.append(path, {"x": 1})
    with open(path, "a") as file:
        file.write('{"x": 2, "y')
    assert batch.read(path) == [{"x": 1}]
    batch.append(path, {"x": 3})
    assert batch.read(path) == [{"x": 1}, {"x": 3}]
    assert path.read_text().endswith('"y\n{"x": 3}\n')


def test_without_an_accelerator_it_refuses(tmp_path):
    with pytest.raises(ValueError, match=r"got a cpu, expected an accelerator.*--rehearse"):
        accelerator.check("cpu", tmp_path, False)
    with pytest.raises(ValueError, match="a rehearsal measures nothing"):
        accelerator.check("cpu", accelerator.RESULTS / "new", True)
    accelerator.check("cpu", tmp_path, True)
    accelerator.check("cuda", tmp_path, False)


def test_the_agenda_names_what_there_is(tmp_path):
    table = agenda.steps(["scan", "other"], agenda.accelerator_tests(accelerator.ROOT), tmp_path)
    names = [one.name for one in table]
    assert list(dict.fromkeys(name.split("/")[0] for name in names)) == [
        "device", "tests", "kernels", "search", "throughput", "atari", "presets",
    ]  # fmt: skip
    assert len(set(names)) == len(names)
    assert "tests/test_scan" in names
    for one in table:
        for command in (one.command, one.rehearsal):
            assert importlib.util.find_spec(command[1]), command
            if one.name.startswith("presets/"):
                rooms.preset(rooms.room(command[2]), command[3])  # raises for what there is not
    assert [one.name for one in accelerator.chosen(table, ["kernels", "atari"])] == [
        "kernels/scan", "kernels/other", "atari",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="--only: got 'kernel', expected one of device, "):
        accelerator.chosen(table, ["kernel"])


def test_listed_limits_never_exceed_the_time(tmp_path):
    table = agenda.steps(["scan"], [], tmp_path)
    lines = accelerator.planned(table, 300.0)[1:]
    limits = [line.split()[3] for line in lines]
    assert limits[0] == "30"
    assert limits[-1] == "-"  # what does not fit is not begun
    assert sum(float(limit) for limit in limits if limit != "-") <= 300.0


def test_tests_are_counted_by_how_they_ended():
    text = "tests/a.py::one[x y] PASSED [ 50%]\ntests/a.py::two FAILED [ 75%]\ntests/a.py::three ERROR\n"
    text += (
        "tests/a.py::four SKIPPED (why) [100%]\nFAILED tests/a.py::two - AssertionError\ntests/a.py::five "
    )
    assert agenda.outcomes(text) == {"passed": 1, "failed": 2, "skipped": 1}


def test_a_source_is_known_by_its_files(tmp_path):
    file = tmp_path / "kernels" / "a.py"
    file.parent.mkdir()
    file.write_text("x = 1\n")
    for name in accelerator.SETTINGS:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    before = accelerator.source(tmp_path)
    assert accelerator.source(tmp_path) == before
    file.write_text("x = 2\n")
    changed = accelerator.source(tmp_path)
    (tmp_path / accelerator.SETTINGS[0]).write_text("x = 3")
    assert len({before, changed, accelerator.source(tmp_path)}) == 3


def test_rows_are_read_as_json_alone():
    assert batch.rows_of('{"x": 1}\nno row\n[1]\n{"x": ') == [{"x": 1}]
