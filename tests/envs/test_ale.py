"""The Atari adapter against ale-py's own loop on the host, and what an impure environment risks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from extras import need

import envs
from envs.common.names import UnknownName
from envs.types import contains
from envs.vector import VectorEnv, broadcast_params

need("ale")

import ale_py
from ale_py import roms
from ale_py.vector_env import AtariVectorEnv

from envs.adapters import ale

LANES = 2  # making and every seeded reset load the rom, 0.1 to 0.3 s a lane
STEPS = 400  # random Breakout is over within 200
STICKY = 0.25


@functools.cache
def made(num_lanes=LANES, **options):
    """A vector of Breakouts with sticky actions, its jitted play and its batched task."""
    options = {"repeat_action_probability": STICKY} | options
    env, params = envs.make("ale/breakout", **options)
    vector = env.vector(num_lanes)
    return vector, play(vector), broadcast_params(params, num_lanes)


def play(vector):
    """Jitted scan over actions `[T, B]`: the last state, then states and transitions `[T, B]`."""

    def step(state, action):
        state, transition = vector.step(None, state, action)
        return state, (state, transition)

    return jax.jit(lambda state, actions: jax.lax.scan(step, state, actions))


def random_actions(num_steps, num_lanes=LANES, num_actions=4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, num_actions, (num_steps, num_lanes)).astype(np.int32)


def assert_equal(ours, theirs):
    """Bitwise equal pytrees; only pointers may differ."""
    ours, theirs = jax.device_get(ours), jax.device_get(theirs)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert (x.shape, x.dtype) == (y.shape, y.dtype)
        np.testing.assert_array_equal(x, y)


# --- against ale-py on the host -------------------------------------------------------------------


def host_run(seeds, actions, **options):
    """Play with `AtariVectorEnv` in a Python loop: first obs, then everything `[T, B]`."""
    source = AtariVectorEnv("breakout", len(seeds), reward_clipping=False, **options)
    first, _ = source.reset(seed=np.asarray(seeds))
    steps = [(*out[:4], out[4]["lives"]) for out in map(source.step, actions)]
    return first, *(np.stack(column) for column in zip(*steps, strict=True))


@pytest.mark.fast("True")
@pytest.mark.parametrize("episodic_life", [True, False])
def test_scan_equals_the_host_loop(episodic_life):
    vector, run, params = made(episodic_life=episodic_life)
    key, actions = jax.random.key(3), random_actions(STEPS)
    state = vector.reset(key, params)
    seeds = ale.lane_seeds(jax.random.clone(key), LANES)
    first, obs, reward, terminated, truncated, lives = host_run(
        seeds, actions, life_loss_info=episodic_life, repeat_action_probability=STICKY, use_fire_reset=False
    )
    np.testing.assert_array_equal(state.obs, first)
    _, (states, out) = run(state, actions)
    np.testing.assert_array_equal(out.obs, obs)
    np.testing.assert_array_equal(out.final_obs, obs)
    np.testing.assert_array_equal(out.reward, reward)
    np.testing.assert_array_equal(out.terminated, terminated)
    np.testing.assert_array_equal(out.truncated, truncated)
    np.testing.assert_array_equal(states.lives, lives)
    assert np.asarray(states.is_sound).all()
    # Breakout is over when no life is left, and only then does the next step reset.
    over = np.concatenate([np.zeros((1, LANES), bool), (lives == 0)[:-1]])
    np.testing.assert_array_equal(out.valid, ~over)
    assert over.sum() >= LANES
    assert reward.sum() > 0


def test_life_loss_terminates_only_if_asked_and_never_resets():
    """The same games: a lost life is marked under `episodic_life`, and play goes on below it."""
    actions = random_actions(STEPS, seed=1)
    ends = {}
    for episodic_life in (True, False):
        vector, run, params = made(episodic_life=episodic_life)
        _, (states, out) = run(vector.reset(jax.random.key(0), params), actions)
        ends[episodic_life] = jax.device_get((states.lives, out.obs, out.terminated, out.valid))
    lives, obs, with_life, valid = ends[True]
    np.testing.assert_array_equal(lives, ends[False][0])
    np.testing.assert_array_equal(obs, ends[False][1])
    before = np.concatenate([np.full((1, LANES), 5), lives[:-1]])
    np.testing.assert_array_equal(with_life, valid & (lives < before))
    np.testing.assert_array_equal(ends[False][2], valid & (lives == 0))
    assert set(np.unique(lives)) == {0, 1, 2, 3, 4, 5}
    after_life_loss = np.roll(with_life & (lives > 0), 1, axis=0)[1:]
    assert valid[1:][after_life_loss].all()


# --- ends and resets ------------------------------------------------------------------------------


def test_the_reset_is_marked_and_carries_nothing_of_the_action():
    vector, run, params = made(episodic_life=False)
    state = vector.reset(jax.random.key(5), params)
    _, (states, out) = run(state, random_actions(STEPS, seed=2))
    out, states = jax.device_get((out, states))
    times, lanes = np.nonzero(~out.valid)
    assert len(times) >= LANES
    for t, lane in zip(times, lanes, strict=True):
        assert out.terminated[t - 1, lane]
        assert out.valid[t - 1, lane]
        assert out.valid[t + 1 : t + 2, lane].all()
        assert out.reward[t, lane] == 0
        assert not out.terminated[t, lane]
        assert not out.truncated[t, lane]
        assert states.time[t, lane] == 0
        assert states.lives[t, lane] == 5
        # A first observation: one frame, and blank ones before it.
        assert not out.obs[t, lane, :3].any()
        assert out.obs[t, lane, 3].any()
        # The one before it is still that of the ended game.
        assert out.obs[t - 1, lane, :3].any()


@pytest.mark.fast("40-10")
@pytest.mark.parametrize(("max_frames", "max_steps"), [(40, 10), (42, 11)])
def test_truncation_comes_at_the_frame_limit_alone(max_frames, max_steps):
    vector, run, params = made(max_frames=max_frames)
    assert vector.env.max_steps == max_steps == int(params.max_steps[0])
    _, (states, out) = run(vector.reset(jax.random.key(1), params), random_actions(3 * max_steps + 3))
    at_limit = np.arange(3 * max_steps + 3) % (max_steps + 1) == max_steps - 1
    for lane in range(LANES):
        np.testing.assert_array_equal(out.truncated[:, lane], at_limit)
        np.testing.assert_array_equal(out.valid[:, lane], ~np.roll(at_limit, 1))
    assert not np.asarray(out.terminated).any()
    assert int(states.time.max()) == max_steps


@pytest.mark.slow
def test_a_reset_inside_a_program_is_ordered_behind_a_state():
    """The second run of one program begins when the first has ended, or is refused."""
    vector, run, params = made(episodic_life=True)
    actions = random_actions(STEPS)

    @functools.partial(jax.jit, static_argnames="is_ordered")
    def again(key, state, is_ordered):
        state, _ = run(state, actions)
        return run(vector.reset(key, params, after=state if is_ordered else None), actions)

    state = vector.reset(jax.random.key(1), params)
    with pytest.raises(ValueError, match=r"inside a traced program.*after=state"):
        again(jax.random.key(2), state, is_ordered=False)
    second = jax.device_get(again(jax.random.key(2), state, is_ordered=True))
    assert_equal(second, run(vector.reset(jax.random.key(2), params), actions))
    assert second[1][0].is_sound.all()


# --- seeds and replay -----------------------------------------------------------------------------


def test_equal_seeds_are_equal_lanes_and_others_differ():
    vector, run, params = made(episodic_life=True)
    actions = np.repeat(random_actions(STEPS, 1), LANES, axis=1)
    for seeds, is_same in (([7, 7], True), ([7, 8], False)):
        _, (_, out) = run(vector.start(jnp.array(seeds, jnp.int32), params), actions)
        obs = np.asarray(out.obs)
        assert (obs[:, 0] == obs[:, 1]).all() == is_same


def test_a_key_determines_the_games_and_lanes_do_not_depend_on_their_number():
    seeds = np.asarray(ale.lane_seeds(jax.random.key(0), 64))
    assert len(set(seeds)) == 64
    assert seeds.min() > 0
    np.testing.assert_array_equal(seeds[:5], ale.lane_seeds(jax.random.key(0), 5))
    assert (seeds[:5] != np.asarray(ale.lane_seeds(jax.random.key(1), 5))).all()
    vector, _, params = made(episodic_life=True)
    first = vector.reset(jax.random.key(4), params)
    np.testing.assert_array_equal(first.obs, vector.reset(jax.random.key(4), params).obs)


@pytest.mark.slow
def test_replay_resumes_exactly():
    """A fresh emulator, brought over many ends of lives, games and clocks, goes on bit by bit."""
    vector, run, params = made(max_frames=560)
    key, actions, more = jax.random.key(6), random_actions(600), random_actions(600, seed=9)
    state, (states, out) = run(vector.reset(key, params), actions)
    is_game_over = out.terminated & (states.lives == 0)
    for ends in (is_game_over, out.truncated, out.terminated & ~is_game_over):
        assert int(ends.sum()) >= LANES
    saved = jax.device_get(vector.detach(state))
    last, original = jax.device_get(run(state, more))

    fresh = vector.env.vector(LANES)
    state = ale.replay(fresh, jax.random.clone(key), actions)
    assert_equal(fresh.detach(state), saved)
    resumed_last, resumed = run(state, more)  # the state leads to its own emulator
    assert_equal(fresh.detach(resumed_last), vector.detach(last))
    assert_equal(resumed[1], original[1])
    # It is the actions that decide: with the last ones changed the run is another.
    other = actions.copy()
    other[-40:] = 3 - other[-40:]
    changed = ale.replay(fresh, jax.random.clone(key), other)
    assert (np.asarray(changed.obs) != saved.obs).any()


@pytest.mark.slow
def test_pmap_with_one_vector_a_device():
    devices = jax.devices()[:2]
    vector, run, params = made(episodic_life=True)
    vectors = [vector, vector.env.vector(LANES)]
    keys = jax.random.split(jax.random.key(8), 2)
    states = [v.reset(k, params) for v, k in zip(vectors, keys, strict=True)]
    actions = random_actions(2 * STEPS).reshape(2, STEPS, LANES)
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *states)
    _, (_, out) = jax.pmap(run, devices=devices)(stacked, actions)
    for i in range(2):  # not waited for: a reset on the host has to
        state = vectors[i].reset(jax.random.clone(keys[i]), params)
        _, (_, alone) = run(state, actions[i])
        assert_equal(jax.tree.map(lambda x, i=i: x[i], jax.device_get(out)), alone)
    assert (out.obs[0] != out.obs[1]).any()


# --- misuse ---------------------------------------------------------------------------------------


def test_a_state_steps_once():
    """The emulator has gone on: a stale state gives NaN for ever, not rewards of another time."""
    vector, _, params = made(episodic_life=True)
    step, noop = jax.jit(vector.step), jnp.zeros((LANES,), jnp.int32)
    state = vector.reset(jax.random.key(0), params)
    once, out = step(None, state, noop)
    assert np.isfinite(out.reward).all()
    assert all(bool(x) for x in vector.env.invariants(once, params).values())
    twice, out = step(None, state, noop)
    assert np.isnan(out.reward).all()
    later, out = step(None, twice, noop)
    assert np.isnan(out.reward).all()
    assert not vector.env.invariants(later, params)["sound"]


@pytest.mark.parametrize("illegal", [-1, 4])
def test_an_illegal_action_poisons_its_lane_and_does_not_hang(illegal):
    vector, _, params = made(episodic_life=True)
    state = vector.reset(jax.random.key(0), params)
    state, out = jax.jit(vector.step)(None, state, jnp.array([3, illegal], jnp.int32))
    np.testing.assert_array_equal(np.isnan(out.reward), [False, True])
    np.testing.assert_array_equal(state.is_sound, [True, False])


def test_params_of_another_task_poison_their_lane():
    vector, run, params = made(episodic_life=True)
    foreign_task = params._replace(max_steps=params.max_steps.at[1].set(5))
    _, (_, out) = run(vector.reset(jax.random.key(0), foreign_task), random_actions(3))
    np.testing.assert_array_equal(np.isnan(out.reward), [[False, True]] * 3)


def test_a_detached_state_is_an_error_and_not_a_crash():
    vector, _, params = made(episodic_life=True)
    state = vector.detach(vector.reset(jax.random.key(0), params))
    assert not state.handle.any()
    with pytest.raises(jax.errors.JaxRuntimeError, match="Invalid vectorizer pointer"):
        vector.step(None, state, jnp.zeros((LANES,), jnp.int32))


def test_what_cannot_work_says_what_does():
    vector, _, params = made(episodic_life=True)
    env, task = vector.env, vector.env.default_params
    assert not env.is_pure
    with pytest.raises(NotImplementedError, match=r"env\.vector\(num_lanes\)"):
        env.reset(jax.random.key(0), task)
    with pytest.raises(NotImplementedError, match=r"env\.vector\(num_lanes\)"):
        env.step(jax.random.key(0), None, jnp.zeros((), jnp.int32), task)
    with pytest.raises(NotImplementedError, match=r"env\.vector\(num_lanes\)"):
        VectorEnv(env).reset(jax.random.key(0), params)
    state = vector.reset(jax.random.key(0), params)
    twice = jax.tree.map(lambda x: jnp.stack([x, x]), state)
    with pytest.raises(NotImplementedError, match="vmap the agent"):
        jax.vmap(functools.partial(vector.step, None))(twice, jnp.zeros((2, LANES), jnp.int32))
    with pytest.raises(ValueError, match=r"max_steps of shape \(\).*broadcast_params"):
        vector.reset(jax.random.key(0), task)
    with pytest.raises(ValueError, match=r"seeds of shape \(3,\)"):
        vector.start(jnp.array([1, 2, 3], jnp.int32), params)
    with pytest.raises(ValueError, match="num_lanes=0"):
        env.vector(0)


# --- make -----------------------------------------------------------------------------------------


def test_unknown_names_give_the_nearest():
    with pytest.raises(UnknownName, match=r"ale/brakeout.*ale/breakout"):
        envs.make("ale/brakeout")
    with pytest.raises(UnknownName, match=r"brakeout.*breakout"):
        ale.make("brakeout")
    with pytest.raises(UnknownName, match=r"episodic_lives.*episodic_life"):
        envs.make("ale/breakout", episodic_lives=False)
    with pytest.raises(ValueError, match="got a rom without rewards for one player"):
        ale.make("combat")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("episodic_life", 1),
        ("full_action_space", None),
        ("fire_reset", "yes"),
        ("repeat_action_probability", -0.1),
        ("repeat_action_probability", 1.5),
        ("repeat_action_probability", float("nan")),
        ("repeat_action_probability", True),
        ("noop_max", -1),
        ("noop_max", 2.5),
        ("max_frames", 0),
        ("max_frames", float("inf")),
        ("max_frames", 2**31),
        ("max_frames", "long"),
    ],
)
def test_illegal_options_say_what_they_got(field, value):
    with pytest.raises(ValueError, match=f"{field}: got .*expected"):
        envs.make("ale/breakout", **{field: value})


def test_the_defaults_are_atari_100k_training():
    env, params = envs.make("ale/ms_pacman")
    assert env.options == ale.AtariOptions(True, 0.0, 30, False, False, 108_000)
    assert env.max_steps == int(params.max_steps) == 27_000
    assert env.name == "ale/ms_pacman"
    assert env.action_spec[0].cardinality == len(env.action_names) == 9
    assert len(env.obs_spec) == np.prod(env.obs_shape) == 4 * 84 * 84
    full, _ = envs.make("ale/ms_pacman", full_action_space=True)
    assert full.action_spec[0].cardinality == 18


@pytest.mark.slow
def test_noops_and_fire_are_those_of_the_options():
    """Frames before the first observation: no-ops from the seed, one FIRE if asked."""
    for num_lanes, options, expected in (
        (1, {"noop_max": 0}, {0}),
        (1, {"noop_max": 0, "fire_reset": True}, {1}),
        (4, {"noop_max": 2}, {0, 1}),
    ):
        vector, _, params = made(num_lanes=num_lanes, **options)
        assert set(np.asarray(vector.reset(jax.random.key(0), params).frame)) == expected


def test_declared_types_are_returned():
    vector, run, params = made(episodic_life=True)
    state = vector.reset(jax.random.key(0), params)
    last, (_, out) = run(state, random_actions(2))
    types = [(x.shape, x.dtype, bool(x.weak_type)) for x in jax.tree.leaves(state)]
    assert types == [(x.shape, x.dtype, bool(x.weak_type)) for x in jax.tree.leaves(last)]
    assert all(shape[0] == LANES and not weak for shape, _, weak in types)
    assert state.obs.shape[1:] == vector.env.obs_shape
    assert state.obs.dtype == vector.env.obs_dtype == jnp.uint8
    assert out.reward.dtype == jnp.float32
    assert out.terminated.dtype == out.truncated.dtype == out.valid.dtype == bool
    assert contains(vector.env.obs_spec, state.obs[0])
    assert not contains(vector.env.action_spec, jnp.array(4))


def test_an_emulator_prints_nothing(capfd):
    vector = envs.make("ale/pong")[0].vector(1)
    vector.reset(jax.random.key(0), broadcast_params(vector.env.default_params, 1))
    assert capfd.readouterr() == ("", "")


def test_render_shows_the_newest_frame():
    vector, run, params = made(episodic_life=True)
    state, _ = run(vector.reset(jax.random.key(0), params), random_actions(20))
    lane = jax.device_get(jax.tree.map(lambda x: x[0], state))
    picture = vector.env.render(lane, params)
    assert picture.shape == (420, 320, 3)
    assert picture.dtype == np.uint8
    assert picture.std() > 10
    # Averaged down again it is the frame, and not an older one.
    small = picture[:, :, 0].reshape(84, 5, 320).mean(axis=1)[:, np.arange(84) * 320 // 84 + 1]
    errors = [np.abs(small - frame).mean() for frame in lane.obs]
    assert np.argmin(errors) == 3
    with pytest.raises(ValueError, match=r"expected one lane.*x\[i\]"):
        vector.env.render(jax.device_get(state), params)


def test_the_registry_lists_what_ale_plays():
    """All of ALE's roms but those of games for two, which have no reward for one player."""
    ids = roms.get_all_rom_ids()
    playable = [r for r in ids if ale_py.ALEInterface.isSupportedROM(roms.get_rom_path(r))]
    assert envs.registered("ale") == [f"ale/{rom}" for rom in sorted(playable)]


@pytest.mark.slow
@pytest.mark.parametrize("env_id", envs.registered("ale"))
def test_every_registered_game_plays(env_id):
    env, params = envs.make(env_id)
    vector = env.vector(1)
    num_actions = env.action_spec[0].cardinality
    state = vector.reset(jax.random.key(0), broadcast_params(params, 1))
    actions = random_actions(200, 1, num_actions)
    state, (_, out) = play(vector)(state, actions)
    assert bool(state.is_sound[0])
    assert np.asarray(out.obs).std() > 1
    assert np.isfinite(out.reward).all()
