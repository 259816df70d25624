"""Parts of the configurations of studies, importable without JAX."""

import dataclasses
from collections.abc import Iterator

from envs.common.names import check_name
from envs.registry import registered
from envs.returns import Reference, reference
from jaxagent.config import Count, PPOConfig, Share


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
class SeedConfig:
    """Seeds of a claim, one after another; development seeds are 1000 and up."""

    first: int = 0
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
