"""Where Craftax-Classic's cows, zombies and skeletons appear, drawn without a sum over the map.

craftax draws a place by `jax.random.choice`, whose running sum over 64 x 64 chances, three times,
is two thirds of its whole step on a CPU. Free places are equally likely, so the one wanted is the
k-th of them in reading order: count the free places of each row, then search one row.

Differs: k is exact, while the source compares rounded sums; about one place in 10^5 is its
neighbour in that order.
"""

import jax
import jax.numpy as jnp

# the third party of this folder, imported by `envs.adapters.craftax`, which silences it
from craftax.craftax_classic.constants import BlockType
from craftax.craftax_classic.game_logic import get_distance_map

GRASS, PATH = BlockType.GRASS.value, BlockType.PATH.value


def spawn_mobs(rng, state, params, static_params):
    """The state with at most one more of each kind; equals craftax's `spawn_mobs`."""
    distance = get_distance_map(state.player_position, static_params)
    is_near = distance < params.mob_despawn_distance
    is_grass, is_path = state.map == GRASS, state.map == PATH
    p, s = params, static_params
    night_chance = p.spawn_zombie_night_chance * jnp.square(1 - state.light_level)
    zombie_chance = p.spawn_zombie_base_chance + night_chance
    kinds = (
        ("cows", is_grass & (distance > 3), p.spawn_cow_chance, p.cow_health, s.max_cows),
        ("zombies", (is_grass | is_path) & (distance > 9), zombie_chance, p.zombie_health, s.max_zombies),
        ("skeletons", is_path & (distance > 9), p.spawn_skeleton_chance, p.skeleton_health, s.max_skeletons),
    )
    for name, is_allowed, chance, health, most in kinds:
        rng, key_whether = jax.random.split(rng)
        rng, key_where = jax.random.split(rng)
        place, num_free = _draw_place(key_where, is_allowed & is_near & ~state.mob_map)
        wanted = (jax.random.uniform(key_whether) < chance) & (num_free > 0)
        state = _spawn(state, name, wanted, place, health, most)
    return state


def _spawn(state, name, wanted, place, health, most):
    """One more of `name` at `place [2]` if it is wanted and there are fewer than `most`."""
    mobs = getattr(state, name)
    spawns = wanted & (mobs.mask.sum() < most)
    index = jnp.argmax(~mobs.mask)
    place = jnp.where(spawns, place, mobs.position[index])
    is_there = spawns | mobs.mask[index]
    mobs = mobs.replace(
        position=mobs.position.at[index].set(place),
        health=mobs.health.at[index].set(jnp.where(spawns, health, mobs.health[index])),
        mask=mobs.mask.at[index].set(is_there),
    )
    row, column = place
    mob_map = state.mob_map.at[row, column].set(state.mob_map[row, column] | is_there)
    return state.replace(**{name: mobs}, mob_map=mob_map)


def _draw_place(key, is_free):
    """A uniform cell `[2]` of `is_free [H, W]`, and how many there are."""
    in_rows = jnp.cumsum(jnp.sum(is_free, axis=1, dtype=jnp.int32))
    share = 1 - jax.random.uniform(key, (1,))[0]
    rank = jnp.ceil(share * in_rows[-1]).astype(jnp.int32)  # 1 is the first
    row = jnp.sum(in_rows < rank, dtype=jnp.int32)
    before = jnp.where(row > 0, in_rows[row - 1], 0)
    in_row = jnp.cumsum(is_free[row], dtype=jnp.int32)
    column = jnp.sum(in_row < rank - before, dtype=jnp.int32)
    return jnp.stack([row, column]), in_rows[-1]
