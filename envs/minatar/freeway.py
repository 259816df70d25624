"""Freeway: a chicken that crosses eight lanes of cars."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs.minatar.game import SIZE, Game, board_of_groups, cells_of

NUM_CARS = 8  # car i drives in row i + 1
HOME = 9  # row where the chicken starts
CHICKEN_COLUMN = 4
NUM_SPEEDS = 5
RIGHT = 8  # the bit of a speed that tells the direction
ONES = 0x11111111  # a one for each car


class FreewayParams(NamedTuple):
    """The task."""

    player_speed: int = 3  # env steps from one move of the chicken to the next
    max_steps: int = 2500


class FreewayState(NamedTuple):
    """State of one game; hexadecimal digit i of a uint32 belongs to car i."""

    pos: jax.Array  # int32: row of the chicken
    move_timer: jax.Array  # int32: steps until it may move
    x: jax.Array  # uint32: columns of the cars
    wait: jax.Array  # uint32: steps until they move, 0 to 5
    speed: jax.Array  # uint32: steps that each waits after a move, 1 to 5; + RIGHT
    time: jax.Array  # int32


class Freeway(Game):
    """+1 for each crossing, which redraws the speeds; a car sends the chicken back; it never ends.

    The cars are digits of words, and arithmetic on a word moves all of them: no digit carries.
    Source: github.com/kenjyoung/MinAtar, freeway.py; step by step as in gymnax's.
    Differs: the 2500 steps are a time limit (truncation); MinAtar terminates, after 2501.
    """

    defaults = FreewayParams()
    channels = ("chicken", "car", "speed1", "speed2", "speed3", "speed4", "speed5")
    num_actions = 3  # stay, up, down
    num_reset_words = 2
    num_step_words = 2

    def first(self, words, params):
        speed = draw(words)
        home = jnp.full_like(speed, HOME, jnp.int32)
        return FreewayState(
            pos=home,
            move_timer=jnp.zeros_like(home) + params.player_speed,
            x=jnp.zeros_like(speed),
            wait=_magnitude(speed),
            speed=speed,
            time=jnp.zeros_like(home),
        )

    def advance(self, words, state, action, params):
        return play(state, action, draw(words), params)

    def observe(self, state, params):
        del params
        cell = cells_of(state.pos)[:, None]
        row, column = cell // SIZE, cell % SIZE
        car = 16 * _digit(state.x[None, None], row - 1) + _digit(state.speed[None, None], row - 1)
        car = jnp.where((row > 0) & (row < HOME), car, -1)
        # A trail of some speed is where a car has come from: seen from there, the car to expect.
        speed = jnp.arange(1, 1 + NUM_SPEEDS).reshape((1, -1) + (1,) * state.pos.ndim)
        gone_right = 16 * ((column + 1) % SIZE) + speed + RIGHT
        gone_left = 16 * ((column - 1) % SIZE) + speed
        return board_of_groups(
            [
                cell == (SIZE * state.pos + CHICKEN_COLUMN)[None, None],
                (car >> 4) == column,
                (car == gone_right) | (car == gone_left),
            ]
        )

    def invariants(self, state, params):
        def below(digits, bound):  # three bits more: no sum of digits and 16 - bound carries
            even, odd = digits & 0x0F0F0F0F, (digits >> 4) & 0x0F0F0F0F
            over = (16 - bound) * 0x01010101
            return (((even + over) | (odd + over)) & 0x10101010) == 0

        speed = _magnitude(state.speed)
        return super().invariants(state, params) | {
            "chicken_on_board": (state.pos > 0) & (state.pos <= HOME) & (state.move_timer >= 0),
            "cars_on_road": below(state.x, SIZE),
            "speeds_known": below(speed, 6) & (_is_zero(speed) == 0) & below(state.wait, 6),
        }


def draw(words: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Speeds and directions of all cars, as `FreewayState.speed`, uniform; four cars a word.

    Of a word the lower 4 bits are directions, the others a fraction whose digits in base 5 are
    the speeds: no value is likelier than another by more than 5^4 / 2^28.
    """
    speed = jnp.zeros_like(words[0])
    for i in range(NUM_CARS):
        word, place = words[i // 4], i % 4
        if place == 0:
            fraction = word >> 4
        fraction = fraction * NUM_SPEEDS
        digit = (1 + (fraction >> 28)) | (((word >> place) & 1) << 3)
        fraction = fraction & 0x0FFFFFFF
        speed = speed | (digit << (4 * i))
    return speed


def play(
    state: FreewayState, action: jax.Array, new_speed: jax.Array, params: FreewayParams
) -> tuple[FreewayState, jax.Array, jax.Array]:
    """One step, given the speeds that a crossing would bring: state, reward, terminated."""
    moves = (action != 0) & (state.move_timer == 0)
    pos = jnp.clip(state.pos + jnp.where(action == 1, -1, 1), 0, HOME)
    pos = jnp.where(moves, pos, state.pos)
    move_timer = jnp.where(moves, params.player_speed, state.move_timer)

    crosses = pos == 0
    pos = jnp.where(crosses, HOME, pos)
    speed = jnp.where(crosses, new_speed, state.speed)
    wait = jnp.where(crosses, _magnitude(new_speed), state.wait)

    is_due = _is_zero(wait)
    x = _drive(state.x, is_due, _goes_right(speed))
    # One that is due has waited down to zero: adding its speed sets the clock again.
    wait = wait - (ONES ^ is_due) + (_magnitude(speed) & (is_due * 7))

    # Only one car is in the chicken's row; it hits before or after its move.
    lane = pos - 1
    is_hit = (_digit(state.x, lane) == CHICKEN_COLUMN) | (_digit(x, lane) == CHICKEN_COLUMN)
    after = FreewayState(
        pos=jnp.where((pos < HOME) & is_hit, HOME, pos),
        move_timer=jnp.maximum(move_timer - 1, 0),
        x=x,
        wait=wait,
        speed=speed,
        time=state.time,
    )
    return after, crosses.astype(jnp.float32), jnp.zeros_like(crosses)


def _drive(x, moves, right):
    """Columns after one cell right or left where `moves` has a one; the road is a ring."""
    is_first, is_last = _is_zero(x), x & (x >> 3) & ONES  # 9 alone has the bits 8 and 1
    goes_right, goes_left = moves & right, moves & ~right
    x = x + (goes_right & ~is_last) - (goes_left & ~is_first)
    return x + (goes_left & is_first) * 9 - (goes_right & is_last) * 9


def _is_zero(digits):
    """A one for each digit that is 0."""
    return ~(digits | (digits >> 1) | (digits >> 2) | (digits >> 3)) & ONES


def _magnitude(speed):
    return speed & (7 * ONES)


def _goes_right(speed):
    return (speed >> 3) & ONES


def _digit(digits, index):
    """Digit `index` as int32; the index is taken modulo 8."""
    return ((digits >> ((4 * index).astype(jnp.uint32) & 31)) & 15).astype(jnp.int32)
