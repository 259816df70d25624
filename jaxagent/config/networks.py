"""What networks are made of."""

import dataclasses
from typing import Annotated, Literal, NamedTuple

from jaxagent.config.checks import (
    Checked,
    require,
    require_at_least,
    require_at_least_zero,
    require_divides,
    require_fraction,
    require_positive,
)

# From the states of several tokens to one vector (`nn.readout`).
Pool = Literal["last", "mean", "concat", "attention"]


@dataclasses.dataclass(frozen=True)
class TrunkConfig(Checked):
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
        require(
            not (self.patch and self.channels),
            "TrunkConfig.patch",
            self.patch,
            "0 beside channels",
            "choose tokens or convolutions",
        )
        if self.patch:
            require_divides("TrunkConfig.width", self.num_heads, self.width, "heads are equal")


@dataclasses.dataclass(frozen=True)
class LatentConfig(Checked):
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
class QNetworkConfig(Checked):
    """A distributional Q-network on frames or boards `[H, W, C]`."""

    encoder: Literal["nature", "impala", "board"] = "board"
    width: int = 1  # multiple of the encoder's channels
    hidden_size: int = 256  # of each stream of the head
    is_shared: bool = False  # value and advantage read one hidden layer, as in BBF; or one each
    num_atoms: int = 51  # of the distribution of returns
    max_return: float = 10.0  # the atoms lie in [-max, max]
    noise: float = 0.5  # initial scale of the head's parameter noise; 0: no noise
    dropout: float = 0.0  # after every convolution of the online encoder
    # In which latents are made, and multiplied by what reads them, which goes on in float32 as do
    # parameters. Measured for its error alone, not for speed or scores: no preset has it.
    dtype: Literal["float32", "bfloat16"] = "float32"

    def check(self) -> None:
        """Raise ValueError with got / expected / fix for an illegal configuration."""
        require_positive(self, "width", "hidden_size", "max_return")
        require_at_least(self, 2, "num_atoms")
        require_at_least_zero(self, "noise")
        require_fraction(self, "dropout")
        require(self.dropout < 1.0, "QNetworkConfig.dropout", self.dropout, "below 1", "lower it")


@dataclasses.dataclass(frozen=True)
class TokenConfig(Checked):
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
        require(self.num_bins >= 2, "TokenConfig.num_bins", self.num_bins, "at least 2", "raise it")


class SingleTokens(NamedTuple):
    """What tokens must be where a model acts with them, as part of a field's type: a bin for each scalar."""

    def check(self, name: str, value: TokenConfig) -> None:
        """Raise ValueError for others, which would not be obeyed."""
        for part, expected in (("granularity", "component"), ("values", "bins")):
            fix = "its models act with single tokens, or say themselves what theirs are (--models.N)"
            require(getattr(value, part) == expected, f"{name}.{part}", getattr(value, part), expected, fix)


ScalarTokens = Annotated[TokenConfig, SingleTokens()]


@dataclasses.dataclass(frozen=True)
class TransformerConfig(Checked):
    """The action-state transformer."""

    width: int = 64
    num_layers: int = 3
    num_heads: int = 4
    mlp_factor: int = 4
    context: int = 8  # transitions that a token may look back on
    attention: Literal["softmax", "linear"] = "softmax"
    positions: Literal["rotary", "learned", "none"] = "rotary"  # of time; learned ends at `context`
    gate: Literal["sum", "gru"] = "sum"  # how a sublayer joins the stream: added, or by a gate (GTrXL)
    # Of an actor: side of the patches of a board that are a token each, or how many numbers of a
    # vector are; 0: every scalar is one.
    patch: int = 0
    dtype: Literal["float32", "bfloat16"] = "float32"  # of activations; parameters are float32

    def check(self) -> None:
        """Raise ValueError for an illegal configuration."""
        require_positive(self, "width", "num_layers", "num_heads", "mlp_factor", "context")
        require_at_least(self, 0, "patch")
        require_divides("TransformerConfig.width", 2 * self.num_heads, self.width, "rotary halves each head")


@dataclasses.dataclass(frozen=True)
class MemoryConfig(Checked):
    """What an agent remembers of its episode."""

    kind: Literal["none", "stack", "gru", "lru"] = "gru"
    width: int = 64
    num_layers: int = 1  # of linear recurrences; a GRU is one
    context: int = 8  # inputs that a stack holds
    # Whether it also hears the action before. That is a memory by itself: an agent without any other
    # can hand a symbol on from step to step by acting it out.
    last_action: bool = True

    def check(self) -> None:
        """Raise ValueError for an illegal configuration."""
        require_positive(self, "width", "num_layers")
        require_at_least(self, 1, "context")
