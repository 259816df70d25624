"""Configuration and presets of atari100k, importable without JAX."""

import dataclasses
from typing import Literal

from envs.atari import ATARI_100K, STEPS
from envs.common.names import check_name
from envs.registry import require_source
from jaxagent.config import (
    Count,
    QNetworkConfig,
    RainbowConfig,
    RuntimeConfig,
    SPRConfig,
    require_at_least,
    require_divides,
    require_equal,
    require_fits_memory,
    require_positive,
)
from jaxagent.study.config import SeedConfig

DESCRIPTION = "does SPR learn the real games of Atari-100k as it was published to?"
ARMS = {
    "spr": "Rainbow with self-prediction; frames are shifted and dimmed, and the target is the "
    "online encoder without gradient",
    "plain": "no augmentation: a slow target (0.01) and dropout (0.5)",
    "rainbow": "the twin of spr without the self-predictive loss",
}
FRAME = 84 * 84  # bytes


@dataclasses.dataclass(frozen=True)
class LearnerConfig(RainbowConfig):
    """Rainbow whose lanes are seeds: each plays one game and learns after every step; as published.

    Steps are the agent's, of four frames each: `num_updates` of them in all, and `num_gradient_steps`
    after each from `warmup_steps` on; importance weights are annealed as if those of the warm-up were
    fitted too.
    """

    num_envs: int = 1
    num_gradient_steps: int = 2
    warmup_steps: int = 2000
    num_updates: int = STEPS
    updates_per_chunk: int = 2500
    reward_limit: float = 1.0
    is_augmented: bool = True
    model: QNetworkConfig = QNetworkConfig(encoder="nature")

    def check(self) -> None:
        """Raise where a lane is no single game, or the first chunk does not hold both programs."""
        self.check_learner()
        require_positive(self, "num_gradient_steps", "batch_size", "updates_per_chunk")
        for name in ("num_envs", "num_steps"):
            fix = "a seed plays one game, and learns after every step"
            require_equal(f"RainbowConfig.{name}", getattr(self, name), 1, fix)
        fix = "chunks are whole"
        require_divides("RainbowConfig.num_updates", self.updates_per_chunk, self.num_updates, fix)
        require_at_least(self, self.warmup_steps + self.window, "updates_per_chunk")


@dataclasses.dataclass(frozen=True)
class Config:
    """Games, agents and how they are fitted; a seed is a lane of one emulator."""

    games: tuple[str, ...] = tuple(ATARI_100K)  # by rom id
    agents: tuple[Literal["spr", "plain", "rainbow"], ...] = ("spr",)
    rainbow: LearnerConfig = LearnerConfig()
    episodes: Count = 100  # whole games of each agent and seed at the end
    eval_lanes: Count = 10  # of each seed, which play them side by side
    seeds: SeedConfig = SeedConfig(0, 8)  # of five, sign flips after Holm could let no claim pass
    runtime: RuntimeConfig = RuntimeConfig(matmul_precision="default", chunks_per_save=4)

    def check(self) -> None:
        """Raise where a game is unknown or named twice, or one emulator cannot serve what is asked."""
        for game in self.games:
            check_name("game of Atari-100k", game, ATARI_100K)
        require_divides("Config.episodes", self.eval_lanes, self.episodes, "each lane plays some")
        for name, values in (("games", self.games), ("agents", self.agents)):
            require_equal(f"Config.{name}", len(values), max(len(set(values)), 1), "name each once")
        fix = "an emulator feeds one; run other games on other devices"
        require_equal("RuntimeConfig.devices", self.runtime.devices, 1, fix)
        frames = len(self.seeds) * self.rainbow.capacity * FRAME
        require_fits_memory("frames kept: seeds.count * rainbow.capacity * 84 * 84", frames, 0.5)
        require_source("atari100k", "ale")


GPU = Config()
# A game for a third of the steps: about ten minutes on an H100, two of them compiling.
_SHORT = LearnerConfig(num_updates=32_000, updates_per_chunk=4000)
GPU_SHORT = Config(("boxing",), rainbow=_SHORT, episodes=20, seeds=SeedConfig(200, 8))  # 100..104: seen
_TINY_REPLAY = {"num_gradient_steps": 1, "batch_size": 4, "capacity": 128, "warmup_steps": 32}
_TINY_PARTS = {"model": QNetworkConfig("nature", hidden_size=8, num_atoms=11), "spr": SPRConfig(num_steps=2)}
_TINY = LearnerConfig(num_td_steps=3, num_updates=96, updates_per_chunk=48, **_TINY_REPLAY, **_TINY_PARTS)
_QUICK = RuntimeConfig(chunks_per_save=1, optimization_level=0)
SMOKE = Config(("pong",), rainbow=_TINY, episodes=1, eval_lanes=1, seeds=SeedConfig(1000, 2), runtime=_QUICK)
PRESETS = {"smoke": SMOKE, "gpu-short": GPU_SHORT, "gpu": GPU}
