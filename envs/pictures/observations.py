"""Pictures of what an agent sees, for environments without a painter."""

from __future__ import annotations

import colorsys
import math
from typing import Any

import numpy as np
from PIL import Image

from envs.pictures.canvas import (
    BLUE,
    CHANNELS,
    GROUND,
    INK,
    MUTED,
    NIGHT,
    ORANGE,
    PAPER,
    RED,
    SIZE,
    SUPERSAMPLE,
    Canvas,
    Color,
    box,
    check_size,
    dashes,
    finish,
    line,
    load_font,
    new_canvas,
    shorten,
)


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
    check_size(size)
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
    check_size(size)
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
    canvas = new_canvas(size, origin=(0, height / 2), scale=1.0)
    slot = (width - 12) / values.size
    gap = 0.14 * slot if slot > 3 else 0.0
    for mark in (-0.5, 0.5):  # 1 / (1 + 1)
        dashes(canvas, mark * half, MUTED, 1.0)
    for index, value in enumerate(values):
        left, right = 6 + index * slot + gap, 6 + (index + 1) * slot - gap
        level = _squash(float(value)) * half
        color = (BLUE if value >= 0 else ORANGE) if math.isfinite(value) else RED
        box(canvas, (left, min(0.0, level)), (right, max(0.0, level)), color)
    line(canvas, [(4, 0), (width - 4, 0)], INK, 1.2)
    if has_labels:
        _label_bars(canvas, values, slot)
    return finish(canvas)


def _label_bars(canvas: Canvas, values: np.ndarray, slot: float) -> None:
    """Writes each bar's value above the plot and its index below it."""
    height = canvas.size[1]
    points = int(np.clip(slot / 3.4, 6, 11))
    font = load_font(points * SUPERSAMPLE)
    for index, value in enumerate(values):
        x = (6 + (index + 0.5) * slot) * SUPERSAMPLE
        top, bottom = 8 * SUPERSAMPLE, (height - 8) * SUPERSAMPLE
        text = shorten(f"{value:.2g}", font, slot * SUPERSAMPLE)
        canvas.draw.text((x, top), text, fill=INK, font=font, anchor="mm")
        canvas.draw.text((x, bottom), str(index), fill=GROUND, font=font, anchor="mm")


def _squash(value: float) -> float:
    """Maps any number into [-1, 1]: v / (1 + |v|); nan and infinity fill the bar."""
    if math.isnan(value):
        return 1.0
    if math.isinf(value):
        return math.copysign(1.0, value)
    return value / (1 + abs(value))
