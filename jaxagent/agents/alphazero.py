"""AlphaZero: the network learns what search with the true environment found."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs.types import Symmetries, sample_action
from jaxagent.agents.actions import num_categories
from jaxagent.agents.planning import Plan, decide
from jaxagent.config import AlphaZeroConfig
from jaxagent.mcts.selection import mask_invalid
from jaxagent.nn.policy_value import PolicyValue
from jaxagent.objectives.policy import cross_entropy
from jaxagent.objectives.returns import lambda_returns
from jaxagent.objectives.sequence import weighted_mean
from jaxagent.types import Agent, Trajectory, View


class AlphaZeroBatch(NamedTuple):
    """Env steps for the AlphaZero loss, of any leading axes."""

    obs: jax.Array  # [..., *obs_shape]
    legal: jax.Array  # [..., A] bool
    weights: jax.Array  # [..., A]: the policy that search found
    target: jax.Array  # [...] of the value
    has_target: jax.Array  # [...] float32: 0 where the rollout ended before it was known


def alphazero(
    env: Any,
    network: PolicyValue,
    plan: Plan,
    config: AlphaZeroConfig,
    *,
    symmetries: Symmetries | None = None,
) -> Agent:
    """AlphaZero (Silver et al. 2018); with `planning.gumbel_search` Gumbel AlphaZero.

    `env` has one agent (`envs.wrappers.self_play` for a game of two) whose observation is the
    mover's; the agent acts on `types.View` and counts the moves of a game in its carry. It learns from
    a replay of `examples`, each shown under a symmetry of the board that is drawn anew. With trace 1
    and games that fit a rollout the value learns their outcomes; games that go on when the rollout ends
    bootstrap from the last search.

    Differs: Adam without weight decay; a share `config.exploration` of the first `config.num_explored`
    moves of a game are uniform, where the paper draws them by visits; the value of the better policy
    stands for the return of a position left by such a move (as Watkins 1989 cuts).
    Raises ValueError for actions that are not one category.
    """
    num_categories("AlphaZero", env.action_spec, "for others search over samples (`mcts.sampled_model`)")

    def act(
        params: Any, moves: jax.Array, view: View, is_first: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array], jax.Array]:
        moves = jnp.where(is_first, 0, moves)
        key_plan, key_explore = jax.random.split(key)
        decision = decide(env, network, plan, config.discount, params, view, key_plan)
        legal = jax.vmap(env.legal_actions)(view.state, view.task)
        share = jnp.where(moves < config.num_explored, config.exploration, 0.0)
        action, is_explored = explore(key_explore, decision.action, legal, share)
        extras = _extras(env, view, decision.weights, decision.value, legal, is_explored)
        return action, extras, moves + 1

    def targets(params: Any, slow: Any, batch: AlphaZeroBatch, key: jax.Array) -> AlphaZeroBatch:
        del params, slow
        return batch if symmetries is None else turned(batch, symmetries, key)

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
            "train/has_target": jnp.mean(batch.has_target),
        }

    return Agent(network.init, act, targets, loss, lambda batch_size: jnp.zeros((batch_size,), jnp.int32))


def random_play(env: Any) -> Callable:
    """A function like `agent.act` without parameters that draws legal moves, to fill the replay first.

    Outcomes are targets of the value, a draw where the rollout ends before the game does; what search
    would have chosen is any legal move. Self-play overwrites all of it.
    """

    def act(
        moves: jax.Array, view: View, is_first: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array], jax.Array]:
        legal, never = jax.vmap(env.legal_actions)(view.state, view.task), jnp.zeros(is_first.shape, bool)
        weights = legal.astype(jnp.float32) / jnp.sum(legal, axis=-1, keepdims=True, dtype=jnp.float32)
        extras = _extras(env, view, weights, jnp.zeros(is_first.shape), legal, never)
        return sample_action(key, (), legal), extras, jnp.where(is_first, 0, moves) + 1

    return act


def _extras(
    env: Any, view: View, weights: jax.Array, value: jax.Array, legal: jax.Array, is_explored: jax.Array
) -> dict[str, jax.Array]:
    player = jax.vmap(env.current_player)(view.state)
    return {"weights": weights, "value": value, "player": player, "legal": legal, "is_explored": is_explored}


def examples(trajectory: Trajectory, config: AlphaZeroConfig) -> AlphaZeroBatch:
    """What the replay keeps of a trajectory `[s, T, b]` of self-play: positions with their targets."""
    extras = trajectory.extras
    values = partial(value_targets, discount=config.discount, trace=config.trace)
    target, has_target = jax.vmap(values)(trajectory)
    return AlphaZeroBatch(
        trajectory.obs, extras["legal"], extras["weights"], target, has_target.astype(jnp.float32)
    )


def turned(batch: AlphaZeroBatch, symmetries: Symmetries, key: jax.Array) -> AlphaZeroBatch:
    """Positions `[b, ...]`, each under one of the game's symmetries: boards, moves and what search chose."""
    which = jax.random.randint(key, batch.target.shape, 0, symmetries.cells.shape[0])
    cells, moves = (jnp.asarray(table)[which] for table in symmetries)
    boards = batch.obs.reshape(*which.shape, cells.shape[-1], -1)
    turn = partial(jnp.take_along_axis, axis=1)
    return batch._replace(
        obs=turn(boards, cells[..., None]).reshape(batch.obs.shape),
        legal=turn(batch.legal, moves),
        weights=turn(batch.weights, moves),
    )


def explore(
    key: jax.Array, action: jax.Array, legal: jax.Array, share: float | jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Replace a share (`[]`, `[B]`) of actions `[B]` by uniform ones of `legal [B, A]`; also which, bool."""
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
