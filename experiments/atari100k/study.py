"""Atari-100k: SPR on the real games, as it was published.

Method. Rainbow with self-prediction (Schwarzer et al. 2021) learns a game from 100,000 steps, two
minibatches a step, seeds in the lanes of one emulator; at the end every seed plays 100 whole games.
A score is a mean return between random play (0) and a human's (1). Games run in turn, and
`jaxagent resume` goes on in the middle of one.

Claims. A1: it learns: better than random play. A2, after all the steps: in the mean over games not
below the published scores by more than a tenth of a human's advantage. Aside, with the twin among
`agents`: A3, self-prediction helps. The report counts the games whose interval holds the published
score.

    jaxagent run atari100k --games pong boxing krull --preset gpu
    jaxagent run atari100k --games pong --preset smoke      # the real game, half a minute
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from envs.atari import ATARI_100K, SPR, STEPS
from envs.returns import Reference
from experiments.atari100k import training
from experiments.atari100k.config import ARMS, Config
from jaxagent.evaluate import statistics
from jaxagent.evaluate.claims import Claim, Precondition
from jaxagent.report.figure import Curve
from jaxagent.study.study import Driven, Found, Measure, Study
from jaxagent.study.verdicts import Scores, normalised

SPR_IQM = 0.337  # of 100 runs of each of the 26 games (ibid.)
REFERENCES = {game: Reference(r.random, r.human) for game, r in ATARI_100K.items()}
PUBLISHED = "SPR's mean over 100 runs (Agarwal et al. 2021), the same for every seed"
LIMITS = (
    "The published scores are means over 100 runs with ale-py's predecessor; the adapter's page "
    "(envs/adapters/ale.py) lists how its frames and no-ops differ.",
    "Layer normalisation stands in for batch normalisation in the transition; new windows have the "
    "largest priority so far; an action is chosen before the fits of the step that it follows.",
    "The published score is taken as exact. With few games A2 is a trimmed mean over seeds.",
)
_curve = partial(Curve, stages=("train/*",), x="env_steps", x_label="steps (all seeds)")
CURVES = (
    _curve("train/return", title="Return of games in training", y_label="return"),
    _curve("train/loss/spr", title="Self-predictive loss", y_label="2 - 2 cos"),
    _curve("train/loss/q", title="Divergence of returns", y_label="nats"),
)


def study(config: Config) -> Study:
    """Every agent of a game in turn, then all of them in the same games."""
    steps: list[Driven | Measure] = []
    for game in config.games:
        fits = {agent: training.fit_stage(config, game, agent) for agent in config.agents}
        play = partial(training.evaluate, config, game, fits)
        steps += [*fits.values(), Measure(f"evaluate/{game}", play)]
    return Study(
        {agent: ARMS[agent] for agent in config.agents} | {"published": PUBLISHED},
        config.games,
        steps,
        partial(scores, config),
        claims(config),
        partial(checks, config),
        curves=CURVES,
        limits=LIMITS,
        label="human-normalised return",
        scale=None,  # people are no ceiling
        extras=partial(extras, config),
    )


def claims(config: Config) -> list[Claim]:
    """What is claimed; margins were fixed before the claim seeds ran."""
    first = config.agents[0]
    reaches = partial(Claim, kind="threshold", arm_a=first)
    result = [reaches("A1", f"{first} is better than random play")]
    if config.rainbow.num_updates == STEPS:
        statement = f"{first} is not below the published SPR, in the mean over games"
        result.append(reaches("A2", statement, metric="over published", margin=-0.1))
    if {"spr", "rainbow"} <= set(config.agents):
        result.append(Claim("A3", "self-prediction helps", "superiority", "spr", "rainbow", gated=False))
    return result


def returns_of(config: Config, found: Mapping[str, Any]) -> dict[str, dict[str, list[float]]]:
    """Mean returns over episodes by agent and game, `[seeds]`."""
    means: dict[str, dict[str, list[float]]] = {agent: {} for agent in config.agents}
    for game in config.games:
        for agent, returns in found[f"evaluate/{game}"]["returns"].items():
            means[agent][game] = np.mean(returns, axis=-1).tolist()
    return means


def scores(config: Config, found: Mapping[str, Any]) -> Scores:
    """Human-normalised returns `[games, seeds]` by agent, and by how much they are over published.

    The latter are means over games, `[1, seeds]`: an interquartile mean of runs is no match for
    what was published of a game, which is a mean.
    """
    references = {game: REFERENCES[game] for game in config.games}
    published = normalised({game: [SPR[game]] for game in config.games}, references)
    table: dict[Any, np.ndarray] = {}
    for agent, returns in returns_of(config, found).items():
        table[agent] = normalised(returns, references)
        table["over published", agent] = np.mean(table[agent] - published, axis=0)[None]
    table["published"] = np.broadcast_to(published, (len(config.games), len(config.seeds)))
    return table


def checks(config: Config, found: Found, table: Scores) -> list[Precondition]:
    """Every seed was fitted as often as the protocol says, which is as often as it stepped."""
    del table
    fit, result = config.rainbow, []
    wanted = (fit.num_updates - fit.warmup_steps) * fit.num_gradient_steps
    for agent in config.agents:
        counts = {n for game in config.games for n in found[f"train/{game}/{agent}"]["updates_by_seed"]}
        told = f"got {sorted(counts)}"
        result.append(Precondition(f"{agent}: {wanted} gradient steps", counts == {wanted}, told))
    return result


def extras(config: Config, found: Found, table: Scores) -> dict[str, Any]:
    """Returns and the lines beside the published ones."""
    returns = returns_of(config, found)
    lines = [beside(agent, *row) for agent, by_game in returns.items() for row in by_game.items()]
    for agent, by_game in returns.items():
        count = sum(is_reached(*row) for row in by_game.items())
        reached = f"the published score is reached in {count} of {len(config.games)} games"
        low, high = statistics.interval_of_iqm(table[agent], statistic=statistics.pooled_iqm)
        iqm = f"IQM {statistics.pooled_iqm(table[agent]):.3f} [{low:.3f}, {high:.3f}]"  # of all runs
        lines.append(f"{agent}: {aggregate(table[agent])}, {iqm}; {reached}")
    # Else no interquartile mean: published are means of games, and ours is of runs.
    of_all = f", IQM of runs {SPR_IQM}" if len(config.games) == len(SPR) else ""
    lines.append(f"published: {aggregate(table['published'][:, :1])}{of_all}")
    references = {game: REFERENCES[game]._asdict() for game in config.games}
    return {"notes": lines, "returns": returns, "references": references}


def beside(agent: str, game: str, returns: Sequence[float]) -> str:
    """Mean and interval over seeds, the published mean, and whether it is reached."""
    low, high = statistics.interval_of_mean(returns)
    random, human = ATARI_100K[game]
    word = "reached" if is_reached(game, returns) else "not reached"
    return (
        f"{agent}, {game}: {np.mean(returns):.1f} [{low:.1f}, {high:.1f}] over {len(returns)} seeds; "
        f"published {SPR[game]:.1f} ({word}), random {random:.1f}, human {human:.1f}"
    )


def is_reached(game: str, returns: Sequence[float]) -> bool:
    """Whether the interval over seeds holds the published score, or lies above it."""
    return statistics.interval_of_mean(returns).upper >= SPR[game]


def aggregate(table: np.ndarray) -> str:
    """Median and mean over games of the mean over seeds."""
    means = table.mean(-1)
    return f"median {np.median(means):.3f}, mean {means.mean():.3f}"
