"""Configuration and presets of muzero, importable without JAX."""

from dataclasses import dataclass, replace

from envs.common.names import check_name
from jaxagent.config import (
    NUM_SHARDS,
    Count,
    LatentConfig,
    MuZeroConfig,
    PPOConfig,
    RuntimeConfig,
    SearchConfig,
    Share,
    TrunkConfig,
    require,
    require_at_least,
    require_divides,
)
from jaxagent.study.config import EnvConfig, SeedConfig

MODELS = ("saboteur", "stretched", "brief", "no-consistency")
BELIEF = """
What search learns from must be true to who did what: where three quarters of the memory have another lane's
actions, CartPole is learned much less ({M2}). Values as they are seem to teach more than those stretched at
every node, by less than was claimed ({M7}). What search does at play is nothing here: the policy head alone
is as good ({M1}), whatever the number of simulations ({=muzero, 2}, {=muzero, 8}, {=muzero}, {=muzero, 32}
for 2, 8, 16 and 32); on two actions the head has learned what search finds. Nor are steps saved: PPO has
{=ppo} in as many ({M4}). Catch and Acrobot were hardly learned on development seeds, in steps that two cores
have. Tasks where a move's worth shows only some moves later, and more steps, would change this; MinAtar on an
accelerator is built and not run.
"""
DESCRIPTION = "does search in a learned latent model learn from fewer steps, and what does it need?"


@dataclass(frozen=True)
class TaskConfig(EnvConfig):
    """One environment, learned by both."""

    muzero: MuZeroConfig = MuZeroConfig()
    brief_gradient_steps: Count = (
        10  # an update: with two simulations they cost what MuZero's do with its own
    )
    ppo: PPOConfig = PPOConfig()

    def check(self) -> None:
        """Raise where the saboteur has no other lane, or PPO has no snapshot after as many steps."""
        super().check()
        require_at_least(self.muzero, 2 * NUM_SHARDS, "num_envs")
        steps, fix = self.muzero.env_steps, "PPO needs a snapshot after as many steps"
        require_divides(f"{self.name}: env steps of muzero", self.ppo.env_steps_per_chunk, steps, fix)
        what, expected = f"{self.name}: env steps of PPO", f"as many steps as MuZero's {steps}"
        require(self.ppo.env_steps >= steps, what, self.ppo.env_steps, expected, "raise ppo.num_updates")


@dataclass(frozen=True)
class Config:
    """The study, in the order in which it runs."""

    tasks: tuple[TaskConfig, ...]
    models: tuple[str, ...] = MODELS[:2]  # that are trained beside MuZero's
    simulations: tuple[Count, ...] = (2, 8, 32)  # with which MuZero's models play, beside its own number
    episodes: Count = 16  # of each snapshot and seed
    num_snapshots: int = 8  # of each that is played beside the first, evenly spaced
    num_averaged: Count = 4  # of these, the last, whose mean return is a seed's score
    anchor: Share = 0.9  # of PPO's final return, which both have to reach
    # 0 to 5 were spent before scores were means of snapshots, 100 to 108 on a search that stretched
    # the values of every node.
    seeds: SeedConfig = SeedConfig(200, 20)
    runtime: RuntimeConfig = RuntimeConfig()

    def check(self) -> None:
        """Raise where more snapshots are averaged than there are, or a model is unknown."""
        require_at_least(self, self.num_averaged, "num_snapshots")
        for name in self.models:
            check_name("model", name, MODELS)
        own = [task.muzero.search.num_simulations for task in self.tasks]
        fix = "MuZero's own number is played anyway"
        require(not {*own} & {*self.simulations}, "simulations", self.simulations, f"others than {own}", fix)


# Values are at most 33, squashed 4.9: nothing is clipped, and bins are narrow.
_NARROW = LatentConfig(num_bins=61, reach=6.0)
_SEARCH = SearchConfig(num_simulations=16, value_range=3.0)
_BRIEFLY = MuZeroConfig(num_updates=64, updates_per_chunk=8, num_td_steps=10, discount=0.97, reanalyse=0.0625)
_CARTPOLE = replace(_BRIEFLY, model=_NARROW, search=_SEARCH)
_PPO = PPOConfig(num_envs=8, num_steps=32, num_updates=320, updates_per_chunk=4, reward_scale=0.1)
CPU = Config((TaskConfig("gymnax/CartPole-v1", _CARTPOLE, ppo=_PPO),), episodes=8)
CPU_FULL = replace(CPU, models=MODELS, simulations=(2, 8, 32, 128), seeds=SeedConfig(300, 24))

_TINY_MODEL = LatentConfig(TrunkConfig(width=8, num_blocks=1), num_bins=11)
_BRIEF = MuZeroConfig(
    unroll=2, num_td_steps=2, model=_TINY_MODEL, search=SearchConfig(num_simulations=4, value_range=1.0)
)
_FEW = replace(_BRIEF, num_envs=8, num_steps=4, num_gradient_steps=1, num_updates=2, updates_per_chunk=1)
_TINY = replace(_FEW, batch_size=16, capacity=128, warmup_steps=64)
_TINY_PPO = PPOConfig(num_envs=4, num_steps=4, num_updates=16, updates_per_chunk=1)
SMOKE = Config(
    (TaskConfig("gymnax/CartPole-v1", _TINY, 1, _TINY_PPO),),
    MODELS,
    simulations=(2,),
    episodes=2,
    num_snapshots=2,
    num_averaged=1,
    seeds=SeedConfig(1000, 2),
    runtime=RuntimeConfig(chunks_per_save=1, optimization_level=0),
)

# One accelerator: MinAtar at 100k steps, convolutions. Never run so far.
_BOARDS = LatentConfig(TrunkConfig(channels=32), num_bins=51, reach=12.0, projection_size=512)
_LARGE = MuZeroConfig(num_envs=64, num_steps=4, num_gradient_steps=32, num_updates=400, batch_size=128)
_SEARCHED = replace(_LARGE, search=SearchConfig(num_simulations=32, value_range=1.0), model=_BOARDS)
_MINATAR = replace(_SEARCHED, capacity=131_072, warmup_steps=4096)
_LARGE_PPO = PPOConfig(num_envs=64, num_updates=1248, updates_per_chunk=13, hidden_size=256)
_MINATAR_PPO = replace(_LARGE_PPO, learning_rate=3e-4, entropy_weight=0.01)
_GAMES = ("Breakout", "Asterix", "SpaceInvaders", "Freeway")
_TASKS = tuple(TaskConfig(f"minatar/{name}", _MINATAR, ppo=_MINATAR_PPO) for name in _GAMES)
_MATCHED = tuple(name for name in MODELS if name != "brief")  # how it would be matched was not counted
GPU = Config(_TASKS, _MATCHED, (2, 8, 128), episodes=64)
PRESETS = {"smoke": SMOKE, "cpu": CPU, "cpu-full": CPU_FULL, "gpu": GPU}
