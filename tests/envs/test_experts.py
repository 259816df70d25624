"""Scripted experts come near what is reachable; random play stays far below."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from extras import need

import envs
from envs.common.names import UnknownName
from envs.experts import EXPERTS, expert
from envs.types import sample_action

# env -> (the expert's mean is above, the mean of random actions is below)
BOUNDS = {
    "classic/CartPole-v1": (499.0, 40.0),  # 500 is the maximum
    "classic/Acrobot-v1": (-100.0, -450.0),  # gymnasium calls -100 solved
    "classic/Pendulum-v1": (-180.0, -900.0),  # good agents reach about -150
    "classic/MountainCar-v0": (-130.0, -199.0),  # the best is about -100
    "classic/MountainCarContinuous-v0": (85.0, -20.0),  # 90 is solved
    "memory/RepeatFirst": (0.999, -0.2),  # 1 is the maximum of all cards
    "memory/RepeatPrevious": (0.999, -0.2),
    "memory/CountRecall": (0.999, -0.6),
    "memory/Autoencode": (0.999, -0.2),
    "memory/TMaze": (0.999, 0.2),
    "memory/PositionCartPole": (499.0, 40.0),
    "memory/NoisyPendulum": (-180.0, -900.0),
    "minatar/Asterix": (60.0, 2.0),
    "minatar/Breakout": (50.0, 2.0),
    "minatar/Freeway": (12.0, 2.0),
    "minatar/Seaquest": (65.0, 2.0),
    "minatar/SpaceInvaders": (150.0, 15.0),  # a shot every 5 of 1000 steps: at most 200
    "gymnax/Catch-bsuite": (0.99, 0.2),  # 1 is the maximum
    "gymnax/DeepSea-bsuite": (0.98, 0.1),  # 0.99 is the maximum
    "gymnax/FourRooms-misc": (0.99, 0.7),  # 1 is the maximum
    "xminigrid/MiniGrid-DoorKey-5x5": (0.95, 0.2),
    "xminigrid/MiniGrid-FourRooms": (0.8, 0.2),
    "xminigrid/MiniGrid-LockedRoom": (0.75, 0.1),
}
SLOW_BOUNDS = {
    "gymnax/Breakout-MinAtar": (50.0, 2.0),
    "gymnax/Freeway-MinAtar": (8.0, 2.0),
    "xminigrid/MiniGrid-BlockedUnlockPickUp": (0.75, 0.2),
    "xminigrid/MiniGrid-MemoryS8": (0.95, 0.5),
    "xminigrid/MiniGrid-UnlockPickUp": (0.9, 0.1),
    "brax/inverted_double_pendulum": (9300.0, 500.0),  # below 10 a step
    "brax/inverted_pendulum": (999.0, 60.0),  # 1000 is the maximum
    "brax/reacher": (-40.0, -700.0),
    "xminigrid/MiniGrid-DoorKey-6x6": (0.95, 0.3),
    "xminigrid/MiniGrid-DoorKey-8x8": (0.95, 0.2),
    "xminigrid/MiniGrid-DoorKey-16x16": (0.97, 0.1),
    "xminigrid/MiniGrid-Empty-5x5": (0.95, 0.5),
    "xminigrid/MiniGrid-Empty-6x6": (0.95, 0.5),
    "xminigrid/MiniGrid-Empty-8x8": (0.95, 0.4),
    "xminigrid/MiniGrid-Empty-16x16": (0.95, 0.2),
    "xminigrid/MiniGrid-EmptyRandom-5x5": (0.95, 0.6),
    "xminigrid/MiniGrid-EmptyRandom-6x6": (0.95, 0.6),
    "xminigrid/MiniGrid-EmptyRandom-8x8": (0.95, 0.5),
    "xminigrid/MiniGrid-EmptyRandom-16x16": (0.95, 0.3),
    "xminigrid/MiniGrid-MemoryS16": (0.95, 0.5),
    "xminigrid/MiniGrid-MemoryS32": (0.95, 0.3),
    "xminigrid/MiniGrid-MemoryS64": (0.95, 0.3),
    "xminigrid/MiniGrid-MemoryS128": (0.95, 0.3),
    "xminigrid/MiniGrid-Unlock": (0.95, 0.3),
}
# In one task of sixteen the source puts the obstacle onto the key; nobody can solve that one.
UNSOLVABLE = "xminigrid/MiniGrid-BlockedUnlockPickUp"
MAX_STEPS = {"xminigrid": 300}  # of a family: what is not done by then is not reached
# Looking ahead costs many steps for one; in SpaceInvaders no two episodes of one policy differ.
LANES = {"minatar/Asterix": 8, "minatar/Seaquest": 4, "minatar/SpaceInvaders": 1}
BOARDS = {"pgx/tic_tac_toe": 0.9, "pgx/connect_four": 0.95}  # mean against random play


def returns(env, params, policy, lanes=32):
    """Return of one episode a lane, `[B]`; `policy(key, state) -> action`."""

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

        start = state, jnp.array(True), jnp.zeros(env.num_players if env.num_players > 1 else ())
        limit = MAX_STEPS.get(env.name.split("/")[0], env.max_steps)
        return jax.lax.scan(step, start, jnp.arange(min(env.max_steps, limit)))[0][2]

    keys = jax.random.split(jax.random.key(3), lanes)
    return np.asarray(jax.jit(jax.vmap(episode))(keys))


def marked(rows):
    slow = dict.fromkeys(SLOW_BOUNDS, pytest.mark.slow)
    return [pytest.param(row, marks=slow.get(row, ())) for row in rows]


@pytest.mark.fast("classic/Pendulum-v1", "minatar/Breakout")
@pytest.mark.parametrize("env_id", marked(BOUNDS | SLOW_BOUNDS))
def test_the_expert_is_near_its_bound_and_random_play_far_below(env_id):
    need(env_id.split("/")[0])
    env, params = envs.make(env_id)
    above, below = (BOUNDS | SLOW_BOUNDS)[env_id]
    act = expert(env_id)
    reached = returns(env, params, lambda key, state: act(state, params), LANES.get(env_id, 32))
    assert reached.mean() > above
    if env_id.startswith("xminigrid") and env_id != UNSOLVABLE:
        assert np.all(reached > 0)
    random = returns(env, params, lambda key, state: sample_action(key, env.action_spec))
    assert random.mean() < below


@pytest.mark.slow
@pytest.mark.parametrize("env_id", BOARDS)
def test_the_expert_beats_random_play_on_either_side(env_id):
    need("pgx")
    env, params = envs.make(env_id)
    act = expert(env_id)

    def mean(*strengths):
        def policy(key, state):
            legal = env.legal_actions(state, params)
            random = sample_action(key, env.action_spec, legal)
            is_expert = jnp.array(strengths)[env.current_player(state)]
            return jnp.where(is_expert, act(state, params), random)

        return returns(env, params, policy, lanes=512).mean(0)

    first, second = mean(True, False)[0], mean(False, True)[1]
    assert min(first, second) > BOARDS[env_id] - 0.02
    assert (first + second) / 2 > BOARDS[env_id]
    assert abs(mean(False, False)[0]) < 0.15


def test_every_expert_is_measured():
    # gymnax's classic control shares its states, and so its experts, with ours.
    measured = set(BOUNDS) | set(SLOW_BOUNDS) | set(BOARDS)
    twins = {name.replace("classic/", "gymnax/") for name in BOUNDS if name.startswith("classic/")}
    assert measured | twins == set(EXPERTS)


@pytest.mark.fast(
    "classic/CartPole-v1",
    "gymnax/Pendulum-v1",
    "minatar/Breakout",
    "pgx/tic_tac_toe",
    "xminigrid/MiniGrid-Empty-5x5",
)
@pytest.mark.parametrize("env_id", EXPERTS)
def test_every_expert_acts_in_the_space_of_its_environment(env_id):
    need(env_id.split("/")[0])
    env, params = envs.make(env_id)
    _, state = env.reset(jax.random.key(0), params)
    action = jax.eval_shape(EXPERTS[env_id], state, params)
    want = sample_action(jax.random.key(1), env.action_spec)
    assert (action.shape, action.dtype) == (want.shape, want.dtype)


def test_an_environment_without_an_expert_is_named():
    with pytest.raises(UnknownName, match="with a scripted expert"):
        expert("probe/DelayedReward")
