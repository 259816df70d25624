"""Masks: who sees whom by hand, rates over many draws, cuts, the curriculum."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxagent.objectives import masking
from kernels.attention.masks import table

FEW = settings(max_examples=15, deadline=None, derandomize=True)
KINDS = np.array([0, 0, 0, 1, 1])  # three tokens of a state, two of an action
G, K = len(KINDS), 4
DRAWS = 10_000


def draws(mask, number=DRAWS):
    """Many draws of `mask(key)`."""
    return np.asarray(jax.jit(jax.vmap(mask))(jax.random.split(jax.random.key(0), number)))


# --- who sees whom --------------------------------------------------------------------------------


def seen(sight):
    """The one row of a batch that shares it."""
    (rows,) = np.asarray(table(sight))
    return rows


def test_causal_and_full_by_hand():
    np.testing.assert_array_equal(seen(masking.causal(2, 2)), np.tril(np.ones((4, 4))))
    np.testing.assert_array_equal(seen(masking.full(2, 2)), np.ones((4, 4)))


def test_inverse_by_hand():
    """Rows look: s s a of two steps. States see their state; an action both, and itself."""
    expected = [
        [1, 1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 0],
        [0, 0, 0, 1, 1, 0],
        [0, 0, 0, 1, 1, 0],
        [0, 0, 0, 1, 1, 1],
    ]
    np.testing.assert_array_equal(seen(masking.inverse(2, jnp.array([0, 0, 1]))), expected)
    two = seen(masking.inverse(3, jnp.array([0, 1])))
    np.testing.assert_array_equal(two[1], [1, 1, 1, 0, 0, 0])
    np.testing.assert_array_equal(two[3], [0, 0, 1, 1, 1, 0])


def test_inverse_actions_are_reached_by_two_states_alone_through_any_number_of_layers():
    sees = seen(masking.inverse(K, jnp.asarray(KINDS))).astype(int)
    reach = np.linalg.matrix_power(sees, 5) > 0
    time, kind = np.repeat(np.arange(K), G), np.tile(KINDS, K)
    ahead = time[None] - time[:, None]
    expected = (kind == 0)[None] & ((ahead == 0) | (ahead == 1)) | np.eye(K * G, dtype=bool)
    np.testing.assert_array_equal(reach[kind == 1], expected[kind == 1])


def test_hidden_tokens_are_looked_at_by_themselves_alone():
    hidden = jnp.array([[[False, True]], [[False, False]]])
    sees = masking.hide_from_others(masking.full(1, 2), hidden)
    np.testing.assert_array_equal(table(sees), [[[1, 0], [1, 1]], [[1, 1], [1, 1]]])


def test_within_episode_by_hand():
    real = jnp.array([[True, False], [True, True]])
    causal = masking.causal(2, 2)
    sees = table(masking.within_episode(causal, real, 2))
    np.testing.assert_array_equal(sees[0], [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 1]])
    np.testing.assert_array_equal(sees[1], seen(causal))


def test_the_first_tokens_see_each_other_as_before():
    every = masking.within_episode(masking.causal(2, 2), jnp.array([[True, False]]), 2)
    np.testing.assert_array_equal(table(masking.first(every, 3)), table(every)[:, :3, :3])


@FEW
@given(st.integers(0, 2**16), st.floats(0, 1))
def test_no_row_is_ever_empty(seed, rate):
    rng = np.random.default_rng(seed)
    hidden = jnp.asarray(rng.random((2, K, G)) < rate)
    real = jnp.asarray(rng.random((2, K)) < rate)
    for sees in (masking.causal(K, G), masking.full(K, G), masking.inverse(K, jnp.asarray(KINDS))):
        rows = table(masking.within_episode(masking.hide_from_others(sees, hidden), real, G))
        assert rows.shape == (2, K * G, K * G)
        assert np.diagonal(rows, axis1=1, axis2=2).all()
        assert not (rows & ~(seen(sees) | np.eye(K * G, dtype=bool))[None]).any()


# --- rates ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.15, 0.5, 0.75])
def test_bert_chooses_at_its_rate_and_splits_80_10_10(rate):
    chosen, fate = masking.bert(jax.random.key(0), (400, 50, 10), rate)
    chosen, fate = np.asarray(chosen), np.asarray(fate)
    assert chosen.mean() == pytest.approx(rate, abs=0.005)
    np.testing.assert_array_equal(fate[~chosen], 1.0)
    share = fate[chosen]
    assert (share < 1).all()
    assert (share < 0.8).mean() == pytest.approx(0.8, abs=0.01)
    assert ((share >= 0.8) & (share < 0.9)).mean() == pytest.approx(0.1, abs=0.01)
    assert (share >= 0.9).mean() == pytest.approx(0.1, abs=0.01)
    # No token is favoured.
    for axis in ((0, 1), (0, 2)):
        np.testing.assert_allclose(chosen.mean(axis), rate, atol=0.03)


@pytest.mark.fast("0.5", "1.0")
@pytest.mark.parametrize("ratio", [0.5, 0.7, 0.95, 1.0])
def test_mtm_ratios_say_what_is_kept(ratio):
    """Not what is hidden: at 1 nothing is, before the cut."""
    mask = functools.partial(masking.mtm, num_steps=20, kinds=jnp.asarray(KINDS), ratios=(ratio,))
    hidden = draws(mask)
    # Steps 0 and 1 where something of step 3 or later is visible: no cut has been so early.
    early = hidden[~hidden[:, 3:].all((1, 2))][:, :2]
    assert (~early).mean() == pytest.approx(ratio, abs=0.01)


@pytest.mark.slow
def test_mtm_keeps_at_each_of_its_ratios():
    """A batch has one ratio, drawn evenly: the mean of those of the paper is 0.825."""
    mask = functools.partial(masking.mtm, num_steps=20, kinds=jnp.asarray(KINDS))
    hidden = draws(mask)
    early = hidden[~hidden[:, 3:].all((1, 2))][:, :2]
    assert (~early).mean() == pytest.approx(np.mean(masking.KEEP_RATIOS), abs=0.01)
    assert masking.KEEP_RATIOS == (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0)


@pytest.mark.fast("kinds0")
@pytest.mark.parametrize("kinds", [KINDS, np.array([0, 1])])
def test_mtm_cuts_the_future_off_at_a_random_place(kinds):
    """With all kept, what is hidden is a tail: it can be predicted from its past alone.

    The tail begins at a uniform time, with the action in 78 of 100 and with the state else.
    """
    mask = functools.partial(masking.mtm, num_steps=K, kinds=jnp.asarray(kinds), ratios=(1.0,))
    hidden = draws(mask).reshape(DRAWS, -1)
    assert (np.diff(hidden.astype(int), axis=1) >= 0).all()
    first = hidden.argmax(1)
    assert hidden.any(1).all()
    time, place = first // len(kinds), first % len(kinds)
    assert scipy.stats.chisquare(np.bincount(time, minlength=K)).pvalue > 0.01
    assert set(place.tolist()) == {0, int((kinds == 0).sum())}
    assert (place > 0).mean() == pytest.approx(0.7 / 0.9, abs=0.01)  # of state .2, action .7


@pytest.mark.slow
def test_mtm_also_cuts_where_little_is_kept():
    """The cut is on top of the ratio: the last action is never seen."""
    mask = functools.partial(masking.mtm, num_steps=K, kinds=jnp.asarray(KINDS))
    assert draws(mask)[:, -1, KINDS == 1].all()


def test_maskdp_hides_at_one_of_its_rates_a_batch():
    shape = (20, 20, 5)
    hidden = draws(lambda key: masking.maskdp(key, shape), 1000)
    share = hidden.reshape(1000, -1).mean(1)
    rates = np.array(masking.DROP_RATES)
    nearest = np.abs(share[:, None] - rates[None]).argmin(1)
    np.testing.assert_array_equal(rates, [0.15, 0.35, 0.55, 0.75, 0.95])
    assert np.abs(share - rates[nearest]).max() < 0.06  # 2000 tokens, five deviations
    for i, rate in enumerate(rates):
        assert share[nearest == i].mean() == pytest.approx(rate, abs=0.01)
    assert scipy.stats.chisquare(np.bincount(nearest, minlength=5)).pvalue > 0.01


@pytest.mark.parametrize(
    ("progress", "num_actions", "num_obs"), [(0.0, 1, 1), (0.34, 2, 2), (0.5, 3, 3), (0.7, 4, 3), (1.0, 6, 3)]
)
def test_smart_hides_more_actions_as_training_goes_on(progress, num_actions, num_obs):
    """Of six steps: at least one action, in the end all, and at most half of the states."""
    kinds, size = jnp.asarray(KINDS), 64
    hidden = np.asarray(masking.hindsight(jax.random.key(1), size, 6, kinds, jnp.float32(progress)))
    assert hidden.shape == (size, 6, G)
    # Whole states and whole actions.
    np.testing.assert_array_equal(hidden[..., :3], hidden[..., :1].repeat(3, -1))
    np.testing.assert_array_equal(hidden[..., 3:], hidden[..., 3:4].repeat(2, -1))
    np.testing.assert_array_equal(hidden[..., 0].sum(1), num_obs)
    np.testing.assert_array_equal(hidden[..., 3].sum(1), num_actions)


def test_smart_hides_every_step_alike_and_each_window_its_own():
    mask = functools.partial(masking.hindsight, batch_size=4, num_steps=6, kinds=jnp.asarray(KINDS))
    hidden = draws(lambda key: mask(key, progress=jnp.float32(0.4)))  # [DRAWS, 4, 6, G]
    for place, count in ((0, 2), (3, 2)):
        share = hidden[..., place].mean((0, 1))
        np.testing.assert_allclose(share, count / 6, atol=0.01)
    assert (hidden[:, 0] != hidden[:, 1]).any((1, 2)).mean() > 0.9
    # States and actions are drawn apart.
    both = (hidden[..., 0] & hidden[..., 3]).mean()
    assert both == pytest.approx((2 / 6) ** 2, abs=0.01)


@pytest.mark.parametrize("name", ["bert", "mtm", "maskdp", "hindsight"])
def test_a_mask_is_a_function_of_its_key(name):
    kinds = jnp.asarray(KINDS)
    make = {
        "bert": lambda key: masking.bert(key, (3, K, G), 0.5)[1],
        "mtm": lambda key: masking.mtm(key, K, kinds),
        "maskdp": lambda key: masking.maskdp(key, (3, K, G)),
        "hindsight": lambda key: masking.hindsight(key, 3, K, kinds, jnp.float32(0.6)),
    }[name]
    first, again = (np.asarray(make(jax.random.key(3))) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    others = [np.asarray(make(jax.random.key(s))) for s in range(4, 8)]
    assert any((x != first).any() for x in others)
