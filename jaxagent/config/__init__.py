"""Configurations of the parts: frozen dataclasses with legal defaults, importable without JAX.

Every experiment composes these; `check` is called once, at the edge, before JAX starts.
"""

from jaxagent.config.agents import (
    AlphaZeroConfig,
    IQLConfig,
    MuZeroConfig,
    PPOConfig,
    RainbowConfig,
    SACConfig,
    SearchConfig,
    SPRConfig,
    TD3BCConfig,
)
from jaxagent.config.checks import (
    NUM_SHARDS,
    Bound,
    Count,
    Positive,
    Share,
    check,
    require,
    require_at_least,
    require_at_least_zero,
    require_at_most,
    require_divides,
    require_equal,
    require_fits_memory,
    require_fraction,
    require_on_policy,
    require_positive,
    require_replay,
)
from jaxagent.config.networks import LatentConfig, QNetworkConfig, TokenConfig, TransformerConfig, TrunkConfig
from jaxagent.config.record import fingerprint, from_dict, to_dict
from jaxagent.config.runs import FitConfig, RuntimeConfig

__all__ = [
    "NUM_SHARDS",
    "AlphaZeroConfig",
    "Bound",
    "Count",
    "FitConfig",
    "IQLConfig",
    "LatentConfig",
    "MuZeroConfig",
    "PPOConfig",
    "Positive",
    "QNetworkConfig",
    "RainbowConfig",
    "RuntimeConfig",
    "SACConfig",
    "SPRConfig",
    "SearchConfig",
    "Share",
    "TD3BCConfig",
    "TokenConfig",
    "TransformerConfig",
    "TrunkConfig",
    "check",
    "fingerprint",
    "from_dict",
    "require",
    "require_at_least",
    "require_at_least_zero",
    "require_at_most",
    "require_divides",
    "require_equal",
    "require_fits_memory",
    "require_fraction",
    "require_on_policy",
    "require_positive",
    "require_replay",
    "to_dict",
]
