"""Planning: search on top of a pretrained action-state transformer, when it acts.

Method. One transformer is pretrained on early trajectories of PPO agents (PASTA, arXiv 2307.10936),
a lane a seed. Any such policy can be asked for several actions of a state; search over its own
samples (Sampled MuZero, Hubert et al. 2021) picks one of them, stepping with the true environment
or with a model learned from the same trajectories, and judging states by values learned from them.
Nothing is trained for search: simulations are an option of evaluation.

Claims. P1: with the true world, search adds to the policy's most likely actions. P2: so it does
with the learned world. P3: a world learned from shuffled actions is worse. Aside: more simulations,
more return (P4); the pretrained proposals are worth more than uniform ones (P5); a tree is worth
more than trying every sample once and judging by values (P6).

    jaxagent run plan --preset cpu        # under 10 minutes on 2 cores
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from experiments.plan import worlds
from experiments.plan.config import Config
from jaxagent.evaluate.claims import Claim, Precondition
from jaxagent.report.figure import Curve, curves, level, line
from jaxagent.study import collection
from jaxagent.study.corpus import pretrain, windows
from jaxagent.study.study import Fit, Found, Lanes, Measure, Study
from jaxagent.study.verdicts import Scores, between, of_tasks

LIMITS = (
    "The policy begins anew at every state of the tree, so it sees the state alone there.",
    "One set of agents and trajectories: seeds are of pretraining, worlds and episodes.",
    "Values are of what early agents did; search improves on that by as much as it looks ahead.",
    "Simulations, samples and updates were chosen on development seeds (1000 and up).",
)
CURVES = (
    Curve("train/loss", ("pretrain",), "Pretraining: next-token loss", "tokens", "nats per token"),
    Curve("train/loss", ("world/*",), "Learned worlds (with the saboteur's)", "steps", "sum of losses"),
)
BASE_RANGE = (0.02, 0.6)  # of the policy's mean score, where an effect can show


def study(config: Config) -> Study:
    """Agents, their trajectories, pretraining, a world of each task, then every arm."""
    agents = [collection.agents_of(task, config.collect, config.seed) for task in config.tasks]
    collect = partial(collection.collect, config.tasks, agents, config.collect, config.seed)
    model, fits = (
        Fit("pretrain", partial(pretraining, config)),
        [worlds.fit_of(config, i) for i in range(len(config.tasks))],
    )
    names = [task.name for task in config.tasks]
    plays = [
        Measure(f"evaluate/{name}", partial(worlds.evaluate, config, i, model, fits[i]))
        for i, name in enumerate(names)
    ]
    about = {name: arm.about for name, arm in worlds.arms(config).items()}
    return Study(
        about,
        names,
        [*agents, Measure("collect", collect), model, *fits, *plays],
        lambda found: of_tasks(found, config.tasks, about),
        claims(config),
        partial(checks, config),
        partial(figures, config),
        CURVES,
        LIMITS,
        shared_seeds=True,
    )


def pretraining(config: Config, folder: Path | None) -> Lanes:
    """A transformer a seed, on the trajectories of all tasks."""
    corpus, data = collection.load(config.tasks, config.tokens, config.model, folder)
    seen = [windows(corpus, i, trajectories) for i, trajectories in enumerate(data["train"])]
    return pretrain(corpus, seen, tuple(config.plan.seeds), config.pretrain)


def claims(config: Config) -> list[Claim]:
    """What is claimed; margins were fixed before the claim seeds ran."""
    sims = config.plan.simulations
    true, learned = f"true {sims[-1]}", f"learned {sims[-1]}"
    better, aside = partial(Claim, kind="superiority"), {"gated": False}
    result = [
        better(
            "P1", "search in the true world adds to the policy's mode", arm_a=true, arm_b="mode", margin=0.1
        ),
        better("P2", "search in the learned world adds to it", arm_a=learned, arm_b="mode", margin=0.1),
        better("P3", "a world of shuffled actions is worse", arm_a=learned, arm_b="saboteur", margin=0.1),
        better(
            "P5", "pretrained proposals beat uniform ones", arm_a=true, arm_b="no prior", margin=0.02, **aside
        ),
        better("P6", "a tree beats one step ahead", arm_a=true, arm_b="one step", margin=0.02, **aside),
    ]
    if len(sims) > 1:
        middle = tuple(f"true {n}" for n in reversed(sims[:-1]))
        result.append(
            Claim("P4", "more simulations, more return", "ordering", true, "policy", between=middle, **aside)
        )
    return result


def checks(config: Config, found: Found, table: Scores) -> list[Precondition]:
    """The base policy is neither at floor nor at ceiling, and the tasks can be solved."""
    result = []
    for row, task in enumerate(config.tasks):
        base = max(float(table[arm][row].mean()) for arm in ("policy", "mode"))
        expert = max(found["collect"][task.name]["demonstration"]["scores"])
        result += [
            between(f"{task.name}: the policy leaves room", base, *BASE_RANGE, "mean score, drawn or not,"),
            between(f"{task.name}: an agent solves it", expert, 0.85, what="score"),
        ]
    return result


def figures(config: Config, found: Found) -> list[dict[str, Any]]:
    """Return against simulations; without search at 0."""
    sims, result = config.plan.simulations, []
    for task in config.tasks:
        returns = found[f"evaluate/{task.name}"]["returns"]
        lines = [
            line(f"{world} world", [0, *sims], [returns["policy"], *(returns[f"{world} {n}"] for n in sims)])
            for world in ("true", "learned")
        ]
        others = ("mode", "one step", "no prior", "saboteur")
        lines += [level(arm, (0, sims[-1]), float(np.mean(returns[arm]))) for arm in others]
        caption = (
            f"Means over {config.plan.episodes} episodes; a line a seed; dashed: means of other arms with "
            f"{sims[-1]} simulations."
        )
        title, x_label = (
            f"Return against simulations: {task.name}",
            "simulations a step (0: the policy as it is)",
        )
        result.append(curves(title, caption, x_label, "return", lines))
    return result
