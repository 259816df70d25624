"""In-context parts: what the model reads is what the exact predictors are told, and no more."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.icl_bma import config as icl_bma
from experiments.icl_bma import measure
from experiments.icl_rational import config as icl_rational
from experiments.icl_rational import theory
from jaxagent.bayes import distance, rational
from jaxagent.config import TransformerConfig, check
from jaxagent.data import prompts
from jaxagent.evaluate import statistics
from jaxagent.study import in_context
from jaxagent.study.verdicts import of_seeds
from jaxagent.tokens import stream

MODEL = TransformerConfig(width=8, num_layers=1, num_heads=2, mlp_factor=1, context=6)


@functools.cache
def settings():
    return {"urn": in_context.urns(4, 6, MODEL), "mdp": in_context.walks(3, 2, 6, MODEL)}


def drawn(name, num=5):
    setting = settings()[name]
    stack = prompts.dirichlet_tables(jax.random.key(0), num, setting.num_contexts, setting.num_outcomes, 0.5)
    return setting, setting.draw(jax.random.split(jax.random.key(1), num), stack)


@pytest.mark.slow
def test_an_urn_is_read_from_a_start_token_one_outcome_late():
    setting, prompt = drawn("urn")
    value = np.asarray(prompt.tokens.value)
    assert (value[:, 0] == setting.num_outcomes).all()
    np.testing.assert_array_equal(value[:, 1:], prompt.rows.outcome[:, :-1])
    assert value.shape == (5, setting.tokens_per_prompt)


@pytest.mark.slow
def test_a_walk_is_read_as_state_action_next_state():
    setting, prompt = drawn("mdp")
    state, action, outcome = np.moveaxis(np.asarray(prompt.tokens.value).reshape(5, 6, 3), -1, 0)
    np.testing.assert_array_equal(state * 2 + action, prompt.rows.context)
    np.testing.assert_array_equal(outcome, prompt.rows.outcome)
    np.testing.assert_array_equal(state[:, 1:], outcome[:, :-1])
    np.testing.assert_array_equal(prompt.tokens.time, np.repeat(np.arange(6), 3))
    assert set(np.asarray(prompt.tokens.kind)) == {stream.OBS, stream.ACTION}
    assert setting.tokens_per_prompt == 18


@pytest.mark.slow
@pytest.mark.parametrize("name", ["urn", "mdp"])
def test_a_prediction_sees_what_came_before_it_and_its_context_only(name):
    setting, prompt = drawn(name)
    params = jax.jit(setting.init)(jax.random.key(2))
    params = jax.tree.map(lambda x: 3.0 * x, params)
    predict = jax.jit(setting.predict)
    before = predict(params, prompt)
    np.testing.assert_allclose(np.exp(before).sum(-1), 1.0, rtol=1e-5)
    period = setting.tokens_per_prompt // 6
    for t in range(6):
        # The outcome of step t is written at the end of its group, or as the next urn token.
        place = t * period + (2 if name == "mdp" else 1)
        if place >= setting.tokens_per_prompt:
            continue
        value = prompt.tokens.value.at[:, place].set((prompt.tokens.value[:, place] + 1) % 3)
        after = predict(params, prompt._replace(tokens=prompt.tokens._replace(value=value)))
        np.testing.assert_allclose(after[:, : t + 1], before[:, : t + 1], atol=1e-6)
        if t < 5:
            assert np.abs(after[:, t + 1 :] - before[:, t + 1 :]).max() > 1e-4


@pytest.mark.slow
def test_the_loss_is_the_log_loss_of_the_outcomes():
    setting, prompt = drawn("mdp")
    params = jax.jit(setting.init)(jax.random.key(2))
    log_probs = np.asarray(setting.predict(params, prompt))
    index = np.asarray(prompt.rows.outcome)[..., None]
    want = -np.take_along_axis(log_probs, index, -1).mean()
    np.testing.assert_allclose(setting.loss(params, prompt), want, rtol=1e-5)


@functools.cache
def task(kind, **changes):
    config = icl_bma.SMOKE
    changed = dataclasses.replace(config.prompts, task=kind, num_steps=16, **changes)
    config = dataclasses.replace(config, prompts=changed)
    return measure.task_of(config, 1)


@pytest.mark.slow
def test_a_saboteurs_steps_have_the_marginals_of_the_pool_and_share_no_task():
    """Given the context, its outcomes are those of the average table, whatever came before."""
    pool_task = task("pool", num_tasks=2, num_states=2, num_actions=1, alpha=0.1)
    pool = measure.pool_of(pool_task, 3)
    draw = jax.jit(pool_task.draw, static_argnums=(2, 3))
    intact, broken = (draw(jax.random.key(0), pool, 4000, is_broken) for is_broken in (False, True))
    mean = np.asarray(pool.tables).mean(0)

    def frequency(prompt, mask):
        context, outcome = np.asarray(prompt.rows.context), np.asarray(prompt.rows.outcome)
        return np.array([outcome[mask & (context == c)].mean() for c in (0, 1)])

    everything = np.ones(broken.rows.context.shape, bool)
    np.testing.assert_allclose(frequency(broken, everything), mean[:, 1], atol=0.02)

    def dependence(prompt):
        """How much the first outcome in context 0 says about a later one in context 0."""
        context, outcome = np.asarray(prompt.rows.context), np.asarray(prompt.rows.outcome)
        first = np.where(context[:, 0] == 0, outcome[:, 0], -1)
        late = context[:, 8] == 0
        rates = [outcome[late & (first == k), 8].mean() for k in (0, 1)]
        return abs(rates[1] - rates[0])

    assert dependence(intact) > 0.1
    assert dependence(broken) < 0.1


@pytest.mark.fast("linear")
@pytest.mark.parametrize("kind", ["pool", "fresh", "linear"])
def test_exact_bayes_is_nearest_to_itself_and_loses_least(kind):
    """Of all references, on average, the exact one predicts the outcomes best."""
    t = task(kind)
    pool = measure.pool_of(t, 0)
    prompt = jax.jit(t.draw, static_argnums=2)(jax.random.key(0), pool, 2000)
    references = jax.jit(t.references)(jax.random.key(1), pool, prompt)
    exact = references[measure.EXACT]
    np.testing.assert_allclose(t.gap(exact, exact), 0.0, atol=1e-6)

    def loss(prediction):
        if kind == "linear":
            return float(np.square(prediction - prompt.y)[:, 2:].mean())
        index = np.asarray(prompt.rows.outcome)[..., None]
        return float(-np.take_along_axis(np.asarray(prediction), index, -1)[:, 2:].mean())

    losses = {name: loss(r) for name, r in references.items() if name != "true task"}
    assert min(losses, key=losses.get) == measure.EXACT


# --- the rational model's bookkeeping -------------------------------------------------------------


@pytest.mark.slow
def test_pools_of_several_sizes_share_their_first_tasks():
    config = icl_rational.SMOKE
    setting = theory.setting_of(config, 1)
    pools = theory.pools(config, setting, 5)
    tables = np.asarray(pools.tables)
    np.testing.assert_array_equal(tables[0], tables[-1])
    np.testing.assert_array_equal(np.isfinite(pools.log_prior).sum(1), np.array(config.prompts.sizes))


def test_kl_of_pairs_is_the_kl_of_each_pair():
    rng = np.random.default_rng(0)
    predictions = np.log(rng.dirichlet(np.ones(3), size=(4, 2, 5, 6))).astype(np.float32)
    mixtures = np.log(rng.dirichlet(np.ones(3), size=(7, 2, 5, 6))).astype(np.float32)
    got = distance.kl_of_pairs(jnp.asarray(predictions), jnp.asarray(mixtures))
    for m in range(4):
        for g in range(7):
            gap = (np.exp(predictions[m]) * (predictions[m] - mixtures[g])).sum(-1).mean((1, 2))
            np.testing.assert_allclose(got[m, :, g], gap, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_models_that_are_mixtures_are_placed_and_predicted_exactly():
    """Cells made by known scalars: the fit recovers the weights, the saboteur does not."""
    config = icl_rational.CPU
    num_checkpoints, num_sizes = len(theory.steps_of(config)), 4
    rng = np.random.default_rng(0)
    predictions = np.log(rng.dirichlet(np.ones(4), size=(num_sizes, 2, 40)))  # [S, 2, P, K]
    losses = np.stack([[1.5, 1.6, 1.7, 1.78], [1.82, 1.82, 1.82, 1.82]], -1)
    bits = np.array([[4096.0 + 100 * d, 4096.0] for d in config.prompts.sizes])
    truth = rational.Scalars(0.4, 0.5, 0.8)
    steps = theory.steps_of(config)[:, None]
    with jax.enable_x64(True):
        weights = np.exp(rational.log_weights(truth, steps, losses[None], bits[None]))
    mixed = np.log((weights[..., None, None] * np.exp(predictions)[None]).sum(2))  # [M, S, P, K]
    grid = 1 / (1 + np.exp(-rational.GRID))
    mixtures = np.log(
        grid[:, None, None, None] * np.exp(predictions[:, 0])
        + (1 - grid)[:, None, None, None] * np.exp(predictions[:, 1])
    )
    kl = distance.kl_of_pairs(
        jnp.asarray(mixed[:, :, None], jnp.float32), jnp.asarray(mixtures[:, :, None], jnp.float32)
    )
    place = 2 * weights[..., 0] - 1  # as if distances were linear in the weight
    found = theory.Cells(
        relative=dict.fromkeys(("pool", "new"), place),
        relative_of=dict.fromkeys(("pool", "new"), np.broadcast_to(2 * grid - 1, (4, grid.size))),
        kl={"pool": np.asarray(kl, np.float64)},
        gap=dict.fromkeys(("pool", "new"), np.ones(4)),
        losses=dict.fromkeys(("pool", "new"), losses),
        bits=bits,
    )
    row = theory.judge_seed(config, found, jax.random.key(0))
    assert row["correlation"]["pool"] > 0.99
    assert row["kl"]["model"] < 0.003
    for rival in ("loss only", "complexity only", "logistic", "permuted"):
        assert row["kl"][rival] > 2 * row["kl"]["model"], rival
    assert row["cells"]["fit"] + row["cells"]["held out"] == num_checkpoints * num_sizes


def test_a_transition_is_the_first_checkpoint_after_which_memorising_stays_ahead():
    config = icl_rational.CPU
    num = len(theory.steps_of(config))
    relative = np.full((num, 4), -0.5)
    relative[:, 0] = 0.5  # from the first on
    relative[10:, 1] = 0.5
    relative[5:7, 2] = 0.5  # for a while only
    found = theory.Cells({"pool": relative}, {}, {}, {}, {}, np.zeros(()))
    says = theory.Prediction((), np.where(relative > 0, 1.0, -1.0), np.zeros(()))
    observed = theory.transitions(config, found, says)["observed"]
    assert observed == [50.0, 550.0, None, None]


def test_between_begins_where_a_model_comes_near_the_mixtures():
    kl = np.zeros((5, 1, 3))
    kl[:, 0, :] = np.array([1.0, 0.5, 0.15, 0.3, 0.05])[:, None]
    np.testing.assert_array_equal(theory.between(kl, 0.2)[:, 0], [False, False, True, True, True])


def test_scores_of_seeds_are_what_every_row_holds_at_a_path():
    rows = [{"regret": {"T": [1.0, 2.0]}}, {"regret": {"T": [3.0, 4.0]}}]
    np.testing.assert_array_equal(of_seeds(rows, "regret", "T", -1), [[2.0, 4.0]])
    np.testing.assert_array_equal(of_seeds([5.0, 6.0]), [[5.0, 6.0]])


def test_a_correlation_of_what_does_not_vary_is_none():
    x = np.arange(4.0)
    assert statistics.correlation(x, 1.0 - 2.0 * x) == pytest.approx(-1.0)
    assert statistics.correlation(x, np.ones(4)) == statistics.correlation(x[:2], x[:2]) == 0.0


# --- configurations -------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [icl_bma, icl_rational])
def test_every_preset_is_legal_and_its_models_build(module):
    for preset in module.PRESETS.values():
        check(preset)
        if module is icl_bma:
            built = [measure.task_of(preset, d).setting for d in preset.depths]
        else:
            built = [theory.setting_of(preset, f) for f in preset.mlp_factors]
        for setting in built:
            shapes = jax.eval_shape(setting.init, jax.random.key(0))
            assert sum(x.size for x in jax.tree.leaves(shapes)) < 10_000_000


@pytest.mark.parametrize(
    ("module", "changes", "message"),
    [
        (icl_bma, {"alpha": 0.0}, "PromptConfig.alpha: got 0.0, expected a number above 0"),
        (icl_bma, {"num_steps": 33}, "num_steps: got 33, expected at most 32, the positions"),
        (icl_bma, {"num_tasks": 10**9}, "num_tasks, bytes: got .*, expected at most .* memory"),
        (icl_rational, {"alpha": -1.0}, "PromptConfig.alpha: got -1.0"),
        (icl_rational, {"num_steps": 33}, "num_steps: got 33, expected at most 32"),
        (icl_rational, {"sizes": (4, 4)}, r"sizes: got \(4, 4\), expected at least two rising"),
        (icl_rational, {"sizes": (4, 10**9)}, "sizes, bytes: got .*, expected at most .* memory"),
    ],
)
def test_bad_prompts_are_refused_before_anything_runs(module, changes, message):
    config = dataclasses.replace(module.CPU, prompts=dataclasses.replace(module.CPU.prompts, **changes))
    with pytest.raises(ValueError, match=message):
        check(config)
