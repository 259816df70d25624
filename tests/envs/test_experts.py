"""Scripted experts come near what is reachable; random play stays far below."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.experts import EXPERTS, expert
from envs.names import UnknownName
from envs.types import sample_action

# env -> (the expert's mean is above, the mean of random actions is below)
BOUNDS = {
    "classic/CartPole-v1": (499.0, 40.0),  # 500 is the maximum
    "classic/Acrobot-v1": (-100.0, -450.0),  # gymnasium calls -100 solved
    "classic/Pendulum-v1": (-180.0, -900.0),  # good agents reach about -150
    "classic/MountainCar-v0": (-130.0, -199.0),  # the best is about -100
    "classic/MountainCarContinuous-v0": (85.0, -20.0),  # 90 is solved
    "minatar/Breakout": (50.0, 2.0),
    "minatar/Freeway": (12.0, 2.0),
}


def mean_return(env, params, policy, lanes=32):
    """Mean return of one episode a lane; `policy(key, state) -> action`."""

    def episode(key):
        key_reset, key_steps = jax.random.split(key)
        _, state = env.reset(key_reset, params)

        def step(carry, t):
            state, alive, total = carry
            key_action, key_step = jax.random.split(jax.random.fold_in(key_steps, t))
            action = policy(key_action, state)
            _, state, reward, terminated, truncated, _ = env.step(key_step, state, action, params)
            total = total + jnp.where(alive, reward, 0.0)
            return (state, alive & ~(terminated | truncated), total), None

        start = state, jnp.array(True), jnp.zeros(())
        return jax.lax.scan(step, start, jnp.arange(env.max_steps))[0][2]

    keys = jax.random.split(jax.random.key(3), lanes)
    return float(np.mean(jax.jit(jax.vmap(episode))(keys)))


@pytest.mark.parametrize("env_id", BOUNDS)
def test_the_expert_is_near_its_bound_and_random_play_far_below(env_id):
    env, params = envs.make(env_id)
    above, below = BOUNDS[env_id]
    act = expert(env_id)
    assert mean_return(env, params, lambda key, state: act(state, params)) > above
    random = mean_return(env, params, lambda key, state: sample_action(key, env.action_spec))
    assert random < below


def test_every_expert_acts_in_the_space_of_its_environment():
    for env_id, act in EXPERTS.items():
        env, params = envs.make(env_id)
        _, state = env.reset(jax.random.key(0), params)
        action = act(state, params)
        want = sample_action(jax.random.key(1), env.action_spec)
        assert (action.shape, action.dtype) == (want.shape, want.dtype), env_id


def test_an_environment_without_an_expert_is_named():
    with pytest.raises(UnknownName, match="with a scripted expert"):
        expert("probe/DelayedReward")
