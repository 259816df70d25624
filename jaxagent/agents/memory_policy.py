"""PPO with the memory that a configuration says: what learns, what is played, and how it is cleared."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from envs.types import Component
from jaxagent.agents.actor_critic import Judge, greedy, ppo, remembering
from jaxagent.agents.sequence_actor import SequenceActor, actor_of
from jaxagent.config import MemoryConfig, PPOConfig, TransformerConfig
from jaxagent.data import normalize
from jaxagent.nn.sequence_model import token_model
from jaxagent.nn.transformer import Vocabulary
from jaxagent.tokens import component
from jaxagent.tokens.patches import Patches
from jaxagent.types import Agent, Policy

NUM_BINS = 32  # of a real, among a transformer's tokens


def judge_of(env: Any, config: PPOConfig, memory: MemoryConfig | TransformerConfig) -> Judge:
    """The policy and value of a memory: towers on its features, or the action-state transformer."""
    if isinstance(memory, MemoryConfig):
        return remembering(memory, env.obs_spec, env.action_spec, config)
    return fresh_actor(env, memory).as_judge


def fresh_actor(env: Any, config: TransformerConfig) -> SequenceActor:
    """The transformer with nothing pretrained, which reads standardised observations: scalars, or patches."""
    patches, seen = None, env.obs_spec
    if config.patch:
        patches = Patches(env.obs_shape, config.patch, env.obs_dtype == jnp.uint8)
        seen = (Component("patch", "real"),) * patches.count
    (domain,) = component.domains([(seen, env.action_spec)])
    vocabulary = Vocabulary(NUM_BINS, domain.widest, domain.period, 1, patches.size if patches else 0)
    return actor_of(token_model(config, vocabulary), domain, env.action_spec, patches=patches)


def learner_and_player(
    env: Any, config: PPOConfig, memory: MemoryConfig | TransformerConfig, forget: float = 0.0
) -> tuple[Agent, Policy]:
    """PPO with a memory, and its greedy policy of `(params, moments)`.

    `forget` is the share of steps before which the memory is cleared, in both.
    """
    judge = judge_of(env, config, memory)
    agent = ppo(env.obs_spec, env.action_spec, config, judge=judge)
    policy = greedy(judge, env.action_spec)
    if forget:
        agent = agent._replace(act=cleared(agent.act, forget))
        policy = policy._replace(act=cleared(policy.act, forget))
    return agent, standardised(env, policy)


def cleared(act: Callable, share: float) -> Callable:
    """`act` of an agent or policy that takes a share of its steps for the first of an episode."""

    def act_anew(params: Any, carry: Any, obs: Any, is_first: jax.Array, key: jax.Array) -> Any:
        key_act, key_clear = jax.random.split(key)
        is_first = is_first | (jax.random.uniform(key_clear, is_first.shape) < share)
        return act(params, carry, obs, is_first, key_act)

    return act_anew


def standardised(env: Any, policy: Policy) -> Policy:
    """A policy of `(params, moments)` that sees observations standardised by the moments."""
    standardize = normalize.of_spec(env.obs_spec)

    def act(
        params: Any, carry: Any, obs: jax.Array, is_first: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Any, Any]:
        network, moments = params
        return policy.act(network, carry, standardize(moments, obs), is_first, key)

    return Policy(policy.init, act)
