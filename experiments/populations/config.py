"""Configuration and presets of the populations, importable without JAX."""

import dataclasses
from typing import Annotated, Literal

from envs.common.names import check_name
from envs.registry import registered
from jaxagent.config import Bound, Count, PPOConfig, RuntimeConfig, SACConfig

DESCRIPTION = "PPO and SAC agents on real physics: the policies that sequence data come from"


@dataclasses.dataclass(frozen=True)
class DomainConfig:
    """One environment and how its agents learn."""

    env: str
    algorithm: Literal["ppo", "sac"]
    ppo: PPOConfig = PPOConfig()
    sac: SACConfig = SACConfig()

    @property
    def name(self) -> str:
        """Short name, e.g. hopper."""
        return self.env.split("/")[-1]

    @property
    def agent(self) -> PPOConfig | SACConfig:
        """The configuration of the algorithm in use."""
        return self.ppo if self.algorithm == "ppo" else self.sac


@dataclasses.dataclass(frozen=True)
class Config:
    """Agents of every domain and what stays of them."""

    domains: tuple[DomainConfig, ...]
    only: str = ""  # the name of one domain to train; "": all
    num_agents: Annotated[int, Bound(2)] = 6  # seeds of a domain, lanes of one program
    num_snapshots: Annotated[int, Bound(2)] = 6  # of each agent's history that stay, first and last included
    episodes: Count = 32  # per snapshot and agent, to measure its return
    seed: int = 0
    runtime: RuntimeConfig = RuntimeConfig()

    @property
    def chosen(self) -> tuple[DomainConfig, ...]:
        """The domains to train."""
        return tuple(d for d in self.domains if self.only in ("", d.name))

    def check(self) -> None:
        """Raise where a domain is unknown."""
        for domain in self.domains:
            check_name("environment", domain.env, registered())
        if self.only:
            check_name("domain", self.only, [d.name for d in self.domains])


_SMALL = {"hidden_size": 32, "critic_hidden_size": 128}
_SWING = SACConfig(
    batch_size=128, capacity=65_536, warmup_steps=1024, learning_rate=1e-3, reward_scale=0.1, **_SMALL
)
_BALANCE = PPOConfig(num_envs=64, reward_scale=0.1, hidden_size=32, initial_log_std=-0.5)
_REACH = SACConfig(
    num_updates=4000, updates_per_chunk=500, num_gradient_steps=4, learning_rate=6e-4, discount=0.95, **_SMALL
)
PENDULUM = DomainConfig("classic/Pendulum-v1", "sac", sac=_SWING)
INVERTED_PENDULUM = DomainConfig("brax/inverted_pendulum", "ppo", _BALANCE)
REACHER = DomainConfig("brax/reacher", "sac", sac=_REACH)

_RATES = {"learning_rate": 3e-4, "final_learning_rate": 1.0, "max_gradient_norm": 1.0}
_LEGS = PPOConfig(entropy_weight=1e-3, initial_log_std=-0.5, **_RATES)
# A discount of 0.99 ends in standing still: a hop takes longer than it can see.
_HOP = dataclasses.replace(
    _LEGS,
    num_envs=256,
    num_steps=128,
    num_epochs=6,
    num_minibatches=16,
    num_updates=100,
    updates_per_chunk=10,
    discount=0.997,
    reward_scale=0.03,
)
HOPPER = DomainConfig("brax/hopper", "ppo", _HOP)


def _runner(env: str, discount: float, num_updates: int) -> DomainConfig:
    sizes = {"num_envs": 1024, "num_steps": 16, "num_minibatches": 8, "updates_per_chunk": 50}
    learning = {"discount": discount, "num_updates": num_updates, "reward_scale": 0.1}
    return DomainConfig(env, "ppo", dataclasses.replace(_LEGS, **sizes, **learning))


# With `_HOP` it stands for 1000 steps; with this discount it walks, and falls sooner or later.
WALKER = _runner("brax/walker2d", 0.99, 4300)
CHEETAH = _runner("brax/halfcheetah", 0.95, 1600)
ANT = _runner("brax/ant", 0.97, 2800)

GPU = Config((PENDULUM, INVERTED_PENDULUM, REACHER, HOPPER, WALKER, CHEETAH, ANT))
# Two cores train the cheap domains in minutes and the hopper in ten; the others would need hours.
CPU = Config((PENDULUM, INVERTED_PENDULUM, REACHER, HOPPER), runtime=RuntimeConfig(chunks_per_save=2))
_TINY = {"num_envs": 4, "num_updates": 4, "updates_per_chunk": 2, "hidden_size": 8}
_TINY_SAC = SACConfig(
    num_gradient_steps=2, batch_size=8, capacity=256, warmup_steps=32, critic_hidden_size=8, **_TINY
)
SMOKE = Config(
    (
        DomainConfig("classic/Pendulum-v1", "sac", sac=_TINY_SAC),
        DomainConfig("classic/MountainCarContinuous-v0", "ppo", PPOConfig(num_steps=8, **_TINY)),
    ),
    num_agents=2,
    num_snapshots=2,
    episodes=2,
    runtime=RuntimeConfig(chunks_per_save=1, optimization_level=0),
)
PRESETS = {"smoke": SMOKE, "cpu": CPU, "gpu": GPU}
