"""Pictures of classic control: `PAINTERS[name](state, params, size)` draws a state.

Geometry follows the params: a longer pole is drawn longer. A world too large for the usual view
is zoomed out as a whole, so nothing leaves the picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from envs.pictures.canvas import (
    BLUE,
    EARTH,
    GREEN,
    GROUND,
    INK,
    MUTED,
    ORANGE,
    PAPER,
    RED,
    SIZE,
    Canvas,
    Point,
    add,
    box,
    dashes,
    disc,
    finish,
    line,
    new_canvas,
    polygon,
    ring,
)


def paint_cartpole(state: Any, params: Any, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Draws CartPole: track with its limits, cart, and a pole of twice `params.length`.

    Shapes: state leaves scalar -> uint8 [H, W, 3].
    """
    x, theta = numbers(state, "x", "theta")
    half_length, limit, mass = numbers(params, "length", "x_threshold", "masspole")
    length = 2 * half_length  # as in gymnasium: `length` is the half length
    width, height = size
    # 3.4 units above the track show a pole of three times the usual length before zooming out
    scale = min(width / (2 * limit + 1.0), height / 3.4, 0.72 * height / max(length, 1e-3))
    canvas = new_canvas(size, origin=(width / 2, 0.78 * height), scale=scale)
    axle = (x, 0.22)
    tip = (x + length * math.sin(theta), axle[1] + length * math.cos(theta))

    line(canvas, [(-100, -0.08), (100, -0.08)], GROUND, 0.035)
    for end in (-limit, limit):
        line(canvas, [(end, -0.2), (end, 0.04)], RED, 0.04)
    for wheel in (-0.22, 0.22):
        disc(canvas, (x + wheel, -0.01), 0.08, GROUND)
    box(canvas, (x - 0.4, 0.02), (x + 0.4, 0.3), INK, radius=0.05)
    line(canvas, [axle, tip], ORANGE, _thickness(0.13, mass, usual=0.1))
    disc(canvas, axle, 0.06, PAPER)
    return finish(canvas)


def paint_acrobot(state: Any, params: Any, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Draws Acrobot: two links of the params' lengths and the height the tip has to cross.

    gymnax ends an episode by the two angles alone, so the line is exact for equal links and
    lies at their mean length otherwise. It turns green in a terminal state.
    Shapes: state leaves scalar -> uint8 [H, W, 3].
    """
    first, second = numbers(state, "joint_angle1", "joint_angle2")
    names = ("link_length_1", "link_length_2", "link_mass_1", "link_mass_2")
    length_1, length_2, mass_1, mass_2 = numbers(params, *names)
    width, height = size
    reach = max(2.45, 1.08 * (length_1 + length_2))
    scale = min(width, height) / 2 / reach
    canvas = new_canvas(size, origin=(width / 2, height / 2), scale=scale)
    elbow = (length_1 * math.sin(first), -length_1 * math.cos(first))
    angle = first + second
    tip = (elbow[0] + length_2 * math.sin(angle), elbow[1] - length_2 * math.cos(angle))
    is_done = -math.cos(first) - math.cos(angle) > 1.0

    target = (length_1 + length_2) / 2
    dashes(canvas, target, GREEN if is_done else MUTED, 0.05)
    line(canvas, [(-0.35, 0), (0.35, 0)], GROUND, 0.07)
    line(canvas, [(0, 0), elbow], BLUE, _thickness(0.17, mass_1, usual=1.0))
    line(canvas, [elbow, tip], ORANGE, _thickness(0.17, mass_2, usual=1.0))
    for joint in ((0.0, 0.0), elbow):
        disc(canvas, joint, 0.12, INK)
        disc(canvas, joint, 0.05, PAPER)
    disc(canvas, tip, 0.08, GREEN if is_done else RED)
    return finish(canvas)


def paint_pendulum(state: Any, params: Any, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Draws Pendulum: a rod of length `params.l`, upright mark, and the last torque as an arrow.

    The arrow turns the way the torque pushes; its sweep is |last_u| / max_torque of 270 degrees.
    Shapes: state leaves scalar -> uint8 [H, W, 3].
    """
    theta, torque = numbers(state, "theta", "last_u")
    length, mass, max_torque = numbers(params, "l", "m", "max_torque")
    width, height = size
    reach = max(1.4, 1.15 * length)
    canvas = new_canvas(size, origin=(width / 2, height / 2), scale=min(width, height) / 2 / reach)
    tip = (-length * math.sin(theta), length * math.cos(theta))  # 0 is up, counter-clockwise

    ring(canvas, (0, 0), length, MUTED, 0.015)
    line(canvas, [(0, length - 0.06), (0, length + 0.06)], GREEN, 0.05)
    line(canvas, [(0, 0), tip], RED, _thickness(0.17, mass, usual=1.0))
    disc(canvas, (0, 0), 0.1, INK)
    disc(canvas, (0, 0), 0.04, PAPER)
    _torque_arrow(canvas, torque / max(abs(max_torque), 1e-6), radius=0.36)
    return finish(canvas)


def paint_mountain_car(state: Any, params: Any, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Draws MountainCar, discrete or continuous: the hill sin(3x), the car on it, the goal's flag.

    Shapes: state leaves scalar -> uint8 [H, W, 3].
    """
    (position,) = numbers(state, "position")
    low, high, goal = numbers(params, "min_position", "max_position", "goal_position")
    width, height = size
    scale = min(width / (1.06 * max(high - low, 0.1)), height / 1.45)
    origin = (width / 2 - scale * (low + high) / 2, 0.9 * height)
    canvas = new_canvas(size, origin=origin, scale=scale)

    xs = np.linspace(-width / scale, width / scale, 240) + (low + high) / 2
    hill = [(float(x), _hill(x)) for x in xs]
    polygon(canvas, [*hill, (hill[-1][0], -2.0), (hill[0][0], -2.0)], EARTH)
    line(canvas, hill, GROUND, 0.014)
    line(canvas, [(low, _hill(low)), (low, _hill(low) + 0.12)], INK, 0.02)
    _flag(canvas, (goal, _hill(goal)))
    _car(canvas, (position, _hill(position)), math.atan(0.45 * 3 * math.cos(3 * position)))
    return finish(canvas)


# gymnax id -> paint(state, params, size=(width, height)) -> uint8 [H, W, 3]
PAINTERS: dict[str, Callable[..., np.ndarray]] = {
    "CartPole-v1": paint_cartpole,
    "Acrobot-v1": paint_acrobot,
    "Pendulum-v1": paint_pendulum,
    "MountainCar-v0": paint_mountain_car,
    "MountainCarContinuous-v0": paint_mountain_car,
}


def _torque_arrow(canvas: Canvas, fraction: float, radius: float) -> None:
    """Draws an arc with a head; `fraction` in [-1, 1] of 270 degrees, counter-clockwise if > 0."""
    fraction = float(np.clip(fraction, -1, 1))
    if abs(fraction) < 0.02:
        return
    start = math.pi / 2
    angles = start + np.linspace(0, fraction * 1.5 * math.pi, 40)
    arc = [(radius * math.cos(a), radius * math.sin(a)) for a in angles]
    line(canvas, arc, BLUE, 0.05)
    end, turn = float(angles[-1]), math.copysign(1.0, fraction)
    center = (radius * math.cos(end), radius * math.sin(end))
    forward = (-turn * math.sin(end), turn * math.cos(end))
    outward = (math.cos(end), math.sin(end))
    head = [add(center, forward, 0.17), add(center, outward, 0.1), add(center, outward, -0.1)]
    polygon(canvas, head, BLUE)


def _flag(canvas: Canvas, foot: Point) -> None:
    x, y = foot
    line(canvas, [foot, (x, y + 0.26)], INK, 0.014)
    polygon(canvas, [(x, y + 0.26), (x + 0.11, y + 0.22), (x, y + 0.17)], RED)


def _car(canvas: Canvas, foot: Point, slope: float) -> None:
    along, up = (math.cos(slope), math.sin(slope)), (-math.sin(slope), math.cos(slope))

    def place(a: float, b: float) -> Point:
        return add(add(foot, along, a), up, b)

    floor = [(-0.09, 0.035), (0.09, 0.035)]
    roof = [(0.09, 0.075), (0.05, 0.115), (-0.06, 0.115), (-0.09, 0.075)]
    polygon(canvas, [place(a, b) for a, b in floor + roof], BLUE)
    for wheel in (-0.05, 0.05):
        disc(canvas, place(wheel, 0.032), 0.028, INK)
        disc(canvas, place(wheel, 0.032), 0.011, PAPER)


def _hill(x: float) -> float:
    """Height of the track, as in gymnasium's renderer: 0.45 sin(3x) + 0.55."""
    return 0.45 * math.sin(3 * float(x)) + 0.55


def _thickness(base: float, mass: float, usual: float) -> float:
    """Width of a rod whose area grows with its mass, kept between half and twice the usual."""
    return base * float(np.clip(math.sqrt(max(mass, 0.0) / usual), 0.5, 2.0))


def numbers(fields: Any, *names: str) -> list[float]:
    """Reads scalar fields of a state or of params as finite floats."""
    return [_number(getattr(fields, name), name) for name in names]


def _number(leaf: Any, name: str) -> float:
    array = np.asarray(leaf)
    if array.size != 1:
        raise ValueError(
            f"got field '{name}' of shape {array.shape}; expected a scalar; fix: paint one state, "
            "jax.tree.map(lambda leaf: leaf[i], state)"
        )
    value = float(array.reshape(()))
    if not math.isfinite(value):
        raise ValueError(
            f"got {value} in field '{name}'; expected a finite number; fix: stop the episode where "
            "the state diverged, or show it with paint_observation"
        )
    return value
