"""The craftax adapter against craftax: steps, death and clock apart, tasks, specs, pictures."""

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

need("craftax")

craftax_env = pytest.importorskip("craftax.craftax_env")
adapter = pytest.importorskip("envs.adapters.craftax")

ID = "craftax/Classic-Symbolic"
BLOCKS, ACTIONS = adapter.c.BlockType, adapter.c.Action
NOOP, LEFT = jnp.int32(ACTIONS.NOOP.value), jnp.int32(ACTIONS.LEFT.value)


@functools.cache
def made():
    env, params = envs.make(ID)
    return env, params, jax.jit(env.reset), jax.jit(env.step)


@functools.cache
def oracle():
    """Craftax's environment and its compiled `reset_env`, `step_env`, `is_terminal`."""
    env = craftax_env.make_craftax_env_from_name("Craftax-Classic-Symbolic-v1", auto_reset=False)
    return env, jax.jit(foreign(env.reset_env)), jax.jit(foreign(env.step_env))


@functools.cache
def first_state(seed=0):
    _, params, reset, _ = made()
    return reset(jax.random.key(seed), params)[1]


def changed(state, **fields):
    return state._replace(world=state.world.replace(**fields))


def assert_same_trees(ours, theirs, what):
    """Equal values; craftax's Python numbers and weak floats may be one rounding apart."""
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=1e-6, atol=1e-6, err_msg=what)


def test_names_are_those_that_craftax_makes():
    """Classic only: the full game and the pixels are other sources' sizes of the same adapter."""
    assert envs.registered("craftax") == [ID]
    source, *_ = oracle()
    assert type(source) is type(made()[0]._env)


@pytest.mark.slow
@pytest.mark.foreign_oracle
@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {
            "max_steps": 77,
            "day_length": 20,
            "zombie_health": 9,
            "cow_health": 7,
            "spawn_zombie_base_chance": 0.5,
            "spawn_cow_chance": 0.4,
            "always_diamond": False,
        },
    ],
)
def test_step_equals_craftax(overrides):
    """Reset and 40 steps from our state with craftax's own params, which are Python numbers."""
    env, _, reset, step = made()
    _, params = envs.make(ID, **overrides)
    _, true_reset, true_step = oracle()
    renamed = {k: v for k, v in overrides.items() if k != "max_steps"}
    renamed |= {"max_timesteps": overrides["max_steps"]} if overrides else {}
    true_params = adapter.EnvParams(**renamed)
    raw = jax.random.key_data(jax.random.key(0))
    obs, state = reset(jax.random.key(0), params)
    true_obs, true_state = true_reset(raw, true_params)
    np.testing.assert_allclose(obs, true_obs, atol=1e-6)
    for i in range(40):
        assert_same_trees(state.world, true_state, f"step {i}")
        action, key = sample_action(jax.random.key(100 + i), env.action_spec), jax.random.key(i)
        raw = jax.random.key_data(jax.random.clone(key))
        obs, next_state, reward, terminated, truncated, info = step(key, state, action, params)
        true_obs, true_state, true_reward, done, true_info = true_step(raw, state.world, action, true_params)
        np.testing.assert_allclose(obs, true_obs, atol=1e-6)
        np.testing.assert_allclose(reward, true_reward, atol=1e-6)
        assert bool(terminated | truncated) == bool(done)
        assert set(true_info) - set(info) == {"discount"}
        for name, value in info.items():
            np.testing.assert_allclose(value, true_info[name], atol=1e-6)
        state = next_state


@pytest.mark.slow
@pytest.mark.foreign_oracle
def test_spawns_equal_craftax_on_random_maps():
    """All three kinds at once, on maps with few and many free places, slots full and empty."""
    game = pytest.importorskip("craftax.craftax_classic.game_logic")
    spawns = pytest.importorskip("envs.adapters.craftax_spawns")
    world, static = first_state().world, made()[0]._env.static_env_params
    params = adapter.EnvParams(spawn_cow_chance=0.9, spawn_zombie_base_chance=0.9, spawn_skeleton_chance=0.9)

    def random_world(key):
        key_map, key_share, key_mobs = jax.random.split(key, 3)
        share = jax.random.uniform(key_share) ** 4  # often hardly a free place
        kinds = jax.random.choice(
            key_map,
            jnp.array([BLOCKS.GRASS.value, BLOCKS.PATH.value, BLOCKS.WATER.value]),
            world.map.shape,
            p=jnp.array([share / 2, share / 2, 1 - share]),
        )
        keys = jax.random.split(key_mobs, 3)
        full = {
            name: getattr(world, name).replace(
                mask=jax.random.bernoulli(k, 0.7, getattr(world, name).mask.shape)
            )
            for name, k in zip(("cows", "zombies", "skeletons"), keys, strict=True)
        }
        return world.replace(map=kinds.astype(world.map.dtype), **full)

    def both(key):
        key_world, key_spawn = jax.random.split(key)
        before = random_world(key_world)
        raw = jax.random.key_data(key_spawn)
        return (
            before,
            spawns.spawn_mobs(raw, before, params, static),
            game.spawn_mobs(before, raw, params, static),
        )

    keys = jax.random.split(jax.random.key(0), 1500)
    before, ours, theirs = jax.jit(jax.vmap(foreign(both)))(keys)
    for name in ("cows", "zombies", "skeletons"):
        mine, truth = getattr(ours, name), getattr(theirs, name)
        np.testing.assert_array_equal(mine.mask, truth.mask)
        np.testing.assert_array_equal(mine.health, truth.health)
        appeared = np.asarray(truth.mask & ~getattr(before, name).mask).any(1)
        assert 100 < appeared.sum() < 1500, name
        moved = np.asarray(mine.position != truth.position).any((1, 2))
        assert moved.sum() <= 1, name  # the source compares rounded sums
    assert (np.asarray(ours.mob_map != theirs.mob_map).any((1, 2))).sum() <= 3


# --- the two ends of an episode -------------------------------------------------------------------


def ends(state, action, params):
    """Our flags, checked against craftax's merged one."""
    _, _, _, step = made()
    source, *_ = oracle()
    _, state, _, terminated, truncated, _ = step(jax.random.key(0), state, action, params)
    done = foreign(source.is_terminal)(state.world, adapter._source_params(params))
    assert bool(done) == bool(terminated | truncated)
    return bool(terminated), bool(truncated)


@pytest.mark.slow
def test_death_terminates():
    _, params, *_ = made()
    alive = first_state()
    assert ends(alive, NOOP, params) == (False, False)
    assert ends(changed(alive, player_health=jnp.int32(0)), NOOP, params) == (True, False)
    # By the rules: the last point of health goes once hunger has lasted.
    starving = changed(
        alive, player_health=jnp.int32(1), player_food=jnp.int32(0), player_recover=jnp.float32(-15.0)
    )
    assert ends(starving, NOOP, params) == (True, False)


@pytest.mark.slow
def test_lava_terminates():
    _, params, *_ = made()
    state = first_state()
    row, column = np.asarray(state.world.player_position)
    lava = state.world.map.at[row, column - 1].set(BLOCKS.LAVA.value)
    state = changed(state, map=lava, player_health=jnp.int32(9))
    assert ends(state, LEFT, params) == (True, False)
    assert ends(state, NOOP, params) == (False, False)


@pytest.mark.slow
def test_the_clock_truncates_exactly_at_the_limit():
    env, params = envs.make(ID, max_steps=5)
    assert env.max_steps == 5
    state, flags = first_state(), []
    assert int(state.time) == 0
    _, _, _, step = made()
    for i in range(7):
        flags.append(ends(state, NOOP, params))
        _, state, *_ = step(jax.random.key(0), state, NOOP, params)
        assert int(state.time) == i + 1
    assert flags == [(False, False)] * 4 + [(False, True)] * 3
    dying = changed(state, player_health=jnp.int32(0))
    assert ends(dying, NOOP, params) == (True, True)
    default_env, default = envs.make(ID)
    assert default_env.max_steps == int(default.max_steps) == 10_000
    late = changed(first_state(), timestep=jnp.int32(9999))
    assert ends(late, NOOP, default) == (False, True)


# --- the task -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_batch_of_tasks_is_a_vmap():
    env, params, *_ = made()
    tasks = jax.tree.map(lambda x: jnp.stack([x, x]), params)
    tasks = tasks._replace(day_length=jnp.array([300, 40], jnp.int32))
    step = jax.jit(jax.vmap(env.step, in_axes=(None, None, None, 0)))
    state = changed(first_state(), timestep=jnp.int32(20))
    _, states, *_ = step(jax.random.key(0), state, NOOP, tasks)
    progress = 21 / np.array([300, 40]) % 1 + 0.3
    expected = 1 - np.abs(np.cos(np.pi * progress)) ** 3
    np.testing.assert_allclose(states.world.light_level, expected, rtol=1e-5)


def test_default_params_are_craftax_own():
    env, params, *_ = made()
    for x, y in zip(env.default_params, params, strict=True):
        assert x.dtype == y.dtype
        assert x == y
    nominal = adapter.EnvParams()
    for field, value in params._asdict().items():
        theirs = "max_timesteps" if field == "max_steps" else field
        np.testing.assert_allclose(value, getattr(nominal, theirs))
    named = set(type(nominal).__dataclass_fields__) - {"fractal_noise_angles"}
    assert named == {"max_timesteps", *params._fields} - {"max_steps"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_steps", 0),
        ("max_steps", 2.5),
        ("max_steps", True),
        ("day_length", float("nan")),
        ("zombie_health", -1),
        ("spawn_cow_chance", 1.5),
        ("spawn_cow_chance", -0.1),
        ("spawn_cow_chance", "often"),
        ("always_diamond", 1),
    ],
)
def test_bad_overrides_say_what_they_got(field, value):
    with pytest.raises(ValueError, match=rf"{field}: got .*expected"):
        envs.make(ID, **{field: value})


def test_unknown_parameters_name_the_nearest():
    with pytest.raises(UnknownName, match=r"max_timestep.*max_steps"):
        envs.make(ID, max_timestep=5)
    _, params = envs.make(ID, spawn_cow_chance=0, always_diamond=False)
    assert params.spawn_cow_chance.dtype == jnp.float32
    assert params.always_diamond.dtype == bool
    assert not params.always_diamond


# --- the observation ------------------------------------------------------------------------------


@pytest.mark.slow
def test_components_are_named_as_what_they_show():
    env, *_ = made()
    source, *_ = oracle()
    names = [component.name for component in env.obs_spec]
    assert len(set(names)) == len(names) == 1345
    world = first_state().world
    world = world.replace(
        inventory=world.inventory.replace(stone=jnp.int32(7), iron_sword=jnp.int32(1)),
        player_food=jnp.int32(4),
        is_sleeping=jnp.array(True),
        cows=world.cows.replace(
            position=world.cows.position.at[0].set(world.player_position + jnp.array([-3, 4])),
            mask=world.cows.mask.at[0].set(True),
        ),
    )
    obs = dict(zip(names, np.asarray(foreign(source.get_obs)(world)), strict=True))
    assert contains(env.obs_spec, jnp.array(list(obs.values())))
    top, left = np.asarray(world.player_position) - (3, 4)
    for row, column in np.ndindex(7, 9):
        block = BLOCKS(int(world.map[top + row, left + column])).name.lower()
        assert obs[f"{block}[{row},{column}]"] == 1
        assert obs[f"cow[{row},{column}]"] == ((row, column) == (0, 8))
    np.testing.assert_allclose(obs["stone"], 0.7, atol=1e-3)
    np.testing.assert_allclose(obs["iron_sword"], 0.1, atol=1e-3)
    np.testing.assert_allclose(obs["food"], 0.4, atol=1e-3)
    np.testing.assert_allclose(obs["light"], world.light_level)
    assert obs["wood"] == obs["iron"] == 0
    assert obs["faces_up"] == obs["asleep"] == 1
    assert obs["faces_left"] == obs["faces_right"] == obs["faces_down"] == 0


@pytest.mark.slow
def test_invariants_hold_and_see_a_broken_state():
    env, params, *_ = made()
    state = first_state()
    assert all(bool(x) for x in env.invariants(state, params).values())
    breaks = {
        "finite": {"player_hunger": jnp.float32(jnp.nan)},
        "player_on_map": {"player_position": jnp.array([64, 3], jnp.int32)},
        "needs_in_range": {"player_food": jnp.int32(-1)},
        "inventory_in_range": {"inventory": state.world.inventory.replace(wood=jnp.int32(10))},
    }
    for name, fields in breaks.items():
        assert not env.invariants(changed(state, **fields), params)[name], name


# --- pictures -------------------------------------------------------------------------------------


def test_pictures_show_the_world_and_write_no_cache():
    env, params, *_ = made()
    state = jax.device_get(first_state())
    assets = sorted(adapter.ASSETS.iterdir())
    day = env.render(state, params)
    assert day.dtype == np.uint8
    assert day.shape[1:] == (9 * adapter.TILE, 3)
    view = day[: 7 * adapter.TILE].astype(int)
    night = env.render(changed(state, light_level=np.float32(0.0)), params)[: view.shape[0]]
    assert night.mean() < 0.8 * view.mean()
    place = state.world.player_position + np.array([0, 2])
    zombies = state.world.zombies
    zombies = zombies.replace(position=np.array([place] * 3, np.int32), mask=np.array([True, False, False]))
    seen = env.render(changed(state, zombies=zombies), params)[: view.shape[0]].astype(int)
    rows, columns = np.nonzero((seen != view).any(-1))
    tile = adapter.TILE
    assert rows.size > 100
    assert (3 * tile <= rows).all()
    assert (rows < 4 * tile).all()
    assert (6 * tile <= columns).all()
    assert (columns < 7 * tile).all()
    assert sorted(adapter.ASSETS.iterdir()) == assets


def test_pictures_hold_at_the_edge_of_the_map_and_with_all_goods():
    env, params, *_ = made()
    world = jax.device_get(first_state()).world
    rich = jax.tree.map(lambda x: np.int32(9), world.inventory)
    arrows = world.arrows.replace(mask=np.ones(3, bool))
    headings = np.array([[-1, 0], [0, 1], [1, 0]], np.int32)
    world = world.replace(
        player_position=np.array([0, 63], np.int32),
        inventory=rich,
        arrows=arrows,
        arrow_directions=headings,
        is_sleeping=np.array(True),
        growing_plants_age=world.growing_plants_age,
    )
    for block in BLOCKS:
        world = world.replace(map=np.full_like(world.map, block.value))
        picture = env.render(adapter.CraftaxState(world), params)
        assert picture.std() > 0


def test_import_is_silent():
    """Also without a texture cache; nothing is computed or written."""
    code = "import envs; env, params = envs.make('craftax/Classic-Symbolic')"
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
