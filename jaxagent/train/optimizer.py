"""Optimisers: optax chains from our configurations, called as foreign code."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from envs.common.branch import when
from envs.common.foreign import foreign
from jaxagent.config import AlphaZeroConfig, FitConfig, OnPolicyConfig, RainbowConfig
from jaxagent.train.parallel import checksum


def adam(learning_rate: optax.ScalarOrSchedule, max_gradient_norm: float) -> optax.GradientTransformation:
    """Adam behind a global-norm clip; epsilon 1e-5 as in OpenAI baselines' PPO2."""
    return optax.chain(optax.clip_by_global_norm(max_gradient_norm), optax.adam(learning_rate, eps=1e-5))


def radam(learning_rate: optax.ScalarOrSchedule, max_gradient_norm: float) -> optax.GradientTransformation:
    """Rectified Adam (Liu et al. 2020) behind a global-norm clip, as in Gallici et al. 2024."""
    return optax.chain(optax.clip_by_global_norm(max_gradient_norm), optax.radam(learning_rate))


def plain_adam(learning_rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
    """Adam as its paper has it: nothing is clipped (Kingma and Ba 2015)."""
    return optax.adam(learning_rate)


def linear_decay(config: OnPolicyConfig | AlphaZeroConfig) -> optax.Schedule:
    """The learning rate of each gradient step of a loop that acts, to a share of the first."""
    return optax.linear_schedule(
        init_value=config.learning_rate,
        end_value=config.learning_rate * config.final_learning_rate,
        transition_steps=config.num_updates * config.num_gradient_steps,
    )


def warmup_cosine(config: FitConfig) -> optax.Schedule:
    """A linear warm-up, then half a cosine down to a share of the peak (1: constant)."""
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=config.learning_rate,
        warmup_steps=config.warmup_updates,
        decay_steps=config.num_updates,
        end_value=config.learning_rate * config.final_learning_rate,
    )


def warmup_inverse_sqrt(config: FitConfig) -> optax.Schedule:
    """A linear warm-up, then down with the root of the updates (Vaswani et al. 2017, eq. 3)."""
    warmup = max(config.warmup_updates, 1)

    def rate(count: jax.Array) -> jax.Array:
        step = jnp.asarray(count, jnp.float32) + 1.0
        return config.learning_rate * jnp.minimum(step / warmup, jnp.sqrt(warmup / step))

    return rate


SCHEDULES = {"cosine": warmup_cosine, "inverse_sqrt": warmup_inverse_sqrt}


def adamw(config: FitConfig) -> optax.GradientTransformation:
    """AdamW behind a global-norm clip and a schedule; matrices decay, vectors do not."""
    schedule = SCHEDULES[config.schedule](config)
    return optax.chain(
        optax.clip_by_global_norm(config.max_gradient_norm),
        optax.adamw(schedule, b1=0.9, b2=0.95, weight_decay=config.weight_decay, mask=_is_matrix),
    )


def adamw_by_part(config: FitConfig, rates: Mapping[str, float]) -> optax.GradientTransformation:
    """As `adamw`, but named parts of `params["params"]` learn at multiples of the rate."""
    schedule = SCHEDULES[config.schedule](config)

    def at(rate: float) -> optax.GradientTransformation:
        return optax.adamw(
            lambda count: rate * schedule(count),
            b1=0.9,
            b2=0.95,
            weight_decay=config.weight_decay,
            mask=_is_matrix,
        )

    def labels(params: Any) -> Any:
        return {"params": {part: part if part in rates else "" for part in params["params"]}}

    parts = {"": at(1.0)} | {part: at(rate) for part, rate in rates.items()}
    return optax.chain(
        optax.clip_by_global_norm(config.max_gradient_norm), optax.multi_transform(parts, labels)
    )


def decayed_adam(
    learning_rate: float, weight_decay: float, max_gradient_norm: float
) -> optax.GradientTransformation:
    """AdamW at a constant rate behind a global-norm clip; matrices decay, vectors do not."""
    return optax.chain(
        optax.clip_by_global_norm(max_gradient_norm),
        optax.adamw(learning_rate, weight_decay=weight_decay, mask=_is_matrix),
    )


def rainbow_adam(config: RainbowConfig) -> optax.GradientTransformation:
    """Adam behind `rainbow_clip`; matrices decay where the configuration says so."""
    adam = optax.adamw(
        config.learning_rate, eps=config.adam_epsilon, weight_decay=config.weight_decay, mask=_is_matrix
    )
    return optax.chain(rainbow_clip(config), adam)


def rainbow_clip(config: RainbowConfig) -> optax.GradientTransformation:
    """Encoder and head clipped as one norm, the transition as another, the predictor not at all.

    As in mila-iqia/spr.
    """
    limit = config.max_gradient_norm
    clip = optax.clip_by_global_norm(limit) if limit else optax.identity()
    groups = {"value": clip, "transition": clip, "predictor": optax.identity()}
    return optax.multi_transform(groups, _of_groups)


def _of_groups(params: Any) -> Any:
    """The clip of each part of a Q-network."""
    names = {"encoder": "value", "head": "value"}
    return {"params": {part: names.get(part, part) for part in params["params"]}}


class ResetState(NamedTuple):
    """State of `with_resets`."""

    inner: Any  # state of the wrapped optimiser
    seed: jax.Array  # uint32 [], of fresh parameters
    num_updates: jax.Array  # int32 []


def with_resets(
    inner: optax.GradientTransformation, fresh: Callable, is_reset_after: Callable, share: Callable
) -> optax.GradientTransformation:
    """Mix fresh parameters in after some updates (shrink and perturb, SR-SPR and BBF).

    `fresh(key) -> params`; `is_reset_after(count)` says whether update `count`, from 1 on, is
    followed by one; `share(params) -> how much is fresh`, in [0, 1], a prefix of `params`: 1 for a
    whole reset. The inner state begins anew. Draws follow from the first parameters, so that lanes
    of seeds differ.
    """

    def init(params: Any) -> ResetState:
        return ResetState(inner.init(params), checksum(params), jnp.zeros((), jnp.int32))

    def reset(value: tuple[Any, Any], params: Any, seed: jax.Array, count: jax.Array) -> tuple[Any, Any]:
        updates, _ = value
        new = fresh(jax.random.fold_in(jax.random.key(seed), count))
        moved = jax.tree.map(jnp.add, params, updates)
        shares = jax.tree.broadcast(share(params), params)
        mixed = jax.tree.map(lambda m, n, s: (1.0 - s) * m + s * n, moved, new, shares)
        return jax.tree.map(jnp.subtract, mixed, params), inner.init(mixed)

    def update(gradients: Any, state: ResetState, params: Any) -> tuple[Any, ResetState]:
        value = inner.update(gradients, state.inner, params)
        count = state.num_updates + 1
        # A branch under `vmap` too: lanes of seeds would draw fresh parameters in every update.
        updates, after = when(is_reset_after(count), reset, value, params, state.seed, count)
        return updates, ResetState(after, state.seed, count)

    return optax.GradientTransformation(init, update)


def rainbow_shares(config: RainbowConfig) -> Callable:
    """The share of each part to be made anew: all of head and predictor, less of the others (SR-SPR)."""
    kept = {"encoder": config.reset_share, "transition": config.reset_share}
    return lambda params: {"params": {part: kept.get(part, 1.0) for part in params["params"]}}


def init(optimizer: optax.GradientTransformation, params: Any) -> Any:
    """First optimiser state, a pytree, of the pytree `params`."""
    return foreign(optimizer.init)(params)


def apply(
    optimizer: optax.GradientTransformation, gradients: Any, opt_state: Any, params: Any
) -> tuple[Any, Any]:
    """One optimiser step: new parameters, of the shapes of `params`, and the new optimiser state."""
    updates, opt_state = foreign(optimizer.update)(gradients, opt_state, params)
    return foreign(optax.apply_updates)(params, updates), opt_state


def _is_matrix(params: Any) -> Any:
    return jax.tree.map(lambda x: x.ndim >= 2, params)


def by_period(optimizer: optax.GradientTransformation, periods: Any) -> optax.GradientTransformation:
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
