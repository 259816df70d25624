"""Collapse: numbers of latents whose answer is known, and the alarms that follow."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxagent.evaluate import collapse

N, D = 2048, 32


def normal(seed=0, shape=(N, D)):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def diagnosed(latent, predicted=None, other=None, later=None):
    later = normal(5) if later is None else later
    predicted = later if predicted is None else predicted
    other = normal(6) if other is None else other
    return collapse.diagnose(latent, latent, predicted, other, later)


@pytest.mark.parametrize("rank", [1, 4, 32])
def test_rank_of_latents_in_a_subspace(rank):
    """Orthonormal directions of equal size: the effective rank is their number."""
    basis, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(D, D)))
    latent = normal(shape=(N, rank)) @ jnp.asarray(basis[:rank], jnp.float32)
    assert collapse.effective_rank(latent) == pytest.approx(rank, rel=0.02)
    assert collapse.srank(latent) == rank


def test_an_offset_is_no_dimension():
    latent = normal(shape=(N, 1)) * jnp.ones((1, D)) + 100.0 * normal(1, (1, D))
    assert collapse.effective_rank(latent) < 1.1


def test_srank_of_a_known_spectrum():
    """Singular values in the ratio 90 : 9 : 0.9 : 0.1: the first two have 0.99 of their sum."""
    latent, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(N, 5)))
    latent = latent - latent.mean(0)
    left, _, right = np.linalg.svd(latent[:, :4], full_matrices=False)
    latent = left @ np.diag([89.9, 9.2, 0.8, 0.1]) @ right
    assert collapse.srank(jnp.asarray(latent, jnp.float32)) == 2


def test_isotropic_latents_have_spread_one_and_no_cosine():
    assert collapse.spread(normal()) == pytest.approx(1.0, abs=0.02)
    assert collapse.mean_cosine(normal()) == pytest.approx(0.0, abs=0.005)


def test_mean_cosine_equals_the_mean_over_pairs():
    latent = normal(shape=(40, 3)) + 0.5
    unit = np.asarray(latent) / np.linalg.norm(latent, axis=1, keepdims=True)
    pairs = (unit @ unit.T)[~np.eye(40, dtype=bool)]
    assert collapse.mean_cosine(latent) == pytest.approx(pairs.mean(), abs=1e-5)


def test_a_constant_latent_trips_every_alarm_of_collapse():
    found = diagnosed(jnp.ones((N, D)) + 1e-4 * normal())
    assert {"spread", "mean_cosine"} <= set(collapse.alarms(found))
    exactly = diagnosed(jnp.ones((N, D)))
    assert {"effective_rank", "spread", "mean_cosine"} <= set(collapse.alarms(exactly))


def test_sound_predictions_raise_no_alarm():
    later = normal(5)
    found = diagnosed(normal(), predicted=later + 0.3 * normal(7), later=later)
    assert collapse.alarms(found) == {}
    assert found.retrieval > 0.99
    assert found.copy_ratio < 0.1
    assert found.action_sensitivity > 10


def test_standing_still_and_ignoring_actions_are_named():
    latent = normal()
    later = latent + 0.1 * normal(5)
    found = diagnosed(latent, predicted=latent, other=latent, later=later)
    assert float(found.copy_ratio) == pytest.approx(1.0, rel=1e-3)
    assert set(collapse.alarms(found)) == {"copy_ratio", "action_sensitivity"}
    assert "no better than that nothing changes" in collapse.alarms(found)["copy_ratio"]


def test_what_is_no_number_is_an_alarm():
    assert "spread" in collapse.alarms(diagnosed(jnp.full((N, D), jnp.nan)))


def test_retrieval_is_at_chance_for_unrelated_predictions_and_forgives_equal_futures():
    assert collapse.retrieval(normal(0), normal(1)) < 10 / N
    same = jnp.concatenate([normal(0), normal(0)])
    assert collapse.retrieval(same, same) == 1.0


def test_silent_units_are_counted():
    latent = normal().at[:, :8].set(3.0)
    assert collapse.dormant(latent) == pytest.approx(0.25)


def test_the_probe_finds_what_is_linear_and_not_what_is_noise():
    latent = normal()
    truth = jnp.stack([latent @ normal(1, (D,)), normal(2, (N,)), jnp.ones((N,))], axis=1)
    found = collapse.linear_probe(latent, truth)
    assert found[0] > 0.999
    assert -0.2 < found[1] < 0.02  # held out: fitted noise is worse than the mean
    assert found[2] == 0.0


def test_the_probe_agrees_with_scikit_like_ridge_in_float64():
    latent, truth = np.asarray(normal(), float), np.asarray(normal(3, (N, 2)), float)
    truth = truth + latent[:, :2]
    half, x = N // 2, (latent - latent[: N // 2].mean(0)) / latent[: N // 2].std(0)
    y = truth - truth[:half].mean(0)
    weight = np.linalg.solve(x[:half].T @ x[:half] + 1e-3 * half * np.eye(D), x[:half].T @ y[:half])
    expected = 1 - ((y[half:] - x[half:] @ weight) ** 2).sum(0) / (y[half:] ** 2).sum(0)
    found = collapse.linear_probe(jnp.asarray(latent, jnp.float32), jnp.asarray(truth, jnp.float32))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_unit_that_wakes_in_the_second_half_does_not_spoil_the_probe():
    latent = normal().at[: N // 2, 0].multiply(1e-6)
    truth = latent[:, 1:] @ normal(1, (D - 1, 1))
    assert collapse.linear_probe(latent, truth)[0] > 0.99


def test_the_best_probe_is_that_of_the_penalty_that_a_quarter_of_its_own_chooses():
    rng = np.random.default_rng(4)
    latent = jnp.asarray(rng.normal(size=(N, D)), jnp.float32)
    truth = latent[:, :2] + jnp.asarray(rng.normal(size=(N, 2)), jnp.float32)
    ridges = (1e-3, 1e3)
    half, judged = N // 2, 3 * N // 4

    def scores(ridge, rows):
        fitted = np.concatenate([latent[:half], latent[rows]]), np.concatenate([truth[:half], truth[rows]])
        x = (fitted[0] - fitted[0][:half].mean(0)) / fitted[0][:half].std(0)
        y = fitted[1] - fitted[1][:half].mean(0)
        gram = x[:half].T @ x[:half] + ridge * half * np.eye(D)
        left = y[half:] - x[half:] @ np.linalg.solve(gram, x[:half].T @ y[:half])
        return 1 - (left**2).sum(0) / (y[half:] ** 2).sum(0)

    chosen = max(ridges, key=lambda r: scores(r, slice(half, judged)).mean())
    found = collapse.best_linear_probe(latent, truth, ridges)
    np.testing.assert_allclose(found, scores(chosen, slice(judged, None)), atol=1e-4)
    assert scores(1e-3, slice(half, judged)).mean() != scores(1e3, slice(half, judged)).mean()


def test_the_best_probe_of_many_inputs_and_few_rows_shrinks_them():
    wide = jnp.asarray(np.random.default_rng(5).normal(size=(80, 60)), jnp.float32)
    truth = wide[:, :1] + jnp.asarray(np.random.default_rng(6).normal(size=(80, 1)), jnp.float32)
    assert collapse.best_linear_probe(wide, truth)[0] > collapse.best_linear_probe(wide, truth, (1e-4,))[0]
