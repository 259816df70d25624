"""Space Invaders against gymnax and against the MinAtar package, state by state."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import minatar.environments.space_invaders as source
import numpy as np
import pytest

import envs
from envs.common.branch import select
from envs.vector import VectorEnv
from envs.words import lane_words

NUM_LANES = 64
TASKS = {
    "default": {},
    # Many bullets at once, and the fastest wave in reach.
    "storm": {"shot_cool_down": 1, "enemy_shot_interval": 2, "enemy_move_interval": 7, "max_steps": 400},
}
THEIR_NAMES = {
    "bullets": "f_bullet_map",
    "enemy_bullets": "e_bullet_map",
    "aliens": "alien_map",
    "move_interval": "enemy_move_interval",
    "move_timer": "alien_move_timer",
}
MAPS = ("f_bullet_map", "e_bullet_map", "alien_map")
FULL_ACTIONS = (0, 1, 3, 5)  # of the MinAtar package: stay, left, right, fire


class Steps(NamedTuple):
    """A rollout of both, leaves `[T, B]`, maps `[T, B, 10, 10]`."""

    mismatches: dict
    before: dict
    after: dict
    action: np.ndarray
    obs: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray


def make_both(overrides):
    env, params = envs.make("minatar/SpaceInvaders", **overrides)
    names = {"max_steps": "max_steps_in_episode"}
    theirs = {names.get(name, name): value for name, value in overrides.items()}
    return env, params, *envs.make("gymnax/SpaceInvaders-MinAtar", **theirs)


def map_of(cells):
    """A set of cells as a map, bool `[B, 10, 10]`."""
    rows = [(cells[y // 3] >> (10 * (y % 3))) & 1023 for y in range(3 * len(cells)) if y < 10]
    rows += [jnp.zeros_like(cells[0])] * (10 - len(rows))
    columns = jnp.arange(10, dtype=jnp.uint32)
    return ((jnp.stack(rows, axis=-1)[..., None] >> columns[None, None]) & 1) == 1


def fields_of(state):
    """Our state by gymnax's names."""
    return {
        THEIR_NAMES.get(name, name): map_of(x) if isinstance(x, tuple) else x
        for name, x in state._asdict().items()
    }


def their_fields(state):
    fields = {name: getattr(state, name) for name in state.__dataclass_fields__}
    fields |= {name: fields[name] == 1 for name in MAPS}
    return {name: x for name, x in fields.items() if name not in ("ramping", "terminal")}


def differences(ours, theirs):
    """How many values differ, by name."""
    assert ours.keys() == theirs.keys()
    return {name: jnp.sum(jnp.asarray(ours[name] != theirs[name])) for name in ours}


def clairvoyant(env, state, params, key):
    """A reward if there is one, no end if there is another way; every second lane never fires."""
    key_noise, key_slip, key_random = jax.random.split(key, 3)
    noise = jax.random.uniform(key_noise, (env.num_actions, NUM_LANES))
    is_gunner = jnp.arange(NUM_LANES) % 2 == 0
    scores = []
    for action in range(env.num_actions):
        actions = jnp.full((NUM_LANES,), action, jnp.int32)
        _, reward, ends = env.advance((), state, actions, params)
        scores.append(reward - 2 * ends.astype(jnp.float32) + noise[action])
    scores[3] = jnp.where(is_gunner, scores[3] + 0.5, -10.0)
    best = jnp.argmax(jnp.stack(scores), axis=0).astype(jnp.int32)
    any_action = jax.random.randint(key_random, best.shape, 0, 3, jnp.int32)
    return jnp.where(jax.random.uniform(key_slip, best.shape) < 0.01, any_action, best)


def step_both(env, their_env, tasks, starts, states, key):
    """Both under the same action, each on its own state, reset together."""
    (params, their_params), (state, their_state) = tasks, states
    key_action, key_step = jax.random.split(key)
    action = clairvoyant(env, state, params, key_action)
    after, reward, terminated, truncated = env.step_words((), state, action, params)
    keys = jax.random.split(key_step, NUM_LANES)
    their_step = jax.vmap(their_env.step, in_axes=(0, 0, 0, None))
    their_obs, their_after, *their_flags, _ = their_step(keys, their_state, action, their_params)
    obs = jnp.moveaxis(env.observe(after, params), -1, 0)
    ours = {"obs": obs, "reward": reward, "terminated": terminated, "truncated": truncated}
    theirs = dict(zip(ours, (their_obs, *their_flags), strict=True))
    out = Steps(
        mismatches=differences(ours | fields_of(after), theirs | their_fields(their_after)),
        before=fields_of(state),
        after=fields_of(after),
        action=action,
        obs=obs == 1,
        reward=reward,
        terminated=terminated,
        truncated=truncated,
    )
    return select(terminated | truncated, starts, (after, their_after)), out


@functools.cache
def compiled_rollout():
    """One program for all tasks."""
    env, _, their_env, _ = make_both({})

    def run(keys, tasks, starts):
        step = functools.partial(step_both, env, their_env, tasks, starts)
        return jax.lax.scan(step, starts, keys)[1]

    return jax.jit(run)


@functools.cache
def rollouts(task):
    """How the first states differ, and 1100 steps of both."""
    env, params, their_env, their_params = make_both(TASKS[task])
    start = env.first((jnp.zeros((NUM_LANES,), jnp.uint32),), params)
    keys = jax.random.split(jax.random.key(1), NUM_LANES)
    _, their_start = jax.vmap(their_env.reset, in_axes=(0, None))(keys, their_params)
    keys = jax.random.split(jax.random.key(2), 1100)
    steps = compiled_rollout()(keys, (params, their_params), (start, their_start))
    return jax.device_get((differences(fields_of(start), their_fields(their_start)), steps))


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_every_step_equals_gymnax(task):
    start, steps = rollouts(task)
    assert not any(start.values()), start
    wrong = {name: int(count.sum()) for name, count in steps.mismatches.items()}
    assert {"obs", "reward", "terminated", "truncated", "time", *MAPS} < set(wrong)
    assert not any(wrong.values()), wrong
    # What must have happened for the comparison to mean something.
    before, after = steps.before, steps.after
    seen = {
        "kills": steps.reward.sum() > 2000,
        "bullets at once": before["f_bullet_map"].sum((-1, -2)).max() > 1,
        "fallen to bullets": (steps.terminated & after["e_bullet_map"][..., 9, :].any(-1)).any(),
        "fallen to aliens": (steps.terminated & after["alien_map"][..., 9, :].any(-1)).any(),
        "landings that wrap": (steps.terminated & turned(steps)).any(),
        "turns": turned(steps).sum() > 200,
        "waves": (after["alien_map"].sum((-1, -2)) > before["alien_map"].sum((-1, -2))).sum() > 10,
        "faster waves": after["ramp_index"].max() >= 1,
    }
    if task == "storm":
        seen["truncated"] = steps.truncated.sum() > 3
        seen["kills of two"] = steps.reward.max() >= 2
        seen["enemy bullets at once"] = before["e_bullet_map"].sum((-1, -2)).max() > 3
        seen["the fastest wave"] = (after["enemy_move_interval"].min() == 6) and (
            after["ramp_index"].max() == 1
        )
    assert all(seen.values()), seen


def test_the_default_task_is_that_of_gymnax():
    env, params, _, their_params = make_both({})
    assert env.max_steps == params.max_steps == their_params.max_steps_in_episode == 1000
    for name in ("shot_cool_down", "enemy_move_interval", "enemy_shot_interval"):
        assert getattr(params, name) == getattr(their_params, name), name


def turned(steps):
    return steps.before["alien_dir"] != steps.after["alien_dir"]


# --- the MinAtar package -------------------------------------------------------------------------


def load_source(fields):
    """The MinAtar package in the state of one lane."""
    game = source.Env()
    for name, value in fields.items():
        setattr(game, name, value.astype(float) if name in MAPS else int(value))
    return game


@pytest.mark.slow
def test_every_step_equals_the_source():
    _, steps = rollouts("default")
    ends = 0
    for t, i in np.ndindex(*steps.action.shape):
        # All ends and a sample of the rest.
        if not steps.terminated[t, i] and (7 * t + i) % 16:
            continue
        before, after = ({k: x[t, i] for k, x in d.items()} for d in (steps.before, steps.after))
        game = load_source(before)
        reward, terminated = game.act(FULL_ACTIONS[steps.action[t, i]])
        assert (reward, terminated) == (steps.reward[t, i], steps.terminated[t, i])
        np.testing.assert_array_equal(game.state(), steps.obs[t, i])
        for name, value in after.items():
            if name != "time":  # the package has no clock
                np.testing.assert_array_equal(getattr(game, name), value, err_msg=name)
        ends += terminated
    assert ends > 20


@pytest.mark.slow
def test_what_follows_an_end_differs():
    """Ours goes on, the source stands still, gymnax ends again."""
    env, params, their_env, their_params = make_both({})
    words = (jnp.zeros((), jnp.uint32),)
    under_fire = (jnp.uint32(0), jnp.uint32(0), jnp.uint32(1 << 25), jnp.uint32(0))
    state = env.first(words, params)._replace(enemy_bullets=under_fire)
    _, their_state = their_env.reset(jax.random.key(0), their_params)
    bullet = their_state.e_bullet_map.at[8, 5].set(1)
    their_state = their_state.replace(e_bullet_map=bullet)
    step, their_step = jax.jit(env.step_words), jax.jit(their_env.step)
    right = jnp.array(2, jnp.int32)
    stay = jnp.array(0, jnp.int32)
    fields = {k: np.asarray(x)[0] for k, x in fields_of(batch_of_one(state)).items()}
    game = load_source(fields)
    ends, positions = [], []
    for i, action in enumerate((stay, right, right)):
        state, _, terminated, _ = step((), state, action, params)
        _, their_state, _, their_end, *_ = their_step(jax.random.key(i), their_state, action, their_params)
        _, source_end = game.act(FULL_ACTIONS[int(action)])
        ends.append((bool(terminated), bool(their_end), source_end))
        positions.append((int(state.pos), int(their_state.pos), game.pos))
    assert ends == [(True, True, True), (False, True, True), (False, True, True)]
    assert positions == [(5, 5, 5), (6, 6, 5), (7, 7, 5)]


def batch_of_one(state):
    return jax.tree.map(lambda x: x[None], state)


# --- the frame -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_one_lane_equals_many():
    env, params = envs.make("minatar/SpaceInvaders", shot_cool_down=2, enemy_shot_interval=3)
    words = lane_words(jax.random.key(3), 5, env.num_reset_words, 0)
    turns = jnp.array([0, 3, 1, 0, 3, 1, 2, 2, 3, 0, 0, 1, 0, 3, 3, 1, 1, 1], jnp.int32)

    def run(words, lane):
        def step(state, turn):
            after, *outcome = env.step_words((), state, (lane + turn) % 4, params)
            return after, (env.observe(after, params), outcome)

        return jax.lax.scan(step, env.first(words, params), turns)

    def check(many, one):
        assert (many.shape, many.dtype) == (one.shape, one.dtype)
        np.testing.assert_array_equal(many, one)

    many = jax.jit(run)(words, jnp.arange(5, dtype=jnp.int32))
    single = jax.jit(run)
    singles = [single((words[0][lane],), jnp.array(lane, jnp.int32)) for lane in range(5)]
    jax.tree.map(check, many, jax.tree.map(lambda *x: jnp.stack(x, axis=-1), *singles))
    obs, (reward, *_) = many[1]
    assert obs[..., 5, :].any(), "there was something to see"
    assert reward.any()


def test_invariants_hold_and_see_a_broken_state():
    env, params = envs.make("minatar/SpaceInvaders")
    _, good = env.reset(jax.random.key(0), params)
    assert all(env.invariants(good, params).values())
    none = jnp.uint32(0)
    for broken in (
        good._replace(pos=jnp.array(10, jnp.int32)),
        good._replace(aliens=(none,) * 4),
        good._replace(bullets=(jnp.uint32(1 << 30), none, none)),
        good._replace(time=jnp.array(1001, jnp.int32)),
    ):
        assert not all(env.invariants(broken, params).values())


@pytest.mark.slow
def test_lanes_reset_to_a_full_wave():
    env, params = envs.make("minatar/SpaceInvaders", max_steps=30)
    vector = VectorEnv(env, num_lanes=8)
    first = state = vector.reset(jax.random.key(0), params)
    step = jax.jit(vector.step)
    for i in range(30):
        state, out = step(jax.random.key(i), state, jnp.arange(8, dtype=jnp.int32) % 4)
    done = np.flatnonzero(out.truncated | out.terminated)
    assert done.size
    for lane in done:
        np.testing.assert_array_equal(out.obs[lane], first.obs[lane])
        assert not np.array_equal(out.final_obs[lane], out.obs[lane])
    assert (first.obs[..., 1].sum((1, 2)) == 24).all()


def test_render_shows_where_the_aliens_go():
    env, params = envs.make("minatar/SpaceInvaders")
    _, state = env.reset(jax.random.key(0), params)
    left = env.render(state, params)
    right = env.render(state._replace(alien_dir=jnp.array(1, jnp.int32)), params)
    shot = env.render(state._replace(bullets=(jnp.uint32(0), jnp.uint32(1), jnp.uint32(0))), params)
    pictures = (left, right, shot)
    assert all(p.dtype == np.uint8 and p.shape[-1] == 3 for p in pictures)
    assert len({p.tobytes() for p in pictures}) == 3
