"""Games of two that networks learn from search: self-play, matches against fixed opponents, and Elo."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import envs
from envs.experts import minimax
from envs.types import sample_action
from envs.vector import VectorEnv, broadcast_params
from envs.wrappers import self_play
from jaxagent import keys
from jaxagent.agents import alphazero, planning
from jaxagent.config import AlphaZeroConfig, TrunkConfig, require
from jaxagent.evaluate.matches import opposed, play_match, points
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
    return Game(config, env, task, network_of(env, config.trunk))


def self_play_loop(
    game: Any, task: Any, network: PolicyValue, plan: planning.Plan, fit: AlphaZeroConfig
) -> tuple[Loop, Any]:
    """AlphaZero's loop on a game of two, by a kind of search, and its task."""
    env, task = self_play(game, task)
    loop = loops.replay(
        alphazero.alphazero(env, network, plan, fit, symmetries=game.symmetries),
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


def network_of(env: Any, trunk: TrunkConfig) -> PolicyValue:
    """What judges positions of a game: its policy, and its result in [-1, 1]."""
    return policy_value(trunk, env.obs_shape, env.action_spec[0].cardinality, is_bounded=True)


def against_random(env: Any, policy: Policy) -> Policy:
    """A player that has the first side against uniform legal moves, as one policy of its parameters."""
    both = opposed(env, policy, random_player(env), jnp.zeros((1,), jnp.int32))

    def act(params: Any, *asked: Any) -> tuple[jax.Array, Any, Any]:
        return both.act((params, ()), *asked)

    return Policy(both.init, act)


def random_player(env: Any) -> Policy:
    """Uniform legal moves, on `types.View`."""

    def choose(key: jax.Array, state: Any, task: Any) -> jax.Array:
        return sample_action(key, (), env.legal_actions(state, task)[None])[0]

    return planning.scripted(choose)


class Matches(NamedTuple):
    """As `agents.Arena`, of a game of two: points a game against a rival, 1 for a win, 0.5 for a draw."""

    env: Any
    task: Any
    lane_keys: jax.Array  # [seeds]
    episodes: int  # games of each seed, an even number, half of them with each side
    rival: Policy
    level: Any = ()  # the rival's parameters
    opening: int = 0  # moves drawn before a match

    def returns(self, policy: Policy, params: Any) -> np.ndarray:
        """Mean points `[seeds]` of parameters `[seeds, ...]`."""
        return self.curve(policy, jax.tree.map(lambda x: x[None], params))[0]

    def curve(self, policy: Policy, snapshots: Any) -> np.ndarray:
        """Mean points `[snapshots, seeds]`, of leaves likewise."""
        tasks, sides = broadcast_params(self.task, self.episodes), (policy, self.rival)

        def one(lane: tuple[Any, jax.Array]) -> jax.Array:
            params, key = lane
            games = play_match(self.env, sides, (params, self.level), tasks, key, opening=self.opening)
            return jnp.mean(points(games.returns))

        def of_snapshot(params: Any) -> jax.Array:
            return jax.lax.map(one, (params, jax.random.clone(self.lane_keys)))

        return np.asarray(jax.jit(partial(jax.lax.map, of_snapshot))(snapshots))


def random_matches(env: Any, task: Any, seeds: Sequence[int], episodes: int, key: jax.Array) -> Matches:
    """Against random play; games of a seed depend on `key` and the seed. ValueError for an odd number."""
    return Matches(env, task, _lane_keys(seeds, episodes, key), episodes, random_player(env))


def matches(game: Game, name: str, seeds: Sequence[int], episodes: int, key: jax.Array) -> Matches:
    """Against one of a game's opponents, with its opening; likewise."""
    lane_keys, level = _lane_keys(seeds, episodes, key), game.levels[game.config.opponents.index(name)]
    return Matches(game.env, game.task, lane_keys, episodes, opponent(game), level, game.config.opening)


def _lane_keys(seeds: Sequence[int], episodes: int, key: jax.Array) -> jax.Array:
    check_even(episodes)
    return keys.per_index(key, jnp.array(tuple(seeds)))


def check_even(episodes: int) -> None:
    """Raise ValueError for games of which one would have no second leg."""
    require(episodes % 2 == 0, "episodes", episodes, "an even number", "each game is played with both sides")


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
