"""Reading the heads of a latent model: policies, and numbers as weights of bins."""

from typing import Any

import jax

from jaxagent.config import LatentConfig
from jaxagent.nn.latent_model import LatentModel
from jaxagent.objectives.sequence import expected_unit, scalar_loss
from jaxagent.objectives.value import squash, unsquash


def evaluate(
    model: LatentModel, config: LatentConfig, params: Any, obs: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Policy logits `[B, A]` and values `[B]` of observations `[B, ...]`."""
    return read(model, config, params, model.encode(params, obs))


def read(
    model: LatentModel, config: LatentConfig, params: Any, latent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Policy logits `[B, A]` and values `[B]` of latents `[B, ...]`."""
    logits, value = model.judge(params, latent)
    return logits, to_scalar(config, value)


def to_scalar(config: LatentConfig, logits: jax.Array) -> jax.Array:
    """The number `[...]` that logits `[..., V]` stand for (MuZero, appendix F)."""
    return unsquash(config.reach * expected_unit(logits, "two_hot"))


def categorical_loss(config: LatentConfig, logits: jax.Array, target: jax.Array) -> jax.Array:
    """Cross-entropy `[...]` of logits `[..., V]` with numbers `[...]` as two bins (MuZero, appendix F)."""
    return scalar_loss(logits, squash(target) / config.reach, "two_hot")
