"""The searching experiments' bookkeeping: tables of games, levels, steps to an anchor."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from extras import need

from envs.vector import broadcast_params
from experiments.alphazero import config as alphazero
from experiments.alphazero import study as alphazero_study
from experiments.muzero import config as muzero
from experiments.muzero import study as muzero_study
from jaxagent.agents import planning
from jaxagent.evaluate.matches import play_match, points
from jaxagent.study import games
from jaxagent.study.config import MatchConfig
from jaxagent.types import View

SMOKE = alphazero.SMOKE


def test_ratings_put_who_wins_above_and_opponents_by_their_own_games(monkeypatch):
    """Two snapshots, two seeds, two opponents: points are the row player's."""
    search = np.zeros((2, 2, 2, 40))
    search[1] = 1.0  # the last snapshot wins all, the first loses all
    search[1, 1, 1] = 0.5  # but for seed 1 against the second opponent
    between = np.array([[0.5, 0.1], [0.9, 0.5]])
    points = {"search": search, "raw": 0.25 + 0 * search}
    table = games.ratings(points, between, num_between=100)
    opponents = np.array(table["opponents"])
    assert opponents.shape == (2, 2)
    np.testing.assert_array_equal(opponents[0], 0.0)
    assert (opponents[1] > 200).all()  # nine to one are 382 Elo, less the prior's pull
    elo = np.array(table["search"])
    assert elo.shape == (2, 2)
    assert (elo[1] > opponents[1] - 1).all()
    assert (elo[0] < -100).all()
    assert elo[1, 0] > elo[1, 1]

    # Opponents had two legs of as many games as an arm.
    match = MatchConfig(50, 40, num_snapshots=2)
    monkeypatch.setattr(games, "player", lambda match, game, how: how)
    monkeypatch.setattr(games, "results", lambda game, how, *asked: points[how].reshape(4, 2, 40))
    game = games.Game(SMOKE.games[0], None, None, None)
    assert games.rate_snapshots(match, game, np.zeros((3, 2)), between, (0, 1))["elo"] == table


@pytest.mark.slow
def test_levels_of_connect_four_are_random_play_and_depths():
    game = next(g for g in SMOKE.games if g.name == "connect_four")
    need("pgx")
    made = games.game_of(game)
    player = games.opponent(made)
    tasks = broadcast_params(made.task, 32)

    def match(levels, key):
        sides = jax.tree.map(jnp.int32, levels)
        return play_match(made.env, (player, player), sides, tasks, key).returns

    run = jax.jit(match)
    assert float(points(run((2, 0), jax.random.key(0))).mean()) > 0.9
    drawn = np.asarray(run((0, 0), jax.random.key(1)))
    assert len(np.unique(drawn)) > 1  # random play is no one game
    tasks = broadcast_params(made.task, 256)
    first = jax.vmap(made.env.reset)(jax.random.split(jax.random.key(2), 256), tasks)
    view = View(*first, tasks)
    action, _, _ = player.act(jnp.int32(0), (), view, jnp.ones((256,), bool), jax.random.key(3))
    assert set(np.unique(action)) == set(range(7))


def test_scores_are_points_against_every_opponent_but_random_play():
    """Of the games at which all arms play; the other one tells how often it was not lost."""
    points = {arm: [[0.9, 0.5, p], [0.9, 0.4, p]] for p, arm in enumerate(alphazero_study.ARMS)}
    found = {
        "evaluate/connect_four": {"points": points},
        "evaluate/tic_tac_toe": {
            "points": {"search": [[0.9, 0.5]]},
            "unbeaten": {"search": [[1, 0.75], [1, 1]]},
        },
    }
    config = dataclasses.replace(alphazero.CPU, seeds=SMOKE.seeds)
    assert config.tasks == ["connect_four, alpha-beta 2", "connect_four, alpha-beta 4"]
    table = alphazero_study.scores(config, found)
    for p, arm in enumerate(alphazero_study.ARMS):
        np.testing.assert_array_equal(table[arm], [[0.5, 0.4], [p, p]])
    np.testing.assert_array_equal(table["unbeaten", "search"], [[0.75, 1.0]])


def test_a_score_is_the_mean_of_the_snapshots_between_two_numbers_of_steps():
    curve = {"steps": [0, 10, 20, 30], "returns": [[0.0, 8.0], [1.0, 2.0], [3.0, 4.0], [9.0, 9.0]]}
    assert muzero_study.mean_between(curve, 10, 20) == [2.0, 3.0]
    assert muzero_study.mean_between(curve, 30, 30) == [9.0, 9.0]


def test_steps_to_an_anchor_are_those_of_the_first_snapshot_that_reaches_it():
    curve = {"steps": [0, 10, 20, 30], "returns": [[1, 9, 1], [9, 1, 1], [1, 1, 1], [9, 9, 1]]}
    done = {"curves": {"muzero": curve, "ppo": {"steps": [0, 99, 50], "returns": [[0, 0, 0]] * 3}}}
    assert muzero_study.steps_to(done, "muzero", 5.0).tolist() == [10.0, 0.0, 99.0]


def test_three_quarters_of_the_saboteur_s_memory_have_another_lane_s_actions():
    from jaxagent.types import Trajectory

    action = jnp.arange(8, dtype=jnp.int32).reshape(2, 4)
    real = jnp.zeros((2, 4))
    t = Trajectory(real, action, real, real > 0, real > 0, real, {"weights": real})
    np.testing.assert_array_equal(muzero_study.of_another_lane(t).action, [[0, 0, 1, 2], [4, 4, 5, 6]])
    np.testing.assert_array_equal(muzero_study.of_another_lane(t).reward, real)


def test_scores_of_muzero_are_normalised_by_the_table():
    found = {
        f"evaluate/{task.name}": {
            "returns": {arm: [500.0, 21.96] for arm in muzero_study.arms_of(muzero.CPU)}
            | {"ppo, all steps": [500.0, 500.0]},
            "curves": {
                "muzero": {"steps": [0, 10, 20], "returns": [[0, 0], [500, 0], [500, 0]]},
                "ppo": {"steps": [0, 15, 30], "returns": [[0, 0], [0, 500], [0, 500]]},
            },
        }
        for task in muzero.CPU.tasks
    }
    table = muzero_study.scores(muzero.CPU, found)
    np.testing.assert_allclose(table["muzero"], [[1.0, 0.0]], atol=1e-6)
    np.testing.assert_array_equal(table["steps", "muzero"], [[10.0, 30.0]])  # never: as PPO's last
    np.testing.assert_array_equal(table["steps", "ppo"], [[30.0, 15.0]])


def test_a_plan_without_search_needs_no_model():
    root = planning.mcts.RootFnOutput(
        prior_logits=jnp.array([[0.0, 2.0]]), value=jnp.zeros((1,)), embedding=()
    )
    found = planning.no_search(is_greedy=True)(None, jax.random.key(0), root, None, None)
    assert int(found.action[0]) == 1
