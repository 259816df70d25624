"""What alphazero says: scores of its claims, preconditions, figures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.configs.alphazero import Config, GameConfig
from jaxagent.evaluate.claims import Precondition
from jaxagent.evaluate.statistics import normalise
from jaxagent.train import metrics_log
from jaxagent.train.run import read_done

ABOUT = {
    "search": "trained with Gumbel's search, plays with it",
    "raw": "the same network without search",
    "puct": "trained with PUCT from noisy priors, plays with Gumbel's search",
    "saboteur": "its search took losses for wins in training; plays with the right search",
    "untrained": "search over a random network",
}
LIMITS = [
    "A network plays one game, from its usual beginning, for minutes; it is no strong engine.",
    "All arms search equally long when they play; the raw network is cheaper by as much.",
    "Updates, learning rate and depths were chosen on development seeds (1000 and up).",
]
DRAW = 0.5  # points of a player against itself
FLOOR, CEILING = 0.4, 0.95  # of mean scores: untrained search below, the raw network below
CURVES = [
    {
        "metric": metric,
        "stages": ["train/*"],
        "title": title,
        "x": "env_steps",
        "x_label": "moves (all seeds)",
        "y_label": label,
    }
    for metric, title, label in (
        ("train/loss/policy", "How far the policy is from search", "cross-entropy, nats"),
        ("train/loss/value", "How far the value is from outcomes", "squared error"),
    )
]


def scores(config: Config, done: Mapping[str, Any]) -> dict[Any, np.ndarray]:
    """Scores `[games, seeds]` by arm; `[1, seeds]` by (metric, arm) of one game."""
    rows = {arm: np.stack([_normalised(done[g.name], arm) for g in config.games]) for arm in ABOUT}
    table: dict[Any, np.ndarray] = dict(rows)
    for name, metric, field in (
        ("tic_tac_toe", "unbeaten", "unbeaten"),
        ("connect_four", "points", "points"),
    ):
        if name in done:
            table[metric, "search"] = np.array(done[name][field]["search"])[None, :, -1]
    return table


def _normalised(game: Mapping[str, Any], arm: str) -> np.ndarray:
    """Points `[seeds]` against the reference: 0 as random play, 1 as the reference itself."""
    points = np.array(game["points"][arm])[:, -1]
    return normalise(points, game["between"][0][-1], DRAW)


def preconditions(config: Config, done: Mapping[str, Any]) -> list[Precondition]:
    """The reference is far above random play and even with itself; arms leave room."""
    table = scores(config, done)
    untrained, raw = (float(table[arm].mean()) for arm in ("untrained", "raw"))
    result = [
        Precondition(
            "search over a random network is weak",
            untrained < FLOOR,
            f"mean score {untrained:.2f}; expected below {FLOOR}",
        ),
        Precondition(
            "the raw network leaves room", raw < CEILING, f"mean score {raw:.2f}; expected below {CEILING}"
        ),
    ]
    for game in config.games:
        between = np.array(done[game.name]["between"])
        random, itself = between[0, -1], between[-1, -1]
        result += [
            Precondition(
                f"{game.name}: {game.reference} beats random play",
                random < 0.2,
                f"random play gets {random:.3f} points a game; expected below 0.2",
            ),
            Precondition(
                f"{game.name}: {game.reference} is even with itself",
                abs(itself - DRAW) < 0.1,
                f"{itself:.3f} points a game; expected 0.5 within 0.1",
            ),
        ]
    return result


def extras(config: Config, folder: Path, done: Mapping[str, Any]) -> dict[str, Any]:
    """Labels, figures and budgets of the report."""
    return {
        "score_label": "points against the reference (0: as random play, 1: as the reference)",
        "figures": [f for game in config.games for f in _figures(game, done[game.name])],
        "curves": CURVES,
        "limits": LIMITS,
        "budgets": {game.name: _budget(config, game, folder) for game in config.games},
        "throughput": {game.name: _throughput(folder, game) for game in config.games},
        "points": {game.name: done[game.name]["points"] for game in config.games},
    }


def _figures(game: GameConfig, found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Elo against moves, and who got how many points from whom."""
    elo, moves = found["ratings"]["elo"], found["ratings"]["moves"]
    lines = [{"label": f"network, {how}", "x": moves, "y": elo[how]} for how in ("search", "raw")]
    lines += [
        {"label": name, "x": [moves[0], moves[-1]], "y": [ratings] * 2, "style": "dashed"}
        for name, ratings in zip(game.opponents, elo["opponents"], strict=True)
    ]
    arms = list(found["points"])
    table = [np.mean(found["points"][arm], axis=0).tolist() for arm in reversed(arms)]
    return [
        {
            "kind": "curves",
            "title": f"Elo while learning {game.name}",
            "caption": "Random play is 0; fixed opponents dashed; a line a seed.",
            "x_label": "moves of a seed",
            "y_label": "Elo",
            "series": lines,
        },
        {
            "kind": "maps",
            "title": f"Points at {game.name}",
            "caption": "Mean over seeds and games: 1 for a win, 0.5 for a draw.",
            "panels": [{"title": game.name, "values": table}],
            "low": 0.0,
            "high": 1.0,
            "x_label": "opponent",
            "y_label": "",
            "color_label": "points a game",
            "x_ticks": list(game.opponents),
            "y_ticks": arms[::-1],
        },
    ]


def _budget(config: Config, game: GameConfig, folder: Path) -> dict[str, Any]:
    """Of one network of one seed."""
    fit = game.fit
    moves = fit.num_updates * fit.num_envs * fit.num_steps
    done = read_done(folder, f"train/{game.name}/gumbel")
    return {
        "moves": moves,
        "simulations": moves * fit.search.num_simulations,
        "updates": fit.num_updates * fit.num_epochs * fit.num_minibatches,
        "seconds_of_all_seeds": round(done["seconds"], 1),
        "seeds": config.num_seeds,
    }


def _throughput(folder: Path, game: GameConfig) -> dict[str, float]:
    """Median moves and simulations a second of training, compilation apart."""
    stage = f"train/{game.name}/gumbel"
    lines = [x for x in metrics_log.read(folder / "metrics.jsonl") if x["stage"] == stage][1:]
    if not lines:
        return {}
    moves = float(np.median([line["env_steps_per_second"] for line in lines]))
    return {"env_steps_per_second": moves, "simulations_per_second": moves * game.fit.search.num_simulations}
