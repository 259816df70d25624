"""Pgx's games under our contract: boards, cards and 2048, with masks of the legal actions.

A reward is a vector over players (not over colours: who begins is drawn at reset), the observation
is the mover's, and `legal_actions` is the mover's mask. An illegal action ends the game at once:
the mover gets -1 (backgammon: -3, the most a game can cost) and the opponent the opposite. After
the end pgx stays where it is, pays zero and allows every action.
"""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs import pictures
from envs.common.foreign import as_carry, cast_like, foreign
from envs.pictures import boards
from envs.tasks import make_task
from envs.types import Component, Environment, Symmetries, clip_category

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import pgx  # the third party of this file


class PgxParams(NamedTuple):
    """The task: pgx's rules under a clock of ours, in moves of either player."""

    max_steps: jax.Array  # int32


class PgxState(NamedTuple):
    """A game and our clock."""

    game: Any  # pgx's own state
    time: jax.Array  # int32: steps taken; pgx's own count stands still once a game has ended


class PgxEnvironment(Environment):
    """One game of pgx (Koyamada et al. 2023, "Pgx: Hardware-Accelerated Parallel Game Simulators").

    Differs: `truncated` is our clock, since no game of pgx truncates. Where pgx itself stops a long
    game (chess, shogi: 512 moves, the small ones: 256, a draw; go: twice the board, counted as it
    stands) it says `terminated`, and so do we: it is a rule of that game.
    """

    has_legal_actions = True

    def __init__(self, name: str):
        """Build the game; `max_steps` lies beyond the longest game."""
        self._env = foreign(pgx.make)(name)
        self._facts = FACTS[name]
        self.name = f"pgx/{name}"
        self.num_players = int(self._env.num_players)
        self.is_step_random = name in RANDOM_STEP
        self.max_steps = self._facts.longest + 1
        first = jax.eval_shape(foreign(self._env.init), jax.random.key(0))
        self.obs_shape = first.observation.shape
        self.obs_spec = _obs_spec(name, first.observation)
        self.action_spec = (Component("action", "category", cardinality=first.legal_action_mask.shape[0]),)
        self.symmetries = SYMMETRIES[name]() if name in SYMMETRIES else None

    @property
    def default_params(self) -> PgxParams:
        return PgxParams(max_steps=jnp.array(self._facts.longest + 1, jnp.int32))

    def reset(self, key, params):
        del params
        game = as_carry(foreign(self._env.init)(key))
        state = PgxState(game=game, time=jnp.zeros((), jnp.int32))
        return game.observation.astype(jnp.float32), state

    def step(self, key, state, action, params):
        # Raw: under vmap pgx's conditionals select over the key, which key-reuse checks refuse.
        raw_key = jax.random.key_data(key)
        action = clip_category(self.action_spec, action)
        game = foreign(self._env.step)(state.game, action, raw_key)
        game = cast_like(game, state.game)
        state = PgxState(game=game, time=state.time + 1)
        obs = game.observation.astype(jnp.float32)
        reward = game.rewards if self.num_players > 1 else game.rewards[0]
        truncated = game.truncated | (state.time >= params.max_steps)
        return obs, state, reward, game.terminated, truncated, {}

    def legal_actions(self, state, params):
        del params
        return state.game.legal_action_mask

    def current_player(self, state):
        return state.game.current_player

    def invariants(self, state, params):
        game = state.game
        holds = {
            "a_move_exists": jnp.any(game.legal_action_mask),
            "the_mover_is_a_player": (game.current_player >= 0) & (game.current_player < self.num_players),
        }
        if self.num_players == 2:
            holds["zero_sum"] = jnp.sum(game.rewards) == 0
        return super().invariants(state, params) | holds

    def render(self, state, params) -> np.ndarray:
        del params
        game = jax.device_get(state.game)
        return pictures.caption(self._facts.paint(game), self._caption(game, int(state.time)))

    def _caption(self, game: Any, time: int) -> str:
        if self.num_players == 1:
            return f"move {time}" + (", over" if game.terminated else "")
        if game.terminated:
            return f"move {time}, over: {game.rewards[0]:+g}, {game.rewards[1]:+g}"
        side = f" ({self._facts.sides[_turn(game)]})" if self._facts.sides else ""
        return f"move {time}: player {game.current_player}{side} to move"


def make(name: str, **overrides: int) -> tuple[PgxEnvironment, PgxParams]:
    """Build a game and its task; `max_steps` is the one parameter.

    Raises `UnknownName` for an unknown parameter, `ValueError` for an illegal value.
    """
    env = PgxEnvironment(name)
    params = make_task(env.name, PgxParams(max_steps=env.max_steps), overrides)
    env.max_steps = int(params.max_steps)
    return env, params


# --- specs ----------------------------------------------------------------------------------------

# Dice and new tiles; elsewhere chance is drawn at reset (who begins, the cards).
RANDOM_STEP = ("2048", "backgammon")

# Last axis of the observation: counters that pgx scales to [0, 1]; every other plane is 0 or 1.
COUNTER_PLANES = {"animal_shogi": (193,), "chess": (113, 118), "gardner_chess": (113, 114)}


def _obs_spec(name: str, obs: jax.ShapeDtypeStruct) -> tuple[Component, ...]:
    """Components of the flattened observation: bits, but for counters and backgammon's checkers."""
    if name == "backgammon":
        places = [f"point[{i}]" for i in range(24)] + ["my_bar", "bar", "my_off", "off"]
        checkers = tuple(Component(p, "real", -15.0, 15.0) for p in places)
        # A double leaves four dice of one number to play.
        return checkers + tuple(Component(f"dice[{i + 1}]", "category", cardinality=5) for i in range(6))
    counters = COUNTER_PLANES.get(name, ())
    return tuple(
        Component(f"obs{list(index)}", "real", 0.0, 1.0)
        if index[-1] in counters
        else Component(f"obs{list(index)}", "category", cardinality=2)
        for index in np.ndindex(obs.shape)
    )


# --- symmetries -----------------------------------------------------------------------------------


def _mirrored_columns() -> Symmetries:
    """Connect four, whose moves are columns: itself and its mirror image."""
    cells, columns = np.arange(42, dtype=np.int32).reshape(6, 7), np.arange(7, dtype=np.int32)
    return Symmetries(np.stack([cells, cells[:, ::-1]]).reshape(2, -1), np.stack([columns, columns[::-1]]))


def _square(side: int, num_others: int = 0) -> Symmetries:
    """The eight of a square whose moves are its cells, then others (a pass) that stay."""
    cells = np.arange(side * side, dtype=np.int32).reshape(side, side)
    turns = [np.rot90(board, turn) for board in (cells, cells.T) for turn in range(4)]
    boards = np.stack(turns).reshape(8, -1)
    others = np.broadcast_to(side * side + np.arange(num_others, dtype=np.int32), (8, num_others))
    return Symmetries(boards, np.concatenate([boards, others], axis=1))


SYMMETRIES = {
    "connect_four": _mirrored_columns,
    "go_9x9": partial(_square, 9, 1),
    "go_19x19": partial(_square, 19, 1),
    "tic_tac_toe": partial(_square, 3),
}


# --- pictures -------------------------------------------------------------------------------------


def _turn(game: Any) -> int:
    """Index into `sides` of the side to move; pgx calls it turn or color, here or in `_x`."""
    inner = getattr(game, "_x", game)
    return int(next(getattr(inner, n) for n in ("color", "turn", "_turn") if hasattr(inner, n)))


def _sign(game: Any) -> int:
    """+1 if the first side moves, else -1: pgx turns many boards to the mover."""
    return 1 - 2 * _turn(game)


def _stones(game: Any) -> np.ndarray:
    """Square board of +1 (first side), -1, 0 from pgx's 0, 1, -1."""
    board = np.asarray(game._x.board)
    side = {9: (3, 3), 42: (6, 7)}[board.size]
    return np.select([board == 0, board == 1], [1, -1], 0).reshape(side)


def _paint_tic_tac_toe(game: Any) -> np.ndarray:
    return boards.paint_tic_tac_toe(_stones(game))


def _paint_connect_four(game: Any) -> np.ndarray:
    return boards.paint_connect_four(_stones(game))


def _paint_othello(game: Any) -> np.ndarray:
    return boards.paint_othello(_sign(game) * np.asarray(game._x.board).reshape(8, 8))


def _paint_go(game: Any) -> np.ndarray:
    board = np.sign(game._x.board)
    size = round(board.size**0.5)
    return boards.paint_go(board.reshape(size, size))


def _paint_hex(game: Any) -> np.ndarray:
    return boards.paint_hex(_sign(game) * np.sign(game._x.board).reshape(11, 11))


def _paint_chess(game: Any) -> np.ndarray:
    """pgx counts squares from the mover's left lower corner upward, file by file."""
    board = np.asarray(game._x.board if hasattr(game, "_x") else game._board)
    size = round(board.size**0.5)
    board = board.reshape(size, size)
    board = board if _turn(game) == 0 else -board[:, ::-1]
    names = np.array(["", "P", "N", "B", "R", "Q", "K"])
    return boards.paint_chess(names[abs(board)].T[::-1], np.sign(board).T[::-1])


def _paint_shogi(game: Any) -> np.ndarray:
    names = [*"PLNSBRGK", "+P", "+L", "+N", "+S", "+B", "+R"]
    return _paint_shogi_board(game, game._x.board, game._x.hand, names, (9, 9))


def _paint_animal_shogi(game: Any) -> np.ndarray:
    return _paint_shogi_board(game, game._board, game._hand, list("PBRKG"), (3, 4))


def _paint_shogi_board(
    game: Any, board: np.ndarray, hand: np.ndarray, names: list[str], size: tuple[int, int]
) -> np.ndarray:
    """pgx counts squares from the mover's right upper corner downward, file by file."""
    num_kinds, turn = len(names), _turn(game)
    board = board if turn == 0 else board[::-1]
    board = board.reshape(size).T[:, ::-1]
    pieces = np.array([*names, *names, ""])[board]
    owner = np.where(board < 0, 0, np.where(board < num_kinds, 1, -1)) * _sign(game)
    hands = tuple(
        " ".join(f"{n}{count}" for n, count in zip(names, row, strict=False) if count)
        for row in (hand[turn], hand[1 - turn])
    )
    return boards.paint_shogi(pieces, owner, hands)


def _paint_2048(game: Any) -> np.ndarray:
    exponents = np.asarray(game._board).reshape(4, 4)
    return boards.paint_2048(np.where(exponents > 0, 2**exponents, 0))


def _paint_backgammon(game: Any) -> np.ndarray:
    board = np.asarray(game._board)
    if _turn(game) == 1:
        board = -np.concatenate([board[23::-1], board[[25, 24, 27, 26]]])
    dice = [int(d) + 1 for d in game._playable_dice if d >= 0]
    return boards.paint_backgammon(board[:24], abs(board[24:26]), abs(board[26:28]), dice)


def _paint_poker(game: Any) -> np.ndarray:
    """Kuhn poker counts the bets in `_pot`, Leduc hold'em all chips; its public card comes late."""
    cards = ["JQK"[c] for c in game._cards]
    if len(cards) == 2:
        return boards.paint_poker(cards, None, [1 + int(c) for c in game._pot])
    public = cards[2] if game._round > 0 else "?"
    return boards.paint_poker(cards[:2], public, [int(c) for c in game._chips])


class Facts(NamedTuple):
    """What pgx does not say of a game."""

    longest: int  # no game lasts longer, in moves
    paint: Callable[[Any], np.ndarray]
    sides: tuple[str, ...] = ()  # first and second to move; () where they look alike


FACTS = {
    # A move adds a 2 or 4 and merging keeps the sum, which 16 tiles bound by 2^18 - 4.
    "2048": Facts(131_068, _paint_2048),
    "animal_shogi": Facts(256, _paint_animal_shogi, ("black", "white")),
    # The rules give no bound. 64 games of random play took 209 steps (one a die), at most 665.
    "backgammon": Facts(10_000, _paint_backgammon, ("black", "white")),
    "chess": Facts(512, _paint_chess, ("white", "black")),
    "connect_four": Facts(42, _paint_connect_four, ("red", "yellow")),
    "gardner_chess": Facts(256, _paint_chess, ("white", "black")),
    "go_9x9": Facts(2 * 9 * 9, _paint_go, ("black", "white")),
    "go_19x19": Facts(2 * 19 * 19, _paint_go, ("black", "white")),
    "hex": Facts(11 * 11 + 1, _paint_hex, ("black", "white")),  # + 1: the second may swap
    "kuhn_poker": Facts(3, _paint_poker),
    "leduc_holdem": Facts(2 * 4, _paint_poker),  # two rounds of check, raise, raise, call
    # 60 free squares, a pass before each of them; two passes in a row end a game.
    "othello": Facts(120, _paint_othello, ("black", "white")),
    "shogi": Facts(512, _paint_shogi, ("black", "white")),
    "tic_tac_toe": Facts(9, _paint_tic_tac_toe, ("X", "O")),
}
