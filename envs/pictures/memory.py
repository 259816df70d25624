"""Pictures of worlds that ask for a memory, drawn on the host: no display, no JAX."""

from __future__ import annotations

import numpy as np

from envs.pictures.canvas import (
    BLUE,
    CHANNELS,
    EARTH,
    FELT,
    GREEN,
    GROUND,
    INK,
    MUTED,
    ORANGE,
    PAPER,
    RED,
    SIZE,
    WHITE,
    Canvas,
    Color,
    box,
    card,
    disc,
    finish,
    label,
    line,
    new_canvas,
    polygon,
)

SUIT_COLORS: tuple[Color, ...] = (INK, RED, BLUE, ORANGE)


def paint_cards(suit: int | None, query: int | None, answer: int, score: str) -> np.ndarray:
    """Draws the card on the table, and small beside it what is asked and what would be right.

    `suit` None is face down, `query` None is not asked for; `score` is a line below. uint8 [H, W, 3].
    """
    canvas = new_canvas(SIZE, (90, 78), 58, FELT)
    card(canvas, (0.0, 0.0), CHANNELS[6] if suit is None else WHITE)
    if suit is not None:
        _suit(canvas, (0.0, 0.0), suit, 0.42)
    if query is not None:
        label(canvas, (1.55, 0.85), "how many", 0.2, WHITE)
        _suit(canvas, (1.55, 0.48), query, 0.2, WHITE)
    label(canvas, (1.55, -0.1), "right answer", 0.2, WHITE)
    if query is None:
        _suit(canvas, (1.55, -0.5), answer, 0.22, WHITE)
    else:
        label(canvas, (1.55, -0.5), str(answer), 0.4, WHITE)
    label(canvas, (0.5, -1.45), score, 0.22, WHITE)
    return finish(canvas)


def paint_tmaze(state, params) -> np.ndarray:
    """Draws the corridor, the sign at its start, the agent and the goal. uint8 [H, W, 3]."""
    length, position = int(params.length), int(state.position)
    goal, turned = int(state.goal), int(state.turned)
    step = 200 / max(length + 1, 4)
    canvas = new_canvas(SIZE, (22, SIZE[1] / 2), step, PAPER)
    arm = 60 / step  # world units of either arm
    half = 11 / step
    box(canvas, (-half, -half), (length + half, half), EARTH)
    box(canvas, (length - half, -arm), (length + half, arm), EARTH)
    up = arm if goal == 1 else -arm
    disc(canvas, (length, up), 8 / step, GREEN)
    disc(canvas, (length, -up), 8 / step, MUTED)
    tip = (0.0, (26 if goal == 1 else -26) / step)
    line(canvas, [(0.0, half if goal == 1 else -half), tip], GROUND, 3 / step)
    side = 6 / step * (1 if goal == 1 else -1)
    polygon(canvas, [(tip[0], tip[1] + side), (-5 / step, tip[1]), (5 / step, tip[1])], GROUND)
    at = (position, (arm if turned == 1 else -arm) if turned else 0.0)
    disc(canvas, at, 8 / step, BLUE if not turned or turned == goal else RED)
    return finish(canvas)


def _suit(
    canvas: Canvas, center: tuple[float, float], suit: int, size: float, color: Color | None = None
) -> None:
    """A square, a diamond, a disc or a triangle: shapes tell suits apart without their colours."""
    (x, y), color = center, SUIT_COLORS[suit] if color is None else color
    if suit == 0:
        box(canvas, (x - 0.8 * size, y - 0.8 * size), (x + 0.8 * size, y + 0.8 * size), color)
    elif suit == 1:
        polygon(canvas, [(x, y + size), (x + 0.8 * size, y), (x, y - size), (x - 0.8 * size, y)], color)
    elif suit == 2:
        disc(canvas, center, 0.9 * size, color)
    else:
        polygon(canvas, [(x, y + size), (x + size, y - 0.8 * size), (x - size, y - 0.8 * size)], color)
