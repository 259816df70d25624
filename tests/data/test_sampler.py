"""Windows: they stay in their episode, every step may start one, and a key says which."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from envs.types import Component
from jaxagent.config import TokenConfig
from jaxagent.data import sampler
from jaxagent.tokens import component, scalar
from jaxagent.tokens.tokenizer import Tokenizer
from jaxagent.types import Trajectory

FEW = settings(max_examples=15, deadline=None, derandomize=True)
CONFIG = TokenConfig(num_bins=16, obs_bins="uniform")
OBS = (Component("step", "real"), Component("lane", "real"))
DISCRETE = (Component("button", "category", cardinality=7),)
BOX = (Component("x", "real", 0.0, 20.0), Component("y", "real", 0.0, 20.0))
T, B, K = 5, 2, 3
draw = jax.jit(sampler.sample, static_argnums=(2, 3))


def trajectory(ends=None, spec=DISCRETE, num_steps=T):
    """Observations say (step, lane), so that a window tells where it was cut."""
    step, lane = np.meshgrid(np.arange(num_steps), np.arange(B), indexing="ij")
    obs = np.stack([step, lane], axis=-1).astype(np.float32)
    action = ((step + 3 * lane) % 7).astype(np.int32) if spec is DISCRETE else 2 * obs
    terminated, truncated = np.zeros((2, num_steps, B), bool)
    if ends is not None:
        terminated, truncated = ends
    return Trajectory(obs, action, obs[..., 0], terminated, truncated, obs)


def build(trajectories, context=K, num_steps=None, spec=DISCRETE):
    (domain,) = component.domains([(OBS, spec)])
    stacked = np.array([[0.0, 0.0], [float(T), float(B)]])
    codec = component.fit(stacked, np.zeros((2, 2)), spec, CONFIG)
    made = Tokenizer("test", ("step", "lane", *(c.name for c in spec)), domain, codec, CONFIG)
    return sampler.windows(trajectories, made, context, num_steps), made


def episodes(trajectories):
    """Every step as (source, lane, step) with its episode, by a plain loop."""
    number, found = 0, {}
    for source, t in enumerate(trajectories):
        for lane in range(t.obs.shape[1]):
            for step in range(len(t.obs)):
                found[(source, lane, step)] = number
                last = step == len(t.obs) - 1
                number += bool(last or t.terminated[step, lane] or t.truncated[step, lane])
    return found


@FEW
@given(arrays(bool, (2, T, B)), st.sampled_from([1, K]))
def test_a_window_is_consecutive_steps_of_one_episode_up_to_its_end(ends, context):
    t = trajectory(ends)
    data, made = build([t], context)
    batch = draw(data, jax.random.key(0), 300, context)
    assert batch.obs.shape == (300, context, 2)
    assert batch.unit.shape == (300, context, 3)
    episode_of = episodes([t])
    obs, real = np.asarray(batch.obs), np.asarray(batch.is_real)
    starts = set()
    for row, is_real in zip(obs, real, strict=True):
        step, lane = int(row[0, 0]), int(row[0, 1])
        starts.add((lane, step))
        own = episode_of[(0, lane, step)]
        for k in range(context):
            inside = episode_of.get((0, lane, step + k)) == own
            assert is_real[k] == inside
            if inside:
                assert tuple(row[k]) == (step + k, lane)
    assert len(starts) == T * B  # every real step may start a window
    action = (obs[..., 0] + 3 * obs[..., 1]) % 7
    np.testing.assert_array_equal(batch.unit[real], made.unit(batch.obs, jnp.asarray(action))[real])
    tokens = component.encode_obs(made.codec, made.domain, 16, batch.obs)
    in_bins = component.tokens_of(made.domain.sizes, 16, batch.unit)
    np.testing.assert_array_equal(in_bins[real][:, :2], tokens[real])
    np.testing.assert_array_equal(in_bins[real][:, 2], 16 + action[real])


def test_episodes_end_at_terminations_truncations_and_lane_ends():
    ends = np.zeros((2, T, B), bool)
    ends[0, 1, 0] = True  # lane 0: a termination after step 1
    ends[1, 2, 1] = True  # lane 1: a truncation after step 2
    data, _ = build([trajectory(ends), trajectory(num_steps=2)])
    expected = [0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 4, 4, 5, 5]
    np.testing.assert_array_equal(data.segment, [*expected, -1, -1])
    lanes = [0] * 5 + [1] * 5 + [0, 0, 1, 1]
    np.testing.assert_array_equal(data.obs[:14, 1], lanes)


def test_continuous_actions_have_a_scalar_a_component():
    data, made = build([trajectory(spec=BOX)], spec=BOX)
    assert data.unit.shape == (T * B + K - 1, 4)
    back = made.action_of_unit(data.unit[: T * B, 2:])
    np.testing.assert_allclose(back, 2 * data.obs[: T * B], atol=1e-5)


def test_steps_are_equally_likely():
    data, _ = build([trajectory()])
    batch = draw(data, jax.random.key(0), 5000, K)
    start = (batch.obs[:, 0, 0] + T * batch.obs[:, 0, 1]).astype(jnp.int32)
    observed = np.bincount(start, minlength=T * B)
    assert scipy.stats.chisquare(observed).pvalue > 0.01


def test_steps_are_equally_likely_also_where_the_data_were_padded():
    data, _ = build([trajectory()], num_steps=15)
    batch = draw(data, jax.random.key(0), 5000, K)
    start = (batch.obs[:, 0, 0] + T * batch.obs[:, 0, 1]).astype(jnp.int32)
    observed = np.bincount(start, minlength=T * B)
    assert scipy.stats.chisquare(observed).pvalue > 0.01


@pytest.mark.slow
def test_padding_to_a_common_size_makes_data_sets_lanes_of_one_program():
    long, short = trajectory(), trajectory(num_steps=2)
    lanes = [build([t], num_steps=10)[0] for t in (long, short)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *lanes)
    assert stacked.obs.shape == (2, 10 + K - 1, 2)
    keys = jax.random.split(jax.random.key(0), 2)
    batch = jax.jit(jax.vmap(lambda d, k: sampler.sample(d, k, 200, K)))(stacked, keys)
    # Padding never starts a window.
    assert np.asarray(batch.is_real)[:, :, 0].all()
    assert np.asarray(batch.obs)[1, :, 0, 0].max() == 1
    np.testing.assert_array_equal(stacked.segment[1], [0, 0, 1, 1] + [sampler.PADDING] * 8)
    np.testing.assert_array_equal(stacked.obs[1, 4:], 0)
    alone = sampler.sample(lanes[1], jax.random.split(jax.random.key(0), 2)[1], 200, K)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[1], b), batch, alone)


def test_too_small_a_common_size_is_refused():
    with pytest.raises(ValueError, match=r"got 10 steps, expected at most num_steps = 9"):
        build([trajectory()], num_steps=9)


def test_a_batch_is_a_pure_function_of_the_key():
    data, _ = build([trajectory()])
    first, again, other = (draw(data, jax.random.key(s), 50, K) for s in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert (first.obs != other.obs).any()
    eager = sampler.sample(data, jax.random.key(0), 50, K)
    jax.tree.map(np.testing.assert_array_equal, first, eager)


# The saboteur's data.


def big():
    ends = np.zeros((2, 40, B), bool)
    ends[0, 9::10] = True
    return build([trajectory(ends, num_steps=40)], num_steps=90)[0]


def test_shuffled_steps_keep_their_marginals():
    data = big()
    mixed = sampler.shuffled(data, jax.random.key(0))
    for part in (slice(0, 2), slice(2, 3)):  # states and actions
        x, y = (np.asarray(d.unit)[:, part] for d in (data, mixed))
        np.testing.assert_array_equal(x[np.lexsort(x.T)], y[np.lexsort(y.T)])  # rows, as a multiset
        np.testing.assert_array_equal(y[80:], x[80:])
    np.testing.assert_array_equal(mixed.segment, data.segment)
    assert int(mixed.num_real) == int(data.num_real) == 80


def test_shuffled_steps_follow_from_nothing():
    data = big()
    mixed = sampler.shuffled(data, jax.random.key(0))

    def follows(d):
        return np.mean(np.diff(np.asarray(d.obs[:80, 0])) == 1)

    assert follows(data) > 0.9
    assert follows(mixed) < 0.2

    def actions_follow(d):
        action = np.asarray(d.unit[:80, 2])
        return np.mean((np.diff(action) - 1) % 7 == 0)

    assert actions_follow(data) > 0.9
    assert actions_follow(mixed) < 0.4

    # Actions are paired with other observations, places stay with theirs.
    def paired(d):
        return np.mean(np.asarray((d.obs[:80, 0] + 3 * d.obs[:80, 1]) % 7 == d.unit[:80, 2]))

    assert paired(data) == 1
    assert paired(mixed) < 0.4
    pairs = {tuple(map(float, row)) for row in np.hstack([data.obs, data.unit[:, :2]])}
    assert {tuple(map(float, row)) for row in np.hstack([mixed.obs, mixed.unit[:, :2]])} == pairs


def test_renamed_values_are_others_one_to_one_and_follow_each_other_as_before():
    """A real keeps its place inside its bin, a category stays one; steps stay where they were."""
    data, sizes, num_bins = big(), (0, 0, 7), 16
    unit = jnp.concatenate([jnp.linspace(-1, 0.999, len(data.unit))[:, None], data.unit[:, 1:]], axis=1)
    data = data._replace(unit=unit)
    other = sampler.renamed(data, jax.random.key(0), sizes, num_bins)
    for column, size in enumerate(sizes):
        if size:
            bins, named = (np.asarray(d.unit[:, column]).astype(int) for d in (data, other))
        else:
            bins, named = (np.asarray(scalar.bin_of(d.unit[:, column], num_bins)) for d in (data, other))
            inside = [(np.asarray(d.unit[:, column]) + 1) / 2 * num_bins % 1 for d in (data, other)]
            np.testing.assert_allclose(*inside, atol=1e-4)
        pairs = set(zip(bins.tolist(), named.tolist(), strict=True))
        assert len(pairs) == len(set(bins)) == len(set(named))
        assert (bins != named)[: int(data.num_real)].all()
        assert 0 <= named.min() <= named.max() < (size or num_bins)
    assert np.mean(np.abs(np.asarray(other.unit[:, 0] - data.unit[:, 0]))) > 0.3
    np.testing.assert_array_equal(other.segment, data.segment)
    again = sampler.renamed(data, jax.random.key(0), sizes, num_bins)
    np.testing.assert_array_equal(again.unit, other.unit)


def test_shuffling_is_a_pure_function_of_the_key():
    data = big()
    first, again, other = (sampler.shuffled(data, jax.random.key(s)) for s in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert (first.obs != other.obs).any()
