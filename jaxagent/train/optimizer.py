"""Optimisers: optax chains from our configurations, called as foreign code."""

from typing import Any

import jax
import optax

from envs.foreign import foreign
from jaxagent.config import FitConfig, PPOConfig


def adam(
    learning_rate: optax.ScalarOrSchedule, max_gradient_norm: float
) -> optax.GradientTransformation:
    """Adam behind a global-norm clip; epsilon 1e-5 as in OpenAI baselines' PPO2."""
    return optax.chain(
        optax.clip_by_global_norm(max_gradient_norm), optax.adam(learning_rate, eps=1e-5)
    )


def linear_decay(config: PPOConfig) -> optax.Schedule:
    """The learning rate of each gradient step of PPO, down to a share of the first."""
    return optax.linear_schedule(
        init_value=config.learning_rate,
        end_value=config.learning_rate * config.final_learning_rate,
        transition_steps=config.num_updates * config.num_epochs * config.num_minibatches,
    )


def adamw(config: FitConfig) -> optax.GradientTransformation:
    """AdamW behind a global-norm clip, warm-up and cosine; matrices decay, vectors do not."""
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=config.learning_rate,
        warmup_steps=config.warmup_updates,
        decay_steps=config.num_updates,
        end_value=config.learning_rate * config.final_learning_rate,
    )
    return optax.chain(
        optax.clip_by_global_norm(config.max_gradient_norm),
        optax.adamw(schedule, b1=0.9, b2=0.95, weight_decay=config.weight_decay, mask=_is_matrix),
    )


def init(optimizer: optax.GradientTransformation, params: Any) -> Any:
    """Optimiser state of `params`."""
    return foreign(optimizer.init)(params)


def apply(
    optimizer: optax.GradientTransformation, gradients: Any, opt_state: Any, params: Any
) -> tuple[Any, Any]:
    """One optimiser step: new params and optimiser state."""
    updates, opt_state = foreign(optimizer.update)(gradients, opt_state, params)
    return foreign(optax.apply_updates)(params, updates), opt_state


def _is_matrix(params: Any) -> Any:
    return jax.tree.map(lambda x: x.ndim >= 2, params)
