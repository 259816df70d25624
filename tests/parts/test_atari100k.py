"""Atari-100k: what is refused before anything runs, and how scores stand beside published ones."""

import dataclasses

import numpy as np
import pytest

from envs.atari import ATARI_100K, SPR, human_normalised
from envs.names import MissingExtra
from experiments import cli
from experiments.configs import atari100k
from experiments.configs.atari100k import GPU, SMOKE
from experiments.parts import atari_report as report
from jaxagent.train import metrics_log

TWO = dataclasses.replace(GPU, games=("pong", "boxing"), num_seeds=3)


def changed(config, **changes):
    own = {k: v for k, v in changes.items() if hasattr(config, k)}
    fit = {k: v for k, v in changes.items() if k not in own}
    return dataclasses.replace(config, **own, rainbow=dataclasses.replace(config.rainbow, **fit))


@pytest.fixture
def with_emulator(monkeypatch):
    monkeypatch.setattr(atari100k, "missing_package", lambda family: None)


def test_presets_are_the_published_protocol(with_emulator):
    assert len(GPU.games) == 26
    assert (GPU.episodes, GPU.rainbow.num_updates) == (100, 100_000)
    assert GPU.rainbow.total_gradient_steps == 200_000
    for preset in atari100k.PRESETS.values():
        preset.check()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"games": ("pongg",)}, "Did you mean pong"),
        ({"games": ("pong", "pong")}, "name each once"),
        ({"games": ()}, "name each once"),
        ({"episodes": 15}, "a multiple of 10"),
        ({"num_envs": 4}, "plays one game"),
        ({"warmup_steps": 5000}, "updates_per_chunk: got 2500, expected at least 5011"),
        ({"updates_per_chunk": 7000}, "chunks are whole"),
        ({"num_td_steps": 3000}, "a window of num_td_steps"),
        ({"capacity": 100}, "expected at least 320, a minibatch of n-step targets"),
        ({"capacity": 10**9}, "frames kept"),
    ],
)
def test_what_cannot_be_learned_is_refused(with_emulator, changes, said):
    with pytest.raises(ValueError, match=said):
        changed(GPU, **changes).check()


def test_one_device(with_emulator):
    runtime = dataclasses.replace(GPU.runtime, devices=2)
    with pytest.raises(ValueError, match="an emulator feeds one"):
        dataclasses.replace(GPU, runtime=runtime).check()


def test_without_the_extra_the_pip_line_is_said(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(atari100k, "missing_package", lambda family: "ale_py")
    with pytest.raises(MissingExtra, match=r"pip install 'jaxagent\[atari\]'"):
        SMOKE.check()
    out = tmp_path / "run"
    assert cli.main(["run", "atari100k", "--preset", "smoke", "--out", str(out)]) == cli.USAGE
    assert "pip install 'jaxagent[atari]'" in capsys.readouterr().err
    assert not out.exists()


def test_games_are_named_on_the_command_line(with_emulator, capsys, tmp_path):
    run = ["run", "atari100k", "--preset", "smoke", "--out", str(tmp_path / "run")]
    assert cli.main([*run, "--games", "pong", "boksing"]) == cli.USAGE
    assert "Did you mean boxing" in capsys.readouterr().err


# --- the report -----------------------------------------------------------------------------------


def done(pong, boxing):
    """Games `[seeds][episodes]` as stages leave them."""
    return {"pong": {"returns": {"spr": pong}}, "boxing": {"returns": {"spr": boxing}}}


def test_a_score_is_the_mean_over_episodes_between_random_and_human(tmp_path):
    config = changed(TWO, num_seeds=2)
    returns = report.returns_of(config, done([[-21, -19], [0, 10]], [[1, 2], [3, 4]]))
    np.testing.assert_allclose(returns["spr"], [[-20, 5], [1.5, 3.5]])
    for game in config.games:
        for agent in ("spr",):
            line = {"stage": f"train/{game}/{agent}", "step": 1}
            for loss in ([2.0, 4.0], [9.0, 9.0], [1.0, 3.0]):
                metrics_log.append(tmp_path / "metrics.jsonl", line | {"train/loss/spr": loss})
    table = report.scores(config, tmp_path, returns)
    expected = [[human_normalised("pong", x) for x in (-20, 5)],
                [human_normalised("boxing", x) for x in (1.5, 3.5)]]  # fmt: skip
    np.testing.assert_allclose(table["spr"], expected)
    np.testing.assert_allclose(table["published"][0], human_normalised("pong", SPR["pong"]))
    np.testing.assert_allclose(table["loss", "spr"], [[0.5, 0.75]] * 2)


def test_a_published_score_is_reached_inside_the_interval_or_below_it():
    below, around, above = (np.array([SPR["pong"] + d] * 3) for d in (-9.0, 0.0, 9.0))
    around = around + np.array([-2.0, 0.5, 1.0])
    for row, reached in ((below, 0), (around, 1), (above, 1)):
        table = np.stack([row, np.array([0.0, 0.1, 0.2])])
        assert report.num_reached(TWO, table) == reached
        assert ("(reached)" in report.beside(TWO, "spr", table)[0]) == bool(reached)


def test_the_published_aggregates_come_out_of_the_published_table():
    table = np.array([[human_normalised(game, SPR[game])] for game in ATARI_100K])
    assert report.aggregate(table).startswith("median 0.396, mean 0.616")
