"""Configuration and presets of memory, importable without JAX."""

import dataclasses

from envs.common.names import check_name
from envs.returns import Reference, bounded
from jaxagent.config import Count, PPOConfig, RuntimeConfig, Share, TransformerConfig, require_whole_lanes
from jaxagent.study.config import ChangedEnvConfig, SeedConfig

ALL_ARMS = ("reflex", "stack", "gru", "linear", "transformer", "gated", "oracle", "saboteur")
DESCRIPTION = "which memory lets PPO act on what it no longer sees: recurrent, stacked or a transformer's?"
BELIEF = """
Which memory helps depends on the world: of the oracle's return the linear recurrence reaches {=linear},
the transformer {=transformer}, with gates {=gated}, the GRU {=gru}, a stack of observations {=stack},
none {=reflex}. What we claim is only that the linear recurrence beats none ({Y2}) and that clearing the
memory loses the gain ({Y6}): one world is at its ceiling for the transformer, and a slower one would say
whether it beats the GRU ({Y5}).
"""


@dataclasses.dataclass(frozen=True)
class TaskConfig(ChangedEnvConfig):
    """A memory world, and how every arm learns it."""

    ppo: PPOConfig = PPOConfig()
    best: float = 0.0  # the highest return, where no expert's was measured

    @property
    def reference(self) -> Reference:
        """Returns that scores of this task are normalised by."""
        return bounded(self.env, self.overrides, self.best) if self.best else super().reference

    def check(self) -> None:
        """Raise where lanes do not make whole minibatches."""
        super().check()
        require_whole_lanes(self.ppo)


@dataclasses.dataclass(frozen=True)
class Config:
    """The study, in the order in which it runs."""

    tasks: tuple[TaskConfig, ...]
    arms: tuple[str, ...] = ALL_ARMS
    width: Count = 32  # of every memory's features
    stack: Count = 4  # observations that the frame stack holds
    recurrence_layers: Count = 2
    transformer: TransformerConfig = TransformerConfig(width=32, num_layers=2, num_heads=4, context=8)
    forget: Share = 0.3  # of the saboteur's steps: it begins anew
    episodes: Count = 64  # of each arm and seed
    seeds: SeedConfig = SeedConfig(200, 5)  # 0 to 4 and 100 to 104 were run at the ceiling
    runtime: RuntimeConfig = RuntimeConfig(optimization_level=1)

    def check(self) -> None:
        """Raise for an arm that is none."""
        for arm in self.arms:
            check_name("arm", arm, list(ALL_ARMS))


_PPO = PPOConfig(
    num_envs=64,
    num_steps=16,
    num_epochs=2,
    num_updates=14,  # of RepeatFirst: a few more, and every memory is at its ceiling
    updates_per_chunk=7,
    learning_rate=2e-3,
    entropy_weight=0.01,
)
_FIRST = TaskConfig("memory/RepeatFirst", (("num_cards", 8),), _PPO)
_COUNT = TaskConfig(
    "memory/CountRecall", (("num_cards", 4),), dataclasses.replace(_PPO, num_updates=60, updates_per_chunk=12)
)
_MAZE = TaskConfig("memory/TMaze", (("length", 6),), _PPO)
CPU = Config((_FIRST, _COUNT))

# Two hours and a half at most; never run so far.
_LONG = dataclasses.replace(_PPO, num_updates=120, updates_per_chunk=24)
_CONTROL = dataclasses.replace(_LONG, num_steps=32, num_epochs=4, reward_scale=0.1, entropy_weight=0.0)
_LENGTHS = (3, 6, 12, 24)
FULL = Config(
    (
        TaskConfig("memory/RepeatFirst", (), _LONG),
        TaskConfig("memory/RepeatPrevious", (), _LONG),
        TaskConfig("memory/CountRecall", (("num_cards", 8),), _LONG),
        TaskConfig("memory/Autoencode", (("num_cards", 3),), _LONG),
        *(TaskConfig("memory/TMaze", (("length", length),), _LONG) for length in _LENGTHS),
        TaskConfig("memory/PositionCartPole", (), _CONTROL),
        TaskConfig("memory/NoisyPendulum", (), dataclasses.replace(_CONTROL, discount=0.95)),
    ),
    transformer=TransformerConfig(width=32, num_layers=2, num_heads=4, context=32),
)

_TINY = dataclasses.replace(
    _PPO, num_envs=16, num_steps=4, num_updates=2, updates_per_chunk=1, num_minibatches=2
)
_SMALL = TransformerConfig(width=8, num_layers=1, num_heads=2, context=4)
SMOKE = Config(
    (dataclasses.replace(_MAZE, ppo=_TINY),),
    width=8,
    transformer=_SMALL,
    episodes=2,
    seeds=SeedConfig(1000, 2),
    runtime=RuntimeConfig(chunks_per_save=1, optimization_level=0),
)

# One accelerator, for what is published of Craftax-Classic; the state is one token. Never run so far.
_WIDE = TransformerConfig(width=256, num_layers=4, num_heads=8, context=64, dtype="bfloat16", patch=1345)
_CRAFT = dataclasses.replace(
    _PPO, num_envs=64, num_steps=64, num_epochs=4, num_minibatches=8, trace=0.8, learning_rate=3e-4
)
_CRAFT = dataclasses.replace(_CRAFT, num_updates=256, updates_per_chunk=16, hidden_size=512)
_MOST = dataclasses.replace(_CRAFT, num_envs=1024, num_updates=15_360, updates_per_chunk=128)


def _on_craftax(ppo: PPOConfig, seeds: int) -> Config:
    return Config(
        (TaskConfig("craftax/Classic-Symbolic", ppo=ppo, best=22.0),),
        ("reflex", "gru", "transformer"),
        width=256,
        transformer=_WIDE,
        seeds=SeedConfig(0, seeds),
        runtime=RuntimeConfig(matmul_precision="default", needs_accelerator=True),
    )


PRESETS = {
    "smoke": SMOKE,
    "cpu": CPU,
    "cpu-full": FULL,
    "gpu": _on_craftax(_CRAFT, 5),  # a million steps
    "gpu-1b": _on_craftax(_MOST, 1),  # a billion
}
