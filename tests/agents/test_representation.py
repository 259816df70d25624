"""T(s): the current state and nothing else, what of it, and how it takes a failed sensor."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxagent.agents import representation
from jaxagent.agents.representation import fail, features
from jaxagent.config import TokenConfig, TransformerConfig
from jaxagent.nn import sequence_model
from jaxagent.objectives import masking
from jaxagent.tokens.component import Domain

CONFIG = TransformerConfig(width=8, num_layers=2, num_heads=2, mlp_factor=2, context=3)
DOMAINS = (Domain(2, 1, 0, 0, 0), Domain(4, 2, 0, 1, 3))
B, K, n, V = 5, 3, 4, 8
POOLS = ("last", "mean", "concat")
OF_ALL_POOLS = pytest.mark.parametrize("pool", POOLS)
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@functools.cache
def build(granularity="component", values="two_hot"):
    tokens = TokenConfig(num_bins=V, granularity=granularity, values=values)
    model = sequence_model.model(CONFIG, tokens, DOMAINS)
    params = jax.tree.map(lambda x: 1.5 * x, jax.jit(model.init)(jax.random.key(0)))
    return model, model.layouts[1], params


@functools.cache
def reader(granularity="component", is_causal=True, pool="last"):
    model, layout, _ = build(granularity)
    return jax.jit(features(model, layout, is_causal=is_causal, pool=pool))


def states(seed=0):
    return jnp.asarray(np.random.default_rng(seed).uniform(-0.8, 0.8, (B, n)), jnp.float32)


def transitions(seed):
    return jnp.asarray(np.random.default_rng(seed).uniform(-0.8, 0.8, (B, K, 6)), jnp.float32)


def in_a_window(model, layout, params, unit, attention):
    """States `[B, K G, D]` of the whole model, of windows of transitions."""
    return jax.jit(model.encode, static_argnums=1)(params, layout, unit, attention)


def depends_on(read, unit):
    """Whether T of the first state moves with each of its components, and of the others at all."""
    before, own = read(unit), []
    for i in range(n):
        after = read(unit.at[0, i].add(jnp.where(unit[0, i] > 0, -0.8, 0.8)))
        own.append(bool(np.abs(after - before)[0].max() > 1e-4))
        np.testing.assert_allclose(after[1:], before[1:], **CLOSE)
    return own


@pytest.mark.slow
@OF_ALL_POOLS
@pytest.mark.parametrize("granularity", ["component", "modality"])
@pytest.mark.parametrize("is_causal", [True, False])
def test_t_reads_all_of_its_state_and_no_other(granularity, is_causal, pool):
    _, _, params = build(granularity)
    read = functools.partial(reader(granularity, is_causal, pool), params)
    assert depends_on(read, states()) == [True] * n


@pytest.mark.slow
@OF_ALL_POOLS
@pytest.mark.parametrize("granularity", ["component", "modality"])
def test_t_has_its_width_for_any_leading_axes(granularity, pool):
    model, layout, params = build(granularity)
    read = reader(granularity, True, pool)
    flat = read(params, states())
    width = representation.size(model, layout, pool)
    assert flat.shape == (B, width)
    tokens = n if granularity == "component" and pool == "concat" else 1
    assert width == CONFIG.width * tokens
    np.testing.assert_allclose(read(params, states()[None, :, None])[0, :, 0], flat, **CLOSE)
    np.testing.assert_allclose(read(params, states()[2]), flat[2], **CLOSE)


@pytest.mark.fast("True-component")
@pytest.mark.parametrize("granularity", ["component", "modality"])
@pytest.mark.parametrize("is_causal", [True, False])
def test_t_is_the_state_of_the_model_before_the_first_action(granularity, is_causal):
    """As in a window: causal, the first state's; else a window that holds nothing else."""
    model, layout, params = build(granularity)
    unit = transitions(1)
    size = layout.num_obs_tokens
    if is_causal:
        attention = masking.causal(K, layout.num_tokens)
    else:  # every token of the first state sees that state
        place = np.arange(K * layout.num_tokens)
        attention = jnp.asarray(np.broadcast_to(place < size, (len(place), len(place))))
        attention = (attention | jnp.eye(len(place), dtype=bool))[None]
    window = in_a_window(model, layout, params, unit, attention)
    for pool, expected in (
        ("last", window[:, size - 1]),
        ("mean", window[:, :size].mean(1)),
        ("concat", window[:, :size].reshape(B, -1)),
    ):
        got = reader(granularity, is_causal, pool)(params, unit[:, 0, :n])
        np.testing.assert_allclose(got, expected, **CLOSE)


@pytest.mark.fast("True-component")
@pytest.mark.parametrize("granularity", ["component", "modality"])
@pytest.mark.parametrize("is_causal", [True, False])
def test_with_a_history_t_reads_the_steps_that_are_known(granularity, is_causal):
    """Causal it is the model's state in a window; of no known step it is the state alone."""
    model, layout, params = build(granularity)
    unit = transitions(2)
    read = jax.jit(representation.states(model, layout, is_causal=is_causal))
    known = jnp.ones((B, K), bool)
    got, is_kept = read(params, unit, known)
    assert is_kept.all()
    if is_causal:
        attention = masking.causal(K, layout.num_tokens)
        window = in_a_window(model, layout, params, unit, attention)
        first = (K - 1) * layout.num_tokens
        expected = window[:, first : first + layout.num_obs_tokens]
        np.testing.assert_allclose(got, expected, **CLOSE)
    other = unit.at[:, -1, n:].set(0.5)
    np.testing.assert_allclose(read(params, other, known)[0], got, **CLOSE, err_msg="the action to come")
    for step in range(K - 1):
        moved = read(params, unit.at[:, step].add(0.3), known)[0]
        assert np.abs(moved - got).max() > 1e-4, step
        unknown = known.at[:, step].set(False)
        same = [read(params, x, unknown)[0] for x in (unit, unit.at[:, step].add(0.3))]
        np.testing.assert_allclose(*same, **CLOSE)
    alone = read(params, unit, known.at[:, :-1].set(False))[0]
    now = reader(granularity, is_causal, "concat")(params, unit[:, -1, :n])
    np.testing.assert_allclose(alone.reshape(B, -1), now, rtol=1e-3, atol=1e-4)


def test_causal_and_full_representations_differ():
    _, _, params = build()
    causal, full = (reader(is_causal=c, pool="mean")(params, states()) for c in (True, False))
    assert np.abs(causal - full).max() > 1e-3


# --- a failed sensor ------------------------------------------------------------------------------


@pytest.mark.fast("mask-True-last", "drop-True-last")
@OF_ALL_POOLS
@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("mode", ["mask", "drop"])
def test_the_value_of_a_failed_sensor_does_not_matter_and_the_others_do(mode, is_causal, pool):
    _, layout, params = build()
    for sensor in (0, n - 1):
        failure = fail(layout, sensor, mode)
        read = functools.partial(reader("component", is_causal, pool), params, failure=failure)
        expected = [i != sensor for i in range(n)]
        assert depends_on(read, states()) == expected


@OF_ALL_POOLS
@pytest.mark.parametrize("is_causal", [True, False])
def test_a_masked_sensor_still_has_a_token_and_a_dropped_one_has_none(is_causal, pool):
    """T of a masked sensor moves with the mask vector; of a dropped one it does not."""
    _, layout, params = build()
    other = {**params, "mask": params["mask"] + 1.0}
    read = reader("component", is_causal, pool)
    for mode, moves in (("mask", True), ("drop", False)):
        failure = fail(layout, 1, mode)
        gap = np.abs(read(other, states(), failure) - read(params, states(), failure)).max()
        assert (gap > 1e-4) if moves else (gap == 0.0), (mode, gap)


def test_what_is_left_of_a_dropped_sensor_is_as_if_it_had_never_been():
    """The states of the others, run alone; the mean is theirs, and its place in a row is empty."""
    model, layout, params = build()
    kept = np.arange(n) != 1
    everyone = jnp.ones((1, n, n), bool)
    alone = (everyone & jnp.asarray(kept)[None, None]) | jnp.eye(n, dtype=bool)[None]
    transition = jnp.pad(states(), ((0, 0), (0, 2)))[:, None]
    encode = jax.jit(model.encode, static_argnums=(1, 5))
    expected = np.asarray(encode(params, layout, transition, alone, None, n))
    failure = fail(layout, 1, "drop")
    mean = reader("component", False, "mean")(params, states(), failure)
    np.testing.assert_allclose(mean, expected[:, kept].mean(1), **CLOSE)
    rows = np.asarray(reader("component", False, "concat")(params, states(), failure))
    rows = rows.reshape(B, n, -1)
    np.testing.assert_allclose(rows[:, kept], expected[:, kept], **CLOSE)
    np.testing.assert_array_equal(rows[:, 1], 0.0)


@OF_ALL_POOLS
def test_no_failure_is_the_whole_state(pool):
    _, _, params = build()
    read = reader("component", False, pool)
    nothing = (jnp.zeros((n,), bool),) * 2
    np.testing.assert_allclose(read(params, states(), nothing), read(params, states()), **CLOSE)


def test_sensors_may_be_lanes():
    _, layout, params = build()
    read = reader("component", False, "mean")
    failures = [fail(layout, i, "drop") for i in range(n)]
    lanes = jax.tree.map(lambda *x: jnp.stack(x), *failures)
    together = jax.vmap(lambda f: read(params, states(), f))(lanes)
    for i, failure in enumerate(failures):
        np.testing.assert_allclose(together[i], read(params, states(), failure), **CLOSE)


@pytest.mark.slow
def test_other_failures_are_refused():
    _, component, _ = build()
    _, modality, _ = build("modality")
    for layout, mode in ((component, "mean"), (component, "other"), (modality, "mask")):
        with pytest.raises(ValueError, match='expected "mask" or "drop" at component level'):
            fail(layout, 0, mode)
