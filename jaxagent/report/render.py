"""Frames to files: GIF, PNG and contact sheets, with pillow only and written atomically."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

PALETTE_SIZE = 64  # enough for flat drawings with smooth edges; keeps a GIF small
PAPER = (250, 250, 248)
INK = (38, 50, 56)


def write_gif(path: str | os.PathLike, frames: Sequence[np.ndarray], fps: float = 25) -> Path:
    """Writes an endlessly looping GIF with one palette for all frames.

    Equal neighbouring frames are stored once and shown longer, so the timing is kept.
    Shapes: frames, a sequence of uint8 [H, W, 3] or one array [T, H, W, 3].
    """
    if not 1 <= fps <= 50:
        raise ValueError(
            f"got fps={fps}; expected 1 to 50, as browsers slow faster GIFs down; fix: drop frames"
        )
    checked = _check_frames(frames)
    palette = _shared_palette(checked)
    images = [_to_palette(frame, palette) for frame in checked]
    first, rest = images[0], images[1:]
    duration = round(100 / fps) * 10  # ms; a GIF counts in hundredths of a second

    def save(file: Any) -> None:
        options = {"save_all": True, "append_images": rest, "loop": 0, "optimize": True}
        first.save(file, format="GIF", duration=duration, **options)

    return write_atomically(path, save)


def write_png(path: str | os.PathLike, frame: np.ndarray) -> Path:
    """Writes one picture as PNG. Shapes: uint8 [H, W, 3]."""
    (checked,) = _check_frames([frame])
    image = Image.fromarray(checked)
    return write_atomically(path, lambda file: image.save(file, format="PNG", optimize=True))


def contact_sheet(frames: Sequence[np.ndarray], columns: int, labels: Sequence[str] = ()) -> np.ndarray:
    """Lays frames out row by row with a label below each: uint8 [rows * ., columns * ., 3].

    Shapes: frames, a sequence of uint8 [H, W, 3]; labels, one per frame or none.
    """
    checked = _check_frames(frames)
    if columns < 1:
        raise ValueError(f"got columns={columns}; expected at least 1; fix: use for example 4")
    if labels and len(labels) != len(checked):
        raise ValueError(
            f"got {len(labels)} labels for {len(checked)} frames; expected one each or none; "
            "fix: pass labels=() or as many labels as frames"
        )
    height, width, _ = checked[0].shape
    columns = min(columns, len(checked))
    rows = math.ceil(len(checked) / columns)
    gap, strip = 4, 18 if labels else 0
    step_x, step_y = width + gap, height + strip + gap
    sheet = Image.new("RGB", (columns * step_x + gap, rows * step_y + gap), PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=11)
    for index, frame in enumerate(checked):
        left, top = gap + index % columns * step_x, gap + index // columns * step_y
        sheet.paste(Image.fromarray(frame), (left, top))
        if labels:
            text = _cut(str(labels[index]), font, width - 4)
            draw.text((left + 2, top + height + strip / 2), text, INK, font, anchor="lm")
    return np.asarray(sheet)


def _cut(text: str, font: Any, width: float) -> str:
    text = " ".join(text.split())
    while text and font.getlength(text) > width:
        text = text[:-1]
    return text


def _shared_palette(frames: Sequence[np.ndarray]) -> Image.Image:
    """Chooses colours from up to 24 frames; rare colours (a flag) weigh almost as much as paper."""
    chosen = np.linspace(0, len(frames) - 1, min(len(frames), 24)).round().astype(int)
    packed = np.concatenate([_pack(frames[index]) for index in chosen])
    colors, counts = np.unique(packed, return_counts=True)
    repeats = 1 + np.log2(counts).astype(int)
    weighted = np.repeat(colors, repeats)
    pixels = np.stack([weighted >> 16, (weighted >> 8) & 255, weighted & 255], axis=-1)
    image = Image.fromarray(pixels.astype(np.uint8)[None])
    return image.quantize(PALETTE_SIZE, method=Image.Quantize.MEDIANCUT)


def _pack(frame: np.ndarray) -> np.ndarray:
    """Packs colours into one integer each: uint8 [H, W, 3] -> int32 [H * W]."""
    wide = frame.reshape(-1, 3).astype(np.int32)
    return (wide[:, 0] << 16) | (wide[:, 1] << 8) | wide[:, 2]


def _to_palette(frame: np.ndarray, palette: Image.Image) -> Image.Image:
    return Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE)


def _check_frames(frames: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Returns the frames as contiguous uint8 [H, W, 3] of one size, or says what is wrong."""
    if len(frames) == 0:
        raise ValueError("got no frames; expected at least one; fix: render an episode first")
    arrays = [np.asarray(frame) for frame in frames]
    first = arrays[0].shape
    for index, array in enumerate(arrays):
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] != 3:
            raise ValueError(
                f"got frame {index} of shape {array.shape} and dtype {array.dtype}; expected uint8 "
                "[H, W, 3]; fix: scale to 0..255 and .astype(np.uint8), drop an alpha channel"
            )
        if array.shape != first:
            raise ValueError(
                f"got frame {index} of shape {array.shape} after {first}; expected one size; "
                "fix: paint every frame with the same size"
            )
    return [np.ascontiguousarray(array) for array in arrays]


def write_atomically(path: str | os.PathLike, save: Callable[[Any], None]) -> Path:
    """Writes beside the target and renames, so a reader never sees half a file."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            save(file)
        os.chmod(name, 0o644)  # mkstemp's 0600 would hide the report from a web server
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return target
