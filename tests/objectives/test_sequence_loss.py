"""Next-token cross-entropy and losses of scalars: by hand, their weights, their empty batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jaxagent.objectives.sequence import expected_unit, next_token, scalar_loss, weighted_mean
from jaxagent.tokens import scalar

FEW = settings(max_examples=25, deadline=None, derandomize=True)
B, L, V = 2, 4, 3


def random_batch(seed=0):
    rng = np.random.default_rng(seed)
    logits = jnp.asarray(rng.normal(size=(B, L, V)), jnp.float32)
    return logits, jnp.asarray(rng.integers(0, V, (B, L)), jnp.int32)


def loop(logits, tokens, weight):
    logits = np.asarray(logits, np.float64)
    total, sum_of_weights = 0.0, 0.0
    for b in range(logits.shape[0]):
        for l in range(1, logits.shape[1]):
            before = logits[b, l - 1]
            nll = np.log(np.exp(before).sum()) - before[tokens[b, l]]
            total += weight[b, l] * nll
            sum_of_weights += weight[b, l]
    return total / sum_of_weights if sum_of_weights else 0.0


def test_next_token_by_hand():
    # The logits at a token say the next one: probabilities 1/2, 1/4, 1/4, then 1/8, 1/8, 3/4.
    probability = jnp.array([[[0.5, 0.25, 0.25], [0.125, 0.125, 0.75], [0.9, 0.05, 0.05]]])
    tokens = jnp.array([[2, 1, 2]], jnp.int32)
    every = next_token(jnp.log(probability), tokens, jnp.ones((1, 3)))
    np.testing.assert_allclose(every, (np.log(4) + np.log(4 / 3)) / 2, rtol=1e-6)
    one = next_token(jnp.log(probability), tokens, jnp.array([[1.0, 0.0, 1.0]]))
    np.testing.assert_allclose(one, np.log(4 / 3), rtol=1e-6)


@FEW
@given(
    arrays(np.float32, (B, L, V), elements=st.floats(-20, 20, width=32)),
    arrays(np.int32, (B, L), elements=st.integers(0, V - 1)),
    arrays(np.float32, (B, L), elements=st.sampled_from([0.0, 1.0, 2.5])),
)
def test_next_token_equals_a_float64_loop(logits, tokens, weight):
    got = next_token(*(jnp.asarray(x) for x in (logits, tokens, weight)))
    np.testing.assert_allclose(got, loop(logits, tokens, weight), rtol=1e-4, atol=1e-5)


def test_uniform_logits_cost_log_v_and_sure_ones_nothing():
    _, tokens = random_batch()
    uniform = next_token(jnp.zeros((B, L, V)), tokens, jnp.ones((B, L)))
    np.testing.assert_allclose(uniform, np.log(V), rtol=1e-6)
    sure = 100.0 * jax.nn.one_hot(jnp.roll(tokens, -1, axis=1), V)
    np.testing.assert_allclose(next_token(sure, tokens, jnp.ones((B, L))), 0.0, atol=1e-6)


def test_the_first_token_is_no_target_and_the_last_logits_say_nothing():
    logits, tokens = random_batch()
    weight = jnp.ones((B, L))
    loss = next_token(logits, tokens, weight)
    np.testing.assert_array_equal(next_token(logits, tokens, weight.at[:, 0].set(9.0)), loss)
    np.testing.assert_array_equal(next_token(logits.at[:, -1].set(9.0), tokens, weight), loss)
    np.testing.assert_array_equal(next_token(logits, tokens.at[:, 0].set(0), weight), loss)


def test_a_dropped_target_changes_nothing_and_gets_no_gradient():
    logits, tokens = random_batch()
    weight = jnp.ones((B, L)).at[1, 2].set(0.0)
    other = tokens.at[1, 2].set((tokens[1, 2] + 1) % V)
    np.testing.assert_array_equal(next_token(logits, tokens, weight), next_token(logits, other, weight))
    gradient = jax.grad(next_token)(logits, tokens, weight)
    np.testing.assert_array_equal(gradient[1, 1], 0)
    np.testing.assert_array_equal(gradient[:, -1], 0)
    assert (np.abs(gradient[0, :-1]).max(-1) > 0).all()


def test_the_gradient_is_probability_less_target():
    logits, tokens = random_batch(1)
    gradient = np.asarray(jax.grad(next_token)(logits, tokens, jnp.ones((B, L))))
    expected = jax.nn.softmax(logits)[:, :-1] - jax.nn.one_hot(tokens[:, 1:], V)
    np.testing.assert_allclose(gradient[:, :-1], expected / (B * (L - 1)), atol=1e-6)
    # Descent raises the target's logit.
    for b, l in np.ndindex(B, L - 1):
        assert gradient[b, l, tokens[b, l + 1]] < 0


def test_an_empty_batch_gives_zero_with_finite_gradient():
    logits, tokens = random_batch()
    with jax.debug_nans(True):
        loss, gradient = jax.value_and_grad(next_token)(logits, tokens, jnp.zeros((B, L)))
    assert loss == 0.0
    np.testing.assert_array_equal(gradient, 0)


def test_the_mean_does_not_depend_on_the_scale_of_the_weights():
    logits, tokens = random_batch()
    weight = jnp.ones((B, L))
    np.testing.assert_allclose(
        next_token(logits, tokens, 0.01 * weight), next_token(logits, tokens, weight), rtol=1e-5
    )


def test_extreme_logits_stay_finite():
    _, tokens = random_batch()
    logits = 1e4 * jax.nn.one_hot(tokens, V)
    with jax.debug_nans(True):
        loss, gradient = jax.value_and_grad(next_token)(logits, tokens, jnp.ones((B, L)))
    assert jnp.isfinite(loss)
    assert jnp.isfinite(gradient).all()


# --- losses of scalars ----------------------------------------------------------------------------

PLACES = jnp.array([-0.9, -0.25, 0.1, 0.75])  # of four bins with centres -.75, -.25, .25, .75


def some_logits(seed=2):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(4, 4)), jnp.float32)


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def test_scalar_losses_by_hand():
    logits = some_logits()
    log_probs = log_softmax(logits)
    bins = -log_probs[np.arange(4), [0, 1, 2, 3]]
    np.testing.assert_allclose(scalar_loss(logits, PLACES, "bins"), bins, rtol=1e-5)
    # 0.1 lies 0.7 of the way from the centre of bin 1 to that of bin 2; -0.9 is all of bin 0.
    weights = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0.3, 0.7, 0], [0, 0, 0, 1]])
    two_hot = -(weights * log_probs).sum(-1)
    np.testing.assert_allclose(scalar_loss(logits, PLACES, "two_hot"), two_hot, rtol=1e-5)
    guess = jnp.array([0.1, -0.25, 0.1, -0.25])
    np.testing.assert_allclose(scalar_loss(guess, PLACES, "reals"), [1, 0, 0, 1], atol=1e-6)


@pytest.mark.parametrize("values", ["bins", "two_hot"])
def test_the_loss_of_a_scalar_is_least_at_its_own_weights(values):
    """And its gradient there is zero: probability less weight."""
    lower, weight = scalar.two_hot(PLACES, 4)
    if values == "bins":
        weights = jax.nn.one_hot(scalar.bin_of(PLACES, 4), 4)
    else:
        low, high = jax.nn.one_hot(lower, 4), jax.nn.one_hot(lower + 1, 4)
        weights = low + weight[:, None] * (high - low)
    logits = some_logits()
    slope = jax.grad(lambda x: jnp.sum(scalar_loss(x, PLACES, values)))(logits)
    np.testing.assert_allclose(slope, jax.nn.softmax(logits) - weights, atol=1e-5)


def test_the_expected_place_by_hand():
    logits = jnp.log(jnp.array([[0.5, 0.5, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25]]) + 1e-12)
    np.testing.assert_allclose(expected_unit(logits, "bins"), [-0.5, 0.0], atol=1e-6)
    np.testing.assert_allclose(expected_unit(logits, "two_hot"), [-0.5, 0.0], atol=1e-6)
    np.testing.assert_array_equal(expected_unit(jnp.array([-3.0, 0.25, 1.5]), "reals"), [-1.0, 0.25, 1.0])


def test_a_two_hot_prediction_fitted_to_a_place_expects_it():
    """What reals say at once, two-hot logits say in the mean."""
    lower, weight = scalar.two_hot(PLACES, 4)
    low, high = jax.nn.one_hot(lower, 4), jax.nn.one_hot(lower + 1, 4)
    fitted = jnp.log(low + weight[:, None] * (high - low) + 1e-12)
    expected = np.clip(PLACES, -0.75, 0.75)
    np.testing.assert_allclose(expected_unit(fitted, "two_hot"), expected, atol=1e-5)


def test_a_weighted_mean_by_hand_and_of_nothing():
    x = jnp.array([[1.0, 2.0], [3.0, 100.0]])
    flags = jnp.array([[True, True], [True, False]])
    np.testing.assert_allclose(weighted_mean(x, flags), 2.0, rtol=1e-6)
    np.testing.assert_allclose(weighted_mean(x, jnp.array([[1.0, 3.0], [0.0, 0.0]])), 1.75)
    with jax.debug_nans(True):
        value, slope = jax.value_and_grad(weighted_mean)(x, jnp.zeros((2, 2)))
    assert value == 0.0
    np.testing.assert_array_equal(slope, 0.0)
