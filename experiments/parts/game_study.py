"""Games of two: training by self-play in lanes of seeds, and matches against fixed opponents."""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import envs
from envs.experts import minimax
from envs.vector import VectorEnv, broadcast_params
from envs.wrappers import self_play
from experiments.configs.alphazero import Config, GameConfig
from experiments.parts import experts, pictures
from experiments.parts.cost import Cost
from jaxagent import keys
from jaxagent.agents import planning
from jaxagent.agents.alphazero import alphazero
from jaxagent.evaluate.episodes import record
from jaxagent.evaluate.matches import opposed, play_match, points
from jaxagent.nn.policy_value import PolicyValue, policy_value
from jaxagent.nn.transformer import num_parameters
from jaxagent.train import loops, optimizer
from jaxagent.train.run import Work, stage_folder
from jaxagent.types import Policy, View

TRAINED = ("gumbel", "puct", "saboteur")  # networks
POOL = 8  # fresh games that a lane keeps ready
gumbel_search = partial(planning.gumbel_search, qtransform=planning.results_as_they_are)


class Setting(NamedTuple):
    """One game and the network that learns it."""

    config: GameConfig
    env: Any  # of two players
    task: Any
    network: PolicyValue


def setting_of(config: GameConfig) -> Setting:
    """Build game and network."""
    env, task = envs.make(f"pgx/{config.name}")
    num_actions = env.action_spec[0].cardinality
    network = policy_value(config.trunk, env.obs_shape, num_actions, is_bounded=True)
    return Setting(config, env, task, network)


def algorithm_of(setting: Setting, name: str) -> experts.Algorithm:
    """How a network of `TRAINED` learns; the saboteur's search takes a loss for a win."""
    env, _ = self_play(setting.env, setting.task)
    fit = setting.config.fit
    plan = {
        "gumbel": gumbel_search(fit.search),
        "puct": planning.puct_search(fit.search, qtransform=planning.values_of_games),
        "saboteur": planning.taking_losses_for_wins(gumbel_search(fit.search)),
    }[name]
    agent = alphazero(env, setting.network, plan, fit)
    optimiser = optimizer.adam(optimizer.linear_decay(fit), fit.max_gradient_norm)
    vector = VectorEnv(env, pool_size=POOL)
    loop = loops.on_policy(agent, vector, optimiser, fit, see=View, is_normalized=False, in_turn=True)
    return experts.Algorithm(agent, loop, lambda x: x.params, fit.num_envs * fit.num_steps)


def train(config: Config, game: GameConfig, name: str) -> Work:
    """One lane a seed; networks of a seed begin alike and draw alike."""
    setting = setting_of(game)
    _, task = self_play(setting.env, setting.task)
    return experts.train_seeds(
        algorithm_of(setting, name),
        task,
        game.fit,
        experts.seeds_of(config),
        f"games/{game.name}",
        config.runtime.devices,
        in_turn=True,  # a search copies its trees under vmap
    )


def snapshots(config: Config, setting: Setting, name: str, folder: Path) -> Any:
    """Networks `[snapshots, seeds, ...]`, the first untrained."""
    place = stage_folder(folder, f"train/{setting.config.name}/{name}")
    init, fit = setting.network.init, setting.config.fit
    return experts.load_lanes(place, init, fit, config.num_seeds)


def opponent(setting: Setting) -> Policy:
    """The player whose parameter is its level: 0 draws legal moves, others search as deep."""
    look_ahead = {
        "tic_tac_toe": lambda state, task, level: minimax.tic_tac_toe(state, task),
        "connect_four": partial(_alpha_beta, setting.config.levels[-1]),
    }[setting.config.name]

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


def player(config: Config, setting: Setting, how: str) -> Policy:
    """A network as a player: with "search", or "raw", both without chance."""
    plan = planning.no_search(is_greedy=True)
    if how == "search":
        plan = gumbel_search(config.evaluation.search, gumbel_scale=0.0)
    discount = setting.config.fit.discount
    return planning.planner(setting.env, setting.network, plan, discount=discount)


def results(
    setting: Setting, policy: Policy, params: Any, num_games: int, match_keys: jax.Array
) -> np.ndarray:
    """Points `[N, opponents, games]` of N networks, each under its key of `match_keys [N]`."""
    tasks = broadcast_params(setting.task, num_games)
    sides = policy, opponent(setting)
    levels = jnp.array(setting.config.levels, jnp.int32)

    def against_all(network: tuple[Any, jax.Array]) -> jax.Array:
        own, key = network

        def match(level: jax.Array) -> jax.Array:
            both, opening = (own, level), setting.config.opening
            games = play_match(setting.env, sides, both, tasks, jax.random.clone(key), opening=opening)
            return points(games.returns)

        return jax.lax.map(match, levels)

    return np.asarray(jax.jit(lambda p: jax.lax.map(against_all, p))((params, match_keys)))


def references(config: Config, setting: Setting, key: jax.Array) -> np.ndarray:
    """Mean points `[opponents, opponents]` of opponents against each other, the row's."""
    num_games = 2 * config.evaluation.games
    levels = jnp.array(setting.config.levels, jnp.int32)
    match_keys = keys.per_index(key, jnp.arange(len(levels)))
    return results(setting, opponent(setting), levels, num_games, match_keys).mean(-1)


def cost(config: Config, game: GameConfig, name: str) -> Cost:
    """What training takes: the network, once a simulation and three times a fitted move."""
    setting = setting_of(game)
    size = num_parameters(jax.eval_shape(setting.network.init, jax.random.key(0)))
    places = int(np.prod(setting.env.obs_shape[:2])) if game.trunk.channels else 1
    fit = game.fit
    moves = fit.num_envs * fit.num_steps * fit.num_updates * config.num_seeds
    passes = fit.search.num_simulations + 1 + 3 * fit.num_epochs
    nodes = fit.num_envs * fit.search.num_simulations * setting.env.action_spec[0].cardinality
    return Cost(
        f"train/{game.name}/{name}", size, 2.0 * size * places * moves * passes, 20.0 * nodes, 0.15, 20.0
    )


def paint(config: Config, setting: Setting, networks: Any, folder: Path) -> None:
    """A game of the first seed's network, with search, against the reference."""
    env, task = setting.env, setting.task
    both = jax.tree.map(lambda x: x[0], networks), jnp.int32(setting.config.levels[-1])
    sides = player(config, setting, "search"), opponent(setting)
    table = opposed(env, *sides, jnp.zeros((1,), jnp.int32))
    key = keys.derive(0, f"games/{setting.config.name}/picture")
    show = jax.jit(lambda p, k: record(env, table, p, task, k, env.max_steps, View))
    states, rewards, num_moves = jax.device_get(show(both, key))
    path = folder / "pictures" / f"search--{setting.config.name}.gif"
    label = f"0: search, 1: {setting.config.reference} "
    episode = states, rewards[:, 0], num_moves
    pictures.write_episode(path, env, jax.device_get(task), episode, label, fps=1)
