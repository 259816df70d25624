"""Offline reinforcement learning as a loop: stored steps, a slow copy, parts that move rarely."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxagent import keys
from jaxagent.data import normalize
from jaxagent.objectives.value import soft_update
from jaxagent.train import optimizer as optimizers
from jaxagent.train.parallel import Mean, value_and_mean_grad
from jaxagent.types import Loop


class OfflineLearner(NamedTuple):
    """What is replicated over devices."""

    params: Any
    opt_state: Any
    normalizer: Any  # moments of the data's observations, which stay; () where nothing is to do
    target: Any  # the slow copy of a part of the parameters
    num_updates: jax.Array  # int32 []


def offline_rl(agent: Any, sample: Callable, optimizer: optax.GradientTransformation, tau: float) -> Loop:
    """Fit an agent of the form of `OfflineAgent` to stored steps (TD3+BC, IQL).

    `init(params, moments)` takes the parameters to start from, `agent.init`'s, and the moments to
    standardise observations by, or `()`; `sample(data, key)` draws the steps of one shard, with
    fields `obs` and `final_obs`: `partial(replay.sample, batch_size=...)` of a full `Replay`, say.
    """
    optimizer = by_period(optimizer, agent.periods)

    def init(params: Any, moments: Any) -> tuple[OfflineLearner, tuple]:
        learner = OfflineLearner(
            params=params,
            opt_state=optimizers.init(optimizer, params),
            normalizer=moments,
            target=agent.slow(params),
            num_updates=jnp.zeros((), jnp.int32),
        )
        return learner, ()

    def update(learner: OfflineLearner, shards: tuple, data: Any, shard_ids: jax.Array, key: jax.Array):
        key_sample, key_targets = jax.random.split(key)
        steps = jax.vmap(sample, in_axes=(None, 0))(data, keys.per_index(key_sample, shard_ids))
        steps = _seen(learner.normalizer, steps)
        make_targets = partial(agent.targets, learner.params, learner.target)
        batch = jax.vmap(make_targets)(steps, keys.per_index(key_targets, shard_ids))
        (value, metrics), gradients = value_and_mean_grad(agent.loss)(learner.params, batch)
        params, opt_state = optimizers.apply(optimizer, gradients, learner.opt_state, learner.params)
        num_updates = learner.num_updates + 1
        share = jnp.where(num_updates % agent.target_period == 0, tau, 0.0)
        learner = learner._replace(
            params=params,
            opt_state=opt_state,
            target=soft_update(learner.target, agent.slow(params), share),
            num_updates=num_updates,
        )
        means = {"train/loss": value, **metrics}
        return learner, shards, {name: Mean(x, jnp.ones(())) for name, x in means.items()}

    return Loop(init, update)


def by_period(optimizer: optax.GradientTransformation, periods: Any) -> Any:
    """Let every part of the parameters move at each `period`-th update alone; 0: never.

    `periods` are ints in a prefix of the parameters. Between its moves a part rests with its
    moments, as if its loss were not there. To mask the loss would not do: where a gradient is zero
    Adam's momentum moves on. What never moves costs no moments and does not decay. A clip by the
    global norm sees the parts of one period at a time.
    """

    def every(period: int) -> optax.GradientTransformation:
        if period == 0:
            return optax.set_to_zero()
        if period == 1:
            return optimizer
        return optax.conditionally_mask(optimizer, lambda done: (done + 1) % period == 0)

    return optax.partition({p: every(p) for p in sorted(set(jax.tree.leaves(periods)))}, periods)


def moments_of(obs: jax.Array) -> normalize.Moments:
    """Moments of stored observations `[N, ...]`."""
    return normalize.Moments(
        count=jnp.full((), obs.shape[0], jnp.float32),
        mean=jnp.mean(obs, axis=0),
        variance=jnp.var(obs, axis=0),
    )


def _seen(moments: Any, steps: Any) -> Any:
    """The steps as the agent sees them."""
    if moments == ():
        return steps
    see = partial(normalize.apply, moments)
    return steps._replace(obs=see(steps.obs), final_obs=see(steps.final_obs))
