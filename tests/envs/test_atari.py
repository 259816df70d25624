"""The Atari-100k table: complete, registered, and the one under which SPR's results were stated."""

import statistics

import pytest

import envs
from envs.atari import ATARI_100K, SPR, human_normalised
from envs.common.names import UnknownName

# SPR's mean returns and what they are worth: 100 runs a game (rliable's release), computed from
# published data independently of our table.
PUBLISHED = {
    "alien": (841.9, 0.089),
    "amidar": (179.7, 0.101),
    "assault": (565.6, 0.661),
    "asterix": (962.5, 0.091),
    "bank_heist": (345.4, 0.448),
    "battle_zone": (14834.1, 0.358),
    "boxing": (35.7, 2.967),
    "breakout": (19.6, 0.621),
    "chopper_command": (946.3, 0.021),
    "crazy_climber": (36700.5, 1.035),
    "demon_attack": (517.6, 0.201),
    "freeway": (19.3, 0.651),
    "frostbite": (1170.7, 0.259),
    "gopher": (660.6, 0.187),
    "hero": (5858.6, 0.162),
    "jamesbond": (366.5, 1.233),
    "kangaroo": (3617.4, 1.195),
    "krull": (3681.6, 1.952),
    "kung_fu_master": (14783.2, 0.646),
    "ms_pacman": (1318.4, 0.152),
    "pong": (-5.4, 0.433),
    "private_eye": (86.0, 0.001),
    "qbert": (866.3, 0.053),
    "road_runner": (12213.1, 1.558),
    "seaquest": (558.1, 0.012),
    "up_n_down": (10859.2, 0.925),
}


def test_the_26_games_are_registered():
    assert len(ATARI_100K) == 26
    assert {f"ale/{game}" for game in ATARI_100K} <= set(envs.registered("ale"))


@pytest.mark.parametrize("game", ATARI_100K)
def test_random_is_zero_and_human_is_one(game):
    scores = ATARI_100K[game]
    assert scores.random < scores.human
    assert human_normalised(game, scores.random) == 0.0
    assert human_normalised(f"ale/{game}", scores.human) == 1.0


@pytest.mark.parametrize("game", ATARI_100K)
def test_published_results_normalise_as_published(game):
    score, normalised = PUBLISHED[game]
    # Returns were published to one decimal: half of it, over the range of the game.
    rounding = 0.0005 + 0.05 / (ATARI_100K[game].human - ATARI_100K[game].random)
    assert human_normalised(game, score) == pytest.approx(normalised, abs=rounding)


def test_published_mean_and_median():
    assert {game: score for game, (score, _) in PUBLISHED.items()} == SPR
    results = [human_normalised(game, score) for game, (score, _) in PUBLISHED.items()]
    assert statistics.mean(results) == pytest.approx(0.616, abs=1e-3)
    assert statistics.median(results) == pytest.approx(0.396, abs=1e-3)


def test_unknown_game_names_the_nearest():
    with pytest.raises(UnknownName, match=r"private_ey'.*private_eye"):
        human_normalised("private_ey", 0.0)
    with pytest.raises(UnknownName, match="zaxxon"):  # of ALE, not of Atari-100k
        human_normalised("zaxxon", 0.0)
