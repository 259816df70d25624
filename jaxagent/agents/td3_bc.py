"""TD3+BC: offline, continuous actions, on vectors of features."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs.types import Component
from jaxagent.agents.actions import from_env_action, require_reals, to_env_action
from jaxagent.agents.soft_actor_critic import NUM_CRITICS, Step, values
from jaxagent.config import IQLConfig, TD3BCConfig
from jaxagent.nn.mlp import MLP
from jaxagent.objectives.policy import value_weight
from jaxagent.objectives.value import squared_errors, td_target
from jaxagent.types import OfflineAgent, Policy, Trajectory

Encoder = Callable[[Any, jax.Array], jax.Array]  # (encoder params, obs [..., n]) -> features


class TD3BCParams(NamedTuple):
    """Parameters of the actor, the twin critics and the encoder."""

    actor: Any
    critics: Any  # leaves [2, ...]
    encoder: Any  # of the observations; () where they are the features


class TD3BCBatch(NamedTuple):
    """A minibatch for the TD3+BC loss."""

    obs: jax.Array  # [b, ...] as the encoder reads them
    action: jax.Array  # [b, A] in [-1, 1]
    target: jax.Array  # [b] of both critics


def as_is(params: Any, obs: jax.Array) -> jax.Array:
    """Observations `[..., n]` are the features: the encoder without parameters."""
    del params
    return obs


def td3_bc(
    feature_size: int,
    action_spec: tuple[Component, ...],
    config: TD3BCConfig,
    *,
    encoder: Encoder = as_is,
    is_frozen: bool = True,
) -> OfflineAgent:
    """TD3+BC (Fujimoto and Gu 2021, eq. 3 and 5; TD3 of Fujimoto et al. 2018, algorithm 1).

    Actor and critics read `encoder(params.encoder, obs)`, vectors of `feature_size`. The encoder
    stays as it was given (`is_frozen`; then features computed once and `as_is` are cheaper) or
    learns from the critics' loss, never from the actor's, and has a slow copy too. `loss` is the
    sum of two losses, each blind to the parameters of the other. The actor is to move at every
    `policy_period`-th update, and the slow copy with it: `periods` and `target_period` tell the
    loop. The cloning term is the mean over components, as in the authors' code; eq. 3 has the sum.
    Raises ValueError for actions that are no reals.

    Differs: the policy is fitted to the critics of before the update, as in our SAC, not of after
    it. Lambda averages the part of the minibatch that `loss` is given, one shard's. Layers start
    orthogonal, the actor's last one small. Who standardises the observations adds 1e-8 to the
    variance, not 1e-3 to the deviation, and clips at 10 (`data/normalize.py`).
    """
    require_reals("TD3+BC", action_spec)
    action_size = len(action_spec)
    actor, critic = actor_of(action_size, config), critic_of(config)

    def init(key: jax.Array, encoder_params: Any = ()) -> TD3BCParams:
        key_actor, key_critics = jax.random.split(key)
        return TD3BCParams(
            actor=actor.init(key_actor, jnp.zeros((1, feature_size))),
            critics=init_critics(critic, key_critics, feature_size + action_size),
            encoder=encoder_params,
        )

    def slow(params: TD3BCParams) -> TD3BCParams:
        return params._replace(encoder=() if is_frozen else params.encoder)

    def targets(params: TD3BCParams, target: TD3BCParams, steps: Step, key: jax.Array) -> TD3BCBatch:
        features = encoder(params.encoder if is_frozen else target.encoder, steps.final_obs)
        noise = config.noise_scale * jax.random.normal(key, steps.action.shape)
        action = jnp.tanh(actor.apply(target.actor, features))
        action = smoothed(action, noise, clip=config.noise_clip)
        next_value = jnp.min(values(critic, target.critics, features, action), axis=0)
        reward = config.reward_scale * steps.reward
        target_value = td_target(reward, steps.terminated, next_value, discount=config.discount)
        return TD3BCBatch(steps.obs, steps.action, target_value)

    def loss(params: TD3BCParams, batch: TD3BCBatch) -> tuple[jax.Array, dict[str, jax.Array]]:
        features = encoder(params.encoder, batch.obs)
        fixed = jax.lax.stop_gradient(features)
        value = values(critic, params.critics, fixed if is_frozen else features, batch.action)
        critic_loss = jnp.mean(squared_errors(value, batch.target))
        action = jnp.tanh(actor.apply(params.actor, fixed))
        own_value = values(critic, jax.lax.stop_gradient(params.critics), fixed, action)[0]
        weight = value_weight(own_value, alpha=config.alpha)
        cloning = jnp.mean(jnp.square(action - batch.action))
        actor_loss = cloning - weight * jnp.mean(own_value)
        return critic_loss + actor_loss, {
            "train/loss/critic": critic_loss,
            "train/loss/actor": actor_loss,
            "train/cloning": cloning,
            "train/value": jnp.mean(own_value),
            "train/value_weight": weight,
        }

    return OfflineAgent(
        init=init,
        targets=targets,
        loss=loss,
        slow=slow,
        periods=TD3BCParams(config.policy_period, 1, int(not is_frozen)),
        target_period=config.policy_period,
        policy=greedy(actor, encoder, action_spec),
    )


def smoothed(action: jax.Array, noise: jax.Array, *, clip: float) -> jax.Array:
    """Actions `[..., A]` with `noise` of their shape within `clip`, in [-1, 1] (TD3's algorithm 1)."""
    return jnp.clip(action + jnp.clip(noise, -clip, clip), -1.0, 1.0)


def greedy(actor: MLP, encoder: Encoder, action_spec: tuple[Component, ...]) -> Policy:
    """A policy by the tanh of the actor's output, in the environment's units; obs `[B, n]` are normalised."""

    def act(params, carry, obs, is_first, key):
        del is_first, key
        action = jnp.tanh(actor.apply(params.actor, encoder(params.encoder, obs)))
        return to_env_action(action, action_spec), (), carry

    return Policy(lambda batch_size: (), act)


def as_steps(trajectory: Trajectory, action_spec: tuple[Component, ...]) -> Step:
    """Transitions of stored trajectories `[T, B, ...]`, with their leading axes.

    A truncated step is like any other: its target bootstraps from its true `final_obs`.
    """
    t = trajectory
    return Step(t.obs, from_env_action(t.action, action_spec), t.reward, t.terminated, t.final_obs)


def actor_of(action_size: int, config: TD3BCConfig | IQLConfig) -> MLP:
    """The network from features `[..., n]` to actions `[..., A]` before their tanh."""
    sizes = (config.hidden_size, config.hidden_size, action_size)
    return MLP(sizes, activation=jax.nn.relu, output_scale=0.01)


def critic_of(config: TD3BCConfig | IQLConfig) -> MLP:
    """The network from features, with or without an action, `[..., n]` to a value `[..., 1]`."""
    return MLP((*(config.critic_hidden_size,) * 2, 1), activation=jax.nn.relu)


def init_critics(critic: MLP, key: jax.Array, input_size: int) -> Any:
    """Parameters of the twin critics, leaves `[2, ...]`."""
    critic_keys = jax.random.split(key, NUM_CRITICS)
    return jax.vmap(critic.init, in_axes=(0, None))(critic_keys, jnp.zeros((1, input_size)))
