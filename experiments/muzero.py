"""MuZero: search in a model of latents that is learned for nothing but search.

Method. Gumbel MuZero (Schrittwieser et al. 2020; Danihelka et al. 2022): every action is searched
for in the learned model; policy, value and reward heads of K unrolled latents learn from what
search found, from rewards and from a slow copy's values; a share of old windows is searched anew.
With a consistency loss latents are also held to the encoder's of the next observation
(EfficientZero, Ye et al. 2021): its weight is an argument.

Claims. M1: the trained model acts better with search than by its policy head alone. M2: it beats
the saboteur, which remembers the action of another lane. Aside on CartPole, gated on MinAtar: the
consistency loss helps (M3); PPO's return is reached in fewer steps than PPO takes (M4).

    python -m experiments.muzero --preset cpu        # under 10 minutes on 2 cores
"""

if __name__ == "__main__":  # the command line is parsed before JAX is imported
    from experiments.cli import run_module

    run_module("muzero")

from functools import partial
from pathlib import Path
from typing import Any

from experiments.configs.muzero import Config, TaskConfig
from experiments.parts import muzero_report as report
from experiments.parts import muzero_study as study
from experiments.parts.comparison import judged
from experiments.parts.cost import Cost
from jaxagent.evaluate.claims import Claim
from jaxagent.train.run import Stage, Work, read_done


def claims(config: Config) -> list[Claim]:
    """What is claimed; margins were fixed before the claim seeds ran."""
    better = partial(Claim, kind="superiority", arm_a="muzero")
    is_large = any(task.muzero.model.trunk.channels for task in config.tasks)
    return [
        better("M1", "search helps the trained model", arm_b="raw", margin=0.05),
        better("M2", "it beats the saboteur", arm_b="saboteur", margin=0.2),
        better("M3", "the consistency loss helps", arm_b="no-consistency", margin=0.02, gated=is_large),
        Claim(
            "M4",
            "it reaches PPO's return in fewer steps",
            "ratio",
            "muzero",
            "ppo",
            margin=1.0,
            metric="steps",
            direction="below",
            gated=is_large,
        ),
    ]


def stages(config: Config) -> list[Stage]:
    """The run, in order."""
    result = []
    for task in config.tasks:
        result += [
            Stage(f"train/{task.name}/{name}", partial(train, config, task, name))
            for name in (*study.TRAINED, "ppo")
        ]
        result.append(Stage(f"evaluate/{task.name}", partial(evaluate, config, task)))
    return result


def train(config: Config, task: TaskConfig, name: str, folder: Path) -> Work:
    """A lane a seed."""
    del folder
    if name == "ppo":
        return study.train_ppo(config, task)
    return study.train(config, task, name)


def evaluate(config: Config, task: TaskConfig, folder: Path) -> Work:
    """Every arm and seed in the same episodes, and snapshots on the way."""

    def finish(state: Any, place: Path) -> dict[str, Any]:
        del state, place
        return study.evaluate(config, study.setting_of(task), folder)

    return Work(finish)


def costs(config: Config) -> list[Cost]:
    """Of every stage, for --dry-run."""
    rows = []
    for task in config.tasks:
        rows += [study.cost(config, task, name) for name in study.TRAINED]
        rows.append(Cost(f"evaluate/{task.name}", 0, 0.0, 0.0, 0.1, 60.0))
    return rows


def summary(config: Config, folder: Path, preset: str) -> dict[str, Any]:
    """Judge the claims; a failed precondition makes them VOID."""
    done = {t.name: read_done(folder, f"evaluate/{t.name}")["summary"] for t in config.tasks}
    scores = report.scores(config, done)
    return judged(
        claims=claims(config),
        scores=scores,
        preset=preset,
        preconditions=report.preconditions(config, scores),
        shown={arm: scores[arm] for arm in report.ABOUT},
        about=report.ABOUT,
        tasks=list(done),
    ) | report.extras(config, folder, done)
