"""Actor-critic agents: PPO, on vectors with a tower for each, or on the latents of a model."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs.types import Component
from jaxagent.agents import latent_heads
from jaxagent.agents.actions import to_env_action
from jaxagent.config import LatentConfig, PPOConfig
from jaxagent.nn.distributions import Categorical, Gaussian
from jaxagent.nn.latent_model import LatentModel
from jaxagent.nn.mlp import MLP
from jaxagent.objectives.policy import approximate_kl, clipped_value_loss, ppo_clip
from jaxagent.objectives.returns import gae
from jaxagent.types import Agent, Policy, Trajectory

ADVANTAGE_EPSILON = 1e-8
ACTOR_OUTPUT_SCALE = 0.01  # a nearly uniform first policy (Andrychowicz et al. 2021, section 3.2)


class ActorCriticParams(NamedTuple):
    """Parameters of separate towers for policy and value."""

    actor: Any  # of the policy's tower
    critic: Any  # of the value's tower
    log_std: Any  # [A] for continuous actions, () otherwise


class PPOBatch(NamedTuple):
    """Env steps for the PPO loss, of any leading axes."""

    obs: jax.Array  # [..., n], or as the judge reads them
    raw_action: jax.Array  # [...] int32 or [..., A], not clipped
    log_prob: jax.Array  # [...] of the raw action when it was drawn
    advantage: jax.Array  # [...] standardised
    value: jax.Array  # [...] before the update
    target: jax.Array  # [...] of the value


class Judge(NamedTuple):
    """The policy and the value of an actor-critic, as three functions."""

    init: Callable  # key -> params
    distribution: Callable  # (params, obs [..., n]) -> distribution of actions, [...] or [..., A]
    value: Callable  # (params, obs [..., n]) -> values [...]


def towers(obs_size: int, action_spec: tuple[Component, ...], config: PPOConfig) -> Judge:
    """A judge of separate networks on obs `[..., n]`, for one category or for reals in a box.

    Continuous actions are Gaussian in units of the half-range of the box.
    """
    is_discrete = action_spec[0].kind == "category"
    num_outputs = action_spec[0].cardinality if is_discrete else len(action_spec)
    hidden = (config.hidden_size, config.hidden_size)
    actor = MLP((*hidden, num_outputs), output_scale=ACTOR_OUTPUT_SCALE)
    critic = MLP((*hidden, 1))

    def init(key: jax.Array) -> ActorCriticParams:
        key_actor, key_critic = jax.random.split(key)
        example = jnp.zeros((1, obs_size))
        log_std = jnp.full((num_outputs,), config.initial_log_std, jnp.float32)
        return ActorCriticParams(
            actor=actor.init(key_actor, example),
            critic=critic.init(key_critic, example),
            log_std=() if is_discrete else log_std,
        )

    def distribution(params: ActorCriticParams, obs: jax.Array) -> Categorical | Gaussian:
        output = actor.apply(params.actor, obs)
        if is_discrete:
            return Categorical(output)
        return Gaussian(output, params.log_std[(None,) * (output.ndim - 1)])

    def value(params: ActorCriticParams, obs: jax.Array) -> jax.Array:
        return critic.apply(params.critic, obs)[..., 0]

    return Judge(init, distribution, value)


def on_latents(model: LatentModel, config: LatentConfig) -> Judge:
    """A judge of the heads of a latent model on one encoder, so that what trains it helps both."""

    def judge(params: Any, obs: jax.Array) -> tuple[jax.Array, jax.Array]:
        lead = obs.shape[: obs.ndim - len(model.obs_shape)]
        logits, values = latent_heads.evaluate(model, config, params, obs.reshape(-1, *model.obs_shape))
        return logits.reshape(*lead, -1), values.reshape(lead)

    return Judge(
        model.init,
        lambda params, obs: Categorical(judge(params, obs)[0]),
        lambda params, obs: judge(params, obs)[1],
    )


def ppo(
    obs_size: int,
    action_spec: tuple[Component, ...],
    config: PPOConfig,
    *,
    surrogate: Callable = ppo_clip,
    judge: Judge | None = None,
) -> Agent:
    """PPO (Schulman et al. 2017) for one category or for reals in a box.

    The environment gets continuous actions clipped to the box, the loss sees them unclipped.
    `judge` is `towers` unless it is given.
    """
    init, distribution, value = judge or towers(obs_size, action_spec, config)

    def act(params, carry, obs, is_first, key):
        del is_first
        dist = distribution(params, obs)
        raw_action = dist.sample(key)
        extras = {"raw_action": raw_action, "log_prob": dist.log_prob(raw_action)}
        return to_env_action(raw_action, action_spec), extras, carry

    def targets(params: ActorCriticParams, trajectory: Trajectory, average: Callable) -> PPOBatch:
        """Targets of trajectories `[s, T, b]`; `average` means over all shards on all devices."""
        values = value(params, trajectory.obs)
        next_values = value(params, trajectory.final_obs)
        estimate = partial(gae, discount=config.discount, trace=config.trace)
        advantage = jax.vmap(estimate)(
            trajectory.reward, trajectory.terminated, trajectory.truncated, values, next_values
        )
        return PPOBatch(
            obs=trajectory.obs,
            raw_action=trajectory.extras["raw_action"],
            log_prob=trajectory.extras["log_prob"],
            advantage=standardise(advantage, average),
            value=values,
            target=values + advantage,
        )

    def loss(params: ActorCriticParams, batch: PPOBatch) -> tuple[jax.Array, dict[str, jax.Array]]:
        dist = distribution(params, batch.obs)
        log_prob = dist.log_prob(batch.raw_action)
        policy_loss = jnp.mean(surrogate(log_prob, batch.log_prob, batch.advantage, clip=config.clip))
        values = value(params, batch.obs)
        value_loss = jnp.mean(
            clipped_value_loss(values, batch.value, batch.target, clip=config.value_clip or math.inf)
        )
        entropy = jnp.mean(dist.entropy())
        total = policy_loss + config.value_weight * value_loss - config.entropy_weight * entropy
        return total, {
            "train/loss/policy": policy_loss,
            "train/loss/value": value_loss,
            "train/entropy": entropy,
            "train/kl": jnp.mean(approximate_kl(log_prob, batch.log_prob)),
        }

    return Agent(init, act, targets, loss)


def greedy(obs_size: int, action_spec: tuple[Component, ...], config: PPOConfig) -> Policy:
    """A policy by the mode of PPO's, for evaluation; the caller must normalise observations `[B, n]`."""
    del obs_size
    is_discrete = action_spec[0].kind == "category"
    num_outputs = action_spec[0].cardinality if is_discrete else len(action_spec)
    actor = MLP((config.hidden_size, config.hidden_size, num_outputs))

    def act(params, carry, obs, is_first, key):
        del is_first, key
        output = actor.apply(params.actor, obs)
        mode = Categorical(output).mode() if is_discrete else output
        return to_env_action(mode, action_spec), (), carry

    return Policy(init=lambda batch_size: (), act=act)


def standardise(advantage: jax.Array, average: Callable) -> jax.Array:
    """Advantages `[s, T, b]` to mean 0 and variance 1 over all shards."""
    moments = jax.vmap(lambda x: (jnp.mean(x), jnp.mean(jnp.square(x))))(advantage)
    mean, mean_square = average(moments)
    variance = jnp.maximum(mean_square - jnp.square(mean), 0.0)
    return (advantage - mean) / (jnp.sqrt(variance) + ADVANTAGE_EPSILON)
