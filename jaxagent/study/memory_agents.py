"""PPO with a memory as lanes of a study, from random parameters or from what was pretrained."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs.vector import VectorEnv
from jaxagent.agents.actor_critic import greedy, ppo
from jaxagent.agents.sequence_actor import Way, sequence_actor, tuned
from jaxagent.config import PPOConfig
from jaxagent.study import agents
from jaxagent.study.corpus import Corpus
from jaxagent.study.study import Fit
from jaxagent.train import loops, optimizer
from jaxagent.types import Agent, Loop, Policy


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
    given: Callable[[Any], Any] | None = None,
    is_normalized: bool = True,
    in_turn: bool = False,
) -> Fit:
    """One agent a seed on one task; snapshots `(params, moments)`, leaves `[chunks + 1, seeds, ...]`.

    An agent that begins with what an earlier stage learned is a function of the run's folder, and so is
    what each seed's own is `given` (`agents.seeded`). Where observations are not normalised, snapshots
    are params alone. `in_turn`: lanes and shards one after another, for who searches.
    """
    adam = optimizer.adam(optimizer.linear_decay(config), config.max_gradient_norm)

    def loop(folder: Any) -> Loop:
        made = agent if isinstance(agent, Agent) else agent(folder)
        options = {"is_normalized": is_normalized, "in_turn": in_turn}
        return loops.on_policy(made, VectorEnv(env), adam, config, **options)

    def keep(learner: loops.Learner) -> Any:
        return (learner.params, learner.normalizer) if is_normalized else learner.params

    more = {"keep": keep, "given": given, "in_turn": in_turn}
    return agents.seeded(name, loop, task, config, seeds, purpose, **more)
