"""XLand-MiniGrid's production rules as one formula over the neighbours of a cell.

xminigrid branches over its twelve kinds of rules; under `vmap` every kind is computed for every
rule and step, some thirty scatters of the grid each, which is three quarters of a step. All kinds
but one do the same: look at the four neighbours of a cell, replace those that match, and perhaps
clear the cell itself. `tests/envs/test_xminigrid.py` holds it to the source, bit for bit.
"""

import jax
import jax.numpy as jnp

# Kinds of rules as xminigrid encodes them; kinds with a direction follow as up, right, down, left.
AGENT_HOLD, AGENT_NEAR, TILE_NEAR, TILE_NEAR_UP, AGENT_NEAR_UP, LAST = 1, 2, 3, 4, 8, 11
FORWARD, PICK_UP, PUT_DOWN = 0, 3, 4  # actions after which rules are looked at
OFFSETS = ((-1, 0), (0, 1), (1, 0), (0, -1))  # up, right, down, left
FLOOR = (1, 7)  # tile and colour of a cleared cell: xminigrid's black floor


def apply_rules(
    rules: jax.Array,
    grid: jax.Array,
    position: jax.Array,
    pocket: jax.Array,
    action: jax.Array,
    changed: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The grid and the pocket after the rules, one after another; equals xminigrid's `check_rule`.

    `rules [R, 7]`, `grid [H, W, 2]` and `pocket [2]` are uint8; `position [2]` is the agent's,
    `changed [2]` the cell that the action touched.
    """

    def apply(carry, rule):
        return _apply_rule(rule, *carry, position, action, changed), None

    return jax.lax.scan(apply, (grid, pocket), rules)[0]


def _apply_rule(rule, grid, pocket, position, action, changed):
    kind = jnp.minimum(rule[0], LAST)
    tile, other, last = rule[1:3], rule[3:5], rule[5:7]
    is_held = (kind == AGENT_HOLD) & (action == PICK_UP) & jnp.all(pocket == tile)
    pocket = jnp.where(is_held, other, pocket)

    is_agents = (kind == AGENT_NEAR) | (kind >= AGENT_NEAR_UP)
    centre = jnp.where(is_agents, position, changed)
    cells = _neighbours(centre, grid.shape)
    found = grid.at[cells[:, 0], cells[:, 1]].get(mode="fill", fill_value=0)
    near_agent = _near_agent(kind, action) & jnp.all(found == tile[None], axis=-1)
    near_tile = _near_tile(kind, action, grid[changed[0], changed[1]], found, tile, other)

    product = jnp.where(is_agents, other, last)
    grid = _write(grid, cells, near_agent | near_tile, product)
    floor = jnp.array(FLOOR, grid.dtype)
    return _write(grid, changed[None], jnp.any(near_tile)[None], floor), pocket


def _near_agent(kind, action):
    """Which neighbours of the agent a rule of `kind` looks at after `action`, bool `[4]`."""
    direction = jnp.arange(4, dtype=kind.dtype)
    in_all = (kind == AGENT_NEAR) & (action == FORWARD)
    in_one = (kind == AGENT_NEAR_UP + direction) & ((action == FORWARD) | (action == PUT_DOWN))
    return in_all | in_one


def _near_tile(kind, action, placed, found, tile, other):
    """Which neighbours `found [4, 2]` of a `placed` thing make a pair with it, bool `[4]`."""
    direction = jnp.arange(4, dtype=kind.dtype)
    in_all = kind == TILE_NEAR
    is_first = jnp.all(placed == tile) & jnp.all(found == other[None], axis=-1)
    is_second = jnp.all(placed == other) & jnp.all(found == tile[None], axis=-1)
    pairs = is_first & (in_all | (kind == TILE_NEAR_UP + direction))
    # Seen from the second thing, the first lies the other way.
    pairs |= is_second & (in_all | (kind == TILE_NEAR_UP + (direction + 2) % 4))
    return pairs & (action == PUT_DOWN)


def _neighbours(cell, shape):
    """Cells `[4, 2]` around a cell; as in the source, an index of -1 wraps around."""
    cells = cell[None] + jnp.array(OFFSETS, cell.dtype)
    return jnp.where(cells < 0, cells + jnp.array(shape[:2], cell.dtype)[None], cells)


def _write(grid, cells, where, tile):
    """`grid` with `tile` in those of `cells [n, 2]` for which `where [n]` holds.

    One comparison a cell, in place of one over all at once, makes one fusion without a reduction.
    """
    height, width = grid.shape[:2]
    place = jnp.arange(height * width, dtype=cells.dtype).reshape(height, width)
    for i in range(cells.shape[0]):
        is_inside = cells[i, 1] < width  # else the place would be one of the next row
        hit = (place == cells[i, 0] * width + cells[i, 1]) & is_inside & where[i]
        grid = jnp.where(hit[..., None], tile[None, None], grid)
    return grid
