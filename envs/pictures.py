"""Pictures of environments, drawn on the host with numpy and pillow: no display, no JAX.

`PAINTERS[name](state, params, size)` draws a state of a gymnax classic-control environment as
uint8 [H, W, 3]; `paint_observation(obs, size)` draws whatever an agent sees, for every other one.
Geometry follows the params: a longer pole is drawn longer. A world too large for the usual view
is zoomed out as a whole, so nothing leaves the picture.
"""

from __future__ import annotations

import colorsys
import functools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Color = tuple[int, int, int]
Point = tuple[float, float]

SIZE = (240, 180)  # width, height in pixels
SUPERSAMPLE = 3  # every picture is drawn 3x larger, then averaged down

PAPER: Color = (250, 250, 248)
INK: Color = (38, 50, 56)
GROUND: Color = (120, 132, 140)
EARTH: Color = (219, 224, 214)
MUTED: Color = (176, 186, 192)
BLUE: Color = (0, 114, 178)
ORANGE: Color = (230, 159, 0)
RED: Color = (213, 94, 0)
GREEN: Color = (0, 158, 115)
NIGHT: Color = (24, 28, 34)
# Okabe and Ito's colours, without black, which is the empty cell.
CHANNELS: tuple[Color, ...] = (
    (86, 180, 233),
    (230, 159, 0),
    (0, 158, 115),
    (240, 228, 66),
    (213, 94, 0),
    (204, 121, 167),
    (0, 114, 178),
    (236, 239, 244),
)


class _Canvas(NamedTuple):
    """A supersampled picture and the map from world coordinates (y upward) to its pixels."""

    image: Image.Image
    draw: ImageDraw.ImageDraw
    origin: Point  # supersampled pixel of the world's (0, 0)
    scale: float  # supersampled pixels per world unit
    size: tuple[int, int]


def paint_cartpole(state: Any, params: Any, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Draws CartPole: track with its limits, cart, and a pole of twice `params.length`.

    Shapes: state leaves scalar -> uint8 [H, W, 3].
    """
    x, theta = _numbers(state, "x", "theta")
    half_length, limit, mass = _numbers(params, "length", "x_threshold", "masspole")
    length = 2 * half_length  # as in gymnasium: `length` is the half length
    width, height = size
    # 3.4 units above the track show a pole of three times the usual length before zooming out
    scale = min(width / (2 * limit + 1.0), height / 3.4, 0.72 * height / max(length, 1e-3))
    canvas = _canvas(size, origin=(width / 2, 0.78 * height), scale=scale)
    axle = (x, 0.22)
    tip = (x + length * math.sin(theta), axle[1] + length * math.cos(theta))

    _line(canvas, [(-100, -0.08), (100, -0.08)], GROUND, 0.035)
    for end in (-limit, limit):
        _line(canvas, [(end, -0.2), (end, 0.04)], RED, 0.04)
    for wheel in (-0.22, 0.22):
        _disc(canvas, (x + wheel, -0.01), 0.08, GROUND)
    _box(canvas, (x - 0.4, 0.02), (x + 0.4, 0.3), INK, radius=0.05)
    _line(canvas, [axle, tip], ORANGE, _thickness(0.13, mass, usual=0.1))
    _disc(canvas, axle, 0.06, PAPER)
    return _finish(canvas)


def paint_acrobot(state: Any, params: Any, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Draws Acrobot: two links of the params' lengths and the height the tip has to cross.

    gymnax ends an episode by the two angles alone, so the line is exact for equal links and
    lies at their mean length otherwise. It turns green in a terminal state.
    Shapes: state leaves scalar -> uint8 [H, W, 3].
    """
    first, second = _numbers(state, "joint_angle1", "joint_angle2")
    names = ("link_length_1", "link_length_2", "link_mass_1", "link_mass_2")
    length_1, length_2, mass_1, mass_2 = _numbers(params, *names)
    width, height = size
    reach = max(2.45, 1.08 * (length_1 + length_2))
    scale = min(width, height) / 2 / reach
    canvas = _canvas(size, origin=(width / 2, height / 2), scale=scale)
    elbow = (length_1 * math.sin(first), -length_1 * math.cos(first))
    angle = first + second
    tip = (elbow[0] + length_2 * math.sin(angle), elbow[1] - length_2 * math.cos(angle))
    is_done = -math.cos(first) - math.cos(angle) > 1.0

    target = (length_1 + length_2) / 2
    _dashes(canvas, target, GREEN if is_done else MUTED, 0.05)
    _line(canvas, [(-0.35, 0), (0.35, 0)], GROUND, 0.07)
    _line(canvas, [(0, 0), elbow], BLUE, _thickness(0.17, mass_1, usual=1.0))
    _line(canvas, [elbow, tip], ORANGE, _thickness(0.17, mass_2, usual=1.0))
    for joint in ((0.0, 0.0), elbow):
        _disc(canvas, joint, 0.12, INK)
        _disc(canvas, joint, 0.05, PAPER)
    _disc(canvas, tip, 0.08, GREEN if is_done else RED)
    return _finish(canvas)


def paint_pendulum(state: Any, params: Any, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Draws Pendulum: a rod of length `params.l`, upright mark, and the last torque as an arrow.

    The arrow turns the way the torque pushes; its sweep is |last_u| / max_torque of 270 degrees.
    Shapes: state leaves scalar -> uint8 [H, W, 3].
    """
    theta, torque = _numbers(state, "theta", "last_u")
    length, mass, max_torque = _numbers(params, "l", "m", "max_torque")
    width, height = size
    reach = max(1.4, 1.15 * length)
    canvas = _canvas(size, origin=(width / 2, height / 2), scale=min(width, height) / 2 / reach)
    tip = (-length * math.sin(theta), length * math.cos(theta))  # 0 is up, counter-clockwise

    _ring(canvas, (0, 0), length, MUTED, 0.015)
    _line(canvas, [(0, length - 0.06), (0, length + 0.06)], GREEN, 0.05)
    _line(canvas, [(0, 0), tip], RED, _thickness(0.17, mass, usual=1.0))
    _disc(canvas, (0, 0), 0.1, INK)
    _disc(canvas, (0, 0), 0.04, PAPER)
    _torque_arrow(canvas, torque / max(abs(max_torque), 1e-6), radius=0.36)
    return _finish(canvas)


def paint_mountain_car(state: Any, params: Any, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Draws MountainCar, discrete or continuous: the hill sin(3x), the car on it, the goal's flag.

    Shapes: state leaves scalar -> uint8 [H, W, 3].
    """
    (position,) = _numbers(state, "position")
    low, high, goal = _numbers(params, "min_position", "max_position", "goal_position")
    width, height = size
    scale = min(width / (1.06 * max(high - low, 0.1)), height / 1.45)
    origin = (width / 2 - scale * (low + high) / 2, 0.9 * height)
    canvas = _canvas(size, origin=origin, scale=scale)

    xs = np.linspace(-width / scale, width / scale, 240) + (low + high) / 2
    hill = [(float(x), _hill(x)) for x in xs]
    _polygon(canvas, [*hill, (hill[-1][0], -2.0), (hill[0][0], -2.0)], EARTH)
    _line(canvas, hill, GROUND, 0.014)
    _line(canvas, [(low, _hill(low)), (low, _hill(low) + 0.12)], INK, 0.02)
    _flag(canvas, (goal, _hill(goal)))
    _car(canvas, (position, _hill(position)), math.atan(0.45 * 3 * math.cos(3 * position)))
    return _finish(canvas)


# gymnax id -> paint(state, params, size=(width, height)) -> uint8 [H, W, 3]
PAINTERS: dict[str, Callable[..., np.ndarray]] = {
    "CartPole-v1": paint_cartpole,
    "Acrobot-v1": paint_acrobot,
    "Pendulum-v1": paint_pendulum,
    "MountainCar-v0": paint_mountain_car,
    "MountainCarContinuous-v0": paint_mountain_car,
}


def paint_observation(obs: Any, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Draws any array observation, for environments without a painter.

    [h, w, 3] uint8 is shown as the image it is; [h, w, c] as a grid with a colour per channel (the
    last active channel of a cell wins, as in MinAtar); [h, w] as a grid of values; [n] as bars
    around a zero line, squashed by v / (1 + |v|), or as a grid when n > 256.
    Shapes: obs [n], [h, w] or [h, w, c] -> uint8 [H, W, 3].
    """
    array = np.asarray(obs)
    if array.ndim > 3 or array.size == 0 or array.dtype.kind not in "biuf":
        raise ValueError(
            f"got an observation of shape {array.shape} and dtype {array.dtype}; expected numbers "
            "of shape [n], [h, w] or [h, w, c]; fix: pass one unbatched component of it"
        )
    _check_size(size)
    if array.ndim == 3 and array.dtype == np.uint8 and array.shape[-1] == 3:
        return _fit_cells(array, size)
    values = array.astype(np.float64)
    if array.ndim == 3:
        return _fit_cells(_color_channels(values), size)
    if array.ndim == 2:
        return _fit_cells(_color_values(values), size)
    if array.size > 256:
        return _fit_cells(_color_values(_fold(values)), size)
    return _paint_bars(values.reshape(-1), size)


def caption(image: np.ndarray, text: str) -> np.ndarray:
    """Adds a strip with one line of text below a picture; text that does not fit ends in "...".

    Shapes: uint8 [H, W, 3] -> uint8 [H + strip, W, 3].
    """
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8:
        raise ValueError(
            f"got a picture of shape {image.shape} and dtype {image.dtype}; expected uint8 "
            "[H, W, 3]; fix: pass what a painter returned"
        )
    width = image.shape[1]
    points = int(np.clip(width / 20, 9, 24))
    font, strip_height = _font(points), points + 8
    strip = Image.new("RGB", (width, strip_height), PAPER)
    text = _shorten(re.sub(r"[\r\n\t]", " ", str(text)), font, width - 12)
    ImageDraw.Draw(strip).text((6, strip_height / 2), text, fill=INK, font=font, anchor="lm")
    return np.concatenate([image, np.asarray(strip)], axis=0)


# --- the parts of a scene ------------------------------------------------------------------------


def _torque_arrow(canvas: _Canvas, fraction: float, radius: float) -> None:
    """Draws an arc with a head; `fraction` in [-1, 1] of 270 degrees, counter-clockwise if > 0."""
    fraction = float(np.clip(fraction, -1, 1))
    if abs(fraction) < 0.02:
        return
    start = math.pi / 2
    angles = start + np.linspace(0, fraction * 1.5 * math.pi, 40)
    arc = [(radius * math.cos(a), radius * math.sin(a)) for a in angles]
    _line(canvas, arc, BLUE, 0.05)
    end, turn = float(angles[-1]), math.copysign(1.0, fraction)
    center = (radius * math.cos(end), radius * math.sin(end))
    forward = (-turn * math.sin(end), turn * math.cos(end))
    outward = (math.cos(end), math.sin(end))
    head = [
        _add(center, forward, 0.17),
        _add(center, outward, 0.1),
        _add(center, outward, -0.1),
    ]
    _polygon(canvas, head, BLUE)


def _flag(canvas: _Canvas, foot: Point) -> None:
    x, y = foot
    _line(canvas, [foot, (x, y + 0.26)], INK, 0.014)
    _polygon(canvas, [(x, y + 0.26), (x + 0.11, y + 0.22), (x, y + 0.17)], RED)


def _car(canvas: _Canvas, foot: Point, slope: float) -> None:
    along, up = (math.cos(slope), math.sin(slope)), (-math.sin(slope), math.cos(slope))

    def place(a: float, b: float) -> Point:
        return _add(_add(foot, along, a), up, b)

    floor = [(-0.09, 0.035), (0.09, 0.035)]
    roof = [(0.09, 0.075), (0.05, 0.115), (-0.06, 0.115), (-0.09, 0.075)]
    _polygon(canvas, [place(a, b) for a, b in floor + roof], BLUE)
    for wheel in (-0.05, 0.05):
        _disc(canvas, place(wheel, 0.032), 0.028, INK)
        _disc(canvas, place(wheel, 0.032), 0.011, PAPER)


def _hill(x: float) -> float:
    """Height of the track, as in gymnasium's renderer: 0.45 sin(3x) + 0.55."""
    return 0.45 * math.sin(3 * float(x)) + 0.55


def _thickness(base: float, mass: float, usual: float) -> float:
    """Width of a rod whose area grows with its mass, kept between half and twice the usual."""
    return base * float(np.clip(math.sqrt(max(mass, 0.0) / usual), 0.5, 2.0))


# --- observations --------------------------------------------------------------------------------


def _color_channels(values: np.ndarray) -> np.ndarray:
    """Colours each cell by its last active channel, brighter for larger values: [h, w, 3]."""
    palette = np.array([_channel_color(c) for c in range(values.shape[-1])], np.float64)
    finite = np.nan_to_num(np.abs(values), nan=0.0, posinf=1e9, neginf=1e9)
    peak = np.maximum(finite.max(axis=(0, 1)), 1e-12)
    strength = np.clip(finite / peak, 0, 1)  # [h, w, c]
    colors = np.broadcast_to(np.array(NIGHT, np.float64), (*values.shape[:2], 3))
    for channel in range(values.shape[-1]):
        weight = strength[..., channel, None]
        mix = np.where(weight > 0, 0.35 + 0.65 * weight, 0.0)  # a faint value is still visible
        colors = (1 - mix) * colors + mix * palette[channel]
    return np.rint(colors).astype(np.uint8)


def _color_values(values: np.ndarray) -> np.ndarray:
    """Colours a grid of values: dark at zero, blue above it, orange below, red where not finite."""
    is_finite = np.isfinite(values)
    safe = np.where(is_finite, values, 0.0)
    strength = np.abs(safe) / max(float(np.abs(safe).max()), 1e-12)
    hue = np.where((safe >= 0)[..., None], np.array(CHANNELS[0]), np.array(ORANGE))
    colors = (1 - strength[..., None]) * np.array(NIGHT) + strength[..., None] * hue
    colors = np.where(is_finite[..., None], colors, np.array(RED))
    return np.rint(colors).astype(np.uint8)


def _channel_color(channel: int) -> Color:
    """A distinct colour for any channel: eight chosen ones, then steps of the golden ratio."""
    if channel < len(CHANNELS):
        return CHANNELS[channel]
    hue = (0.12 + channel * 0.618034) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.55 + 0.3 * (channel % 2), 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def _fold(values: np.ndarray) -> np.ndarray:
    """Folds a long vector into rows, a little wider than high; zeros fill the last row."""
    columns = math.ceil(math.sqrt(values.size * 4 / 3))
    rows = math.ceil(values.size / columns)
    return np.pad(values, (0, rows * columns - values.size)).reshape(rows, columns)


def _fit_cells(colors: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Enlarges a small picture [h, w, 3] to the size in square cells, centred, with thin gaps."""
    _check_size(size)
    width, height = size
    rows, columns, _ = colors.shape
    cell = min((width - 8) / columns, (height - 8) / rows)
    fitted = (max(1, int(cell * columns)), max(1, int(cell * rows)))
    resampling = Image.Resampling.NEAREST if cell >= 1 else Image.Resampling.BOX
    grid = np.array(Image.fromarray(np.ascontiguousarray(colors)).resize(fitted, resampling))
    if cell >= 6:
        for edge in range(1, columns):
            grid[:, int(edge * fitted[0] / columns)] //= 2
        for edge in range(1, rows):
            grid[int(edge * fitted[1] / rows), :] //= 2
    picture = np.empty((height, width, 3), np.uint8)
    picture[:] = PAPER
    top, left = (height - fitted[1]) // 2, (width - fitted[0]) // 2
    picture[top : top + fitted[1], left : left + fitted[0]] = grid
    return picture


def _paint_bars(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Draws [n] values as bars around a zero line; dotted lines stand at -1 and 1."""
    width, height = size
    has_labels = values.size <= 16
    margin = 16 if has_labels else 6
    half = height / 2 - margin
    canvas = _canvas(size, origin=(0, height / 2), scale=1.0)
    slot = (width - 12) / values.size
    gap = 0.14 * slot if slot > 3 else 0.0
    for mark in (-0.5, 0.5):  # 1 / (1 + 1)
        _dashes(canvas, mark * half, MUTED, 1.0)
    for index, value in enumerate(values):
        left, right = 6 + index * slot + gap, 6 + (index + 1) * slot - gap
        level = _squash(float(value)) * half
        color = (BLUE if value >= 0 else ORANGE) if math.isfinite(value) else RED
        _box(canvas, (left, min(0.0, level)), (right, max(0.0, level)), color)
    _line(canvas, [(4, 0), (width - 4, 0)], INK, 1.2)
    if has_labels:
        _label_bars(canvas, values, slot)
    return _finish(canvas)


def _label_bars(canvas: _Canvas, values: np.ndarray, slot: float) -> None:
    """Writes each bar's value above the plot and its index below it."""
    height = canvas.size[1]
    points = int(np.clip(slot / 3.4, 6, 11))
    font = _font(points * SUPERSAMPLE)
    for index, value in enumerate(values):
        x = (6 + (index + 0.5) * slot) * SUPERSAMPLE
        top, bottom = 8 * SUPERSAMPLE, (height - 8) * SUPERSAMPLE
        text = _shorten(f"{value:.2g}", font, slot * SUPERSAMPLE)
        canvas.draw.text((x, top), text, fill=INK, font=font, anchor="mm")
        canvas.draw.text((x, bottom), str(index), fill=GROUND, font=font, anchor="mm")


def _squash(value: float) -> float:
    """Maps any number into [-1, 1]: v / (1 + |v|); nan and infinity fill the bar."""
    if math.isnan(value):
        return 1.0
    if math.isinf(value):
        return math.copysign(1.0, value)
    return value / (1 + abs(value))


# --- drawing -------------------------------------------------------------------------------------


def _canvas(size: tuple[int, int], origin: Point, scale: float) -> _Canvas:
    """A blank supersampled canvas; `origin` and `scale` are in output pixels."""
    _check_size(size)
    image = Image.new("RGB", (size[0] * SUPERSAMPLE, size[1] * SUPERSAMPLE), PAPER)
    origin = (origin[0] * SUPERSAMPLE, origin[1] * SUPERSAMPLE)
    return _Canvas(image, ImageDraw.Draw(image), origin, scale * SUPERSAMPLE, tuple(size))


def _finish(canvas: _Canvas) -> np.ndarray:
    """Averages the canvas down to its size: uint8 [H, W, 3]."""
    return np.array(canvas.image.resize(canvas.size, Image.Resampling.BOX))


def _pixel(canvas: _Canvas, point: Point) -> Point:
    x = canvas.origin[0] + canvas.scale * point[0]
    y = canvas.origin[1] - canvas.scale * point[1]
    return float(np.clip(x, -1e5, 1e5)), float(np.clip(y, -1e5, 1e5))


def _line(canvas: _Canvas, points: Sequence[Point], color: Color, width: float) -> None:
    """Draws a polyline with round ends, `width` in world units and at least one output pixel."""
    pixels = [_pixel(canvas, point) for point in points]
    thickness = max(width * canvas.scale, float(SUPERSAMPLE))
    canvas.draw.line(pixels, fill=color, width=round(thickness), joint="curve")
    for x, y in (pixels[0], pixels[-1]):
        r = thickness / 2
        canvas.draw.ellipse((x - r, y - r, x + r, y + r), fill=color)


def _dashes(canvas: _Canvas, y: float, color: Color, width: float) -> None:
    """Draws a dashed horizontal line over the whole picture, at height `y` in world units."""
    _, level = _pixel(canvas, (0, y))
    thickness = max(1, round(max(width * canvas.scale, SUPERSAMPLE)))
    step = 5 * SUPERSAMPLE
    for left in range(0, canvas.image.width, 2 * step):
        canvas.draw.line([(left, level), (left + step, level)], fill=color, width=thickness)


def _disc(canvas: _Canvas, center: Point, radius: float, color: Color) -> None:
    (x, y), r = _pixel(canvas, center), radius * canvas.scale
    canvas.draw.ellipse((x - r, y - r, x + r, y + r), fill=color)


def _ring(canvas: _Canvas, center: Point, radius: float, color: Color, width: float) -> None:
    (x, y), r = _pixel(canvas, center), radius * canvas.scale
    thickness = round(max(width * canvas.scale, SUPERSAMPLE))
    canvas.draw.ellipse((x - r, y - r, x + r, y + r), outline=color, width=thickness)


def _box(canvas: _Canvas, low: Point, high: Point, color: Color, radius: float = 0.0) -> None:
    (left, bottom), (right, top) = _pixel(canvas, low), _pixel(canvas, high)
    corners = (left, top, max(left, right), max(top, bottom))
    canvas.draw.rounded_rectangle(corners, radius * canvas.scale, fill=color)


def _polygon(canvas: _Canvas, points: Sequence[Point], color: Color) -> None:
    canvas.draw.polygon([_pixel(canvas, point) for point in points], fill=color)


def _add(point: Point, direction: Point, amount: float) -> Point:
    return point[0] + amount * direction[0], point[1] + amount * direction[1]


@functools.lru_cache(maxsize=16)
def _font(points: int) -> Any:
    return ImageFont.load_default(size=points)


def _shorten(text: str, font: Any, width: float) -> str:
    """Cuts a line to a width in pixels, marking the cut by "..."."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..." if text else ""


def _numbers(fields: Any, *names: str) -> list[float]:
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


def _check_size(size: tuple[int, int]) -> None:
    if len(size) != 2 or min(size) < 16 or any(int(side) != side for side in size):
        raise ValueError(
            f"got size {size}; expected (width, height), whole numbers of at least 16 pixels; "
            "fix: use for example (240, 180)"
        )
