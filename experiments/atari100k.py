"""Atari-100k: SPR on the real games, as it was published.

Method. Rainbow with self-prediction (Schwarzer et al. 2021) learns a game from 100,000 steps, two
minibatches a step, seeds in the lanes of one emulator; at the end every seed plays 100 whole games.
A score is a mean return between random play (0) and a human's (1). Games run in turn, and
`jaxagent resume` goes on in the middle of one.

Claims. A1: it learns: better than random play. A2, after all the steps: in the mean over games not
below the published scores by more than a tenth of a human's advantage. Aside, with the twin among
`agents`: A3, self-prediction helps. The report counts the games whose interval holds the published
score.

    python -m experiments.atari100k --games pong boxing krull --preset gpu
    python -m experiments.atari100k --games pong --preset smoke      # the real game, half a minute
"""

if __name__ == "__main__":  # the command line is parsed before JAX is imported
    from experiments.cli import run_module

    run_module("atari100k")

from functools import partial
from pathlib import Path
from typing import Any

from envs.atari import STEPS
from experiments.configs.atari100k import ARMS, Config
from experiments.parts import atari_report as report
from experiments.parts import atari_study as study
from experiments.parts.comparison import judged
from experiments.parts.cost import Cost
from jaxagent.evaluate.claims import Claim
from jaxagent.train.run import Stage, Work, read_done


def claims(config: Config) -> list[Claim]:
    """What is claimed; margins were fixed before the claim seeds ran."""
    first = config.agents[0]
    result = [Claim("A1", f"{first} is better than random play", "threshold", first, margin=0.0)]
    if config.rainbow.num_updates == STEPS:
        result.append(
            Claim(
                "A2",
                f"{first} is not below the published SPR, in the mean over games",
                "threshold",
                first,
                metric="over published",
                margin=-0.1,
            )
        )
    if {"spr", "rainbow"} <= set(config.agents):
        result.append(Claim("A3", "self-prediction helps", "superiority", "spr", "rainbow", gated=False))
    return result


def stages(config: Config) -> list[Stage]:
    """The run, in order."""
    result = []
    for game in config.games:
        result += [
            Stage(f"train/{game}/{agent}", partial(train, config, game, agent)) for agent in config.agents
        ]
        result.append(Stage(f"evaluate/{game}", partial(evaluate, config, game)))
    return result


def train(config: Config, game: str, agent: str, folder: Path) -> Work:
    """A lane a seed."""
    del folder
    return study.train(config, game, agent)


def evaluate(config: Config, game: str, folder: Path) -> Work:
    """All agents in the same games."""
    return Work(lambda state, place: study.evaluate(config, game, folder))


def costs(config: Config) -> list[Cost]:
    """Of every stage, for --dry-run."""
    return [study.cost(config, game, agent) for game in config.games for agent in config.agents]


def summary(config: Config, folder: Path, preset: str) -> dict[str, Any]:
    """Judge the claims; a failed precondition makes them VOID."""
    done = {game: read_done(folder, f"evaluate/{game}")["summary"] for game in config.games}
    returns = report.returns_of(config, done)
    table = report.scores(config, returns)
    about = {agent: ARMS[agent] for agent in config.agents}
    about["published"] = "SPR's mean over 100 runs (Agarwal et al. 2021), the same for every seed"
    return judged(
        claims=claims(config),
        preset=preset,
        about=about,
        tasks=list(config.games),
        scores=table,
        preconditions=report.preconditions(config, folder),
        shown={arm: table[arm] for arm in about},
    ) | report.extras(config, folder, returns, table)
