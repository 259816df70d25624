"""Grids: cells differ from the baseline in what they name, resume, and end in one table."""

import dataclasses
import json

import jax
import pytest

from experiments import cli
from experiments.cli import ablation, rooms
from experiments.pasta import config as pasta
from experiments.pasta.config import CPU, ablations
from experiments.spr import config as spr
from jaxagent import folders
from jaxagent.config import check, fingerprint

ROOM = rooms.room("pasta")
MANIFEST = dict.fromkeys(folders.NEEDED, "")


@pytest.mark.parametrize(("room", "preset"), [(room, p) for room in (pasta, spr) for p in room.PRESETS])
def test_every_cell_is_legal_and_another_configuration(room, preset):
    cells = room.ablations(room.PRESETS[preset])
    for config in cells.values():
        check(config)
    assert len({fingerprint(c) for c in cells.values()}) == len(cells)


def test_a_cell_changes_what_it_names():
    cells = ablations(CPU)
    base = cells["baseline"]
    assert cells["bins x4"].tokens == dataclasses.replace(base.tokens, num_bins=256)
    assert dataclasses.replace(cells["bins x4"], tokens=base.tokens) == base
    assert cells["mtm modality"].main.objective == "mtm"
    assert cells["mtm modality"].main.granularity == "modality"
    assert set(base.arms) == {"scratch", "full"}


def test_the_grid_crosses_objectives_with_granularity_and_values_with_granularity():
    cells = ablations(CPU)
    for objective in ("bert", "mtm", "smart", "maskdp", "spr"):
        assert {f"{objective} component", f"{objective} modality"} <= set(cells)
    assert {"modality bins", "modality reals", "component reals", "component two_hot"} <= set(cells)


def test_unknown_cells_and_experiments_without_a_grid_are_refused(capsys):
    assert cli.main(["ablate", "pasta", "--only", "bins x5"]) == cli.USAGE
    assert "bins x4" in capsys.readouterr().err
    assert cli.main(["ablate", "quickstart"]) == cli.USAGE
    assert "grid" in capsys.readouterr().err


def test_cells_are_told_without_running(capsys, monkeypatch):
    monkeypatch.setattr(ablation, "costs", lambda study, with_memory: ())  # each is traced otherwise
    assert cli.main(["ablate", "pasta", "--preset", "smoke", "--dry-run"]) == 0
    told = capsys.readouterr().out.splitlines()
    # It has less than the preset: one model, two arms and no rewards.
    assert told[0].startswith("[1/34] baseline: 0.0 GFLOP, 0 s; models ")
    assert any(line.endswith("bins x4: 0.0 GFLOP, 0 s; tokens.num_bins 16 -> 64") for line in told)


@pytest.fixture
def finished(tmp_path):
    """Two cells as their runs leave them."""
    cells = {"baseline": pasta.SMOKE, "bins x4": dataclasses.replace(pasta.SMOKE, seed=1)}
    for number, (cell, config) in enumerate(cells.items()):
        place = ablation.folder_of(tmp_path, cell)
        place.mkdir(parents=True)
        scores = {"full": {"a": [0.1 + number, 0.2 + number], "b": [0.3 + number, 0.4 + number]}}
        summary = {"tasks": ["a", "b"], "scores": scores, "wall_seconds": 3.0}
        (place / "summary.json").write_text(json.dumps(summary))
        about = MANIFEST | {"jaxagent": "run", "fingerprint": fingerprint(config)}
        (place / "manifest.json").write_text(json.dumps(about))
    about = MANIFEST | {"jaxagent": "grid", "fingerprint": fingerprint(pasta.SMOKE)}
    (tmp_path / "manifest.json").write_text(json.dumps(about))
    return tmp_path, cells


def test_the_table_has_gains_and_commands(finished):
    out, cells = finished
    summary = ablation.summarise(out, cells, "jaxagent ablate pasta", "full")
    row = summary["arms"]["bins x4"]["description"]
    assert row.startswith("+1.00 [+1.00, +1.00] on the baseline")
    assert "jaxagent ablate pasta --only 'bins x4'" in row
    assert summary["tasks"] == ["a", "b"]
    assert summary["scores"]["baseline"]["b"] == [0.3, 0.4]


def test_finished_cells_are_not_run_again(finished, monkeypatch, capsys):
    out, cells = finished
    started = []
    monkeypatch.setattr(ablation.session, "start", lambda *args, **kwargs: started.append(args[3]) or 0)
    (ablation.folder_of(out, "bins x4") / "summary.json").unlink()
    monkeypatch.setattr(
        ablation,
        "summarise",
        lambda *args: {"tasks": [], "arms": {}, "scores": {}, "preconditions": [], "claims": []},
    )
    monkeypatch.setattr(ablation, "table", lambda summary: "")
    monkeypatch.setattr(ablation.session, "resume", lambda *args, **kwargs: started.append(args[1]) or 0)
    assert ablation.run(ROOM, "smoke", pasta.SMOKE, cells, cells, out, "command") == 0
    assert started == [ablation.folder_of(out, "bins x4")], "resumed: it was begun"
    assert "finished before" in capsys.readouterr().out


@pytest.fixture
def shared_keys():
    """Conditions of a test share their keys under vmap, which the checker takes for reuse."""
    with jax.debug_key_reuse(False):
        yield


@pytest.mark.slow
@pytest.mark.usefixtures("shared_keys")
def test_two_cells_run_resume_and_end_in_a_page(tmp_path, capsys):
    """The real thing, on the cheap domain: tokens of bins against vectors of reals."""
    small = dataclasses.replace(pasta.SMOKE, domains=pasta.SMOKE.domains[:1])
    grid = ablations(small)
    cells = {name: grid[name] for name in ("baseline", "modality reals")}
    assert ablation.run(ROOM, "smoke", small, cells, cells, tmp_path, "jaxagent ablate pasta") == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert set(summary["arms"]) == set(cells)
    page = (tmp_path / "report.html").read_text()
    assert "modality reals" in page
    assert "--only" in page
    capsys.readouterr()
    assert ablation.run(ROOM, "smoke", small, cells, cells, tmp_path, "jaxagent ablate pasta") == 0
    assert capsys.readouterr().out.count("finished before") == 2
