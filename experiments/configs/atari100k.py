"""Configuration and presets of atari100k, importable without JAX."""

import dataclasses
from typing import Literal

from envs.atari import ATARI_100K, STEPS
from envs.names import check_name
from envs.registry import require_source
from jaxagent.config import (
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

DESCRIPTION = "does SPR learn the real games of Atari-100k as it was published to?"
ARMS = {
    "spr": "Rainbow with self-prediction; frames are shifted and dimmed, and the target is the "
    "online encoder without gradient",
    "plain": "no augmentation: a slow target (0.01) and dropout (0.5)",
    "rainbow": "the twin of spr without the self-predictive loss",
}
FRAME = 84 * 84  # bytes


@dataclasses.dataclass(frozen=True)
class Config:
    """Games, agents and how they are fitted; a seed is a lane of one emulator."""

    games: tuple[str, ...] = tuple(ATARI_100K)  # by rom id
    agents: tuple[Literal["spr", "plain", "rainbow"], ...] = ("spr",)
    # Steps are the agent's, of four frames each: `num_updates` of them in all, and
    # `num_gradient_steps` after each from `warmup_steps` on; importance weights are annealed as if
    # those of the warm-up were fitted too.
    rainbow: RainbowConfig = RainbowConfig(
        num_envs=1,
        num_gradient_steps=2,
        capacity=102_400,
        warmup_steps=2000,
        num_updates=STEPS,
        updates_per_chunk=2500,
        reward_limit=1.0,
        is_augmented=True,
        model=QNetworkConfig(encoder="nature"),
        spr=SPRConfig(tau=1.0),
    )
    episodes: int = 100  # whole games of each agent and seed at the end
    eval_lanes: int = 10  # of each seed, which play them side by side
    first_seed: int = 0  # claim seeds are 0..7; development seeds are 1000 and up
    num_seeds: int = 8  # of five, sign flips after Holm could let no claim pass
    runtime: RuntimeConfig = RuntimeConfig(matmul_precision="default", chunks_per_save=4)

    def check(self) -> None:
        """Raise ValueError with got / expected / fix for an illegal configuration."""
        for game in self.games:
            check_name("game of Atari-100k", game, ATARI_100K)
        require_at_least(self, 1, "num_seeds", "eval_lanes", "episodes")
        require_divides("Config.episodes", self.eval_lanes, self.episodes, "each lane plays some")
        for name, values in (("games", self.games), ("agents", self.agents)):
            count = len(set(values))
            require_equal(f"Config.{name}", len(values), max(count, 1), "name each once")
        self.runtime.check()
        require_equal(
            "RuntimeConfig.devices",
            self.runtime.devices,
            1,
            "an emulator feeds one; run other games on other devices",
        )
        self._check_fit(self.rainbow)
        require_source("atari100k", "ale")

    def _check_fit(self, fit: RainbowConfig) -> None:
        fit.check_learner()
        require_positive(fit, "num_gradient_steps", "batch_size", "updates_per_chunk")
        for name in ("num_envs", "num_steps"):
            require_equal(
                f"RainbowConfig.{name}",
                getattr(fit, name),
                1,
                "a seed plays one game, and learns after every step",
            )
        require_divides(
            "RainbowConfig.num_updates", fit.updates_per_chunk, fit.num_updates, "chunks are whole"
        )
        # Both programs are compiled in the first chunk.
        require_at_least(fit, fit.warmup_steps + fit.window, "updates_per_chunk")
        require_fits_memory(
            "frames kept: num_seeds * rainbow.capacity * 84 * 84", self.num_seeds * fit.capacity * FRAME, 0.5
        )


GPU = Config()
# A game for a third of the steps: about ten minutes on an H100, two of them compiling.
GPU_SHORT = dataclasses.replace(
    GPU,
    games=("boxing",),
    rainbow=dataclasses.replace(GPU.rainbow, num_updates=32_000, updates_per_chunk=4000),
    episodes=20,
    first_seed=200,  # claim seeds of this preset are 200..207; 100..104 were looked at
)
SMOKE = Config(
    games=("pong",),
    rainbow=dataclasses.replace(
        GPU.rainbow,
        batch_size=4,
        capacity=128,
        warmup_steps=32,
        num_updates=96,
        updates_per_chunk=48,
        num_td_steps=3,
        num_gradient_steps=1,
        model=QNetworkConfig(encoder="nature", hidden_size=8, num_atoms=11),
        spr=SPRConfig(num_steps=2, tau=1.0),
    ),
    episodes=1,
    eval_lanes=1,
    first_seed=1000,
    num_seeds=2,
    runtime=RuntimeConfig(chunks_per_save=1, optimization_level=1),
)
PRESETS = {"smoke": SMOKE, "gpu-short": GPU_SHORT, "gpu": GPU}
