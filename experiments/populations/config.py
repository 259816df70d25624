"""Configuration and presets of the populations, importable without JAX."""

import dataclasses
from typing import Annotated, Literal

from envs.names import check_name
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


PENDULUM = DomainConfig(
    "classic/Pendulum-v1",
    "sac",
    sac=SACConfig(
        num_envs=16,
        batch_size=128,
        capacity=65_536,
        warmup_steps=1024,
        num_updates=2000,
        learning_rate=1e-3,
        critic_hidden_size=128,
        reward_scale=0.1,
        hidden_size=32,
    ),
)
INVERTED_PENDULUM = DomainConfig(
    "brax/inverted_pendulum",
    "ppo",
    ppo=PPOConfig(
        num_envs=64,
        num_steps=64,
        num_updates=120,
        learning_rate=1e-3,
        reward_scale=0.1,
        hidden_size=32,
        initial_log_std=-0.5,
    ),
)
REACHER = DomainConfig(
    "brax/reacher",
    "sac",
    sac=SACConfig(
        num_envs=16,
        batch_size=256,
        capacity=262_144,
        warmup_steps=4096,
        num_updates=4000,
        updates_per_chunk=500,
        num_gradient_steps=4,
        learning_rate=6e-4,
        critic_hidden_size=128,
        hidden_size=32,
        discount=0.95,
    ),
)
# A discount of 0.99 ends in standing still: a hop takes longer than it can see.
_LEGS = PPOConfig(
    num_envs=256,
    num_steps=128,
    num_epochs=6,
    num_minibatches=16,
    num_updates=100,
    updates_per_chunk=10,
    learning_rate=3e-4,
    final_learning_rate=1.0,
    discount=0.997,
    entropy_weight=1e-3,
    initial_log_std=-0.5,
    max_gradient_norm=1.0,
    reward_scale=0.03,
)
_RUN = PPOConfig(
    num_envs=1024,
    num_steps=16,
    num_epochs=4,
    num_minibatches=8,
    num_updates=2000,
    updates_per_chunk=50,
    learning_rate=3e-4,
    final_learning_rate=1.0,
    discount=0.97,
    entropy_weight=1e-3,
    initial_log_std=-0.5,
    max_gradient_norm=1.0,
)
HOPPER = DomainConfig("brax/hopper", "ppo", ppo=_LEGS)
# With `_LEGS` it stands for 1000 steps; with this discount it walks, and falls sooner or later.
WALKER = DomainConfig(
    "brax/walker2d", "ppo", ppo=dataclasses.replace(_RUN, reward_scale=0.1, discount=0.99, num_updates=4300)
)
CHEETAH = DomainConfig(
    "brax/halfcheetah",
    "ppo",
    ppo=dataclasses.replace(_RUN, reward_scale=0.1, discount=0.95, num_updates=1600),
)
ANT = DomainConfig("brax/ant", "ppo", ppo=dataclasses.replace(_RUN, reward_scale=0.1, num_updates=2800))

GPU = Config((PENDULUM, INVERTED_PENDULUM, REACHER, HOPPER, WALKER, CHEETAH, ANT))
# Two cores train the cheap domains in minutes and the hopper in ten; the others would need hours.
CPU = dataclasses.replace(
    GPU,
    domains=(PENDULUM, INVERTED_PENDULUM, REACHER, HOPPER),
    num_agents=4,
    runtime=RuntimeConfig(chunks_per_save=2),
)
SMOKE = Config(
    domains=(
        DomainConfig(
            "classic/Pendulum-v1",
            "sac",
            sac=SACConfig(
                num_envs=4,
                num_gradient_steps=2,
                batch_size=8,
                capacity=256,
                warmup_steps=32,
                num_updates=4,
                updates_per_chunk=2,
                hidden_size=8,
                critic_hidden_size=8,
            ),
        ),
        DomainConfig(
            "classic/MountainCarContinuous-v0",
            "ppo",
            ppo=PPOConfig(num_envs=4, num_steps=8, num_updates=4, updates_per_chunk=2, hidden_size=8),
        ),
    ),
    num_agents=2,
    num_snapshots=2,
    episodes=2,
    runtime=RuntimeConfig(chunks_per_save=1, optimization_level=1),
)

PRESETS = {"smoke": SMOKE, "cpu": CPU, "gpu": GPU}
