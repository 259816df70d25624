"""Soft actor-critic: off-policy, continuous actions, on vectors of observations."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs.types import Component
from jaxagent.agents.actions import require_reals, to_env_action
from jaxagent.config import SACConfig
from jaxagent.nn import stem
from jaxagent.nn.distributions import TanhGaussian
from jaxagent.nn.mlp import MLP
from jaxagent.objectives.value import td_target
from jaxagent.types import Agent, Policy

LOG_STD_RANGE = (-5.0, 2.0)
NUM_CRITICS = 2


class SACParams(NamedTuple):
    """Parameters of the actor, the twin critics and the temperature."""

    actor: Any
    critics: Any  # leaves [2, ...]
    log_temperature: jax.Array  # []


class Step(NamedTuple):
    """Env steps as the replay keeps them."""

    obs: jax.Array  # [..., n]
    action: jax.Array  # [..., A] in (-1, 1), whatever the environment's box
    reward: jax.Array  # [...]
    terminated: jax.Array  # [...] bool
    final_obs: jax.Array  # [..., n]


class SACBatch(NamedTuple):
    """A minibatch for the SAC loss."""

    obs: jax.Array  # [b, n]
    action: jax.Array  # [b, A] in (-1, 1)
    target: jax.Array  # [b] of both critics
    noise: jax.Array  # [b, A] standard normal, for the policy's own actions


def soft_actor_critic(
    obs_spec: tuple[Component, ...], action_spec: tuple[Component, ...], config: SACConfig
) -> Agent:
    """SAC (Haarnoja et al. 2018b, algorithm 1) with two critics and a learned temperature.

    `targets(params, target_critics, steps, key)` makes a minibatch of replayed `Step`s; `loss` is
    the sum of the three losses, each blind to the parameters of the others, so that one Adam
    does what three would. Raises ValueError for actions that are no reals, or
    observations with categories.

    Differs: the policy and the temperature are fitted with the critics of before the update, as in
    Brax, not of after it.
    """
    require_reals("SAC", action_spec)
    if symbols := [c.name for c in obs_spec if c.cardinality > stem.BIT]:
        raise ValueError(
            f"SAC: got observations with categories {symbols}, expected reals and bits; use PPO."
        )
    obs_size = len(obs_spec)
    action_size = len(action_spec)
    actor = _actor(action_size, config)
    critic = MLP((*(config.critic_hidden_size,) * 2, 1), activation=jax.nn.relu)
    target_entropy = config.entropy_per_action * action_size

    def init(key: jax.Array) -> SACParams:
        key_actor, key_critics = jax.random.split(key)
        joint = jnp.zeros((1, obs_size + action_size))
        critic_keys = jax.random.split(key_critics, NUM_CRITICS)
        return SACParams(
            actor=actor.init(key_actor, jnp.zeros((1, obs_size))),
            critics=jax.vmap(critic.init, in_axes=(0, None))(critic_keys, joint),
            log_temperature=jnp.full((), math.log(config.initial_temperature), jnp.float32),
        )

    def smallest_value(critics: Any, obs: jax.Array, action: jax.Array) -> jax.Array:
        return jnp.min(values(critic, critics, obs, action), axis=0)

    def act(params: SACParams, carry, obs, is_first, key):
        del is_first
        stem.require_vectors(obs_size, obs)
        noise = jax.random.normal(key, (*obs.shape[:-1], action_size))
        action = jnp.tanh(policy_of(actor, params.actor, obs).from_noise(noise))
        return to_env_action(action, action_spec), {"action": action}, carry

    def targets(params: SACParams, target_critics: Any, steps: Step, key: jax.Array) -> SACBatch:
        key_next, key_own = jax.random.split(key)
        dist = policy_of(actor, params.actor, steps.final_obs)
        event = dist.from_noise(jax.random.normal(key_next, steps.action.shape))
        next_value = smallest_value(target_critics, steps.final_obs, jnp.tanh(event))
        soft_value = next_value - jnp.exp(params.log_temperature) * dist.log_prob(event)
        reward = config.reward_scale * steps.reward
        target = td_target(reward, steps.terminated, soft_value, discount=config.discount)
        noise = jax.random.normal(key_own, steps.action.shape)
        return SACBatch(steps.obs, steps.action, target, noise)

    def loss(params: SACParams, batch: SACBatch) -> tuple[jax.Array, dict[str, jax.Array]]:
        frozen = jax.lax.stop_gradient(params)
        error = values(critic, params.critics, batch.obs, batch.action) - batch.target[None]
        critic_loss = 0.5 * jnp.mean(jnp.sum(jnp.square(error), axis=0))
        dist = policy_of(actor, params.actor, batch.obs)
        event = dist.from_noise(batch.noise)
        log_prob = dist.log_prob(event)
        value = smallest_value(frozen.critics, batch.obs, jnp.tanh(event))
        temperature = jnp.exp(frozen.log_temperature)
        actor_loss = jnp.mean(temperature * log_prob - value)
        surplus = jax.lax.stop_gradient(-log_prob - target_entropy)
        temperature_loss = jnp.mean(jnp.exp(params.log_temperature) * surplus)
        return critic_loss + actor_loss + temperature_loss, {
            "train/loss/critic": critic_loss,
            "train/loss/actor": actor_loss,
            "train/entropy": -jnp.mean(log_prob),
            "train/temperature": temperature,
            "train/value": jnp.mean(value),
        }

    return Agent(init, act, targets, loss, obs_size=obs_size)


def as_steps(trajectory: Any) -> Step:
    """The steps `[T, B, ...]` that the replay keeps of a trajectory of this agent."""
    return trajectory.fields_of(Step)


def sac_policy(action_spec: tuple[Component, ...], config: SACConfig, *, is_greedy: bool) -> Policy:
    """The policy alone, a function of the actor's parameters; observations `[B, n]` are normalised."""
    actor = _actor(len(action_spec), config)

    def act(params, carry, obs, is_first, key):
        del is_first
        dist = policy_of(actor, params, obs)
        noise = jax.random.normal(key, (*obs.shape[:-1], len(action_spec)))
        event = dist.mode() if is_greedy else dist.from_noise(noise)
        return to_env_action(jnp.tanh(event), action_spec), (), carry

    return Policy(lambda batch_size: (), act)


def policy_of(actor: MLP, params: Any, obs: jax.Array) -> TanhGaussian:
    """The policy at `obs [..., n]`, over actions `[..., A]`; its spread is squashed into range, never cut."""
    mean, raw = jnp.split(actor.apply(params, obs), 2, axis=-1)
    low, high = LOG_STD_RANGE
    return TanhGaussian(mean, low + 0.5 * (high - low) * (jnp.tanh(raw) + 1.0))


def values(critic: MLP, params: Any, obs: jax.Array, action: jax.Array) -> jax.Array:
    """Values `[2, ...]` by both critics of `obs [..., n]` and `action [..., A]`."""
    joint = jnp.concatenate([obs, action], axis=-1)
    return jax.vmap(critic.apply, in_axes=(0, None))(params, joint)[..., 0]


def _actor(action_size: int, config: SACConfig) -> MLP:
    sizes = (config.hidden_size, config.hidden_size, 2 * action_size)
    return MLP(sizes, activation=jax.nn.relu, output_scale=0.01)
