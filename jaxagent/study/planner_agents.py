"""The agent of all parts as lanes of a study: on an environment, fresh or from what was pretrained."""

from typing import Any

from jaxagent.agents.memory_policy import fresh_actor
from jaxagent.agents.predictive_actor import PredictiveActor
from jaxagent.agents.sequence_actor import SequenceActor
from jaxagent.agents.sequence_planner import SequencePlanner
from jaxagent.config import SequencePlannerConfig, TransformerConfig
from jaxagent.nn.token_dynamics import dynamics


def planner_of(env: Any, config: SequencePlannerConfig, model: TransformerConfig) -> SequencePlanner:
    """The agent with a fresh transformer, which reads standardised observations."""
    return planner_on(fresh_actor(env, model), config)


def planner_on(actor: SequenceActor, config: SequencePlannerConfig) -> SequencePlanner:
    """The agent on a transformer that acts."""
    model, size = actor.model, actor.domain.action_size
    heard = dynamics(model.vocabulary, model.config.width, size, config.projection_size)
    return SequencePlanner(PredictiveActor(actor, heard), config)
