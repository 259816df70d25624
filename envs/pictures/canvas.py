"""Drawing on the host with numpy and pillow: no display, no JAX. Every picture is drawn larger."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
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
WHITE: Color = (246, 246, 242)
FELT: Color = (38, 110, 84)
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


class Canvas(NamedTuple):
    """A supersampled picture and the map from world coordinates to its pixels."""

    image: Image.Image
    draw: ImageDraw.ImageDraw
    origin: Point  # supersampled pixel of the world's (0, 0)
    scale: float  # supersampled pixels per world unit
    size: tuple[int, int]
    up: float = 1.0  # -1 where y runs downward, as on boards


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
    face, strip_height = load_font(points), points + 8
    strip = Image.new("RGB", (width, strip_height), PAPER)
    text = shorten(re.sub(r"[\r\n\t]", " ", str(text)), face, width - 12)
    ImageDraw.Draw(strip).text((6, strip_height / 2), text, fill=INK, font=face, anchor="lm")
    return np.concatenate([image, np.asarray(strip)], axis=0)


def new_canvas(
    size: tuple[int, int], origin: Point, scale: float, color: Color = PAPER, up: float = 1.0
) -> Canvas:
    """A blank supersampled canvas; `origin` and `scale` are in output pixels."""
    check_size(size)
    image = Image.new("RGB", (size[0] * SUPERSAMPLE, size[1] * SUPERSAMPLE), color)
    origin = (origin[0] * SUPERSAMPLE, origin[1] * SUPERSAMPLE)
    return Canvas(image, ImageDraw.Draw(image), origin, scale * SUPERSAMPLE, tuple(size), up)


def finish(canvas: Canvas) -> np.ndarray:
    """Averages the canvas down to its size: uint8 [H, W, 3]."""
    return np.array(canvas.image.resize(canvas.size, Image.Resampling.BOX))


def pixel(canvas: Canvas, point: Point) -> Point:
    """Place of a point of the world on the supersampled picture, in its pixels."""
    x = canvas.origin[0] + canvas.scale * point[0]
    y = canvas.origin[1] - canvas.up * canvas.scale * point[1]
    return float(np.clip(x, -1e5, 1e5)), float(np.clip(y, -1e5, 1e5))


def line(canvas: Canvas, points: Sequence[Point], color: Color, width: float) -> None:
    """Draws a polyline with round ends, `width` in world units and at least one output pixel."""
    pixels = [pixel(canvas, point) for point in points]
    thickness = max(width * canvas.scale, float(SUPERSAMPLE))
    canvas.draw.line(pixels, fill=color, width=round(thickness), joint="curve")
    for x, y in (pixels[0], pixels[-1]):
        r = thickness / 2
        canvas.draw.ellipse((x - r, y - r, x + r, y + r), fill=color)


def dashes(canvas: Canvas, y: float, color: Color, width: float) -> None:
    """Draws a dashed horizontal line over the whole picture, at height `y` in world units."""
    _, level = pixel(canvas, (0, y))
    thickness = max(1, round(max(width * canvas.scale, SUPERSAMPLE)))
    step = 5 * SUPERSAMPLE
    for left in range(0, canvas.image.width, 2 * step):
        canvas.draw.line([(left, level), (left + step, level)], fill=color, width=thickness)


def disc(canvas: Canvas, center: Point, radius: float, color: Color) -> None:
    """Draws a filled circle."""
    (x, y), r = pixel(canvas, center), radius * canvas.scale
    canvas.draw.ellipse((x - r, y - r, x + r, y + r), fill=color)


def ring(canvas: Canvas, center: Point, radius: float, color: Color, width: float) -> None:
    """Draws a circle's line."""
    (x, y), r = pixel(canvas, center), radius * canvas.scale
    thickness = round(max(width * canvas.scale, SUPERSAMPLE))
    canvas.draw.ellipse((x - r, y - r, x + r, y + r), outline=color, width=thickness)


def box(canvas: Canvas, low: Point, high: Point, color: Color, radius: float = 0.0) -> None:
    """Draws a filled rectangle between two corners, rounded by `radius`."""
    (x1, y1), (x2, y2) = pixel(canvas, low), pixel(canvas, high)
    corners = (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
    canvas.draw.rounded_rectangle(corners, radius * canvas.scale, fill=color)


def card(canvas: Canvas, center: Point, face: Color = WHITE) -> None:
    """Draws a playing card of 1.24 by 1.84 world units."""
    x, y = center
    box(canvas, (x - 0.62, y - 0.92), (x + 0.62, y + 0.92), INK, radius=0.12)
    box(canvas, (x - 0.58, y - 0.88), (x + 0.58, y + 0.88), face, radius=0.1)


def polygon(canvas: Canvas, points: Sequence[Point], color: Color) -> None:
    """Draws a filled polygon."""
    canvas.draw.polygon([pixel(canvas, point) for point in points], fill=color)


def label(canvas: Canvas, center: Point, words: str, height: float, color: Color) -> None:
    """Writes a line centred at `center`, `height` in world units."""
    face = load_font(round(height * canvas.scale))
    canvas.draw.text(pixel(canvas, center), words, fill=color, font=face, anchor="mm")


def add(point: Point, direction: Point, amount: float) -> Point:
    """A point moved along a direction."""
    return point[0] + amount * direction[0], point[1] + amount * direction[1]


@functools.lru_cache(maxsize=48)
def load_font(points: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font at a size in pixels."""
    return ImageFont.load_default(size=points)


def shorten(text: str, face: Any, width: float) -> str:
    """Cuts a line to a width in pixels, marking the cut by "..."."""
    if face.getlength(text) <= width:
        return text
    while text and face.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..." if text else ""


def check_size(size: tuple[int, int]) -> None:
    """Raises `ValueError` for a size that no picture can have."""
    if len(size) != 2 or min(size) < 16 or any(int(side) != side for side in size):
        raise ValueError(
            f"got size {size}; expected (width, height), whole numbers of at least 16 pixels; "
            "fix: use for example (240, 180)"
        )
