"""The xminigrid adapter against xminigrid: steps, ends, rulesets as tasks, the spec, pictures."""

import functools
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from extras import need

import envs
from envs.common.foreign import foreign
from envs.common.names import UnknownName
from envs.types import contains, sample_action

need("xminigrid")

xminigrid = pytest.importorskip("xminigrid")
adapter = pytest.importorskip("envs.adapters.xminigrid")
goals = pytest.importorskip("xminigrid.core.goals")
rules = pytest.importorskip("xminigrid.core.rules")

FAST = ("MiniGrid-Empty-5x5",)
NAMES = [env_id.split("/")[1] for env_id in envs.registered("xminigrid")]
FORWARD, TURN_RIGHT, TURN_LEFT, PICK_UP = (jnp.int32(i) for i in range(4))
TILES, COLORS = adapter.Tiles, adapter.Colors
RED_BALL = (TILES.BALL, COLORS.RED)
BLUE_KEY = (TILES.KEY, COLORS.BLUE)


def cases(names=NAMES):
    return [pytest.param(n, marks=[] if n in FAST else [pytest.mark.slow]) for n in names]


@functools.cache
def made(name):
    env, params = envs.make(f"xminigrid/{name}")
    return env, params, jax.jit(env.reset), jax.jit(env.step)


def tile(kind_and_color):
    return jnp.array(kind_and_color, jnp.uint8)


def ruleset(goal, *rule, objects):
    """A ruleset of xminigrid's own encodings."""
    encoded = [r.encode() for r in rule] or [rules.EmptyRule().encode()]
    return adapter.RuleSet(
        goal=goal.encode(), rules=jnp.stack(encoded), init_tiles=jnp.stack([*map(tile, objects)])
    )


def placed(state, position, direction):
    """The state with the agent elsewhere."""
    agent = state.world.agent.replace(position=jnp.array(position, jnp.int32), direction=jnp.int32(direction))
    return state._replace(world=state.world.replace(agent=agent))


def assert_equal_trees(ours, theirs, what):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y), err_msg=what)


def test_names_are_those_of_xminigrid():
    assert set(NAMES) == set(xminigrid.registered_environments())
    assert len(NAMES) == len(set(NAMES)) == 44


@pytest.mark.foreign_oracle
@pytest.mark.parametrize("name", cases())
def test_step_equals_xminigrid(name):
    """Reset and 40 random actions beside xminigrid's own chain of timesteps."""
    env, params, reset, step = made(name)
    source, source_params = foreign(xminigrid.make)(name)
    assert env.max_steps == int(params.max_steps) == source_params.max_steps
    true_reset = jax.jit(lambda key: foreign(source.reset)(source_params, key))
    true_step = jax.jit(lambda t, action: foreign(source.step)(source_params, t, action))
    obs, state = reset(jax.random.key(3), params)
    truth = true_reset(jax.random.key_data(jax.random.key(3)))
    for i in range(40):
        assert_equal_trees(state.world, truth.state, f"step {i}")
        np.testing.assert_array_equal(obs, truth.observation)
        assert contains(env.obs_spec, obs)
        action = sample_action(jax.random.key(100 + i), env.action_spec)
        obs, state, reward, terminated, truncated, info = step(jax.random.key(i), state, action, params)
        truth = true_step(truth, action)
        np.testing.assert_allclose(reward, truth.reward, rtol=1e-6)
        assert bool(terminated) == bool(truth.last() & (truth.discount == 0))
        assert bool(truncated) == bool(truth.last() & (truth.discount == 1))
        assert info == {}


@pytest.mark.slow
@pytest.mark.foreign_oracle
def test_the_source_has_discount_1_at_its_limit():
    """What `truncated` means is read off xminigrid: the last step, not a termination."""
    source, source_params = foreign(xminigrid.make)("MiniGrid-Empty-5x5", max_steps=2)
    true_step = jax.jit(lambda t, action: foreign(source.step)(source_params, t, action))
    timestep = foreign(source.reset)(source_params, jax.random.key_data(jax.random.key(0)))
    lasts = []
    for _ in range(3):
        timestep = true_step(timestep, TURN_LEFT)
        lasts.append((bool(timestep.last()), float(timestep.discount)))
    assert lasts == [(False, 1), (True, 1), (False, 1)]  # and it goes on past the limit


@pytest.mark.parametrize("name", cases(["MiniGrid-Empty-5x5", "MiniGrid-MemoryS8"]))
def test_the_clock_truncates_exactly_at_the_limit(name):
    env, params = envs.make(f"xminigrid/{name}", max_steps=5)
    assert env.max_steps == 5
    _, _, reset, step = made(name)
    _, state = reset(jax.random.key(0), params)
    assert int(state.time) == 0
    flags = []
    for i in range(7):
        _, state, _, terminated, truncated, _ = step(jax.random.key(i), state, TURN_LEFT, params)
        assert not terminated
        assert int(state.time) == i + 1
        flags.append(bool(truncated))
    assert flags == [False] * 4 + [True] * 3


@pytest.mark.parametrize("max_steps", [100, 5])
def test_the_goal_terminates_and_pays_by_the_time_it_took(max_steps):
    """From the left upper corner, facing right, to the right lower one of 3 x 3 cells."""
    name = "MiniGrid-Empty-5x5"
    _, params = envs.make(f"xminigrid/{name}", max_steps=max_steps)
    _, _, reset, step = made(name)
    _, state = reset(jax.random.key(0), params)
    path = (FORWARD, FORWARD, TURN_RIGHT, FORWARD, FORWARD)
    for i, action in enumerate(path):
        _, state, reward, terminated, truncated, _ = step(jax.random.key(i), state, action, params)
        is_last = i == len(path) - 1
        assert bool(terminated) == is_last
        assert bool(truncated) == (is_last and max_steps == 5)
        expected = 1 - 0.9 * 5 / max_steps if is_last else 0
        np.testing.assert_allclose(reward, expected, rtol=1e-6)
    np.testing.assert_array_equal(state.world.agent.position, [3, 3])


@pytest.mark.slow
def test_memory_terminates_on_the_wrong_object_too_without_reward():
    _, params, reset, step = made("MiniGrid-MemoryS8")
    _, state = reset(jax.random.key(0), params)
    for place, pays in ((state.world.carry.success_pos, True), (state.world.carry.failure_pos, False)):
        row, column = np.asarray(place)
        start = placed(state, (3, column), 0 if row < 3 else 2)
        _, _, reward, terminated, truncated, _ = step(jax.random.key(0), start, FORWARD, params)
        assert terminated
        assert not truncated
        assert (float(reward) > 0) == pays


# --- rulesets are tasks ---------------------------------------------------------------------------

XLAND = "xminigrid/XLand-MiniGrid-R1-9x9"


def holding_red_ball():
    return ruleset(goals.AgentHoldGoal(tile=tile(RED_BALL)), objects=[RED_BALL, BLUE_KEY])


def before(state, kind_and_color):
    """The state with the agent on a free cell beside an object, facing it."""
    grid = np.asarray(state.world.grid)
    ((row, column),) = np.argwhere((grid == kind_and_color).all(-1))
    for direction, (down, right) in enumerate([(-1, 0), (0, 1), (1, 0), (0, -1)]):
        if grid[row - down, column - right, 0] == TILES.FLOOR:
            return placed(state, (row - down, column - right), direction)
    raise AssertionError("no free cell beside the object")


@pytest.mark.foreign_oracle
def test_the_default_ruleset_is_empty():
    _, params, reset, _ = made("XLand-MiniGrid-R1-9x9")
    assert not params.ruleset.goal.any()
    assert not params.ruleset.rules.any()
    assert not params.ruleset.init_tiles.any()
    grid = np.asarray(reset(jax.random.key(0), params)[1].world.grid)
    assert set(grid[..., 0].ravel()) == {TILES.FLOOR, TILES.WALL}


@pytest.mark.slow
@pytest.mark.foreign_oracle
def test_a_ruleset_sets_objects_and_goal():
    env, params = envs.make(XLAND, ruleset=holding_red_ball())
    reset, step = jax.jit(env.reset), jax.jit(env.step)
    _, state = reset(jax.random.key(0), params)
    grid = np.asarray(state.world.grid)
    for thing in (RED_BALL, BLUE_KEY):
        assert (grid == thing).all(-1).sum() == 1
    _, wrong, reward, terminated, *_ = step(jax.random.key(0), before(state, BLUE_KEY), PICK_UP, params)
    assert not terminated
    assert float(reward) == 0
    np.testing.assert_array_equal(wrong.world.agent.pocket, BLUE_KEY)
    _, _, reward, terminated, truncated, _ = step(jax.random.key(0), before(state, RED_BALL), PICK_UP, params)
    assert terminated
    assert not truncated
    np.testing.assert_allclose(reward, 1 - 0.9 / env.max_steps, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.foreign_oracle
def test_rules_change_the_world():
    """A picked up ball becomes a key."""
    rule = rules.AgentHoldRule(tile=tile(RED_BALL), prod_tile=tile(BLUE_KEY))
    task = ruleset(goals.EmptyGoal(), rule, objects=[RED_BALL])
    env, params = envs.make(XLAND, ruleset=task)
    _, state = jax.jit(env.reset)(jax.random.key(0), params)
    _, state, *_ = jax.jit(env.step)(jax.random.key(0), before(state, RED_BALL), PICK_UP, params)
    np.testing.assert_array_equal(state.world.agent.pocket, BLUE_KEY)


@pytest.mark.foreign_oracle
def test_a_batch_of_rulesets_is_a_vmap():
    env, ball = envs.make(XLAND, ruleset=holding_red_ball())
    star = (TILES.STAR, COLORS.PINK)
    other = ruleset(goals.AgentHoldGoal(tile=tile(star)), objects=[star, BLUE_KEY])
    _, stars = envs.make(XLAND, ruleset=other, max_steps=9)
    tasks = jax.tree.map(lambda a, b: jnp.stack([a, b]), ball, stars)
    keys = jax.random.split(jax.random.key(0), 2)
    _, states = jax.jit(jax.vmap(env.reset))(keys, tasks)
    for i, thing in enumerate((RED_BALL, star)):
        grid = np.asarray(states.world.grid[i])
        assert (grid == thing).all(-1).sum() == 1
        np.testing.assert_array_equal(states.world.goal_encoding[i, 1:3], thing)


@pytest.mark.foreign_oracle
def test_bad_overrides_say_what_they_got():
    with pytest.raises(ValueError, match=r"ruleset: got dict, expected"):
        envs.make(XLAND, ruleset={})
    flat = holding_red_ball().replace(init_tiles=tile(RED_BALL))
    with pytest.raises(ValueError, match=r"init_tiles of shape \(2,\), expected"):
        envs.make(XLAND, ruleset=flat)
    with pytest.raises(UnknownName, match="ruleset"):
        envs.make("xminigrid/MiniGrid-Empty-5x5", ruleset=holding_red_ball())
    with pytest.raises(UnknownName, match=r"max_step'.*max_steps"):
        envs.make(XLAND, max_step=3)
    for bad in (0, -1, 2.5, True, None):
        with pytest.raises(ValueError, match=r"max_steps: got .*expected"):
            envs.make(XLAND, max_steps=bad)


# --- observation, invariants, pictures ------------------------------------------------------------


def test_components_are_named_as_what_they_show():
    """The agent stands in the middle of the lowest row and looks up."""
    env, params, reset, _ = made("MiniGrid-Empty-5x5")
    names = [component.name for component in env.obs_spec]
    assert len(set(names)) == len(names) == 7 * 7 * 2
    assert {c.cardinality for c in env.obs_spec} == {13, 12}
    obs, state = reset(jax.random.key(0), params)
    seen = dict(zip(names, np.asarray(obs).ravel(), strict=True))
    grid = np.asarray(state.world.grid)
    # Facing right at (1, 1): ahead is the next column, to the left the row above.
    for ahead in range(4):
        for right in range(-1, 3):
            kind, color = grid[1 + right, 1 + ahead]
            assert seen[f"tile[{6 - ahead},{3 + right}]"] == kind
            assert seen[f"color[{6 - ahead},{3 + right}]"] == color
    assert seen["tile[4,5]"] == TILES.GOAL


@pytest.mark.parametrize("name", cases())
def test_the_key_of_a_step_is_ignored_and_invariants_hold(name):
    env, params, reset, step = made(name)
    assert env.is_step_random is False
    _, state = reset(jax.random.key(1), params)
    for i in range(5):
        action = sample_action(jax.random.key(50 + i), env.action_spec)
        one = step(jax.random.key(i), state, action, params)
        two = step(jax.random.key(1000 + i), state, action, params)
        assert_equal_trees(one, two, f"step {i}")
        state = one[1]
        assert all(bool(x) for x in env.invariants(state, params).values())


def test_invariants_see_a_broken_state():
    env, params, reset, _ = made("MiniGrid-Empty-5x5")
    _, state = reset(jax.random.key(0), params)
    assert not env.invariants(placed(state, (5, 0), 0), params)["agent_inside"]
    assert not env.invariants(placed(state, (0, 0), 0), params)["agent_not_in_a_wall"]
    assert not env.invariants(placed(state, (1, 1), 4), params)["direction_exists"]
    grid = state.world.grid.at[2, 2, 0].set(13)
    broken = state._replace(world=state.world.replace(grid=grid))
    assert not env.invariants(broken, params)["tiles_and_colors_exist"]


@pytest.mark.parametrize("name", cases(["MiniGrid-Empty-5x5", "MiniGrid-MemoryS128"]))
def test_pictures_show_the_agent_and_the_goal(name):
    env, params, reset, step = made(name)
    _, state = reset(jax.random.key(0), params)
    first = env.render(state, params)
    assert first.dtype == np.uint8
    assert max(first.shape) <= 1100
    _, moved, *_ = step(jax.random.key(0), state, FORWARD, params)
    assert (env.render(moved, params) != first).any()
    size = min(32, max(8, 480 // max(state.world.grid.shape[:2])))
    row, column = np.asarray(state.world.agent.position)
    here = first[row * size : (row + 1) * size, column * size : (column + 1) * size].astype(int)
    assert (here[..., 0] - here[..., 1]).max() > 150  # the agent is red


def test_import_is_silent():
    code = f"import envs; env, params = envs.make('{XLAND}')"
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


# --- the rules as one formula ---------------------------------------------------------------------

NUM_WORLDS = 30_000  # each kind of rule fires on its own


def random_world(key):
    """A small grid of three kinds of tiles, an agent, a thing in its pocket and two rules.

    A border of the grid is as good as its middle: where an index leaves the grid counts too.
    """
    kinds = jnp.array([(TILES.BALL, COLORS.RED), (TILES.STAR, COLORS.RED), (TILES.FLOOR, COLORS.BLACK)])
    draw_grid, draw_position, draw_rest, draw_rules = jax.random.split(key, 4)
    grid = kinds[jax.random.randint(draw_grid, (4, 5), 0, 3)].astype(jnp.uint8)
    position = jax.random.randint(draw_position, (2,), 0, jnp.array([4, 5]))
    pocket_id, action, direction = jax.random.randint(draw_rest, (3,), 0, jnp.array([3, 6, 4]))
    tiles_of_rules, kinds_of_rules = jax.random.split(draw_rules)
    parts = kinds[jax.random.randint(tiles_of_rules, (2, 3), 0, 3)].reshape(2, 6)
    kind = jax.random.randint(kinds_of_rules, (2, 1), 0, 12)
    encoded = jnp.concatenate([kind, parts], axis=1).astype(jnp.uint8)
    offset = jnp.array([(-1, 0), (0, 1), (1, 0), (0, -1)])[direction]
    changed = jnp.clip(position + offset, 0, jnp.array([3, 4]))
    agent = xminigrid.types.AgentState(position, direction, kinds[pocket_id].astype(jnp.uint8))
    return encoded, grid, agent, action, changed


@pytest.mark.slow
@pytest.mark.foreign_oracle
def test_rules_equal_xminigrid_on_random_worlds_of_every_kind():
    worlds = foreign(jax.jit(jax.vmap(random_world)))(jax.random.split(jax.random.key(0), NUM_WORLDS))
    encoded, grid, agent, action, changed = worlds
    want_grid, want_agent = foreign(jax.jit(jax.vmap(rules.check_rule)))(
        encoded, grid, agent, action, changed
    )
    got_grid, got_pocket = jax.jit(jax.vmap(adapter.apply_rules))(
        encoded, grid, agent.position, agent.pocket, action, changed
    )
    np.testing.assert_array_equal(got_grid, want_grid)
    np.testing.assert_array_equal(got_pocket, want_agent.pocket)
    fired = (want_grid != grid).any((1, 2, 3)) | (want_agent.pocket != agent.pocket).any(1)
    for kind in range(1, 12):
        assert int(fired[(encoded[:, 0, 0] == kind) & (encoded[:, 1, 0] == 0)].sum()) >= 1, kind


@pytest.mark.slow
@pytest.mark.foreign_oracle
def test_a_step_under_rules_equals_xminigrid():
    """Whole steps in XLand under a ruleset with several kinds of rules."""
    star = (TILES.STAR, COLORS.GREEN)
    task = ruleset(
        goals.AgentNearGoal(tile=tile(star)),
        rules.AgentHoldRule(tile=tile(RED_BALL), prod_tile=tile(BLUE_KEY)),
        rules.AgentNearRule(tile=tile(BLUE_KEY), prod_tile=tile(RED_BALL)),
        rules.TileNearRule(tile_a=tile(BLUE_KEY), tile_b=tile(RED_BALL), prod_tile=tile(star)),
        objects=[RED_BALL, BLUE_KEY] * 8,
    )
    env, params = envs.make(XLAND, ruleset=task)
    source, source_params = foreign(xminigrid.make)(XLAND.split("/")[1], ruleset=task)
    true_step = jax.jit(lambda t, a: foreign(source.step)(source_params, t, a))
    step = jax.jit(env.step)
    by_walking = 0
    for episode in range(4):
        _, state = jax.jit(env.reset)(jax.random.key(episode), params)
        raw_key = jax.random.key_data(jax.random.key(episode))
        truth = foreign(source.reset)(source_params, raw_key)
        for i in range(60):
            action = sample_action(jax.random.key(1000 * episode + i), env.action_spec)
            before = state.world.grid
            obs, state, reward, terminated, _, _ = step(jax.random.key(7), state, action, params)
            truth = true_step(truth, action)
            assert_equal_trees(state.world, truth.state, f"episode {episode}, step {i}")
            np.testing.assert_array_equal(obs, truth.observation)
            np.testing.assert_allclose(reward, truth.reward, rtol=1e-6)
            assert bool(terminated) == bool(truth.last() & (truth.discount == 0))
            by_walking += int(action == FORWARD and (before != state.world.grid).any())
    assert by_walking > 0  # a rule fired: walking itself changes no cell
