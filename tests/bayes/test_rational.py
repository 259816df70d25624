"""The choice between strategies: odds by hand, scalars recovered, ablations that cannot, splits."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxagent.bayes import rational
from jaxagent.bayes.rational import Logistic, Scalars

TRUE = Scalars(alpha=0.6, beta=0.4, gamma=2.5)
STEPS = np.geomspace(3, 60_000, 12)[:, None]  # [12, 1]
SIZES = np.array([4.0, 16.0, 64.0, 256.0])
BITS = np.stack([4096 + SIZES * 128, np.full(4, 4096.0)], axis=-1)[None]  # [1, 4, Q]
LOSSES = np.stack([[1.38, 1.4, 1.41, 1.42], np.full(4, 1.6)], axis=-1)[None]
POSITIONS, OUTCOMES = 6, 4
CELLS = (12, 4)


def predictions():
    """Log predictions of M and G, [1, sizes, Q, positions, K]."""
    generator = np.random.default_rng(0)
    return np.log(generator.dirichlet(np.ones(OUTCOMES), (1, 4, 2, POSITIONS)))


def weights_of(scalars, **flags):
    with jax.enable_x64(True):
        return np.asarray(rational.log_weights(scalars, STEPS, LOSSES, BITS, **flags))


def observed(log_weights):
    """Log predictions of a model that mixes by these weights, [cells, positions, K]."""
    with jax.enable_x64(True):
        return np.asarray(rational.mixture(jnp.asarray(log_weights), jnp.asarray(predictions())))


def kl_to(targets):
    return functools.partial(rational.mixture_kl, log_predictions=predictions(), log_targets=targets)


IS_FIT, IS_HELD_OUT = rational.corner_split(*CELLS)


def fitted(targets=None, seed=0, num_starts=8, **options):
    targets = observed(weights_of(TRUE)) if targets is None else targets
    return rational.fit(
        kl_to(targets),
        STEPS,
        LOSSES,
        BITS,
        IS_FIT,
        key=jax.random.key(seed),
        num_starts=num_starts,
        **options,
    )


def held_out(fit, targets, **flags):
    """Mean KL of the held-out cells."""
    with jax.enable_x64(True):
        cells = kl_to(targets)(jnp.asarray(weights_of(fit.scalars, **flags)))
    return float(np.asarray(cells)[IS_HELD_OUT].mean())


def test_log_weights_by_hand():
    log_weights = weights_of(TRUE)
    assert log_weights.shape == (*CELLS, 2)
    np.testing.assert_allclose(np.exp(log_weights).sum(axis=-1), 1.0, rtol=1e-12)
    for i, j in ((0, 0), (5, 2), (11, 3)):
        scores = [
            -math.log(2) * BITS[0, j, q] ** 0.4 - 2.5 * STEPS[i, 0] ** 0.4 * LOSSES[0, j, q] for q in (0, 1)
        ]
        odds = log_weights[i, j, 0] - log_weights[i, j, 1]
        np.testing.assert_allclose(odds, scores[0] - scores[1], rtol=1e-9)
    share = np.exp(log_weights[..., 0])
    assert share.min() < 0.1  # generalising first
    assert share.max() > 0.9  # memorising later
    assert (np.diff(share, axis=0) > -1e-12).all()
    loss_only, bits_only = weights_of(TRUE, has_complexity=False), weights_of(TRUE, has_loss=False)
    assert (loss_only[..., 0] > loss_only[..., 1]).all()
    assert (bits_only[..., 0] < bits_only[..., 1]).all()
    single = rational.log_weights(
        Scalars(0.5, 0.5, 1.0), jnp.array([3, 5]), jnp.ones((2, 3)), jnp.ones((2, 3))
    )
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(np.exp(single), 1 / 3, rtol=1e-6)


def test_the_mixture_and_its_kl_by_hand():
    log_weights, targets = weights_of(TRUE), observed(weights_of(TRUE))
    assert targets.shape == (*CELLS, POSITIONS, OUTCOMES)
    share, both = np.exp(log_weights), np.exp(predictions()[0])
    for i, j in ((0, 0), (7, 3)):
        expected = share[i, j, 0] * both[j, 0] + share[i, j, 1] * both[j, 1]
        np.testing.assert_allclose(np.exp(targets[i, j]), expected, rtol=1e-10)
    with jax.enable_x64(True):
        cells = kl_to(targets)(jnp.full((*CELLS, 2), math.log(0.5)))
    assert cells.shape == CELLS
    even = np.log(0.5 * both[3, 0] + 0.5 * both[3, 1])
    expected = (np.exp(targets[7, 3]) * (targets[7, 3] - even)).sum(axis=-1).mean()
    np.testing.assert_allclose(cells[7, 3], expected, rtol=1e-10)


@pytest.fixture(scope="module")
def full():
    with jax.numpy_dtype_promotion("strict"):
        return fitted()


def test_the_fit_recovers_the_scalars_that_made_the_predictions(full):
    assert full.loss < 1e-8
    np.testing.assert_allclose(full.scalars, TRUE, rtol=0.03)
    assert full.start_losses.shape == (8,)
    assert full.loss == full.start_losses.min()
    assert held_out(full, observed(weights_of(TRUE))) < 1e-6


def test_the_fit_survives_noise_in_the_predictions(full):
    targets = observed(weights_of(TRUE)).copy()
    targets += 0.1 * np.random.default_rng(1).normal(size=targets.shape)
    targets -= np.log(np.exp(targets).sum(axis=-1, keepdims=True))
    noisy = fitted(targets)
    np.testing.assert_allclose(noisy.scalars[:2], TRUE[:2], atol=0.1)
    assert abs(math.log(noisy.scalars.gamma / TRUE.gamma)) < 0.7


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ({"fixed": Scalars(0.0, None, None)}, {}),
        ({"fixed": Scalars(None, 1.0, None)}, {}),
        ({"fixed": Scalars(None, None, 1.0)}, {}),
        ({"has_complexity": False}, {"has_complexity": False}),
        ({"has_loss": False}, {"has_loss": False}),
    ],
    ids=["alpha 0", "beta 1", "gamma 1", "loss only", "complexity only"],
)
def test_ablations_cannot_explain_them(full, options, flags):
    ablated = fitted(num_starts=4, **options)
    for name, value in options.get("fixed", rational.FREE)._asdict().items():
        if value is not None:
            np.testing.assert_allclose(getattr(ablated.scalars, name), value, rtol=1e-9)
    targets = observed(weights_of(TRUE))
    print(ablated, held_out(ablated, targets, **flags))
    assert ablated.loss > full.loss + 1e-3
    assert held_out(ablated, targets, **flags) > held_out(full, targets) + 5e-4


def test_held_out_cells_do_not_touch_the_fit(full):
    targets = observed(weights_of(TRUE)).copy()
    targets[IS_HELD_OUT] = np.log(1 / OUTCOMES)
    again = fitted(targets)
    assert again.scalars == full.scalars


@pytest.mark.slow
def test_the_logistic_baseline_recovers_itself_and_extrapolates_worse(full):
    sizes = SIZES[None]
    with jax.enable_x64(True):
        true = Logistic(-3.0, 1.5, -1.0)
        own = np.asarray(rational.logistic_log_weights(true, jnp.asarray(STEPS), jnp.asarray(sizes)))
    odds = -3.0 + 1.5 * np.log(STEPS) - np.log(sizes)
    np.testing.assert_allclose(np.exp(own[..., 0]), 1 / (1 + np.exp(-odds)), rtol=1e-10)
    options = {"key": jax.random.key(0), "num_starts": 4}
    fit = rational.fit_logistic(kl_to(observed(own)), STEPS, sizes, IS_FIT, **options)
    np.testing.assert_allclose(fit.scalars, true, rtol=0.03)
    targets = observed(weights_of(TRUE))
    options["key"] = jax.random.key(1)
    other = rational.fit_logistic(kl_to(targets), STEPS, sizes, IS_FIT, **options)
    with jax.enable_x64(True):
        weights = rational.logistic_log_weights(other.scalars, jnp.asarray(STEPS), jnp.asarray(sizes))
        cells = np.asarray(kl_to(targets)(weights))
    print(other, cells[IS_HELD_OUT].mean())
    assert cells[IS_HELD_OUT].mean() > held_out(full, targets) + 5e-4


def test_fit_refuses_what_it_cannot_fit():
    key, loss = jax.random.key(0), kl_to(observed(weights_of(TRUE)))
    with pytest.raises(ValueError, match=r"expected steps >= 1, bits > 0, finite; fix"):
        rational.fit(loss, STEPS - 10, LOSSES, BITS, IS_FIT, key=key)
    with pytest.raises(ValueError, match=r"expected steps >= 1, bits > 0, finite; fix"):
        rational.fit(loss, STEPS, LOSSES, 0 * BITS, IS_FIT, key=key)
    with pytest.raises(ValueError, match=r"0 fit cells of \(12, 4\).*fix"):
        rational.fit(loss, STEPS, LOSSES, BITS, np.zeros(CELLS, bool), key=key)
    with pytest.raises(ValueError, match=r"fit cells of \(4, 12\).*fix"):
        rational.fit(loss, STEPS, LOSSES, BITS, IS_FIT.T, key=key)
    nan = observed(weights_of(TRUE)) * np.nan
    with pytest.raises(ValueError, match=r"got the losses \[nan nan\].*fix"):
        rational.fit(kl_to(nan), STEPS, LOSSES, BITS, IS_FIT, key=key, num_starts=2)


def test_the_transition_is_where_the_weights_cross():
    losses, bits = LOSSES[0], BITS[0]
    steps = rational.transition_step(TRUE, losses[:, 0], losses[:, 1], bits[:, 0], bits[:, 1])
    assert (np.diff(steps) > 0).all()
    with jax.enable_x64(True):
        log_weights = rational.log_weights(TRUE, steps, losses, bits)
    np.testing.assert_allclose(np.exp(log_weights), 0.5, rtol=1e-8)
    never = rational.transition_step(TRUE, 1.6, 1.5, 9000.0, 4096.0)
    at_once = rational.transition_step(TRUE, 1.2, 1.5, 4096.0, 4096.0)
    assert never == np.inf
    assert at_once == 0.0


def test_the_corner_split_never_overlaps_and_holds_out_the_largest_size():
    for shape in itertools.product([2, 3, 5, 10, 100], [2, 4, 5, 9, 12]):
        for fraction in (0.5, 0.8, 0.99):
            is_fit, is_held_out = rational.corner_split(*shape, fraction)
            assert is_fit.shape == is_held_out.shape == shape
            assert not (is_fit & is_held_out).any()
            assert (is_fit | is_held_out).all()
            assert is_fit[0, 0]
            assert is_held_out[:, -1].all()
            assert is_held_out[-1].all()


def test_the_split_of_the_paper_and_splits_that_are_none():
    is_fit, _ = rational.corner_split(10, 4)
    np.testing.assert_array_equal(np.argwhere(is_fit).max(axis=0), [7, 2])
    for arguments in ((1, 4), (10, 1), (10, 4, 0.1)):
        with pytest.raises(ValueError, match=r"split: got 0 fit and .*; fix"):
            rational.corner_split(*arguments)
    with pytest.raises(ValueError, match="1 of them both"):
        rational.check_split([True, True, False], [False, True, True])
    with pytest.raises(ValueError, match="0 held-out"):
        rational.check_split([True], [False])


@pytest.mark.slow
def test_a_table_of_weights_says_what_mixing_says():
    """Interpolated KL against mixing anew, at weights between the points of the grid."""
    rng = np.random.default_rng(0)
    predictions = np.log(rng.dirichlet(np.ones(4), size=(3, 2, 6)))  # [cells, Q, positions, K]
    targets = np.log(rng.dirichlet(np.ones(4), size=(3, 6)))

    def of_mixture(log_weights):
        weights = jnp.broadcast_to(log_weights, (3, 2))
        return rational.mixture_kl(weights, predictions, targets)

    def of_logit(logit):
        return jnp.stack([jax.nn.log_sigmoid(logit), jax.nn.log_sigmoid(-logit)])

    mixed = jax.jit(lambda logit: of_mixture(of_logit(logit)))
    grid = jnp.asarray(rational.GRID, jnp.float32)
    table = np.stack([np.asarray(mixed(point)) for point in grid], axis=-1)
    for logit in (-13.9, -2.03, 0.07, 5.51):
        weights = of_logit(jnp.float32(logit))
        want = of_mixture(weights)
        got = rational.interpolate(table, jnp.broadcast_to(weights, (3, 2)))
        np.testing.assert_allclose(got, want, rtol=2e-3, atol=1e-4)
    # Beyond the grid it stays at its end.
    far = jnp.broadcast_to(jnp.array([0.0, -90.0]), (3, 2))
    np.testing.assert_allclose(rational.interpolate(table, far), table[:, -1], rtol=1e-6)
