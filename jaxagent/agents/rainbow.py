"""Rainbow with self-predictive representations: SPR, and in their manner SR-SPR and BBF.

The self-predictive loss is a weight; with 0 it is Rainbow (DER, van Hasselt et al. 2019).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs.types import Component
from jaxagent.agents.actions import draw_category, num_categories
from jaxagent.agents.self_prediction import prediction_loss, projections, same_episode
from jaxagent.config import RainbowConfig
from jaxagent.data import augment
from jaxagent.data.frames import stacks
from jaxagent.data.prioritized import Drawn, importance_weights, prioritized_windows
from jaxagent.data.replay import Memory
from jaxagent.nn.q_network import QNetwork, q_network
from jaxagent.objectives.distributional import bellman_target, divergence, expected_return
from jaxagent.objectives.returns import n_step_parts
from jaxagent.objectives.value import soft_update
from jaxagent.types import Agent, Policy, Trajectory

SMALLEST_PRIORITY = 1e-6


class Step(NamedTuple):
    """Env steps as the replay keeps them."""

    obs: Any  # [..., b, H, W, C], or `Frames` [..., b]
    action: jax.Array  # [..., b] int32
    reward: jax.Array  # [..., b]
    terminated: jax.Array  # [..., b] bool
    truncated: jax.Array  # [..., b] bool
    # [..., b] bool: False where the lane only began a new game (ALE); no window begins there, and one that
    # leads there has ended the step before. `()`: all are real.
    valid: Any = ()


class Copies(NamedTuple):
    """Slow copies of the parameters, and their age; `()` for a copy that would always equal them."""

    q: Any  # the target network
    spr: Any  # the target encoder and projection
    num_updates: jax.Array  # int32 []: gradient steps so far


class Batch(NamedTuple):
    """A minibatch for the loss: b windows of K predicted steps."""

    obs: jax.Array  # [b, H, W, C]
    action: jax.Array  # [K, b]: those from `obs` on; K is 1 without SPR
    returns: jax.Array  # [b, Z] target distribution
    weight: jax.Array  # [b] importance
    is_known: jax.Array  # [b] bool: something can be learned of the first step
    later: jax.Array  # [K, b, P] projections of what followed
    is_same: jax.Array  # [K, b] bool: it followed in the same episode
    key: jax.Array  # of dropout, a shard's own


def rainbow(
    obs_shape: tuple[int, ...], obs_dtype: Any, action_spec: tuple[Component, ...], config: RainbowConfig
) -> Agent:
    """C51, double, dueling, noisy, prioritised n-step Q-learning (Hessel et al. 2018) with SPR.

    The self-predictive part is that of mila-iqia/spr: the head's first layer projects, a linear
    predictor answers for the online side, 2 - 2 cos is averaged over K steps, masked after the end
    of an episode, and multiplied by the importance weight. For `loops.replay` with
    `prioritized_windows(config.window, ...)`; `targets` reads `Copies`.

    Differs: layer normalisation in the transition; priorities, strata and the largest importance
    weight are of a data shard; dropout acts in the online encoder alone; a time limit cuts the
    n-step return, and such a first step is not learned from. SR-SPR and BBF (official code) have
    priorities of the root of the cross-entropy, where these are of the KL divergence to a power, no
    normalisation in the transition, and other initial values.
    Raises ValueError for actions that are not one category, and for augmentation of what is no
    picture of uint8.
    """
    network = network_of(obs_shape, action_spec, config)
    if config.is_augmented and jnp.dtype(obs_dtype) != jnp.uint8:
        raise ValueError(
            f"RainbowConfig.is_augmented: got observations of {jnp.dtype(obs_dtype)}, expected "
            "frames of uint8; switch augmentation off."
        )

    def act(
        params: Any, carry: Any, obs: jax.Array, is_first: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Any, Any]:
        del is_first
        return greedy(network, config, params, obs, key), (), carry

    def loss(
        params: Any, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, tuple[dict[str, jax.Array], jax.Array]]:
        latent = network.encode(params, batch.obs, batch.key)
        surprise = _value_loss(network, params, latent, batch, key)
        losses = {"q": jnp.mean(batch.weight * surprise)}
        total = losses["q"]
        if config.spr.weight:
            distance = prediction_loss(network, params, latent, batch.action, batch.later, batch.is_same)
            losses["spr"] = jnp.mean(batch.weight * distance)
            total = total + config.spr.weight * losses["spr"]
        priority = jnp.where(batch.is_known, jnp.maximum(surprise, SMALLEST_PRIORITY), 0.0)
        metrics = {f"train/loss/{name}": value for name, value in losses.items()}
        return total, (metrics, priority)

    return Agent(network.init, act, partial(_targets, network, config), loss)


def network_of(
    obs_shape: tuple[int, ...], action_spec: tuple[Component, ...], config: RainbowConfig
) -> QNetwork:
    """The network of an environment with one category of actions."""
    num_actions = num_categories("Rainbow", action_spec, "use SAC or PPO")
    return q_network(config.model, obs_shape, num_actions)


def as_steps(trajectory: Trajectory, dtype: Any = None) -> Step:
    """The steps `[T, b, ...]` that the replay keeps of a trajectory; `dtype` in which observations fit.

    Raises ValueError where steps are marked as invalid: windows would lead through resets.
    """
    t = trajectory
    if not isinstance(t.valid, tuple):
        raise ValueError(
            "Rainbow: got a trajectory with steps that only reset (`valid`), expected one without; "
            "drop them before they are kept."
        )
    obs = t.obs if dtype is None else t.obs.astype(dtype)
    return Step(obs, t.action, t.reward, t.terminated, t.truncated)


def memory_of_frames(config: RainbowConfig, depth: int) -> Memory:
    """Prioritised windows of `Step`s that hold `Frames`; minibatches hold stacks of `depth`."""
    context = depth - 1

    def view(steps: Step) -> Step:
        later = jax.tree.map(lambda x: x[context:], steps._replace(obs=()))
        return later._replace(obs=stacks(steps.obs, depth))

    return prioritized_windows(
        config.window,
        config.priority_exponent,
        context=context,
        view=view,
        may_begin=lambda steps: steps.valid,
    )


def copying(config: RainbowConfig) -> tuple[Callable, Callable]:
    """How `Copies` begin and follow: the fields of a `loops.SlowCopy`."""
    return partial(first_copies, config), partial(follow, config)


def first_copies(config: RainbowConfig, params: Any) -> Copies:
    """The copies before any update."""
    q, spr = (params if tau < 1.0 else () for tau in _rates(config))
    return Copies(q, spr, jnp.zeros((), jnp.int32))


def followed(copy: Any, params: Any) -> Any:
    """Parameters of a network of `Copies`: `params` themselves where no copy is kept."""
    return params if isinstance(copy, tuple) else copy


def follow(config: RainbowConfig, copies: Copies, params: Any) -> Copies:
    """The copies after a gradient step to `params`.

    Differs from BBF, which resets its target network by other draws: after a reset both copies are
    the new parameters.
    """
    count = copies.num_updates + 1
    is_reset = is_reset_after(config, count)
    of_q, of_spr = _rates(config)
    q = _toward(copies.q, params, of_q, is_reset)
    return Copies(q, _toward(copies.spr, params, of_spr, is_reset), count)


def is_reset_after(config: RainbowConfig, count: jax.Array) -> jax.Array:
    """Whether gradient step number `count`, from 1 on, is followed by a reset; bool []."""
    if not config.num_resets:
        return jnp.bool_(False)
    is_time = count % config.reset_period == 0
    return is_time & (count <= config.num_resets * config.reset_period)


def _rates(config: RainbowConfig) -> tuple[float, float]:
    """Shares of the new in the target network and in SPR's; 1 where no loss reads that."""
    return config.target_tau, config.spr.tau if config.spr.weight else 1.0


def _toward(old: Any, new: Any, tau: float, is_reset: jax.Array) -> Any:
    """A copy that goes `tau` of the way, or is the new bit for bit; none where that is all."""
    if tau == 1.0:
        return ()
    moved = soft_update(old, new, tau)
    return jax.tree.map(lambda m, n: jnp.where(is_reset, n, m), moved, new)


def greedy(
    network: QNetwork, config: RainbowConfig, params: Any, obs: jax.Array, key: jax.Array | None = None
) -> jax.Array:
    """Best actions int32 `[B]` of observations `[B, ...]`; with a key, under noise."""
    logits = network.judge(params, network.encode(params, obs), key)
    values = expected_return(logits, config.model.max_return)
    return jnp.argmax(values, axis=-1).astype(jnp.int32)


def policy(network: QNetwork, config: RainbowConfig, *, epsilon: float = 0.001) -> Policy:
    """The agent without noise, as it is evaluated: a share `epsilon` of actions is uniform."""
    num_actions = network.net.num_actions

    def act(
        params: Any, carry: Any, obs: jax.Array, is_first: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Any, Any]:
        del is_first
        best = greedy(network, config, params, obs)
        key_which, key_action = jax.random.split(key)
        other = draw_category(key_action, best.shape[0], num_actions)
        is_random = jax.random.bernoulli(key_which, epsilon, best.shape)
        return jnp.where(is_random, other, best), (), carry

    return Policy(lambda batch_size: (), act)


def horizon(config: RainbowConfig, num_updates: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Steps of a value target, int32 [], and discount, float32 [], after so many gradient steps.

    Annealed, both are geometric in the gradient steps since the last reset; the discount is so in
    `1 - discount` (BBF, Schwarzer et al. 2023, section 4).
    """
    if not config.anneal_updates:
        return jnp.int32(config.num_td_steps), jnp.float32(config.discount)
    since = num_updates
    if config.num_resets:
        resets = jnp.minimum(num_updates // config.reset_period, config.num_resets)
        since = num_updates - resets * config.reset_period
    done = jnp.minimum(since.astype(jnp.float32) / config.anneal_updates, 1.0)
    steps = _geometric(float(config.first_td_steps), float(config.num_td_steps), done)
    myopia = _geometric(1.0 - config.first_discount, 1.0 - config.discount, done)
    return jnp.round(steps).astype(jnp.int32), 1.0 - myopia


def _geometric(first: float, last: float, done: jax.Array) -> jax.Array:
    """From `first` to `last`, both above 0, by equal factors."""
    return first * (last / first) ** done


def _targets(
    network: QNetwork,
    config: RainbowConfig,
    params: Any,
    copies: Copies,
    drawn: Drawn,
    key: jax.Array,
    key_noise: jax.Array,
) -> Batch:
    """The loss's minibatch of windows `[L, b, ...]`; nothing here has a gradient."""
    key_next, key_obs, key_dropout = jax.random.split(key, 3)
    key_double, key_target = jax.random.split(key_noise)
    steps, num_updates = drawn.steps, copies.num_updates
    reward = steps.reward
    if config.reward_limit:
        reward = jnp.clip(reward, -config.reward_limit, config.reward_limit)
    num_steps, discount = horizon(config, num_updates)
    total, weight, at = n_step_parts(
        reward[:-1], steps.terminated[:-1], steps.truncated[:-1], discount=discount, num_steps=num_steps
    )
    see = augment.shift_and_scale if config.is_augmented else lambda obs, key: obs
    after = see(steps.obs[at, jnp.arange(at.shape[0])], key_next)
    best = greedy(network, config, params, after, key_double)
    slow = followed(copies.q, params)
    logits = network.judge(slow, network.encode(slow, after), key_target)
    chosen = logits[jnp.arange(best.shape[0]), best]
    returns = bellman_target(total, weight, jax.nn.softmax(chosen), config.model.max_return)
    count = config.spr.num_steps if config.spr.weight else 1
    seen = steps.obs[: count + 1] if config.spr.weight else steps.obs[:1]
    flat = see(seen.reshape(-1, *seen.shape[2:]), key_obs)
    seen = flat.reshape(*seen.shape[:2], *flat.shape[1:])
    progress = num_updates.astype(jnp.float32) / config.total_gradient_steps
    first, last = config.importance_exponent, config.final_importance_exponent
    beta = first + (last - first) * progress
    return Batch(
        obs=seen[0],
        action=steps.action[:count],
        returns=returns,
        weight=importance_weights(drawn.rarity, beta),
        is_known=at > 0,
        later=_later(network, followed(copies.spr, params), seen[1:]),
        is_same=same_episode(steps.terminated[:count] | steps.truncated[:count]),
        key=key_dropout,
    )


def _later(network: QNetwork, params: Any, obs: jax.Array) -> jax.Array:
    """Projections `[K, b, P]` of observations `[K, b, ...]`; nothing where none are predicted."""
    return projections(network, params, obs) if obs.shape[0] else jnp.zeros((1, obs.shape[1], 1))


def _value_loss(network: QNetwork, params: Any, latent: jax.Array, batch: Batch, key: jax.Array) -> jax.Array:
    """Divergence `[b]` of the distribution of returns from its target; 0 where nothing is known."""
    logits = network.judge(params, latent, key)
    taken = logits[jnp.arange(logits.shape[0]), batch.action[0]]
    return jnp.where(batch.is_known, divergence(batch.returns, taken), 0.0)
