"""The model of any granularity: shapes, hidden tokens, sizes, and the transformer that acts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxagent.agents import pretraining
from jaxagent.agents.pretraining import OBJECTIVES
from jaxagent.config import TokenConfig, TransformerConfig
from jaxagent.nn import sequence_model, transformer
from jaxagent.objectives import masking
from jaxagent.tokens import component, scalar, stream
from jaxagent.tokens.component import Domain
from jaxagent.tokens.layout import Layout
from kernels.attention.masks import table

CONFIG = TransformerConfig(width=8, num_layers=2, num_heads=2, mlp_factor=2, context=3)
DOMAINS = (Domain(3, 2, 0, 0, 0), Domain(2, 1, 0, 1, 5))
B, K, V = 2, 3, 8
KINDS = [(g, v) for g in ("component", "modality") for v in ("bins", "two_hot", "reals")]
OF_ALL_KINDS = pytest.mark.parametrize("kind", KINDS, ids="-".join)


@functools.cache
def build(kind):
    tokens = TokenConfig(num_bins=V, granularity=kind[0], values=kind[1])
    model = sequence_model.model(CONFIG, tokens, DOMAINS)
    # Larger than at initialisation, so that attention is far from uniform and a slip shows.
    params = jax.tree.map(lambda x: 1.5 * x, jax.jit(model.init)(jax.random.key(0)))
    return model, params


@functools.partial(jax.jit, static_argnames=("kind", "number", "num_tokens"))
def run(kind, number, params, unit, attention, hidden=None, num_tokens=None):
    """States, and predictions where all tokens were run."""
    model, _ = build(kind)
    layout = model.layouts[number]
    states = model.encode(params, layout, unit, attention, hidden, num_tokens)
    if num_tokens is not None:
        return states, ()
    groups = states.reshape(*unit.shape[:2], layout.num_tokens, -1)
    return states, model.read(params, layout, groups)


def some_units(number, seed=0):
    unit = np.random.default_rng(seed).uniform(-0.9, 0.9, (B, K, DOMAINS[number].period))
    return jnp.asarray(unit, jnp.float32)


def sees(kind, number):
    return table(masking.causal(K, build(kind)[0].layouts[number].num_tokens))


# --- shapes ---------------------------------------------------------------------------------------


def test_a_layout_says_where_scalars_lie():
    by_component, by_modality = (
        Layout(TokenConfig(granularity=g), DOMAINS[0]) for g in ("component", "modality")
    )
    assert (by_component.num_tokens, by_component.num_obs_tokens) == (5, 3)
    assert (by_modality.num_tokens, by_modality.num_obs_tokens) == (2, 1)
    np.testing.assert_array_equal(by_component.kinds(), [0, 0, 0, 1, 1])
    np.testing.assert_array_equal(by_modality.kinds(), [0, 1])
    of_tokens = jnp.array([[5, 7]])
    np.testing.assert_array_equal(by_modality.per_scalar(of_tokens), [[5, 5, 5, 7, 7]])
    same = jnp.arange(5)[None]
    np.testing.assert_array_equal(by_component.per_scalar(same), same)


@pytest.mark.fast("0-component-bins")
@OF_ALL_KINDS
@pytest.mark.parametrize("number", [0, 1])
def test_there_is_one_prediction_a_scalar(kind, number):
    model, params = build(kind)
    states, predicted = run(kind, number, params, some_units(number), sees(kind, number))
    layout = model.layouts[number]
    assert states.shape == (B, K * layout.num_tokens, CONFIG.width)
    logits = () if kind[1] == "reals" else (V,)
    assert predicted.shape == (B, K, DOMAINS[number].period, *logits)
    assert predicted.dtype == jnp.float32


@pytest.mark.fast("component-bins")
@OF_ALL_KINDS
def test_the_first_tokens_alone_are_the_first_of_all_where_nobody_looks_ahead(kind):
    """`num_tokens` runs a part, as T(s) does."""
    _, params = build(kind)
    size = build(kind)[0].layouts[0].num_obs_tokens
    states, _ = run(kind, 0, params, some_units(0), sees(kind, 0))
    part = sees(kind, 0)[:, :size, :size]
    first, nothing = run(kind, 0, params, some_units(0)[:, :1], part, num_tokens=size)
    assert nothing == ()
    np.testing.assert_allclose(first, states[:, :size], rtol=1e-4, atol=1e-5)


@pytest.mark.fast("component-bins")
@OF_ALL_KINDS
def test_every_scalar_and_its_place_reach_the_states(kind):
    """No scalar is lost, and none is taken for its neighbour."""
    _, params = build(kind)
    everyone = jnp.ones_like(sees(kind, 0))
    unit = some_units(0)
    before, _ = run(kind, 0, params, unit, everyone)
    for p in range(DOMAINS[0].period):
        moved = unit.at[:, 0, p].add(jnp.where(unit[:, 0, p] > 0, -0.9, 0.9))
        after, _ = run(kind, 0, params, moved, everyone)
        assert np.abs(after - before).max(axis=(1, 2)).min() > 1e-3, p
    for first, second in ((0, 1), (1, 2), (3, 4)):
        order = np.arange(5)
        order[[first, second]] = second, first
        after, _ = run(kind, 0, params, unit[..., order], everyone)
        assert np.abs(after - before).max(axis=(1, 2)).min() > 1e-3, (first, second)


@pytest.mark.slow
@OF_ALL_KINDS
def test_a_hidden_token_is_the_mask_at_its_place(kind):
    """Its value does not matter; which one it is, and the mask vector, do."""
    model, params = build(kind)
    layout, everyone = model.layouts[0], jnp.ones_like(sees(kind, 0))
    token = np.zeros((B, K, layout.num_tokens), bool)
    token[:, 1, 0] = True
    hidden, unit = jnp.asarray(token), some_units(0)
    before = run(kind, 0, params, unit, everyone, hidden)
    where = layout.per_scalar(hidden)
    after = run(kind, 0, params, jnp.where(where, -unit, unit), everyone, hidden)
    jax.tree.map(np.testing.assert_array_equal, before, after)
    plain = run(kind, 0, params, unit, everyone, jnp.zeros_like(hidden))
    same = run(kind, 0, params, unit, everyone)[0]  # of size 1, by another program
    np.testing.assert_allclose(plain[0], same, rtol=1e-5, atol=1e-6)
    assert np.abs(plain[0] - before[0]).max() > 1e-3
    other = {**params, "mask": params["mask"] + 1.0}
    assert np.abs(run(kind, 0, other, unit, everyone, hidden)[0] - before[0]).max() > 1e-3
    elsewhere = jnp.roll(hidden, 1, axis=2)
    assert np.abs(run(kind, 0, params, unit, everyone, elsewhere)[0] - before[0]).max() > 1e-3


def test_scalars_in_every_way_lie_on_one_curve():
    """At bin centres two-hot places are bins, and reals have the features of the bins."""
    vocabulary = transformer.Vocabulary(V, 0, 5, 2)
    rng = np.random.default_rng(0)
    features = jnp.asarray(rng.normal(size=(2 * transformer.NUM_FREQUENCIES + 1, 4)), jnp.float32)
    table = jnp.asarray(rng.normal(size=(V, 4)), jnp.float32)
    centres = scalar.unit_centres(V)

    def embed(values, unit, **params):
        module = sequence_model._Scalars(vocabulary, values, 4)
        return module.apply({"params": {"features": features, **params}}, unit, (0,) * unit.shape[-1])

    bins = embed("bins", centres, value=table)
    np.testing.assert_allclose(embed("two_hot", centres, value=table), bins, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(embed("reals", centres), bins - table, rtol=1e-4, atol=1e-4)
    middle = embed("two_hot", (centres[:-1] + centres[1:]) / 2.0, value=table)
    np.testing.assert_allclose(middle, (bins[:-1] + bins[1:]) / 2.0, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(embed("bins", centres + 0.9 / V, value=table), bins)


def test_equal_arguments_give_the_same_model():
    tokens = TokenConfig(num_bins=V)
    assert sequence_model.model(CONFIG, tokens, DOMAINS) is sequence_model.model(
        CONFIG, TokenConfig(num_bins=V), DOMAINS
    )


def test_categories_beside_reals_without_ids_are_refused():
    with pytest.raises(ValueError, match=r"got domains \[1\] with categories and values \"reals\""):
        sequence_model.model(CONFIG, TokenConfig(values="reals"), (DOMAINS[0], Domain(2, 1, 3, 1, 5)))


@pytest.mark.parametrize("kind", [("modality", "bins"), ("component", "two_hot")], ids="-".join)
def test_only_component_models_of_bins_take_tokens(kind):
    model, params = build(kind)
    with pytest.raises(ValueError, match=f'got a model of granularity "{kind[0]}" and values "{kind[1]}"'):
        model.apply(params, stream.of_transitions(some_units(0), DOMAINS[0], V))


# --- who sees whom --------------------------------------------------------------------------------

SIZE = K * DOMAINS[0].period  # tokens of a window
HIDDEN = np.random.default_rng(3).random((1, K, DOMAINS[0].period)) < 0.4
KIND = jnp.array([0, 0, 0, 1, 1])
FULL = masking.full(K, 5)
SIGHTS = {
    "causal": masking.causal(K, 5),
    "block_causal": masking.block_causal(K, KIND),
    "full": FULL,
    "inverse": masking.inverse(K, KIND),
    "only_what_is_kept": masking.hide_from_others(FULL, jnp.asarray(HIDDEN)),
    "padded": masking.within_episode(masking.causal(K, 5), jnp.array([[True, True, False]]), 5),
    "padded_full": masking.within_episode(FULL, jnp.array([[True, False, False]]), 5),
}
MASKS = {name: table(sight) for name, sight in SIGHTS.items()}


@pytest.mark.parametrize("name", MASKS)
def test_a_state_depends_on_exactly_what_two_layers_of_its_mask_reach(name):
    """Every scalar is moved once, the last of each group too; what is out of reach keeps its bits."""
    _, params = build(("component", "bins"))
    unit = np.repeat(np.asarray(some_units(0))[:1], 1 + SIZE, axis=0).reshape(1 + SIZE, SIZE)
    place = np.arange(SIZE)
    unit[1 + place, place] += np.where(unit[0] > 0, -0.9, 0.9)
    unit = jnp.asarray(unit.reshape(1 + SIZE, K, -1))
    states, _ = run(("component", "bins"), 0, params, unit, MASKS[name])
    depends = (np.asarray(states[1:]) != np.asarray(states[:1])).any(-1).T  # [token, scalar]
    sees = np.asarray(MASKS[name][0]).astype(int)
    np.testing.assert_array_equal(depends, sees @ sees > 0)


# --- categories -----------------------------------------------------------------------------------

MIXED = Domain(2, 2, 0, 0, 0, (0, 3), (2, 0))


@functools.cache
def mixed(kind):
    tokens = TokenConfig(num_bins=V, granularity=kind[0], values=kind[1])
    model = sequence_model.model(CONFIG, tokens, (MIXED,))
    return model, jax.tree.map(lambda x: 1.5 * x, jax.jit(model.init)(jax.random.key(0)))


@pytest.mark.fast("component-bins")
@pytest.mark.parametrize("kind", [k for k in KINDS if k[1] != "reals"], ids="-".join)
def test_categories_have_ids_of_their_own(kind):
    """Each id is another state, a fraction of one is the same; predictions have logits of all."""
    model, params = mixed(kind)
    (layout,) = model.layouts
    attention = masking.causal(K, layout.num_tokens)
    unit = np.zeros((4, K, 4), np.float32)
    unit[:, 1, 1] = [0.0, 1.0, 2.0, 2.0]
    unit[3, 1, 1] += 0.25  # no whole number: rounded down
    encode = jax.jit(lambda p, u: model.encode(p, layout, u, attention))
    states = np.asarray(encode(params, jnp.asarray(unit)))
    for a, b in ((0, 1), (1, 2), (0, 2)):
        assert np.abs(states[a] - states[b]).max() > 1e-3
    np.testing.assert_array_equal(states[2], states[3])
    groups = jnp.asarray(states).reshape(4, K, layout.num_tokens, -1)
    assert model.read(params, layout, groups).shape == (4, K, 4, V + 3)


# --- the transformer that acts --------------------------------------------------------------------


def test_the_acting_transformer_has_the_same_logits_in_one_pass_and_through_its_cache():
    kind, number = ("component", "bins"), 1
    domain, period = DOMAINS[number], DOMAINS[number].period
    model, params = build(kind)
    unit = some_units(number)
    _, expected = run(kind, number, params, unit, sees(kind, number))
    expected = expected.reshape(B, -1, V)

    tokens = stream.of_transitions(unit, domain, V)
    logits = jax.jit(model.apply)(params, tokens)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)

    cache, step = model.init_cache(B, period), jax.jit(model.advance)
    per_token = [f for f in tokens._fields if f not in ("domain", "patch")]
    for k in range(K):
        part = slice(k * period, (k + 1) * period)
        chunk = tokens._replace(**{f: getattr(tokens, f)[..., part] for f in per_token})
        states, cache = step(params, chunk, jnp.array(k * period, jnp.int32), cache)
        logits = model.read(params, None, states)
        np.testing.assert_allclose(logits, expected[:, part], rtol=1e-4, atol=1e-5)


# --- sizes ----------------------------------------------------------------------------------------

TORQUE = component.Component("torque", "real")
ROBOTS = component.domains([((TORQUE,) * n, (TORQUE,) * m) for n, m in ((11, 3), (17, 6), (17, 6), (27, 8))])
LARGE = TransformerConfig(width=256, num_layers=6, num_heads=8, context=8)


@pytest.mark.fast("component-bins")
@OF_ALL_KINDS
def test_a_model_of_four_robots_has_fewer_than_7_million_parameters(kind):
    tokens = TokenConfig(num_bins=1024, granularity=kind[0], values=kind[1])
    model = sequence_model.model(LARGE, tokens, tuple(ROBOTS))
    init = functools.partial(pretraining.init, model, OBJECTIVES["spr"])
    made = jax.eval_shape(init, jax.random.key(0))
    assert 4_700_000 < transformer.num_parameters(made.model) < 7_000_000
    assert transformer.num_parameters(made) < 10_000_000  # with all that only pretraining needs


def test_a_component_model_is_counted_by_hand():
    tokens = TokenConfig(num_bins=1024)
    model = sequence_model.model(LARGE, tokens, tuple(ROBOTS))
    params = jax.eval_shape(model.init, jax.random.key(0))
    blocks = 6 * (4 * 256**2 + 2 * 4 * 256**2 + 2 * 256) + 256
    tables = 256 * (1024 + 13 + (14 + 23 + 23 + 35) + 2 + 4)
    assert transformer.num_parameters(params) == blocks + tables + 256 * 1024 + 256
