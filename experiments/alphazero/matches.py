"""Matches of networks against fixed opponents, and Elo of what they were while they learned."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import envs
from envs.experts import minimax
from envs.vector import broadcast_params
from experiments.alphazero.config import Config, GameConfig
from jaxagent import keys
from jaxagent.agents import planning
from jaxagent.evaluate.matches import play_match, points
from jaxagent.evaluate.ratings import elo
from jaxagent.nn.policy_value import PolicyValue, policy_value
from jaxagent.study import agents
from jaxagent.types import Policy, View

gumbel_search = partial(planning.gumbel_search, qtransform=planning.results_as_they_are)


class Game(NamedTuple):
    """A game of two and the network that learns it."""

    config: GameConfig
    env: Any
    task: Any
    network: PolicyValue


def game_of(config: GameConfig) -> Game:
    """Build game and network."""
    env, task = envs.make(f"pgx/{config.name}")
    num_actions = env.action_spec[0].cardinality
    return Game(config, env, task, policy_value(config.trunk, env.obs_shape, num_actions, is_bounded=True))


def opponent(game: Game) -> Policy:
    """The player whose parameter is its level: 0 draws legal moves, others search as deep."""
    look_ahead = {
        "tic_tac_toe": lambda state, task, level: minimax.tic_tac_toe(state, task),
        "connect_four": partial(_alpha_beta, game.config.levels[-1]),
    }[game.config.name]

    def act(level: jax.Array, carry: Any, view: View, is_first: jax.Array, key: jax.Array) -> tuple:
        del is_first

        def one(key: jax.Array, state: Any, task: Any) -> jax.Array:
            scores = look_ahead(state, task, level)
            flat = jnp.where(jnp.isfinite(scores), 0.0, scores)
            return minimax.best(jnp.where(level > 0, scores, flat), key)

        lane_keys = jax.random.split(key, view.obs.shape[0])
        return jax.vmap(one)(lane_keys, view.state, view.task), (), carry

    return Policy(lambda batch_size: (), act)


def _alpha_beta(deepest: int, state: Any, task: Any, level: jax.Array) -> jax.Array:
    return minimax.connect_four(state, task, depth=jnp.maximum(level, 1), deepest=deepest)


def player(config: Config, game: Game, how: str) -> Policy:
    """A network as a player: with "search", or "raw", both without chance."""
    plan = planning.no_search(is_greedy=True)
    if how == "search":
        plan = gumbel_search(config.evaluation.search, gumbel_scale=0.0)
    return planning.planner(game.env, game.network, plan, discount=game.config.fit.discount)


def results(game: Game, policy: Policy, params: Any, num_games: int, match_keys: jax.Array) -> np.ndarray:
    """Points `[N, opponents, games]` of N networks, each under its key of `match_keys [N]`."""
    tasks = broadcast_params(game.task, num_games)
    sides = policy, opponent(game)
    levels = jnp.array(game.config.levels, jnp.int32)

    def against_all(lane: tuple[Any, jax.Array]) -> jax.Array:
        network, key = lane

        def match(level: jax.Array) -> jax.Array:
            both, opening = (network, level), game.config.opening
            return points(
                play_match(game.env, sides, both, tasks, jax.random.clone(key), opening=opening).returns
            )

        return jax.lax.map(match, levels)

    return np.asarray(jax.jit(lambda p: jax.lax.map(against_all, p))((params, match_keys)))


def between_opponents(config: Config, game: Game, key: jax.Array) -> np.ndarray:
    """Mean points `[opponents, opponents]` of opponents against each other, the row's."""
    num_games = 2 * config.evaluation.games
    levels = jnp.array(game.config.levels, jnp.int32)
    match_keys = keys.per_index(key, jnp.arange(len(levels)))
    return results(game, opponent(game), levels, num_games, match_keys).mean(-1)


def rate_snapshots(config: Config, game: Game, networks: Any, between: np.ndarray) -> dict[str, Any]:
    """Elo of even snapshots of networks `[snapshots, seeds, ...]`, with search and without.

    `between` is of `between_opponents`.
    """
    fit, seeds = game.config.fit, jnp.array(tuple(config.seeds))
    rows = agents.even_rows(fit.num_chunks, config.evaluation.num_snapshots)
    chosen = jax.tree.map(lambda x: x[rows].reshape(-1, *x.shape[2:]), networks)
    key = keys.derive(0, f"games/{game.config.name}/rating")
    of_seeds = jnp.tile(keys.per_index(key, seeds), len(rows))
    found = {}
    for how in ("search", "raw"):
        got = results(game, player(config, game, how), chosen, config.evaluation.rating_games, of_seeds)
        found[how] = got.reshape(len(rows), len(seeds), *got.shape[1:])
    moves = (rows * fit.env_steps_per_chunk).tolist()
    return {"moves": moves, "elo": ratings(found, between, 2 * config.evaluation.games)}


def ratings(found: dict[str, np.ndarray], between: np.ndarray, num_between: int) -> dict[str, Any]:
    """Elo of snapshots `[snapshots][seeds]` by way of playing, and of the opponents, random 0.

    `found[how]` are points `[snapshots, seeds, opponents, games]`; opponents had `num_between` games
    with each other. Each seed has its own table.
    """
    num_snapshots, num_seeds, num_opponents, num_games = found["raw"].shape
    size = num_opponents + len(found) * num_snapshots
    table = {how: [] for how in found} | {"opponents": []}
    for seed in range(num_seeds):
        won, games = np.zeros((size, size)), np.zeros((size, size))
        won[:num_opponents, :num_opponents] = between * num_between
        games[:num_opponents, :num_opponents] = num_between
        won[num_opponents:, :num_opponents] = np.concatenate([x[:, seed].sum(-1) for x in found.values()])
        games[num_opponents:, :num_opponents] = num_games
        rated = elo(won, games, anchor=0)
        table["opponents"].append(rated[:num_opponents].tolist())
        for how, part in zip(found, rated[num_opponents:].reshape(len(found), num_snapshots), strict=True):
            table[how].append(part.tolist())
    return {name: np.transpose(rows).tolist() for name, rows in table.items()}
