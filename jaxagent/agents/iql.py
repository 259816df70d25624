"""Implicit Q-learning: offline, continuous actions, on vectors of features."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs.types import Component
from jaxagent.agents.actions import require_reals
from jaxagent.agents.soft_actor_critic import Step, values
from jaxagent.agents.td3_bc import Encoder, actor_of, as_is, critic_of, greedy, init_critics
from jaxagent.config import IQLConfig
from jaxagent.nn.distributions import Gaussian
from jaxagent.nn.mlp import MLP
from jaxagent.objectives.policy import advantage_weight
from jaxagent.objectives.value import expectile_loss, squared_errors, td_target
from jaxagent.types import OfflineAgent

LOG_STD_RANGE = (-5.0, 2.0)


class IQLParams(NamedTuple):
    """Parameters of the policy, the state's value, the twin critics and the encoder."""

    actor: Any  # of the mean
    log_std: jax.Array  # [A]
    value: Any
    critics: Any  # leaves [2, ...]
    encoder: Any  # of the observations; () where they are the features


class IQLBatch(NamedTuple):
    """A minibatch for the IQL loss."""

    obs: jax.Array  # [b, ...] as the encoder reads them
    action: jax.Array  # [b, A] in [-1, 1]
    target: jax.Array  # [b] of both critics
    action_value: jax.Array  # [b] the smaller of both slow critics


def iql(
    feature_size: int,
    action_spec: tuple[Component, ...],
    config: IQLConfig,
    *,
    encoder: Encoder = as_is,
    is_frozen: bool = True,
) -> OfflineAgent:
    """IQL (Kostrikov et al. 2022, eq. 5 to 7), with two critics and their slow copy.

    No action but those of the data is ever valued. The policy is a normal around a tanh, with a
    deviation that no state changes, as in the authors' code; `policy` acts by its mean. `encoder`
    and `is_frozen` are as in `td3_bc`; where the encoder learns, it does so from the critics' loss
    alone. `loss` is the sum of three losses, each blind to the parameters of the others. Raises
    ValueError for actions that are no reals.

    Differs: policy and critics are fitted to the value of before the update, not of after it; the
    policy's learning rate is the optimiser's, not a cosine of its own; layers start orthogonal,
    the actor's last one small. The authors divide a data set's rewards by the range of its returns
    and multiply by 1000: that is the caller's `reward_scale`, for beta counts in rewards.
    """
    require_reals("IQL", action_spec)
    action_size = len(action_spec)
    actor, critic = actor_of(action_size, config), critic_of(config)
    value_net = critic_of(config)

    def init(key: jax.Array, encoder_params: Any = ()) -> IQLParams:
        key_actor, key_value, key_critics = jax.random.split(key, 3)
        example = jnp.zeros((1, feature_size))
        return IQLParams(
            actor=actor.init(key_actor, example),
            log_std=jnp.zeros((action_size,)),
            value=value_net.init(key_value, example),
            critics=init_critics(critic, key_critics, feature_size + action_size),
            encoder=encoder_params,
        )

    def slow(params: IQLParams) -> IQLParams:
        encoder_copy = () if is_frozen else params.encoder
        return IQLParams((), (), (), params.critics, encoder_copy)

    def value(params: IQLParams, features: jax.Array) -> jax.Array:
        return value_net.apply(params.value, features)[..., 0]

    def targets(params: IQLParams, target: IQLParams, steps: Step, key: jax.Array) -> IQLBatch:
        del key  # nothing is drawn
        features = encoder(params.encoder if is_frozen else target.encoder, steps.obs)
        action_value = jnp.min(values(critic, target.critics, features, steps.action), axis=0)
        next_value = value(params, encoder(params.encoder, steps.final_obs))
        reward = config.reward_scale * steps.reward
        target_value = td_target(reward, steps.terminated, next_value, discount=config.discount)
        return IQLBatch(steps.obs, steps.action, target_value, action_value)

    def loss(params: IQLParams, batch: IQLBatch) -> tuple[jax.Array, dict[str, jax.Array]]:
        features = encoder(params.encoder, batch.obs)
        fixed = jax.lax.stop_gradient(features)
        q = values(critic, params.critics, fixed if is_frozen else features, batch.action)
        critic_loss = jnp.mean(squared_errors(q, batch.target))
        advantage = batch.action_value - value(params, fixed)
        value_loss = jnp.mean(expectile_loss(advantage, config.expectile))
        weight = advantage_weight(advantage, beta=config.beta, largest=config.max_weight)
        log_prob = policy_of(actor, params, fixed).log_prob(batch.action)
        actor_loss = -jnp.mean(weight * log_prob)
        return critic_loss + value_loss + actor_loss, {
            "train/loss/critic": critic_loss,
            "train/loss/value": value_loss,
            "train/loss/actor": actor_loss,
            "train/cloning": -jnp.mean(log_prob),
            "train/value": jnp.mean(q[0]),
            "train/advantage_weight": jnp.mean(weight),
        }

    return OfflineAgent(
        init=init,
        targets=targets,
        loss=loss,
        slow=slow,
        periods=IQLParams(1, 1, 1, 1, int(not is_frozen)),
        target_period=1,
        policy=greedy(actor, encoder, action_spec),
    )


def policy_of(actor: MLP, params: IQLParams, features: jax.Array) -> Gaussian:
    """The policy at `features [..., n]`, over actions `[..., A]`; its spread is cut to `LOG_STD_RANGE`."""
    log_std = jnp.clip(params.log_std, *LOG_STD_RANGE)
    mean = jnp.tanh(actor.apply(params.actor, features))
    return Gaussian(mean, log_std[(None,) * (mean.ndim - 1)])
