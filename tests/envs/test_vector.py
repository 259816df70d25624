"""Batched stepping: true last observations, fresh reset draws, tasks and lanes that stay apart."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import envs
from envs.probes import Probe
from envs.vector import VectorEnv, broadcast_params, num_lanes

CARTPOLE = "gymnax/CartPole-v1"


@functools.cache
def cartpole():
    env, params = envs.make(CARTPOLE)
    vector = VectorEnv(env)
    return env, params, vector, jax.jit(vector.reset), jax.jit(vector.step), jax.jit(env.step)


def stack(tasks):
    return jax.tree.map(lambda *x: jnp.stack(x), *tasks)


def lane(tree, i):
    return jax.tree.map(lambda x: x[i], tree)


def run(params, num_steps, seed=0, actions=None):
    """Step all lanes; states before each step, transitions and states after, as lists."""
    *_, reset, step, _ = cartpole()
    key_reset, *step_keys = jax.random.split(jax.random.key(seed), num_steps + 1)
    state = reset(key_reset, params)
    before, out, after = [], [], []
    for t, key in enumerate(step_keys):
        action = jnp.ones((num_lanes(params),), jnp.int32) if actions is None else actions[t]
        before.append(state)
        state, transition = step(key, state, action)
        out.append(transition)
        after.append(state)
    return before, out, after


def test_auto_reset_keeps_the_true_last_observation():
    env, params, _, _, _, step = cartpole()
    limits = [jnp.array(n, jnp.int32) for n in (2, 3, 50)]
    tasks = stack([params.replace(max_steps_in_episode=limit) for limit in limits])
    before, out, after = run(tasks, 12)  # pushing right topples the third lane after 8 to 10 steps
    seen = {"goes on": 0, "terminated": 0, "truncated": 0}
    for state, transition, nxt in zip(before, out, after, strict=True):
        for i in range(3):
            true_obs, true_state, reward, terminated, truncated, _ = step(
                jax.random.key(0), lane(state.env, i), jnp.array(1, jnp.int32), lane(tasks, i)
            )
            got = lane(transition, i)
            np.testing.assert_allclose(got.final_obs, true_obs, rtol=1e-6)
            np.testing.assert_array_equal(got.reward, reward)
            assert bool(got.terminated) == bool(terminated)
            assert bool(got.truncated) == bool(truncated)
            np.testing.assert_array_equal(got.obs, nxt.obs[i])
            if terminated or truncated:
                seen["terminated" if terminated else "truncated"] += 1
                assert int(nxt.env.time[i]) == 0
                assert np.abs(np.asarray(got.obs)).max() <= 0.05
                assert not np.array_equal(got.obs, got.final_obs)
                state_obs = [float(getattr(nxt.env, f)[i]) for f in ("x", "x_dot", "theta")]
                np.testing.assert_array_equal(np.asarray(got.obs)[:3], np.float32(state_obs))
            else:
                seen["goes on"] += 1
                np.testing.assert_array_equal(got.obs, got.final_obs)
                assert int(nxt.env.time[i]) == int(true_state.time)
    assert seen["goes on"] > 10
    assert seen["terminated"] >= 1
    assert seen["truncated"] >= 8
    assert env.max_steps == 500, "the lanes' limits are those of their tasks"


@functools.cache
def reset_draws():
    """First observations of 8 resets in 250 lanes, `[8, 250, 4]`: every episode lasts one step."""
    _, params, *_ = cartpole()
    one_step = params.replace(max_steps_in_episode=jnp.array(1, jnp.int32))
    _, out, _ = run(broadcast_params(one_step, 250), 8, seed=2)
    assert all(np.asarray(t.truncated).all() for t in out)
    return np.stack([np.asarray(t.obs) for t in out])


def test_reset_draws_differ_between_lanes_and_between_resets():
    draws = reset_draws()[..., 0]
    assert len(np.unique(draws)) == draws.size
    _, params, _, reset, *_ = cartpole()
    first = np.asarray(reset(jax.random.key(5), broadcast_params(params, 4)).obs)
    assert len(np.unique(first[:, 0])) == 4


def test_reset_draws_follow_the_distribution_of_reset():
    env, params, *_ = cartpole()
    draws = reset_draws().reshape(-1, 4)
    keys = jax.random.split(jax.random.key(3), 2000)
    oracle = np.asarray(jax.vmap(env.reset, in_axes=(0, None))(keys, params)[0])
    for i in range(4):
        assert scipy.stats.ks_2samp(draws[:, i], oracle[:, i]).pvalue > 0.01
        assert scipy.stats.kstest(draws[:, i], "uniform", args=(-0.05, 0.1)).pvalue > 0.01
    # A draw says nothing of its neighbour: next lane, next reset.
    grid = reset_draws()[..., 0]
    for a, b in ((grid[:, :-1], grid[:, 1:]), (grid[:-1], grid[1:])):
        assert abs(scipy.stats.pearsonr(a.ravel(), b.ravel()).statistic) < 0.1  # 4 deviations


def test_lanes_with_different_params_stay_different_tasks():
    lengths = (0.5, 1.0, 2.0)
    tasks = stack([envs.make(CARTPOLE, length=x, max_steps_in_episode=4)[1] for x in lengths])
    before, out, after = run(tasks, 10)
    *_, step = cartpole()
    for x, y in zip(jax.tree.leaves(after[-1].params), jax.tree.leaves(tasks), strict=True):
        np.testing.assert_array_equal(x, y)
    # After several resets each lane still moves by its own task and not by its neighbour's.
    for i in range(3):
        state = lane(before[-1].env, i)
        by_task = [
            np.asarray(step(jax.random.key(0), state, jnp.array(1, jnp.int32), lane(tasks, j))[0])
            for j in range(3)
        ]
        np.testing.assert_allclose(out[-1].final_obs[i], by_task[i], rtol=1e-6)
        for j in {0, 1, 2} - {i}:
            assert abs(by_task[j][3] - by_task[i][3]) > 1e-3


@pytest.mark.parametrize("changed", [0, 2])
def test_no_leak_between_lanes(changed):
    _, params, *_ = cartpole()
    tasks = broadcast_params(params, 4)
    rng = np.random.default_rng(0)
    actions = rng.integers(0, 2, (30, 4)).astype(np.int32)
    other = actions.copy()
    other[:, changed] = 1 - other[:, changed]
    _, out, _ = run(tasks, 30, seed=4, actions=jnp.asarray(actions))
    _, out_other, _ = run(tasks, 30, seed=4, actions=jnp.asarray(other))
    assert any(np.asarray(t.terminated).any() for t in out), "resets must be part of the test"
    same = [i for i in range(4) if i != changed]
    for a, b in zip(out, out_other, strict=True):
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
            np.testing.assert_array_equal(np.asarray(x)[same], np.asarray(y)[same])
    assert not np.array_equal(out[-1].final_obs[changed], out_other[-1].final_obs[changed])


def test_broadcast_params_repeats_one_task():
    _, params, *_ = cartpole()
    many = broadcast_params(params, 5)
    assert num_lanes(many) == 5
    for x, y in zip(jax.tree.leaves(many), jax.tree.leaves(params), strict=True):
        assert x.shape == (5,)
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, np.full((5,), y))


@pytest.mark.parametrize(
    ("shown", "said"),
    [(lambda x: {"signal": x}, "got a dict for"), (lambda x: x[0], r"got an array of shape \(\) for")],
    ids=["dict", "scalar"],
)
def test_observations_unlike_what_is_declared_are_named(shown, said):
    class Lying(Probe):
        def _observe(self, state):
            return shown(super()._observe(state))

    env = Lying()
    with pytest.raises(ValueError, match=rf"probe/Lying: {said} an observation, expected an array .* \(1,\)"):
        VectorEnv(env, num_lanes=2).reset(jax.random.key(0), env.default_params)
