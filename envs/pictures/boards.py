"""Pictures of board and card games, drawn on the host with numpy and pillow: no display, no JAX.

Boards are absolute: +1 is a piece of the side that begins, -1 of the other, 0 nothing, whoever
moves next. Every painter returns uint8 [H, W, 3].
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from envs.pictures.canvas import (
    BLUE,
    CHANNELS,
    FELT,
    GROUND,
    INK,
    MUTED,
    ORANGE,
    PAPER,
    RED,
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

BLACK: Color = (30, 32, 36)
WOOD: Color = (222, 184, 118)
EDGE: Color = (206, 196, 178)
LIGHT: Color = (236, 218, 185)
DARK: Color = (176, 132, 98)
BOARD_PIXELS = 300  # the longer side of a board, about


def paint_tic_tac_toe(board: np.ndarray) -> np.ndarray:
    """Draws crosses (+1) and noughts (-1). Shapes: board [3, 3]."""
    canvas = _board(3, 3, PAPER)
    for i in (1, 2):
        line(canvas, [(i, 0.1), (i, 2.9)], INK, 0.04)
        line(canvas, [(0.1, i), (2.9, i)], INK, 0.04)
    for row, column in np.ndindex(3, 3):
        x, y = column + 0.5, row + 0.5
        if board[row, column] > 0:
            for turn in (-1, 1):
                ends = [(x - 0.27, y - 0.27 * turn), (x + 0.27, y + 0.27 * turn)]
                line(canvas, ends, BLUE, 0.11)
        elif board[row, column] < 0:
            disc(canvas, (x, y), 0.33, RED)
            disc(canvas, (x, y), 0.22, PAPER)
    return finish(canvas)


def paint_connect_four(board: np.ndarray) -> np.ndarray:
    """Draws red (+1) and yellow (-1) discs in the upright frame. Shapes: board [6, 7]."""
    rows, columns = board.shape
    canvas = _board(rows, columns, (32, 78, 154))
    colors = {0: PAPER, 1: (214, 56, 44), -1: (244, 206, 52)}
    for row, column in np.ndindex(rows, columns):
        disc(canvas, (column + 0.5, row + 0.5), 0.4, colors[int(board[row, column])])
    return finish(canvas)


def paint_othello(board: np.ndarray) -> np.ndarray:
    """Draws black (+1) and white (-1) discs on the green board. Shapes: board [8, 8]."""
    rows, columns = board.shape
    canvas = _board(rows, columns, FELT)
    for i in range(1, rows):
        line(canvas, [(0, i), (columns, i)], BLACK, 0.03)
        line(canvas, [(i, 0), (i, rows)], BLACK, 0.03)
    for row, column in zip(*np.nonzero(board), strict=True):
        _stone(canvas, (column + 0.5, row + 0.5), 0.4, board[row, column])
    return finish(canvas)


def paint_go(board: np.ndarray) -> np.ndarray:
    """Draws black (+1) and white (-1) stones on the crossings, with star points. Shapes: [n, n]."""
    size = board.shape[0]
    canvas = _board(size, size, WOOD)
    for i in range(size):
        line(canvas, [(0.5, i + 0.5), (size - 0.5, i + 0.5)], BLACK, 0.03)
        line(canvas, [(i + 0.5, 0.5), (i + 0.5, size - 0.5)], BLACK, 0.03)
    margin = 3 if size > 11 else 2
    stars = sorted({margin, size // 2, size - 1 - margin})
    for x in stars:
        for y in stars:
            disc(canvas, (x + 0.5, y + 0.5), 0.09, BLACK)
    for row, column in zip(*np.nonzero(board), strict=True):
        _stone(canvas, (column + 0.5, row + 0.5), 0.45, board[row, column])
    return finish(canvas)


def paint_hex(board: np.ndarray) -> np.ndarray:
    """Draws hexagons and the edges each side joins: +1 black top and bottom, -1 white left, right.

    Rows lean to the right, a cell touches (row - 1, column + 1) and not (row - 1, column - 1).
    Shapes: board [n, n].
    """
    size = board.shape[0]
    high, wide = math.sqrt(3) / 2, 1.5 * size + 0.5  # of a row; of the whole
    canvas = _board(high * (size - 1) + 2.6, wide + 2.2, PAPER)

    def center(row: float, column: float) -> tuple[float, float]:
        return 1.6 + column + row / 2, 1.3 + high * row

    end = size - 0.5
    corners = [(-0.5, -0.5), (-0.5, end), (end, end), (end, -0.5)]  # (row, column)
    middle = center((size - 1) / 2, (size - 1) / 2)
    points = [_away(center(*corner), middle, 0.6) for corner in corners]
    for i, color in enumerate((BLACK, MUTED, BLACK, MUTED)):
        polygon(canvas, [points[i], points[(i + 1) % 4], middle], color)
    colors = {0: LIGHT, 1: BLACK, -1: WHITE}
    for row, column in np.ndindex(size, size):
        spot = center(row, column)
        polygon(canvas, _hexagon(spot, 1 / math.sqrt(3)), GROUND)
        polygon(canvas, _hexagon(spot, 0.53), LIGHT)
        if board[row, column]:
            polygon(canvas, _hexagon(spot, 0.45), GROUND)
            polygon(canvas, _hexagon(spot, 0.42), colors[int(board[row, column])])
    return finish(canvas)


def paint_chess(pieces: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """Draws lettered pieces on squares, white (+1) at the bottom.

    Shapes: pieces str [n, n], owner int [n, n].
    """
    size = pieces.shape[0]
    canvas = _board(size, size, LIGHT)
    for row, column in np.ndindex(size, size):
        # the right lower corner is light
        if (row + column) % 2:
            box(canvas, (column, row), (column + 1, row + 1), DARK)
        if owner[row, column]:
            spot = (column + 0.5, row + 0.5)
            is_white = owner[row, column] > 0
            disc(canvas, spot, 0.4, INK)
            disc(canvas, spot, 0.37, WHITE if is_white else BLACK)
            label(canvas, spot, str(pieces[row, column]), 0.52, BLACK if is_white else WHITE)
    return finish(canvas)


def paint_shogi(pieces: np.ndarray, owner: np.ndarray, hands: Sequence[str]) -> np.ndarray:
    """Draws lettered wedges that point at the opponent, black (+1) upward; hands above and below.

    Shapes: pieces str [rows, columns], owner int [rows, columns], hands (black, white).
    """
    rows, columns = pieces.shape
    canvas = _board(rows + 1.4, columns, WOOD)
    for row in range(rows + 1):
        line(canvas, [(0, row + 0.7), (columns, row + 0.7)], BLACK, 0.02)
    for column in range(1, columns):
        line(canvas, [(column, 0.7), (column, rows + 0.7)], BLACK, 0.02)
    for row, column in zip(*np.nonzero(owner), strict=True):
        x, y, up = column + 0.5, row + 1.2, -int(owner[row, column])
        outline = [(0, 0.44), (0.3, 0.28), (0.37, -0.42), (-0.37, -0.42), (-0.3, 0.28)]
        polygon(canvas, [(x + a, y + up * b) for a, b in outline], INK)
        face = LIGHT if up < 0 else PAPER
        polygon(canvas, [(x + 0.92 * a, y + 0.92 * up * b) for a, b in outline], face)
        name = str(pieces[row, column])
        label(canvas, (x, y - 0.05 * up), name, 0.42, RED if name.startswith("+") else INK)
    for text, y in zip(hands, (rows + 1.05, 0.35), strict=True):
        label(canvas, (columns / 2, y), f"hand {text or '-'}", 0.3, INK)
    return finish(canvas)


def paint_2048(board: np.ndarray) -> np.ndarray:
    """Draws numbered tiles, hotter for larger ones. Shapes: board [4, 4] of 0, 2, 4, 8, ..."""
    rows, columns = board.shape
    canvas = _board(rows, columns, (187, 173, 160))
    for row, column in np.ndindex(rows, columns):
        value = int(board[row, column])
        heat = min(math.log2(value) / 11, 1.0) if value else 0.0
        cold, hot = (238, 228, 218), (214, 70, 20)
        mixed = tuple(round(a + heat * (b - a)) for a, b in zip(cold, hot, strict=True))
        corners = (column + 0.05, row + 0.05), (column + 0.95, row + 0.95)
        box(canvas, *corners, mixed if value else (205, 193, 180), radius=0.08)
        if value:
            height = min(0.42, 1.5 / len(str(value)))
            spot = (column + 0.5, row + 0.5)
            label(canvas, spot, str(value), height, WHITE if heat > 0.3 else INK)
    return finish(canvas)


def paint_backgammon(
    points: np.ndarray, bar: Sequence[int], off: Sequence[int], dice: Sequence[int]
) -> np.ndarray:
    """Draws 24 points, from the right below to the left and back above, the bar and the dice left.

    Shapes: points [24] (+ black, - white), bar and off counts (black, white), dice of 1 to 6.
    """
    canvas = _board(12, 16, FELT)
    box(canvas, (6, 0), (7, 12), DARK)
    box(canvas, (13, 0), (16, 12), EDGE)
    for i, count in enumerate(points):
        below = i < 12
        column = 11 - i if below else i - 12
        x, base, up = column + 0.5 + (column >= 6), 12 if below else 0, -1 if below else 1
        color = LIGHT if (i + below) % 2 else ORANGE
        polygon(canvas, [(x - 0.5, base), (x + 0.5, base), (x, base + 5 * up)], color)
        _checkers(canvas, (x, base), up, int(abs(count)), np.sign(count))
    _checkers(canvas, (6.5, 6.2), 1, int(bar[0]), 1)
    _checkers(canvas, (6.5, 5.8), -1, int(bar[1]), -1)
    for side, count, y in ((1, off[0], 11.0), (-1, off[1], 1.0)):
        _stone(canvas, (14, y), 0.42, side)
        label(canvas, (15.1, y), str(int(count)), 0.9, INK)
    for i, die in enumerate(dice):
        _die(canvas, (14 + 1.1 * (i % 2), 5.4 + 1.2 * (i // 2)), die)
    return finish(canvas)


def paint_poker(cards: Sequence[str], public: str | None, chips: Sequence[int]) -> np.ndarray:
    """Draws both hands with their chips, and the public card between them ("?" is face down).

    Shapes: cards and chips of both players -> uint8 [H, W, 3].
    """
    canvas = _board(4, 6, FELT)
    for i, (name, count) in enumerate(zip(cards, chips, strict=True)):
        x = 1.2 + 3.6 * i
        label(canvas, (x, 0.35), f"player {i}", 0.34, WHITE)
        _card(canvas, (x, 1.75), name)
        for j in range(count):
            # two columns of chips hold the most a hand can cost
            spot = (x - 0.35 + 0.7 * (j // 7), 3.7 - 0.13 * (j % 7))
            disc(canvas, spot, 0.22, INK)
            disc(canvas, spot, 0.19, ORANGE)
        label(canvas, (x + 0.85, 3.6), str(count), 0.34, WHITE)
    if public is not None:
        _card(canvas, (3, 1.75), public)
    return finish(canvas)


# --- parts ----------------------------------------------------------------------------------------


def _stone(canvas: Canvas, center: tuple[float, float], radius: float, side: float) -> None:
    """A stone with a thin rim, black for side > 0, else white."""
    disc(canvas, center, radius, INK)
    disc(canvas, center, 0.93 * radius, BLACK if side > 0 else WHITE)


def _checkers(canvas: Canvas, base: tuple[float, float], up: int, count: int, side: float) -> None:
    """Stacks checkers; from six on they overlap, and their number stands on the last."""
    step = min(1.0, 5.0 / max(count, 1))
    for j in range(count):
        _stone(canvas, (base[0], base[1] + up * (0.5 + step * j)), 0.46, side)
    if count > 5:
        spot = (base[0], base[1] + up * (0.5 + step * (count - 1)))
        label(canvas, spot, str(count), 0.6, WHITE if side > 0 else BLACK)


def _die(canvas: Canvas, center: tuple[float, float], value: int) -> None:
    x, y = center
    box(canvas, (x - 0.45, y - 0.45), (x + 0.45, y + 0.45), WHITE, radius=0.12)
    corners = [(-1, -1), (1, 1), (-1, 1), (1, -1), (-1, 0), (1, 0)]
    pips = corners[: value - value % 2] + [(0, 0)] * (value % 2)
    for a, b in pips:
        disc(canvas, (x + 0.25 * a, y + 0.25 * b), 0.09, BLACK)


def _card(canvas: Canvas, center: tuple[float, float], name: str) -> None:
    card(canvas, center, CHANNELS[6] if name == "?" else WHITE)
    label(canvas, center, name, 1.0, WHITE if name == "?" else INK)


def _hexagon(center: tuple[float, float], radius: float) -> list[tuple[float, float]]:
    """Corners of a hexagon that stands on a tip."""
    angles = [math.pi / 3 * i for i in range(6)]
    return [(center[0] + radius * math.sin(a), center[1] + radius * math.cos(a)) for a in angles]


def _away(point: tuple[float, float], middle: tuple[float, float], amount: float) -> tuple[float, float]:
    """Moves a point away from the middle by `amount` cells."""
    dx, dy = point[0] - middle[0], point[1] - middle[1]
    grown = 1 + amount / math.hypot(dx, dy)
    return middle[0] + grown * dx, middle[1] + grown * dy


# --- drawing --------------------------------------------------------------------------------------


def _board(rows: float, columns: float, color: Color) -> Canvas:
    """A blank picture of `rows` x `columns` cells, y downward; its longer side `BOARD_PIXELS`."""
    scale = BOARD_PIXELS / max(rows, columns)
    size = (round(columns * scale), round(rows * scale))
    return new_canvas(size, (0.0, 0.0), scale, color, up=-1.0)
