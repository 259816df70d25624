"""Pictures of environments, drawn on the host with numpy and pillow: no display, no JAX."""

from envs.pictures.canvas import caption
from envs.pictures.control import PAINTERS, paint_acrobot, paint_cartpole, paint_mountain_car, paint_pendulum
from envs.pictures.memory import paint_cards, paint_tmaze
from envs.pictures.observations import paint_observation

__all__ = [
    "PAINTERS",
    "caption",
    "paint_acrobot",
    "paint_cards",
    "paint_cartpole",
    "paint_mountain_car",
    "paint_observation",
    "paint_pendulum",
    "paint_tmaze",
]
