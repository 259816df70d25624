"""Result rows: what is kept of a run, and the page that shows every verdict."""

import dataclasses
import json

import pytest

from experiments import results
from experiments.cli.rooms import room
from jaxagent.config import fingerprint
from jaxagent.study import registration


@pytest.fixture
def without_belief(monkeypatch):
    """Rows of these tests have other claims than those that the room's authors speak of."""
    monkeypatch.setattr(room("icl_bma").config, "BELIEF", "")


def finished(tmp_path, verdict):
    claim = {
        "id": "X1",
        "statement": "A beats B",
        "kind": "superiority",
        "gated": True,
        "verdict": verdict,
        "difference": 0.5,
        "interval": [0.25, None],
        "margin": 0.1,
        "seeds": 6,
    }
    claim["interval"] = [0.25, 0.75]
    summary = {
        "experiment": "icl_bma",
        "preset": "cpu",
        "command": "jaxagent run icl_bma",
        "fingerprint": fingerprint(room("icl_bma").config.PRESETS["cpu"]),
        "git": {"dirty": True},
        "versions": {"jax": "1", "python": "3"},
        "device": {"kind": "NVIDIA H100"},
        "precision": {},
        "wall_seconds": 9.6,
        "compile_seconds": 1.0,
        "claims": [claim],
        "figures": ["large"],
    }
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    (tmp_path / "manifest.json").write_text(json.dumps({"started": "2026-01-02T03:04", "xla_flags": "--x=1"}))
    return tmp_path


@pytest.mark.usefixtures("without_belief")
@pytest.mark.parametrize("verdict", ["PASS", "FAIL", "INCONCLUSIVE"])
def test_a_row_is_kept_and_shown_whatever_its_verdict(tmp_path, monkeypatch, verdict):
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    path = results.add(finished(tmp_path / "run", verdict))
    row = json.loads(path.read_text())
    assert path.name == "icl_bma-cpu.json"
    assert "figures" not in row
    page = results.page([row])
    assert f"**{verdict}** | 0.5 [0.25, 0.75] | - | 0.1 | - | 6 |" in page
    assert "\nExploratory: its claims were not frozen. Judged by older rules: IQMs pooled over tasks" in page
    stale = results.page([row | {"fingerprint": "abc"}])
    assert "Stale: its preset is another now. Exploratory: its claims were not frozen." in stale
    assert "superiority, gated" in page
    config = f"config {row['fingerprint']}, uncommitted changes, "
    assert f"Preset `cpu`, 2026-01-02, NVIDIA H100 with `--x=1`, {config}" in page
    assert "## quickstart" in page  # an experiment without a row is named too


@pytest.mark.usefixtures("without_belief")
def test_a_row_that_is_superseded_stays_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    results.add(finished(tmp_path / "run", "FAIL"))
    later = finished(tmp_path / "later", "PASS")
    (later / "manifest.json").write_text(json.dumps({"started": "2026-02-03T04:05:06"}))
    for _ in range(2):  # again the same: nothing is superseded by itself
        results.add(later)
    rows = [json.loads(path.read_text()) for path in sorted((tmp_path / "results").glob("*.json"))]
    assert [row["claims"][0]["verdict"] for row in rows] == ["FAIL", "PASS"]
    assert sorted(path.name for path in (tmp_path / "results").glob("*.json")) == [
        "icl_bma-cpu-202601020304.json",
        "icl_bma-cpu.json",
    ]
    page = results.page(rows)
    assert "Superseded by the run of 2026-02-03T04:05. Exploratory: its claims were not frozen" in page
    assert page.count("Superseded") == 1


@pytest.mark.usefixtures("without_belief")
def test_a_row_of_frozen_claims_says_so_and_shows_each_task(tmp_path):
    folder = finished(tmp_path / "run", "PASS")
    summary = json.loads((folder / "summary.json").read_text())
    summary["frozen"] = {"is_confirmed": True, "commit": "0123456789ab", "reason": ""}
    more = {"by_task": {"reach": 0.75, "push": 0.0}, "dropped": ["push"], "smallest_effect": 0.0625}
    page = results.page([summary | {"started": "2026-01-02", "claims": [summary["claims"][0] | more]}])
    assert "Confirmed: claims frozen at 01234567. Preset" in page
    assert "| 0.5 [0.25, 0.75] | reach 0.75, push 0 (left out) | 0.1 | 0.0625 | 6 |" in page


def test_a_confirmed_row_gives_way_to_new_claims_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")

    def run(name, year, **frozen):
        folder = finished(tmp_path / name, "PASS")
        path = folder / "summary.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"frozen": frozen}))
        (folder / "manifest.json").write_text(json.dumps({"started": f"{year}-01-02T03:04:05"}))
        return folder

    results.add(run("first", 2026, is_confirmed=True, commit="a" * 40, reason=""))
    for frozen in ({"is_confirmed": False, "reason": "none"}, {"is_confirmed": True, "commit": "a" * 40}):
        with pytest.raises(ValueError, match="claim seeds run once"):
            results.add(run("again", 2027, **frozen))
    results.add(run("new", 2028, is_confirmed=True, commit="b" * 40, reason=""))
    assert len(list((tmp_path / "results").iterdir())) == 2


def test_a_run_of_other_settings_has_no_row(tmp_path):
    folder = finished(tmp_path / "run", "PASS")
    path = folder / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fingerprint": "abc"}))
    with pytest.raises(ValueError, match="got settings that are not those of preset 'cpu' now"):
        results.add(folder)


def test_an_unfinished_run_has_no_row(tmp_path):
    with pytest.raises(ValueError, match=r"got no summary\.json, expected a finished run"):
        results.add(tmp_path)


def test_page_and_readme_are_what_the_rows_make():
    rows = results.read()
    assert results.PAGE.read_text() == results.page(rows)
    text = results.README.read_text()
    assert results.in_readme(text, results.overview(rows)) == text
    with pytest.raises(ValueError, match="put them back"):
        results.in_readme("no marks", "")


def test_a_belief_has_its_numbers_from_the_newest_row(tmp_path, monkeypatch):
    config = room("icl_bma").config
    monkeypatch.setattr(
        config, "BELIEF", "It is\nso ({X1}); arm {=a}; {cpu-full: X1} in {cpu-full: seconds}."
    )
    summary = json.loads((finished(tmp_path, "PASS") / "summary.json").read_text())
    row = summary | {"arms": {"a": {"iqm": 0.123}}}
    late = row | {"preset": "cpu-full", "wall_seconds": 7000.4}
    old = row | {"superseded": "later", "claims": []}
    told = results.belief("icl_bma", [old, row, late])
    assert told == "It is so (PASS: 0.5 [0.25, 0.75]); arm 0.12; PASS: 0.5 [0.25, 0.75] in 7000 s."
    with pytest.raises(KeyError, match="cpu-full"):
        results.belief("icl_bma", [row])
    monkeypatch.setattr(config, "BELIEF", "It is ({X2}).")
    with pytest.raises(ValueError, match=r"BELIEF of icl_bma: got claim 'X2', expected one of .*\['X1'\]"):
        results.belief("icl_bma", [row])


@pytest.mark.usefixtures("without_belief")
def test_a_row_is_stale_once_the_smoke_preset_computes_other_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "SMOKE", tmp_path / "smoke.json")
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    config = room("icl_bma").config.PRESETS["smoke"]
    run = finished(tmp_path / "smoke", "PASS")
    about = {"experiment": "icl_bma", "preset": "smoke", "fingerprint": fingerprint(config), "started": ""}
    (run / "manifest.json").write_text(json.dumps(about))

    def computed(loss):
        line = {"stage": "train", "step": 2, "train/loss": [loss, None], "chunk_seconds": 1.0}
        (run / "metrics.jsonl").write_text(
            json.dumps({"stage": "train", "step": 1}) + "\n" + json.dumps(line)
        )
        results.note_smoke(run)

    monkeypatch.setattr(results, "_is_of_this_code", lambda row: False)
    computed(0.5)
    assert json.loads(results.add(finished(tmp_path / "old", "PASS")).read_text())["smoke"] is None
    monkeypatch.setattr(results, "_is_of_this_code", lambda row: True)
    row = json.loads(results.add(finished(tmp_path / "run", "PASS")).read_text())
    assert row["smoke"] == {"train": {"train/loss": [0.5, None]}, "scores": {}}
    computed(0.5001)  # as another machine rounds
    assert "other numbers" not in results.page([row])
    computed(0.6)
    assert "Stale: the code computes other numbers now." in results.page([row])
    assert "exploratory; stale; judged by older rules: 1 PASS" in results.overview([row])
    with pytest.raises(ValueError, match="smoke preset as it is"):
        results.note_smoke(finished(tmp_path / "other", "PASS"))


@pytest.mark.usefixtures("without_belief")
def test_a_row_of_development_seeds_stands_beside_that_of_claim_seeds(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    preset = room("icl_bma").config.PRESETS["cpu"]
    (seeds,) = registration.seeds_of(preset)
    other = registration.with_seeds(preset, lambda _: dataclasses.replace(seeds, first=1000))
    folder = finished(tmp_path / "run", "PASS")
    path = folder / "summary.json"
    summary = json.loads(path.read_text())
    developed = {"seeds": [[1000, seeds.count]], "fingerprint": fingerprint(other)}
    path.write_text(json.dumps(summary | developed))
    target = results.add(folder)
    assert target.name == "icl_bma-cpu-development.json"
    row = json.loads(target.read_text())
    assert "Of development seeds, by which settings were chosen." in results.page([row])
    assert "`cpu` 10 s, development seeds" in results.overview([row])
    path.write_text(json.dumps(summary | developed | {"fingerprint": "abc"}))
    with pytest.raises(ValueError, match="rows are of presets"):
        results.add(folder)


def test_every_row_names_the_seeds_that_are_spent():
    assert all(row["seeds"] for row in results.read())


def test_every_experiment_with_rows_has_the_numbers_of_its_smoke_preset():
    """Without them a row could not tell that the code computes other numbers now."""
    told = {path.stem.split("-")[0] for path in results.RESULTS.glob("*.json")}
    assert told <= set(results.smoke_numbers())
