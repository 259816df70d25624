"""The transformer: cached acting equals the full pass, and nothing sees what it must not."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxagent.agents import sequence
from jaxagent.config import TransformerConfig
from jaxagent.nn import attention, transformer
from jaxagent.nn.attention import Band
from jaxagent.nn.sequence_model import token_model
from jaxagent.tokens import component, scalar, stream
from jaxagent.tokens.component import Codec, Domain
from kernels.attention.masks import table

FEW = settings(max_examples=25, deadline=None, derandomize=True)
CONFIG = TransformerConfig(width=16, num_layers=2, num_heads=2, mlp_factor=2, context=3)
NUM_BINS = 64
DISCRETE = Domain(obs_size=2, action_size=1, action_cardinality=3, index=1, first_component=2)
WIDE = Domain(obs_size=2, action_size=3, action_cardinality=0, index=0, first_component=0)
VOCABULARY = transformer.Vocabulary(num_bins=NUM_BINS, num_categories=3, num_components=5, num_domains=2)
rotary = jax.jit(attention.rotary)
TOLERANCE = {"rtol": 1e-4, "atol": 2e-5}


@functools.cache
def two_layers():
    params = jax.jit(token_model(CONFIG, VOCABULARY).init)(jax.random.key(0))
    # Larger than at initialisation, so that attention is far from uniform and a slip shows.
    return jax.tree.map(lambda x: 1.5 * x, params)


@functools.cache
def build(num_layers=2, context=8, dtype="float32", attention="softmax"):
    """The model and its parameters, and the full pass under jit."""
    config = dataclasses.replace(
        CONFIG, num_layers=num_layers, context=context, dtype=dtype, attention=attention
    )
    model = token_model(config, VOCABULARY)
    unused = {f"block_{i}" for i in range(num_layers, 2)}
    params = dict(two_layers())
    params["trunk"] = {name: x for name, x in params["trunk"].items() if name not in unused}
    return model, params, jax.jit(model.apply)


def random_tokens(domain, num_steps, segment=None, batch_size=2, seed=0):
    rng = np.random.default_rng(seed)
    obs = rng.integers(0, NUM_BINS, (batch_size, num_steps, domain.obs_size))
    if domain.action_cardinality:
        action = NUM_BINS + rng.integers(0, 3, (batch_size, num_steps, 1))
    else:
        action = rng.integers(0, NUM_BINS, (batch_size, num_steps, domain.action_size))
    if segment is None:
        segment = np.zeros((batch_size, num_steps), np.int32)
    return stream.flatten(jnp.asarray(obs), jnp.asarray(action), jnp.asarray(segment), domain)


def codec_of(domain):
    def bins(size):
        return scalar.uniform(-np.ones(size), np.ones(size), NUM_BINS)

    return Codec(bins(domain.obs_size), () if domain.action_cardinality else bins(3))


@functools.cache
def recording_policy(domain, rule, num_layers, context):
    """The policy, and its `act` under jit, with the logits that it read in place of extras."""
    model, _, _ = build(num_layers, context)
    passes = []

    def recording_read(*args):
        passes.append(model.read(*args))
        return passes[-1]

    policy = sequence.policy(model._replace(read=recording_read), domain, rule)

    def act(*args):
        passes.clear()
        action, _, memory = policy.act(*args)
        return action, jnp.stack(passes), memory

    return policy, jax.jit(act)


def act_and_record(domain, obs, is_first, num_layers=2, context=8, rule="argmax"):
    """Act on `obs [T, B, n]`: actions and the logits before each action token `[T, m, B, V]`."""
    policy, act = recording_policy(domain, rule, num_layers, context)
    params = sequence.SequenceParams(build(num_layers, context)[1], codec_of(domain))
    memory = policy.init(obs.shape[1])
    actions, logits = [], []
    for t in range(len(obs)):
        key = jax.random.fold_in(jax.random.key(1), t)
        action, read, memory = act(params, memory, obs[t], is_first[t], key)
        actions.append(action)
        logits.append(read)
    return jnp.stack(actions), np.stack(logits)


def full_pass(domain, obs, actions, is_first, num_layers=2, context=8):
    """Logits before each action token `[T, m, B, V]` of one pass over the same tokens."""
    model, params, _ = build(num_layers, context)

    def apply(params, codec, obs, actions, is_first):
        tokens = stream.flatten(
            component.encode_obs(codec, domain, NUM_BINS, obs).swapaxes(0, 1),
            component.encode_action(codec, domain, NUM_BINS, actions).swapaxes(0, 1),
            jnp.cumsum(is_first.astype(jnp.int32), axis=0).T,
            domain,
        )
        return model.apply(params, tokens)

    logits = np.asarray(jax.jit(apply)(params, codec_of(domain), obs, actions, is_first))
    logits = logits.reshape(obs.shape[1], len(obs), domain.period, -1)
    return logits[:, :, domain.obs_size - 1 : -1].transpose(1, 2, 0, 3)


def situation(resets=(), num_steps=8, batch_size=3):
    obs = np.random.default_rng(0).uniform(-1, 1, (num_steps, batch_size, 2))
    is_first = np.zeros((num_steps, batch_size), bool)
    is_first[0] = True
    for t, lane in resets:
        is_first[t, lane] = True
    return jnp.asarray(obs, jnp.float32), jnp.asarray(is_first)


# Cached step by step equals one full pass.

both_domains = pytest.mark.parametrize("domain", [DISCRETE, WIDE], ids=["one_action", "three_actions"])


@pytest.mark.slow
@both_domains
def test_cached_acting_equals_the_full_pass(domain):
    obs, is_first = situation()
    actions, logits = act_and_record(domain, obs, is_first)
    np.testing.assert_allclose(logits, full_pass(domain, obs, actions, is_first), **TOLERANCE)


@pytest.mark.fast("domain1-3-argmax")
@pytest.mark.parametrize(
    ("domain", "context", "rule"), [(DISCRETE, 3, "argmax"), (WIDE, 3, "argmax"), (WIDE, 1, "sample")]
)
def test_cached_acting_equals_the_banded_full_pass_with_one_layer(domain, context, rule):
    """Beyond the context the ring forgets exactly what the band hides."""
    obs, is_first = situation()
    actions, logits = act_and_record(domain, obs, is_first, 1, context, rule)
    expected = full_pass(domain, obs, actions, is_first, 1, context)
    np.testing.assert_allclose(logits, expected, **TOLERANCE)


@pytest.mark.slow
@both_domains
def test_cached_acting_equals_the_banded_full_pass_with_two_layers(domain):
    """Inner layers too: what a(t - 1) remembers must not depend on the ring's size."""
    obs, is_first = situation()
    actions, logits = act_and_record(domain, obs, is_first, 2, 3)
    expected = full_pass(domain, obs, actions, is_first, 2, 3)
    np.testing.assert_allclose(logits, expected, **TOLERANCE)


@pytest.mark.fast("three_actions")
@both_domains
def test_a_reset_in_some_lanes_hides_their_past_and_no_other(domain):
    obs, is_first = situation(resets=[(2, 0), (4, 0), (5, 2)])
    actions, logits = act_and_record(domain, obs, is_first)
    expected = full_pass(domain, obs, actions, is_first)
    np.testing.assert_allclose(logits, expected, **TOLERANCE)
    # Without the reset the lane that kept its episode does the same, the others do not.
    _, unbroken = act_and_record(domain, *situation())
    np.testing.assert_allclose(logits[:, :, 1], unbroken[:, :, 1], **TOLERANCE)
    assert np.abs(logits[5, :, 0] - unbroken[5, :, 0]).max() > 1e-2
    assert np.abs(logits[5, :, 2] - unbroken[5, :, 2]).max() > 1e-2


@pytest.mark.parametrize(("num_layers", "context"), [(2, 8), (1, 3)])
def test_a_reset_lane_acts_as_a_fresh_policy(num_layers, context):
    """Whatever the ring holds and whatever the clock says."""
    obs, is_first = situation(resets=[(5, 0), (5, 1), (5, 2)])
    _, logits = act_and_record(WIDE, obs, is_first, num_layers, context)
    _, fresh = act_and_record(WIDE, obs[5:], is_first[5:], num_layers, context)
    np.testing.assert_allclose(logits[5:], fresh, **TOLERANCE)


def test_the_policy_says_what_the_logits_say():
    obs, is_first = situation()
    actions, logits = act_and_record(WIDE, obs, is_first)
    token = logits[..., :NUM_BINS].argmax(-1)  # [T, m, B]
    np.testing.assert_array_equal(
        component.encode_action(codec_of(WIDE), WIDE, NUM_BINS, actions).swapaxes(1, 2), token
    )
    actions, logits = act_and_record(DISCRETE, obs, is_first)
    np.testing.assert_array_equal(actions, logits[:, 0, :, NUM_BINS:].argmax(-1))
    assert actions.dtype == jnp.int32


def test_the_mean_of_categories_is_their_argmax():
    obs, is_first = situation()
    by_mean, _ = act_and_record(DISCRETE, obs, is_first, 1, 3, rule="mean")
    by_argmax, _ = act_and_record(DISCRETE, obs, is_first, 1, 3)
    np.testing.assert_array_equal(by_mean, by_argmax)


def test_lanes_do_not_meet():
    obs, is_first = situation(resets=[(2, 1)])
    order = np.array([1, 2, 0])
    _, logits = act_and_record(DISCRETE, obs, is_first)
    _, permuted = act_and_record(DISCRETE, obs[:, order], is_first[:, order])
    np.testing.assert_allclose(permuted, logits[:, :, order], **TOLERANCE)
    changed = obs.at[:, 0].set(-obs[:, 0])
    _, others = act_and_record(DISCRETE, changed, is_first)
    np.testing.assert_array_equal(others[:, :, 1:], logits[:, :, 1:])


def test_the_memory_keeps_its_types_so_that_a_scan_can_carry_it():
    obs, is_first = situation()
    policy, act = recording_policy(WIDE, "argmax", 2, 8)
    params = sequence.SequenceParams(build()[1], codec_of(WIDE))
    before = policy.init(3)
    _, _, after = act(params, before, obs[0], is_first[0], jax.random.key(0))

    def types(memory):
        return jax.tree.map(lambda x: (x.shape, x.dtype.name, x.weak_type), memory)

    assert types(before) == types(after)
    assert int(after.cache.time) == 1


# Who sees whom, in the full pass: the exact set of tokens on which an output depends.


def dependence(tokens, num_layers, context):
    """Whether output i depends on token j, bool `[L, L]`; the tokens must all differ."""
    model, params, _ = build(num_layers, context)
    projection = jax.random.normal(jax.random.key(3), (VOCABULARY.size,))

    def outputs(table):
        embedding = {**params["stem"]["embedding"], "value": table}
        return model.apply({**params, "stem": {"embedding": embedding}}, tokens)[0] @ projection

    gradient = jax.jit(jax.jacrev(outputs))(params["stem"]["embedding"]["value"])  # [L, V, D]
    return np.abs(gradient[:, tokens.value[0], :]).max(-1) > 1e-9


def distinct_tokens(num_steps, segment):
    value = np.random.default_rng(0).permutation(NUM_BINS)[: num_steps * 3]
    value = jnp.asarray(value).reshape(1, num_steps, 3)
    return stream.flatten(value[..., :2], value[..., 2:], jnp.asarray([segment]), DISCRETE)


def test_an_output_depends_on_exactly_the_past_of_its_episode():
    segment = [0, 0, 0, 1, 1, -1, -1]
    tokens = distinct_tokens(7, segment)
    order, episode = np.arange(21), np.repeat(segment, 3)
    expected = (order[None] <= order[:, None]) & (episode[None] == episode[:, None])
    np.testing.assert_array_equal(dependence(tokens, 2, 7), expected)


@pytest.mark.fast("1-3")
@pytest.mark.parametrize(("num_layers", "context"), [(1, 3), (2, 2)])
def test_each_layer_looks_back_by_the_context_and_no_further(num_layers, context):
    tokens = distinct_tokens(6, [0] * 6)
    order, time = np.arange(18), np.repeat(np.arange(6), 3)
    reach = num_layers * (context - 1)  # transitions, through all layers
    age = time[:, None] - time[None]
    expected = (order[None] <= order[:, None]) & (age <= reach)
    np.testing.assert_array_equal(dependence(tokens, num_layers, context), expected)


def test_a_future_token_changes_no_past_output():
    _, params, apply = build()
    tokens = random_tokens(DISCRETE, 8)
    before = np.asarray(apply(params, tokens))
    for place in (4, 10, 17):
        value = tokens.value.at[:, place].set((tokens.value[:, place] + 7) % NUM_BINS)
        after = np.asarray(apply(params, tokens._replace(value=value)))
        np.testing.assert_array_equal(after[:, :place], before[:, :place])
        assert np.abs(after[:, place:] - before[:, place:]).max(axis=(0, 2)).min() > 1e-6


# Rotary positions and masks.


def test_rotary_equals_complex_multiplication():
    x = jax.random.normal(jax.random.key(0), (2, 3, 2, 8))
    time = jnp.array([0, 1, 50], jnp.int32)
    frequency = 10_000.0 ** (-np.arange(4) / 4)
    turn = np.exp(1j * np.asarray(time)[:, None] * frequency)[None, :, None]
    expected = (np.asarray(x[..., :4]) + 1j * np.asarray(x[..., 4:])) * turn
    rotated = np.asarray(rotary(x, time))
    np.testing.assert_allclose(rotated[..., :4], expected.real, atol=1e-5)
    np.testing.assert_allclose(rotated[..., 4:], expected.imag, atol=1e-5)
    np.testing.assert_array_equal(rotated[:, 0], x[:, 0])


@FEW
@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(-500, 2_000_000_000))
def test_rotary_products_depend_on_differences_of_time_only(first, second, shift):
    query, key = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 8))

    def product(a, b):
        rotated = rotary(query, jnp.array([a])), rotary(key, jnp.array([b]))
        return float(np.sum(np.asarray(rotated[0]) * np.asarray(rotated[1])))

    np.testing.assert_allclose(product(first, second), product(first + shift, second + shift), atol=1e-5)
    if first != second:
        assert abs(product(first, second) - product(first, first)) > 1e-9


def test_the_model_does_not_know_the_clock_but_knows_the_order_of_steps():
    _, params, apply = build()
    tokens = random_tokens(DISCRETE, 8)
    logits = apply(params, tokens)
    later = tokens._replace(time=tokens.time + 1000, order=tokens.order + 3000)
    np.testing.assert_allclose(apply(params, later), logits, rtol=1e-3, atol=1e-3)
    apart = tokens._replace(time=2 * tokens.time)
    assert np.abs(apply(params, apart) - logits).max() > 1e-2


def test_window_mask_by_hand():
    order = jnp.arange(4)
    time = jnp.array([0, 0, 1, 2])
    (mask,) = table(attention.window(order, time, order, time, context=2))
    np.testing.assert_array_equal(mask, [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 1, 1]])


def test_an_empty_cache_shows_each_token_itself_and_its_past_only():
    cache = attention.init_cache(1, 2, 6, 1, 2, jnp.dtype("float32"))
    order, time = jnp.arange(2, dtype=jnp.int32), jnp.zeros((2,), jnp.int32)
    cache = attention.mark(cache, order, time, jnp.array(3, jnp.int32))
    mask = table(attention.cache_mask(cache, order, time, context=2))
    np.testing.assert_array_equal(mask, [[[0, 0, 0, 1, 0, 0], [0, 0, 0, 1, 1, 0]]] * 2)


@pytest.mark.slow
@FEW
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=9))
def test_no_row_of_the_cache_mask_is_ever_empty(resets):
    """Follows the policy's own use of the ring: chunks [last action | observation]."""
    context, period = 2, 3
    cache = attention.init_cache(1, 2, context * period, 1, 2, jnp.dtype("float32"))
    for t, is_first in enumerate(resets):
        cache = cache._replace(start=jnp.where(jnp.array(is_first), t, cache.start))
        place = jnp.array([2, 0, 1], jnp.int32)
        time = t - jnp.array([1, 0, 0], jnp.int32)
        order = time * period + place
        cache = attention.mark(cache, order, time, jnp.array(t % context * period, jnp.int32))
        mask = table(attention.cache_mask(cache, order, time, context))
        assert mask.any(-1).all()
        # What a query sees is of its own episode, or the query itself.
        is_other = np.asarray(cache.order)[None, None] != np.asarray(order)[:, None]
        seen = np.asarray(mask) & is_other
        too_old = np.asarray(cache.token_time)[None] < np.asarray(cache.start)[:, None]
        assert not (seen & too_old[:, None]).any()


def test_attend_equals_a_float64_softmax():
    keys = jax.random.split(jax.random.key(0), 3)
    query, key, value = (jax.random.normal(k, (2, 4, 2, 6)) for k in keys)
    mask = np.tril(np.ones((2, 4, 4), bool))
    mask[1, 3, 0] = False
    q, k, v = (np.asarray(x, np.float64) for x in (query, key, value))
    weights = np.exp(np.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(6)) * mask[:, None]
    weights = weights / weights.sum(-1, keepdims=True)
    expected = np.einsum("bhqk,bkhd->bqhd", weights, v)
    np.testing.assert_allclose(
        jax.jit(attention.attend)(query, key, value, jnp.asarray(mask)), expected, atol=1e-5
    )


@pytest.mark.fast("131-softmax-0", "47-linear-7", "131-softmax-7")
@pytest.mark.parametrize("num_past", [0, 7])
@pytest.mark.parametrize("kind", attention.KINDS)
@pytest.mark.parametrize("length", [47, 131])  # one block, and four
def test_blocks_of_a_band_equal_the_masked_whole(kind, length, num_past):
    key_q, key_k, key_v = jax.random.split(jax.random.key(0), 3)
    query = jax.random.normal(key_q, (2, length, 2, 4))
    key, value = (jax.random.normal(k, (2, num_past + length, 2, 4)) for k in (key_k, key_v))
    reach = 20 if num_past else None
    place = np.arange(-num_past, length)
    distance = place[num_past:, None] - place[None]
    mask = np.repeat(((distance >= 0) & (distance <= (reach or length)))[None], 2, axis=0)
    mask[1] &= (place >= length // 3)[None] | (distance == 0)  # an older episode

    def of(band):
        def total(*inputs):
            return jnp.sum(jnp.sin(attention.mix(kind, *inputs, jnp.asarray(mask), band)))

        return jax.jit(jax.value_and_grad(total, (0, 1, 2)))(query, key, value)

    expected = of(None)
    got = of(Band(num_past, reach))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), got, expected)
    if length == 131 and num_past:  # a promise that the mask does not keep is seen
        assert not np.allclose(of(Band(num_past, reach - 1))[0], expected[0], atol=2e-5)


def test_blocks_of_a_band_leave_out_what_is_masked():
    one = jnp.ones((1, 256, 1, 4))
    mask = jnp.tril(jnp.ones((1, 256, 256), bool))

    def flops(band):
        run = jax.jit(lambda x: attention.mix("softmax", x, x, x, mask, band))
        return run.lower(one).compile().cost_analysis()["flops"]

    assert flops(attention.CAUSAL) < 0.7 * flops(None)  # 10 of 16 blocks
    assert flops(Band(reach=64)) < 0.8 * flops(attention.CAUSAL)  # 7 of them


# The types and the counts.


@pytest.mark.slow
def test_bfloat16_runs_and_stays_near_float32():
    tokens = random_tokens(DISCRETE, 8)
    _, params32, apply32 = build()
    exact = np.asarray(apply32(params32, tokens))
    size = np.abs(exact).max()
    model, params, apply = build(dtype="bfloat16")
    logits = apply(params, tokens)
    cache = model.init_cache(2, 3)
    ids = [name for name in tokens._fields if name not in ("domain", "patch")]
    chunk = tokens._replace(**{name: getattr(tokens, name)[..., :3] for name in ids})
    states, after = jax.jit(model.advance)(params, chunk, jnp.zeros((), jnp.int32), cache)
    stepped = model.read(params, None, states)
    assert logits.dtype == stepped.dtype == jnp.float32
    assert {x.dtype.name for x in jax.tree.leaves(params)} == {"float32"}
    assert cache.keys.dtype == after.keys.dtype == after.values.dtype == jnp.bfloat16
    assert 0 < np.abs(np.asarray(logits) - exact).max() < 0.1 * size
    np.testing.assert_allclose(stepped, logits[:, :3], atol=0.05 * size)


def test_num_parameters_by_hand():
    _, params, _ = build()
    tables = 16 * (67 + 5 + 2 + 2 + 13)  # value, component, kind, domain, features
    attention_size = 4 * 16 * 16
    block = attention_size + 2 * 16 * 32 + 2 * 16  # MLP of factor 2, two norms
    norm, mask, head = 16, 16, 16 * 67
    assert transformer.num_parameters(params) == tables + 2 * block + norm + mask + head
    assert transformer.num_parameters({"a": jnp.zeros((2, 3)), "b": [jnp.zeros(())]}) == 7


def test_flops_count_six_per_weight_of_a_matrix_product():
    _, params, _ = build()
    kernels = [x for path, x in jax.tree_util.tree_leaves_with_path(params) if path[-1].key == "kernel"]
    weights = transformer.num_parameters(kernels)
    one = transformer.flops_per_token(dataclasses.replace(CONFIG, context=2), VOCABULARY.size, 3)
    two = transformer.flops_per_token(dataclasses.replace(CONFIG, context=4), VOCABULARY.size, 3)
    assert 2 * one - two == 6 * weights
    assert two - one == 12 * 2 * 16 * 3  # 12 D a layer and key; 3 more keys on average


def test_value_features_tell_bins_apart_and_are_zero_for_categories():
    features = np.asarray(transformer.value_features(VOCABULARY))
    assert features.shape == (67, 2 * transformer.NUM_FREQUENCIES + 1)
    np.testing.assert_array_equal(features[NUM_BINS:], 0)
    np.testing.assert_allclose(features[:NUM_BINS, 0], scalar.unit_centres(NUM_BINS))
    u = np.asarray(scalar.unit_centres(NUM_BINS), np.float64)
    np.testing.assert_allclose(features[:NUM_BINS, 1], np.sin(np.pi * u), atol=1e-5)
    np.testing.assert_allclose(features[:NUM_BINS, 12], np.cos(32 * np.pi * u), atol=1e-4)
    assert np.abs(features).max() <= 1.0


def test_linear_attention_by_hand():
    """Two keys seen of three: the mean of (q . k / sqrt D) v over the two."""
    query = jnp.array([1.0, 2.0]).reshape(1, 1, 1, 2)
    key = jnp.array([[1.0, 0.0], [0.0, 1.0], [9.0, 9.0]]).reshape(1, 3, 1, 2)
    value = jnp.array([[3.0, 0.0], [0.0, 5.0], [7.0, 7.0]]).reshape(1, 3, 1, 2)
    mask = jnp.array([[[True, True, False]]])
    out = attention.attend_linearly(query, key, value, mask)
    np.testing.assert_allclose(out[0, 0, 0], np.array([3.0, 10.0]) / 2 / math.sqrt(2), rtol=1e-6)


@pytest.mark.slow
def test_linear_attention_leaks_no_future_and_no_other_episode():
    _, params, apply = build(attention="linear")
    tokens = random_tokens(DISCRETE, 5)
    before = apply(params, tokens)
    later = tokens._replace(value=tokens.value.at[:, 9:].set(0))
    np.testing.assert_allclose(apply(params, later)[:, :9], before[:, :9], **TOLERANCE)
    assert not np.allclose(apply(params, later)[:, 9:], before[:, 9:])
    softmax = build()[2](params, tokens)
    assert not np.allclose(before, softmax, atol=1e-3)  # it is another function


def positioned(positions, context=4):
    config = dataclasses.replace(CONFIG, positions=positions, context=context)
    model = token_model(config, VOCABULARY)
    return model, jax.jit(model.init)(jax.random.key(3))


@pytest.mark.slow
def test_without_positions_the_order_of_past_steps_is_not_seen():
    """A one-layer model reads a set: swapping the first two steps leaves the last output."""
    tokens = random_tokens(DISCRETE, 3)
    rows = tokens.value.reshape(2, 3, 3)
    swapped = tokens._replace(value=rows[:, jnp.array([1, 0, 2])].reshape(2, -1))
    for positions, sees in (("none", False), ("rotary", True), ("learned", True)):
        config = dataclasses.replace(CONFIG, positions=positions, num_layers=1, context=4)
        model = token_model(config, VOCABULARY)
        params = jax.tree.map(lambda x: 4.0 * x, jax.jit(model.init)(jax.random.key(3)))
        apply = jax.jit(model.apply)
        gap = np.abs(apply(params, tokens)[:, -1] - apply(params, swapped)[:, -1]).max()
        assert (gap > 1e-3) == sees, (positions, gap)


@pytest.mark.slow
def test_learned_positions_end_loudly():
    """A time beyond the table makes outputs NaN, not those of a wrong place; a cache is refused."""
    model, params = positioned("learned", context=4)
    apply = jax.jit(model.apply)
    assert np.isfinite(apply(params, random_tokens(DISCRETE, 4))).all()
    out = apply(params, random_tokens(DISCRETE, 5))
    assert np.isnan(out[:, 12:]).all()
    policy = sequence.policy(model, DISCRETE, "argmax")
    inputs = jnp.zeros((2, 2)), jnp.ones(2, bool), jax.random.key(0)
    known = sequence.SequenceParams(params, codec_of(DISCRETE))
    with pytest.raises(ValueError, match='positions: got "learned", expected "rotary" or "none"'):
        policy.act(known, policy.init(2), *inputs)
