"""Tokenizers: half a bin at most, in each way of cutting and of writing; of one domain only."""

import functools
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from envs.types import Component
from jaxagent.config import TokenConfig
from jaxagent.tokens import component, scalar, tokenizer
from jaxagent.tokens.tokenizer import TokenizerError

RULES = ("uniform", "mu_law", "quantile")
V, N = 32, 400
OBS = (Component("height", "real"), Component("speed", "real"), Component("still", "real"))
ACTION = (Component("pull", "real", -2.0, 2.0), Component("push", "real", 0.0, 1.0))


def robot(name="test/Robot", obs=OBS, action=ACTION, is_discrete=False):
    return SimpleNamespace(name=name, obs_spec=obs, action_spec=action, is_discrete=is_discrete)


def data(seed=0, number=N):
    rng = np.random.default_rng(seed)
    obs = rng.normal([0.0, 50.0, 7.0], [1.0, 9.0, 0.0], (number, 3)).astype(np.float32)
    return obs, rng.uniform([-2.0, 0.0], [2.0, 1.0], (number, 2)).astype(np.float32)


@functools.cache
def fitted(rule="mu_law", values="bins", granularity="component", num_bins=V):
    (domain,) = component.domains([(OBS, ACTION)])
    config = TokenConfig(num_bins, rule, rule, granularity=granularity, values=values)
    return tokenizer.fit(robot(), domain, *data(), config)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("values", ["bins", "two_hot", "reals"])
def test_a_round_trip_errs_by_at_most_half_a_bin(rule, values):
    """In the warped space; places between bins come back as they were."""
    made = fitted(rule, values)
    report = made.report(*data())
    if values == "bins":
        assert 0.95 < report["half_bin"] <= 1.0 + 1e-3
    elif values == "two_hot":  # in the outer half bins alone, which have one neighbour
        assert report["half_bin"] <= 1.0 + 1e-3
        inner = np.abs(np.asarray(made.unit(*data()))).max(1) < 1.0 - 1.0 / V
        row = np.flatnonzero(inner)[0]  # everywhere, for the same shapes
        alike = [np.repeat(x[row : row + 1], N, axis=0) for x in data()]
        assert made.report(*alike)["half_bin"] < 1e-3
    else:
        assert report["half_bin"] == 0.0
    assert report["tokens_per_transition"] == 5
    errors = np.array(report["error"])
    assert errors.shape == (5,)
    assert (errors[:2] < (1e-3 if values == "reals" else 0.2)).all(), errors


@pytest.mark.parametrize("rule", RULES)
def test_the_error_is_less_than_the_bin_that_a_value_lies_in(rule):
    """In the units of the data, against the fitted edges."""
    made = fitted(rule)
    both = np.concatenate(data(), axis=1)
    unit = made.unit(*data())
    centre = scalar.unit_centres(V)[scalar.bin_of(unit, V)]
    back = np.asarray(scalar.from_unit(made.bins, centre))
    edges = np.asarray(made.bins.edges)
    index = np.asarray(scalar.encode(made.bins, jnp.asarray(both)))
    column = np.arange(5)[None]
    low, high = edges[column, index], edges[column, index + 1]
    np.testing.assert_array_equal(index, scalar.bin_of(unit, V))
    assert (np.abs(back - both) <= (high - low) / 2 + 1e-5 * (1 + np.abs(both))).all()
    np.testing.assert_allclose(made.action_of_unit(unit[:, 3:]), both[:, 3:], atol=1e-4)


def test_more_bins_err_less():
    few, many = (np.array(fitted(num_bins=v).report(*data())["error"]) for v in (8, V))
    moves = [0, 1, 3, 4]
    assert (few[moves] > 2 * many[moves]).all()


def test_actions_span_their_box_and_come_back():
    made = fitted("uniform")
    box = jnp.array([[-2.0, 0.0], [2.0, 1.0], [0.0, 0.5]])
    unit = made.unit_of_action(box)
    np.testing.assert_allclose(unit, [[-1, -1], [1, 1], [0, 0]], atol=1e-3)
    np.testing.assert_allclose(made.action_of_unit(unit), box, atol=1e-3)
    obs, action = data()
    both = made.unit(obs, action)
    np.testing.assert_array_equal(both[:, :3], made.unit_of_obs(obs))
    np.testing.assert_array_equal(both[:, 3:], made.unit_of_action(action))


def test_what_lies_outside_is_counted_by_component():
    made = fitted("uniform")
    obs, action = (x.copy() for x in data())
    np.testing.assert_array_equal(made.outside(obs, action), 0)
    obs[:4, 1], obs[7, 1], action[3, 0] = 1e6, -1e6, 2.5
    np.testing.assert_array_equal(made.outside(obs, action), [0, 5, 0, 1, 0])
    assert made.report(obs, action)["outside"] == [0, 5, 0, 1, 0]
    unit = np.asarray(made.unit(obs, action))
    assert np.abs(unit).max() <= 1.0
    np.testing.assert_array_equal(scalar.bin_of(jnp.asarray(unit[:4, 1]), V), V - 1)


def test_a_modality_is_one_token():
    assert fitted(granularity="modality").report(*data())["tokens_per_transition"] == 2


def test_the_domain_it_was_fitted_on_is_accepted_and_no_other():
    made = fitted()
    made.check(robot())
    others = (
        robot(name="test/Other"),
        robot(obs=OBS[:2]),
        robot(obs=(OBS[1], OBS[0], OBS[2])),
        robot(action=ACTION[::-1]),
    )
    for other in others:
        with pytest.raises(TokenizerError, match=r"tokenizer of test/Robot \(5 components\): got"):
            made.check(other)


def test_data_of_another_domain_are_refused():
    (domain,) = component.domains([(OBS, ACTION)])
    obs, action = data()
    with pytest.raises(TokenizerError, match=r"got 2 \+ 2 components, expected 3 \+ 2"):
        tokenizer.fit(robot(), domain, obs[:, :2], action, TokenConfig())
    with pytest.raises(TokenizerError, match=r"got 3 \+ 1 components, expected 3 \+ 2"):
        tokenizer.fit(robot(), domain, obs, action[:, :1], TokenConfig())


GEAR = Component("gear", "category", cardinality=3)


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "beside_a_real"])
def test_categories_stay_their_ids(alone):
    """In states and in actions, which come back as they were; only reals have errors."""
    obs_spec, action_spec = (*OBS[1:], GEAR), (GEAR,) if alone else (ACTION[0], GEAR)
    (domain,) = component.domains([(obs_spec, action_spec)])
    obs, action = data()
    gear = np.random.default_rng(1).integers(0, 3, N)
    obs = np.column_stack([obs[:, 1:], gear]).astype(np.float32)
    action = gear.astype(np.int32) if alone else np.column_stack([action[:, 0], gear]).astype(np.float32)
    made = tokenizer.fit(robot(obs=obs_spec, action=action_spec), domain, obs, action, TokenConfig(V))
    unit = np.asarray(made.unit(obs, jnp.asarray(action)))
    np.testing.assert_array_equal(unit[:, [2, -1]], np.column_stack([gear, gear]))
    assert np.abs(unit[:, :2]).max() <= 1.0
    back = np.asarray(made.action_of_unit(jnp.asarray(unit[:, 3:])))
    np.testing.assert_allclose(back.reshape(action.shape), action, atol=1e-4)
    report, is_category = made.report(obs, action), np.array(domain.sizes) > 0
    assert 0.9 < report["half_bin"] <= 1.0 + 1e-3
    np.testing.assert_array_equal(np.array(report["error"])[is_category], 0.0)
    np.testing.assert_array_equal(np.array(report["outside"])[is_category], 0)
