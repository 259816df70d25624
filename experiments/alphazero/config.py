"""Configuration and presets of alphazero, importable without JAX."""

from dataclasses import dataclass, replace
from typing import Annotated

from envs.common.names import check_name
from jaxagent.config import AlphaZeroConfig, Bound, Count, RuntimeConfig, SearchConfig, TrunkConfig, require
from jaxagent.study.config import SeedConfig

DESCRIPTION = "does a network learn a game from its own search, and does search still help it?"
REFERENCES = {"tic_tac_toe": "perfect", "connect_four": "alpha-beta {}"}  # by level


@dataclass(frozen=True)
class GameConfig:
    """One game: how it is learned, and who is met in the end."""

    name: str  # of pgx
    fit: AlphaZeroConfig = AlphaZeroConfig()
    trunk: TrunkConfig = TrunkConfig()
    levels: tuple[int, ...] = (0, 9)  # moves that opponents look ahead; 0: random; the last judges
    opening: Annotated[int, Bound(0)] = 0  # moves drawn before a match, where no opponent plays by chance

    @property
    def reference(self) -> str:
        """The opponent by which scores are normalised."""
        return self.opponents[-1]

    @property
    def opponents(self) -> tuple[str, ...]:
        """Names of the players of all levels."""
        named = REFERENCES[self.name]
        return tuple(named.format(level) if level else "random" for level in self.levels)

    def check(self) -> None:
        """Raise where there is no such game, or its levels do not rise from random play on."""
        check_name("game with a reference player", self.name, sorted(REFERENCES))
        levels, expected = self.levels, "at least two rising levels from 0 (random play) on"
        is_rising = list(levels) == sorted(set(levels)) and levels[:1] == (0,) and len(levels) > 1
        require(is_rising, "GameConfig.levels", levels, expected, "the last is the reference")


@dataclass(frozen=True)
class EvaluationConfig:
    """Matches against fixed opponents."""

    games: Count = 64  # of every arm, seed and opponent; each is played with both sides
    rating_games: Count = 16  # of every snapshot, seed and opponent
    num_snapshots: Annotated[int, Bound(2)] = 6  # that are rated
    search: SearchConfig = SearchConfig()  # of every arm that searches

    def check(self) -> None:
        """Raise where a match has no second leg."""
        for name in ("games", "rating_games"):
            count, fix = getattr(self, name), "each game is played with both sides"
            require(count % 2 == 0, f"EvaluationConfig.{name}", count, "a multiple of 2", fix)


@dataclass(frozen=True)
class Config:
    """The study, in the order in which it runs."""

    games: tuple[GameConfig, ...]
    evaluation: EvaluationConfig = EvaluationConfig()
    # 0 to 5 were spent before a review mended what stands for a cut return, the saboteur and PUCT's
    # values, 100 to 105 before the scale of targets was chosen again.
    seeds: SeedConfig = SeedConfig(200, 6)  # three gated claims: Holm asks for p < 0.017
    runtime: RuntimeConfig = RuntimeConfig()


_NINE_CELLS = AlphaZeroConfig(exploration=0.25, search=SearchConfig(16, num_considered=9))
_TIC_TAC_TOE = replace(_NINE_CELLS, num_updates=80, updates_per_chunk=8, num_epochs=2)
_SEVEN_COLUMNS = AlphaZeroConfig(exploration=0.25, search=SearchConfig(32, num_considered=7))
_SMALL = replace(_SEVEN_COLUMNS, num_envs=128, num_minibatches=8, num_epochs=4)
_CONNECT_FOUR = replace(_SMALL, num_updates=32, updates_per_chunk=4)
CPU = Config(
    (
        GameConfig("tic_tac_toe", _TIC_TAC_TOE),
        GameConfig("connect_four", _CONNECT_FOUR, levels=(0, 1, 2), opening=2),
    )
)

_NARROW, _FEW = TrunkConfig(width=16), SearchConfig(4, 4)
_TINY = {"num_envs": 4, "num_steps": 4, "num_minibatches": 1, "num_updates": 2, "updates_per_chunk": 1}
SMOKE = Config(
    (
        GameConfig("tic_tac_toe", replace(_TIC_TAC_TOE, search=_FEW, **_TINY), _NARROW),
        GameConfig("connect_four", replace(_CONNECT_FOUR, search=_FEW, **_TINY), _NARROW, (0, 2), opening=2),
    ),
    EvaluationConfig(games=4, rating_games=2, num_snapshots=2, search=_FEW),
    SeedConfig(1000, 2),
    RuntimeConfig(chunks_per_save=1, optimization_level=1),
)

# One accelerator: convolutions, wider batches, deeper opponents. Never run so far.
_MANY_GAMES = replace(_SEVEN_COLUMNS, num_envs=1024, num_steps=32, num_minibatches=16)
_LARGE = replace(_MANY_GAMES, num_updates=200, updates_per_chunk=10)
_WIDE = TrunkConfig(channels=64, width=64, num_blocks=6)
GPU = Config(
    (CPU.games[0], GameConfig("connect_four", _LARGE, _WIDE, (0, 2, 4, 6), opening=2)),
    EvaluationConfig(games=256, rating_games=64, num_snapshots=8),
    SeedConfig(200, 8),
)
PRESETS = {"smoke": SMOKE, "cpu": CPU, "gpu": GPU}
