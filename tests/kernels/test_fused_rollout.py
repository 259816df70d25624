"""`kernels.rollout` against stepping lane by lane with `VectorEnv`: the same games by the same words."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from machines import CALLS, num_calls

import envs
from envs.vector import VectorEnv
from envs.words import below, consume, lane_step, seed_of
from kernels.rollout import cost, linear, perceptron, rollout

T, B = 40, 5
FEATURES = {
    "classic/CartPole-v1": lambda s: [s.x, s.x_dot, s.theta, s.theta_dot],
    "minatar/Breakout": lambda s: [x.astype(jnp.float32) for x in (s.ball_x, s.ball_y, s.pos)],
}


def layer(seed, *shape):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=shape), jnp.float32), jnp.asarray(
        rng.normal(size=shape[-1]), jnp.float32
    )


def policy_of(kind, name, num_actions):
    """`act(words, state)` of a random, a linear or a small policy of layers."""
    features = FEATURES[name]
    size = {"classic/CartPole-v1": 4, "minatar/Breakout": 3}[name]
    if kind == "random":
        return lambda words, state: below(words[0], num_actions)
    if kind == "linear":
        best = linear(layer(0, size, num_actions))
    else:
        best = perceptron([layer(0, size, 8), layer(1, 8, num_actions)])
    return lambda words, state: best(features(state))


def stepped(env, task, act, state, keys):
    """The same by `VectorEnv`, whose steps take keys."""
    vector = VectorEnv(env, num_lanes=B)

    def step(state, key):
        consume(key)
        words = envs.words.words_of(
            seed_of(key), jnp.arange(B, dtype=jnp.uint32), 1, envs.words.ACTION_STREAM
        )
        action = act(words, state.env)
        state, transition = vector.step(jax.random.clone(key), state, action)
        return state, (action, transition.reward, transition.terminated, transition.truncated)

    return jax.lax.scan(step, state, keys)


@pytest.mark.parametrize("kind", ["perceptron", "linear", "random"])
@pytest.mark.parametrize("name", list(FEATURES))
def test_games_are_those_of_the_vector_environment(name, kind):
    env, task = envs.make(name, max_steps=15)
    act = policy_of(kind, name, env.action_spec[0].cardinality)
    state = VectorEnv(env, num_lanes=B).reset(jax.random.key(0), task)
    keys = jax.random.split(jax.random.key(1), T)
    step, seeds = lane_step(env, act, task), seed_of(jax.random.clone(keys))
    last, told = stepped(env, task, act, state, keys)
    for how in ("xla", "interpret"):
        got_last, got = rollout(step, state.env, seeds, implementation=how)
        assert (got.terminated | got.truncated).any()
        for x, y in zip(jax.tree.leaves((got_last, got)), jax.tree.leaves((last.env, told)), strict=True):
            assert x.dtype == y.dtype
            if x.dtype == jnp.float32:
                np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6)
            else:
                np.testing.assert_array_equal(x, y)
    for platform in CALLS:

        def run(state):
            return rollout(step, state, seeds, implementation="pallas")

        assert num_calls(run, state.env, platform=platform)


@pytest.mark.accelerator
@pytest.mark.parametrize("name", list(FEATURES))
def test_the_device_plays_the_same_games(name):
    """Up to where rounding turns an action: by random actions, of which none does."""
    env, task = envs.make(name, max_steps=15)
    step = lane_step(env, policy_of("random", name, env.action_spec[0].cardinality), task)
    state = VectorEnv(env, num_lanes=B).reset(jax.random.key(0), task).env
    seeds = seed_of(jax.random.split(jax.random.key(1), T))

    def of(how):
        return jax.jit(lambda state: rollout(step, state, seeds, implementation=how))(state)

    for got, expected in zip(*map(jax.tree.leaves, (of("pallas"), of("xla"))), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.accelerator
def test_the_device_differentiates_a_rollout():
    """Of a state that moves by a parameter: no game here is smooth, but a step may be."""

    def total(gain, implementation):
        def step(state, lane, seed):
            moved = state + gain * jnp.sin(state) + 0.01 * (seed & 7).astype(jnp.float32)
            return moved, moved

        return jnp.sum(rollout(step, jnp.arange(1.0, 4.0), jnp.arange(6), implementation=implementation)[1])

    got, expected = (jax.grad(total)(jnp.float32(0.1), how) for how in ("pallas", "xla"))
    np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_a_policy_is_the_best_of_its_scores():
    layers = [layer(0, 3, 8), layer(1, 8, 4)]
    x = np.random.default_rng(2).normal(size=(3, 50)).astype(np.float32)
    (w, b), (v, c) = ([np.asarray(x) for x in one] for one in layers)
    expected = np.argmax(np.tanh(x.T @ w + b) @ v + c, axis=-1)
    np.testing.assert_array_equal(perceptron(layers)(list(x)), expected)
    same = linear((jnp.zeros((3, 4)), jnp.zeros(4)))(list(x))
    np.testing.assert_array_equal(same, np.zeros(50))  # the first of equal scores


def test_policies_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"weights of shape \(8, 4\), expected \(7, 4\)"):
        perceptron([layer(0, 3, 7), layer(1, 8, 4)])
    with pytest.raises(ValueError, match="expected at most 1024"):
        perceptron([layer(0, 4, 64), layer(1, 64, 64)])
    with pytest.raises(ValueError, match="got 2 features, expected 3"):
        linear(layer(0, 3, 4))([jnp.zeros(1)] * 2)


@pytest.mark.parametrize("state", [(), (jnp.ones(2), jnp.ones(3)), jnp.float32(0.0)])
def test_a_state_without_lanes_is_refused(state):
    with pytest.raises(ValueError, match="rollout: got a state of leaves"):
        rollout(lambda state, lane, seed: (state, state), state, jnp.arange(2))


def test_its_cost_counts_states_once():
    operations, size = cost(128, 8192, num_fields=5, num_outputs=0, operations=80)
    assert (operations, size) == (80 * 128 * 8192, 4 * 8192 * 10 + 8 * 128)
