"""Pictures of bodies made of capsules, over a floor of tiles that shows how they move."""

import math
from typing import NamedTuple

import numpy as np

from envs.pictures.canvas import (
    BLUE,
    EARTH,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PAPER,
    RED,
    SIZE,
    Canvas,
    Color,
    Point,
    finish,
    line,
    new_canvas,
    polygon,
)

PALETTE: tuple[Color, ...] = (MUTED, BLUE, ORANGE, GREEN, (86, 180, 233), RED, (204, 121, 167))
TILES: tuple[Color, Color] = (EARTH, (206, 213, 203))
SHADOW: Color = (168, 178, 168)
TILES_ACROSS = 6  # tiles over the width of a picture


class View(NamedTuple):
    """An orthographic camera that follows a point; azimuth 0 looks along +y, so x runs right."""

    azimuth: float = 0.0  # degrees
    elevation: float = 12.0  # degrees above the horizon
    span: float = 3.0  # world units over the width of the picture
    height: float = 0.0  # world z of the middle of the picture
    follows: bool = True  # False: the camera looks at the origin


class Capsule(NamedTuple):
    """A rod with round ends; a sphere where both ends are one."""

    start: np.ndarray  # [3]
    end: np.ndarray  # [3]
    radius: float
    group: int  # capsules of one group share a colour; 0 is scenery


class _Frame(NamedTuple):
    """Unit vectors of the camera in the world, and the point that is in the middle."""

    right: np.ndarray
    up: np.ndarray
    forward: np.ndarray
    middle: np.ndarray


def paint_bodies(
    capsules: list[Capsule],
    followed: np.ndarray,
    view: View,
    floor: float | None = 0.0,
    size: tuple[int, int] = SIZE,
) -> np.ndarray:
    """Draw capsules from far to near, over a tiled floor at height `floor` (None: no floor).

    Shapes: followed [3] -> uint8 [H, W, 3].
    """
    frame = _frame(view, followed)
    width, height = size
    canvas = new_canvas(size, origin=(width / 2, height / 2), scale=width / view.span)
    if floor is not None:
        _paint_floor(canvas, frame, view.span, floor)
        for capsule in capsules:
            _paint_shadow(canvas, frame, capsule, floor)
    outline = view.span / 200
    for capsule in sorted(capsules, key=lambda c: _depth(frame, c), reverse=True):
        _paint_capsule(canvas, frame, capsule, outline)
    return finish(canvas)


def _frame(view: View, followed: np.ndarray) -> _Frame:
    a, e = math.radians(view.azimuth), math.radians(view.elevation)
    x, y = (float(v) for v in np.nan_to_num(followed[:2])) if view.follows else (0.0, 0.0)
    return _Frame(
        right=np.array([math.cos(a), math.sin(a), 0.0]),
        up=np.array([-math.sin(a) * math.sin(e), math.cos(a) * math.sin(e), math.cos(e)]),
        forward=np.array([-math.sin(a) * math.cos(e), math.cos(a) * math.cos(e), -math.sin(e)]),
        middle=np.array([x, y, view.height]),
    )


def _project(frame: _Frame, point: np.ndarray) -> Point:
    offset = np.asarray(point, np.float64) - frame.middle
    return float(offset @ frame.right), float(offset @ frame.up)


def _depth(frame: _Frame, capsule: Capsule) -> float:
    middle = (np.asarray(capsule.start) + np.asarray(capsule.end)) / 2
    return float((middle - frame.middle) @ frame.forward)


def _paint_floor(canvas: Canvas, frame: _Frame, span: float, floor: float) -> None:
    """Draw a chessboard that is fixed in the world, up to a horizon one span behind the middle."""
    tile = span / TILES_ACROSS
    reach = 2 * TILES_ACROSS
    column, row = (math.floor(v / tile) for v in frame.middle[:2])
    for i in range(column - reach, column + reach + 1):
        for j in range(row - reach, row + reach + 1):
            corners = [(i, j), (i + 1, j), (i + 1, j + 1), (i, j + 1)]
            points = [_project(frame, np.array([a * tile, b * tile, floor])) for a, b in corners]
            polygon(canvas, points, TILES[(i + j) % 2])
    slope = -frame.forward[2]  # sine of the elevation
    horizon = slope * span + (floor - frame.middle[2]) * float(frame.up[2])
    sky = [(-span, horizon), (span, horizon), (span, horizon + span), (-span, horizon + span)]
    polygon(canvas, sky, PAPER)


def _paint_shadow(canvas: Canvas, frame: _Frame, capsule: Capsule, floor: float) -> None:
    """Draw where the capsule stands over the floor; a body that lies below it casts none."""
    if min(capsule.start[2], capsule.end[2]) < floor:
        return
    ends = [np.array([*end[:2], floor]) for end in (capsule.start, capsule.end)]
    # Seen from low above, a round shadow is flat; a line has one width, so take the flat one.
    width = 2 * capsule.radius * max(abs(frame.forward[2]), 0.25)
    line(canvas, [_project(frame, end) for end in ends], SHADOW, width)


def _paint_capsule(canvas: Canvas, frame: _Frame, capsule: Capsule, outline: float) -> None:
    start, end = _project(frame, capsule.start), _project(frame, capsule.end)
    width = 2 * capsule.radius
    color = PALETTE[0] if capsule.group == 0 else PALETTE[1 + (capsule.group - 1) % 6]
    line(canvas, [start, end], INK, width + 2 * outline)
    line(canvas, [start, end], color, width)
    shine = (0.0, 0.45 * capsule.radius)
    ends = [(x + shine[0], y + shine[1]) for x, y in (start, end)]
    line(canvas, ends, _lighter(color), 0.35 * width)


def _lighter(color: Color) -> Color:
    red, green, blue = (round(0.55 * c + 0.45 * p) for c, p in zip(color, PAPER, strict=True))
    return red, green, blue
