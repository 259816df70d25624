"""What atari100k says: human-normalised scores, set beside what was published game by game."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from envs.atari import ATARI_100K, SPR
from experiments.configs.atari100k import Config
from jaxagent.evaluate import statistics
from jaxagent.evaluate.claims import Precondition
from jaxagent.train import metrics_log
from jaxagent.train.run import read_done

REACHED = 0.95  # level of the interval in which a published score has to lie, or below
LIMITS = [
    "The published scores are means over 100 runs with ale-py's predecessor; the adapter's page "
    "(envs/adapters/ale.py) lists how its frames and no-ops differ.",
    "Layer normalisation stands in for batch normalisation in the transition.",
]
CURVES = [
    {
        "metric": "train/return", "stages": ["train/*"], "title": "Return of games in training",
        "x": "env_steps", "x_label": "agent steps (all seeds)", "y_label": "return",
    },
    {
        "metric": "train/loss/spr", "stages": ["train/*"], "title": "Self-predictive loss",
        "x": "env_steps", "x_label": "agent steps (all seeds)", "y_label": "2 - 2 cos",
    },
    {
        "metric": "train/loss/q", "stages": ["train/*"], "title": "Divergence of returns",
        "x": "env_steps", "x_label": "agent steps (all seeds)", "y_label": "nats",
    },
]  # fmt: skip


def returns_of(config: Config, done: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Mean returns `[games, seeds]` of every agent."""
    return {
        agent: np.array([np.mean(done[game]["returns"][agent], axis=-1) for game in config.games])
        for agent in config.agents
    }


def scores(config: Config, folder: Path, returns: Mapping[str, np.ndarray]) -> dict[Any, Any]:
    """Human-normalised returns `[games, seeds]` by agent, and what claims read beside them."""
    low, high = np.array([ATARI_100K[game] for game in config.games]).T
    published = np.array([SPR[game] for game in config.games])
    shape = (len(config.games), config.num_seeds)
    table: dict[Any, Any] = {a: statistics.normalise(x, low, high) for a, x in returns.items()}
    once = statistics.normalise(published[:, None], low, high)
    table["published"] = np.broadcast_to(once, shape)
    for agent in config.agents:
        if agent != "rainbow":
            fall = [fall_of_loss(config, folder, game, agent) for game in config.games]
            table["loss", agent] = np.array(fall)
    return table


def fall_of_loss(config: Config, folder: Path, game: str, agent: str) -> np.ndarray:
    """Self-predictive loss `[seeds]` of the last chunk over that of the first."""
    name, lines = f"train/{game}/{agent}", metrics_log.read(folder / "metrics.jsonl")
    losses = [x["train/loss/spr"] for x in lines if x["stage"] == name]
    first, *_, last = (np.atleast_1d(np.array(x, float)) for x in (losses[0], *losses))
    return last / first


def preconditions(config: Config, folder: Path) -> list[Precondition]:
    """Every seed had the steps of the protocol, and no more."""
    wanted, result = config.rainbow.num_updates, []
    for agent in config.agents:
        steps = [read_done(folder, f"train/{g}/{agent}")["summary"]["agent_steps"]
                 for g in config.games]  # fmt: skip
        low, high = int(np.min(steps)), int(np.max(steps))
        result.append(
            Precondition(
                f"{agent}: every seed learned from {wanted} steps", low == high == wanted,
                f"got {low} to {high}",
            )
        )  # fmt: skip
    return result


def extras(
    config: Config, folder: Path, returns: Mapping[str, np.ndarray], table: Mapping[Any, Any]
) -> dict[str, Any]:
    """Labels, figures, budgets and the table beside the published one."""
    lines = [line for agent in config.agents for line in beside(config, agent, returns[agent])]
    for agent in config.agents:
        count = num_reached(config, returns[agent])
        lines.append(
            f"{agent}: {aggregate(table[agent])}; the published score is reached in {count} of "
            f"{len(config.games)} games"
        )
    lines.append(f"published: {aggregate(table['published'][:, :1])}")
    return {
        "score_label": "human-normalised return",
        "curves": CURVES,
        "limits": LIMITS,
        "notes": lines,
        "returns": {
            agent: dict(zip(config.games, rows.tolist(), strict=True))
            for agent, rows in returns.items()
        },
        "references": {
            game: {"random": ATARI_100K[game].random, "expert": ATARI_100K[game].human}
            for game in config.games
        },
        "budgets": {
            f"{agent}, {game}": _budget(read_done(folder, f"train/{game}/{agent}"))
            for agent in config.agents
            for game in config.games
        },
    }


def _budget(done: Mapping[str, Any]) -> dict[str, Any]:
    """Of one seed, and the seconds of all."""
    steps = max(done["summary"]["agent_steps"])
    return done["summary"] | {"agent_steps": steps, "seconds_of_all_seeds": round(done["seconds"])}


def beside(config: Config, agent: str, returns: np.ndarray) -> list[str]:
    """A line a game: mean, interval over seeds, the published mean, and whether it is reached."""
    lines = []
    for game, row in zip(config.games, returns, strict=True):
        low, high = interval_of_mean(row)
        random, human = ATARI_100K[game]
        word = "reached" if high >= SPR[game] else "not reached"
        lines.append(
            f"{agent}, {game}: {row.mean():.1f} [{low:.1f}, {high:.1f}] over {len(row)} seeds; "
            f"published {SPR[game]:.1f} ({word}), random {random:.1f}, human {human:.1f}"
        )
    return lines


def interval_of_mean(row: np.ndarray) -> tuple[float, float]:
    """Bootstrap interval over seeds, percentiles."""
    draws = np.random.default_rng(0).choice(row, (2000, len(row))).mean(1)
    low, high = np.quantile(draws, [(1 - REACHED) / 2, (1 + REACHED) / 2])
    return float(low), float(high)


def num_reached(config: Config, returns: np.ndarray) -> int:
    """Games whose interval holds the published score, or lies above it."""
    rows = zip(config.games, returns, strict=True)
    return sum(interval_of_mean(row)[1] >= SPR[game] for game, row in rows)


def aggregate(table: np.ndarray) -> str:
    """Median and mean over games of the mean over seeds, and the IQM of all runs (rliable)."""
    means = table.mean(-1)
    interval = statistics.interval_of_iqm(table) if table.shape[-1] > 1 else None
    text = f"median {np.median(means):.3f}, mean {means.mean():.3f}, "
    text += f"IQM {float(statistics.iqm(table)):.3f}"
    return text + (f" [{interval.lower:.3f}, {interval.upper:.3f}]" if interval else "")
