"""Component tokens: codecs of the training split, categories as tokens, the decoding rules."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from envs.types import Component
from jaxagent.config import TokenConfig
from jaxagent.nn.sequence_model import vocabulary_of
from jaxagent.tokens import component, scalar

FEW = settings(max_examples=25, deadline=None, derandomize=True)
CONFIG = TokenConfig(num_bins=8)
OBS = (Component("x", "real"), Component("y", "real"), Component("z", "real"))
DISCRETE = (Component("button", "category", cardinality=3),)
choose_token = jax.jit(component.choose_token, static_argnums=2)
BOUNDED = (Component("left", "real", -1.0, 1.0), Component("right", "real", 0.0, 4.0))
UNBOUNDED = (Component("left", "real"), Component("right", "real", 0.0, 4.0))


def data(seed=0, num_steps=50):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(num_steps, 3)), rng.uniform(-0.5, 0.5, (num_steps, 2))


# Domains and vocabulary.


def test_domains_share_no_component_id():
    specs = [(OBS, DISCRETE), (OBS[:1], BOUNDED), (OBS[:2], DISCRETE)]
    domains = component.domains(specs)
    assert [d.period for d in domains] == [4, 3, 3]
    assert [(d.obs_size, d.action_size) for d in domains] == [(3, 1), (1, 2), (2, 1)]
    assert [d.action_cardinality for d in domains] == [3, 0, 3]
    assert [d.index for d in domains] == [0, 1, 2]
    ids = [i for d in domains for i in range(d.first_component, d.first_component + d.period)]
    assert ids == list(range(10))


def test_the_vocabulary_has_room_for_the_widest_action():
    wide = (Component("button", "category", cardinality=7),)
    domains = component.domains([(OBS, DISCRETE), (OBS, BOUNDED), (OBS, wide)])
    assert vocabulary_of(CONFIG, domains).size == 15
    assert vocabulary_of(CONFIG, domains[1:2]).size == 8


# Fitting.


@pytest.mark.parametrize("rule", ["uniform", "quantile", "mu_law"])
def test_fit_is_a_pure_function_of_the_training_data(rule):
    config = dataclasses.replace(CONFIG, obs_bins=rule, action_bins=rule)
    obs, action = data()
    obs.flags.writeable = action.flags.writeable = False
    first = component.fit(obs, action, UNBOUNDED, config)
    held_out, _ = data(seed=1)
    component.fit(held_out * 100, action, UNBOUNDED, config)
    token = component.encode_obs(
        first, component.domains([(OBS, BOUNDED)])[0], 8, jnp.asarray(held_out * 100, jnp.float32)
    )
    second = component.fit(obs.copy(), action.copy(), UNBOUNDED, config)
    jax.tree.map(np.testing.assert_array_equal, first, second)
    # Held-out values beyond the training range are end bins, not a reason for other bins.
    beyond = held_out * 100 > obs.max(0) * 20
    assert beyond.any()
    assert (np.asarray(token)[beyond] == CONFIG.num_bins - 1).all()


@pytest.mark.parametrize("rule", ["uniform", "quantile", "mu_law"])
def test_each_rule_is_the_one_that_was_asked_for(rule):
    config = TokenConfig(num_bins=8, obs_bins=rule, action_bins=rule, mu=50.0, max_deviation=1.5)
    obs, action = data()
    expected = {
        "uniform": lambda x: scalar.fit_uniform(x, 8, 1.5),
        "quantile": lambda x: scalar.fit_quantile(x, 8),
        "mu_law": lambda x: scalar.fit_mu_law(x, 8, 1.5, 50.0),
    }[rule]
    codec = component.fit(obs, action, UNBOUNDED, config)
    np.testing.assert_array_equal(codec.obs.edges, expected(obs).edges)
    np.testing.assert_array_equal(codec.action.edges, expected(action).edges)


def test_uniform_action_bins_span_the_bounds_of_the_spec():
    obs, action = data()
    edges = component.fit(obs, action, BOUNDED, CONFIG).action.edges
    np.testing.assert_array_equal(edges[:, 0], [-1.0, 0.0])
    np.testing.assert_array_equal(edges[:, -1], [1.0, 4.0])
    # One infinite bound: the data decide for all.
    edges = component.fit(obs, action, UNBOUNDED, CONFIG).action.edges
    assert (np.abs(edges) < 1.5).all()


# Actions.


def test_discrete_actions_are_tokens_behind_the_bins():
    obs, _ = data()
    codec = component.fit(obs, np.zeros(50, np.int32), DISCRETE, CONFIG)
    (domain,) = component.domains([(OBS, DISCRETE)])
    assert codec.action == ()
    action = jnp.array([[0, 1], [2, 0]], jnp.int32)
    token = component.encode_action(codec, domain, 8, action)
    np.testing.assert_array_equal(token, [[[8], [9]], [[10], [8]]])
    assert token.dtype == jnp.int32
    back = component.decode_action(codec, domain, 8, token)
    np.testing.assert_array_equal(back, action)
    assert back.dtype == jnp.int32


@FEW
@given(arrays(np.float32, (6, 2), elements=st.floats(0, 1, width=32)))
def test_continuous_actions_come_back_within_half_a_bin(unit):
    obs, action = data()
    codec = component.fit(obs, action, BOUNDED, CONFIG)
    (domain,) = component.domains([(OBS, BOUNDED)])
    low, width = np.array([-1.0, 0.0], np.float32), np.array([2.0, 4.0], np.float32)
    inside = low + unit * width
    token = component.encode_action(codec, domain, 8, jnp.asarray(inside))
    assert token.shape == (6, 2)
    error = np.abs(np.asarray(component.decode_action(codec, domain, 8, token)) - inside)
    assert (error <= width / 8 / 2 + 1e-6).all()


@pytest.mark.parametrize(("spec", "expected"), [(DISCRETE, {8, 9, 10}), (BOUNDED, set(range(8)))])
def test_legal_tokens_are_those_that_decode(spec, expected):
    (domain,) = component.domains([(OBS, spec)])
    legal = component.legal_tokens(domain, 8, 13)[0]  # the vocabulary may hold wider domains
    assert legal.shape == (13,)
    assert set(np.flatnonzero(legal).tolist()) == expected


# Decoding rules.


@pytest.mark.parametrize("rule", ["argmax", "sample", "mean"])
def test_every_rule_chooses_legal_tokens_only(rule):
    logits = jnp.asarray(np.random.default_rng(0).normal(0, 5, (7, 4, 11)), jnp.float32)
    for spec in (DISCRETE, BOUNDED):
        (domain,) = component.domains([(OBS, spec)])
        legal = component.legal_tokens(domain, 8, 11)[0]
        # What is illegal looks best.
        tempting = jnp.where(legal[None, None], logits, 50.0)
        token = choose_token(tempting, legal, rule, jax.random.key(0))
        assert token.shape == (7, 4)
        assert token.dtype == jnp.int32
        assert np.asarray(legal)[np.asarray(token)].all()


def test_argmax_takes_the_best_legal_token():
    logits = jnp.array([[0.0, 3.0, 1.0, 9.0], [2.0, -1.0, 2.5, 9.0]], jnp.float32)
    legal = jnp.array([True, True, True, False])
    token = choose_token(logits, legal, "argmax", jax.random.key(0))
    np.testing.assert_array_equal(token, [1, 2])


def test_sample_follows_the_softmax_over_legal_tokens():
    logits = jnp.array([0.0, 1.0, -1.0, 0.5, 7.0], jnp.float32)
    legal = jnp.array([True, True, True, True, False])
    many = jnp.broadcast_to(logits, (20_000, 5))
    token = np.asarray(component.choose_token(many, legal, "sample", jax.random.key(1)))
    weights = np.exp(np.asarray(logits[:4], np.float64))
    expected = weights / weights.sum() * len(token)
    observed = np.bincount(token, minlength=5)
    assert observed[4] == 0
    assert scipy.stats.chisquare(observed[:4], expected).pvalue > 0.01
    other = choose_token(many, legal, "sample", jax.random.key(2))
    assert (np.asarray(other) != token).any()


def test_mean_by_hand():
    probability = jnp.array([[0.1, 0.1, 0.1, 0.7], [0.5, 0.2, 0.2, 0.1]], jnp.float32)
    logits = jnp.pad(jnp.log(probability), ((0, 0), (0, 1)), constant_values=5.0)
    legal = jnp.array([True, True, True, True, False])
    token = choose_token(logits, legal, "mean", jax.random.key(0))
    np.testing.assert_array_equal(token, [2, 1])  # means 2.4 and 0.9; argmax says 3 and 0


@FEW
@given(arrays(np.float32, (5, 8), elements=st.floats(-6, 6, width=32)))
def test_the_mean_token_of_uniform_bins_is_the_mean_action_up_to_half_a_bin(logits):
    bins = scalar.uniform(np.array([-1.0]), np.array([3.0]), 8)
    token = choose_token(jnp.asarray(logits), jnp.ones((8,), bool), "mean", jax.random.key(0))
    weights = np.exp(logits.astype(np.float64))
    mean = (weights / weights.sum(1, keepdims=True)) @ np.asarray(bins.centres[0], np.float64)
    decoded = np.asarray(scalar.decode(bins, token[:, None]))[:, 0]
    assert (np.abs(decoded - mean) <= 4.0 / 8 / 2 + 1e-5).all()
