"""Reinforce: does pretraining on histories make PPO learn a changed task sooner?

Method. PPO agents learn nominal environments; trajectories of early checkpoints pretrain one
action-state transformer by next-token prediction (PASTA, arXiv 2307.10936). It is then the first
policy of PPO on changed dynamics: with all its parameters, near what it was at first (VPT's
divergence, Baker et al. 2022, whose weight decays), its last layer alone, or low-rank adapters. All
arms act through the cache, read the same bins and take as many env steps of the same worlds.

Score. The area under the curve of the greedy return over the first 5,120 env steps, as a share of
what is the best: later all arms are alike (20,480 steps with eight seeds could show 0.22 at best).
Claim Z1. Pretrained and anchored beats the same network from scratch by 0.14.
Saboteur. As that, pretrained on shuffled steps. Limit: one pretrained model, whose claims these are.
What was found and what we believe: `experiments/RESULTS.md`.

    jaxagent run reinforce --preset cpu        # 16 minutes on 2 cores, shared with another run
"""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import envs
from experiments.reinforce.config import Config, TaskConfig
from jaxagent import keys
from jaxagent.evaluate.claims import Claim, Precondition
from jaxagent.report.figure import curves, line, return_curve
from jaxagent.study import agents, collection, films, memory_agents
from jaxagent.study.budget import Spent
from jaxagent.study.collection import PRETRAINED
from jaxagent.study.memory_agents import Begin
from jaxagent.study.study import Fit, Found, Measure, Player, Step, Study
from jaxagent.study.verdicts import Scores, all_between, iqm_by_task, normalised, of_tasks
from jaxagent.types import Agent, Policy


class Arm(NamedTuple):
    """One way to begin and to be tuned."""

    about: str
    begins: str = ""  # the network of `PRETRAINED` that it begins with; "": fresh
    way: str = "full"  # of `sequence_actor.tuned`
    is_anchored: bool = False


ARMS = {
    "scratch": Arm("the same transformer, first parameters random"),
    "full": Arm("pretrained, all parameters tuned", "model"),
    "anchored": Arm("pretrained, all parameters tuned, held near its beginning", "model", "full", True),
    "last layer": Arm("pretrained, the last layer tuned", "model", "last_layer"),
    "lora": Arm("pretrained and frozen, low-rank adapters tuned", "model", "lora"),
    "saboteur": Arm("as anchored, but pretrained on shuffled steps", "saboteur", "full", True),
}
FILMED = ("scratch", "full")
LEARNED = (0.1, 0.9)  # area under the curve from scratch, where an effect can show
ZERO_SHOT_BELOW = 0.7
UNIGRAM_SHARE = 0.8  # of the unigram entropy, above which pretraining has learned nothing
LIMITS = (
    "One pretraining seed: the claim is about seeds of tuning given this pretrained model.",
    "Every arm has the same learning rate, chosen on development seeds (1000 and up).",
    "Pretraining took env steps of the nominal task, which no arm is charged for.",
)


def study(config: Config) -> Study:
    """Agents, their trajectories, one pretraining, then every arm's reinforcement and its curve."""
    old = [collection.agents_of(task, config.collect, config.seed) for task in config.tasks]
    pretrain = Fit("pretrain", partial(collection.pretraining, config))
    collect = partial(collection.collect, config.tasks, old, config.collect, config.seed)
    first: list[Step] = [*old, Measure(collection.STAGE, collect), pretrain]
    steps = agents.task_steps(
        config, config.tasks, partial(fits_of, pretrain=pretrain), partial(evaluate, pretrain)
    )
    names = [task.name for task in config.tasks]
    learned = [return_curve(f"tune/{name}/*", f"Return on {name} while tuning") for name in names]
    about = {name: arm.about for name, arm in ARMS.items()}
    table, drawn = partial(of_tasks, tasks=config.tasks, arms=ARMS), partial(figures, config)
    checked = partial(checks, config)
    label = "area under the return's curve (0: random play, 1: the best throughout)"
    spent = {
        name: Spent((*(("pretrain",) if arm.begins else ()), f"tune/*/{name.replace(' ', '-')}"))
        for name, arm in ARMS.items()
    }
    steps = [*first, *steps]
    more = {"spent": spent, "player": partial(player, pretrain, config)}
    return Study(about, names, steps, table, claims(), checked, drawn, learned, LIMITS, label, **more)


def claims() -> list[Claim]:
    """What is claimed; margins were fixed before the claim seeds ran."""
    better = partial(Claim, kind="superiority", arm_a="anchored", gated=False)
    return [
        better("Z1", "this pretrained model helps PPO", arm_b="scratch", margin=0.14, gated=True),
        better("Z2", "what helps is the order of steps", arm_b="saboteur", margin=0.12),
        Claim("Z3", "an anchor does not cost", "non_inferiority", "anchored", "full", 0.07, gated=False),
        Claim("Z4", "adapters are enough", "non_inferiority", "lora", "full", 0.12, gated=False),
    ]


def made(
    config: Config, task: TaskConfig, arm: Arm, pretrain: Fit, folder: Path | None
) -> tuple[Agent, Policy]:
    """What learns of an arm, and what is played."""
    corpus, _ = collection.load(config.tasks, config.tokens, config.model, folder)
    networks, begin, ppo = pretrain.load(folder, corpus.model.init), None, task.tuning
    if arm.begins:
        network = agents.take(networks, PRETRAINED.index(arm.begins))
        begin = Begin(network, arm.way, config.lora_rank)
    if arm.is_anchored:
        anchor = {"anchor_weight": config.anchor_weight, "anchor_decay": config.anchor_decay}
        ppo = dataclasses.replace(ppo, **anchor)
    env, _ = envs.make(task.env)
    return memory_agents.of_corpus(env, ppo, corpus, config.tasks.index(task), begin)


def fits_of(config: Config, task: TaskConfig, pretrain: Fit) -> agents.Fits:
    """A lane a seed; agents of a seed meet worlds drawn alike."""
    env, changed = envs.make(task.env, **task.overrides)
    fits = {}
    for name, arm in ARMS.items():

        def agent_of(folder: Path | None, arm: Arm = arm) -> Agent:
            return made(config, task, arm, pretrain, folder)[0]

        stage, purpose = f"tune/{task.name}/{name.replace(' ', '-')}", f"reinforce/{task.name}"
        fits[name] = memory_agents.fit(
            stage, env, changed, task.tuning, agent_of, config.seeds, purpose, is_normalized=False
        )
    return fits


def evaluate(
    pretrain: Fit, config: Config, task: TaskConfig, fits: agents.Fits, folder: Path, place: Path
) -> dict[str, Any]:
    """Areas under the curve `[seeds]` of every arm, and the curves."""
    del place
    env, changed = envs.make(task.env, **task.overrides)
    key = keys.derive(0, f"reinforce/{task.name}/evaluate")
    arena = agents.arena(env, changed, config.seeds, config.episodes, key)
    rows = agents.even_rows(task.tuning.num_chunks, config.snapshots)
    result: dict[str, Any] = {"returns": {}, "curves": {}}
    for name, arm in ARMS.items():
        _, policy = made(config, task, arm, pretrain, folder)
        snapshots = fits[name].load(folder)
        returns = arena.curve(policy, agents.take(snapshots, rows), agents.at_once)
        steps = agents.env_steps_at(rows, task.tuning)
        result["curves"][name] = {"steps": steps, "returns": returns.tolist()}
        result["returns"][name] = np.mean(returns, axis=0).tolist()
        if name in FILMED:
            first = agents.take(snapshots, -1, 0)
            film_key = jax.random.fold_in(key, 1)
            films.write(folder, f"{name}--{task.name}", env, policy, first, changed, film_key)
    return result


def player(pretrain: Fit, config: Config, folder: Path, arm: str, task: str) -> Player:
    """An arm as it ended."""
    of = agents.task_of(config.tasks, task)
    _, policy = made(config, of, ARMS[arm], pretrain, folder)
    last = agents.last(fits_of(config, of, pretrain)[arm].load(folder))
    return Player(*envs.make(of.env, **of.overrides), policy, last, config.seeds, of.overrides)


def checks(config: Config, found: Found, table: Scores) -> list[Precondition]:
    """Pretraining has learned, and there is room above it and above what begins from scratch."""
    names, begun = [task.name for task in config.tasks], {}
    for task in config.tasks:
        first = found[f"evaluate/{task.name}"]["curves"]["full"]["returns"][0]
        begun |= iqm_by_task([task.name], normalised({task.name: first}, {task.name: task.reference}))
    rows = zip(names, found["pretrain"]["validation"], strict=True)
    shares = {name: row["model"] / row["unigram"] for name, row in rows}
    scratch = iqm_by_task(names, table["scratch"])
    return [
        all_between("pretraining learned (validation loss / unigram entropy)", shares, 0.0, UNIGRAM_SHARE),
        all_between("from scratch leaves room", scratch, *LEARNED),
        all_between("what was pretrained, as it is, leaves room", begun, high=ZERO_SHOT_BELOW),
    ]


def figures(config: Config, found: Found) -> list[dict[str, Any]]:
    """Greedy returns over env steps, an arm a line."""
    drawn = []
    for task in config.tasks:
        of_arms = found[f"evaluate/{task.name}"]["curves"]
        lines = [line(arm, c["steps"], c["returns"]) for arm, c in of_arms.items()]
        drawn.append(curves(f"Greedy return on {task.name}", "A line a seed.", "env steps", "return", lines))
    return drawn
