"""Self-prediction of latents (SPR, Schwarzer et al. 2021), for any network that has the parts.

The parts `encode` observations to latents, `step` a latent by an action, `project` a latent to the
vector in which it is compared, and `predict` the projection of what comes. The side that is
predicted never sees the actions in between, or copying them would be rewarded.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxagent.nn.latent_model import LatentModel
from jaxagent.nn.q_network import QNetwork
from jaxagent.nn.short_scan import short_scan
from jaxagent.objectives.latent import cosine_distance


class Parts(NamedTuple):
    """What a self-predictive network has; b is a batch of any size. `QNetwork` has them too."""

    encode: Callable  # (params, obs [b, ...]) -> latents [b, ...]
    step: Callable  # (params, latents, actions [b]) -> next latents
    project: Callable  # (params, latents) -> vectors [b, P], or one a token, [b, m, P]
    predict: Callable  # (params, vectors) -> vectors


def latent_parts(model: LatentModel) -> Parts:
    """The parts of MuZero's model: its transition without the reward."""

    def step(params: Any, latent: jax.Array, action: jax.Array) -> jax.Array:
        return model.step(params, latent, action)[0]

    return Parts(model.encode, step, model.project, model.predict)


def predictions(
    parts: Parts | QNetwork, params: Any, latent: jax.Array, action: jax.Array
) -> jax.Array:
    """Predicted projections `[K, b, ...]` of what follows latents under `action [K, b]`."""

    def step(latent: jax.Array, action: jax.Array) -> tuple[jax.Array, jax.Array]:
        latent = parts.step(params, latent, action)
        return latent, latent

    latents = short_scan(step, latent, action)[1]
    flat = latents.reshape(-1, *latents.shape[2:])
    found = parts.predict(params, parts.project(params, flat))
    return found.reshape(*latents.shape[:2], *found.shape[1:])


def projections(
    parts: Parts | QNetwork, params: Any, obs: jax.Array, *, has_gradient: bool = False
) -> jax.Array:
    """Projections `[K, b, ...]` of observations `[K, b, ...]`, each encoded by itself.

    `has_gradient` is for the mutant whose target learns too: it collapses.
    """
    flat = obs.reshape(-1, *obs.shape[2:])
    found = parts.project(params, parts.encode(params, flat))
    found = found.reshape(*obs.shape[:2], *found.shape[1:])
    return found if has_gradient else jax.lax.stop_gradient(found)


def prediction_loss(
    parts: Parts | QNetwork, params: Any, latent: jax.Array, action: jax.Array, later: jax.Array,
    is_same: jax.Array,
) -> jax.Array:  # fmt: skip
    """Mean `[b]` over K steps of `2 - 2 cos`, 0 where `is_same [K, b]` is not (SPR, eq. 6).

    `later [K, b, ...]` are `projections` of what came. The divisor stays K whatever is masked, as
    in mila-iqia/spr.
    """
    distance = 2.0 * distances(predictions(parts, params, latent, action), later)
    return jnp.mean(jnp.where(is_same, distance, 0.0), axis=0)


def distances(predicted: jax.Array, later: jax.Array) -> jax.Array:
    """`1 - cos` `[K, b]` of projections `[K, b, P]`, or its mean over those of m tokens."""
    distance = cosine_distance(predicted, later)
    return jnp.mean(distance.reshape(*distance.shape[:2], -1), axis=-1)


def same_episode(done: jax.Array) -> jax.Array:
    """Whether the state after each of K steps, `done [K, b]`, is of the first one's episode."""
    return jnp.cumprod(~done, axis=0, dtype=jnp.int32) > 0
