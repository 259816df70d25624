"""MuZero in lanes of a study."""

from collections.abc import Callable
from typing import Any

from envs.vector import VectorEnv
from jaxagent.agents import actions, muzero
from jaxagent.config import MuZeroConfig
from jaxagent.data import replay
from jaxagent.train import loops, optimizer
from jaxagent.types import Loop


def loop(env: Any, config: MuZeroConfig, as_steps: Callable = muzero.as_steps) -> Loop:
    """Gumbel MuZero on one environment; `as_steps` says what its memory keeps of a trajectory.

    Lanes have to come in turn: a search copies its trees under `vmap`.
    """
    return loops.replay(
        muzero.muzero(env.obs_shape, env.action_spec, config),
        VectorEnv(env),
        optimizer.decayed_adam(config.learning_rate, config.weight_decay, config.max_gradient_norm),
        config,
        explore=actions.uniform(env.action_spec),
        as_steps=as_steps,
        slow=loops.moving_average(lambda params: params, config.tau),
        memory=replay.windows(muzero.window(config)),
        is_normalized=False,
        in_turn=True,
    )
