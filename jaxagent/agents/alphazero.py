"""AlphaZero: the network learns what search with the true environment found."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs.types import sample_action
from jaxagent.agents.actions import num_categories
from jaxagent.agents.planning import Plan, decide
from jaxagent.config import AlphaZeroConfig
from jaxagent.mcts.selection import mask_invalid
from jaxagent.nn.policy_value import PolicyValue
from jaxagent.objectives.policy import cross_entropy
from jaxagent.objectives.returns import lambda_returns
from jaxagent.objectives.sequence import weighted_mean
from jaxagent.types import Agent, Trajectory, View, steps_of


class AlphaZeroBatch(NamedTuple):
    """Env steps for the AlphaZero loss, of any leading axes."""

    obs: jax.Array  # [..., *obs_shape]
    legal: jax.Array  # [..., A] bool
    weights: jax.Array  # [..., A]: the policy that search found
    target: jax.Array  # [...] of the value
    has_target: jax.Array  # [...] float32: 0 where the rollout ended before it was known


def alphazero(env: Any, network: PolicyValue, plan: Plan, config: AlphaZeroConfig) -> Agent:
    """AlphaZero (Silver et al. 2018); with `planning.gumbel_search` Gumbel AlphaZero.

    `env` has one agent (`envs.wrappers.self_play` for a game of two) whose observation is the
    mover's; the agent acts on `types.View`. With trace 1 and games that fit a rollout the value
    learns their outcomes; games that go on when the rollout ends bootstrap from the last search.

    Differs: on-policy, without a replay of past games; Adam without weight decay; no symmetries;
    `config.exploration` of the moves are uniform, as self-play that has learned to draw meets few
    positions; the value of the better policy then stands for the return (as Watkins 1989 cuts).
    Raises ValueError for actions that are not one category.
    """
    num_categories("AlphaZero", env.action_spec, "for others search over samples (`mcts.sampled_model`)")

    def act(
        params: Any, carry: Any, view: View, is_first: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array], Any]:
        del is_first
        key_plan, key_explore = jax.random.split(key)
        decision = decide(env, network, plan, config.discount, params, view, key_plan)
        legal = jax.vmap(env.legal_actions)(view.state, view.task)
        action, is_explored = explore(key_explore, decision.action, legal, config.exploration)
        extras = {
            "weights": decision.weights,
            "value": decision.value,
            "player": jax.vmap(env.current_player)(view.state),
            "legal": legal,
            "is_explored": is_explored,
        }
        return action, extras, carry

    def targets(params: Any, carry: Any, trajectory: Trajectory, average: Callable) -> AlphaZeroBatch:
        del params, carry, average
        extras = trajectory.extras
        values = partial(value_targets, discount=config.discount, trace=config.trace)
        target, is_known = jax.vmap(values)(trajectory)
        batch = AlphaZeroBatch(
            trajectory.obs, extras["legal"], extras["weights"], target, is_known.astype(jnp.float32)
        )
        return jax.tree.map(steps_of, batch)

    def loss(params: Any, batch: AlphaZeroBatch) -> tuple[jax.Array, dict[str, jax.Array]]:
        logits, value = network(params, batch.obs)
        logits = mask_invalid(logits, ~batch.legal)
        policy_loss = jnp.mean(cross_entropy(logits, batch.weights))
        value_loss = weighted_mean(jnp.square(value - batch.target), batch.has_target)
        entropy = jnp.mean(cross_entropy(logits, jax.nn.softmax(logits)))
        return policy_loss + config.value_weight * value_loss, {
            "train/loss/policy": policy_loss,
            "train/loss/value": value_loss,
            "train/entropy": entropy,
            "train/entropy/search": jnp.mean(_entropy(batch.weights)),
        }

    return Agent(network.init, act, targets, loss)


def explore(key: jax.Array, action: jax.Array, legal: jax.Array, share: float) -> tuple[jax.Array, jax.Array]:
    """Replace a share of actions `[B]` by uniform ones of `legal [B, A]`; also which were, bool `[B]`."""
    key_choose, key_draw = jax.random.split(key)
    is_explored = jax.random.uniform(key_choose, action.shape) < share
    drawn = sample_action(key_draw, (), legal)
    return jnp.where(is_explored, drawn, action), is_explored


def value_targets(trajectory: Trajectory, *, discount: float, trace: float) -> tuple[jax.Array, jax.Array]:
    """Returns `[T, B]` of each mover, and whether they say more than the step's own search, bool `[T, B]`.

    A step after which the rollout or the clock stops, or whose action was not the search's, has
    nothing to learn from: its search's value stands for its return, and the steps before bootstrap
    from it.
    """
    extras = trajectory.extras
    is_last = jnp.arange(trajectory.reward.shape[0])[:, None] == trajectory.reward.shape[0] - 1
    is_open = (is_last | trajectory.truncated) & ~trajectory.terminated | extras["is_explored"]
    next_player, next_value = (jnp.roll(extras[name], -1, axis=0) for name in ("player", "value"))
    sign = jnp.where(next_player == extras["player"], discount, -discount)
    ends = trajectory.terminated | is_open
    returns = lambda_returns(
        jnp.where(is_open, extras["value"], trajectory.reward),
        jnp.where(ends, 0.0, sign),
        next_value,
        trace=trace,
    )
    return returns, ~is_open


def _entropy(probs: jax.Array) -> jax.Array:
    return -jnp.sum(jax.scipy.special.xlogy(probs, probs), axis=-1)
