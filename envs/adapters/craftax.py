"""Craftax-Classic, symbolic, under our contract: `step_env` and `reset_env` without its auto-reset.

Craftax merges death and the clock into one `done`; here `terminated` is death (no health left, or
lava) and `truncated` the clock. Its world generator uses one key twice (for the trees and for all
that follows), which the key-reuse check refuses of typed keys; craftax gets raw ones, with the
same bits.
"""

import functools
import math
import pathlib
import warnings
from collections.abc import Iterator
from dataclasses import fields
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from envs import pictures
from envs.common.foreign import as_carry, cast_like, foreign
from envs.common.names import check_name
from envs.types import Component, Environment, clip_category

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    # the third party of this file
    from craftax.craftax_classic import constants as c
    from craftax.craftax_classic import game_logic as game
    from craftax.craftax_classic.envs import craftax_symbolic_env as source
    from craftax.craftax_classic.envs.common import compute_score
    from craftax.craftax_classic.envs.craftax_state import EnvParams

    from envs.adapters.craftax_spawns import spawn_mobs


TOOLS = tuple(f"{stuff}_{t}" for t in ("pickaxe", "sword") for stuff in ("wood", "stone", "iron"))
NEEDS = ("health", "food", "drink", "energy")
DIRECTIONS = ("left", "right", "up", "down")


class CraftaxParams(NamedTuple):
    """The task: craftax's parameters, its `max_timesteps` under our name, as arrays."""

    max_steps: jax.Array  # int32: env steps
    day_length: jax.Array  # int32: env steps
    always_diamond: jax.Array  # bool: whether a world has at least one diamond
    zombie_health: jax.Array  # int32
    cow_health: jax.Array  # int32
    skeleton_health: jax.Array  # int32
    mob_despawn_distance: jax.Array  # int32: blocks
    spawn_cow_chance: jax.Array  # float32: a chance per env step, as the next three
    spawn_zombie_base_chance: jax.Array  # float32
    spawn_zombie_night_chance: jax.Array  # float32
    spawn_skeleton_chance: jax.Array  # float32


class CraftaxState(NamedTuple):
    """Craftax's state, which keeps the clock."""

    world: Any

    @property
    def time(self) -> jax.Array:
        """Steps taken, int32."""
        return self.world.timestep


class CraftaxClassic(Environment):
    """Craftax-Classic (Matthews et al. 2024), Crafter with 22 achievements on a map of 64 x 64.

    Reward: 1 for an achievement's first time, 0.1 for a point of health. `info` has the source's
    achievements and score of an episode, at its end. Differs: craftax's info also has a
    `discount`, left out since it is 0 where the clock runs out.
    """

    def __init__(self, name: str):
        """Wrap craftax's environment with its own sizes of map and view."""
        self._env = source.CraftaxClassicSymbolicEnvNoAutoReset()
        self.name = f"craftax/{name}"
        self.obs_spec = _obs_spec()
        self.obs_shape = (len(self.obs_spec),)
        self.action_spec = (Component("action", "category", cardinality=len(c.Action)),)
        self.max_steps = EnvParams().max_timesteps

    @property
    def default_params(self) -> CraftaxParams:
        return as_carry(_default_numbers())

    def reset(self, key, params):
        raw_key = jax.random.key_data(key)
        obs, world = foreign(self._env.reset_env)(raw_key, _source_params(params))
        return jnp.asarray(obs, jnp.float32), CraftaxState(as_carry(world))

    def step(self, key, state, action, params):
        raw_key = jax.random.key_data(key)
        action = clip_category(self.action_spec, action)
        source_params = _source_params(params)
        world, reward = foreign(self._advance)(raw_key, state.world, action, source_params)
        obs = foreign(self._env.get_obs)(world)
        done = foreign(self._env.is_terminal)(world, source_params)
        info = foreign(compute_score)(world, done)
        world = cast_like(world, state.world)
        truncated = world.timestep >= params.max_steps
        info = {k: jnp.asarray(v, jnp.float32) for k, v in info.items()}
        return (
            jnp.asarray(obs, jnp.float32),
            CraftaxState(world),
            jnp.asarray(reward, jnp.float32),
            is_dead(world),
            truncated,
            info,
        )

    def _advance(self, rng, world, action, params):
        """craftax's `craftax_step`, stage by stage, with its spawns drawn faster."""
        before, static = world, self._env.static_env_params
        action = jnp.where(world.is_sleeping, c.Action.NOOP.value, action)
        rng, key_act = jax.random.split(rng)
        rng, key_mobs = jax.random.split(rng)
        rng, key_spawn = jax.random.split(rng)
        _, key_state = jax.random.split(rng)
        world = game.do_crafting(world, action)
        world = game.do_action(key_act, world, action, static)
        world = game.place_block(world, action, static)
        world = game.move_player(world, action)
        world = game.update_mobs(key_mobs, world, params, static)
        world = spawn_mobs(key_spawn, world, params, static)
        world = game.update_plants(world, static)
        world = game.update_player_intrinsics(world, action)
        world = game.cap_inventory(world)
        world = game.update_health(world)
        achieved = world.achievements.astype(jnp.float32) - before.achievements.astype(jnp.float32)
        reward = jnp.sum(achieved) + 0.1 * (world.player_health - before.player_health)
        time = world.timestep + 1
        light = game.calculate_light_level(time, params)
        return world.replace(timestep=time, light_level=light, state_rng=key_state), reward

    def invariants(self, state, params):
        world = state.world
        size = jnp.array(world.map.shape, jnp.int32)
        on_map = (world.player_position >= 0) & (world.player_position < size)
        needs = (world.player_food, world.player_drink, world.player_energy, world.player_health)
        goods = jnp.stack(jax.tree.leaves(world.inventory))
        return super().invariants(state, params) | {
            "player_on_map": jnp.all(on_map),
            "needs_in_range": jnp.all((jnp.stack(needs) >= 0) & (jnp.stack(needs) <= 9)),
            "inventory_in_range": jnp.all((goods >= 0) & (goods <= 9)),
        }

    def render(self, state, params) -> np.ndarray:
        del params
        world = jax.device_get(state.world)
        done = int(world.achievements.sum())
        text = f"step {world.timestep}, {done} of {len(c.Achievement)} achievements"
        return pictures.caption(paint(world), text)


def make(name: str, **overrides: float) -> tuple[CraftaxClassic, CraftaxParams]:
    """Build Craftax-Classic and its task; `overrides` are fields of `CraftaxParams`.

    Raises `UnknownName` for an unknown parameter, `ValueError` for an illegal value.
    """
    env = CraftaxClassic(name)
    for field, value in overrides.items():
        check_name(f"parameter of craftax/{name}", field, CraftaxParams._fields)
        _check_value(name, field, value)
    # Tasks are stacked into lanes: an override never changes a dtype.
    dtypes = jax.tree.map(lambda x: x.dtype, env.default_params)
    params = jax.tree.map(jnp.asarray, _default_numbers()._replace(**overrides), dtypes)
    env.max_steps = int(params.max_steps)
    return env, params


def is_dead(world: Any) -> jax.Array:
    """Craftax's `is_game_over` without its clock: no health, or in lava; bool `[]`."""
    row, column = world.player_position
    return (world.player_health <= 0) | (world.map[row, column] == c.BlockType.LAVA.value)


# --- parameters and specs -------------------------------------------------------------------------


def _default_numbers() -> CraftaxParams:
    """Craftax's default task in Python numbers, whose types say how a value is checked."""
    nominal = EnvParams()
    names = {f: f for f in CraftaxParams._fields} | {"max_steps": "max_timesteps"}
    return CraftaxParams(**{ours: getattr(nominal, theirs) for ours, theirs in names.items()})


def _source_params(params: CraftaxParams) -> EnvParams:
    fields = params._asdict()
    return EnvParams(max_timesteps=fields.pop("max_steps"), **fields)


def _check_value(name: str, field: str, value: Any) -> None:
    """A flag is a bool, a chance lies in [0, 1], all else counts from 1."""
    default = getattr(_default_numbers(), field)
    if isinstance(default, bool):
        expected, is_legal = "True or False", isinstance(value, bool)
    elif isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        expected, is_legal = "a finite number", False
    elif isinstance(default, float):
        expected, is_legal = "a chance between 0 and 1", 0 <= value <= 1
    else:
        expected, is_legal = "a whole number >= 1", value == int(value) >= 1
    if not is_legal:
        raise ValueError(f"craftax/{name}.{field}: got {value!r}, expected {expected}.")


def _obs_spec() -> tuple[Component, ...]:
    """Components in the order of craftax's `render_craftax_symbolic`: 7 x 9 blocks, then itself."""
    layers = [b.name.lower() for b in c.BlockType] + ["zombie", "cow", "skeleton", "arrow"]
    seen = [
        Component(f"{layer}[{row},{column}]", "category", cardinality=2)
        for row, column in np.ndindex(*c.OBS_DIM)
        for layer in layers
    ]
    amounts = ("wood", "stone", "coal", "iron", "diamond", "sapling", *TOOLS, *NEEDS)
    # Tenths of at most 9; in float16, so 0.8999.
    held = [Component(name, "real", 0.0, 1.0) for name in amounts]
    faces = [Component(f"faces_{d}", "category", cardinality=2) for d in DIRECTIONS]
    light = [Component("light", "real", 0.0, 1.0), Component("asleep", "category", cardinality=2)]
    return tuple(seen + held + faces + light)


# --- pictures -------------------------------------------------------------------------------------
# Craftax's own renderer wants a texture cache, which it computes for a minute and pickles into the
# installed package. Its textures, pasted on the host in the same places, need neither.

TILE = 32  # pixels
ASSETS = pathlib.Path(c.__file__).parent / "assets"
# Pictures that are not named as their block.
BLOCK_FILES: dict[Any, str] = {
    c.BlockType.INVALID: "debug_tile",
    c.BlockType.OUT_OF_BOUNDS: "unknown",
    c.BlockType.CRAFTING_TABLE: "table",
    c.BlockType.PLANT: "plant_on_grass",
    c.BlockType.RIPE_PLANT: "ripe_plant_on_grass",
}
OUTSIDE = (128, 128, 128)  # what is not on the map
NIGHT = np.array([0, 16, 64])
# Two rows of what the player has, as in craftax: the needs, then goods, then tools.
SHELF = ((*NEEDS, "sapling", "wood", "stone", "coal", "iron"), ("diamond", *TOOLS))


def paint(world: Any) -> np.ndarray:
    """Paints the 7 x 9 blocks that the player sees, dark at night, above what he has: RGB uint8."""
    return np.concatenate([_paint_view(world), _paint_shelf(world)], axis=0)


def _paint_view(world: Any) -> np.ndarray:
    rows, columns = c.OBS_DIM
    corner = np.asarray(world.player_position) - (rows // 2, columns // 2)
    view = Image.new("RGB", (columns * TILE, rows * TILE), OUTSIDE)
    for row, column in np.ndindex(rows, columns):
        place = corner + np.array([row, column])
        if np.all((place >= 0) & (place < world.map.shape)):
            block = c.BlockType(int(world.map[tuple(place)]))
            _paste(view, BLOCK_FILES.get(block, block.name.lower()), row, column)
    for name, (row, column) in _moving_things(world):
        _paste(view, name, row - corner[0], column - corner[1])
    daylight = float(world.light_level) * (0.5 if world.is_sleeping else 1.0)
    day = np.asarray(view, np.float64)
    night = 0.2 * day + 0.3 * day.mean(-1, keepdims=True) + 0.5 * NIGHT
    return np.rint(daylight * day + (1 - daylight) * night).astype(np.uint8)


def _moving_things(world: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Names and places of the player and of all that lives or flies."""
    facing = "sleep" if world.is_sleeping else DIRECTIONS[int(world.player_direction) - 1]
    yield f"player-{facing}", world.player_position
    for kind in ("zombies", "cows", "skeletons"):
        mobs = getattr(world, kind)
        yield from ((kind.removesuffix("s"), place) for place in mobs.position[mobs.mask])
    flying = world.arrows.mask
    headings = world.arrow_directions[flying]
    for place, (down, right) in zip(world.arrows.position[flying], headings, strict=True):
        heading = ("left", "", "right")[right + 1] or ("up", "", "down")[down + 1]
        yield f"arrow-{heading}", place


def _paint_shelf(world: Any) -> np.ndarray:
    has = {need: getattr(world, f"player_{need}") for need in NEEDS}
    has |= {good.name: getattr(world.inventory, good.name) for good in fields(world.inventory)}
    shelf = Image.new("RGB", (c.OBS_DIM[1] * TILE, len(SHELF) * TILE))
    for row, things in enumerate(SHELF):
        for column, name in enumerate(things):
            if has[name] > 0:
                _paste(shelf, name, row, column)
                _paste(shelf, str(int(has[name])), row + 0.4, column + 0.4, 0.6)
    return np.asarray(shelf)


def _paste(picture: Image.Image, name: str, row: float, column: float, size: float = 1.0) -> None:
    """Pastes a texture through its own transparency; what lies outside is cut off."""
    texture = _texture(name, round(size * TILE))
    picture.paste(texture, (round(column * TILE), round(row * TILE)), texture)


@functools.cache
def _texture(name: str, pixels: int) -> Image.Image:
    with Image.open(ASSETS / f"{name}.png") as file:
        return file.convert("RGBA").resize((pixels, pixels), Image.Resampling.NEAREST)
