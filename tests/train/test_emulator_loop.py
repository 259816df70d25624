"""The emulator's loop with an emulator that tells everything, and an agent that counts."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from extras import need

from envs.types import Transition
from jaxagent.config import RainbowConfig, SPRConfig
from jaxagent.data import frames
from jaxagent.data.prioritized import prioritized_windows
from jaxagent.train import checkpoint, loops
from jaxagent.train.emulator_loop import EmulatorError, EmulatorLoop
from jaxagent.types import Agent

LANES = 2


@dataclasses.dataclass(frozen=True)
class LearnerConfig(RainbowConfig):
    """Whose lanes are seeds: each plays one game."""

    num_envs: int = 1

    def check(self):
        self.check_learner()


CONFIG = LearnerConfig(
    num_gradient_steps=3,
    batch_size=4,
    capacity=64,
    warmup_steps=8,
    num_updates=60,
    updates_per_chunk=20,
    num_td_steps=2,
    spr=SPRConfig(weight=0.0),
)
CHUNKS = CONFIG.num_updates // CONFIG.updates_per_chunk


class Params(NamedTuple):
    length: jax.Array  # of a game


class State(NamedTuple):
    """A counter whose lanes are reset at the next step, as ALE's are."""

    seed: jax.Array
    time: jax.Array
    total: jax.Array  # of all actions, which only the true actions give
    is_over: jax.Array
    is_sound: jax.Array


class Counter:
    """Games of `3 + seed` steps; a reward is the action."""

    class env:
        name = "counter"
        default_params = Params(jnp.array(3))

    def __init__(self, drift=0):
        self.drift = drift  # of a second start, as after an update of the emulator
        self.starts = 0

    def start(self, seeds, params):
        assert params.length.shape == seeds.shape
        self.starts += 1
        zeros = jnp.zeros_like(seeds)
        total = zeros + (self.drift if self.starts > 2 else 0)
        return State(seeds, zeros, total, zeros > 0, zeros == 0)

    def step(self, key, state, action):
        del key
        valid = ~state.is_over
        time = jnp.where(valid, state.time + 1, 0)
        is_over = time == 3 + state.seed
        total = state.total + action
        after = State(state.seed, time, total, is_over, state.is_sound & (action < 7))
        reward = jnp.where(valid, action, 0).astype(jnp.float32)
        return after, Transition(time, reward, is_over, is_over & False, time, valid)

    def detach(self, state):
        return state


class Entry(NamedTuple):
    time: jax.Array
    action: jax.Array
    valid: jax.Array


def counting_agent(action=1):
    """Its one parameter falls by 1 with every gradient step; `targets` are what was drawn."""

    def act(params, carry, obs, is_first, key):
        return jnp.full(obs.shape[:1], action, jnp.int32), (), carry

    def targets(params, copies, drawn, key, shared):
        return drawn.steps

    def loss(params, batch, key):
        metrics = {"train/is_valid": jnp.mean(batch.valid[0], dtype=jnp.float32)}
        return params["count"], (metrics, jnp.ones(batch.time.shape[1]))

    return Agent(lambda key: {"count": jnp.zeros(())}, act, targets, loss)


def loop_of(vector=None, config=CONFIG, action=1, seeds=(0, 4)):
    return EmulatorLoop(
        counting_agent(action),
        vector or Counter(),
        optax.sgd(1.0),
        config,
        memory=prioritized_windows(config.window, 1.0, may_begin=lambda entries: entries.valid),
        explore=lambda carry, obs, is_first, key: (jnp.full(obs.shape[:1], 5, jnp.int32), (), ()),
        slow=loops.moving_average(lambda params: params, 1.0),
        as_entry=lambda state, action, t: Entry(state.time, action, t.valid),
        see=lambda state: state.time,
        seeds=jnp.array(seeds),
        lane_ids=jnp.array([7, 9]),
        key=jax.random.key(0),
    )


def run(loop, state, chunks):
    reports = []
    for _ in range(chunks):
        state, report = loop.chunk(state)
        reports.append(jax.device_get(report))
    return state, reports


@pytest.fixture(scope="module")
def whole():
    loop = loop_of()
    return run(loop, loop.init(), CHUNKS)


@pytest.mark.slow
def test_every_lane_learns_from_just_its_own_steps(whole):
    """Lanes of short games begin more of them; steps that begin games teach nothing."""
    state, reports = whole
    due = (CONFIG.num_updates - CONFIG.warmup_steps) * CONFIG.num_gradient_steps
    np.testing.assert_array_equal(state.learner.params["count"], [-due, -due])
    count, num_steps = int(state.shards.count), np.asarray(state.shards.num_steps)
    assert num_steps.min() == CONFIG.num_updates  # of the lane with short games
    assert count == 60 + 60 // 3 - 1  # which began as many games as its 60 steps have ends, bar one
    assert num_steps.max() > CONFIG.num_updates
    for report in reports:
        np.testing.assert_array_equal(
            report.metrics["train/is_valid"].total, report.metrics["train/is_valid"].count
        )
    assert all(report.is_finite.all() for report in reports)


def test_actions_are_the_explorer_s_until_the_warm_up_ends(whole):
    state, _ = whole
    actions = np.asarray(state.shards.actions)[: int(state.shards.count)]
    steps = (np.arange(len(actions))[:, None] % np.array([4, 8]) != np.array([3, 7])).cumsum(0)
    before = np.concatenate([np.zeros((1, LANES)), steps[:-1]])
    np.testing.assert_array_equal(actions, np.where(before < CONFIG.warmup_steps, 5, 1))


def test_returns_are_of_whole_games(whole):
    _, reports = whole
    last = reports[-1].metrics["train/return"]
    np.testing.assert_array_equal(last.total / last.count, [3.0, 7.0])


def test_goes_on_to_the_bit_from_what_is_saved(whole, tmp_path):
    state, reports = whole
    loop = loop_of()
    first, _ = run(loop, loop.init(), 1)
    checkpoint.save(tmp_path, int(first.step), first, "a1")
    loop = loop_of()  # another process
    found = checkpoint.restore(tmp_path, int(first.step), loop.init(), "a1")
    again, later = run(loop, jax.tree.map(jnp.asarray, found), CHUNKS - 1)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(again), jax.device_get(state))
    jax.tree.map(np.testing.assert_array_equal, later, reports[1:])


def test_a_saved_state_has_no_frames(whole):
    state, _ = whole
    assert state.shards.weights.ring == ()


def test_another_emulator_is_found_out():
    loop = loop_of(Counter(drift=1))
    state, _ = run(loop, loop.init(), 1)
    with pytest.raises(EmulatorError, match="counter: got another state after 20 steps"):
        loop.chunk(jax.tree.map(jnp.array, state))


def test_an_unsound_emulator_stops_the_run():
    loop = loop_of(action=7)
    with pytest.raises(EmulatorError, match="is_sound"):
        run(loop, loop.init(), 1)


@pytest.mark.slow
def test_an_overwritten_ring_comes_back_too():
    config = dataclasses.replace(CONFIG, capacity=16)
    loop = loop_of(config=config)
    state, _ = run(loop, loop.init(), 2)
    saved, live = jax.tree.map(jnp.array, jax.device_get(state)), loop._live
    back = loop_of(config=config)._come_back(saved)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(back.memory), jax.device_get(live.memory))


@pytest.mark.slow
def test_stacks_in_the_replay_are_what_the_game_showed():
    """Breakout: through ends of lives and games, over the end of the ring."""
    need("ale")
    import envs
    from envs.adapters import ale
    from envs.vector import broadcast_params

    env, params = envs.make("ale/breakout")
    vector, steps, capacity, length = env.vector(1), 600, 256, 5
    depth = ale.STACK[0]

    class Kept(NamedTuple):
        frames: frames.Frames
        time: jax.Array
        valid: jax.Array

    def view(kept):
        return kept.time[depth - 1 :], frames.stacks(kept.frames, depth)

    memory = prioritized_windows(length, 1.0, context=depth - 1, view=view, may_begin=lambda kept: kept.valid)
    actions = np.random.default_rng(0).integers(0, 4, (steps, 1)).astype(np.int32)

    def step(state, inputs):
        t, action = inputs
        after, transition = vector.step(None, state, action)
        kept = Kept(frames.newest(state.obs, state.time), t[None], transition.valid)
        return after, (kept, state.obs, transition.terminated)

    state = vector.start(jnp.array([3], jnp.int32), broadcast_params(params, 1))
    _, (kept, obs, terminated) = jax.jit(lambda s, x: jax.lax.scan(step, s, x))(
        state, (jnp.arange(steps), actions)
    )
    held = memory.init(kept, capacity)
    add = jax.jit(memory.add)
    for t in range(steps):
        held = add(held, jax.tree.map(lambda x, t=t: x[t : t + 1], kept))
    time, stacks = memory.sample(held, jax.random.key(0), 300).steps
    expected = np.moveaxis(np.asarray(obs)[:, 0], 1, -1)[np.asarray(time)]
    np.testing.assert_array_equal(stacks, expected)
    resets = ~np.asarray(kept.valid)[:, 0]
    recent = np.asarray(time)
    assert resets[steps - capacity :].sum() >= 1
    assert not resets[recent[0]].any()  # where windows begin
    assert resets[recent].any()  # but some lead over the end of a game
    assert np.asarray(terminated)[recent, 0].any()


class Flash(NamedTuple):
    key: jax.Array  # [B]
    obs: jax.Array  # [B, 2, 6, 6] uint8: the two last frames
    time: jax.Array
    is_sound: jax.Array


class Flashes:
    """A bright column a step; the action that names the one *before* it is worth 1."""

    COLUMNS, LENGTH = 3, 10

    class env:
        name = "flashes"
        default_params = Params(jnp.array(3))

    def start(self, seeds, params):
        del params
        zeros = jnp.zeros(seeds.shape, jnp.int32)
        key = jax.vmap(jax.random.key)(seeds)
        empty = jnp.zeros((len(seeds), 2, 6, 6), jnp.uint8)
        return self._shown(Flash(key, empty, zeros, zeros == 0))

    def _shown(self, state):
        """With the frame of its time, made of the lane's key."""
        key = jax.vmap(jax.random.fold_in)(state.key, state.time)
        column = jax.vmap(lambda k: jax.random.randint(k, (), 0, self.COLUMNS))(key)
        lit = jnp.arange(6)[None] // 2 == column[:, None]
        frame = jnp.broadcast_to(jnp.where(lit, 255, 0)[:, None], (len(column), 6, 6))
        obs = jnp.stack([state.obs[:, 1], frame.astype(jnp.uint8)], axis=1)
        return state._replace(obs=obs)

    def step(self, key, state, action):
        del key
        over = state.time == self.LENGTH  # this step begins another game
        before = jnp.argmax(state.obs[:, 0, 0, ::2], axis=-1)
        is_right = (action == before) & (state.time > 0) & ~over
        again = jax.vmap(lambda k: jax.random.fold_in(k, 1000))(state.key)
        games = jnp.where(over, again, state.key)
        time = jnp.where(over, 0, state.time + 1)
        obs = jnp.where(over[:, None, None, None], jnp.uint8(0), state.obs)
        after = self._shown(Flash(games, obs, time, state.is_sound))
        ends = time == self.LENGTH
        reward = is_right.astype(jnp.float32)
        return after, Transition(after.obs, reward, ends, ends & False, after.obs, ~over)

    def detach(self, state):
        return state._replace(key=jax.random.key_data(state.key))


@pytest.mark.slow
def test_rainbow_learns_what_only_the_right_stack_tells():
    """Frames in a wrong order, or across games, would leave chance: a third."""

    from envs.types import Component
    from jaxagent.agents import actions, rainbow
    from jaxagent.config import QNetworkConfig
    from jaxagent.train import optimizer

    spec = (Component("action", "category", cardinality=3),)
    config = LearnerConfig(
        num_gradient_steps=1,
        batch_size=32,
        capacity=512,
        warmup_steps=200,
        num_updates=1000,
        updates_per_chunk=500,
        num_td_steps=1,
        discount=0.0,
        learning_rate=2e-3,
        model=QNetworkConfig(hidden_size=32, num_atoms=11, max_return=2.0, noise=0.0),
        spr=SPRConfig(weight=0.0),
    )
    agent = rainbow.rainbow((6, 6, 2), np.uint8, spec, config)

    def as_entry(state, action, t):
        kept = frames.newest(state.obs, state.time)
        return rainbow.Step(kept, action, t.reward, t.terminated, t.truncated, t.valid)

    loop = EmulatorLoop(
        agent,
        Flashes(),
        optimizer.rainbow_adam(config),
        config,
        memory=rainbow.memory_of_frames(config, 2),
        explore=actions.uniform(spec),
        slow=loops.SlowCopy(*rainbow.copying(config)),
        as_entry=as_entry,
        see=lambda state: jnp.moveaxis(state.obs, 1, -1),
        seeds=jnp.array([1, 2]),
        lane_ids=jnp.array([0, 1]),
        key=jax.random.key(0),
    )
    _, reports = run(loop, loop.init(), 2)
    first, last = (r.metrics["train/return"].total / r.metrics["train/return"].count for r in reports)
    assert (last > 0.9 * (Flashes.LENGTH - 1)).all(), (first, last)
    assert (last > first).all()
