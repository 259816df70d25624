"""How agents learn."""

import dataclasses
from typing import Literal

from jaxagent.config.checks import (
    NUM_SHARDS,
    Checked,
    require,
    require_at_least,
    require_at_least_zero,
    require_divides,
    require_fraction,
    require_on_policy,
    require_positive,
    require_replay,
    require_whole_lanes,
)
from jaxagent.config.networks import LatentConfig, QNetworkConfig, TrunkConfig


class Acting(Checked):
    """Env steps of a configuration that acts `num_steps` in each of `num_envs` lanes an update."""

    num_envs: int
    num_steps: int
    num_updates: int
    updates_per_chunk: int
    warmup_steps: int = 0  # before the first update

    @property
    def env_steps_per_update(self) -> int:
        """Of all lanes."""
        return self.num_envs * self.num_steps

    @property
    def env_steps_per_chunk(self) -> int:
        """Between two snapshots."""
        return self.updates_per_chunk * self.env_steps_per_update

    @property
    def env_steps(self) -> int:
        """Of the whole training, the warm-up included."""
        return self.warmup_steps + self.num_updates * self.env_steps_per_update

    @property
    def num_chunks(self) -> int:
        """Chunks of the whole training."""
        return self.num_updates // self.updates_per_chunk


@dataclasses.dataclass(frozen=True)
class PPOConfig(Acting):
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
    anchor_weight: float = 0.0  # of the divergence from the policy that training begins with (VPT)
    anchor_decay: float = 1.0  # factor of that weight from one update to the next

    @property
    def num_gradient_steps(self) -> int:
        """Per update."""
        return self.num_epochs * self.num_minibatches

    def check(self) -> None:
        """Raise ValueError with got / expected / fix for an illegal configuration."""
        require_positive(self, "num_envs", "num_steps", "num_epochs", "num_minibatches", "num_updates")
        require_positive(self, "updates_per_chunk", "learning_rate", "hidden_size", "clip")
        require_at_least_zero(self, "value_clip", "entropy_weight", "value_weight", "anchor_weight")
        require_positive(self, "max_gradient_norm", "reward_scale")
        require_fraction(self, "discount", "trace", "final_learning_rate", "anchor_decay")
        require_on_policy(self)


@dataclasses.dataclass(frozen=True)
class PQNConfig(Acting):
    """Parallelised Q-network (Gallici et al. 2024) on one environment."""

    num_envs: int = 32
    num_steps: int = 64  # env steps per lane and update
    num_epochs: int = 4
    num_minibatches: int = 8
    num_updates: int = 120
    updates_per_chunk: int = 6
    learning_rate: float = 1e-3
    final_learning_rate: float = 0.0  # as a share of the first, reached linearly
    discount: float = 0.99  # per env step
    trace: float = 0.95  # lambda of Q(lambda); 0: Q-learning
    epsilon: float = 1.0  # share of actions that are drawn uniformly, at first
    final_epsilon: float = 0.05  # and after the decay, which is linear
    epsilon_decay: float = 0.2  # share of all env steps that the decay takes
    max_gradient_norm: float = 10.0
    reward_scale: float = 1.0
    hidden_size: int = 64

    @property
    def decay_steps(self) -> float:
        """Env steps of a lane that the decay of epsilon takes."""
        return self.epsilon_decay * self.num_updates * self.num_steps

    @property
    def num_gradient_steps(self) -> int:
        """Per update."""
        return self.num_epochs * self.num_minibatches

    def check(self) -> None:
        """Raise ValueError with got / expected / fix for an illegal configuration."""
        require_positive(self, "num_envs", "num_steps", "num_epochs", "num_minibatches", "num_updates")
        require_positive(self, "updates_per_chunk", "learning_rate", "hidden_size", "epsilon_decay")
        require_positive(self, "max_gradient_norm", "reward_scale")
        require_fraction(self, "discount", "trace", "final_learning_rate")
        require_fraction(self, "epsilon", "final_epsilon", "epsilon_decay")
        require_on_policy(self)


@dataclasses.dataclass(frozen=True)
class SearchConfig(Checked):
    """Search with a model at every move."""

    num_simulations: int = 32
    num_considered: int = 16  # root actions that sequential halving begins with
    max_depth: int = 0  # edges from the root; 0: no limit
    # Difference of values that Gumbel's search weighs in full; 0: that of a node's best and worst move,
    # whatever it is, as in mctx.
    value_range: float = 0.0

    def check(self) -> None:
        """Raise ValueError with got / expected / fix for an illegal configuration."""
        require_positive(self, "num_simulations", "num_considered")
        require_at_least_zero(self, "max_depth", "value_range")


@dataclasses.dataclass(frozen=True)
class AlphaZeroConfig(Acting):
    """Policy iteration by search with the true environment (Silver et al. 2018)."""

    num_envs: int = 64
    num_steps: int = 16  # env steps per lane and update
    num_gradient_steps: int = 8  # per update
    batch_size: int = 256  # positions
    capacity: int = 16_384  # positions that the replay holds
    warmup_steps: int = 4096  # positions of random play before the first update
    num_updates: int = 60
    updates_per_chunk: int = 6
    learning_rate: float = 2e-3
    final_learning_rate: float = 0.1  # as a share of the first, reached linearly
    discount: float = 1.0  # per env step
    trace: float = 1.0  # 1: the outcome of the game, as in the paper; 0: the next search's value
    value_weight: float = 1.0
    exploration: float = 0.5  # share of a game's first moves that are drawn uniformly
    num_explored: int = 4  # first moves of a game; later ones are the search's
    max_gradient_norm: float = 1.0
    search: SearchConfig = SearchConfig(value_range=1.0)  # of results in [-1, 1]

    def check(self) -> None:
        """Raise ValueError with got / expected / fix for an illegal configuration."""
        require_positive(self, "learning_rate", "max_gradient_norm")
        require_at_least(self, 2, "num_steps")  # the last one has no value to learn
        require_at_least_zero(self, "value_weight", "num_explored")
        require_fraction(self, "discount", "trace", "final_learning_rate", "exploration")
        self.search.check()
        require_replay(self)


@dataclasses.dataclass(frozen=True)
class SelfPlayConfig(AlphaZeroConfig):
    """AlphaZero by name: how it learns, and its network."""

    trunk: TrunkConfig = TrunkConfig()


OnPolicyConfig = PPOConfig | PQNConfig


@dataclasses.dataclass(frozen=True)
class SACConfig(Acting):
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
class MuZeroConfig(Acting):
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
        require(
            self.reanalyse == 0.0 or round(self.reanalyse * shard) > 0,
            "MuZeroConfig.reanalyse",
            self.reanalyse,
            f"0 or a share that is a window of {shard}, the part of a shard",
            "raise it",
        )
        # Every window and its bootstrap lie within what the warm-up wrote.
        require(
            self.warmup_steps // self.num_envs > self.unroll + self.num_td_steps,
            "MuZeroConfig.warmup_steps / num_envs",
            self.warmup_steps // self.num_envs,
            "more than unroll + num_td_steps, a window",
            "raise it",
        )


@dataclasses.dataclass(frozen=True)
class SPRConfig(Checked):
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
class SequencePlannerConfig(Checked):
    """The transformer that predicts itself, searches in what it predicts and learns from reward."""

    ppo: PPOConfig = PPOConfig()  # rollouts, targets of the value, optimiser; and the policy's, see `targets`
    spr: SPRConfig = SPRConfig(num_steps=3, weight=1.0)  # steps predicted of all; weight 0: not of states
    model_weight: float = 1.0  # of the losses of predicted rewards, values and policies
    targets: Literal["ppo", "improvement", "both"] = "improvement"  # of the policy: PPO's, what search found
    acts_by: Literal["policy", "search"] = "search"  # in training
    search: SearchConfig = SearchConfig(num_simulations=8, value_range=1.0)
    num_samples: int = 8  # actions of the policy's own to search among, where they are not one category
    projection_size: int = 64  # in which predicted states are compared

    @property
    def has_surrogate(self) -> bool:
        """Whether PPO teaches the policy."""
        return self.targets != "improvement"

    @property
    def searches(self) -> bool:
        """Whether it searches in training."""
        return self.targets != "ppo"

    def check(self) -> None:
        """Raise ValueError with got / expected / fix for an illegal configuration."""
        for part in (self.ppo, self.spr, self.search):
            part.check()
        require_whole_lanes(self.ppo)
        require_positive(self, "num_samples", "projection_size")
        require_at_least_zero(self, "model_weight")
        name = "SequencePlannerConfig"
        fix = "the probability of what a search chooses is not known; act by the policy, or learn from search"
        is_told = not self.has_surrogate or self.acts_by == "policy"
        require(is_told, f"{name}.acts_by", self.acts_by, "policy where targets are PPO's", fix)
        fix = "of states, only what the network makes of them now is predicted"
        require(self.spr.tau == 1.0, f"{name}.spr.tau", self.spr.tau, "1", fix)
        anchor = self.ppo.anchor_weight
        require(not anchor, f"{name}.ppo.anchor_weight", anchor, "0", "use PPO for it")


@dataclasses.dataclass(frozen=True)
class RainbowConfig(Acting):
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
        return max(self.total_gradient_steps // self.reset_period - 1, 0) if self.reset_period else 0

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
        require(
            self.warmup_steps // self.num_envs >= self.window,
            "RainbowConfig.warmup_steps / num_envs",
            self.warmup_steps // self.num_envs,
            f"at least {self.window}, a window of num_td_steps or spr.num_steps",
            "raise it",
        )
        require(
            self.capacity >= self.batch_size * self.num_td_steps,
            "RainbowConfig.capacity",
            self.capacity,
            f"at least {self.batch_size * self.num_td_steps}, a minibatch of n-step targets",
            "raise it",
        )


ReplayConfig = SACConfig | MuZeroConfig | RainbowConfig | AlphaZeroConfig


@dataclasses.dataclass(frozen=True)
class TD3BCConfig(Checked):
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
class IQLConfig(Checked):
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
    require_divides(f"{name}.num_updates", config.updates_per_chunk, config.num_updates, "chunks are whole")
