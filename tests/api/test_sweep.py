"""Sweeps: settings as lanes of one program, each as if it were trained by itself."""

import jax
import numpy as np
import pytest
from front_door import as_users_run_it  # noqa: F401, it is used by all

import jaxagent
from experiments import cli
from jaxagent.api import sweep
from jaxagent.api.config import SweepConfig, recipe
from jaxagent.study import sweeps

TINY = {"num_envs": 4, "num_steps": 4, "num_updates": 4, "updates_per_chunk": 2, "hidden_size": 8}
CARTPOLE = "classic/CartPole-v1"
GRID = {"learning_rate": [1e-3, 5e-3], "discount": [0.9], "clip": [0.1, 0.3]}


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Four combinations in programs of two, so that there are two parts."""
    out = tmp_path_factory.mktemp("runs") / "sweep"
    options = {"seeds": 2, "episodes": 2, "at_once": 4, "quiet": True}
    return jaxagent.sweep("ppo", CARTPOLE, GRID, out=out, **options, **TINY)


def test_every_combination_learns_as_if_it_were_alone(swept):
    name, values = list(swept.config.combinations.items())[2]  # the second part's first
    assert values == {"learning_rate": 5e-3, "discount": 0.9, "clip": 0.1}
    alone = jaxagent.learn("ppo", CARTPOLE, seeds=2, episodes=2, quiet=True, **TINY, **values)
    kept = sweep.study(swept.config).steps[2].load(swept.folder)
    for ours, theirs in zip(jax.tree.leaves(kept), jax.tree.leaves(alone.params), strict=True):
        np.testing.assert_allclose(ours[-1, :2], theirs, rtol=1e-4, atol=1e-6)
    (row,) = [row for row in swept.ranking if row["name"] == name]
    np.testing.assert_allclose(row["mean"], alone.returns.mean(), rtol=1e-5)


def test_combinations_are_ranked_and_the_best_is_what_learn_takes(swept):
    means = [row["mean"] for row in swept.ranking]
    assert len(means) == 4
    assert means == sorted(means, reverse=True)
    assert set(swept.best) == set(GRID)
    assert "1  " in repr(swept)
    page = swept.report.read_text()
    assert "<h1>ppo on classic/CartPole-v1: a sweep</h1>" in page
    assert "Ranking" in page
    assert "Preconditions" not in page
    assert "jaxagent.sweep(" in page  # as it may be typed again
    assert sweep.parts(swept.config) == [
        ["learning_rate=0.001 discount=0.9 clip=0.1", "learning_rate=0.001 discount=0.9 clip=0.3"],
        ["learning_rate=0.005 discount=0.9 clip=0.1", "learning_rate=0.005 discount=0.9 clip=0.3"],
    ]


def test_the_best_is_apart_where_its_lead_is_beyond_chance():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(1, 8))
    table = {"far": noise, "best": noise + 10.0, "near": noise[:, ::-1] + 9.9}
    rows = sweep.ranking(table)
    assert [(row["name"], row["is_apart"]) for row in rows] == [
        ("best", False),
        ("near", False),
        ("far", True),
    ]
    lines = sweep.ranked(rows)
    assert lines[1].endswith("near  not told apart from the best")
    assert lines[2].endswith("far  behind the best")
    assert "one seed" in sweep.ranked(sweep.ranking({"a": np.ones((1, 1)), "b": np.zeros((1, 1))}))[0]


def test_a_number_that_decides_the_program_is_refused():
    with pytest.raises(ValueError, match=r"anchor_weight.*train each value by itself"):
        jaxagent.sweep("ppo", CARTPOLE, {"anchor_weight": [0.0, 1.0]}, quiet=True, **TINY)


@pytest.mark.parametrize("field", ["anchor_weight", "value_clip"])
def test_such_a_number_leaves_no_folder(field, tmp_path):
    with pytest.raises(ValueError, match=f"sweep: got {field}, which decides"):
        jaxagent.sweep("ppo", CARTPOLE, {"clip": [0.1], field: [0.0, 1.0]}, out=tmp_path / "run", **TINY)
    assert not (tmp_path / "run").exists()


def test_a_sweep_is_opened_again(swept):
    assert jaxagent.load(swept.folder).ranking == swept.ranking


def test_names_tell_all_digits_apart():
    config = SweepConfig(recipe("ppo", CARTPOLE), (("learning_rate", (0.1234567, 0.1234568)),))
    assert len(config.combinations) == 2


def test_other_errors_inside_are_not_renamed():
    def loop_of(values):
        raise TypeError("a bug")

    with pytest.raises(TypeError, match="a bug"):
        sweeps.swept(loop_of).init(jax.random.key(0), (), {})


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ((), "a field with its values"),
        ((("num_envs", (4.0, 8.0)),), "learning_rate"),
        ((("clip", (0.1, 0.1)),), "each name once"),
        ((("clip", ()),), "at least one value"),
        ((("discount", (0.9, 1.5)),), r"in \[0, 1\]"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(grid, said):
    with pytest.raises(ValueError, match=said):
        SweepConfig(recipe("ppo", CARTPOLE), grid)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["sweep", "ppo", CARTPOLE], "a field with its values"),
        (["sweep", "ppo", CARTPOLE, "clip=0.1,x"], "clip: got 'x', expected a number"),
        (["train", "ppo", CARTPOLE, "clip=0.1,0.2"], "use jaxagent sweep"),
        (["train", "ppo"], "expected these first"),
    ],
)
def test_the_command_line_says_what_is_wrong(argv, said, capsys):
    assert cli.main(argv) == cli.USAGE
    assert said in capsys.readouterr().err
