"""Planning: search on top of a pretrained action-state transformer, when it acts.

Method. One transformer is pretrained on early trajectories of PPO agents (PASTA, arXiv 2307.10936),
a lane a seed. Any such policy can be asked for several actions of a state; search over its own
samples (Sampled MuZero, Hubert et al. 2021) picks one of them, stepping with the true environment
or with a model learned from the same trajectories, and judging states by values learned from them.
Nothing is trained for search: simulations are an option of evaluation.

Claims. P1: with the true world, search adds to the policy's most likely actions. P2: so it does
with the learned world. P3: a world learned from shuffled actions is worse. Aside: the pretrained
proposals are worth more than uniform ones (P5); a tree is worth more than trying every sample once and
judging by values (P6).

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
from jaxagent.study.budget import Spent
from jaxagent.study.corpus import pretrain, windows
from jaxagent.study.study import Fit, Found, Lanes, Measure, Study
from jaxagent.study.verdicts import Scores, all_between, iqm_by_task, of_tasks

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
TRIALS = 5  # scales of values and discounts, on seeds 1000 to 1004
BASE_RANGE = (0.02, 0.8)  # of the policy's mean score, where an effect can show


def study(config: Config) -> Study:
    """Agents, their trajectories, pretraining, a world of each task, then every arm."""
    agents = [collection.agents_of(task, config.collect, config.seed) for task in config.tasks]
    collect = partial(collection.collect, config.tasks, agents, config.collect, config.seed)
    model, fits, plays = Fit("pretrain", partial(pretraining, config)), [], []
    for i, task in enumerate(config.tasks):
        fits.append(worlds.fit_of(config, i))
        plays.append(Measure(f"evaluate/{task.name}", partial(worlds.evaluate, config, i, model, fits[i])))
    about = {name: arm.about for name, arm in worlds.arms(config).items()}
    names = [task.name for task in config.tasks]
    steps = [*agents, Measure("collect", collect), model, *fits, *plays]
    table = partial(of_tasks, tasks=config.tasks, arms=about)
    tests, drawn = partial(checks, config), partial(figures, config)
    return Study(
        about,
        names,
        steps,
        table,
        claims(config),
        tests,
        drawn,
        CURVES,
        LIMITS,
        shared_seeds=True,
        spent=spent(config),
    )


def spent(config: Config) -> dict[str, Spent]:
    """What was learned from trajectories that all share, and networks that are asked before an action."""
    result = {}
    for name, arm in worlds.arms(config).items():
        stages = ("pretrain",) if arm.proposes != "uniform" else ()
        stages += ("world/*",) if arm.searched else ()
        trials = TRIALS if arm.searched else 1
        result[name] = Spent(stages, 1 + arm.simulations, trials)
    return result


def pretraining(config: Config, folder: Path | None) -> Lanes:
    """A transformer a seed, on the trajectories of all tasks."""
    corpus, data = collection.load(config.tasks, config.tokens, config.model, folder)
    seen = [windows(corpus, i, trajectories) for i, trajectories in enumerate(data["train"])]
    return pretrain(corpus, seen, tuple(config.plan.seeds), config.pretrain)


def claims(config: Config) -> list[Claim]:
    """What is claimed; margins were fixed before the claim seeds ran."""
    most = config.plan.simulations[-1]
    true, learned = f"true {most}", f"learned {most}"
    adds = partial(Claim, kind="superiority", margin=0.15)
    aside = partial(adds, gated=False)
    return [
        adds("P1", "search in the true world adds to the policy's mode", arm_a=true, arm_b="mode"),
        adds("P2", "search in the learned world adds to it", arm_a=learned, arm_b="mode"),
        adds("P3", "a world of shuffled actions is worse", arm_a=learned, arm_b="saboteur"),
        aside("P5", "pretrained proposals beat uniform ones", arm_a=true, arm_b="no prior"),
        aside("P6", "a tree beats one step ahead", arm_a=true, arm_b="one step"),
    ]


def checks(config: Config, found: Found, table: Scores) -> list[Precondition]:
    """The base policy is neither at floor nor at ceiling, and the tasks can be solved."""
    names = [task.name for task in config.tasks]
    drawn, modes = (iqm_by_task(names, table[arm]) for arm in ("policy", "mode"))
    base = {name: max(drawn[name], modes[name]) for name in names}
    experts = {name: max(found["collect"][name]["demonstration"]["scores"]) for name in names}
    return [
        all_between("the policy, drawn or not, leaves room", base, *BASE_RANGE),
        all_between("an agent solves it", experts, 0.85),
    ]


def figures(config: Config, found: Found) -> list[dict[str, Any]]:
    """Return against simulations; without search at 0."""
    sims, result = config.plan.simulations, []
    x_label = "simulations a step (0: the policy as it is)"
    dashed = f"means of other arms with {sims[-1]} simulations"
    caption = f"Means over {config.plan.episodes} episodes; a line a seed; dashed: {dashed}."
    for task in config.tasks:
        returns, lines = found[f"evaluate/{task.name}"]["returns"], []
        for world in ("true", "learned"):
            searched = [returns[f"{world} {n}"] for n in sims]
            lines.append(line(f"{world} world", [0, *sims], [returns["policy"], *searched]))
        for arm in ("mode", "one step", "no prior", "saboteur"):
            lines.append(level(arm, (0, sims[-1]), float(np.mean(returns[arm]))))
        title = f"Return against simulations: {task.name}"
        result.append(curves(title, caption, x_label, "return", lines))
    return result
