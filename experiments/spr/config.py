"""Configuration and presets of spr, importable without JAX."""

import dataclasses
from typing import Annotated, Any

from envs.common.names import check_name
from envs.returns import Reference
from jaxagent.config import (
    NUM_SHARDS,
    Bound,
    Count,
    FitConfig,
    LatentConfig,
    Positive,
    QNetworkConfig,
    RainbowConfig,
    RuntimeConfig,
    Share,
    SPRConfig,
    TrunkConfig,
    require,
    require_at_least,
    require_unlike,
)
from jaxagent.study.config import EnvConfig, SeedConfig

DESCRIPTION = "does predicting its own latents make a representation, or does it collapse?"
BELIEF = """
Where every cell of the board is noisy, linear probes read more of self-predictive latents than of an
untrained network's ({S1}) and of an autoencoder's of the same width ({S10}). They read no more than of the
board itself ({S9}: {=spr} against {=raw board}): an earlier row that said so had fitted the board's probe, of
400 inputs, on too few states. So 64 numbers keep what can be read linearly of 400, and add nothing.
Self-prediction is poor at what the player moves: its predictions hardly depend on actions ({S3}), and that
trips its alarm ({S8}). A slow target without gradient is what keeps it from collapse ({S5}, where the target
learns); the predictor is not needed for that ({S6}). Whether an agent is better for it has not been shown
({gpu-short: R1}, without noise). A world in which the state is not on the board (partial views, pixels) and
agents on noisy games with more seeds would change this.
"""
ARMS = {  # of the probe, as they appear in tables
    "spr": "self-prediction over K steps: slow target, no gradient through it, fast predictor",
    "one step": "the same over one step, the minimalist of Ni et al. 2024",
    "tokens": "the same over K steps in a transformer with a token for every patch of the board",
    "untrained": "the network of spr before training",
    "untrained tokens": "that of tokens before training",
    "raw board": "no network: the board itself",
    "autoencoder": "the network of spr, trained to restore its board instead",
    "target learns": "mutant: gradients reach the target",
    "no predictor": "mutant: latents roll forward, but no predictor stands behind them",
    "no transition": "mutant: neither transition nor predictor; a state predicts itself",
}
UNTRAINED = {"untrained": "spr", "untrained tokens": "tokens"}  # an arm before its first update
RAW = "raw board"
TRAINED = tuple(arm for arm in ARMS if arm not in (*UNTRAINED, RAW))
WITHOUT_TOKENS = tuple(arm for arm in TRAINED if arm != "tokens")

TRUTHS = {  # what a probe reads of a game's true state: the field of each number
    "minatar/Breakout": {"ball x": "ball_x", "ball y": "ball_y", "paddle": "pos"},
    "minatar/Asterix": {"player x": "player_x", "player y": "player_y"},
    "minatar/Freeway": {"player": "pos"},
    "minatar/SpaceInvaders": {"player": "pos"},
}


def _latent(width: int, **tokens: int) -> LatentConfig:
    """MuZero's model, whose rewards and values nothing reads; `tokens` are those of its trunk."""
    return LatentConfig(TrunkConfig(width=width, num_blocks=1, **tokens), num_bins=2, projection_size=width)


NOISE = 0.25  # where there is some; cells are 0 or 1
_TOKENS = {"patch": 5, "num_heads": 2}
# Adam at a constant rate.
_ADAM = {"warmup_updates": 1, "final_learning_rate": 1.0, "weight_decay": 0.0, "max_gradient_norm": 10.0}


@dataclasses.dataclass(frozen=True)
class ProbeConfig(EnvConfig):
    """Self-prediction alone, from random play; what the latent knows of the true state."""

    env: str = "minatar/Breakout"
    # Standard deviation of what is added to every cell at every step, which nothing predicts: a linear
    # probe reads a clean board with R2 0.998, and would say nothing of a latent; this one with 0.44
    # where it is fitted on 2,048 states, 0.53 on 16,384.
    noise: Annotated[float, Bound(0)] = NOISE
    env_steps: Count = 60_000  # of random play
    num_envs: Count = 16
    # States of other episodes, half to fit linear probes, half to score them.
    measured: Annotated[int, Bound(4 * NUM_SHARDS)] = 4096
    # More, for the scores, of the first and the last snapshot: half to fit, a quarter each to choose the
    # probe's penalty and to score.
    judged: Annotated[int, Bound(4 * NUM_SHARDS)] = 32_768
    model: LatentConfig = _latent(64)
    # 16 wide it says little (R^2 0.60). Of patches of 2 x 2 cells, and as wide as this, an
    # untrained one knows as much as 0.86, and an update takes three times as long.
    tokens: LatentConfig = _latent(64, **_TOKENS)
    num_steps: Count = 5  # K
    tau: Share = 0.01  # share of the new in the target, per update
    shift: Annotated[int, Bound(0)] = 0  # cells up to which boards move when they are learned from
    # Tang et al. 2023: latents do not collapse where the predictor is nearly optimal all the time.
    predictor_rate: Positive = 10.0  # multiple of the learning rate
    fit: FitConfig = FitConfig(4500, 450, batch_size=64, learning_rate=3e-3, **_ADAM)

    def check(self) -> None:
        """Raise where the game has no truths, or play is too short to draw from."""
        check_name("game of the probe", self.env, TRUTHS)
        require_at_least(self, 2 * (self.num_steps + 1) * self.num_envs, "env_steps")


@dataclasses.dataclass(frozen=True)
class TaskConfig(EnvConfig):
    """One game, learned by Rainbow with self-prediction and without."""

    rainbow: RainbowConfig = RainbowConfig()
    noise: Annotated[float, Bound(0)] = 0.0  # in every cell, as the probe has it
    # Return of the agent without self-prediction after as many steps on clean boards, of development seeds:
    # scores are shares of it. 0: of the expert's, who is out of reach of so few steps.
    reached: Annotated[float, Bound(0)] = 0.0

    @property
    def reference(self) -> Reference:
        """Returns that scores are normalised by."""
        return super().reference._replace(**({"expert": self.reached} if self.reached else {}))

    def check(self) -> None:
        """Raise where the game is none whose truths are known."""
        check_name("environment", self.env, TRUTHS)
        super().check()


@dataclasses.dataclass(frozen=True)
class Config:
    """The study, in the order in which it runs."""

    probe: ProbeConfig = ProbeConfig()  # its sizes are those of the agents' diagnoses too
    has_probe: bool = True  # whether its arms are trained
    arms: tuple[str, ...] = WITHOUT_TOKENS  # that are trained; on a CPU tokens take as long as all others
    tasks: tuple[TaskConfig, ...] = ()
    episodes: Count = 32  # of each agent and seed at the end
    # 100 to 107 were looked at before the transformer became what it is, 200 to 207 on clean boards.
    seeds: SeedConfig = SeedConfig(420, 12)
    runtime: RuntimeConfig = RuntimeConfig(optimization_level=1)

    def check(self) -> None:
        """Raise where there is nothing to do."""
        fix = "there is no probe either; name one, or set has_probe"
        require(self.has_probe or bool(self.tasks), "Config.tasks", self.tasks, "a game", fix)
        require(not self.has_probe or bool(self.arms), "Config.arms", self.arms, "an arm", "or no probe")
        require_unlike("Config.arms", self.arms)
        for arm in self.arms:
            check_name("arm of the probe", arm, TRAINED)


# The recipe without augmentation: a slow target, and dropout.
_BOARD = QNetworkConfig(encoder="board", width=2, hidden_size=128, dropout=0.5)
_RAINBOW = RainbowConfig(model=_BOARD, spr=SPRConfig(tau=0.01))
# In the manner of SR-SPR (D'Oro et al. 2023): four times the updates, shrink and perturb, no
# parameter noise, nothing clipped, acting by the slow network, which is SPR's target too. Not so:
# no augmentation, which shifts a board of ten cells too far; smaller heads.
_SLOW = {"target_tau": 0.005, "acts_by_target": True, "spr": SPRConfig(tau=0.005)}
_RESETS = {"reset_period": 40_000, "reset_share": 0.2}
_WEIGHTS = {"importance_exponent": 0.5, "final_importance_exponent": 0.5}
_HEAD = dataclasses.replace(_BOARD, noise=0.0, is_shared=True, dropout=0.0)
_SR_SPR = dataclasses.replace(
    _RAINBOW, num_gradient_steps=32, max_gradient_norm=0.0, model=_HEAD, **_SLOW, **_RESETS, **_WEIGHTS
)
# In the manner of BBF (Schwarzer et al. 2023): a wider residual encoder, harder resets, horizons
# that grow after each, weight decay.
_HORIZONS = {"num_td_steps": 3, "discount": 0.997, "anneal_updates": 10_000}  # from 10 steps and 0.97
_IMPALA = QNetworkConfig(encoder="impala", width=4, hidden_size=512, noise=0.0, is_shared=True)
_BBF = dataclasses.replace(
    _SR_SPR, num_gradient_steps=8, reset_share=0.5, weight_decay=0.1, model=_IMPALA, **_HORIZONS
)
_TINY_FIT = FitConfig(num_updates=4, updates_per_chunk=2, batch_size=8, warmup_updates=1)
_TINY_MODELS = {"model": _latent(8), "tokens": _latent(8, **_TOKENS)}
_TINY_REPLAY = {"num_gradient_steps": 2, "batch_size": 8, "capacity": 256, "warmup_steps": 64}
_TINY_PARTS = {"model": QNetworkConfig(hidden_size=8, num_atoms=11), "spr": SPRConfig(num_steps=2)}
_TINY_AGENT = RainbowConfig(num_td_steps=3, num_updates=4, updates_per_chunk=2, **_TINY_REPLAY, **_TINY_PARTS)
SMOKE = Config(
    ProbeConfig(
        env_steps=512, num_envs=8, measured=64, judged=64, num_steps=2, fit=_TINY_FIT, **_TINY_MODELS
    ),
    arms=TRAINED,
    tasks=(TaskConfig("minatar/Breakout", _TINY_AGENT),),
    episodes=2,
    seeds=SeedConfig(1000, 2),
    runtime=RuntimeConfig(chunks_per_save=1, optimization_level=0),
)


def _on_minatar(agent: RainbowConfig, *names: str, noise: float = 0.0, **changes: Any) -> Config:
    """For one accelerator: MinAtar at 100k steps after 2,048 random ones."""
    tasks = tuple(TaskConfig(f"minatar/{name}", agent, noise) for name in names)
    return Config(arms=TRAINED, tasks=tasks, runtime=RuntimeConfig(matmul_precision="default"), **changes)


# For two cores, never run: a narrow head, 16k steps, two updates a step, noise in every cell.
_NARROW = dataclasses.replace(_BOARD, width=1, hidden_size=64)
_BRIEF = {"num_updates": 4000, "updates_per_chunk": 500, "capacity": 16_384, "warmup_steps": 1024}
_SLIGHT = dataclasses.replace(_RAINBOW, model=_NARROW, learning_rate=3e-4, num_td_steps=5, **_BRIEF)
CPU_FULL = Config(
    has_probe=False,
    # By shares of the expert's return Breakout was at the floor; of Freeway's five seeds two never learned.
    tasks=tuple(
        TaskConfig(f"minatar/{name}", _SLIGHT, NOISE, reached)
        for name, reached in (("Breakout", 6.7), ("SpaceInvaders", 11.8))
    ),
    seeds=SeedConfig(500, 8),
)


ABLATED = "spr"  # the arm that cells of the ablation are judged by


def ablations(config: Config) -> dict[str, Config]:
    """Cells of the probe's ablation, by name: each changes one thing of its self-prediction."""
    base = dataclasses.replace(config, tasks=(), has_probe=True, arms=(ABLATED,))
    cells = {"baseline": base}

    def vary(name: str, **changes: Any) -> None:
        cells[name] = dataclasses.replace(base, probe=dataclasses.replace(base.probe, **changes))

    for steps in (1, 2, 10):
        if steps != config.probe.num_steps:
            vary(f"K {steps}", num_steps=steps)
    for tau in (0.001, 0.1, 1.0):
        vary(f"tau {tau:g}", tau=tau)
    for cells_moved in (1, 2):
        vary(f"shift {cells_moved}", shift=cells_moved)
    for noise in (0.0, 0.5):
        vary(f"noise {noise:g}", noise=noise)
    vary("predictor as fast as the rest", predictor_rate=1.0)
    return cells


_GAMES = ("Breakout", "Asterix", "SpaceInvaders", "Freeway")
# One game and one update a step: minutes. Snapshots are few, for what is diagnosed of each.
_SHORT = dataclasses.replace(_RAINBOW, num_gradient_steps=4, updates_per_chunk=2500)
# A million steps, an update after four, of the last 102,400 steps: about 20 minutes on an H100, by
# what an update takes above. Never run.
_LONG = dataclasses.replace(_RAINBOW, num_gradient_steps=1, num_updates=250_000, updates_per_chunk=25_000)
PRESETS = {
    "smoke": SMOKE,
    "cpu": Config(),
    "cpu-full": CPU_FULL,
    # Two updates a step, 16 seeds, noise in every cell. Never run.
    "gpu": _on_minatar(_RAINBOW, *_GAMES, noise=NOISE, seeds=SeedConfig(600, 16)),
    "gpu-short": _on_minatar(_SHORT, "Breakout", has_probe=False),
    "gpu-1m": _on_minatar(_LONG, "Breakout", has_probe=False),
    "gpu-sr-spr": _on_minatar(_SR_SPR, *_GAMES),
    "gpu-bbf": _on_minatar(_BBF, *_GAMES),
}
