"""The report of a run: pictures on disk, figures as SVG, one self-contained page."""

import json
import re
import subprocess
import sys
import xml.dom.minidom

import numpy as np
import pytest
from PIL import Image

from jaxagent.report import figure, figures
from jaxagent.report.comparison import is_comparison, write_comparison
from jaxagent.report.html import write_report
from jaxagent.report.render import contact_sheet, write_gif, write_png
from jaxagent.report.svg import NAMESPACE

HOSTILE = "<script>alert('x')</script>\"&$\\frac"
ARMS, TASKS = ("scratch", "finetune"), ("CartPole-v1", "Pendulum-v1")


def moving_frames(count, height=30, width=40):
    frames = np.full((count, height, width, 3), 250, np.uint8)
    for index in range(count):
        frames[index, 5:15, index % width] = (200, 30, 30)
    return frames


def make_run(folder, name="smart", summary=True, pictures=True, rows=30):
    """Writes a small run folder in the formats of a run."""
    folder.mkdir(exist_ok=True)
    scores = {arm: {task: [0.5, 0.6, None] for task in TASKS} for arm in ARMS}
    manifest = {
        "experiment": name,
        "preset": "cpu",
        "command": f"jaxagent run {name}",
        "config": {"train": {"note": name}},
        "fingerprint": "ab" * 20,
        "versions": {"jax": "0.10.2"},
        "device": {"platform": "cpu", "kind": "x", "count": 1},
        "git": {"commit": None, "dirty": False},
        "xla_flags": "",
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    lines = [
        {"stage": f"ppo/{task}", "step": i, "train/return": [i * 1.0, None], "train/loss": None}
        for i in range(rows)
        for task in TASKS
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if summary:
        claim = {
            "id": "better",
            "statement": name,
            "kind": "superiority",
            "verdict": "PASS",
            "difference": 0.3,
            "interval": [0.2, float("inf")],
            "seeds": 5,
            "gated": True,
        }
        content = {
            "experiment": name,
            "arms": {a: {"iqm": 0.5, "interval": [0.4, 0.6], "parameters": 10} for a in ARMS},
            "tasks": TASKS,
            "scores": scores,
            "returns": scores,
            "references": {TASKS[0]: {"random": 20.0, "expert": 500.0}},
            "claims": [claim, {**claim, "verdict": "INCONCLUSIVE"}],
            "preconditions": [{"name": name, "passed": False, "detail": "got 1"}],
            "budgets": {ARMS[0]: {"env_steps": 1000}},
            "limits": [name],
            "wall_seconds": 12.5,
        }
        (folder / "summary.json").write_text(json.dumps(content))
    if pictures:
        write_gif(folder / "pictures" / f"{ARMS[0]}--{TASKS[0]}.gif", moving_frames(3))
        write_png(folder / "pictures" / "curve & <b>.png", moving_frames(1)[0])
    return folder


def read_report(folder):
    return write_report(folder).read_text(encoding="utf-8")


# --- render --------------------------------------------------------------------------------------


def test_gif_keeps_frames_and_timing(tmp_path):
    frames = moving_frames(12)
    path = write_gif(tmp_path / "new" / "a.gif", frames, fps=25)
    with Image.open(path) as image:
        assert image.n_frames == 12
        assert image.info["duration"] == 40
        assert image.info["loop"] == 0
        image.seek(7)
        decoded = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(decoded - frames[7]).max() <= 8
    assert [entry.name for entry in path.parent.iterdir()] == ["a.gif"]


def test_long_gif_is_small(tmp_path):
    from types import SimpleNamespace

    from envs.pictures import caption, paint_pendulum

    params = SimpleNamespace(l=1.0, m=1.0, max_torque=2.0)
    states = [SimpleNamespace(theta=0.07 * t, last_u=np.sin(t / 9)) for t in range(200)]
    frames = [caption(paint_pendulum(s, params), f"t={t}") for t, s in enumerate(states)]
    assert write_gif(tmp_path / "a.gif", frames).stat().st_size < 400_000


def test_png_round_trip(tmp_path):
    frame = moving_frames(1)[0]
    with Image.open(write_png(tmp_path / "a.png", frame)) as image:
        np.testing.assert_array_equal(np.asarray(image), frame)


def test_contact_sheet_lays_out_rows():
    frames = moving_frames(5)
    assert contact_sheet(frames, 2).shape == (3 * 34 + 4, 2 * 44 + 4, 3)
    labelled = contact_sheet(frames, 9, labels=["a", "b", HOSTILE * 9, "", "e"])
    assert labelled.shape[1] == 5 * 44 + 4


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [np.zeros((4, 4, 3))],
        [np.zeros((4, 4), np.uint8)],
        [np.zeros((4, 4, 4), np.uint8)],
        [np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8)],
    ],
)
def test_frames_are_checked(tmp_path, frames):
    with pytest.raises(ValueError, match=r"got .*expected .*fix"):
        write_gif(tmp_path / "a.gif", frames)
    assert list(tmp_path.iterdir()) == []


def test_arguments_are_checked(tmp_path):
    frames = moving_frames(2)
    with pytest.raises(ValueError, match="got fps=0"):
        write_gif(tmp_path / "a.gif", frames, fps=0)
    with pytest.raises(ValueError, match="got columns=0"):
        contact_sheet(frames, 0)
    with pytest.raises(ValueError, match="got 1 labels for 2 frames"):
        contact_sheet(frames, 2, ["a"])


# --- figures -------------------------------------------------------------------------------------


def all_figures():
    rng = np.random.default_rng(0)
    x = np.arange(1, 801)
    series = [(f"arm {i}", x, rng.normal(size=(800, 5)).cumsum(axis=0)) for i in range(6)]
    rows = [(arm, 0.5, 0.4, 0.6, [0.3, 0.7, np.nan]) for arm in ARMS]
    scores = rng.normal(size=(3, 6, 5)).tolist()
    return [
        figures.learning_curves(series, "return", "env steps", "return"),
        figures.learning_curves(series[:1], "return", "env steps", "return", log_x=True),
        figures.score_intervals(rows, title="IQM"),
        figures.per_task_bars(["a", "b", "c"], [f"arm {i}" for i in range(6)], scores),
    ]


def test_figures_are_deterministic_small_and_inline():
    first, second = all_figures(), all_figures()
    assert first == second
    for svg in first:
        assert svg.startswith("<svg ")
        assert svg.endswith("</svg>")
        assert len(svg) < 60_000
        assert svg.startswith(f'<svg xmlns="{NAMESPACE}"')  # it opens alone
        assert "http" not in svg.replace(NAMESPACE, "")
        xml.dom.minidom.parseString(svg)


def test_ids_are_unique_across_figures_and_references_resolve():
    ids = [set(re.findall(r' id="([^"]+)"', svg)) for svg in all_figures()]
    assert sum(map(len, ids)) == len(set().union(*ids))
    for svg, own in zip(all_figures(), ids, strict=True):
        used = re.findall(r'href="#([^"]+)"', svg) + re.findall(r"url\(#([^)]+)\)", svg)
        assert used
        assert set(used) <= own


def test_figures_take_hostile_and_empty_input():
    nothing = np.full(5, np.nan)
    empty = figures.learning_curves([(HOSTILE, np.arange(5), nothing)], HOSTILE, HOSTILE, "y")
    drawn = [
        empty,
        figures.learning_curves([("_hidden", np.arange(1), np.ones(1))], "one", "x", "y"),
        figures.learning_curves([], "none", "x", "y"),
        figures.score_intervals([(HOSTILE, float("nan"), float("-inf"), 1.0, [])]),
        figures.score_intervals([]),
        figures.per_task_bars([HOSTILE], ["_a"], [[[]]]),
        figures.per_task_bars([], [], []),
    ]
    for svg in drawn:
        assert "<script" not in svg
        xml.dom.minidom.parseString(svg)


def test_many_seeds_and_unsorted_steps():
    rng = np.random.default_rng(1)
    x = rng.permutation(50)
    svg = figures.learning_curves([("a", x, rng.normal(size=(50, 64)))], "t", "x", "y")
    ordered = figures.learning_curves([("a", x, x * 1.0)], "t", "x", "y")
    straight = figures.learning_curves([("a", np.arange(50), np.arange(50.0))], "t", "x", "y")
    assert len(svg) < 60_000
    assert ordered == straight


def test_figures_check_shapes():
    with pytest.raises(ValueError, match=r"got x of shape \(3,\).*expected.*fix"):
        figures.learning_curves([("a", np.arange(3), np.zeros((5, 3)))], "t", "x", "y")
    with pytest.raises(ValueError, match=r"expected 2 arms.*fix"):
        figures.per_task_bars(["a"], ["x", "y"], [[[1.0]]])


# --- the page ------------------------------------------------------------------------------------


def test_report_is_whole_and_self_contained(tmp_path):
    page = read_report(make_run(tmp_path / "run"))
    assert "could not be drawn" not in page
    for title in ("Claims", "Scores", "The agents at work", "Learning curves", "Limits"):
        assert f"<h2>{title}</h2>" in page
    assert "1 of 2 claims pass" in page
    for scheme in ("http://", "https://"):
        assert scheme not in page.replace(NAMESPACE, "")
    sources = re.findall(r'\bsrc="([^"]*)"', page)
    assert len(sources) == 2
    assert all(source.startswith("data:image/") for source in sources)
    assert not re.search(r"<(script|link|iframe|object)\b|@import|url\((?!#)", page)
    assert page.count("<svg ") >= 3
    assert page.count("<section>") == page.count("</section>") == 8


def test_report_is_the_same_twice_and_leaves_no_temporary_file(tmp_path):
    folder = make_run(tmp_path / "run")
    before = set(folder.iterdir())
    assert read_report(folder) == read_report(folder)
    assert set(folder.iterdir()) - before == {folder / "report.html"}


def test_report_escapes_every_string(tmp_path):
    page = read_report(make_run(tmp_path / "run", name=HOSTILE))
    assert "<script" not in page
    assert "curve & <b>" not in page
    assert page.count("&lt;script&gt;") >= 5
    assert "could not be drawn" not in page


def test_unfinished_run_has_a_report(tmp_path):
    page = read_report(make_run(tmp_path / "run", summary=False, pictures=False))
    assert "unfinished" in page
    assert "ppo/Pendulum-v1, update 29" in page
    assert "No claims have been judged." in page
    assert "No pictures were drawn." in page
    assert "could not be drawn" not in page
    assert "<svg " in page  # the curves so far


def test_run_that_has_only_begun(tmp_path):
    page = read_report(make_run(tmp_path / "run", summary=False, pictures=False, rows=0))
    assert "nothing has been logged" in page
    assert "No learning curves" in page


def test_torn_last_line_is_noted(tmp_path):
    folder = make_run(tmp_path / "run")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "ppo/CartPole-v1", "st')
    page = read_report(folder)
    assert "1 unreadable line(s) ignored (line 61)" in page
    assert page.count("<svg ") >= 3


def test_broken_summary_and_odd_types_are_noted_not_fatal(tmp_path):
    folder = make_run(tmp_path / "run")
    (folder / "summary.json").write_text("{")
    assert "summary.json could not be read" in read_report(folder)
    (folder / "summary.json").write_text("[1]")
    assert "holds a list, not an object" in read_report(folder)
    odd = {"claims": [{"verdict": 3}], "arms": {"a": 5}, "scores": {"a": {"t": "x"}}, "tasks": "t"}
    (folder / "summary.json").write_text(json.dumps(odd))
    assert "<h2>Budgets</h2>" in read_report(folder)


def test_summary_chooses_the_curves(tmp_path):
    folder = make_run(tmp_path / "run")
    summary = json.loads((folder / "summary.json").read_text())
    curve = {"metric": "train/return", "stages": ["ppo/*"], "title": "Chosen", "x": "step"}
    summary["curves"] = [curve, {"metric": "missing", "title": "Absent"}]
    (folder / "summary.json").write_text(json.dumps(summary))
    page = read_report(folder)
    assert 'aria-label="Chosen"' in page
    assert "Absent: no values of missing in the log yet." in page


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"got .* expected a run folder; fix"):
        write_report(tmp_path)


def test_runs_are_compared_on_one_page(tmp_path):
    """Same names below different folders, another setting, an unfinished run."""
    folders = [tmp_path / "a" / "run", tmp_path / "b" / "run"]
    for number, folder in enumerate(folders):
        folder.parent.mkdir()
        make_run(folder, summary=number == 0)
    manifest = json.loads((folders[1] / "manifest.json").read_text())
    manifest["config"] |= {"steps": 8, "hostile": HOSTILE}
    (folders[1] / "manifest.json").write_text(json.dumps(manifest))
    page = write_comparison(folders, tmp_path / "page.html")
    text = page.read_text()
    assert "a/run" in text
    assert "b/run" in text
    assert re.search(r"<td[^>]*>steps</td><td[^>]*>-</td><td[^>]*>8</td>", text)
    assert ">train.note</td>" not in text  # what they share is left out
    assert "0.55" in text  # the mean of the seeds that have a score
    assert text.count("<svg") >= 2  # a curve of each stage, the runs its lines
    assert HOSTILE not in text
    assert is_comparison(page)
    assert not is_comparison(folders[0] / "manifest.json")


def test_report_imports_no_jax_and_no_pyplot():
    code = (
        "import sys, jaxagent.report.html; "
        "sys.exit('jax' in sys.modules or 'matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_arm_keeps_its_color(tmp_path):
    folder = make_run(tmp_path / "run")
    lines = [{"stage": "adapt/finetune/CartPole-v1", "step": i, "return": i} for i in range(9)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    curve = read_report(folder).split("<h2>Learning curves</h2>")[1]
    assert figures.COLORS[ARMS.index("finetune")].lower() in curve
    assert figures.COLORS[0].lower() not in curve


def test_histograms_of_samples_share_their_bins():
    counted = figure.histograms({"few": [0.0, 1.0], "many": [0.0, 0.4, 0.4, 1.0]}, num_bins=2)
    assert counted["few"] == {"counts": [1, 1], "edges": [0.0, 0.5, 1.0]}
    assert counted["many"]["counts"] == [3, 1]
    few, many = figure.shares("returns", "of episodes", "return", counted)["series"]
    assert (few["y"], many["y"]) == ([0.5, 0.5], [0.75, 0.25])
    assert few["x"] == [0.25, 0.75]
