"""Parts of the configurations of studies, importable without JAX."""

import dataclasses
from collections.abc import Iterator
from typing import Annotated

from envs.common.names import check_name
from envs.registry import registered
from envs.returns import Reference, reference
from jaxagent.config import (
    AlphaZeroConfig,
    Bound,
    Checked,
    Count,
    PPOConfig,
    SearchConfig,
    Share,
    TrunkConfig,
    require,
)


@dataclasses.dataclass(frozen=True)
class EnvConfig:
    """An environment by its registry id, whose random and reference returns were measured."""

    env: str

    @property
    def name(self) -> str:
        """Short name, such as CartPole-v1."""
        return self.env.split("/")[-1]

    @property
    def reference(self) -> Reference:
        """Returns that scores of this task are normalised by."""
        return reference(self.env)

    def check(self) -> None:
        """Raise where the environment is unknown or was never measured."""
        check_name("environment", self.env, registered())
        _ = self.reference


@dataclasses.dataclass(frozen=True)
class ChangedEnvConfig(EnvConfig):
    """An environment with some of its numbers changed: that task and no other."""

    change: tuple[tuple[str, float], ...] = ()

    @property
    def overrides(self) -> dict[str, float]:
        """The change as keyword arguments of `envs.make`."""
        return dict(self.change)

    @property
    def name(self) -> str:
        """Short name, such as TMaze-length=6."""
        return "-".join([super().name, *(f"{field}={value:g}" for field, value in self.change)])

    @property
    def reference(self) -> Reference:
        """Returns that scores of this task are normalised by."""
        return reference(self.env, self.overrides)


@dataclasses.dataclass(frozen=True)
class SeedConfig(Checked):
    """Seeds of a claim, one after another; development seeds are 1000 and up."""

    first: Annotated[int, Bound(0)] = 0
    count: Count = 5

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self.first + self.count))

    def __len__(self) -> int:
        return self.count


@dataclasses.dataclass(frozen=True)
class LearnedEnvConfig(EnvConfig):
    """An environment that PPO agents learn, nominal and with changed parameters."""

    change: tuple[tuple[str, float], ...] = ()  # parameters of the changed task
    ppo: PPOConfig = PPOConfig()
    sampled_demonstrations: bool = False  # the expert draws its actions, or plays their mode

    @property
    def overrides(self) -> dict[str, float]:
        """The change as keyword arguments of `envs.make`."""
        return dict(self.change)

    def check(self) -> None:
        """Raise where the environment is unknown, or one of both tasks was never measured."""
        super().check()
        reference(self.env, self.overrides)


@dataclasses.dataclass(frozen=True)
class CollectConfig:
    """How many agents are trained, and how much of each is kept as data."""

    train_agents: Count = 4  # their early checkpoints are pretrained on
    validation_agents: Count = 1  # their early checkpoints measure the pretraining loss
    demonstrators: Count = 3  # trained on the changed task; the best one demonstrates
    checkpoints_per_agent: Count = 4  # the best ones below the threshold
    max_return: Share = 0.5  # normalised return that an early checkpoint may have
    lanes: Count = 8  # parallel episodes per checkpoint
    steps: Count = 500  # env steps per lane
    demonstration_episodes: Count = 64  # pool from which each seed draws its demonstrations
    evaluation_episodes: Count = 16  # per checkpoint, to find its return

    @property
    def num_nominal(self) -> int:
        """Agents of the nominal task."""
        return self.train_agents + self.validation_agents


# Recipes of PPO on classic control that several studies share.
CARTPOLE = LearnedEnvConfig(
    "gymnax/CartPole-v1", (("length", 1.0),), PPOConfig(num_updates=60, updates_per_chunk=1, reward_scale=0.1)
)
ACROBOT = LearnedEnvConfig(
    "gymnax/Acrobot-v1",
    (("link_mass_2", 1.4),),
    PPOConfig(num_updates=40, updates_per_chunk=1, reward_scale=0.1),
)
# Whole greedy episodes mostly show balancing at rest, which clones into copying the last action;
# noise shows the way up and the corrections.
PENDULUM = LearnedEnvConfig(
    "gymnax/Pendulum-v1",
    (("g", 2.0),),
    PPOConfig(num_updates=60, updates_per_chunk=3, num_epochs=8, discount=0.95, reward_scale=0.1),
    sampled_demonstrations=True,
)


def tiny(task: LearnedEnvConfig) -> LearnedEnvConfig:
    """The same task with the sizes of a smoke test."""
    sizes = {"num_envs": 4, "num_steps": 32, "num_updates": 4, "updates_per_chunk": 2, "num_epochs": 1}
    return dataclasses.replace(task, ppo=dataclasses.replace(task.ppo, **sizes))


TINY_COLLECT = CollectConfig(
    2, 1, 1, 1, 1.0, lanes=2, steps=32, demonstration_episodes=4, evaluation_episodes=2
)


REFERENCES = {"tic_tac_toe": "perfect", "connect_four": "alpha-beta {}"}  # players of games, by level


@dataclasses.dataclass(frozen=True)
class BoardGameConfig:
    """One game: how it is learned, and who is met in the end."""

    name: str  # of pgx
    fit: AlphaZeroConfig = AlphaZeroConfig()
    trunk: TrunkConfig = TrunkConfig()
    levels: tuple[int, ...] = (0, 9)  # moves that opponents look ahead; 0: random; the last judges
    opening: Annotated[int, Bound(0)] = 0  # moves drawn before a match, where no opponent plays by chance

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
        require(is_rising, "BoardGameConfig.levels", levels, expected, "the last is the strongest")


@dataclasses.dataclass(frozen=True)
class MatchConfig:
    """Matches against fixed opponents."""

    games: Count = 64  # of every arm, seed and opponent; each is played with both sides
    rating_games: Count = 16  # of every snapshot, seed and opponent
    num_snapshots: Annotated[int, Bound(2)] = 6  # that are rated
    search: SearchConfig = SearchConfig(value_range=1.0)  # of every arm that searches

    def check(self) -> None:
        """Raise where a match has no second leg."""
        for name in ("games", "rating_games"):
            count, fix = getattr(self, name), "each game is played with both sides"
            require(count % 2 == 0, f"MatchConfig.{name}", count, "a multiple of 2", fix)
