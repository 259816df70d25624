"""Ratings: Elo numbers that explain a table of games best."""

import math

import numpy as np
from scipy.optimize import minimize

SCALE = 400.0 / math.log(10.0)  # Elo points of one nat: 400 points are odds of ten to one


def elo(points: np.ndarray, games: np.ndarray, anchor: int, prior_games: float = 1.0) -> np.ndarray:
    """Elo ratings `[P]` of players, the anchor's 0, of largest posterior probability.

    `points [P, P]` is what each row got against each column (a draw is half a point) in
    `games [P, P]`; both players' rows are given or one alone. Bradley and Terry 1952 with draws as
    half wins, as in BayesElo; `prior_games` drawn games of each player with an average one keep
    ratings finite where somebody won or lost every game (0: infinite then).
    Raises ValueError for points that exceed games, or another shape.
    """
    points, games = np.asarray(points, float), np.asarray(games, float)
    size = len(points)
    is_square = points.shape == games.shape == (size, size)
    if not is_square or np.any(points > games) or np.any(points < 0):
        raise ValueError(
            f"elo: got points {points.shape} and games {games.shape}, expected square tables with "
            "0 <= points <= games."
        )
    won = points + (games - points).T  # by the row from the column, whoever reported
    np.fill_diagonal(won, 0.0)

    def negative_log_posterior(strength: np.ndarray) -> tuple[float, np.ndarray]:
        gap = strength[:, None] - strength[None, :]
        lead = strength - strength.mean()
        value = np.sum(won * np.logaddexp(0.0, -gap))
        value += 0.5 * prior_games * np.sum(np.logaddexp(0.0, lead) + np.logaddexp(0.0, -lead))
        pull = won / (1.0 + np.exp(gap))
        slope = 0.5 * prior_games * np.tanh(0.5 * lead)
        return value, pull.sum(0) - pull.sum(1) + slope - slope.mean()

    solution = minimize(negative_log_posterior, np.zeros(size), jac=True, method="L-BFGS-B")
    return SCALE * (solution.x - solution.x[anchor])
