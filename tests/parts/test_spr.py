"""The study of self-prediction: its data, its mutants, and what its report reads."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import spr as experiment
from experiments.configs import spr
from experiments.parts import experts, rainbow_study, spr_report, spr_study
from jaxagent.agents import self_prediction
from jaxagent.data import normalize
from jaxagent.evaluate.collapse import Diagnosis

SMOKE = spr.SMOKE


@functools.cache
def setting():
    return spr_study.setting_of(SMOKE)


@functools.cache
def played():
    return spr_study.random_play(setting(), "train", 40)


def test_truths_are_those_of_the_board_that_is_seen():
    """Ball and paddle, read off the planes of Breakout."""
    seen, truth = np.asarray(played().obs), np.asarray(played().extras)
    paddle, ball = seen[..., 0], seen[..., 1]
    at = ball.reshape(*ball.shape[:2], -1).argmax(-1)
    np.testing.assert_array_equal(truth[..., 0], at % 10)
    np.testing.assert_array_equal(truth[..., 1], at // 10)
    np.testing.assert_array_equal(truth[..., 2], paddle[:, :, 9].argmax(-1))


def test_measured_states_and_what_came_are_of_one_episode():
    moments = spr_study.moments_of(played())
    see = functools.partial(normalize.apply, moments)
    held = spr_study.measured_of(played(), see, 10_000)
    done = np.asarray(played().terminated | played().truncated)
    assert len(held.action) == (~done).sum()
    # The ball moves by one cell in each direction, or bounces: never across the board.
    board = np.asarray(held.later) * np.sqrt(np.asarray(moments.variance)[None]) + np.asarray(
        moments.mean[None]
    )
    at = board[..., 1].reshape(len(board), -1).argmax(-1)
    assert np.abs(at % 10 - np.asarray(held.truth[:, 0])).max() <= 1
    # Fewer are a part of them, in order of time: the probes' halves are of different episodes.
    fewer = np.asarray(spr_study.measured_of(played(), see, 40).obs).reshape(40, -1)
    all_of_them = np.asarray(held.obs).reshape(len(held.obs), -1)
    at = 0
    for state in fewer:
        at += (all_of_them[at:] == state).all(1).argmax()
        np.testing.assert_array_equal(all_of_them[at], state)
        at += 1


def test_observations_are_standardised_by_what_is_learned_from():
    moments = spr_study.moments_of(played())
    windows = spr_study.windows_of(played(), moments)
    flat = np.asarray(windows.obs).reshape(-1, 400)
    varies = np.asarray(moments.variance).reshape(-1) > 1e-3
    cut = np.abs(flat).max(0) >= 10.0
    np.testing.assert_allclose(flat[:, varies & ~cut].mean(0), 0.0, atol=1e-3)
    np.testing.assert_allclose(flat[:, varies & ~cut].std(0), 1.0, atol=1e-2)
    np.testing.assert_array_equal(windows.obs, normalize.apply(moments, played().obs))


def test_mutants_leave_out_what_they_say():
    parts = spr_study.parts_of(setting(), "spr")
    params = spr_study.model_of(setting(), "spr").init(jax.random.key(0))
    latent = parts.encode(params, played().obs[0])
    action = jnp.zeros((2, latent.shape[0]), jnp.int32)

    def predicted(arm):
        own = spr_study.parts_of(setting(), arm)
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


def test_scores_and_alarms_are_of_the_last_snapshot_and_of_the_first_where_untrained():
    arms = {arm: diagnosis() for arm in spr_study.TRAINED}
    arms["target learns"] = diagnosis(mean_cosine=0.99)
    for numbers in arms.values():
        numbers["probes"] = [[[0.0, 0.2], [0.4, 0.0]], [[0.5, 0.7], [0.9, 0.9]]]
    table = spr_report.scores({"updates": [0, 4], "arms": arms})
    np.testing.assert_allclose(table["spr"], [[0.6, 0.9]])
    np.testing.assert_allclose(table["untrained"], [[0.1, 0.2]])
    np.testing.assert_allclose(table["untrained tokens"], [[0.1, 0.2]])
    np.testing.assert_allclose(table["tokens"], [[0.6, 0.9]])
    np.testing.assert_allclose(table["copy_ratio", "spr"], [[0.2, 0.2]])
    np.testing.assert_allclose(table["alarm", "spr"], [[0.0, 0.0]])
    np.testing.assert_allclose(table["alarm", "target learns"], [[1.0, 1.0]])
    np.testing.assert_allclose(table["alarm", "untrained"], [[1.0, 1.0]])
    np.testing.assert_allclose(table["collapse", "target learns"], [[1.0, 1.0]])
    np.testing.assert_allclose(table["collapse", "spr"], [[0.0, 0.0]])


def test_bad_predictions_alone_are_no_collapse():
    arms = {arm: diagnosis(copy_ratio=3.0, action_sensitivity=1.0) for arm in spr_study.TRAINED}
    for numbers in arms.values():
        numbers["probes"] = [[[0.0], [0.0]]] * 2
    table = spr_report.scores({"updates": [0, 4], "arms": arms})
    np.testing.assert_allclose(table["alarm", "no predictor"], [[1.0, 1.0]])
    np.testing.assert_allclose(table["collapse", "no predictor"], [[0.0, 0.0]])


def test_the_twin_differs_in_the_weight_of_one_loss():
    task = SMOKE.tasks[0]
    ours, twin = (rainbow_study.fit_of(task, name) for name in rainbow_study.AGENTS)
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
        config.check()


def test_agents_are_diagnosed_and_told_apart_in_figures_of_their_game():
    """Rainbow's hidden units of two snapshots and two seeds, of what the game truly shows."""
    config, task = SMOKE, SMOKE.tasks[0]
    own = rainbow_study.setting_of(task)
    data = rainbow_study.measured_data(config, own)
    assert data.obs.shape[1:] == own.env.obs_shape
    params = jax.vmap(jax.vmap(own.network.init))(jax.random.split(jax.random.key(0), (2, 2)))
    found = rainbow_study.diagnoses(own, params, data)
    assert set(found) == {*Diagnosis._fields, "probes"}
    assert np.shape(found["probes"]) == (2, 2, 3)
    assert all(np.shape(found[name]) == (2, 2) for name in Diagnosis._fields)
    dead = jax.tree.map(jnp.zeros_like, params)
    fallen = rainbow_study.diagnoses(own, dead, data)
    assert "effective_rank" in spr_report.alarms_of(fallen, -1)[0]
    done = {"steps": [0, 8], "returns": {}, "diagnoses": dict.fromkeys(rainbow_study.AGENTS, found)}
    figures = spr_report._of_game(config, "Breakout", done)
    assert all("Breakout" in figure["title"] for figure in figures)
    assert len(figures) == 6


def test_the_table_is_the_probe_s_and_without_it_the_agents():
    table = {arm: np.zeros((1, 2)) for arm in spr.ARMS} | {("alarm", "spr"): np.ones((1, 2))}
    returns = {agent: np.array([[0.25, 0.5]]) for agent in rainbow_study.AGENTS}
    whole = spr_report.shown(SMOKE, table, returns)
    assert list(whole["shown"]) == list(spr.ARMS)
    alone = spr_report.shown(dataclasses.replace(SMOKE, has_probe=False), {}, returns)
    assert alone["shown"] is returns
    assert alone["tasks"] == ["Breakout"]
    assert set(alone["about"]) == set(returns)


def test_a_study_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"Config\.tasks: got \(\), expected a game"):
        dataclasses.replace(SMOKE, has_probe=False, tasks=()).check()


def test_without_a_probe_only_agents_are_trained_and_claimed():
    config = dataclasses.replace(SMOKE, has_probe=False)
    names = [stage.name for stage in experiment.stages(config)]
    assert names == ["train/Breakout/rainbow + spr", "train/Breakout/rainbow", "evaluate/Breakout"]
    assert [claim.id for claim in experiment.claims(config)] == ["R1"]
    whole = [claim.id for claim in experiment.claims(SMOKE)]
    assert whole == [*(f"S{i}" for i in range(1, 9)), *(f"T{i}" for i in range(1, 5)), "R1"]


@pytest.mark.slow
def test_a_seed_begins_alike_whatever_others_and_whichever_agent():
    def first(name, first_seed, num_seeds):
        config = dataclasses.replace(SMOKE, first_seed=first_seed, num_seeds=num_seeds)
        with jax.debug_key_reuse(False):  # a seed's keys are those of the other run
            state = rainbow_study.train(config, SMOKE.tasks[0], name).init()
        return state.learner.learner.params

    both, alone = first("rainbow", 1000, 2), first("rainbow + spr", 1001, 1)
    second = jax.tree.map(lambda x: x[1:], both)
    jax.tree.map(np.testing.assert_array_equal, second, alone)
    kernels = both["params"]["encoder"]["Conv_0"]["kernel"]
    assert np.abs(np.asarray(kernels[0] - kernels[1])).max() > 0.0
    assert experts.seeds_of(dataclasses.replace(SMOKE, first_seed=5, num_seeds=3)) == (5, 6, 7)
