"""The study of self-prediction: its data, its mutants, and what its report reads."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.spr import config as spr
from experiments.spr import minatar, probe
from experiments.spr import study as experiment
from jaxagent.agents import rainbow, self_prediction
from jaxagent.config import check
from jaxagent.data import normalize
from jaxagent.evaluate.collapse import Diagnosis
from jaxagent.study.config import SeedConfig

SMOKE = spr.SMOKE


@functools.cache
def game(noise=0.0):
    return probe.game_of(dataclasses.replace(SMOKE.probe, noise=noise))


@functools.cache
def played():
    return probe.random_play(game(), "train", 40)


def test_truths_are_those_of_the_board_that_is_seen():
    """Ball and paddle, read off the planes of Breakout."""
    seen, truth = np.asarray(played().obs), np.asarray(played().extras)
    paddle, ball = seen[..., 0], seen[..., 1]
    at = ball.reshape(*ball.shape[:2], -1).argmax(-1)
    np.testing.assert_array_equal(truth[..., 0], at % 10)
    np.testing.assert_array_equal(truth[..., 1], at // 10)
    np.testing.assert_array_equal(truth[..., 2], paddle[:, :, 9].argmax(-1))


def test_a_noisy_game_has_its_truths_and_boards_that_tell_less():
    noisy = probe.random_play(game(0.25), "train", 40)
    ball, truth = np.asarray(noisy.obs)[..., 1].reshape(-1, 100), np.asarray(noisy.extras).reshape(-1, 3)
    at = (10 * truth[:, 1] + truth[:, 0]).astype(int)
    cell = ball[np.arange(len(ball)), at]
    assert cell.mean() == pytest.approx(1.0, abs=0.05)
    assert cell.std() == pytest.approx(0.25, abs=0.03)
    assert (ball.argmax(1) != at).any()


def test_an_autoencoder_learns_to_restore_boards_by_the_encoder_that_is_probed():
    way = probe.WAYS["autoencoder"]
    params = jax.jit(probe.init_of(game(), way))(jax.random.key(0))
    windows, _ = probe.standardised(played())
    batch = jax.tree.map(lambda x: x[:2], windows)
    loss = jax.jit(lambda p: probe.restoring_loss(game(), p, batch, None, None)[0])
    value, gradient = jax.value_and_grad(loss)(params)
    assert np.isfinite(value)
    moves = {
        part: bool(max(np.abs(x).max() for x in jax.tree.leaves(g))) for part, g in gradient["params"].items()
    }
    assert {part for part, it_moves in moves.items() if it_moves} == {"encoder", "decoder"}
    stepped = jax.tree.map(lambda p, g: p - 0.05 * g, params, gradient)
    assert loss(stepped) < value


def test_augmented_boards_move_by_whole_cells_and_each_by_itself():
    obs = jnp.zeros((2, 3, 10, 10, 1)).at[:, :, 5, 5].set(1.0)
    np.testing.assert_array_equal(probe.moved(obs, jax.random.key(0), 0), obs)
    shifted = np.asarray(probe.moved(obs, jax.random.key(0), 2)).reshape(6, 100)
    assert (shifted.sum(1) == 1.0).all()
    at = shifted.argmax(1)
    assert (np.abs(at // 10 - 5) <= 2).all()
    assert (np.abs(at % 10 - 5) <= 2).all()
    assert len(set(at.tolist())) > 1


def test_measured_states_and_what_came_are_of_one_episode():
    _, moments = probe.standardised(played())
    see = functools.partial(normalize.apply, moments)
    held = probe.measured_of(played(), see, 10_000)
    done = np.asarray(played().terminated | played().truncated)
    assert len(held.action) == (~done).sum()
    # The ball moves by one cell in each direction, or bounces: never across the board.
    board = np.asarray(held.later) * np.sqrt(np.asarray(moments.variance)[None]) + np.asarray(
        moments.mean[None]
    )
    at = board[..., 1].reshape(len(board), -1).argmax(-1)
    assert np.abs(at % 10 - np.asarray(held.truth[:, 0])).max() <= 1
    # Fewer are a part of them, in order of time: the probes' halves are of different episodes.
    fewer = np.asarray(probe.measured_of(played(), see, 40).obs).reshape(40, -1)
    all_of_them = np.asarray(held.obs).reshape(len(held.obs), -1)
    at = 0
    for state in fewer:
        at += (all_of_them[at:] == state).all(1).argmax()
        np.testing.assert_array_equal(all_of_them[at], state)
        at += 1


def test_observations_are_standardised_by_what_is_learned_from():
    windows, moments = probe.standardised(played())
    flat = np.asarray(windows.obs).reshape(-1, 400)
    varies = np.asarray(moments.variance).reshape(-1) > 1e-3
    cut = np.abs(flat).max(0) >= 10.0
    np.testing.assert_allclose(flat[:, varies & ~cut].mean(0), 0.0, atol=1e-3)
    np.testing.assert_allclose(flat[:, varies & ~cut].std(0), 1.0, atol=1e-2)
    np.testing.assert_array_equal(windows.obs, normalize.apply(moments, played().obs))


@pytest.mark.slow
def test_mutants_leave_out_what_they_say():
    parts = probe.parts_of(game(), probe.WAYS["spr"])
    params = probe.model_of(game(), probe.WAYS["spr"]).init(jax.random.key(0))
    latent = parts.encode(params, played().obs[0])
    action = jnp.zeros((2, latent.shape[0]), jnp.int32)

    def predicted(arm):
        own = probe.parts_of(game(), probe.WAYS[arm])
        return np.asarray(self_prediction.predictions(own, params, latent, action))

    projection = np.asarray(parts.project(params, latent))
    np.testing.assert_allclose(predicted("no transition"), [projection] * 2, rtol=1e-6)
    moved = parts.step(params, latent, action[0])
    np.testing.assert_allclose(
        predicted("no predictor")[0], parts.project(params, moved), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(
        predicted("spr")[0], parts.predict(params, parts.project(params, moved)), rtol=1e-5, atol=1e-6
    )


def diagnosis(**changes):
    sound = Diagnosis(
        effective_rank=0.5,
        srank=0.9,
        spread=0.8,
        mean_cosine=0.1,
        dormant=0.0,
        copy_ratio=0.2,
        action_sensitivity=2.0,
        retrieval=0.9,
    )._replace(**changes)
    return {name: [[0.0, 0.0], [value, value]] for name, value in sound._asdict().items()}


def scores(arms):
    found = {f"measure/{arm}": numbers for arm, numbers in arms.items()}
    found["measure/raw board"] = {"judged": [0.25, 0.75]}
    return experiment.scores(dataclasses.replace(SMOKE, tasks=()), found)


def test_scores_and_alarms_are_of_the_last_snapshot_and_of_the_first_where_untrained():
    arms = {arm: diagnosis() for arm in probe.WAYS}
    arms["target learns"] = diagnosis(mean_cosine=0.99)
    for numbers in arms.values():
        numbers["judged"] = [[[0.0, 0.2], [0.4, 0.0]], [[0.5, 0.7], [0.9, 0.9]]]
    table = scores(arms)
    np.testing.assert_allclose(table["spr"], [[0.6, 0.9]])
    np.testing.assert_allclose(table["untrained"], [[0.1, 0.2]])
    np.testing.assert_allclose(table["untrained tokens"], [[0.1, 0.2]])
    np.testing.assert_allclose(table["raw board"], [[0.5, 0.5]])
    np.testing.assert_allclose(table["tokens"], [[0.6, 0.9]])
    np.testing.assert_allclose(table["copy_ratio", "spr"], [[0.2, 0.2]])
    np.testing.assert_allclose(table["alarm", "spr"], [[0.0, 0.0]])
    np.testing.assert_allclose(table["alarm", "target learns"], [[1.0, 1.0]])
    np.testing.assert_allclose(table["alarm", "untrained"], [[1.0, 1.0]])
    np.testing.assert_allclose(table["collapse", "target learns"], [[1.0, 1.0]])
    np.testing.assert_allclose(table["collapse", "spr"], [[0.0, 0.0]])


def test_bad_predictions_alone_are_no_collapse():
    arms = {arm: diagnosis(copy_ratio=3.0, action_sensitivity=1.0) for arm in probe.WAYS}
    for numbers in arms.values():
        numbers["judged"] = [[[0.0], [0.0]]] * 2
    table = scores(arms)
    np.testing.assert_allclose(table["alarm", "no predictor"], [[1.0, 1.0]])
    np.testing.assert_allclose(table["collapse", "no predictor"], [[0.0, 0.0]])


def test_an_arm_that_predicts_nothing_alarms_of_collapse_alone():
    lost = diagnosis(copy_ratio=3.0, action_sensitivity=1.0)
    fallen = diagnosis(copy_ratio=3.0, action_sensitivity=1.0, effective_rank=0.01)
    (line,) = experiment.alarm_lines({"spr": lost, "restores": lost}, {"restores"})
    assert line.startswith("Alarm, spr (2 of 2 seeds): copy_ratio")
    (line,) = experiment.alarm_lines({"restores": fallen}, {"restores"})
    assert "effective_rank" in line
    assert "copy_ratio" not in line


def test_the_twin_differs_in_the_weight_of_one_loss():
    fits = minatar.configs_of(SMOKE.tasks[0])
    ours, twin = (fits[name] for name in minatar.AGENTS)
    assert twin.spr.weight == 0.0
    assert dataclasses.replace(twin, spr=ours.spr) == ours
    assert ours.window == twin.window


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env": "minatar/Brekout"}, "Breakout"),
        ({"env": "minatar/Seaquest"}, "game of the probe"),
        ({"env_steps": 20, "num_envs": 8}, "env_steps"),
        ({"tau": 2.0}, "tau"),
    ],
)
def test_illegal_probes_are_refused(changes, message):
    config = dataclasses.replace(SMOKE, probe=dataclasses.replace(SMOKE.probe, **changes))
    with pytest.raises(ValueError, match=message):
        check(config)


@pytest.mark.slow
def test_agents_are_diagnosed_and_told_apart_in_figures_of_their_game():
    """Rainbow's hidden units of two snapshots and two seeds, of what the game truly shows."""
    config, task = SMOKE, SMOKE.tasks[0]
    game = probe.game_of(dataclasses.replace(config.probe, env=task.env))
    network = rainbow.network_of(game.env.obs_shape, game.env.action_spec, task.rainbow)
    data = probe.measured_play(game)
    assert data.obs.shape[1:] == game.env.obs_shape
    params = jax.vmap(jax.vmap(network.init))(jax.random.split(jax.random.key(0), (2, 2)))
    found = minatar.diagnoses(network, params, data)
    assert set(found) == {*Diagnosis._fields, "probes"}
    assert np.shape(found["probes"]) == (2, 2, 3)
    assert all(np.shape(found[name]) == (2, 2) for name in Diagnosis._fields)
    dead = jax.tree.map(jnp.zeros_like, params)
    fallen = minatar.diagnoses(network, dead, data)
    assert "effective_rank" in experiment.alarms_of(fallen, -1)[0]
    done = {"steps": [0, 8], "returns": {}, "diagnoses": dict.fromkeys(minatar.AGENTS, found)}
    figures = experiment.figures_of_game(config, task, done)
    assert all("Breakout" in figure["title"] for figure in figures)
    assert len(figures) == 6


def test_the_table_is_the_probe_s_and_without_it_the_agents():
    table = {arm: np.zeros((1, 2)) for arm in spr.ARMS} | {("alarm", "spr"): np.ones((1, 2))}
    returns = {("returns", agent): np.array([[0.25, 0.5]]) for agent in minatar.AGENTS}

    def shown(study, table):  # as `jaxagent.study.study.summary` does
        rows = {arm: study.shown(table, arm) for arm in study.arms}
        return {arm: row for arm, row in rows.items() if row is not None}

    whole = experiment.study(SMOKE)
    assert list(shown(whole, table | returns)) == list(spr.ARMS)
    assert whole.tasks == ["Breakout"]
    alone = experiment.study(dataclasses.replace(SMOKE, has_probe=False))
    rows = shown(alone, returns)
    assert [("returns", agent) for agent in rows] == list(returns)
    assert all(rows[agent] is returns["returns", agent] for agent in rows)
    assert alone.tasks == ["Breakout"]
    assert set(alone.arms) == {agent for _, agent in returns}


def test_a_study_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"Config\.tasks: got \(\), expected a game"):
        check(dataclasses.replace(SMOKE, has_probe=False, tasks=()))


def test_without_a_probe_only_agents_are_trained_and_claimed():
    config = dataclasses.replace(SMOKE, has_probe=False)
    names = [step.name for step in experiment.study(config).steps]
    assert names == ["train/Breakout/rainbow + spr", "train/Breakout/rainbow", "evaluate/Breakout"]
    assert [claim.id for claim in experiment.study(config).claims] == ["R1"]
    whole = [claim.id for claim in experiment.study(SMOKE).claims]
    of_tokens = [f"T{i}" for i in range(1, 5)]
    assert sorted(whole) == sorted([*(f"S{i}" for i in range(1, 11)), *of_tokens, "R1"])
    lean = experiment.study(dataclasses.replace(SMOKE, arms=spr.WITHOUT_TOKENS))
    assert not any("tokens" in name for name in [*lean.arms, *(step.name for step in lean.steps)])


@pytest.mark.slow
def test_a_seed_begins_alike_whatever_others_and_whichever_agent():
    def first(name, first_seed, num_seeds):
        config = dataclasses.replace(SMOKE, seeds=SeedConfig(first_seed, num_seeds))
        fit = minatar.fits_of(config, SMOKE.tasks[0])[name]
        with jax.debug_key_reuse(False):  # a seed's keys are those of the other run
            state = fit.stage(1).prepare(None).init()
        return state.learner.learner.params

    both, alone = first("rainbow", 1000, 2), first("rainbow + spr", 1001, 1)
    second = jax.tree.map(lambda x: x[1:], both)
    jax.tree.map(np.testing.assert_array_equal, second, alone)
    kernels = both["params"]["encoder"]["Conv_0"]["kernel"]
    assert np.abs(np.asarray(kernels[0] - kernels[1])).max() > 0.0
    assert tuple(SeedConfig(first=5, count=3)) == (5, 6, 7)
