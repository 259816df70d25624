"""Rainbow in lanes, with self-prediction or without: its loop, its optimiser, what acts and is kept."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
import optax

from envs.vector import VectorEnv
from jaxagent import library
from jaxagent.agents import rainbow
from jaxagent.config import RainbowConfig, to_dict
from jaxagent.data.prioritized import prioritized_windows
from jaxagent.nn.q_network import QNetwork
from jaxagent.train import loops, optimizer
from jaxagent.types import Agent, Loop


def loop(env: Any, config: RainbowConfig) -> Loop:
    """Rainbow on a pure environment of boards, whose cells are kept as bits."""
    agent = rainbow.rainbow(env.obs_shape, env.obs_dtype, env.action_spec, config)
    return loops.replay(
        agent,
        VectorEnv(env),
        optimizer_of(agent, config),
        config,
        explore=rainbow.uniform(env.action_spec),
        as_steps=partial(rainbow.as_steps, dtype=jnp.bool_),
        slow=loops.SlowCopy(*rainbow.copying(config)),
        memory=prioritized_windows(config.window, config.priority_exponent),
        acts_by=acts_by(config),
        is_normalized=False,
    )


def optimizer_of(agent: Agent, config: RainbowConfig) -> optax.GradientTransformation:
    """Adam, and resets where there are any."""
    adam = optimizer.rainbow_adam(config)
    if not config.num_resets:
        return adam
    resets = partial(rainbow.is_reset_after, config)
    return optimizer.with_resets(adam, agent.init, resets, optimizer.rainbow_shares(config))


def acts_by(config: RainbowConfig) -> Callable[[loops.Learner], Any]:
    """Learner -> the parameters that act: its own, or their slow copy as in SR-SPR and BBF."""
    if not config.acts_by_target:
        return loops.params_of
    return lambda learner: rainbow.followed(learner.target.q, learner.params)


def describe(
    env: Any,
    network: QNetwork,
    config: RainbowConfig,
    *,
    arm: str,
    task: str,
    seed: int,
    overrides: dict[str, Any] | None = None,
    is_stack: bool = False,
) -> library.ValueDescription:
    """What `library.load` needs to rebuild a policy."""
    return library.ValueDescription(
        arm=arm,
        task=task,
        env=env.name,
        overrides=overrides or {},
        seed=seed,
        obs_shape=list(network.obs_shape),
        is_stack=is_stack,
        num_actions=network.net.num_actions,
        config=to_dict(config),
    )
