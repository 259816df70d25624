"""Settings that a sampler asks for; what needs optuna is of the slow tier."""

import json

import numpy as np
import pytest
from front_door import as_users_run_it  # noqa: F401, it is used by all

import jaxagent
from experiments import cli
from jaxagent.api import tune
from jaxagent.api.config import TuneConfig, config_of, is_log, recipe, source_of
from jaxagent.config import from_dict, to_dict

CARTPOLE = "classic/CartPole-v1"
TINY = {"num_envs": 4, "num_steps": 4, "num_updates": 2, "updates_per_chunk": 1, "hidden_size": 8}
SPACE = (("learning_rate", (1e-4, 1e-2)), ("clip", (0.1, 0.3)))


def config(**changes):
    return TuneConfig(
        recipe("ppo", CARTPOLE, seeds=2, episodes=2, **TINY), SPACE, trials=4, at_once=2, **changes
    )


def test_a_range_is_checked_before_anything_runs():
    train = recipe("ppo", CARTPOLE)
    for space, hint in (
        ((("learning_rate", (0.1, 0.01)),), "the lower first"),
        ((("learning_rte", (0.1, 0.2)),), "learning_rate"),
        ((("learning_rate", (-1.0, 0.2)),), "learning_rate"),
        ((), "a field with its ends"),
    ):
        with pytest.raises(ValueError, match=hint):
            TuneConfig(train, space)
    with pytest.raises(ValueError, match="rounds are of at_once trials"):
        TuneConfig(train, SPACE, trials=9, at_once=4)
    assert is_log(1e-4, 1e-2)
    assert not is_log(0.1, 0.3)
    assert config().middle == {"learning_rate": pytest.approx(1e-3), "clip": pytest.approx(0.2)}


def test_it_comes_back_from_its_manifest():
    asked = config()
    again = from_dict(config_of(source_of(asked)), json.loads(json.dumps(to_dict(asked))))
    assert again == asked


def test_without_optuna_the_line_that_installs_it_is_told(monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    assert cli.main(["tune", "ppo", CARTPOLE, "clip=0.1:0.3", "--dry-run"]) == cli.USAGE
    assert "pip install 'jaxagent[optuna]'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_sampler_learns_and_repeats_itself():
    pytest.importorskip("optuna")
    asked = TuneConfig(recipe("ppo", CARTPOLE), SPACE, trials=96, at_once=8)

    def score(values):
        return -abs(np.log10(values["learning_rate"]) + 3.0) - 10 * abs(values["clip"] - 0.2)

    told = []
    for _ in range(12):
        trials = tune.asked(asked, told)
        assert trials == tune.asked(asked, told)
        assert all(1e-4 <= t["learning_rate"] <= 1e-2 and 0.1 <= t["clip"] <= 0.3 for t in trials)
        told.append([(values, score(values)) for values in trials])
    means = [np.mean([s for _, s in one]) for one in told]
    assert means[-1] > means[0] + 0.3


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_search_is_ranked_opened_and_goes_on_as_it_would_have(tmp_path):
    pytest.importorskip("optuna")
    options = {"trials": 4, "at_once": 2, "seeds": 2, "episodes": 2, "quiet": True, "out": tmp_path / "run"}
    found = jaxagent.tune("ppo", CARTPOLE, dict(SPACE), **options, **TINY)
    assert len(found.ranking) == 4
    assert set(found.best) == {"learning_rate", "clip"}
    assert "trial " in repr(found)
    page = found.report.read_text()
    assert "learning_rate=" in page
    assert "<h2>Claims</h2>" not in page
    before = (tmp_path / "run" / "summary.json").read_text()
    for name in ("summary.json", "stages/train/1/done.json", "stages/evaluate/1/done.json"):
        (tmp_path / "run" / name).unlink()
    again = jaxagent.tune("ppo", CARTPOLE, dict(SPACE), **options, **TINY)
    assert again.ranking == json.loads(before)["ranking"]
    assert jaxagent.load(tmp_path / "run").best == found.best
    alone = jaxagent.learn("ppo", CARTPOLE, seeds=2, episodes=2, quiet=True, **TINY, **found.best)
    assert alone.returns.mean() == pytest.approx(found.ranking[0]["mean"], rel=1e-5)
