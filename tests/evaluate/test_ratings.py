"""Elo: closed forms, anchors, and the ratings that made a table of games."""

import numpy as np
import pytest

from jaxagent.evaluate.ratings import SCALE, elo


def table(*rows):
    return np.array(rows, float)


@pytest.mark.parametrize(("share", "gap"), [(0.75, 190.8), (0.5, 0.0), (10 / 11, 400.0)])
def test_two_players_without_a_prior(share, gap):
    """The gap is the log-odds of a point: 400 Elo are ten to one."""
    games = table([0, 0], [110, 0])
    ratings = elo(games * share, games, anchor=0, prior_games=0.0)
    np.testing.assert_allclose(ratings, [0.0, gap], atol=0.1)


def test_either_player_may_report():
    games, points = table([0, 40], [0, 0]), table([0, 10], [0, 0])
    both = elo(points + table([0, 0], [30, 0]), games + games.T, anchor=0, prior_games=0.0)
    np.testing.assert_allclose(elo(points, games, anchor=0, prior_games=0.0), both, atol=1e-3)
    np.testing.assert_allclose(both[1], SCALE * np.log(3.0), atol=0.1)


def test_the_ratings_that_made_the_games_are_found():
    truth = np.array([0.0, -150.0, 80.0, 300.0, 420.0])
    chance = 1.0 / (1.0 + 10.0 ** ((truth[None] - truth[:, None]) / 400.0))
    games = np.triu(np.full((5, 5), 1e4), 1)
    found = elo(games * chance, games, anchor=0)
    np.testing.assert_allclose(found, truth, atol=1.0)
    np.testing.assert_allclose(elo(games * chance, games, anchor=3), found - found[3], atol=0.1)


def test_who_wins_every_game_has_a_finite_rating_that_grows_with_the_games():
    few, many = (elo(table([0, 0], [n, 0]), table([0, 0], [n, 0]), 0)[1] for n in (4, 64))
    assert 100 < few < many < 2000


def test_more_points_than_games_are_refused():
    with pytest.raises(ValueError, match="0 <= points <= games"):
        elo(table([0, 3], [0, 0]), table([0, 2], [0, 0]), 0)
    with pytest.raises(ValueError, match="square"):
        elo(np.zeros((2, 3)), np.zeros((2, 3)), 0)
