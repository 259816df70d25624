"""Configuration and presets of whole, importable without JAX."""

import dataclasses
from dataclasses import replace
from typing import Annotated, Any, Literal

from envs.common.names import check_name
from jaxagent.config import (
    Bound,
    Count,
    FitConfig,
    LatentConfig,
    MuZeroConfig,
    PPOConfig,
    RuntimeConfig,
    ScalarTokens,
    SearchConfig,
    SequencePlannerConfig,
    SPRConfig,
    TokenConfig,
    TransformerConfig,
    TrunkConfig,
    require,
    require_at_least,
    require_equal,
    require_unlike,
)
from jaxagent.study.config import ChangedEnvConfig, SeedConfig

DESCRIPTION = "tokens, self-prediction, pretraining and search in one agent: what is each part worth?"
BELIEF = """
The worth is the transformer's memory: all parts beat a perceptron ({cpu-full: W1}, {cpu-full: W10}), not PPO
on the same network ({cpu-full: W11}; nor does any part alone show what was claimed of it: {cpu-full: W3} of
self-prediction, {cpu-full: W5} of search at play). Longer training and larger worlds would change this.
"""
ALL_ARMS = (
    *("whole", "raw", "fresh", "without spr", "by ppo", "transformer", "modality", "mlp", "mlp, longer"),
    *("muzero", "mixed lanes", "shuffled"),
)


@dataclasses.dataclass(frozen=True)
class TaskConfig(ChangedEnvConfig):
    """One environment, and how each agent learns it from as many steps."""

    planner: SequencePlannerConfig = SequencePlannerConfig()
    mlp: PPOConfig = PPOConfig()
    longer: Count = 25  # times as many steps of the perceptron cost what the whole does, in operations
    muzero: MuZeroConfig = MuZeroConfig()
    patch: Annotated[int, Bound(0)] = 0  # cells on the side of a board's patch, a token; 0: a token a scalar
    kept: tuple[Annotated[int, Bound(0)], ...] = ()  # sensors that are seen; (): all
    play: SearchConfig = SearchConfig(num_simulations=8, value_range=0.3)  # when it is evaluated
    levels: Annotated[int, Bound(2)] = 7  # of a real action, for MuZero, which has discrete ones alone

    @property
    def name(self) -> str:
        """Short name, such as inverted_pendulum-max_steps=200-sees=0+1."""
        return super().name + (f"-sees={'+'.join(map(str, self.kept))}" if self.kept else "")

    @property
    def mlp_longer(self) -> PPOConfig:
        """The perceptron's training at as many operations as the whole's."""
        updates, chunk = (self.longer * n for n in (self.mlp.num_updates, self.mlp.updates_per_chunk))
        return replace(self.mlp, num_updates=updates, updates_per_chunk=chunk)

    def check(self) -> None:
        """Raise where agents do not take as many env steps, or have no snapshots after as many."""
        super().check()
        ours, fix = self.planner.ppo, "change num_updates"
        require_equal(f"{self.name}: env steps of mlp", self.mlp.env_steps, ours.env_steps, fix)
        require_equal(f"{self.name}: chunks of mlp", self.mlp.num_chunks, ours.num_chunks, fix)
        # Its warm-up comes on top, as do the random steps of the pretrained.
        steps = self.muzero.env_steps - self.muzero.warmup_steps
        require_equal(f"{self.name}: env steps of muzero", steps, ours.env_steps, fix)
        require_equal(f"{self.name}: chunks of muzero", self.muzero.num_chunks, ours.num_chunks, fix)


@dataclasses.dataclass(frozen=True)
class HistoryConfig:
    """Play that every seed's transformer is pretrained on, of its own."""

    # Uniform actions, or the seed's perceptron as it was in each of its snapshots.
    players: Literal["random", "mlp"] = "mlp"
    lanes: Count = 4  # of each snapshot
    steps: Count = 256  # env steps of a lane


@dataclasses.dataclass(frozen=True)
class Config:
    """The study, in the order in which it runs."""

    tasks: tuple[TaskConfig, ...]
    arms: tuple[str, ...] = ALL_ARMS
    history: HistoryConfig = HistoryConfig()
    tokens: ScalarTokens = TokenConfig(num_bins=32)
    model: TransformerConfig = TransformerConfig(width=32, num_layers=2, num_heads=4, context=8)
    pretrain: FitConfig = FitConfig(num_updates=400, updates_per_chunk=100, learning_rate=2e-3)
    way: Literal["full", "lora"] = "full"  # which parameters of what was pretrained learn
    lora_rank: Count = 4
    episodes: Count = 32  # of each snapshot and seed
    averaged: Count = 8  # last snapshots, whose mean return is a seed's score; of 8: how fast it learned too
    seeds: SeedConfig = SeedConfig(0, 5)
    runtime: RuntimeConfig = RuntimeConfig(optimization_level=1)

    def check(self) -> None:
        """Raise for an arm that is none or plays what nobody trains, or fewer snapshots than are averaged."""
        require_unlike("Config.arms", self.arms)
        for arm in self.arms:
            check_name("arm", arm, ALL_ARMS)
        is_taught, fix = self.history.players == "mlp", "its snapshots play what is pretrained on"
        require(not is_taught or "mlp" in self.arms, "Config.arms", self.arms, "mlp among them", fix)
        plays, fix = "raw" in self.arms, "it plays the networks of that arm"
        require(not plays or "whole" in self.arms, "Config.arms", self.arms, "whole beside raw", fix)
        require_at_least(self, 2, "episodes")  # lanes to mix
        for task in self.tasks:
            require_at_least(task.planner.ppo, self.averaged, "num_chunks")


_PPO = PPOConfig(
    num_envs=32, num_steps=16, num_epochs=4, num_updates=80, updates_per_chunk=10, learning_rate=2e-3
)
_SEARCH = SearchConfig(num_simulations=8, value_range=3.0)
_SPR = SPRConfig(num_steps=3, weight=1.0)
# It acts by its policy, which learns by PPO and from search alike: learning from search alone was slower.
_PLANNER = SequencePlannerConfig(ppo=_PPO, spr=_SPR, targets="both", acts_by="policy", search=_SEARCH)
_MUZERO = MuZeroConfig(
    num_envs=16,
    num_steps=8,
    num_updates=320,
    updates_per_chunk=40,
    num_gradient_steps=4,
    num_td_steps=10,
    reanalyse=0.0625,
    model=LatentConfig(TrunkConfig(width=64, num_blocks=1), num_bins=41, reach=6.0, projection_size=64),
    search=_SEARCH,
)


def _task(env: str, ppo: dict[str, Any], muzero: dict[str, Any], mlp: float, **changes: Any) -> TaskConfig:
    """A task that transformers and the perceptron learn by PPO alike, but for the latter's learning rate."""
    learned, planned = replace(_PPO, **ppo), replace(_MUZERO, **muzero)
    tower = replace(learned, learning_rate=mlp)
    return TaskConfig(env, planner=replace(_PLANNER, ppo=learned), mlp=tower, muzero=planned, **changes)


_CONTROL = {"reward_scale": 0.1, "discount": 0.97}, {"discount": 0.97}, 1e-3
_COUNT = _task("memory/CountRecall", {}, {"learning_rate": 4e-3}, 4e-3, change=(("num_cards", 4),))
_CARTPOLE = _task("memory/PositionCartPole", *_CONTROL)
# A robot that sees where it is, and not how fast it moves.
_ROBOT = _task("brax/inverted_pendulum", *_CONTROL, change=(("max_steps", 200),), kept=(0, 1))
_BREAKOUT = _task("minatar/Breakout", {"discount": 0.97}, {"discount": 0.97}, 2e-3, patch=5)
CPU = Config((_COUNT, _CARTPOLE), arms=("whole", "raw", "fresh", "mlp"), seeds=SeedConfig(0, 3))
# Two cores, at most 150 minutes. Not of MinAtar: after as many steps nobody has more than 0.07.
CPU_FULL = Config((_COUNT, _CARTPOLE, _ROBOT), seeds=SeedConfig(100, 8))


def _large(task: TaskConfig) -> TaskConfig:
    """For one accelerator: 6.5 million env steps in as many updates of more lanes."""
    wide = {"num_envs": 512, "num_steps": 32, "num_updates": 400, "updates_per_chunk": 40}
    ppo = replace(task.mlp, **wide, num_minibatches=8, learning_rate=5e-4)
    replay = {"num_gradient_steps": 32, "batch_size": 256, "capacity": 2**19, "warmup_steps": 2**13}
    replay |= {"num_envs": 256, "num_steps": 16, "num_updates": 1600, "updates_per_chunk": 160}
    return replace(
        task, planner=replace(task.planner, ppo=ppo), mlp=ppo, muzero=replace(task.muzero, **replay)
    )


# Never run.
GPU = Config(
    tuple(_large(task) for task in (_COUNT, _CARTPOLE, _ROBOT, _BREAKOUT)),
    history=HistoryConfig(lanes=32, steps=256),
    tokens=TokenConfig(num_bins=256),
    model=TransformerConfig(width=128, num_layers=4, num_heads=4, context=32),
    pretrain=FitConfig(num_updates=2000, updates_per_chunk=200, batch_size=128, learning_rate=5e-4),
    episodes=128,
    seeds=SeedConfig(200, 10),
    runtime=RuntimeConfig(matmul_precision="default"),
)

_FEW = {"num_envs": 8, "num_steps": 4, "num_updates": 2, "updates_per_chunk": 1}
_TINY_PPO = replace(_PPO, num_epochs=1, num_minibatches=2, **_FEW)
_TINY_REPLAY = {"num_gradient_steps": 1, "batch_size": 16, "capacity": 256, "warmup_steps": 128}
_TINY_REPLAY |= {"unroll": 2, "num_td_steps": 2, "reanalyse": 0.25}
_TINY_MODEL = LatentConfig(TrunkConfig(width=8, num_blocks=1), num_bins=11, projection_size=8)
_TINY_SEARCH = SearchConfig(num_simulations=2, value_range=1.0)
_TINY = replace(
    _COUNT,
    planner=replace(_PLANNER, ppo=_TINY_PPO, search=_TINY_SEARCH, projection_size=8),
    mlp=_TINY_PPO,
    longer=2,
    muzero=replace(_MUZERO, **_FEW, **_TINY_REPLAY, model=_TINY_MODEL, search=_TINY_SEARCH),
)
SMOKE = Config(
    (_TINY,),
    history=HistoryConfig(lanes=2, steps=32),
    tokens=TokenConfig(num_bins=8),
    model=TransformerConfig(width=8, num_layers=1, num_heads=2, context=4),
    pretrain=FitConfig(num_updates=2, updates_per_chunk=1, batch_size=8, warmup_updates=1),
    episodes=2,
    averaged=1,
    seeds=SeedConfig(1000, 2),
    runtime=RuntimeConfig(chunks_per_save=1, optimization_level=0),
)
PRESETS = {"smoke": SMOKE, "cpu": CPU, "cpu-full": CPU_FULL, "gpu": GPU}
