"""What atari100k says: human-normalised scores, set beside what was published game by game."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from envs.atari import ATARI_100K, SPR
from experiments.configs.atari100k import Config
from jaxagent.evaluate import statistics
from jaxagent.evaluate.claims import Precondition
from jaxagent.train.run import read_done

SPR_IQM = 0.337  # of 100 runs of each of the 26 games (ibid.)
LIMITS = [
    "The published scores are means over 100 runs with ale-py's predecessor; the adapter's page "
    "(envs/adapters/ale.py) lists how its frames and no-ops differ.",
    "Layer normalisation stands in for batch normalisation in the transition; new windows have the "
    "largest priority so far; an action is chosen before the fits of the step that it follows.",
    "The published score is taken as exact. With few games A2 is a trimmed mean over seeds.",
]
CURVES = [
    {
        "metric": "train/return",
        "stages": ["train/*"],
        "title": "Return of games in training",
        "x": "env_steps",
        "x_label": "steps (all seeds)",
        "y_label": "return",
    },
    {
        "metric": "train/loss/spr",
        "stages": ["train/*"],
        "title": "Self-predictive loss",
        "x": "env_steps",
        "x_label": "steps (all seeds)",
        "y_label": "2 - 2 cos",
    },
    {
        "metric": "train/loss/q",
        "stages": ["train/*"],
        "title": "Divergence of returns",
        "x": "env_steps",
        "x_label": "steps (all seeds)",
        "y_label": "nats",
    },
]


def returns_of(config: Config, done: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Mean returns `[games, seeds]` of every agent."""
    return {
        agent: np.array([np.mean(done[game]["returns"][agent], axis=-1) for game in config.games])
        for agent in config.agents
    }


def scores(config: Config, returns: Mapping[str, np.ndarray]) -> dict[Any, np.ndarray]:
    """Human-normalised returns `[games, seeds]` by agent, and by how much they are over published.

    The latter are means over games, `[1, seeds]`: an interquartile mean of runs is no match for
    what was published of a game, which is a mean.
    """
    low, high = np.array([ATARI_100K[game] for game in config.games]).T
    published = np.array([SPR[game] for game in config.games])[:, None]
    published = statistics.normalise(published, low, high)
    table: dict[Any, np.ndarray] = {
        agent: statistics.normalise(rows, low, high) for agent, rows in returns.items()
    }
    for agent in returns:
        table["over published", agent] = np.mean(table[agent] - published, axis=0)[None]
    table["published"] = np.broadcast_to(published, (len(config.games), config.num_seeds))
    return table


def preconditions(config: Config, folder: Path) -> list[Precondition]:
    """Every seed was fitted as often as the protocol says, which is as often as it stepped."""
    fit, result = config.rainbow, []
    wanted = (fit.num_updates - fit.warmup_steps) * fit.num_gradient_steps
    for agent in config.agents:
        done = [read_done(folder, f"train/{game}/{agent}")["summary"] for game in config.games]
        found = sorted({count for summary in done for count in summary["updates"]})
        result.append(Precondition(f"{agent}: {wanted} gradient steps", found == [wanted], f"got {found}"))
    return result


def extras(
    config: Config, folder: Path, returns: Mapping[str, np.ndarray], table: Mapping[Any, Any]
) -> dict[str, Any]:
    """Labels, figures, budgets and the table beside the published one."""
    lines = [line for agent in config.agents for line in beside(config, agent, returns[agent])]
    for agent in config.agents:
        count = num_reached(config, returns[agent])
        lines.append(
            f"{agent}: {aggregate(table[agent])}, {iqm_of(table[agent])}; the published score is "
            f"reached in {count} of {len(config.games)} games"
        )
    of_all = f", IQM of runs {SPR_IQM}" if len(config.games) == len(SPR) else ""
    # Else no interquartile mean: published are means of games, and ours is of runs.
    lines.append(f"published: {aggregate(table['published'][:, :1])}{of_all}")
    return {
        "score_label": "human-normalised return",
        "curves": CURVES,
        "limits": LIMITS,
        "notes": lines,
        "returns": {
            agent: dict(zip(config.games, rows.tolist(), strict=True)) for agent, rows in returns.items()
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
    own = {"updates": max(done["summary"]["updates"])}
    return done["summary"] | own | {"seconds_of_all_seeds": round(done["seconds"])}


def beside(config: Config, agent: str, returns: np.ndarray) -> list[str]:
    """A line a game: mean, interval over seeds, the published mean, and whether it is reached."""
    lines = []
    for game, row in zip(config.games, returns, strict=True):
        low, high = statistics.interval_of_mean(row)
        random, human = ATARI_100K[game]
        word = "reached" if is_reached(game, row) else "not reached"
        lines.append(
            f"{agent}, {game}: {row.mean():.1f} [{low:.1f}, {high:.1f}] over {len(row)} seeds; "
            f"published {SPR[game]:.1f} ({word}), random {random:.1f}, human {human:.1f}"
        )
    return lines


def is_reached(game: str, row: np.ndarray) -> bool:
    """Whether the interval over seeds `[N]` holds the published score, or lies above it."""
    return statistics.interval_of_mean(row).upper >= SPR[game]


def num_reached(config: Config, returns: np.ndarray) -> int:
    """Games in which the published score is reached."""
    return sum(is_reached(game, row) for game, row in zip(config.games, returns, strict=True))


def aggregate(table: np.ndarray) -> str:
    """Median and mean over games of the mean over seeds."""
    means = table.mean(-1)
    return f"median {np.median(means):.3f}, mean {means.mean():.3f}"


def iqm_of(table: np.ndarray) -> str:
    """The interquartile mean of all runs with its interval (Agarwal et al. 2021)."""
    interval = statistics.interval_of_iqm(table)
    return f"IQM {float(statistics.iqm(table)):.3f} [{interval.lower:.3f}, {interval.upper:.3f}]"
