"""Space Invaders: a cannon below a block of aliens that comes down from side to side and shoots."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from envs.minatar.game import SIZE, Game, board, cells_of, has_bit, plane_of_rows, signed

# A set of cells is a tuple of words, three rows in each from the top: bit 10 (y % 3) + x of word
# y // 3 is the cell (y, x). Row 9 is alone in its word.
Cells = tuple[jax.Array, ...]  # uint32, [] or [B] each

WORD_MASK = (1 << 30) - 1
ROW_MASK = (1 << 10) - 1
COLUMN_0 = 1 | 1 << 10 | 1 << 20
WAVE_ROW = 0b0011111100  # columns 2 to 7
WAVE = (WAVE_ROW * COLUMN_0, WAVE_ROW, 0, 0)  # rows 0 to 3
LEAST_INTERVAL = 6  # between moves of a full wave, however many waves are gone


class SpaceInvadersParams(NamedTuple):
    """The task; intervals are in env steps."""

    shot_cool_down: int = 5
    enemy_move_interval: int = 12  # of the first wave
    enemy_shot_interval: int = 10
    max_steps: int = 1000


class SpaceInvadersState(NamedTuple):
    """State of one game."""

    pos: jax.Array  # int32: column of the cannon, which is in row 9
    bullets: Cells  # 3 words: the cannon's own are in rows 0 to 8
    enemy_bullets: Cells  # 4 words
    aliens: Cells  # 4 words, one bit or more
    alien_dir: jax.Array  # int32, as all below; -1 left, 1 right
    move_interval: jax.Array  # of this wave while it has more aliens than that
    move_timer: jax.Array
    alien_shot_timer: jax.Array
    shot_timer: jax.Array
    ramp_index: jax.Array
    time: jax.Array


class SpaceInvaders(Game):
    """+1 an alien; it ends when a bullet or an alien reaches the cannon; each wave is faster.

    Source: github.com/kenjyoung/MinAtar, space_invaders.py; step by step as in gymnax's.
    Differs: from the source and gymnax in what follows an end, where the source stands still and
    gymnax ends again in every step.
    """

    defaults = SpaceInvadersParams()
    channels = ("cannon", "alien", "alien_left", "alien_right", "friendly_bullet", "enemy_bullet")
    num_actions = 4  # stay, left, right, fire
    is_step_random = False
    num_reset_words = 1  # nothing is drawn: the word has the shape of the lanes

    def first(self, words, params):
        none = jnp.zeros_like(words[0])
        zero = none.astype(jnp.int32)
        return SpaceInvadersState(
            pos=zero + 5,
            bullets=(none,) * 3,
            enemy_bullets=(none,) * 4,
            aliens=tuple(none + jnp.uint32(word) for word in WAVE),
            alien_dir=zero - 1,
            move_interval=zero + params.enemy_move_interval,
            move_timer=zero + params.enemy_move_interval,
            alien_shot_timer=zero + params.enemy_shot_interval,
            shot_timer=zero,
            ramp_index=zero,
            time=zero,
        )

    def advance(self, words, state, action, params):
        del words
        # The cannon shoots from where it was.
        fires = (action == 3) & (state.shot_timer == 0)
        bullets = _fly_up(state.bullets, fires, state.pos)
        pos = jnp.clip(state.pos + signed(action == 2, action == 1), 0, SIZE - 1)

        # The aliens move sideways or, at the border, down and back.
        moves = state.move_timer == 0
        turns = moves & _is_at_border(state.aliens, state.alien_dir)
        alien_dir = jnp.where(turns, -state.alien_dir, state.alien_dir)
        aliens = _march(state.aliens, moves, turns, alien_dir)
        count = _count(aliens)

        # What is in the row of the cannon: bullets, and aliens before or after their move.
        enemy_bullets = _down(state.enemy_bullets)
        dangers = enemy_bullets[3] | state.aliens[3] | aliens[3]
        terminated = has_bit(dangers, pos) | (turns & (state.aliens[3] != 0))

        # The nearest alien shoots, even if it is shot itself.
        shoots = state.alien_shot_timer == 0
        enemy_bullets = tuple(
            old | jnp.where(shoots, new, jnp.uint32(0))
            for old, new in zip(enemy_bullets, _nearest(aliens, pos), strict=True)
        )
        kills = tuple(a & b for a, b in zip(aliens, bullets, strict=False))
        bullets = tuple(b & ~k for b, k in zip(bullets, kills, strict=True))
        aliens = (*(a & ~k for a, k in zip(aliens, kills, strict=False)), aliens[3])

        is_cleared = _any(aliens) == 0
        ramps = is_cleared & (state.move_interval > LEAST_INTERVAL)
        shot_timer = jnp.where(fires, params.shot_cool_down, state.shot_timer)
        move_timer = jnp.where(moves, jnp.minimum(count, state.move_interval), state.move_timer)
        alien_shot_timer = jnp.where(shoots, params.enemy_shot_interval, state.alien_shot_timer)
        after = SpaceInvadersState(
            pos=pos,
            bullets=bullets,
            enemy_bullets=enemy_bullets,
            aliens=tuple(
                jnp.where(is_cleared, jnp.uint32(new), old) for new, old in zip(WAVE, aliens, strict=True)
            ),
            alien_dir=alien_dir,
            move_interval=state.move_interval - jnp.where(ramps, 1, 0),
            move_timer=move_timer - 1,
            alien_shot_timer=alien_shot_timer - 1,
            shot_timer=jnp.maximum(shot_timer - 1, 0),
            ramp_index=state.ramp_index + jnp.where(ramps, 1, 0),
            time=state.time,
        )
        return after, _count(kills).astype(jnp.float32), terminated

    def observe(self, state, params):
        del params
        alien = _plane(state.aliens)
        goes_left = (state.alien_dir < 0)[None]
        return board(
            [
                cells_of(state.pos) == (9 * SIZE + state.pos)[None],
                alien,
                alien & goes_left,
                alien & ~goes_left,
                _plane(state.bullets),
                _plane(state.enemy_bullets),
            ]
        )

    def invariants(self, state, params):
        inside = (state.pos >= 0) & (state.pos < SIZE)
        for cells in (state.bullets, state.enemy_bullets, state.aliens):
            inside = inside & (_any(cells) <= WORD_MASK)
        return super().invariants(state, params) | {"on_board": inside, "has_aliens": _any(state.aliens) != 0}


def _fly_up(bullets, fires, pos):
    """The cannon's bullets one row up and a new one, which is in row 8 at once."""
    top, middle, low = bullets
    shot = jnp.where(fires, jnp.uint32(1) << (20 + pos).astype(jnp.uint32), jnp.uint32(0))
    return (
        (top >> 10) | ((middle & ROW_MASK) << 20),
        (middle >> 10) | ((low & ROW_MASK) << 20),
        (low >> 10) | shot,
    )


def _down(cells):
    """Cells one row down; those of row 9 are gone."""
    above = (jnp.zeros_like(cells[0]), *cells[:2])
    upper = (
        ((word << 10) & WORD_MASK) | (previous >> 20) for word, previous in zip(cells, above, strict=False)
    )
    return (*upper, cells[2] >> 20)


def _is_at_border(aliens, alien_dir):
    """Whether an alien stands in the outermost column they go towards."""
    return has_bit(_columns(aliens), jnp.where(alien_dir < 0, 0, SIZE - 1))


def _march(aliens, moves, turns, alien_dir):
    """Aliens one column on, or one row down where they turn; the last row is followed by the first.

    That happens as the game ends; going sideways they are never at the border.
    """
    top, *lower = _down(aliens)
    downward = (top | aliens[3], *lower)
    sideways = tuple(jnp.where(alien_dir < 0, word >> 1, word << 1) for word in aliens)
    return tuple(
        jnp.where(turns, down, jnp.where(moves, side, word))
        for down, side, word in zip(downward, sideways, aliens, strict=True)
    )


def _nearest(aliens, pos):
    """The cell of the lowest alien in the nearest column, of two as near in the left one."""
    columns, pos = _columns(aliens), pos.astype(jnp.uint32)
    to_left = lax.clz(columns << (31 - pos))  # 32 where there is none
    rightward = columns >> pos
    to_right = lax.population_count(~rightward & (rightward - 1))
    column = jnp.where(to_left <= to_right, pos - to_left, pos + to_right)
    cells, is_lowest = [], True
    for word in reversed(aliens):
        rows = (word >> column) & COLUMN_0
        lowest = rows & ~((rows >> 10) | (rows >> 20))
        cells.append(jnp.where(is_lowest, lowest, jnp.uint32(0)) << column)
        is_lowest = is_lowest & (rows == 0)
    return tuple(reversed(cells))


def _columns(cells):
    """The columns in which a cell is, bits 0 to 9."""
    rows = _any(cells)
    return (rows | (rows >> 10) | (rows >> 20)) & ROW_MASK


def _any(cells):
    """The union of the words, 0 where no cell is in the set."""
    union = cells[0]
    for word in cells[1:]:
        union = union | word
    return union


def _count(cells):
    """How many cells are in the set, int32."""
    return sum(lax.population_count(word).astype(jnp.int32) for word in cells)


def _plane(cells):
    """Whether each cell of the board is in the set, bool `[100, ...]`; three rows a word."""
    words = (*cells, jnp.zeros_like(cells[0]))
    return plane_of_rows([words[y // 3] >> (SIZE * (y % 3)) for y in range(SIZE)])
