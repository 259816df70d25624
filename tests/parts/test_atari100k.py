"""Atari-100k: what is refused before anything runs, and how scores stand beside published ones."""

import dataclasses

import numpy as np
import pytest
from extras import need

from envs import registry
from envs.atari import ATARI_100K, SPR, human_normalised
from envs.common.names import MissingExtra
from experiments import cli
from experiments.atari100k import config as atari100k
from experiments.atari100k import study as experiment
from experiments.atari100k.config import GPU, SMOKE
from jaxagent.config import check
from jaxagent.evaluate.claims import judge
from jaxagent.study.config import SeedConfig
from jaxagent.study.study import Found
from jaxagent.types import Policy

TWO = dataclasses.replace(GPU, games=("pong", "boxing"), seeds=SeedConfig(0, 3))


def changed(config, **changes):
    own = {k: v for k, v in changes.items() if hasattr(config, k)}
    fit = {k: v for k, v in changes.items() if k not in own}
    return dataclasses.replace(config, **own, rainbow=dataclasses.replace(config.rainbow, **fit))


@pytest.fixture
def with_emulator(monkeypatch):
    monkeypatch.setattr(registry, "missing_package", lambda family: None)


def test_presets_are_the_published_protocol(with_emulator):
    assert len(GPU.games) == 26
    assert (GPU.episodes, GPU.rainbow.num_updates) == (100, 100_000)
    assert (GPU.rainbow.warmup_steps, GPU.rainbow.num_gradient_steps) == (2000, 2)
    for preset in atari100k.PRESETS.values():
        check(preset)


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
        check(changed(GPU, **changes))


def test_one_device(with_emulator):
    runtime = dataclasses.replace(GPU.runtime, devices=2)
    with pytest.raises(ValueError, match="an emulator feeds one"):
        check(dataclasses.replace(GPU, runtime=runtime))


def test_without_the_extra_the_pip_line_is_said(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(registry, "missing_package", lambda family: "ale_py")
    with pytest.raises(MissingExtra, match=r"pip install 'jaxagent\[atari\]'"):
        check(SMOKE)
    out = tmp_path / "run"
    assert cli.main(["run", "atari100k", "--preset", "smoke", "--out", str(out)]) == cli.USAGE
    assert "pip install 'jaxagent[atari]'" in capsys.readouterr().err
    assert not out.exists()


def test_games_are_named_on_the_command_line(with_emulator, capsys, tmp_path):
    run = ["run", "atari100k", "--preset", "smoke", "--out", str(tmp_path / "run")]
    assert cli.main([*run, "--games", "pong", "boksing"]) == cli.USAGE
    assert "Did you mean boxing" in capsys.readouterr().err


# --- the report -----------------------------------------------------------------------------------


def played(config, returns):
    """Games `[games][seeds][episodes]` as stages leave them."""
    return {
        f"evaluate/{game}": {"returns": {"spr": rows}}
        for game, rows in zip(config.games, returns, strict=True)
    }


def with_means(config, table):
    """Mean returns `[games, seeds]` as stages leave them."""
    return played(config, table[..., None].tolist())


def test_a_score_is_the_mean_over_episodes_between_random_and_human():
    config = changed(TWO, seeds=SeedConfig(0, 2))
    found = played(config, [[[-21, -19], [0, 10]], [[1, 2], [3, 4]]])
    assert experiment.returns_of(config, found)["spr"] == {"pong": [-20, 5], "boxing": [1.5, 3.5]}
    table = experiment.scores(config, found)
    expected = np.array(
        [[human_normalised("pong", x) for x in (-20, 5)], [human_normalised("boxing", x) for x in (1.5, 3.5)]]
    )
    np.testing.assert_allclose(table["spr"], expected)
    published = [human_normalised(game, SPR[game]) for game in config.games]
    np.testing.assert_allclose(table["published"], np.repeat(np.array(published)[:, None], 2, 1))
    over = expected.mean(0) - np.mean(published)
    np.testing.assert_allclose(table["over published", "spr"], over[None])


@pytest.mark.parametrize("preset", ["gpu", "gpu-short"])
def test_claims_can_pass_and_fail(preset):
    """With as many seeds as the preset has: overwhelming scores pass, hopeless ones do not."""
    config = atari100k.PRESETS[preset]
    claims = experiment.study(config).claims
    rng, names = np.random.default_rng(0), [claim.id for claim in claims]
    assert ("A2" in names) == (preset == "gpu")  # the published scores are of 100,000 steps
    for level, wanted in ((2.0, "PASS"), (-2.0, "FAIL")):
        returns = np.array(
            [
                ATARI_100K[g].random
                + (level + 3.0 * (level > 0)) * (ATARI_100K[g].human - ATARI_100K[g].random)
                + rng.normal(0, 0.1, len(config.seeds))
                for g in config.games
            ]
        )
        table = experiment.scores(config, with_means(config, returns))
        verdicts = judge(claims, table, preset=preset)
        assert [v.verdict for v in verdicts] == [wanted] * len(names), level


def test_an_exact_reproduction_is_not_below_what_was_published():
    """Runs of skewed games whose means are the published ones: A2 is not biased against them."""
    rng, passed = np.random.default_rng(1), []
    config = dataclasses.replace(GPU, seeds=SeedConfig(0, 8))
    for _ in range(10):
        factor = rng.lognormal(-0.18, 0.6, (len(config.games), 8))  # of mean 1
        low = np.array([ATARI_100K[g].random for g in config.games])[:, None]
        mean = np.array([SPR[g] for g in config.games])[:, None]
        table = experiment.scores(config, with_means(config, low + (mean - low) * factor))
        passed.append(float(table["over published", "spr"].mean()))
    assert abs(np.mean(passed)) < 0.03


def test_a_published_score_is_reached_inside_the_interval_or_below_it():
    below, around, above = (np.array([SPR["pong"] + d] * 3) for d in (-9.0, 0.0, 9.0))
    around = around + np.array([-2.0, 0.5, 1.0])
    for row, reached in ((below, 0), (around, 1), (above, 1)):
        table = np.stack([row, np.array([0.0, 0.1, 0.2])])
        assert sum(map(experiment.is_reached, TWO.games, table)) == reached
        assert ("(reached)" in experiment.beside("spr", "pong", row)) == bool(reached)
        found = with_means(TWO, table)
        notes = experiment.extras(TWO, found, experiment.scores(TWO, found))["notes"]
        assert notes[2].endswith(f"the published score is reached in {reached} of 2 games")


def test_the_published_aggregates_come_out_of_the_published_table():
    table = np.array([[human_normalised(game, SPR[game])] for game in ATARI_100K])
    assert experiment.aggregate(table) == "median 0.396, mean 0.616"


def test_gradient_steps_are_counted_and_must_be_the_protocol_s(tmp_path):
    from jaxagent.files import write_json
    from jaxagent.train.run import stage_folder

    config = changed(TWO, seeds=SeedConfig(0, 2), agents=("spr",))
    training = [step for step in experiment.study(config).steps if step.name.startswith("train/")]
    write_json(tmp_path / "manifest.json", {"fingerprint": "own"})
    for counts, passed in (([196_000, 196_000], True), ([196_000, 195_998], False)):
        for game in config.games:
            place = stage_folder(tmp_path, f"train/{game}/spr")
            place.mkdir(parents=True, exist_ok=True)
            summary = {"updates": max(counts), "updates_by_seed": counts}
            write_json(place / "done.json", {"summary": summary, "fingerprint": "own"})
        (told,) = experiment.checks(config, Found(tmp_path, training), {})
        assert told.passed == passed, told


# --- playing --------------------------------------------------------------------------------------


def test_games_are_counted_to_the_seed_that_played_them(monkeypatch):
    """A lane's return tells the emulator's seed; policies tell whose parameters act."""
    need("ale")
    import jax

    from experiments.atari100k import training

    config = dataclasses.replace(SMOKE, seeds=SeedConfig(7, 3), eval_lanes=2, episodes=4)
    game = training.player_of(config, "pong", "spr", episodic_life=False)
    asked = {}

    def returns(vector, act, starts, num_games):
        obs = np.zeros((len(starts), *game.env.obs_shape), np.uint8)
        asked["actions"] = np.asarray(act(obs, np.int32(0)))
        return np.arange(num_games)[:, None] * 1000 + 10.0 * np.arange(len(starts))

    def policy(network, fit):
        def act(params, carry, obs, is_first, key):
            return jax.numpy.broadcast_to(params["seed"], obs.shape[:1]), (), ()

        return Policy(lambda size: (), act)

    monkeypatch.setattr(training.emulator, "returns", returns)
    monkeypatch.setattr(training.rainbow, "policy", policy)
    found = training.play_games(config, game, "pong", {"seed": np.array([4, 5, 6], np.int32)})
    np.testing.assert_array_equal(asked["actions"], [4, 4, 5, 5, 6, 6])
    np.testing.assert_array_equal(found, [[0, 1000, 10, 1010], [20, 1020, 30, 1030], [40, 1040, 50, 1050]])
