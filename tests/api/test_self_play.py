"""Games of two are learned by name: AlphaZero by self-play, scored in points against random play."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from extras import need
from front_door import as_users_run_it  # noqa: F401, it is used by all

import jaxagent
from experiments import cli
from jaxagent.config import SearchConfig
from jaxagent.types import View

need("pgx")
GAME = "pgx/tic_tac_toe"
SMALL = {"num_envs": 4, "num_steps": 8, "num_gradient_steps": 1, "batch_size": 8, "warmup_steps": 64}
TINY = SMALL | {"capacity": 256, "num_updates": 2, "updates_per_chunk": 1}
TINY |= {"search": SearchConfig(4, 4, value_range=1.0), "quiet": True}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("games") / "run"
    return jaxagent.learn("alphazero", GAME, seeds=2, episodes=4, out=out, **TINY)


def test_returns_are_points_a_game_of_even_snapshots(trained):
    assert trained.curve["steps"].tolist() == [64, 96, 128]
    assert trained.curve["returns"].shape == (3, 2)
    assert set(np.unique(8 * trained.curve["returns"])) <= set(range(9))  # halves of a point, of 4 games
    assert trained.evaluate(episodes=6).shape == (2,)
    assert "points a game against random play" in trained.report.read_text()


@pytest.mark.slow
def test_a_policy_moves_legally_and_films_itself(trained, tmp_path):
    env, policy, lanes = trained.env, trained.policy(), 5
    task = jax.tree.map(lambda x: jnp.broadcast_to(x, (lanes, *jnp.shape(x))), trained.task)
    obs, state = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), lanes), task)
    action, _ = policy.act(
        policy.init(lanes), View(obs, state, task), jnp.ones(lanes, bool), jax.random.key(1)
    )
    assert np.take_along_axis(np.asarray(jax.vmap(env.legal_actions)(state, task)), action[:, None], 1).all()
    assert trained.render(tmp_path / "game.gif").stat().st_size > 0
    assert cli.main(["eval", str(trained.folder), "--episodes", "2"]) == 0
    film = ["--steps", "9", "--out", str(tmp_path / "again.gif")]
    assert cli.main(["render", GAME, "--policy", str(trained.folder), *film]) == 0


@pytest.mark.slow
def test_opened_again_it_plays_the_same(trained):
    again = jaxagent.load(trained.folder)
    np.testing.assert_array_equal(again.evaluate(episodes=4), trained.evaluate(episodes=4))


def test_what_needs_one_player_is_refused(trained, tmp_path):
    with pytest.raises(
        ValueError, match="searches with pgx/tic_tac_toe itself, expected a policy that reads"
    ):
        trained.policy().export(tmp_path / "policy")
    with pytest.raises(ValueError, match="a game of two, expected one player"):
        trained.record(tmp_path / "play")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("env", "more", "message"),
    [
        (
            "classic/CartPole-v1",
            {},
            "board game of two without dice that hides nothing for alphazero; of one",
        ),
        ("pgx/kuhn_poker", {}, "hides nothing"),
        ("pgx/2048", {}, "board game of two"),
        ("pgx/backgammon", {}, "without dice"),
        (GAME, {"episodes": 3}, "episodes: got 3, expected an even number"),
    ],
)
def test_what_it_cannot_learn_is_refused(tmp_path, env, more, message):
    with pytest.raises(ValueError, match=message):
        jaxagent.learn("alphazero", env, out=tmp_path / "run", **TINY | more)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_it_learns_and_its_settings_are_swept(tmp_path):
    found = jaxagent.sweep("alphazero", GAME, {"learning_rate": (2e-3, 4e-3)}, episodes=4, **TINY)
    assert len(found.ranking) == 2
    learned = jaxagent.learn("alphazero", GAME, num_updates=16, updates_per_chunk=16, quiet=True)
    assert learned.returns.mean() > 0.9 > learned.curve["returns"][0].mean()
