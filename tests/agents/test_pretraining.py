"""Pretraining objectives: who sees what, what is scored, who learns, at any granularity."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxagent.agents import pretraining
from jaxagent.agents.pretraining import OBJECTIVES, PretrainParams, bert_at
from jaxagent.config import TokenConfig, TransformerConfig
from jaxagent.data.sampler import Batch
from jaxagent.nn import sequence_model
from jaxagent.tokens import stream
from jaxagent.tokens.component import Domain
from kernels.attention.masks import table

CONFIG = TransformerConfig(width=8, num_layers=2, num_heads=2, mlp_factor=2, context=3)
DOMAINS = (Domain(3, 2, 0, 0, 0), Domain(2, 1, 0, 1, 5))
n, m, P, K, V = 3, 2, 5, 3, 8  # observation, action, both, steps, bins of the first domain
B = 1 + K * P  # a window and its changes, one a scalar
IS_ACTION = np.arange(P) >= n
KINDS = [(g, v) for g in ("component", "modality") for v in ("bins", "two_hot", "reals")]
FAST = (("component", "bins"),)  # the other kinds are in the slow tier


def of_kinds(kinds):
    """Parametrize over kinds, most of them slow."""
    values = [k if k in FAST else pytest.param(k, marks=pytest.mark.slow) for k in kinds]
    return pytest.mark.parametrize("kind", values, ids="-".join)


OF_ALL_KINDS = of_kinds(KINDS)
OF_ALL_OBJECTIVES = pytest.mark.parametrize("name", OBJECTIVES)
LATENT = ("spr", "spr_tokens")  # the two kinds of latent heads
MASKED = ("bert", "mtm", "smart", "maskdp")
KEY = functools.partial(jax.random.key, 4)


@functools.cache
def build(kind, dtype="float32"):
    granularity, values = kind
    tokens = TokenConfig(num_bins=V, granularity=granularity, values=values)
    model = sequence_model.model(dataclasses.replace(CONFIG, dtype=dtype), tokens, DOMAINS)
    return model._replace(  # jitted, so that six objectives trace them once
        encode=jax.jit(model.encode, static_argnums=(1, 5), static_argnames="is_causal"),
        read=jax.jit(model.read, static_argnums=1),
    )


@functools.cache
def all_params(kind):
    """Two draws; larger than at first, so that attention is far from uniform and a slip shows."""

    def init(key):
        pairs = zip(LATENT, jax.random.split(key), strict=True)
        params = (pretraining.init(build(kind), OBJECTIVES[name], k) for name, k in pairs)
        return functools.reduce(lambda a, b: a._replace(latent=a.latent | b.latent), params)

    init = jax.jit(init)
    return [jax.tree.map(lambda x: 1.5 * x, init(jax.random.key(s))) for s in (0, 1)]


def first_params(name, kind, number):
    params = all_params(kind)[number]
    own = {"smart": ("heads", "predictor"), "spr": ("heads", "predictor")}.get(
        name, ("transition", "predictor") if OBJECTIVES[name].has_latent else ()
    )
    return params._replace(latent={part: params.latent[part] for part in own})


def windows(seed=0, is_real=None):
    """Windows of the first domain; places keep off the bins' edges and the outer half bins."""
    bins = np.random.default_rng(seed).integers(1, V - 1, (B, K, P))
    unit = (2.0 * bins + 1.2) / V - 1.0
    is_real = np.ones((B, K), bool) if is_real is None else is_real
    return Batch(jnp.asarray(unit, jnp.float32), jnp.asarray(is_real))


def moved(unit):
    """Places that are all elsewhere, by half of the range."""
    return jnp.where(unit > 0, unit - 1.0, unit + 1.0)


class Seen(NamedTuple):
    """What an objective does to windows; a list has an item a pass."""

    loss: Any
    metrics: Any
    gradient: Any  # of the parameters
    slow_gradient: Any  # of the slow ones
    predictions: list  # [B, K, P, ...]
    scored: list  # [B, K, P] bool: the loss depends on the prediction
    hidden: list  # [B, K, P] bool: the mask stands for it


@functools.partial(jax.jit, static_argnames=("name", "kind"))
def examine(name, kind, params, slow, batch, key, progress):
    model = build(kind)
    layout = model.layouts[0]

    def loss(params, slow, shifts):
        hidden, predictions = [], []

        def encode(params, layout, unit, attention, is_hidden=None, num_tokens=None, **options):
            if num_tokens is None:
                none = jnp.zeros((B, K, layout.num_tokens), bool)
                hidden.append(layout.per_scalar(none if is_hidden is None else is_hidden))
            return model.encode(params, layout, unit, attention, is_hidden, num_tokens, **options)

        def read(*args):
            predicted, shift = model.read(*args), shifts[len(predictions)]
            if kind[1] != "reals":  # of the first logit: all together would change nothing
                shift = shift[..., None] * jnp.eye(1, V)[None, None]
            predictions.append(predicted + shift)
            return predictions[-1]

        spied = model._replace(encode=encode, read=read)
        value, metrics = OBJECTIVES[name].loss(spied, params, slow, layout, batch, key, progress)
        return value, (metrics, predictions, hidden)

    shifts = jnp.zeros((3, B, K, P))
    (value, (metrics, predictions, hidden)), gradients = jax.value_and_grad(
        loss, argnums=(0, 1, 2), has_aux=True
    )(params, slow, shifts)
    gradient, slow_gradient, slope = gradients
    scored = [slope[i] != 0.0 for i in range(len(predictions))]
    return Seen(value, metrics, gradient, slow_gradient, predictions, scored, hidden)


def see(name, kind, batch=None, key=None, progress=0.5, params=None):
    params = first_params(name, kind, 0) if params is None else params
    seen = examine(
        name,
        kind,
        params,
        first_params(name, kind, 1),
        windows() if batch is None else batch,
        KEY() if key is None else key,
        jnp.float32(progress),
    )
    return jax.device_get(seen)


# --- who sees what --------------------------------------------------------------------------------


def dependence(name, kind, number):
    """Whether prediction i of a pass depends on scalar j, bool `[K P, K P]`."""
    base = windows().unit[0]
    alone = np.eye(K * P, dtype=bool).reshape(-1, K, P)
    changed = jnp.where(alone, moved(base)[None], base[None])
    batch = windows()._replace(unit=jnp.concatenate([base[None], changed]))
    out = see(name, kind, batch).predictions[number].reshape(B, K * P, -1)
    return (np.abs(out[1:] - out[:1]).max(-1) > 1e-5).T


def token_order(kind):
    """Place in the stream of the token of each scalar, `[K P]`."""
    if kind[0] == "component":
        return np.arange(K * P)
    return (2 * np.arange(K)[:, None] + IS_ACTION[None]).ravel()


@OF_ALL_KINDS
def test_a_next_token_depends_on_exactly_the_tokens_before_it(kind):
    order = token_order(kind)
    expected = order[None] < order[:, None]
    np.testing.assert_array_equal(dependence("gpt", kind, 0), expected)


@pytest.mark.slow
@of_kinds([k for k in KINDS if k[1] != "bins"])
def test_the_loss_of_a_token_has_no_gradient_after_it(kind):
    """Exactly zero, where a gradient exists; bins are steps, the test above moves them."""
    model, params = build(kind), first_params("gpt", kind, 0)

    def losses(unit):
        batch = Batch(unit[None], jnp.ones((1, K), bool))
        predicted, _, _ = pretraining.predict_next(model, params.model, model.layouts[0], batch)
        return pretraining.scalar_loss(predicted[0], unit, kind[1]).ravel()

    slope = np.asarray(jax.jit(jax.jacrev(losses))(windows().unit[0])).reshape(K * P, K * P)
    order = token_order(kind)
    np.testing.assert_array_equal(slope[order[None] > order[:, None]], 0.0)
    assert (slope[order[None] < order[:, None]] != 0.0).all()


@pytest.mark.slow
@OF_ALL_KINDS
def test_an_inverse_action_depends_on_exactly_the_states_around_it(kind):
    time, is_action = np.repeat(np.arange(K), P), np.tile(IS_ACTION, K)
    ahead = time[None] - time[:, None]
    expected = ~is_action[None] & ((ahead == 0) | (ahead == 1))
    found = dependence("smart", kind, 1)
    np.testing.assert_array_equal(found[is_action], expected[is_action])


@pytest.mark.slow
@pytest.mark.parametrize("name", MASKED)
@OF_ALL_KINDS
def test_the_values_of_hidden_tokens_are_invisible(name, kind):
    """To all predictions of all passes; those of visible tokens are not."""
    seen = see(name, kind)
    tested = 0
    for number, hidden in enumerate(seen.hidden):
        if not hidden.any():
            continue
        tested += 1
        # In one window: BERT shows values to other windows, in place of theirs.
        is_first = np.arange(B)[:, None, None] == 0
        for where, is_seen in ((hidden & is_first, False), (~hidden & is_first, True)):
            changed = jnp.where(where, moved(windows().unit), windows().unit)
            after = see(name, kind, windows()._replace(unit=changed))
            gap = np.abs(after.predictions[number] - seen.predictions[number])[0].max()
            assert (gap > 1e-3) if is_seen else (gap == 0.0), (number, gap)
    assert tested == (2 if name == "smart" else 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mtm", "maskdp"])
@OF_ALL_KINDS
def test_an_autoencoder_looks_at_what_is_kept_alone(name, kind):
    """The mask vector reaches the tokens that it stands for and no other."""
    params = first_params(name, kind, 0)
    model = {**params.model, "mask": -params.model["mask"]}
    before, after = see(name, kind), see(name, kind, params=params._replace(model=model))
    gap = np.abs(after.predictions[0] - before.predictions[0]).reshape(B, K, P, -1).max(-1)
    hidden = before.hidden[0]
    assert (gap[hidden] > 1e-6).all()
    np.testing.assert_array_equal(gap[~hidden], 0.0)


@pytest.mark.slow
def test_bert_shows_another_value_in_place_of_one_in_ten_and_its_own_for_another():
    """Of the tokens that are scored and not hidden, the swapped do not see their own value."""
    kind = ("component", "reals")
    sees_itself = []
    for seed in range(20):
        seen = see("bert", kind, key=jax.random.key(seed))
        shown = seen.scored[0] & ~seen.hidden[0]
        for place in np.argwhere(shown[0]):
            unit = windows().unit.at[0, place[0], place[1]].add(0.4)
            after = see("bert", kind, windows()._replace(unit=unit), jax.random.key(seed))
            gap = np.abs(after.predictions[0] - seen.predictions[0])[0].max()
            sees_itself.append(gap > 0.0)
    assert 0.2 < np.mean(sees_itself) < 0.8, sees_itself


# --- what is scored -------------------------------------------------------------------------------


def real_part():
    """Windows of every length."""
    return np.arange(K)[None] <= np.arange(B)[:, None] % K


@OF_ALL_KINDS
def test_the_first_token_is_no_target_of_the_next_token_loss(kind):
    has_past = (token_order(kind) > 0).reshape(1, K, P)
    for real in (np.ones((B, K), bool), real_part()):
        seen = see("gpt", kind, windows(is_real=real))
        np.testing.assert_array_equal(seen.scored[0], has_past & real[..., None])
        assert not seen.hidden[0].any()


@pytest.mark.slow
@OF_ALL_KINDS
def test_bert_scores_what_it_chose_and_hides_most_of_it(kind):
    chosen, hidden = 0, 0
    for seed in range(8):
        seen = see("bert", kind, windows(is_real=real_part()), jax.random.key(seed))
        real = np.broadcast_to(real_part()[..., None], (B, K, P))
        assert not (seen.hidden[0] & real & ~seen.scored[0]).any()
        assert not seen.scored[0][~real].any()
        chosen, hidden = chosen + seen.scored[0].sum(), hidden + (seen.hidden[0] & real).sum()
    assert chosen / (8 * real.sum()) == pytest.approx(pretraining.BERT_RATE, abs=0.05)
    assert hidden / chosen == pytest.approx(0.8, abs=0.12)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mtm", "maskdp"])
@OF_ALL_KINDS
def test_an_autoencoder_scores_every_token(name, kind):
    seen = see(name, kind, windows(is_real=real_part()))
    np.testing.assert_array_equal(seen.scored[0], np.broadcast_to(real_part()[..., None], (B, K, P)))
    assert 0 < seen.hidden[0].mean() < 1


@pytest.mark.slow
@OF_ALL_KINDS
def test_smart_scores_actions_with_a_next_state_and_hidden_actions(kind):
    real = real_part()
    seen = see("smart", kind, windows(is_real=real))
    assert not seen.scored[0].any()  # the causal pass is read for its states alone
    has_next = np.pad(real[:, 1:], ((0, 0), (0, 1)))
    np.testing.assert_array_equal(seen.scored[1], has_next[..., None] & IS_ACTION[None, None])
    np.testing.assert_array_equal(seen.hidden[1], np.broadcast_to(IS_ACTION, (B, K, P)))
    expected = seen.hidden[2] & real[..., None] & IS_ACTION[None, None]
    np.testing.assert_array_equal(seen.scored[2], expected)
    assert seen.hidden[2][..., ~IS_ACTION].any()  # states too, unscored


@pytest.mark.slow
@pytest.mark.parametrize("name", OBJECTIVES)
@OF_ALL_KINDS
def test_steps_that_do_not_exist_never_matter(name, kind):
    unit, real = windows().unit, real_part()
    changed = jnp.where(real[..., None], unit, moved(unit))
    for seed in range(6 if name == "bert" else 1):  # other windows lend it their values, rarely
        key = functools.partial(jax.random.key, seed)
        before = see(name, kind, windows(is_real=real), key())
        after = see(name, kind, Batch(changed, jnp.asarray(real)), key())
        np.testing.assert_allclose(after.loss, before.loss, rtol=1e-6)
        pairs = zip(*(jax.tree.leaves(x.gradient) for x in (after, before)), strict=True)
        for x, y in pairs:
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)
    # As steps that do exist, they do.
    assert see(name, kind, windows()._replace(unit=changed)).loss != see(name, kind).loss


# --- who learns -----------------------------------------------------------------------------------


def silent(name):
    """Parameters without a gradient: of the other domain, and of what the objective never does."""
    found = {f"stem/{part}_1" for part in ("obs", "action")}
    found |= {f"head/{part}_1" for part in ("obs", "action")}
    found |= {"heads/action_1", "transition/action_1"}
    if name in ("gpt", "spr", "spr_tokens", "spr_token"):
        found |= {"mask"}
    if name == "smart":
        found |= {"head/obs_0", "predictor"}  # it predicts actions; the predictor is SPR's
    return found


@pytest.mark.slow
@OF_ALL_OBJECTIVES
@OF_ALL_KINDS
def test_losses_and_gradients_are_finite_and_all_learns_that_should(name, kind):
    all_seen = [see(name, kind, key=jax.random.key(seed)) for seed in range(3)]
    for seen in all_seen:
        assert np.isfinite(seen.loss)
        assert seen.loss > 0
        for slope in jax.tree.leaves(seen.slow_gradient):
            np.testing.assert_array_equal(slope, 0.0)
    # Under some key: MTM may hide all of a kind.
    slopes = jax.tree.map(lambda *x: np.stack(x), *[seen.gradient for seen in all_seen])
    for path, slope in jax.tree.leaves_with_path(slopes):
        where = jax.tree_util.keystr(path, simple=True, separator="/")
        assert np.isfinite(slope).all(), where
        is_silent = any(f"/{part}/" in f"/{where}/" for part in silent(name))
        assert (slope != 0).any() != is_silent, where


@pytest.mark.fast("gpt", "bert", "spr")
@OF_ALL_OBJECTIVES
def test_a_loss_is_a_function_of_its_key(name):
    kind = ("component", "bins")
    losses = [see(name, kind, key=jax.random.key(s)).loss for s in (0, 0, 1, 2)]
    assert losses[0] == losses[1]
    assert (len(set(map(float, losses))) > 1) == (name in MASKED)


@pytest.mark.slow
@OF_ALL_OBJECTIVES
def test_only_smart_has_a_curriculum(name):
    kind = ("component", "bins")
    early, late = (see(name, kind, progress=p) for p in (0.0, 1.0))
    assert (early.loss != late.loss) == (name == "smart")
    if name == "smart":
        hidden = [seen.hidden[2][..., -1].sum(1) for seen in (early, late)]
        np.testing.assert_array_equal(hidden, [[1] * B, [K] * B])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "parts"), [("smart", 3), ("spr", 2), ("spr_tokens", 2)])
def test_latent_objectives_are_the_sum_of_their_parts(name, parts):
    seen = see(name, ("component", "two_hot"))
    assert len(seen.metrics) == parts
    assert all(float(x) > 0 for x in seen.metrics.values())
    np.testing.assert_allclose(seen.loss, sum(map(float, seen.metrics.values())), rtol=1e-6)


@pytest.mark.fast("spr-latent")
@pytest.mark.parametrize(
    ("name", "part"),
    [("smart", "forward"), ("spr", "latent"), ("spr_tokens", "latent"), ("spr_token", "latent")],
)
def test_a_latent_is_compared_with_the_slow_copys_view_of_the_states_that_came(name, part):
    kind, where = ("component", "bins"), f"train/loss/{part}"
    before = see(name, kind)
    fast = first_params(name, kind, 0)
    after = examine(name, kind, fast, fast, windows(), KEY(), jnp.float32(0.5))
    assert float(after.metrics[where]) != float(before.metrics[where])
    for rest in set(before.metrics) - {where}:
        assert float(after.metrics[rest]) == float(before.metrics[rest])
    # The last state is what came; the last action, what would come after.
    unit = windows().unit
    for places, matters in ((slice(0, n), True), (slice(n, P), False)):
        changed = unit.at[:, -1, places].set(moved(unit[:, -1, places]))
        after = see(name, kind, windows()._replace(unit=changed))
        assert (after.metrics[where] != before.metrics[where]) == matters


def test_sprs_other_loss_is_the_next_tokens():
    kind = ("component", "bins")
    gpt = see("gpt", kind, params=PretrainParams(first_params("spr", kind, 0).model, {}))
    np.testing.assert_allclose(see("spr", kind).metrics["train/loss/token"], gpt.loss, rtol=1e-6)


# --- the same by other means ----------------------------------------------------------------------


def test_the_next_token_loss_of_bins_is_that_of_the_acting_transformer():
    kind, batch = ("component", "bins"), windows()
    model, params = build(kind), first_params("gpt", kind, 0).model
    tokens = stream.of_transitions(batch.unit, DOMAINS[0], V)
    log_probs = np.asarray(jax.nn.log_softmax(jax.jit(model.apply)(params, tokens)), np.float64)
    scores = np.take_along_axis(log_probs[:, :-1], np.asarray(tokens.value)[:, 1:, None], axis=-1)
    np.testing.assert_allclose(see("gpt", kind).loss, -scores.mean(), rtol=1e-5)
    # Of actions alone, as cloning has it.
    of_actions = np.tile(IS_ACTION, K)[1:]
    cloning = functools.partial(pretraining.next_scalars, model, layout=model.layouts[0], actions_only=True)
    loss, _ = jax.jit(lambda params: cloning(params, batch=batch))(params)
    np.testing.assert_allclose(loss, -scores[:, of_actions].mean(), rtol=1e-5)


@pytest.mark.slow
def test_predictions_that_know_nothing_cost_log_v():
    """With a head of zeros, cross-entropies are those of a fair die, whatever is hidden."""
    for name in ("gpt", "bert", "mtm", "maskdp"):
        kind = ("component", "two_hot")
        params = first_params(name, kind, 0)
        head = jax.tree.map(jnp.zeros_like, params.model["head"])
        seen = see(name, kind, params=params._replace(model={**params.model, "head": head}))
        np.testing.assert_allclose(seen.loss, np.log(V), rtol=1e-5)


@pytest.mark.slow
def test_bert_takes_another_rate():
    model, params = build(("component", "bins")), first_params("bert", ("component", "bins"), 0)
    assert bert_at(0.5) is bert_at(0.5)

    def loss(rate):
        args = model, params, params, model.layouts[0], windows(), KEY(), jnp.float32(0.0)
        return float(jax.jit(bert_at(rate).loss, static_argnums=(0, 3))(*args)[0])

    assert loss(0.0) == 0.0  # nothing is chosen, and the mean of nothing is 0
    assert loss(1.0) > 0.0


@pytest.mark.slow
@OF_ALL_OBJECTIVES
def test_activations_may_be_bfloat16(name):
    """Traced under strict dtypes; losses stay float32."""
    for kind in KINDS:
        model = build(kind, "bfloat16")
        params = first_params(name, kind, 0)
        loss = functools.partial(OBJECTIVES[name].loss, model)
        shape, _ = jax.eval_shape(
            lambda p, b, k, loss=loss, model=model: loss(p, p, model.layouts[1], b, k, jnp.float32(0.5)),
            params,
            Batch(jnp.zeros((2, K, 3)), jnp.ones((2, K), bool)),
            KEY(),
        )
        assert shape.dtype == jnp.float32
        assert shape.shape == ()


# --- self-prediction of tokens --------------------------------------------------------------------


@OF_ALL_KINDS
def test_a_state_s_tokens_know_its_past_and_no_action_of_its_own(kind):
    """Block-causal: all of its scalars, whatever their order, and all before them."""
    model, params = build(kind), first_params("spr_tokens", kind, 0)
    past, base = K - 1, windows().unit[0]
    alone = np.eye(K * P, dtype=bool).reshape(-1, K, P)
    changed = jnp.where(alone, moved(base)[None], base[None])
    unit = jnp.concatenate([base[None], changed])
    batch = Batch(unit, jnp.ones(unit.shape[:2], bool))
    layout = model.layouts[0]
    tokens = np.asarray(pretraining._state_tokens(model, params.model, layout, batch, past))
    assert tokens.shape == (1 + K * P, layout.num_obs_tokens, model.config.width)
    gap = np.abs(tokens[1:] - tokens[:1]).max(-1)  # [K P, m]
    time, is_action = np.repeat(np.arange(K), P), np.tile(IS_ACTION, K)
    expected = (time < past - 1) | ((time == past - 1) & ~is_action)
    np.testing.assert_array_equal(gap > 1e-5, np.broadcast_to(expected[:, None], gap.shape))


@pytest.mark.slow
def test_the_tokens_that_roll_forward_are_told_every_action_but_the_last():
    kind, where = ("component", "reals"), "train/loss/latent"
    before = see("spr_tokens", kind).metrics[where]
    for step in range(K):
        unit = windows().unit
        unit = unit.at[:, step, n:].set(moved(unit[:, step, n:]))
        after = see("spr_tokens", kind, windows()._replace(unit=unit)).metrics[where]
        assert (after != before) == (step < K - 1), step


@pytest.mark.slow
def test_one_step_is_the_first_of_several():
    kind = ("component", "reals")
    model, params = build(kind), first_params("spr_tokens", kind, 0)
    slow = first_params("spr_tokens", kind, 1)
    batch, layout = windows(), model.layouts[0]

    def latent(count, batch):
        args = model, params, slow, layout, batch, KEY(), jnp.float32(0.0)
        return float(pretraining.spr_tokens(*args, num_steps=count)[1]["train/loss/latent"])

    # The same history and one state to come, of a window that is cut there.
    cut = Batch(batch.unit[:, : K - 1], batch.is_real[:, : K - 1])
    gone = batch._replace(is_real=batch.is_real.at[:, K - 1].set(False))
    np.testing.assert_allclose(latent(2, gone), latent(1, cut), rtol=1e-5)
    with pytest.raises(ValueError, match=f"got {K} steps to predict in windows of {K}"):
        latent(K, batch)


def test_blocks_are_states_and_actions():
    from jaxagent.objectives import masking

    found = masking.block_causal(2, jnp.array([0, 0, 1]))
    expected = [[1, 1, 0, 0, 0, 0]] * 2 + [[1, 1, 1, 0, 0, 0]] + [[1, 1, 1, 1, 1, 0]] * 2
    np.testing.assert_array_equal(table(found), [[*expected, [1] * 6]])


@pytest.mark.slow
def test_tokens_are_stepped_by_the_module_of_muzeros_model():
    from jaxagent.config import LatentConfig, TrunkConfig
    from jaxagent.nn.latent_model import latent_model
    from jaxagent.nn.token_trunk import TokenTransition

    step = pretraining.transition_of(build(("component", "bins")))
    config = LatentConfig(TrunkConfig(width=8, num_heads=2, patch=1), num_bins=2)
    searched = latent_model(config, (3,), 2).net
    bound = searched.bind(searched.init(jax.random.key(0), jnp.zeros((1, 3)), jnp.array([0])))
    assert type(step) is type(bound.transition) is TokenTransition


# --- categories -----------------------------------------------------------------------------------

MIXED = Domain(2, 2, 0, 0, 0, (0, 3), (2, 0))


@pytest.mark.fast("gpt", "spr")
@OF_ALL_OBJECTIVES
def test_every_objective_takes_categories(name):
    """In states and actions: what each costs is finite, and every table learns."""
    model = sequence_model.model(CONFIG, TokenConfig(num_bins=V), (MIXED,))
    objective, rng = OBJECTIVES[name], np.random.default_rng(0)
    unit = rng.uniform(-1, 1, (8, K, 4))
    unit[..., 1], unit[..., 2] = rng.integers(0, 3, (8, K)), rng.integers(0, 2, (8, K))
    batch = Batch(jnp.asarray(unit, jnp.float32), jnp.ones((8, K), bool))
    params = jax.jit(lambda key: pretraining.init(model, objective, key))(KEY())

    def loss(params):
        args = params, params, model.layouts[0], batch, jax.random.key(2), jnp.float32(0.5)
        return objective.loss(model, *args)[0]

    value, gradient = jax.jit(jax.value_and_grad(loss))(params)
    assert 0.0 < float(value) < 30.0
    of_ids = np.asarray(gradient.model["stem"]["embedding"]["value"])[V:]
    assert (np.abs(of_ids).max(axis=1) > 0).all()
