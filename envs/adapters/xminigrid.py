"""XLand-MiniGrid under our contract: `step` without xminigrid's auto-reset wrapper.

An XLand task is a `ruleset` (goal, rules, first objects) in the params, so a `vmap` over params is
a `vmap` over rulesets. The source's default is the empty one: nothing to find and no goal, hence
no reward. Give another, `make(name, ruleset=RuleSet(...))`, built by hand with `xminigrid.core` or
drawn from a benchmark (`xminigrid.load_benchmark` downloads it).

The step is the source's, composed here from its parts but for its rules, which are ours
(`xminigrid_rules`, equal and several times faster under `vmap`).
"""

import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs import pictures
from envs.adapters.xminigrid_rules import apply_rules
from envs.common.branch import computed_once
from envs.common.foreign import as_carry, cast_like, foreign
from envs.common.names import check_name
from envs.tasks import check_value
from envs.types import Component, Environment, clip_category

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    # the third party of this file
    import xminigrid
    import xminigrid.environment as source
    from xminigrid.core.actions import take_action
    from xminigrid.core.constants import NUM_COLORS, NUM_TILES, Colors, Tiles
    from xminigrid.core.goals import check_goal
    from xminigrid.core.observation import transparent_field_of_view
    from xminigrid.rendering.rgb_render import render as paint
    from xminigrid.types import RuleSet, StepType, TimeStep

LONGER_SIDE = 480  # of a picture, about, in pixels


class XMiniGridParams(NamedTuple):
    """The task; sizes of world and view are static and lie in the environment."""

    max_steps: jax.Array  # int32: env steps
    ruleset: Any = ()  # xminigrid's RuleSet; () in MiniGrid, whose goals are fixed


class XMiniGridState(NamedTuple):
    """Xminigrid's state, which keeps the clock and the task's encoding."""

    world: Any

    @property
    def time(self) -> jax.Array:
        """Steps taken, int32."""
        return self.world.step_num


class XMiniGrid(Environment):
    """One environment of XLand-MiniGrid (Nikulin et al. 2024).

    The observation is the square of view before the agent, `[V, V, 2]`: tile and colour of a cell,
    the agent in the middle of the lowest row; walls do not hide what lies behind. Actions: forward,
    turn right, turn left, pick up, put down, toggle. Reward: 1 - 0.9 * time / max_steps at the
    goal. `MiniGrid-Playground` has no goal.

    Differs: past its limit xminigrid goes on silently, here `truncated` stays True; and where goal
    and limit fall on one step both flags are True (the source's discount is 0: a termination).
    """

    is_step_random = False

    def __init__(self, name: str):
        """Build the environment with the source's sizes of world and view."""
        self._env, self._params = foreign(xminigrid.make)(name)
        self._has_own_step = type(self._env).step is not source.Environment.step
        self.name = f"xminigrid/{name}"
        self.obs_shape = tuple(self._env.observation_shape(self._params))
        self.obs_spec = tuple(
            Component(f"{what}[{row},{column}]", "category", cardinality=size)
            for row, column in np.ndindex(self.obs_shape[:2])
            for what, size in (("tile", NUM_TILES), ("color", NUM_COLORS))
        )
        num_actions = self._env.num_actions(self._params)
        self.action_spec = (Component("action", "category", cardinality=num_actions),)
        self.max_steps = int(self._params.max_steps)

    @property
    def default_params(self) -> XMiniGridParams:
        ruleset = getattr(self._params, "ruleset", ())
        max_steps = jnp.array(self._params.max_steps, jnp.int32)
        return XMiniGridParams(max_steps, as_carry(ruleset))

    def reset(self, key, params):
        # Raw keys: the source stores its key in the state, where key arrays are in the way.
        raw_key = jax.random.key_data(key)
        timestep = foreign(self._env.reset)(self._source_params(params), raw_key)
        state = XMiniGridState(as_carry(timestep.state))
        return timestep.observation.astype(jnp.float32), state

    def step(self, key, state, action, params):
        del key
        action = clip_category(self.action_spec, action)
        advance = self._advance_as_source if self._has_own_step else self._advance
        world, obs, reward, terminated = foreign(advance)(state.world, action, params)
        world = cast_like(world, state.world)
        return (
            obs.astype(jnp.float32),
            XMiniGridState(world),
            jnp.asarray(reward, jnp.float32),
            jnp.asarray(terminated, bool),
            world.step_num >= params.max_steps,
            {},
        )

    def _advance(self, world, action, params):
        """xminigrid's `Environment.step`, with its rules as one formula."""
        acted = take_action(world.grid, world.agent, action)
        grid, agent, changed = computed_once(acted, params.max_steps > 0)
        grid, pocket = apply_rules(world.rule_encoding, grid, agent.position, agent.pocket, action, changed)
        grid, pocket = computed_once((grid, pocket), params.max_steps > 0)
        agent, time = agent.replace(pocket=pocket), world.step_num + 1
        view = self._params.view_size
        obs = transparent_field_of_view(grid, agent, view, view)
        terminated = check_goal(world.goal_encoding, grid, agent, action, changed)
        reward = jnp.where(terminated, 1.0 - 0.9 * (time / params.max_steps), 0.0)
        return world.replace(grid=grid, agent=agent, step_num=time), obs, reward, terminated

    def _advance_as_source(self, world, action, params):
        """The step of an environment that overrides xminigrid's (`MiniGrid-Memory`)."""
        before = TimeStep(world, StepType.MID, reward=0.0, discount=1.0, observation=())
        after = self._env.step(self._source_params(params), before, action)
        return after.state, after.observation, after.reward, after.discount == 0

    def invariants(self, state, params):
        world = state.world
        size = jnp.array(world.grid.shape[:2], jnp.int32)
        tiles, colors = world.grid[..., 0], world.grid[..., 1]
        inside = (world.agent.position >= 0) & (world.agent.position < size)
        under = tiles[world.agent.position[0], world.agent.position[1]]
        solid = jnp.array([Tiles.WALL, Tiles.DOOR_LOCKED, Tiles.DOOR_CLOSED], jnp.uint8)
        return super().invariants(state, params) | {
            "agent_inside": jnp.all(inside),
            "agent_not_in_a_wall": jnp.all(under != solid),
            "tiles_and_colors_exist": jnp.all((tiles < NUM_TILES) & (colors < NUM_COLORS)),
            "direction_exists": (world.agent.direction >= 0) & (world.agent.direction < 4),
        }

    def render(self, state, params) -> np.ndarray:
        world = jax.device_get(state.world)
        tile_size = int(np.clip(LONGER_SIDE // max(world.grid.shape[:2]), 8, 32))
        picture = paint(world.grid, world.agent, self._params.view_size, tile_size)
        pocket = _describe(world.agent.pocket)
        text = f"step {world.step_num} of {int(params.max_steps)}, carries {pocket}"
        return pictures.caption(picture, text)

    def _source_params(self, params: XMiniGridParams) -> Any:
        """The source's params, its static sizes beside our arrays."""
        sized = self._params.replace(max_steps=params.max_steps)
        return sized.replace(ruleset=params.ruleset) if params.ruleset else sized


def make(name: str, **overrides: Any) -> tuple[XMiniGrid, XMiniGridParams]:
    """Build an environment and its task: `max_steps`, and for XLand ids a `ruleset`.

    Raises `UnknownName` for an unknown parameter, `ValueError` for an illegal value.
    """
    env = XMiniGrid(name)
    params = env.default_params
    fields = ("max_steps", "ruleset") if params.ruleset else ("max_steps",)
    for field, value in overrides.items():
        check_name(f"parameter of xminigrid/{name}", field, fields)
        if field == "ruleset":
            params = params._replace(ruleset=_checked_ruleset(name, value))
        else:
            check_value(f"xminigrid/{name}.max_steps", value, env.max_steps)
            params = params._replace(max_steps=jnp.array(int(value), jnp.int32))
    env.max_steps = int(params.max_steps)
    return env, params


def _checked_ruleset(name: str, value: Any) -> RuleSet:
    """A ruleset in xminigrid's bytes, or an error that says which part has the wrong shape."""
    if not isinstance(value, RuleSet):
        raise ValueError(
            f"xminigrid/{name}.ruleset: got {type(value).__name__}, expected an "
            "xminigrid.types.RuleSet of encoded goal, rules and init_tiles."
        )
    wanted = {"goal": (5,), "rules": (None, 7), "init_tiles": (None, 2)}
    for part, shape in wanted.items():
        got = np.shape(getattr(value, part))
        if len(got) != len(shape) or got[-1] != shape[-1] or 0 in got:
            raise ValueError(
                f"xminigrid/{name}.ruleset: got {part} of shape {got}, expected {shape}; encode "
                "goal and rules with .encode(), and give at least one rule (the empty one) and "
                "tile."
            )
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.uint8), value)


def _describe(tile: np.ndarray) -> str:
    names = {v: k for k, v in vars(Tiles()).items()}, {v: k for k, v in vars(Colors()).items()}
    kind, color = (table[int(i)].lower() for table, i in zip(names, tile, strict=True))
    return "nothing" if kind == "empty" else f"a {color} {kind}"
