"""Memory worlds against plain Python that sees only what was shown, and their known optima."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import envs
from envs.experts import expert
from envs.types import sample_action

CARDS = {
    "RepeatFirst": {"num_cards": 5},
    "RepeatPrevious": {"lag": 2, "num_cards": 6},
    "CountRecall": {"num_cards": 7},
    "Autoencode": {"num_cards": 6},
}
TASKS = CARDS | {"TMaze": {"length": 3}, "NoisyPendulum": {}}
LANES, EXPERTS = 96, 8  # of the lanes the last act as the expert does, the others at random


@functools.cache
def episodes(name):
    """Leaves `[T, B, ...]`: obs before, action, reward, terminated, over; and states `[B, T]`."""
    env, params = envs.make(f"memory/{name}", **TASKS[name])
    act = expert(f"memory/{name}")

    def step(key, is_expert, carry, t):
        obs, state, over = carry
        key_act, key_step = jax.random.split(jax.random.fold_in(key, t))
        action = jnp.where(is_expert, act(state, params), sample_action(key_act, env.action_spec))
        after, stepped, reward, terminated, truncated, _ = env.step(key_step, state, action, params)
        return (after, stepped, over | terminated | truncated), (obs, action, reward, terminated, over, state)

    def one(key, lane):
        key_reset, key_steps = jax.random.split(key)
        obs, state = env.reset(key_reset, params)
        run = functools.partial(step, key_steps, lane >= LANES - EXPERTS)
        return jax.lax.scan(run, (obs, state, jnp.array(False)), jnp.arange(60))[1]

    out = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(1), LANES), jnp.arange(LANES))
    return [np.moveaxis(x, 1, 0) for x in jax.device_get(out[:5])], jax.device_get(out[5])


def answers(name, obs, task):
    """Right answers `[T]` from the observations `[T, n]` of one lane alone; -1 where none is asked."""
    suits = obs[:, 0].astype(int)
    if name == "RepeatFirst":
        return np.full(len(suits), suits[0])
    if name == "RepeatPrevious":
        return np.array([suits[t - task["lag"]] if t >= task["lag"] else -1 for t in range(len(suits))])
    if name == "CountRecall":
        return np.array([(suits[: t + 1] == q).sum() for t, q in enumerate(obs[:, 1].astype(int))])
    n = task["num_cards"]
    return np.array([suits[2 * n - 1 - t] if n <= t < 2 * n else -1 for t in range(len(suits))])


@pytest.mark.parametrize("name", CARDS)
def test_right_answers_follow_from_what_was_shown(name):
    (obs, action, reward, terminated, over), _ = episodes(name)
    task = CARDS[name]
    length = task["num_cards"] * (2 if name == "Autoencode" else 1)
    for lane in range(LANES):
        right = answers(name, obs[:length, lane], task)
        asked = right >= 0
        worth = np.where(action[:length, lane] == right, 1.0, -1.0) / asked.sum()
        np.testing.assert_allclose(reward[:length, lane], np.where(asked, worth, 0.0), rtol=1e-6)
    np.testing.assert_array_equal(terminated[:length].sum(0), 1)
    assert terminated[length - 1].all()
    assert not over[length - 1].any()


@pytest.mark.parametrize("name", CARDS)
def test_suits_are_fair_and_unrelated(name):
    (obs, *_), _ = episodes(name)
    shown = obs[:5, :, 0].astype(int)
    counts = np.bincount(shown.reshape(-1), minlength=4)[:4]
    assert scipy.stats.chisquare(counts).pvalue > 1e-3
    pairs = np.bincount((shown[0] * 4 + shown[1]), minlength=16)
    assert scipy.stats.chisquare(pairs).pvalue > 1e-3


@pytest.mark.parametrize("name", [*CARDS, "TMaze"])
def test_who_sees_what_is_hidden_gets_all(name):
    (_, _, reward, _, over), _ = episodes(name)
    np.testing.assert_allclose((reward * ~over).sum(0)[-EXPERTS:], 1.0, rtol=1e-5)
    assert (reward * ~over).sum(0)[:-EXPERTS].mean() < 0.2


@pytest.mark.parametrize("name", [*CARDS, "TMaze"])
def test_a_revealed_world_shows_the_rest(name):
    env, params = envs.make(f"memory/{name}", reveal=True, **TASKS[name])
    plain, _ = envs.make(f"memory/{name}", **TASKS[name])
    (obs, *_), states = episodes(name)
    some = jax.tree.map(lambda x: x[:, 3], states)  # [B]
    seen = np.asarray(jnp.moveaxis(env.observe(some, params), -1, 0))
    np.testing.assert_array_equal(seen[:, :-1], obs[3])
    assert env.obs_spec == plain.obs_spec + env.hidden_spec
    right = some.goal if name == "TMaze" else env.answer(some, params)
    np.testing.assert_array_equal(seen[:, -1], right)


def test_the_maze_by_hand():
    (obs, action, reward, terminated, _), states = episodes("TMaze")
    length = TASKS["TMaze"]["length"]
    for lane in range(LANES):
        position, goal = 0, int(states.goal[lane, 0])
        for t in range(20):
            place = 0 if position == 0 else 2 if position == length else 1
            np.testing.assert_array_equal(obs[t, lane], [place, goal if position == 0 else 0])
            a = action[t, lane]
            if position == length:
                expected, ends = (-0.1, False) if a == 0 else (1.0 if a == goal else -1.0, True)
            else:
                expected, ends = (0.0, False) if a == 0 else (-0.1, False)
                position += a == 0
            np.testing.assert_allclose(reward[t, lane], expected, rtol=1e-6)
            assert terminated[t, lane] == ends
            if ends:
                break
    goals = states.goal[:, 0]
    assert set(goals) == {1, 2}
    assert abs((goals == 1).mean() - 0.5) < 0.25


def test_positions_are_those_of_cartpole():
    plain, params = envs.make("classic/CartPole-v1")
    hiding, _ = envs.make("memory/PositionCartPole")
    key = jax.random.key(0)
    (full, state), (seen, same) = plain.reset(key, params), hiding.reset(jax.random.clone(key), params)
    for t in range(5):
        np.testing.assert_array_equal(seen, np.asarray(full)[[0, 2]])
        jax.tree.map(np.testing.assert_array_equal, state, same)
        step_key = jax.random.key(t)
        full, state, reward, *_ = plain.step(step_key, state, jnp.int32(t % 2), params)
        seen, same, reward_too, *_ = hiding.step(jax.random.clone(step_key), same, jnp.int32(t % 2), params)
        assert reward == reward_too
    assert [c.name for c in hiding.obs_spec] == ["x", "theta"]


def test_the_pendulum_moves_as_without_noise_and_is_read_with_it():
    (obs, action, reward, _, _), states = episodes("NoisyPendulum")
    env, params = envs.make("classic/Pendulum-v1")
    before = jax.tree.map(lambda x: x[:, 7], states)
    start = type(env.reset(jax.random.key(0), params)[1])(
        before.theta, before.theta_dot, before.last_u, before.time
    )
    step = jax.vmap(env.step, (None, 0, 0, None))
    _, after, expected, *_ = step(jax.random.key(0), start, action[7], params)
    np.testing.assert_allclose(reward[7], expected, rtol=1e-6)
    np.testing.assert_allclose(states.theta[:, 8], after.theta, rtol=1e-6)
    noise = obs - np.stack([np.cos(states.theta), np.sin(states.theta)], -1).swapaxes(0, 1)
    assert scipy.stats.kstest(noise.reshape(-1) / 0.1, "norm").pvalue > 1e-3
    for a, b in ((noise[1:], noise[:-1]), (noise[..., 0], noise[..., 1]), (noise[:, 1:], noise[:, :-1])):
        assert abs(np.corrcoef(a.reshape(-1), b.reshape(-1))[0, 1]) < 0.05


@pytest.mark.parametrize(
    ("name", "overrides", "expected"),
    [
        ("RepeatPrevious", {"lag": 16, "num_cards": 40}, "lag below num_cards and 16"),
        ("RepeatPrevious", {"lag": 5, "num_cards": 5}, "lag below num_cards"),
        ("Autoencode", {"num_cards": 17}, "at most 16"),
        ("CountRecall", {"num_cards": 256, "max_steps": 400}, "at most 255"),
        ("TMaze", {"length": 0}, "positive number"),
        ("TMaze", {"reveal": 2}, "True or False"),
    ],
)
def test_impossible_tasks_are_refused(name, overrides, expected):
    with pytest.raises(ValueError, match=expected):
        envs.make(f"memory/{name}", **overrides)
