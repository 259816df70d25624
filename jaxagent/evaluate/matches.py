"""Matches: two policies over whole games, each game twice with the sides changed."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxagent.evaluate.episodes import Episodes, play
from jaxagent.mcts.selection import masked_argmax
from jaxagent.types import Policy, View


def play_match(
    env: Any,
    policies: tuple[Policy, Policy],
    params: tuple[Any, Any],
    tasks: Any,
    key: jax.Array,
    *,
    opening: int = 0,
) -> Episodes:
    """One game a lane of a game of two; returns `[B]` are the first policy's, `tasks` leaves `[B, ...]`.

    Lanes 2i and 2i + 1 begin alike with sides changed, so that who begins favours nobody. The first
    `opening` moves are drawn, the same in both lanes: without them players without chance repeat
    one game. Policies act on `types.View`. Raises ValueError for an odd B or a game not of two.
    """
    batch_size = jax.tree.leaves(tasks)[0].shape[0]
    if batch_size % 2 or env.num_players != 2:
        raise ValueError(
            f"play_match: got {batch_size} games of {env.num_players} players, expected an even "
            "number of games of 2 players; each game is played with both sides."
        )
    lanes = jnp.arange(batch_size)
    seat = lanes % 2  # of the first policy
    both = opening_moves(env, opposed(env, *policies, seat), opening)
    return play(
        env, both, params, tasks, key, View, lane_ids=lanes // 2, score=lambda reward: reward[lanes, seat]
    )


def opening_moves(env: Any, policy: Policy, count: int) -> Policy:
    """`policy` after `count` uniform legal moves, which lanes 2i and 2i + 1 share; B is even."""
    if not env.is_discrete:
        raise ValueError(
            f"{env.name}: got actions {env.action_spec}, expected one category, as moves of games are."
        )
    num_actions = env.action_spec[0].cardinality

    def init(batch_size: int) -> tuple[jax.Array, Any]:
        return jnp.zeros((), jnp.int32), policy.init(batch_size)

    def act(
        params: Any, carry: tuple[jax.Array, Any], view: View, is_first: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Any, Any]:
        time, memory = carry
        key_act, key_draw = jax.random.split(key)
        action, extras, memory = policy.act(params, memory, view, is_first, key_act)
        draw = jax.random.uniform(key_draw, (view.obs.shape[0] // 2, num_actions))
        legal = jax.vmap(env.legal_actions)(view.state, view.task)
        drawn = masked_argmax(jnp.repeat(draw, 2, axis=0), ~legal)
        return jnp.where(time < count, drawn, action), extras, (time + 1, memory)

    return Policy(init, act)


def opposed(env: Any, first: Policy, second: Policy, seat: jax.Array) -> Policy:
    """Two policies as one that moves both sides: `first` is player `seat [B]` of each lane.

    Its parameters are a pair. Both are asked at every move; a policy is not told which it plays.
    """
    sides = (first, second)

    def init(batch_size: int) -> tuple[Any, ...]:
        return tuple(side.init(batch_size) for side in sides)

    def act(
        params: tuple[Any, Any], carry: tuple[Any, ...], view: View, is_first: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Any, Any]:
        asked = [
            side.act(own, memory, view, is_first, own_key)
            for side, own, memory, own_key in zip(sides, params, carry, jax.random.split(key), strict=True)
        ]
        is_first_to_move = jax.vmap(env.current_player)(view.state) == seat
        action = jnp.where(is_first_to_move, asked[0][0], asked[1][0])
        return action, (), tuple(memory for _, _, memory in asked)

    return Policy(init, act)


def points(results: jax.Array) -> jax.Array:
    """Points `[...]` of results `[...]`: 1 of a win, 1/2 of a draw, 0 of a loss."""
    return 0.5 * (1.0 + jnp.sign(results))
