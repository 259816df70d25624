"""Monte Carlo tree search as mctx has it: `import jaxagent.mcts as mctx`; for ties `tie_break="mctx"`.

Trees are mctx's node for node where no two scores are equal. Where some are, as in a model whose priors
and values are all 0, mctx draws at every level of a walk, and ours once a simulation, which is faster and
as fair: pass `tie_break="mctx"` to `muzero_policy`, `stochastic_muzero_policy` or `search` for its trees.
"""

from jaxagent.mcts.base import (
    ChanceRecurrentFnOutput,
    DecisionRecurrentFnOutput,
    InteriorActionSelectionFn,
    LoopFn,
    PolicyOutput,
    QTransform,
    RecurrentFn,
    RecurrentFnOutput,
    RecurrentState,
    RootActionSelectionFn,
    RootFnOutput,
)
from jaxagent.mcts.policies import gumbel_muzero_policy, muzero_policy, stochastic_muzero_policy
from jaxagent.mcts.qtransforms import (
    qtransform_by_min_max,
    qtransform_by_parent_and_siblings,
    qtransform_completed_by_mix_value,
)
from jaxagent.mcts.reuse import subtree
from jaxagent.mcts.rollouts import rollout_model, rollout_value, uct_policy
from jaxagent.mcts.sampled import Samples, chosen, merge_copies, sampled_model, sampled_root
from jaxagent.mcts.search import search
from jaxagent.mcts.selection import (
    GumbelMuZeroExtraData,
    gumbel_muzero_interior_action_selection,
    gumbel_muzero_root_action_selection,
    muzero_action_selection,
    ucb1_action_selection,
)
from jaxagent.mcts.tree import SearchSummary, Tree

__all__ = [
    "ChanceRecurrentFnOutput",
    "DecisionRecurrentFnOutput",
    "GumbelMuZeroExtraData",
    "InteriorActionSelectionFn",
    "LoopFn",
    "PolicyOutput",
    "QTransform",
    "RecurrentFn",
    "RecurrentFnOutput",
    "RecurrentState",
    "RootActionSelectionFn",
    "RootFnOutput",
    "Samples",
    "SearchSummary",
    "Tree",
    "chosen",
    "gumbel_muzero_interior_action_selection",
    "gumbel_muzero_policy",
    "gumbel_muzero_root_action_selection",
    "merge_copies",
    "muzero_action_selection",
    "muzero_policy",
    "qtransform_by_min_max",
    "qtransform_by_parent_and_siblings",
    "qtransform_completed_by_mix_value",
    "rollout_model",
    "rollout_value",
    "sampled_model",
    "sampled_root",
    "search",
    "stochastic_muzero_policy",
    "subtree",
    "ucb1_action_selection",
    "uct_policy",
]
