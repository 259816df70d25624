"""Elo of the snapshots of a game's networks, from matches against fixed opponents."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.configs.alphazero import Config
from experiments.parts import experts, game_study
from experiments.parts.game_study import Setting
from jaxagent import keys
from jaxagent.evaluate.ratings import elo


def rate_snapshots(config: Config, setting: Setting, networks: Any, between: np.ndarray) -> dict[str, Any]:
    """Elo of even snapshots of networks `[snapshots, seeds, ...]`, with search and without.

    `between` is of `game_study.references`.
    """
    fit, name = setting.config.fit, setting.config.name
    last = fit.num_updates // fit.updates_per_chunk
    rows = experts.even_rows(last, config.evaluation.num_snapshots)
    chosen = jax.tree.map(lambda x: x[rows].reshape(-1, *x.shape[2:]), networks)
    own = jnp.array(experts.seeds_of(config))
    of_seeds = jnp.tile(keys.per_index(keys.derive(0, f"games/{name}/rating"), own), len(rows))
    found = {}
    for how in ("search", "raw"):
        player = game_study.player(config, setting, how)
        num_games = config.evaluation.rating_games
        got = game_study.results(setting, player, chosen, num_games, of_seeds)
        found[how] = got.reshape(len(rows), config.num_seeds, *got.shape[1:])
    moves = rows * fit.updates_per_chunk * fit.num_envs * fit.num_steps
    return {"moves": moves.tolist(), "elo": ratings(config, setting, found, between)}


def ratings(
    config: Config, setting: Setting, found: dict[str, np.ndarray], between: np.ndarray
) -> dict[str, Any]:
    """Elo of snapshots `[snapshots][seeds]` by way of playing, and of the opponents, random 0.

    `found[how]` are points `[snapshots, seeds, opponents, games]`. Each seed has its own table.
    """
    num_opponents, num_games = found["raw"].shape[2:]
    hows, num_snapshots = list(found), found["raw"].shape[0]
    size = num_opponents + len(hows) * num_snapshots
    table = {how: [] for how in hows} | {"opponents": []}
    for seed in range(config.num_seeds):
        won, games = np.zeros((size, size)), np.zeros((size, size))
        won[:num_opponents, :num_opponents] = between * 2 * config.evaluation.games
        games[:num_opponents, :num_opponents] = 2 * config.evaluation.games
        mine = np.concatenate([found[how][:, seed].sum(-1) for how in hows])
        won[num_opponents:, :num_opponents] = mine
        games[num_opponents:, :num_opponents] = num_games
        rated = elo(won, games, anchor=0)
        table["opponents"].append(rated[:num_opponents].tolist())
        parts = rated[num_opponents:].reshape(len(hows), num_snapshots)
        for how, part in zip(hows, parts, strict=True):
            table[how].append(part.tolist())
    return {name: np.transpose(rows).tolist() for name, rows in table.items()}
