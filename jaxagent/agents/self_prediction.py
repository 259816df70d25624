"""Self-prediction of latents (SPR, Schwarzer et al. 2021), for any network that has the parts.

The parts `encode` observations to latents, `step` a latent by an action, `project` a latent to the
vector in which it is compared, and `predict` the projection of what comes. The side that is
predicted never sees the actions in between, or copying them would be rewarded.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxagent.config import SPRConfig
from jaxagent.nn.latent_model import LatentModel
from jaxagent.nn.q_network import QNetwork
from jaxagent.nn.short_scan import short_scan
from jaxagent.objectives.latent import cosine_distance
from jaxagent.types import Agent, Trajectory, steps_of


class Parts(NamedTuple):
    """The four functions of a self-predictive network; b is a batch of any size. `QNetwork` has them too."""

    encode: Callable  # (params, obs [b, ...]) -> latents [b, ...]
    step: Callable  # (params, latents, actions [b]) -> next latents
    project: Callable  # (params, latents) -> vectors [b, P], or one a token, [b, m, P]
    predict: Callable  # (params, vectors) -> vectors


def latent_parts(model: LatentModel) -> Parts:
    """The parts of MuZero's model: its transition without the reward."""

    def step(params: Any, latent: jax.Array, action: jax.Array) -> jax.Array:
        return model.step(params, latent, action)[0]

    return Parts(model.encode, step, model.project, model.predict)


def predictions(parts: Parts | QNetwork, params: Any, latent: jax.Array, action: jax.Array) -> jax.Array:
    """Predicted projections `[K, b, ...]` of what follows latents `[b, ...]` under `action [K, b]`."""

    def step(latent: jax.Array, action: jax.Array) -> tuple[jax.Array, jax.Array]:
        latent = parts.step(params, latent, action)
        return latent, latent

    latents = short_scan(step, latent, action)[1]
    flat = latents.reshape(-1, *latents.shape[2:])
    vectors = parts.predict(params, parts.project(params, flat))
    return vectors.reshape(*latents.shape[:2], *vectors.shape[1:])


def projections(
    parts: Parts | QNetwork, params: Any, obs: jax.Array, *, has_gradient: bool = False
) -> jax.Array:
    """Projections `[K, b, ...]` of observations `[K, b, ...]`, each encoded by itself.

    `has_gradient` is for the mutant whose target learns too: it collapses.
    """
    flat = obs.reshape(-1, *obs.shape[2:])
    vectors = parts.project(params, parts.encode(params, flat))
    vectors = vectors.reshape(*obs.shape[:2], *vectors.shape[1:])
    return vectors if has_gradient else jax.lax.stop_gradient(vectors)


def prediction_loss(
    parts: Parts | QNetwork,
    params: Any,
    latent: jax.Array,
    action: jax.Array,
    later: jax.Array,
    is_same: jax.Array,
) -> jax.Array:
    """Mean `[b]` over K steps of `2 - 2 cos`, 0 where `is_same [K, b]` is not (SPR, eq. 6).

    `latent [b, ...]` and `action [K, b]` predict `later [K, b, ...]`, `projections` of what came. The
    divisor stays K whatever is masked, as in mila-iqia/spr.
    """
    distance = 2.0 * distances(predictions(parts, params, latent, action), later)
    return jnp.mean(jnp.where(is_same, distance, 0.0), axis=0)


class Predicted(NamedTuple):
    """A batch of another agent, and what followed its observations, of any leading axes."""

    batch: Any  # of the other agent
    obs: jax.Array  # [..., *obs_shape]
    action: jax.Array  # [..., K] int32: those from `obs` on
    later: jax.Array  # [..., K, P] projections of what followed
    is_same: jax.Array  # [..., K] bool: it followed in the same episode, and in the rollout


def with_self_prediction(agent: Agent, parts: Parts | QNetwork, config: SPRConfig) -> Agent:
    """`agent` with the self-predictive loss beside its own, for `loops.on_policy` (PPO and others).

    Its parameters must be those of `parts`. The target is the network that collected the rollout,
    which is a slow copy of its own.

    Raises ValueError for another target (`tau` below 1), and where K is longer than a rollout.
    """
    if config.tau != 1.0:
        raise ValueError(
            f"SPRConfig.tau: got {config.tau} for an on-policy agent, expected 1.0: its target is "
            "the network that collected the rollout; use Rainbow for a moving average."
        )

    if jax.tree.leaves(jax.eval_shape(lambda: agent.init_carry(1))):
        raise ValueError("self-prediction: got an agent with a memory, expected one that reads states alone.")

    def targets(params: Any, carry: Any, trajectory: Trajectory, average: Callable) -> Predicted:
        t, count = trajectory, config.num_steps
        shape = t.reward.shape  # [s, T, b]
        if count > shape[1]:
            raise ValueError(
                f"SPRConfig.num_steps: got {count}, expected at most the {shape[1]} steps of a "
                "rollout; lower it, or raise num_steps of the agent."
            )
        flat = t.final_obs.reshape(1, -1, *t.final_obs.shape[3:])
        vectors = projections(parts, params, flat)
        vectors = vectors.reshape(*shape, *vectors.shape[2:])
        goes_on = ~(t.terminated | t.truncated)
        # What leads out of the rollout is unknown: as if the episode ended there.
        same = jnp.cumprod(ahead(goes_on, count), axis=3, dtype=jnp.int32) > 0
        action, later = ahead(t.action, count), ahead(vectors, count)
        own = jax.tree.map(steps_of, (t.obs, action, later, same))
        return Predicted(agent.targets(params, carry, t, average), *own)

    def loss(params: Any, predicted: Predicted) -> tuple[jax.Array, dict[str, jax.Array]]:
        total, metrics = agent.loss(params, predicted.batch)
        latent = parts.encode(params, predicted.obs)
        first = (jnp.moveaxis(x, 1, 0) for x in predicted[2:])  # K before the batch
        distance = jnp.mean(prediction_loss(parts, params, latent, *first))
        return total + config.weight * distance, metrics | {"train/loss/spr": distance}

    return agent._replace(targets=targets, loss=loss)


def ahead(values: jax.Array, count: int) -> jax.Array:
    """Of values `[s, T, b, ...]` the `count` from each time on, `[s, T, b, count, ...]`; 0 after the last."""
    pad = ((0, 0), (0, count - 1), *((0, 0),) * (values.ndim - 2))
    padded, length = jnp.pad(values, pad), values.shape[1]
    return jnp.stack([padded[:, k : k + length] for k in range(count)], axis=3)


def distances(predicted: jax.Array, later: jax.Array) -> jax.Array:
    """`1 - cos` `[K, b]` of projections `[K, b, P]`, or its mean over m tokens, `[K, b, m, P]`."""
    distance = cosine_distance(predicted, later)
    return jnp.mean(distance.reshape(*distance.shape[:2], -1), axis=-1)


def same_episode(done: jax.Array) -> jax.Array:
    """Whether the state after each of K steps is of the first one's episode: bool `[K, b]` of `done`."""
    return jnp.cumprod(~done, axis=0, dtype=jnp.int32) > 0
