"""Games of two that networks learn from search: self-play, matches against fixed opponents, and Elo."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import envs
from envs.experts import minimax
from envs.vector import VectorEnv, broadcast_params
from envs.wrappers import self_play
from jaxagent import keys
from jaxagent.agents import alphazero, planning
from jaxagent.evaluate.matches import play_match, points
from jaxagent.evaluate.ratings import elo
from jaxagent.nn.policy_value import PolicyValue, policy_value
from jaxagent.study import agents
from jaxagent.study.config import BoardGameConfig, MatchConfig
from jaxagent.train import loops, optimizer
from jaxagent.types import Loop, Policy, View

POOL = 8  # fresh games that a lane keeps ready


class Game(NamedTuple):
    """A game of two and the network that learns it."""

    config: BoardGameConfig
    env: Any
    task: Any
    network: PolicyValue

    @property
    def levels(self) -> jax.Array:
        """Of all opponents: int32 `[opponents]`."""
        return jnp.array(self.config.levels, jnp.int32)

    def key(self, purpose: str) -> jax.Array:
        """Of what is played after training."""
        return keys.derive(0, f"games/{self.config.name}/{purpose}")


def game_of(config: BoardGameConfig) -> Game:
    """Build game and network."""
    env, task = envs.make(f"pgx/{config.name}")
    num_actions = env.action_spec[0].cardinality
    return Game(config, env, task, policy_value(config.trunk, env.obs_shape, num_actions, is_bounded=True))


def self_play_loop(game: Game, plan: planning.Plan) -> tuple[Loop, Any]:
    """AlphaZero's loop on a game, by a kind of search, and its task."""
    fit = game.config.fit
    env, task = self_play(game.env, game.task)
    loop = loops.replay(
        alphazero.alphazero(env, game.network, plan, fit, symmetries=game.env.symmetries),
        VectorEnv(env, pool_size=POOL),
        optimizer.adam(optimizer.linear_decay(fit), fit.max_gradient_norm),
        fit,
        explore=alphazero.random_play(env),
        as_steps=partial(alphazero.examples, config=fit),
        slow=loops.moving_average(lambda params: (), 1.0),
        see=View,
        is_normalized=False,
        in_turn=True,
    )
    return loop, task


def opponent(game: Game) -> Policy:
    """The player whose parameter is its level: 0 draws legal moves, others search as deep."""

    def choose(level: jax.Array, key: jax.Array, state: Any, task: Any) -> jax.Array:
        if game.config.name == "tic_tac_toe":
            scores = minimax.tic_tac_toe(state, task)
        else:
            depth, deepest = jnp.maximum(level, 1), game.config.levels[-1]
            scores = minimax.connect_four(state, task, depth=depth, deepest=deepest)
        equal = jnp.where(jnp.isfinite(scores), 0.0, scores)
        return minimax.best(jnp.where(level > 0, scores, equal), key)

    def act(level: jax.Array, *asked: Any) -> tuple:
        return planning.scripted(partial(choose, level)).act((), *asked)

    return Policy(lambda batch_size: (), act)


def player(match: MatchConfig, game: Game, how: str) -> Policy:
    """A network as a player: with "search", or "raw", both without chance."""
    plan = planning.no_search(is_greedy=True)
    if how == "search":
        plan = planning.gumbel_search(match.search, gumbel_scale=0.0)
    return planning.planner(game.env, game.network, plan, discount=game.config.fit.discount)


def results(game: Game, policy: Policy, params: Any, num_games: int, match_keys: jax.Array) -> np.ndarray:
    """Points `[N, opponents, games]` of N networks, each under its key of `match_keys [N]`."""
    tasks, sides = broadcast_params(game.task, num_games), (policy, opponent(game))
    play = partial(play_match, game.env, sides, tasks=tasks, opening=game.config.opening)

    def against_all(lane: tuple[Any, jax.Array]) -> jax.Array:
        network, key = lane

        def match(level: jax.Array) -> jax.Array:
            return points(play((network, level), key=jax.random.clone(key)).returns)

        return jax.lax.map(match, game.levels)

    return np.asarray(jax.jit(partial(jax.lax.map, against_all))((params, match_keys)))


def between_opponents(match: MatchConfig, game: Game) -> np.ndarray:
    """Mean points `[opponents, opponents]` of opponents against each other, the row's."""
    match_keys = keys.per_index(game.key("between"), jnp.arange(len(game.levels)))
    return results(game, opponent(game), game.levels, 2 * match.games, match_keys).mean(-1)


def rate_snapshots(
    match: MatchConfig, game: Game, networks: Any, between: np.ndarray, seeds: Sequence[int]
) -> dict[str, Any]:
    """Elo of even snapshots of networks `[snapshots, seeds, ...]`, by way of `between_opponents`."""
    fit = game.config.fit
    rows = agents.even_rows(fit.num_chunks, match.num_snapshots)
    chosen = jax.tree.map(lambda x: x[rows].reshape(-1, *x.shape[2:]), networks)
    of_seeds = jnp.tile(keys.per_index(game.key("rating"), jnp.array(tuple(seeds))), len(rows))
    won = {}
    for how in ("search", "raw"):
        points = results(game, player(match, game, how), chosen, match.rating_games, of_seeds)
        won[how] = points.reshape(len(rows), len(seeds), *points.shape[1:])
    return {"moves": agents.env_steps_at(rows, fit), "elo": ratings(won, between, 2 * match.games)}


def ratings(points: dict[str, np.ndarray], between: np.ndarray, num_between: int) -> dict[str, Any]:
    """Elo of snapshots `[snapshots][seeds]` by way of playing, and of the opponents, random 0.

    `points[how]` are `[snapshots, seeds, opponents, games]`; opponents had `num_between` games with
    each other. Each seed has its own table.
    """
    num_snapshots, num_seeds, num_opponents, num_games = points["raw"].shape
    size = num_opponents + len(points) * num_snapshots
    by_seed = []
    for seed in range(num_seeds):
        won, games = np.zeros((size, size)), np.zeros((size, size))
        won[:num_opponents, :num_opponents] = between * num_between
        games[:num_opponents, :num_opponents] = num_between
        won[num_opponents:, :num_opponents] = np.concatenate([p[:, seed].sum(-1) for p in points.values()])
        games[num_opponents:, :num_opponents] = num_games
        opponents, *snapshots = np.split(elo(won, games, anchor=0), range(num_opponents, size, num_snapshots))
        by_seed.append(dict(zip(points, snapshots, strict=True)) | {"opponents": opponents})
    return {name: np.stack([one[name] for one in by_seed], axis=-1).tolist() for name in by_seed[0]}
