"""Generalised advantages: by hand, at their limits, against a float64 loop, through both ends."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jaxagent.objectives.returns import gae, lambda_returns, n_step_parts, n_step_returns, q_lambda, v_trace

FEW = settings(max_examples=25, deadline=None, derandomize=True)
T, B = 6, 2
REALS = arrays(np.float32, (T, B), elements=st.floats(-10, 10, width=32))
BOOLS = arrays(bool, (T, B))
jitted = jax.jit(gae)


def estimate(reward, terminated, truncated, value, next_value, discount, trace):
    inputs = (jnp.asarray(x) for x in (reward, terminated, truncated, value, next_value))
    return np.asarray(jitted(*inputs, discount=discount, trace=trace))


def loop(reward, terminated, truncated, value, next_value, discount, trace):
    """Equation 16 as a sum over the rest of the episode, in float64."""
    reward, value, next_value = (np.asarray(x, np.float64) for x in (reward, value, next_value))
    advantage = np.zeros_like(reward)
    for lane in np.ndindex(*reward.shape[1:]):
        for t in range(len(reward)):
            weight = 1.0
            for k in range(t, len(reward)):
                at = (k, *lane)
                bootstrap = 0.0 if terminated[at] else next_value[at]
                advantage[(t, *lane)] += weight * (reward[at] + discount * bootstrap - value[at])
                weight *= discount * trace
                if terminated[at] or truncated[at]:
                    break
    return advantage


@FEW
@given(REALS, BOOLS, BOOLS, REALS, REALS, st.sampled_from([0.0, 0.9, 1.0]), st.floats(0, 1))
def test_gae_equals_a_float64_loop(reward, terminated, truncated, value, after, discount, trace):
    arguments = (reward, terminated, truncated, value, after, discount, trace)
    np.testing.assert_allclose(estimate(*arguments), loop(*arguments), rtol=1e-4, atol=1e-4)


def test_gae_by_hand():
    """discount 1/2, trace 1/2: the trace decays by 1/4."""
    reward, value = np.float32([1, 2, 3]), np.float32([4, 8, 2])
    next_value = np.float32([8, 2, 6])
    never = np.zeros(3, bool)
    # delta = 1 + 4 - 4, 2 + 1 - 8, 3 + 3 - 2 = 1, -5, 4
    np.testing.assert_allclose(
        estimate(reward, never, never, value, next_value, 0.5, 0.5), [1 - 4 / 4, -5 + 4 / 4, 4]
    )
    middle = np.array([False, True, False])
    # A termination at step 1: its delta is 2 - 8, and nothing of step 2 flows back.
    np.testing.assert_allclose(
        estimate(reward, middle, never, value, next_value, 0.5, 0.5), [1 - 6 / 4, -6, 4]
    )
    # A truncation at step 1 keeps its bootstrap; nothing of step 2 flows back either.
    np.testing.assert_allclose(
        estimate(reward, never, middle, value, next_value, 0.5, 0.5), [1 - 5 / 4, -5, 4]
    )
    # Both at once: the task has ended.
    np.testing.assert_allclose(
        estimate(reward, middle, middle, value, next_value, 0.5, 0.5), [1 - 6 / 4, -6, 4]
    )


def random_episode(seed=0):
    rng = np.random.default_rng(seed)
    reward, value, next_value = rng.normal(size=(3, T, B)).astype(np.float32)
    terminated, truncated = rng.random((2, T, B)) < 0.25
    return reward, terminated, truncated, value, next_value


def test_trace_zero_is_the_one_step_error():
    reward, terminated, truncated, value, next_value = random_episode()
    expected = reward + 0.9 * np.where(terminated, 0, next_value) - value
    got = estimate(reward, terminated, truncated, value, next_value, 0.9, 0.0)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_trace_one_is_the_return_less_the_value():
    """Within an episode the values telescope away, but for the last bootstrap."""
    rng = np.random.default_rng(1)
    reward = rng.normal(size=T).astype(np.float32)
    values = rng.normal(size=T + 1).astype(np.float32)
    never = np.zeros(T, bool)
    got = estimate(reward, never, never, values[:-1], values[1:], 0.9, 1.0)
    for t in range(T):
        rewards = sum(0.9 ** (k - t) * reward[k] for k in range(t, T))
        expected = rewards + 0.9 ** (T - t) * values[T] - values[t]
        np.testing.assert_allclose(got[t], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("trace", [0.0, 0.7, 1.0])
def test_a_truncated_chain_is_worth_the_infinite_one(trace):
    """Reward 1 for ever is worth 1 / (1 - discount); with that value nothing is a surprise."""
    discount = 0.9
    exact = np.full((T, B), 1 / (1 - discount), np.float32)
    reward, never = np.ones((T, B), np.float32), np.zeros((T, B), bool)
    cut = np.random.default_rng(0).random((T, B)) < 0.4
    assert cut.any()
    advantage = estimate(reward, never, cut, exact, exact, discount, trace)
    np.testing.assert_allclose(advantage, 0.0, atol=1e-5)
    # The same ends as terminations are a loss: the value was too high.
    advantage = estimate(reward, cut, never, exact, exact, discount, trace)
    np.testing.assert_allclose(advantage[cut], 1 - 1 / (1 - discount), rtol=1e-4)
    assert (advantage < 1e-5).all()


def test_a_finite_chain_with_the_exact_value_has_no_surprise():
    """Three steps of reward 1 to a termination are worth 1 + d + d^2, 1 + d, 1."""
    value = np.float32([1 + 0.5 + 0.25, 1 + 0.5, 1])
    end = np.array([False, False, True])
    # What the network says of a terminal observation never matters.
    next_value = np.float32([1.5, 1.0, 1e6])
    got = estimate(np.ones(3, np.float32), end, end & False, value, next_value, 0.5, 0.95)
    np.testing.assert_allclose(got, 0.0, atol=1e-6)


@pytest.mark.parametrize("field", [0, 3, 4])
def test_gradient_signs(field):
    """More reward or a better next state is an advantage, a higher value is none."""
    arguments = [jnp.asarray(x) for x in random_episode()]

    def total(x):
        changed = [*arguments[:field], x, *arguments[field + 1 :]]
        return jnp.sum(gae(*changed, discount=0.9, trace=0.0))

    gradient = np.asarray(jax.grad(total)(arguments[field]))
    expected = {0: 1.0, 3: -1.0, 4: np.where(arguments[1], 0.0, 0.9)}[field]
    np.testing.assert_allclose(gradient, np.broadcast_to(expected, (T, B)), rtol=1e-6)


def test_nothing_comes_from_what_a_termination_hides():
    """Also not a NaN, in value or gradient."""
    reward, _, _, value, next_value = (jnp.asarray(x) for x in random_episode())
    ends = jnp.ones((T, B), bool)
    estimate_of = partial(gae, discount=0.9, trace=0.9)
    with jax.debug_nans(True):
        gradient = jax.grad(lambda x: jnp.sum(estimate_of(reward, ends, ~ends, value, x)))(next_value)
    np.testing.assert_array_equal(gradient, 0)
    hidden = estimate_of(reward, ends, ~ends, value, jnp.full((T, B), jnp.nan))
    np.testing.assert_allclose(hidden, reward - value, rtol=1e-6)


def test_lanes_and_axes_are_independent():
    arguments = random_episode(3)
    together = estimate(*arguments, 0.9, 0.8)
    for lane in range(B):
        alone = estimate(*(x[:, lane] for x in arguments), 0.9, 0.8)
        np.testing.assert_allclose(together[:, lane], alone, rtol=1e-6)


# --- lambda-returns -------------------------------------------------------------------------------


@FEW
@given(
    REALS,
    arrays(np.float32, (T, B), elements=st.sampled_from([-1.0, 0.0, 0.5, 0.9])),
    REALS,
    st.floats(0.0, 1.0),
)
def test_lambda_returns_are_the_weighted_sum_of_n_step_returns(reward, discount, value, trace):
    """Equation 12.18 unrolled: n steps ahead weighs `(1 - trace) trace^(n - 1)`."""
    found = jax.jit(lambda_returns)(*map(jnp.asarray, (reward, discount, value)), trace=trace)
    r, d, v = (np.asarray(x, np.float64) for x in (reward, discount, value))
    for t in range(T):
        total, weight, going, expected = np.zeros(B), np.ones(B), 1.0, np.zeros(B)
        for k in range(t, T):
            total, weight = total + weight * r[k], weight * d[k]
            share = going if k == T - 1 else going * (1.0 - trace)
            expected, going = expected + share * (total + weight * v[k]), going * trace
        np.testing.assert_allclose(found[t], expected, rtol=1e-4, atol=1e-4)


def test_a_negative_discount_hands_the_outcome_to_the_other_player():
    """The last mover wins: the others' moves are worth -1 and +1 in turn."""
    reward = jnp.array([0.0, 0.0, 0.0, 1.0])
    discount = jnp.array([-1.0, -1.0, -1.0, 0.0])
    found = lambda_returns(reward, discount, jnp.full((4,), 9.0), trace=1.0)
    np.testing.assert_array_equal(found, [-1.0, 1.0, -1.0, 1.0])


# --- Q(lambda) ------------------------------------------------------------------------------------


def q_returns(reward, terminated, truncated, next_value, discount, trace):
    inputs = (jnp.asarray(x) for x in (reward, terminated, truncated, next_value))
    return np.asarray(jax.jit(q_lambda)(*inputs, discount=discount, trace=trace))


@FEW
@given(REALS, BOOLS, BOOLS, REALS, st.sampled_from([0.0, 0.9, 1.0]), st.floats(0, 1))
def test_q_lambda_equals_a_float64_loop(reward, terminated, truncated, after, discount, trace):
    found = q_returns(reward, terminated, truncated, after, discount, trace)
    r, v = (np.asarray(x, np.float64) for x in (reward, after))
    for lane in range(B):
        following = 0.0
        for t in reversed(range(T)):
            at = (t, lane)
            if terminated[at]:
                following = r[at]
            elif truncated[at] or t == T - 1:
                following = r[at] + discount * v[at]
            else:
                following = r[at] + discount * ((1 - trace) * v[at] + trace * following)
            np.testing.assert_allclose(found[at], following, rtol=1e-4, atol=1e-4)


def test_q_lambda_zero_is_the_target_of_q_learning():
    reward, terminated, truncated, _, next_value = random_episode()
    expected = reward + 0.9 * np.where(terminated, 0, next_value)
    np.testing.assert_allclose(
        q_returns(reward, terminated, truncated, next_value, 0.9, 0.0), expected, rtol=1e-5, atol=1e-6
    )


def test_q_lambda_one_is_the_return_of_each_episode():
    """Rewards up to the end, and one bootstrap: none, the truncated episode's, the segment's."""
    reward, next_value = np.float32([1, 2, 4, 8, 16, 32]), np.float32([9, 9, 9, 10, 9, 20])
    ends = np.arange(6)
    found = q_returns(reward, ends == 1, ends == 3, next_value, 0.5, 1.0)
    # Terminated after step 1, truncated after step 3 (worth 10), cut by the segment after step 5 (20).
    expected = [1 + 2 / 2, 2, 4 + 8 / 2 + 10 / 4, 8 + 10 / 2, 16 + 32 / 2 + 20 / 4, 32 + 20 / 2]
    np.testing.assert_allclose(found, expected)


def test_q_lambda_is_gae_behind_its_values():
    """Where the value after a step is that before the next, `gae` adds up the same errors."""
    reward, terminated, truncated, value, next_value = random_episode(2)
    goes_on = ~(terminated | truncated)[:-1]
    value[1:][goes_on] = next_value[:-1][goes_on]
    advantage = estimate(reward, terminated, truncated, value, next_value, 0.9, 0.7)
    found = q_returns(reward, terminated, truncated, next_value, 0.9, 0.7)
    np.testing.assert_allclose(found, value + advantage, rtol=1e-4, atol=1e-5)


def test_q_lambda_reads_nothing_that_a_termination_hides():
    reward, _, truncated, _, _ = (jnp.asarray(x) for x in random_episode())
    ends = jnp.ones((T, B), bool)
    found = q_lambda(reward, ends, truncated, jnp.full((T, B), jnp.nan), discount=0.9, trace=0.9)
    np.testing.assert_array_equal(found, reward)


# --- V-trace --------------------------------------------------------------------------------------

traced = jax.jit(v_trace)


def v_trace_loop(ratio, reward, terminated, truncated, value, next_value, *, discount, trace, rho_bar, c_bar):
    """Equation 1 as a sum over the rest of the episode, and the `q` of section 4.2, in float64."""
    ratio, reward, value, next_value = (np.asarray(x, np.float64) for x in (ratio, reward, value, next_value))
    rho, c = np.minimum(ratio, rho_bar), trace * np.minimum(ratio, c_bar)
    target, advantage = value.copy(), np.zeros_like(value)
    for lane in np.ndindex(*reward.shape[1:]):
        for s in reversed(range(len(reward))):
            weight = 1.0
            for t in range(s, len(reward)):
                at = (t, *lane)
                bootstrap = 0.0 if terminated[at] else next_value[at]
                delta = rho[at] * (reward[at] + discount * bootstrap - value[at])
                target[(s, *lane)] += weight * delta
                weight *= discount * c[at]
                if terminated[at] or truncated[at]:
                    break
            at, after = (s, *lane), (s + 1, *lane)
            ends = terminated[at] or truncated[at] or s + 1 == len(reward)
            bootstrap = next_value[at] if ends else target[after] + next_value[at] - value[after]
            q = reward[at] + discount * (0.0 if terminated[at] else bootstrap)
            advantage[at] = rho[at] * (q - value[at])
    return target, advantage


@FEW
@given(
    arrays(np.float32, (T, B), elements=st.floats(0, 4, width=32)),
    REALS,
    BOOLS,
    BOOLS,
    REALS,
    REALS,
    st.sampled_from([(0.9, 1.0, 1.0, 1.0), (1.0, 0.7, 2.0, 0.5), (0.5, 0.0, 1.0, 1.0)]),
)
def test_v_trace_equals_a_float64_loop(ratio, reward, terminated, truncated, value, after, settings):
    settings = dict(zip(("discount", "trace", "rho_bar", "c_bar"), settings, strict=True))
    arguments = (ratio, reward, terminated, truncated, value, after)
    found = traced(*map(jnp.asarray, arguments), **settings)
    for got, expected in zip(found, v_trace_loop(*arguments, **settings), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("trace", [0.0, 0.7, 1.0])
def test_v_trace_of_a_policys_own_actions_is_the_lambda_return(trace):
    episode = random_episode()
    found = traced(jnp.ones((T, B)), *map(jnp.asarray, episode), discount=0.9, trace=trace)
    np.testing.assert_allclose(
        found.target, episode[3] + estimate(*episode, 0.9, trace), rtol=1e-4, atol=1e-5
    )


def test_v_trace_by_hand():
    """discount 1/2: ratios of 4 count as 1, and a ratio of 1/2 halves what is learned and what goes back."""
    ratio, reward = jnp.array([4.0, 0.5, 4.0]), jnp.array([1.0, 2.0, 3.0])
    value, next_value = jnp.array([4.0, 8.0, 2.0]), jnp.array([8.0, 2.0, 6.0])
    never = jnp.zeros(3, bool)
    found = partial(traced, ratio, reward, value=value, next_value=next_value, discount=0.5)
    # delta = 1 + 4 - 4, (2 + 1 - 8) / 2, 3 + 3 - 2 = 1, -2.5, 4
    got = found(never, never)
    np.testing.assert_allclose(got.target, [4 + 1 - 1.5 / 2, 8 - 2.5 + 4 / 4, 2 + 4])
    np.testing.assert_allclose(got.advantage, [1 + (8 - 1.5) / 2 - 4, (2 + (2 + 4) / 2 - 8) / 2, 4])
    middle = jnp.array([False, True, False])
    # A termination at step 1: its delta is (2 - 8) / 2, and nothing of step 2 flows back.
    got = found(middle, never)
    np.testing.assert_allclose(got.target, [4 + 1 - 3 / 2, 8 - 3, 6])
    np.testing.assert_allclose(got.advantage, [1 + (8 - 3) / 2 - 4, -3, 4])
    # A truncation there keeps its bootstrap.
    got = found(never, middle)
    np.testing.assert_allclose(got.target, [4 + 1 - 2.5 / 2, 8 - 2.5, 6])
    np.testing.assert_allclose(got.advantage, [1 + (8 - 2.5) / 2 - 4, -2.5, 4])


def test_v_trace_of_one_step_and_of_ends_alone():
    ratio = jnp.array([[0.5, 3.0]])
    one = [jnp.asarray(x)[:1] for x in random_episode(1)]
    ends = jnp.ones((1, 2), bool)
    for terminated, truncated in ((ends, ~ends), (~ends, ends), (~ends, ~ends)):
        arguments = (ratio, one[0], terminated, truncated, *one[3:])
        got = v_trace(*arguments, discount=0.9)
        error = one[0] + 0.9 * jnp.where(terminated, 0.0, one[4]) - one[3]
        np.testing.assert_allclose(got.advantage, jnp.minimum(ratio, 1.0) * error, rtol=1e-5)
        np.testing.assert_allclose(got.target, one[3] + got.advantage, rtol=1e-5)
    hidden = v_trace(ratio, one[0], ends, ~ends, one[3], jnp.full((1, 2), jnp.nan), discount=0.9)
    assert jnp.isfinite(jnp.stack(hidden)).all()


# --- n-step returns -------------------------------------------------------------------------------


@FEW
@given(REALS, BOOLS, BOOLS, REALS, st.integers(1, 4))
def test_n_step_returns_against_a_loop(reward, terminated, truncated, value, count):
    found = n_step_returns(
        *map(jnp.asarray, (reward, terminated, truncated, value)), discount=0.9, num_steps=count
    )
    assert found.shape == (T - count, B)
    for t, b in np.ndindex(*found.shape):
        total, weight = 0.0, 1.0
        for k in range(t, t + count):
            if truncated[k, b] and not terminated[k, b]:
                total, weight = total + weight * float(value[k, b]), 0.0
                break
            total, weight = total + weight * float(reward[k, b]), weight * 0.9
            if terminated[k, b]:
                weight = 0.0
                break
        total += weight * float(value[t + count, b])
        np.testing.assert_allclose(found[t, b], total, rtol=1e-4, atol=1e-4)


def test_n_step_returns_by_hand():
    """Three steps: a termination ends the sum, a truncation is replaced by the state's value."""
    reward, value = jnp.array([1.0, 2.0, 4.0, 8.0]), jnp.array([10.0, 20.0, 30.0, 40.0])
    none, at_one = jnp.zeros((4,), bool), jnp.array([False, True, False, False])
    returns = partial(n_step_returns, discount=0.5, num_steps=2)
    np.testing.assert_allclose(returns(reward, none, none, value), [1 + 1 + 7.5, 2 + 2 + 10])
    np.testing.assert_allclose(returns(reward, at_one, none, value), [1 + 1, 2])
    np.testing.assert_allclose(returns(reward, none, at_one, value), [1 + 10, 20])


# --- n steps in parts -----------------------------------------------------------------------------


def parts(reward, terminated=(), truncated=(), discount=0.5, num_steps=3):
    size = len(reward)
    flags = [np.isin(np.arange(size), ends)[:, None] for ends in (terminated, truncated)]
    reward = jnp.asarray(reward, jnp.float32)[:, None]
    found = n_step_parts(reward, *map(jnp.asarray, flags), discount=discount, num_steps=num_steps)
    return tuple(float(x[0]) for x in found)


def test_n_step_parts_by_hand():
    assert parts([1, 2, 4, 8]) == (1 + 1 + 1, 0.125, 3)
    assert parts([1, 2, 4, 8], num_steps=1) == (1, 0.5, 1)
    # A termination keeps its reward and nothing behind it.
    assert parts([1, 2, 4, 8], terminated=[1]) == (2, 0, 2)
    # After a time limit nothing is known: the state before it stands for the rest.
    assert parts([1, 2, 4, 8], truncated=[1]) == (1, 0.5, 1)
    assert parts([1, 2, 4, 8], truncated=[0]) == (0, 1, 0)
    # Both at once is a termination; what comes after the n steps does not matter.
    assert parts([1, 2, 4, 8], terminated=[1], truncated=[1]) == (2, 0, 2)
    assert parts([1, 2, 4, 8], terminated=[3]) == parts([1, 2, 4, 8])


def test_n_step_parts_agree_with_n_step_returns():
    """Where nothing is cut by time, for every start and a traced n."""
    rng = np.random.default_rng(0)
    reward, value = (jnp.asarray(rng.normal(size=(12, 5)), jnp.float32) for _ in range(2))
    ends = jnp.asarray(rng.random((12, 5)) < 0.2)
    never = jnp.zeros_like(ends)
    whole = n_step_returns(reward, ends, never, value, discount=0.9, num_steps=4)

    def one(n):
        return n_step_parts(reward[:6], ends[:6], never[:6], discount=jnp.float32(0.9), num_steps=n)

    total, weight, at = jax.jit(one)(jnp.int32(4))
    bootstrap = value[at, jnp.arange(5)]
    np.testing.assert_allclose(total + weight * bootstrap, whole[0], rtol=1e-5)
