"""Distributions against scipy.stats, samples against their own densities."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jaxagent.nn.distributions import Categorical, Gaussian, TanhGaussian, full, kl

FEW = settings(max_examples=25, deadline=None, derandomize=True)
LOGITS = arrays(np.float32, (3, 4), elements=st.floats(-20, 20, width=32))
REALS = arrays(np.float32, (3, 2), elements=st.floats(-10, 10, width=32))
LOG_STDS = arrays(np.float32, (3, 2), elements=st.floats(-3, 3, width=32))


def softmax(logits):
    return scipy.special.softmax(np.asarray(logits, np.float64), axis=-1)


@jax.jit
def summary(dist, event):
    return dist.log_prob(event), dist.entropy(), dist.mode()


@FEW
@given(LOGITS)
def test_categorical_equals_scipy(logits):
    probability = softmax(logits)
    event = np.array([0, 3, 1])
    log_prob, entropy, mode = summary(Categorical(jnp.asarray(logits)), jnp.asarray(event))
    np.testing.assert_allclose(
        log_prob,
        scipy.special.log_softmax(logits.astype(np.float64), axis=-1)[np.arange(3), event],
        rtol=1e-5,
        atol=1e-5,
    )
    oracle = scipy.stats.entropy(probability, axis=-1)
    np.testing.assert_allclose(entropy, oracle, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(mode, logits.argmax(-1))


@FEW
@given(REALS, LOG_STDS, REALS)
def test_gaussian_equals_scipy(mean, log_std, event):
    dist = Gaussian(jnp.asarray(mean), jnp.asarray(log_std))
    log_prob, entropy, mode = summary(dist, jnp.asarray(event))
    oracle = scipy.stats.norm(mean.astype(np.float64), np.exp(log_std.astype(np.float64)))
    expected = oracle.logpdf(event).sum(-1)
    np.testing.assert_allclose(log_prob, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(entropy, oracle.entropy().sum(-1), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(mode, mean)


def test_categorical_samples_follow_their_probabilities():
    logits = jnp.array([[0.0, 1.0, -1.0], [2.0, 0.0, 0.0]])
    many = Categorical(jnp.broadcast_to(logits, (10_000, 2, 3)))
    events = np.asarray(many.sample(jax.random.key(0)))
    assert events.dtype == np.int32
    assert events.shape == (10_000, 2)
    for lane in range(2):
        observed = np.bincount(events[:, lane], minlength=3)
        expected = softmax(logits)[lane] * 10_000
        assert scipy.stats.chisquare(observed, expected).pvalue > 0.01


def test_gaussian_samples_follow_their_density():
    mean, log_std = jnp.array([[1.0, -4.0]]), jnp.array([[0.0, -1.5]])
    dist = Gaussian(jnp.broadcast_to(mean, (10_000, 2)), log_std)
    events = np.asarray(dist.sample(jax.random.key(0)))
    for a in range(2):
        oracle = scipy.stats.norm(mean[0, a], np.exp(log_std[0, a]))
        assert scipy.stats.kstest(events[:, a], oracle.cdf).pvalue > 0.01
    assert abs(np.corrcoef(events.T)[0, 1]) < 0.05


def test_one_log_std_serves_a_whole_batch():
    mean = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2)), jnp.float32)
    shared = jnp.array([[0.3, -0.2]])
    dist = Gaussian(mean, shared)
    repeated = Gaussian(mean, jnp.broadcast_to(shared, (3, 2)))
    np.testing.assert_allclose(dist.log_prob(mean + 1), repeated.log_prob(mean + 1), rtol=1e-6)
    assert dist.entropy().shape == (3,)
    np.testing.assert_allclose(dist.entropy(), repeated.entropy(), rtol=1e-6)


def test_the_gradient_of_the_log_probability_points_at_the_event():
    def log_prob(logits):
        return Categorical(logits).log_prob(jnp.array(1))

    gradient = jax.grad(log_prob)(jnp.array([0.2, -0.1, 0.5]))
    expected = np.eye(3)[1] - softmax([0.2, -0.1, 0.5])
    np.testing.assert_allclose(gradient, expected, atol=1e-6)

    slope = jax.grad(lambda m: Gaussian(m, jnp.zeros((1,))).log_prob(jnp.array([2.0])))
    np.testing.assert_allclose(slope(jnp.array([0.5])), [1.5], rtol=1e-6)


@pytest.mark.parametrize("scale", [1e4, 1e30])
def test_extreme_logits_stay_finite(scale):
    logits = scale * jnp.array([1.0, -1.0, 0.0])
    with jax.debug_nans(True):
        gradient = jax.grad(lambda x: Categorical(x).entropy())(logits)
        entropy = Categorical(logits).entropy()
    assert jnp.isfinite(gradient).all()
    np.testing.assert_allclose(entropy, 0.0, atol=1e-6)


# --- the tanh of a normal -------------------------------------------------------------------------


def tanh_logpdf(mean, log_std, event):
    """By the change of variables in float64, `log(1 - tanh^2) = -2 log cosh`."""
    mean, log_std, event = (np.asarray(x, np.float64) for x in (mean, log_std, event))
    log_cosh = np.logaddexp(event, -event) - np.log(2.0)
    return (scipy.stats.norm(mean, np.exp(log_std)).logpdf(event) + 2.0 * log_cosh).sum(-1)


tanh_log_prob = jax.jit(lambda mean, log_std, event: TanhGaussian(mean, log_std).log_prob(event))


@FEW
@given(REALS, LOG_STDS, REALS)
def test_tanh_gaussian_equals_scipy(mean, log_std, event):
    log_prob = tanh_log_prob(*(jnp.asarray(x) for x in (mean, log_std, event)))
    expected = tanh_logpdf(mean, log_std, event)
    np.testing.assert_allclose(log_prob, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, 0.0), (0.7, -1.0), (-1.5, 0.5)])
def test_a_tanh_gaussian_has_mass_one_over_actions(mean, log_std):
    """Integrated over actions `tanh(event)`, as a density of these must be, and its mean."""
    action = np.tanh(np.linspace(-9.0, 9.0, 20_001))
    event = jnp.asarray(np.arctanh(action), jnp.float32)[:, None]
    shape = jnp.full((len(action), 1), mean), jnp.full((1, 1), log_std)
    density = np.exp(np.asarray(tanh_log_prob(*shape, event), np.float64))
    assert scipy.integrate.trapezoid(density, action) == pytest.approx(1.0, abs=1e-4)
    drawn = np.tanh(mean + np.exp(log_std) * np.random.default_rng(0).normal(size=200_000))
    moment = scipy.integrate.trapezoid(density * action, action)
    assert moment == pytest.approx(drawn.mean(), abs=0.01)


def test_a_tanh_gaussian_stays_finite_where_its_tanh_is_one():
    event = jnp.array([[-80.0, 20.0], [12.0, -9.5], [100.0, 0.0]])
    assert (np.abs(np.tanh(np.asarray(event, np.float32)))[0] == 1.0).all()

    def total(mean, log_std):
        return jnp.sum(TanhGaussian(mean, log_std).log_prob(event))

    mean, log_std = jnp.zeros((3, 2)), jnp.full((1, 2), 1.0)
    with jax.debug_nans(True):
        value, slopes = jax.value_and_grad(total, argnums=(0, 1))(mean, log_std)
    np.testing.assert_allclose(value, tanh_logpdf(mean, log_std, event).sum(), rtol=1e-5)
    assert all(jnp.isfinite(x).all() for x in slopes)
    # Also through the event itself, as the policy's loss goes.
    slope = jax.grad(lambda x: jnp.sum(TanhGaussian(mean, log_std).log_prob(x)))(event)
    z = np.asarray(event, np.float64) * np.exp(-2.0)
    np.testing.assert_allclose(slope, -z + 2.0 * np.tanh(event), rtol=1e-4, atol=1e-5)


def test_tanh_gaussian_noise_and_mode():
    mean, log_std = jnp.array([[1.0, -2.0]]), jnp.array([[0.0, 0.5]])
    dist = TanhGaussian(mean, log_std)
    np.testing.assert_allclose(
        dist.from_noise(jnp.array([[0.5, -1.0]])), [[1.5, -2.0 - np.exp(0.5)]], rtol=1e-6
    )
    np.testing.assert_array_equal(dist.mode(), mean)


@FEW
@given(LOGITS, LOGITS)
def test_divergence_of_categories_equals_scipy(first, second):
    found = Categorical(jnp.asarray(first)).kl(Categorical(jnp.asarray(second)))
    oracle = scipy.stats.entropy(softmax(first), softmax(second), axis=-1)
    np.testing.assert_allclose(found, oracle, rtol=1e-3, atol=1e-4)


def test_divergence_of_normals_equals_an_integral_and_products_add_up():
    first = Gaussian(jnp.array([[0.3, -1.0]]), jnp.array([[0.2, -0.5]]))
    second = Gaussian(jnp.array([[-0.4, 0.5]]), jnp.array([[-0.1, 0.3]]))
    x = np.linspace(-20, 20, 200_001)
    expected = 0.0
    for i in range(2):
        p, q = (
            scipy.stats.norm(float(d.mean[0, i]), math.exp(np.ravel(d.log_std)[i])) for d in (first, second)
        )
        expected += np.trapezoid(p.pdf(x) * (p.logpdf(x) - q.logpdf(x)), x)
    np.testing.assert_allclose(first.kl(second), [expected], rtol=1e-4)
    for_all = second._replace(log_std=jnp.zeros((1, 2)))
    assert full((for_all._replace(mean=jnp.zeros((3, 2))),))[0].log_std.shape == (3, 2)
    parts = full((Categorical(jnp.array([[0.0, 1.0]])), second))
    others = full((Categorical(jnp.array([[1.0, 0.0]])), first))
    alone = sum(a.kl(b) for a, b in zip(parts, others, strict=True))
    np.testing.assert_allclose(kl(parts, others), alone, rtol=1e-6)
    np.testing.assert_allclose(kl(parts, parts), [0.0], atol=1e-7)
