"""Auto-reset from pools and from hashed words: true last observations, unbiased first states."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import envs
from envs.common.branch import when
from envs.vector import VectorEnv, broadcast_params

CARTPOLES = ("gymnax/CartPole-v1", "classic/CartPole-v1")
LIMIT = {"gymnax/CartPole-v1": "max_steps_in_episode", "classic/CartPole-v1": "max_steps"}


def rollout(vector, params, num_steps, seed=0, action=None):
    """All transitions `[T, B, ...]` and states after each step, under random actions."""

    def step(state, key):
        key_action, key_step = jax.random.split(key)
        lanes = state.env.time.shape
        chosen = jax.random.randint(key_action, lanes, 0, 2) if action is None else action(lanes)
        state, out = vector.step(key_step, state, chosen)
        return state, (out, state)

    def run(key):
        key_reset, key_steps = jax.random.split(key)
        state = vector.reset(key_reset, params)
        return jax.lax.scan(step, state, jax.random.split(key_steps, num_steps))[1]

    return jax.device_get(jax.jit(run)(jax.random.key(seed)))


def check_ends(env, params, out, states):
    """What a reset replaced is the true end, and the next state is a first state."""
    done = out.terminated | out.truncated
    assert done.sum() > 20
    assert (np.abs(out.obs[done]) <= 0.05).all()
    assert (states.env.time[done] == 0).all()
    np.testing.assert_array_equal(out.obs[~done], out.final_obs[~done])
    outside = (np.abs(out.final_obs[..., 0]) > 2.4) | (
        np.abs(out.final_obs[..., 2]) > np.float32(12 * 2 * np.pi / 360)
    )
    np.testing.assert_array_equal(out.terminated, outside)
    np.testing.assert_array_equal(out.obs, states.obs)


@pytest.mark.fast("own tasks-classic/CartPole-v1")
@pytest.mark.parametrize("env_id", CARTPOLES)
@pytest.mark.parametrize("shared", [True, False], ids=["one task", "own tasks"])
def test_ends_are_true_and_starts_are_fresh(env_id, shared):
    env, params = envs.make(env_id)
    if shared:
        vector, tasks = VectorEnv(env, num_lanes=16, pool_size=5), params
    else:
        vector, tasks = VectorEnv(env, pool_size=2), broadcast_params(params, 16)
    out, states = rollout(vector, tasks, 300)
    check_ends(env, params, out, states)
    done = out.terminated | out.truncated
    if env_id.startswith("classic") or not shared:
        starts = out.obs[done]
        assert len(np.unique(starts, axis=0)) == len(starts), "an episode was dealt twice"


def test_a_pool_is_dealt_in_full_before_it_is_drawn_anew():
    env, params = envs.make("gymnax/CartPole-v1")
    vector = VectorEnv(env, num_lanes=4, pool_size=8)
    out, states = rollout(vector, params, 400)
    done = out.terminated | out.truncated
    starts = out.obs[done]
    assert len(np.unique(starts, axis=0)) == len(starts) > 50
    # Drawn anew only when fewer than the wanted states are left.
    num_taken = states.pool.num_taken
    assert num_taken.max() <= 8
    renewals = np.flatnonzero(np.diff(num_taken) < 0)
    assert (num_taken[renewals] + done[renewals + 1].sum(1) > 8).all()
    assert 0 < len(renewals) <= done.sum() / 5


def test_more_ends_than_a_pool_holds_share_first_states_and_nothing_worse():
    env, params = envs.make("gymnax/CartPole-v1", max_steps_in_episode=3)
    out, _ = rollout(VectorEnv(env, num_lanes=6, pool_size=4), params, 9)
    starts = out.obs[2]
    assert out.truncated[2].all()
    assert len(np.unique(starts, axis=0)) == 4
    assert len(np.unique(out.obs[[2, 5, 8]].reshape(-1, 4), axis=0)) == 12


@functools.cache
def first_states(env_id, kind):
    """First observations after auto-resets, `[N, 4]`, and the lengths of the episodes."""
    env, params = envs.make(env_id)
    vector = {
        "pool": lambda: VectorEnv(env, num_lanes=64, pool_size=16),
        "shared": lambda: VectorEnv(env, num_lanes=64),
        "drawn": lambda: VectorEnv(env, num_lanes=64, pool_size=0),
    }[kind]()
    out, states = rollout(vector, params, 900, seed=3)
    done = out.terminated | out.truncated
    times = np.concatenate([np.zeros((1, 64), int), states.env.time[:-1]])
    return out.obs[done], times[done] + 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env_id", "kind"),
    [("gymnax/CartPole-v1", "pool"), ("gymnax/CartPole-v1", "shared"), ("classic/CartPole-v1", "shared")],
)
def test_auto_reset_has_the_distribution_of_reset(env_id, kind):
    starts, lengths = first_states(env_id, kind)
    env, params = envs.make(env_id)
    keys = jax.random.split(jax.random.key(9), len(starts))
    oracle = np.asarray(jax.jit(jax.vmap(env.reset, in_axes=(0, None)))(keys, params)[0])
    assert len(starts) > 2000
    for i in range(4):
        assert scipy.stats.ks_2samp(starts[:, i], oracle[:, i]).pvalue > 1e-3
    # Dependent components would pass one by one.
    correlation = np.corrcoef(starts.T) - np.eye(4)
    assert np.abs(correlation).max() < 5 / np.sqrt(len(starts))
    # Episodes are as long as those whose resets are drawn in every lane and step.
    _, expected = first_states("gymnax/CartPole-v1", "drawn")
    assert scipy.stats.ks_2samp(lengths, expected).pvalue > 1e-3
    assert abs(lengths.mean() - expected.mean()) < 5 * expected.std() * np.sqrt(2 / len(lengths))


def test_when_under_vmap_equals_a_loop():
    def grow(x, y):
        return {"a": x["a"] + y, "b": x["b"] * 2}

    predicate = jnp.array([True, False, True])
    x = {"a": jnp.arange(3.0), "b": jnp.arange(6, dtype=jnp.int32).reshape(3, 2)}
    y = jnp.array([10.0, 20.0, 30.0])
    batched = jax.jit(jax.vmap(lambda p, x, y: when(p, grow, x, y)))(predicate, x, y)
    for i in range(3):
        one = when(predicate[i], grow, jax.tree.map(lambda v, i=i: v[i], x), y[i])
        for got, want in zip(jax.tree.leaves(batched), jax.tree.leaves(one), strict=True):
            np.testing.assert_array_equal(got[i], want)


def test_when_stays_a_branch_under_two_vmaps():
    def cond_of(fn, *args):
        text = str(jax.make_jaxpr(fn)(*args))
        return text.count("cond[")

    def double(x):
        return x * 2

    flags, x = jnp.zeros((2, 3), bool), jnp.ones((2, 3))
    twice = jax.vmap(jax.vmap(lambda p, x: when(p, double, x)))
    assert cond_of(twice, flags, x) == 1
    plain = jax.vmap(jax.vmap(lambda p, x: jax.lax.cond(p, double, lambda x: x, x)))
    assert cond_of(plain, flags, x) == 0, "lax.cond alone becomes a select"
    np.testing.assert_array_equal(jax.jit(twice)(flags.at[1, 2].set(True), x)[1], [1, 1, 2])


@pytest.mark.slow
def test_seeds_as_vmapped_batches_equal_a_loop():
    env, params = envs.make("gymnax/CartPole-v1")
    vector = VectorEnv(env, num_lanes=4, pool_size=3)

    def run(key):
        key_reset, key_steps = jax.random.split(key)

        def step(state, t):
            key = jax.random.fold_in(key_steps, t)
            state, out = vector.step(key, state, jnp.ones(4, jnp.int32))
            return state, out.obs

        state = vector.reset(key_reset, params)
        return jax.lax.scan(step, state, jnp.arange(60))[1]

    keys = jax.random.split(jax.random.key(0), 3)
    batched = jax.jit(jax.vmap(run))(jax.random.clone(keys))
    for i in range(3):
        np.testing.assert_allclose(batched[i], jax.jit(run)(keys[i]), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("env_id", ["classic/CartPole-v1", "minatar/Breakout"])
def test_a_compact_environment_renders_what_a_full_one_carries(env_id):
    env, params = envs.make(env_id, max_steps=5)
    full, compact = VectorEnv(env, 3), VectorEnv(env, 3, is_compact=True)
    a, b = full.reset(jax.random.key(0), params), compact.reset(jax.random.key(0), params)
    assert b.obs == ()
    for t in range(12):
        np.testing.assert_array_equal(full.observe(a), compact.observe(b))
        action = jnp.array([0, 1, 2], jnp.int32)
        a, out = full.step(jax.random.key(t), a, action)
        b, same = compact.step(jax.random.key(t), b, action)
        for x, y in zip(jax.tree.leaves((a.env, out)), jax.tree.leaves((b.env, same)), strict=True):
            np.testing.assert_array_equal(x, y)
        np.testing.assert_array_equal(out.obs, a.obs)


def test_a_compact_environment_needs_an_observable_state():
    env, params = envs.make("gymnax/CartPole-v1")
    with pytest.raises(ValueError, match="is_compact"):
        VectorEnv(env, 3, is_compact=True).reset(jax.random.key(0), params)


@pytest.mark.slow
def test_tasks_of_lanes_stay_apart_in_the_hashed_path():
    env, params = envs.make("classic/CartPole-v1")
    lengths = jnp.array([0.5, 1.0, 2.0], jnp.float32)
    tasks = broadcast_params(params, 3)._replace(length=lengths, max_steps=jnp.full((3,), 6, jnp.int32))
    out, states = rollout(VectorEnv(env), tasks, 30, action=lambda n: jnp.ones(n, jnp.int32))
    np.testing.assert_array_equal(states.params.length[-1], lengths)
    keys = jax.random.split(jax.random.key(0), 3)
    before = jax.tree.map(lambda x: x[-2], states)
    again = jax.vmap(env.step)(keys, before.env, jnp.ones(3, jnp.int32), tasks)
    np.testing.assert_allclose(out.final_obs[-1], again[0], atol=1e-6)


def test_words_and_keys_agree_on_one_lane():
    """The keyed `reset` of one lane and the hashed batch draw from the same distribution."""
    env, params = envs.make("classic/Pendulum-v1")
    batch = VectorEnv(env, 4000).reset(jax.random.key(0), params).env
    keys = jax.random.split(jax.random.key(1), 4000)
    single = jax.jit(jax.vmap(env.reset, in_axes=(0, None)))(keys, params)[1]
    for field in ("theta", "theta_dot"):
        assert scipy.stats.ks_2samp(getattr(batch, field), getattr(single, field)).pvalue > 1e-3


@pytest.mark.fast("classic/CartPole-v1")
@pytest.mark.parametrize("env_id", ["classic/CartPole-v1", "minatar/Breakout", "minatar/SpaceInvaders"])
def test_a_hashed_batch_steps_as_single_lanes_do(env_id):
    """Neither is random in a step, so the batch and a `vmap` of `step` must agree."""
    env, params = envs.make(env_id, max_steps=7)
    vector = VectorEnv(env, 5)
    state = vector.reset(jax.random.key(0), params)
    single = jax.jit(jax.vmap(env.step, in_axes=(None, 0, 0, None)))
    step = jax.jit(vector.step)
    for t in range(20):
        action = jnp.arange(5, dtype=jnp.int32) % env.action_spec[0].cardinality
        want = single(jax.random.key(0), state.env, action, params)
        state, out = step(jax.random.key(t), state, action)
        got = (out.final_obs, out.reward, out.terminated, out.truncated)
        for x, y in zip(got, (want[0], *want[2:5]), strict=True):
            np.testing.assert_allclose(x, y, atol=1e-6)
        done = np.asarray(out.terminated | out.truncated)
        assert done.all() == (t % 7 == 6) or done.any()
        assert (np.asarray(state.env.time)[done] == 0).all()


def test_a_key_that_was_used_is_refused():
    env, params = envs.make("classic/CartPole-v1")
    vector, key = VectorEnv(env, 2), jax.random.key(0)
    state = vector.reset(key, params)
    with pytest.raises(jax.errors.KeyReuseError):
        vector.step(key, state, jnp.zeros(2, jnp.int32))


@pytest.mark.parametrize("env_id", CARTPOLES)
def test_wrong_shapes_are_named(env_id):
    env, params = envs.make(env_id)
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="expected leaves"):
        VectorEnv(env).reset(key, params)
    with pytest.raises(ValueError, match="all 4 lanes share"):
        VectorEnv(env, 4).reset(key, broadcast_params(params, 4))
    with pytest.raises(ValueError, match=r"0 .no pool. or more"):
        VectorEnv(env, 4, pool_size=-1).reset(key, params)
    state = VectorEnv(env, 4).reset(key, params)
    for action in (jnp.zeros((), jnp.int32), jnp.zeros(3, jnp.int32), jnp.zeros(4)):
        with pytest.raises(ValueError, match=r"expected integer \(4,\)"):
            VectorEnv(env, 4).step(jax.random.key(1), state, action)
