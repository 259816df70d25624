"""Wrappers: `env, params = wrapper(env, params, ...)`, pure over the contract, composable.

What a wrapper adds to the task stands in the params beside the wrapped task (`WrappedParams.own`),
so `vmap` over params maps over sensors, noise levels and skins as it maps over masses and lengths.
"""

from envs.wrappers.actions import checked, discretize_actions, normalize_actions, sticky_actions
from envs.wrappers.dynamics import change_dynamics
from envs.wrappers.episodes import reset_free, time_limit
from envs.wrappers.observations import (
    exogenous_noise,
    flat_observations,
    frame_stack,
    normalize_observations,
    one_hot_observations,
)
from envs.wrappers.players import self_play
from envs.wrappers.sensors import sensor_failure
from envs.wrappers.skins import draw_skin, inverse_skin, skin

__all__ = [
    "change_dynamics",
    "checked",
    "discretize_actions",
    "draw_skin",
    "exogenous_noise",
    "flat_observations",
    "frame_stack",
    "inverse_skin",
    "normalize_actions",
    "normalize_observations",
    "one_hot_observations",
    "reset_free",
    "self_play",
    "sensor_failure",
    "skin",
    "sticky_actions",
    "time_limit",
]
