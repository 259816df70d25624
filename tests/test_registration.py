"""Frozen claims: what is refused, what a file holds, and when a run's verdicts are confirmed."""

import dataclasses
import json
import subprocess

import numpy as np
import pytest
import scipy.stats

from jaxagent.config import fingerprint
from jaxagent.evaluate.claims import Claim
from jaxagent.study import registration
from jaxagent.study.config import SeedConfig
from jaxagent.study.registration import NotFrozen
from jaxagent.study.study import Study
from jaxagent.study.verdicts import judged

TASKS, ABOUT = ("reach", "push"), {"a": "A", "b": "B"}


@dataclasses.dataclass(frozen=True)
class Inner:
    """A part of a configuration that names seeds."""

    seeds: SeedConfig = SeedConfig(0, 8)


@dataclasses.dataclass(frozen=True)
class Config:
    """A configuration."""

    parts: tuple[Inner, ...] = (Inner(),)
    width: int = 4


def claim(**changes):
    return dataclasses.replace(Claim("C1", "A beats B", "superiority", "a", "b", margin=0.2), **changes)


def study_of(*claims, **options):
    return Study(ABOUT, TASKS, (), lambda found: {}, claims or (claim(),), **options)


def asked(study=None, config=None):
    return registration.asked("paper", "cpu", config or Config(), study or study_of())


def development(effect=0.4, noise=0.05, count=8, level=0.3, config=None, **changes):
    """The summary of a run on development seeds."""
    generator, shape = np.random.default_rng(0), (2, count)
    scores = {
        name: centre + noise * generator.normal(size=shape)
        for name, centre in (("a", level + effect), ("b", level))
    }
    summary = judged(
        claims=[], scores=scores, preconditions=[], preset="cpu", shown=scores, about=ABOUT, tasks=TASKS
    )
    ran = dataclasses.replace(config or Config(), parts=(Inner(SeedConfig(1000, count)),))
    about = {"experiment": "paper", "seeds": [[1000, count]], "fingerprint": fingerprint(ran)}
    about |= {"git": {"commit": "c", "dirty": False}}
    return json.loads(json.dumps(summary | about | changes))


def freeze(path, study=None, config=None, why="", seen=(), **run):
    study, config = study or study_of(), config or Config()
    found = development(config=config, **run)
    return registration.freeze(path, config, asked(study, config), study, found, why=why, seen=seen)


def test_the_seeds_of_a_configuration_are_found_wherever_they_are():
    assert registration.seeds_of(Config()) == [SeedConfig(0, 8)]
    assert asked()["seeds"] == [[0, 8]]


def test_a_frozen_file_holds_claims_seeds_settings_and_what_the_seeds_can_show(tmp_path):
    path = tmp_path / "frozen" / "paper-cpu.json"
    (line,) = freeze(path)
    content = json.loads(path.read_text())
    assert {key: content[key] for key in asked()} == asked()
    assert content["claims"][0]["margin"] == 0.2
    assert 0.0 < content["smallest_effects"]["C1"] < 0.2
    assert np.shape(content["development"]["metrics"]["score"]["a"]) == (2, 8)
    assert line.startswith("C1: PASS on development seeds, difference 0.39")


def effect_of(tmp_path, name="x.json", **options):
    freeze(tmp_path / name, **options)
    return json.loads((tmp_path / name).read_text())["smallest_effects"]["C1"]


def reach(units, level=0.05, power=0.8):
    return scipy.stats.t.ppf([1 - level, power], units - 1).sum() / np.sqrt(units)


def test_the_smallest_effect_is_that_of_the_claim_seeds(tmp_path):
    """Of their number, whatever that of the development seeds, and of the level that Holm asks for."""
    few = effect_of(tmp_path, "few.json")
    more = effect_of(tmp_path, "more.json", config=Config((Inner(SeedConfig(0, 32)),)))
    assert more / few == pytest.approx(reach(32) / reach(8), rel=1e-4)
    two = effect_of(tmp_path, "two.json", study=study_of(claim(), claim(id="C2")))
    assert two / few == pytest.approx(reach(8, level=0.025) / reach(8), rel=1e-4)
    equal = study_of(claim(kind="equivalence"))
    both = effect_of(tmp_path, "both.json", study=equal, effect=0.01)
    assert both / few == pytest.approx(reach(8, power=0.9) / reach(8), rel=1e-4)  # of the same spread


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": [[0, 8]]}, r"got seeds \[\[0, 8\]\], expected all from 1000 on"),
        ({"experiment": "other"}, "got one of 'other', expected 'paper'"),
        ({"count": 4}, "got 4 development units, expected at least 5"),
        ({"noise": 0.5}, "got margin 0.2, expected at least .* the smallest effect"),
        ({"level": 0.0}, "reach, push sits at an end of the scale on development seeds"),
        ({"preconditions": [{"name": "room", "passed": False, "detail": ""}]}, "precondition 'room' failed"),
        (
            {"fingerprint": "other"},
            r"got other settings \(config other\), expected the preset's with other seeds",
        ),
        ({"git": {"dirty": True}}, "got one with changes that no commit has"),
        (
            {"study": study_of(*(claim(id=f"C{i}") for i in range(13)))},
            "expected p = 0.00391, .* below 0.00385",
        ),
        ({"seen": [[7, 3]]}, "got seeds 7 to 7, which were run or frozen before"),
        ({"config": Config((Inner(SeedConfig(995, 8)),))}, "expected claim seeds below 1000"),
    ],
)
def test_what_could_not_answer_is_not_frozen(tmp_path, options, message):
    with pytest.raises(NotFrozen, match=message):
        freeze(tmp_path / "paper-cpu.json", **options)
    assert not list(tmp_path.iterdir())


def test_all_reasons_are_told_at_once(tmp_path):
    study = study_of(claim(margin=0.0), claim(id="C2", kind="non_inferiority", margin=0.001))
    with pytest.raises(NotFrozen, match=r"C1: got margin 0[^0-9][\s\S]*C2: got margin 0\.001"):
        freeze(tmp_path / "paper-cpu.json", study)


def test_a_task_that_may_be_dropped_does_not_stand_in_the_way(tmp_path):
    run = development()
    for arm in ABOUT:
        run["metrics"]["score"][arm][0] = [1.0] * 8
    study = study_of(claim(may_drop=("reach",)))
    registration.freeze(tmp_path / "a.json", Config(), asked(study), study, run)
    with pytest.raises(NotFrozen, match="reach sits at an end"):
        registration.freeze(tmp_path / "b.json", Config(), asked(), study_of(), run)


def test_a_summary_from_before_is_named(tmp_path):
    old = {key: value for key, value in development().items() if key != "metrics"}
    with pytest.raises(NotFrozen, match=r"got a summary without \['metrics'\]"):
        registration.freeze(tmp_path / "a.json", Config(), asked(), study_of(), old)


def test_one_pretraining_shows_no_effect_and_is_frozen_as_a_direction(tmp_path):
    scores = development()["metrics"]["score"]
    nested = {"score": {arm: np.array(rows)[:, None].tolist() for arm, rows in scores.items()}}
    assert effect_of(tmp_path, metrics=nested) is None


def test_what_judging_depends_on_is_frozen():
    plain = asked()
    for options in ({"scale": None}, {"shared_seeds": True}, {"tasks": ("reach", "pull")}):
        other = dataclasses.replace(study_of(), **options)
        assert asked(other) != plain
    of_one = [asked(study_of(claim(tasks=(task,))))["claims"][0]["tasks"] for task in TASKS]
    assert of_one == [[task] for task in TASKS]
    assert "tasks" not in plain["claims"][0]  # as claims were frozen before they could name some
    with pytest.raises(ValueError, match=r"got tasks \['swim'\], expected some of"):
        study_of(claim(tasks=("swim",)))


def test_what_was_frozen_changes_with_new_seeds_and_a_reason_alone(tmp_path):
    path, other = tmp_path / "paper-cpu.json", study_of(claim(margin=0.3))
    freeze(path)
    before = path.read_bytes()
    assert freeze(path) == ["C1: as it was frozen"]  # the same again is no change
    assert path.read_bytes() == before
    with pytest.raises(NotFrozen, match=r"got seeds 0 to 7, which were run or frozen[\s\S]*got no reason"):
        freeze(path, other)
    new = Config((Inner(SeedConfig(100, 8)),))
    with pytest.raises(NotFrozen, match="--why TEXT"):
        freeze(path, other, new)
    freeze(path, other, new, "the first margin was below what eight seeds show")
    (first,) = json.loads(path.read_text())["replaces"]
    assert (first["seeds"], first["claims"][0]["margin"]) == ([[0, 8]], 0.2)
    assert first["why"].startswith("the first margin")
    with pytest.raises(NotFrozen, match="got seeds 0 to 7, which were run or frozen before"):
        freeze(path, why="back again")
    freeze(path, config=Config((Inner(SeedConfig(200, 8)),)), why="a third time")
    assert [old["seeds"] for old in json.loads(path.read_text())["replaces"]] == [[[0, 8]], [[100, 8]]]


# When a run is confirmed.


@pytest.fixture
def repository(tmp_path):
    """A repository whose frozen claims are committed."""
    git(tmp_path, "init", "-q")
    git(tmp_path, "config", "user.email", "a@b.c")
    git(tmp_path, "config", "user.name", "a")
    freeze(tmp_path / "paper-cpu.json")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "agent.py").write_text("x = 1")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "claims")
    return tmp_path


def git(folder, *args):
    subprocess.run(["git", "-C", str(folder), *args], check=True, capture_output=True)


def status(folder, study=None, config=None):
    return registration.status(folder / "paper-cpu.json", asked(study, config), ("code",))


def test_a_run_of_committed_claims_from_a_clean_tree_is_confirmed(repository):
    found = status(repository)
    assert (found["is_confirmed"], len(found["commit"]), found["reason"]) == (True, 40, "")


def test_a_run_is_exploratory_where_anything_is_not_as_it_was_frozen(repository, tmp_path_factory):
    assert (
        status(repository, study_of(claim(margin=0.1)))["reason"] == "claims are not those that were frozen"
    )
    assert "fingerprint" in status(repository, config=Config(width=8))["reason"]
    (repository / "more.txt").write_text("x")
    assert status(repository) == {
        "is_confirmed": False,
        "commit": None,
        "reason": "the working tree has changes",
    }
    git(repository, "add", "-A")
    git(repository, "commit", "-qm", "no code")
    assert status(repository)["is_confirmed"]
    (repository / "code" / "agent.py").write_text("x = 2")
    git(repository, "commit", "-qam", "another agent")
    assert "the code has changed since" in status(repository)["reason"]
    bare = tmp_path_factory.mktemp("bare")
    assert status(bare)["reason"] == "its claims were not frozen"
    freeze(bare / "paper-cpu.json")
    assert "git cannot say" in status(bare)["reason"]
