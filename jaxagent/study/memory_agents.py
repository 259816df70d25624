"""PPO with a memory as lanes of a study: what learns, what is played, and the memory that is cleared."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs.types import Component
from envs.vector import VectorEnv
from jaxagent.agents.actor_critic import Judge, greedy, ppo, remembering
from jaxagent.agents.sequence_actor import Way, sequence_actor, tuned
from jaxagent.config import MemoryConfig, PPOConfig, TransformerConfig
from jaxagent.nn.sequence_model import token_model
from jaxagent.nn.transformer import Vocabulary
from jaxagent.study import agents
from jaxagent.study.corpus import Corpus
from jaxagent.study.study import Fit
from jaxagent.tokens import component
from jaxagent.tokens.patches import Patches
from jaxagent.train import loops, optimizer
from jaxagent.types import Agent, Loop, Policy

NUM_BINS = 32  # of a real, among a transformer's tokens


def judge_of(env: Any, config: PPOConfig, memory: MemoryConfig | TransformerConfig) -> Judge:
    """The policy and value of a memory: towers on its features, or the action-state transformer."""
    if isinstance(memory, MemoryConfig):
        return remembering(memory, env.obs_spec, env.action_spec, config)
    patches, seen = None, env.obs_spec
    if memory.patch:
        patches = Patches(env.obs_shape, memory.patch, env.obs_dtype == jnp.uint8)
        seen = (Component("patch", "real"),) * patches.count
    (domain,) = component.domains([(seen, env.action_spec)])
    vocabulary = Vocabulary(NUM_BINS, domain.widest, domain.period, 1, patches.size if patches else 0)
    return sequence_actor(token_model(memory, vocabulary), domain, env.action_spec, patches=patches)


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
    return agent, agents.standardised(env, policy)


def cleared(act: Callable, share: float) -> Callable:
    """`act` of an agent or policy that takes a share of its steps for the first of an episode."""

    def act_anew(params: Any, carry: Any, obs: Any, is_first: jax.Array, key: jax.Array) -> Any:
        key_act, key_clear = jax.random.split(key)
        is_first = is_first | (jax.random.uniform(key_clear, is_first.shape) < share)
        return act(params, carry, obs, is_first, key_act)

    return act_anew


class Begin(NamedTuple):
    """A pretrained network that reinforcement begins with, and which part of it learns."""

    network: Any
    way: Way
    rank: int  # of adapters


def of_corpus(
    env: Any, config: PPOConfig, corpus: Corpus, index: int, begin: Begin | None
) -> tuple[Agent, Policy]:
    """PPO with the transformer of a corpus, in the units of its bins, and its greedy policy of params.

    `env` is domain `index` of the corpus; without `begin` the first parameters are random.
    """
    bins, network = corpus.tokenizers[index], None
    if begin:  # arrays of JAX, which tracers may index
        network = jax.tree.map(jnp.asarray, begin.network)
    judge = sequence_actor(corpus.model, bins.domain, env.action_spec, bins.codec, network)
    if begin:
        judge = tuned(judge, network, begin.way, begin.rank)
    return ppo(env.obs_spec, env.action_spec, config, judge=judge), greedy(judge, env.action_spec)


def fit(
    name: str,
    env: Any,
    task: Any,
    config: PPOConfig,
    agent: Agent | Callable[[Any], Agent],
    seeds: Sequence[int],
    purpose: str,
    *,
    is_normalized: bool = True,
) -> Fit:
    """One agent a seed on one task; snapshots `(params, moments)`, leaves `[chunks + 1, seeds, ...]`.

    An agent that begins with what an earlier stage learned is a function of the run's folder. Where
    observations are not normalised, snapshots are params alone.
    """
    adam = optimizer.adam(optimizer.linear_decay(config), config.max_gradient_norm)

    def loop(folder: Any) -> Loop:
        made = agent if isinstance(agent, Agent) else agent(folder)
        return loops.on_policy(made, VectorEnv(env), adam, config, is_normalized=is_normalized)

    def keep(learner: loops.Learner) -> Any:
        return (learner.params, learner.normalizer) if is_normalized else learner.params

    return agents.seeded(name, loop, task, config, seeds, purpose, keep=keep)
