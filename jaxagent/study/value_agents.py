"""Rainbow in lanes, with or without self-prediction: its loop, optimiser, acting parameters and policy."""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from envs.vector import VectorEnv
from jaxagent import library
from jaxagent.agents import actions, rainbow
from jaxagent.config import RainbowConfig, to_dict
from jaxagent.data.prioritized import prioritized_windows
from jaxagent.nn.q_network import QNetwork
from jaxagent.train import loops, optimizer
from jaxagent.types import Agent, Loop, Policy


def loop(env: Any, config: RainbowConfig) -> Loop:
    """Rainbow on a pure environment of pictures; boards whose every cell is one of two are kept as bits."""
    agent = rainbow.rainbow(env.obs_shape, env.obs_dtype, env.action_spec, config)
    return loops.replay(
        agent,
        VectorEnv(env),
        optimizer_of(agent, config),
        config,
        explore=actions.uniform(env.action_spec),
        as_steps=partial(rainbow.as_steps, dtype=kept_as(env)),
        slow=loops.SlowCopy(*rainbow.copying(config)),
        memory=prioritized_windows(config.window, config.priority_exponent),
        acts_by=acts_by(config),
        is_normalized=False,
    )


def kept_as(env: Any) -> Any:
    """The dtype in which a replay keeps observations without loss: bits of cells that are one of two."""
    is_binary = all(c.kind == "category" and c.cardinality == 2 for c in env.obs_spec)
    return jnp.bool_ if is_binary else env.obs_dtype


def optimizer_of(agent: Agent, config: RainbowConfig) -> optax.GradientTransformation:
    """Adam, with resets where the configuration has any."""
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


def without_prediction(config: RainbowConfig) -> RainbowConfig:
    """The twin: the same parameters and draws, and no self-predictive loss on them."""
    return dataclasses.replace(config, spr=dataclasses.replace(config.spr, weight=0.0))


class ValuePlayer(NamedTuple):
    """An environment, the network that acts in it, and how that is fitted."""

    env: Any
    network: QNetwork
    config: RainbowConfig

    @property
    def policy(self) -> Policy:
        """The policy: greedy but for a thousandth of the actions, which are uniform."""
        return rainbow.policy(self.network, self.config)

    def save(self, folder: Path, params: Any, **about: Any) -> None:
        """Write the policy for `library.load`; `about` are its arm, task, seed, and overrides."""
        description = library.ValueDescription(
            env=self.env.name,
            obs_shape=list(self.network.obs_shape),
            is_stack=self.network.obs_shape != self.env.obs_shape,  # it reads frames channels last
            num_actions=self.network.net.num_actions,
            config=to_dict(self.config),
            **{"overrides": {}} | about,
        )
        library.save(folder, description, params)
