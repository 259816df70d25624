"""Configurations of the parts: frozen dataclasses with legal defaults, importable without JAX.

Every experiment composes these; `check` is called once, at the edge, before JAX starts.
"""

import dataclasses
import hashlib
import json
import math
import os
from typing import Any, Literal

NUM_SHARDS = 4  # logical data shards at any device count, see train/parallel.py


def _require(condition: bool, what: str, got: Any, expected: str, fix: str) -> None:
    if not condition:
        raise ValueError(f"{what}: got {got!r}, expected {expected}; {fix}.")


def require_positive(config: Any, *fields: str) -> None:
    """Raise unless each named field is a finite number above zero."""
    for field in fields:
        value = getattr(config, field)
        name = f"{type(config).__name__}.{field}"
        _require(math.isfinite(value) and value > 0, name, value, "a number above 0", "raise it")


def require_at_least_zero(config: Any, *fields: str) -> None:
    """Raise unless each named field is a finite number of at least zero."""
    for field in fields:
        value = getattr(config, field)
        name = f"{type(config).__name__}.{field}"
        ok = math.isfinite(value) and value >= 0
        _require(ok, name, value, "a number of at least 0", "raise it")


def require_at_least(config: Any, low: float, *fields: str) -> None:
    """Raise unless each named field is a number of at least `low`."""
    for field in fields:
        value = getattr(config, field)
        name = f"{type(config).__name__}.{field}"
        _require(value >= low, name, value, f"at least {low:g}", "raise it")


def require_at_most(config: Any, high: float, field: str, what: str) -> None:
    """Raise unless the named field is a number of at most `high`, which is `what`."""
    value = getattr(config, field)
    name = f"{type(config).__name__}.{field}"
    _require(value <= high, name, value, f"at most {high:g}, the {what}", "lower it or raise that")


def require_divides(what: str, divisor: int, whole: int, fix: str) -> None:
    """Raise unless `divisor` divides `whole`."""
    _require(whole % divisor == 0, what, whole, f"a multiple of {divisor}", fix)


def require_equal(what: str, got: Any, expected: Any, fix: str) -> None:
    """Raise unless `got` is the one legal value."""
    _require(got == expected, what, got, repr(expected), fix)


def require_fraction(config: Any, *fields: str) -> None:
    """Raise unless each named field lies in [0, 1]."""
    for field in fields:
        value = getattr(config, field)
        name = f"{type(config).__name__}.{field}"
        _require(0.0 <= value <= 1.0, name, value, "a number in [0, 1]", "choose a fraction")


def require_fits_memory(what: str, num_bytes: int, share: float = 0.25) -> None:
    """Raise unless `num_bytes` are at most a share of this machine's memory."""
    limit = int(share * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    expected = f"at most {limit} bytes, {share:g} of this machine's memory"
    _require(num_bytes <= limit, f"{what}, bytes", num_bytes, expected, "make it smaller")


def require_on_policy(config: Any) -> None:
    """Raise unless lanes, updates and minibatches of an on-policy loop divide."""
    name = type(config).__name__
    require_divides(f"{name}.num_envs", NUM_SHARDS, config.num_envs, "data have that many shards")
    require_divides(
        f"{name}.num_updates", config.updates_per_chunk, config.num_updates, "chunks are whole"
    )
    per_shard = config.num_envs * config.num_steps // NUM_SHARDS
    require_divides(
        f"{name}.num_envs * num_steps / shards", config.num_minibatches, per_shard, "or change it"
    )


def require_replay(config: Any) -> None:
    """Raise unless the sizes of a replay loop are positive and divide."""
    name = type(config).__name__
    require_positive(config, "num_envs", "num_steps", "num_gradient_steps", "batch_size")
    require_positive(config, "capacity", "warmup_steps", "num_updates", "updates_per_chunk")
    for what in ("num_envs", "batch_size", "capacity", "warmup_steps"):
        require_divides(
            f"{name}.{what}", NUM_SHARDS, getattr(config, what), "data have that many shards"
        )
    per_update = config.num_envs * config.num_steps
    for what in ("capacity", "warmup_steps"):
        require_divides(
            f"{name}.{what}",
            per_update,
            getattr(config, what),
            "it is filled in whole updates",
        )
    require_at_most(config, config.capacity, "warmup_steps", "capacity")
    require_divides(
        f"{name}.capacity", config.warmup_steps, config.capacity, "the warm-up is one block of it"
    )
    require_divides(
        f"{name}.num_updates", config.updates_per_chunk, config.num_updates, "chunks are whole"
    )


@dataclasses.dataclass(frozen=True)
class PPOConfig:
    """Proximal policy optimisation (Schulman et al. 2017) on one environment."""

    num_envs: int = 32
    num_steps: int = 64  # env steps per lane and update
    num_epochs: int = 4
    num_minibatches: int = 4
    num_updates: int = 120
    updates_per_chunk: int = 6
    learning_rate: float = 1e-3
    final_learning_rate: float = 0.0  # as a share of the first, reached linearly
    discount: float = 0.99  # per env step
    trace: float = 0.95  # GAE lambda
    clip: float = 0.2
    value_clip: float = 0.0  # 0: the plain squared error
    entropy_weight: float = 0.0
    value_weight: float = 0.5
    max_gradient_norm: float = 0.5
    reward_scale: float = 1.0  # keep values near 10: one norm clips actor and critic together
    hidden_size: int = 64
    initial_log_std: float = 0.0

    def check(self) -> None:
        """Raise ValueError with got / expected / fix for an illegal configuration."""
        require_positive(
            self, "num_envs", "num_steps", "num_epochs", "num_minibatches", "num_updates"
        )
        require_positive(self, "updates_per_chunk", "learning_rate", "hidden_size", "clip")
        require_at_least_zero(self, "value_clip", "entropy_weight", "value_weight")
        require_positive(self, "max_gradient_norm", "reward_scale")
        require_fraction(self, "discount", "trace", "final_learning_rate")
        require_on_policy(self)


@dataclasses.dataclass(frozen=True)
class TrunkConfig:
    """A residual network under a policy and a value head."""

    channels: int = 0  # of 3 x 3 convolutions over a board; 0: dense layers over all of it
    width: int = 128  # of dense layers and tokens
    num_blocks: int = 2
    # Cells on the side of a patch of a board that is a token of a transformer; of observations
    # without places every scalar is one. 0: no tokens.
    patch: int = 0
    num_heads: int = 4  # of attention between tokens

    def check(self) -> None:
        """Raise ValueError with got / expected / fix for an illegal configuration."""
        require_at_least_zero(self, "channels", "num_blocks", "patch")
        require_positive(self, "width", "num_heads")
        _require(
            not (self.patch and self.channels), "TrunkConfig.patch", self.patch,
            "0 beside channels", "choose tokens or convolutions",
        )  # fmt: skip
        if self.patch:
            require_divides("TrunkConfig.width", self.num_heads, self.width, "heads are equal")


@dataclasses.dataclass(frozen=True)
class LatentConfig:
    """A model of the world in latent space (MuZero)."""

    trunk: TrunkConfig = TrunkConfig(num_blocks=1)  # of the encoder; latents have its width
    transition_blocks: int = 1
    num_bins: int = 41  # of rewards and values
    reach: float = 20.0  # largest squashed reward or value (`objectives.value.squash`)
    projection_size: int = 128  # in which the consistency loss compares latents

    def check(self) -> None:
        """Raise ValueError with got / expected / fix for an illegal configuration."""
        self.trunk.check()
        require_at_least_zero(self, "transition_blocks")
        require_at_least(self, 2, "num_bins")
        require_positive(self, "reach", "projection_size")


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """Search with a model at every move."""

    num_simulations: int = 32
    num_considered: int = 16  # root actions that sequential halving begins with
    max_depth: int = 0  # edges from the root; 0: no limit

    def check(self) -> None:
        """Raise ValueError with got / expected / fix for an illegal configuration."""
        require_positive(self, "num_simulations", "num_considered")
        require_at_least_zero(self, "max_depth")


@dataclasses.dataclass(frozen=True)
class AlphaZeroConfig:
    """Policy iteration by search with the true environment (Silver et al. 2018)."""

    num_envs: int = 64
    num_steps: int = 16  # env steps per lane and update
    num_epochs: int = 1
    num_minibatches: int = 4
    num_updates: int = 60
    updates_per_chunk: int = 6
    learning_rate: float = 2e-3
    final_learning_rate: float = 0.1  # as a share of the first, reached linearly
    discount: float = 1.0  # per env step
    trace: float = 1.0  # 1: the outcome of the game, as in the paper; 0: the next search's value
    value_weight: float = 1.0
    exploration: float = 0.1  # share of moves that are drawn uniformly
    max_gradient_norm: float = 1.0
    search: SearchConfig = SearchConfig()

    @property
    def reward_scale(self) -> float:
        """Search and targets read rewards as they are."""
        return 1.0

    def check(self) -> None:
        """Raise ValueError with got / expected / fix for an illegal configuration."""
        require_positive(self, "num_envs", "num_epochs", "num_minibatches", "num_updates")
        require_positive(self, "updates_per_chunk", "learning_rate", "max_gradient_norm")
        require_at_least(self, 2, "num_steps")  # the last one has no value to learn
        require_at_least_zero(self, "value_weight")
        require_fraction(self, "discount", "trace", "final_learning_rate", "exploration")
        self.search.check()
        require_on_policy(self)


@dataclasses.dataclass(frozen=True)
class SACConfig:
    """Soft actor-critic (Haarnoja et al. 2018b) on one environment."""

    num_envs: int = 16
    num_steps: int = 1  # env steps per lane and update
    num_gradient_steps: int = 8  # per update
    batch_size: int = 256
    capacity: int = 262_144  # transitions that the replay holds
    warmup_steps: int = 4096  # transitions of uniform actions before the first update
    num_updates: int = 2000
    updates_per_chunk: int = 100
    learning_rate: float = 3e-4
    discount: float = 0.99  # per env step
    tau: float = 0.005  # share of the new critic in the target, per gradient step
    reward_scale: float = 1.0
    hidden_size: int = 64  # of the policy, which is what stays
    critic_hidden_size: int = 256
    initial_temperature: float = 1.0
    entropy_per_action: float = -1.0  # target entropy, nats per action component

    def check(self) -> None:
        """Raise ValueError with got / expected / fix for an illegal configuration."""
        require_positive(self, "learning_rate", "tau", "reward_scale", "initial_temperature")
        require_positive(self, "hidden_size", "critic_hidden_size")
        require_fraction(self, "discount", "tau")
        require_replay(self)


@dataclasses.dataclass(frozen=True)
class MuZeroConfig:
    """Gumbel MuZero, with EfficientZero's consistency loss where its weight is above 0."""

    num_envs: int = 16
    num_steps: int = 8  # env steps per lane and update
    num_gradient_steps: int = 8  # per update
    batch_size: int = 64  # windows of unroll + 1 + num_td_steps steps
    capacity: int = 65_536  # env steps that the replay holds
    warmup_steps: int = 1024  # env steps of uniform actions before the first update
    num_updates: int = 200
    updates_per_chunk: int = 20
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    max_gradient_norm: float = 5.0
    discount: float = 0.99  # per env step
    tau: float = 0.02  # share of the new parameters in the slow copy, per gradient step
    unroll: int = 5  # steps that the model is unrolled for
    num_td_steps: int = 5  # rewards in a value target before it bootstraps
    value_weight: float = 0.25
    reward_weight: float = 1.0
    consistency_weight: float = 2.0  # EfficientZero; 0: MuZero
    reanalyse: float = 0.25  # share of windows whose policy targets are searched anew
    model: LatentConfig = LatentConfig()
    search: SearchConfig = SearchConfig(num_simulations=16)

    def check(self) -> None:
        """Raise ValueError with got / expected / fix for an illegal configuration."""
        require_positive(self, "learning_rate", "max_gradient_norm", "tau", "unroll")
        require_positive(self, "num_td_steps", "num_steps", "num_gradient_steps")
        require_at_least_zero(self, "value_weight", "reward_weight", "consistency_weight")
        require_at_least_zero(self, "weight_decay")
        require_fraction(self, "discount", "tau", "reanalyse")
        require_replay(self)
        self.model.check()
        self.search.check()
        shard = self.batch_size // NUM_SHARDS
        _require(
            self.reanalyse == 0.0 or round(self.reanalyse * shard) > 0,
            "MuZeroConfig.reanalyse", self.reanalyse,
            f"0 or a share that is a window of {shard}, the part of a shard", "raise it",
        )  # fmt: skip
        # Every window and its bootstrap lie within what the warm-up wrote.
        _require(
            self.warmup_steps // self.num_envs > self.unroll + self.num_td_steps,
            "MuZeroConfig.warmup_steps / num_envs", self.warmup_steps // self.num_envs,
            "more than unroll + num_td_steps, a window", "raise it",
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class QNetworkConfig:
    """A distributional Q-network on frames or boards `[H, W, C]`."""

    encoder: Literal["nature", "impala", "board"] = "board"
    width: int = 1  # multiple of the encoder's channels
    hidden_size: int = 256  # of each stream of the head
    is_shared: bool = False  # value and advantage read one hidden layer, as in BBF; or one each
    num_atoms: int = 51  # of the distribution of returns
    max_return: float = 10.0  # the atoms lie in [-max, max]
    noise: float = 0.5  # initial scale of the head's parameter noise; 0: no noise
    dropout: float = 0.0  # after every convolution of the online encoder

    def check(self) -> None:
        """Raise ValueError with got / expected / fix for an illegal configuration."""
        require_positive(self, "width", "hidden_size", "max_return")
        require_at_least(self, 2, "num_atoms")
        require_at_least_zero(self, "noise")
        require_fraction(self, "dropout")
        _require(self.dropout < 1.0, "QNetworkConfig.dropout", self.dropout, "below 1", "lower it")


@dataclasses.dataclass(frozen=True)
class SPRConfig:
    """Self-predictive representations (Schwarzer et al. 2021)."""

    num_steps: int = 5  # K: steps that the transition is unrolled for
    weight: float = 5.0  # of the mean over steps of 2 - 2 cos; 0: plain Rainbow
    tau: float = 1.0  # share of the new in the target encoder; 1: the online one, no gradient

    def check(self) -> None:
        """Raise ValueError with got / expected / fix for an illegal configuration."""
        require_positive(self, "num_steps", "tau")
        require_at_least_zero(self, "weight")
        require_fraction(self, "tau")


@dataclasses.dataclass(frozen=True)
class RainbowConfig:
    """Rainbow (Hessel et al. 2018) as SPR uses it, with what SR-SPR and BBF add."""

    num_envs: int = 4
    num_steps: int = 1  # env steps per lane and update
    num_gradient_steps: int = 8  # per update
    batch_size: int = 32
    capacity: int = 102_400  # env steps that the replay holds
    warmup_steps: int = 2048  # env steps of uniform actions before the first update
    num_updates: int = 25_000
    updates_per_chunk: int = 500
    learning_rate: float = 1e-4
    adam_epsilon: float = 1.5e-4
    weight_decay: float = 0.0  # of matrices
    max_gradient_norm: float = 10.0  # of encoder and head, and of the transition; 0: not clipped
    discount: float = 0.99  # per env step
    num_td_steps: int = 10  # rewards in a value target before it bootstraps
    # Both of the above are reached from these, exponentially, in `anneal_updates` gradient steps
    # after the start and after every reset (BBF); 0: they are never used.
    first_discount: float = 0.97
    first_td_steps: int = 10
    anneal_updates: int = 0
    target_tau: float = 1.0  # share of the new in the target network, per gradient step
    acts_by_target: bool = False
    reward_limit: float = 0.0  # rewards are clipped to [-limit, limit] when learned from; 0: not
    priority_exponent: float = 0.5  # alpha
    importance_exponent: float = 0.4  # beta at first
    final_importance_exponent: float = 1.0  # and after all gradient steps
    # Gradient steps from one reset to the next, as long as a whole period is left; 0: never.
    reset_period: int = 0
    reset_share: float = 0.2  # of new parameters in encoder and transition at a reset
    is_augmented: bool = False  # shifts and intensities of frames
    model: QNetworkConfig = QNetworkConfig()
    spr: SPRConfig = SPRConfig()

    @property
    def total_gradient_steps(self) -> int:
        """Of the whole training."""
        return self.num_updates * self.num_gradient_steps

    @property
    def num_resets(self) -> int:
        """In all; after the last one a whole period remains to recover in."""
        return (
            max(self.total_gradient_steps // self.reset_period - 1, 0) if self.reset_period else 0
        )

    @property
    def window(self) -> int:
        """Steps that a value target or a prediction reads."""
        longest = max(self.num_td_steps, self.first_td_steps if self.anneal_updates else 1)
        return 1 + max(longest, self.spr.num_steps if self.spr.weight else 1)

    def check(self) -> None:
        """Raise ValueError with got / expected / fix for an illegal configuration."""
        require_replay(self)
        self.check_learner()

    def check_learner(self) -> None:
        """`check` without what `loops.replay` alone asks of sizes."""
        require_positive(self, "learning_rate", "adam_epsilon")
        require_positive(self, "num_td_steps", "first_td_steps", "target_tau")
        require_at_least_zero(self, "weight_decay", "anneal_updates", "reset_period")
        require_at_least_zero(self, "reward_limit", "max_gradient_norm")
        require_fraction(self, "final_importance_exponent")
        require_fraction(self, "discount", "first_discount", "target_tau", "reset_share")
        require_fraction(self, "priority_exponent", "importance_exponent")
        self.model.check()
        self.spr.check()
        # A whole window has to be there at the first draw.
        _require(
            self.warmup_steps // self.num_envs >= self.window,
            "RainbowConfig.warmup_steps / num_envs", self.warmup_steps // self.num_envs,
            f"at least {self.window}, a window of num_td_steps or spr.num_steps", "raise it",
        )  # fmt: skip
        _require(
            self.capacity >= self.batch_size * self.num_td_steps, "RainbowConfig.capacity",
            self.capacity, f"at least {self.batch_size * self.num_td_steps}, a minibatch of "
            "n-step targets", "raise it",
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class TD3BCConfig:
    """TD3+BC (Fujimoto and Gu 2021) on stored transitions."""

    batch_size: int = 256
    num_updates: int = 20_000
    updates_per_chunk: int = 1000
    learning_rate: float = 3e-4
    discount: float = 0.99  # per env step
    tau: float = 0.005  # share of the new parameters in the slow copy, per move of it
    reward_scale: float = 1.0
    hidden_size: int = 256  # of the policy
    critic_hidden_size: int = 256
    alpha: float = 2.5  # weight of the value against cloning; 0: cloning
    policy_period: int = 2  # updates per move of the policy and of the slow copy
    noise_scale: float = 0.2  # of the slow policy's actions in (-1, 1)
    noise_clip: float = 0.5

    def check(self) -> None:
        """Raise ValueError with got / expected / fix for an illegal configuration."""
        _check_offline(self)
        require_positive(self, "policy_period")
        require_at_least_zero(self, "alpha", "noise_scale", "noise_clip")


@dataclasses.dataclass(frozen=True)
class IQLConfig:
    """Implicit Q-learning (Kostrikov et al. 2022) on stored transitions."""

    batch_size: int = 256
    num_updates: int = 20_000
    updates_per_chunk: int = 1000
    learning_rate: float = 3e-4
    discount: float = 0.99  # per env step
    tau: float = 0.005  # share of the new critics in the slow copy, per update
    reward_scale: float = 1.0
    hidden_size: int = 256  # of the policy
    critic_hidden_size: int = 256  # of the value, too
    expectile: float = 0.7  # tau of the paper; 0.5: the mean
    beta: float = 3.0  # inverse temperature, per reward; 0: cloning
    max_weight: float = 100.0  # of an action

    def check(self) -> None:
        """Raise ValueError with got / expected / fix for an illegal configuration."""
        _check_offline(self)
        require_at_least_zero(self, "beta")
        require_at_least(self, 1.0, "max_weight")
        require_fraction(self, "expectile")


def _check_offline(config: TD3BCConfig | IQLConfig) -> None:
    """What both offline agents ask for."""
    require_positive(config, "batch_size", "num_updates", "updates_per_chunk", "learning_rate")
    require_positive(config, "tau", "reward_scale", "hidden_size", "critic_hidden_size")
    require_fraction(config, "discount", "tau")
    name = type(config).__name__
    require_divides(f"{name}.batch_size", NUM_SHARDS, config.batch_size, "one part per shard")
    require_divides(
        f"{name}.num_updates", config.updates_per_chunk, config.num_updates, "chunks are whole"
    )


@dataclasses.dataclass(frozen=True)
class TokenConfig:
    """How scalars become tokens."""

    num_bins: int = 128
    obs_bins: Literal["uniform", "quantile", "mu_law"] = "mu_law"
    action_bins: Literal["uniform", "quantile", "mu_law"] = "uniform"
    mu: float = 100.0
    max_deviation: float = 10.0  # standard deviations that the bins may span
    granularity: Literal["component", "modality"] = "component"  # a token a scalar, or a vector
    values: Literal["bins", "two_hot", "reals"] = "bins"  # what a scalar is to the network

    def check(self) -> None:
        """Raise ValueError for an illegal configuration."""
        require_positive(self, "num_bins", "mu", "max_deviation")
        _require(
            self.num_bins >= 2, "TokenConfig.num_bins", self.num_bins, "at least 2", "raise it"
        )


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """The action-state transformer."""

    width: int = 64
    num_layers: int = 3
    num_heads: int = 4
    mlp_factor: int = 4
    context: int = 8  # transitions that a token may look back on
    attention: Literal["softmax", "linear"] = "softmax"
    positions: Literal["rotary", "learned", "none"] = "rotary"  # of time; learned ends at `context`
    dtype: Literal["float32", "bfloat16"] = "float32"  # of activations; parameters are float32

    def check(self) -> None:
        """Raise ValueError for an illegal configuration."""
        require_positive(self, "width", "num_layers", "num_heads", "mlp_factor", "context")
        require_divides(
            "TransformerConfig.width", 2 * self.num_heads, self.width, "rotary halves each head"
        )


@dataclasses.dataclass(frozen=True)
class FitConfig:
    """A supervised fit: windows, steps and AdamW."""

    num_updates: int = 1000
    updates_per_chunk: int = 100
    batch_size: int = 16  # windows per update (per domain where there are several)
    learning_rate: float = 1e-3
    warmup_updates: int = 50
    final_learning_rate: float = 0.1  # as a share of the peak, at the end of the cosine
    schedule: Literal["cosine", "inverse_sqrt"] = "cosine"  # after the warm-up
    weight_decay: float = 0.01
    max_gradient_norm: float = 1.0

    def check(self) -> None:
        """Raise ValueError for an illegal configuration."""
        require_positive(self, "num_updates", "updates_per_chunk", "batch_size", "learning_rate")
        require_positive(self, "max_gradient_norm")
        require_fraction(self, "final_learning_rate")
        require_at_least_zero(self, "warmup_updates", "weight_decay")
        name = type(self).__name__
        _require(
            self.warmup_updates < self.num_updates,
            f"{name}.warmup_updates",
            self.warmup_updates,
            f"fewer than num_updates = {self.num_updates}",
            "shorten the warm-up",
        )
        require_divides(f"{name}.batch_size", NUM_SHARDS, self.batch_size, "one part per shard")
        require_divides(
            f"{name}.num_updates", self.updates_per_chunk, self.num_updates, "chunks are whole"
        )


@dataclasses.dataclass(frozen=True)
class RuntimeConfig:
    """What does not belong to the method: devices, precision, saving."""

    devices: int = 1
    matmul_precision: Literal["default", "high", "highest"] = "highest"
    deterministic: bool = False  # accelerator flags for run-to-run equality; the CPU has it anyway
    chunks_per_save: int = 5
    optimization_level: int = 3  # of XLA's code; 1 compiles in two thirds of the time
    lanes_in_turn: bool = False  # seeds one after another, where an experiment has lanes; for CPUs

    def check(self) -> None:
        """Raise ValueError for an illegal configuration."""
        require_positive(self, "devices", "chunks_per_save")
        level = self.optimization_level
        name = "RuntimeConfig.optimization_level"
        _require(level in range(4), name, level, "0, 1, 2 or 3", "3 is XLA's default")
        _require(
            NUM_SHARDS % self.devices == 0,
            "RuntimeConfig.devices",
            self.devices,
            f"a divisor of the {NUM_SHARDS} data shards",
            "use 1, 2 or 4 devices per host",
        )


def to_dict(config: Any) -> dict[str, Any]:
    """Resolved configuration as JSON-safe nested dictionaries."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(template: Any, values: dict[str, Any]) -> Any:
    """Rebuild a configuration of the type of `template` from `to_dict`; refuses strangers."""
    known = {f.name for f in dataclasses.fields(template)}
    strangers = sorted(set(values) - known)
    _require(not strangers, type(template).__name__, strangers, f"fields {sorted(known)}", "rename")
    changes = {name: _restore(getattr(template, name), value) for name, value in values.items()}
    return dataclasses.replace(template, **changes)


def _restore(default: Any, value: Any) -> Any:
    if dataclasses.is_dataclass(default):
        return from_dict(default, value)
    if isinstance(default, tuple) and isinstance(value, list):
        items = [_restore(default[0], v) if default else v for v in value]
        return tuple(tuple(v) if isinstance(v, list) else v for v in items)
    return value


def fingerprint(config: Any) -> str:
    """First 16 hex digits of the SHA-256 of the canonical JSON."""
    text = json.dumps(to_dict(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
