"""The worked example: PPO that looks ahead against PPO that does not. Copy this folder.

Method. PPO (Schulman et al. 2017) learns CartPole with a discount of 0.99, or of 0.3: the saboteur,
which hardly sees the pole fall. Neither arm sits at an end of the scale, where no difference shows.

Claim E1. Looking ahead is better, by 0.3 of what a good policy has over random play.

    jaxagent run example --preset cpu        # a minute on 2 cores, half of which compiles
"""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import envs
from experiments.example.config import Config, TaskConfig
from jaxagent import keys
from jaxagent.evaluate.claims import Claim, Precondition
from jaxagent.report.figure import Curve
from jaxagent.study import agents, films
from jaxagent.study.budget import Spent
from jaxagent.study.study import Found, Player, Study
from jaxagent.study.verdicts import Scores, all_between, iqm_by_task, of_tasks

ARMS = {"ppo": "PPO with a discount of 0.99", "myopic": "saboteur: PPO with a discount of 0.3"}
CURVE = Curve("train/return", ("train/*",), "Return while training", "env_steps", "episode return")


def study(config: Config) -> Study:
    """Two fits a task, then both played in the same episodes."""
    steps = agents.task_steps(config, config.tasks, fits_of, evaluate)
    claim = Claim("E1", "looking ahead is better", "superiority", "ppo", "myopic", margin=0.3)
    scores = partial(of_tasks, tasks=config.tasks, arms=ARMS)
    names = [task.name for task in config.tasks]
    spent = {arm: Spent((f"train/*/{arm}",)) for arm in ARMS}
    more = {"curves": [CURVE], "spent": spent, "player": partial(player, config)}
    return Study(ARMS, names, steps, scores, [claim], partial(checks, names), **more)


def fits_of(config: Config, task: TaskConfig) -> agents.Fits:
    """A lane a seed; agents of a seed begin alike and draw alike, whatever the arm."""
    env, params = envs.make(task.env)
    tasks, myopic = [params] * len(config.seeds), dataclasses.replace(task.ppo, discount=0.3)
    return {
        arm: agents.population(f"train/{task.name}/{arm}", env, tasks, ppo, config.seeds.first)
        for arm, ppo in {"ppo": task.ppo, "myopic": myopic}.items()
    }


def evaluate(
    config: Config, task: TaskConfig, fits: agents.Fits, folder: Path, place: Path
) -> dict[str, Any]:
    """Mean returns `[seeds]` of what every arm learned, and a film."""
    del place
    env, params = envs.make(task.env)
    key = keys.derive(0, f"example/{task.name}")
    arena = agents.arena(env, params, config.seeds, config.episodes, key)
    policy, returns = agents.as_policy(env, task.ppo, is_greedy=True), {}
    for arm, fit in fits.items():
        last = agents.last(fit.load(folder))
        returns[arm] = arena.returns(policy, last).tolist()
        films.write(folder, f"{arm}--{task.name}", env, policy, agents.take(last, 0), params, films.key(key))
    return {"returns": returns}


def player(config: Config, folder: Path, arm: str, task: str) -> Player:
    """An arm as it ended."""
    of = agents.task_of(config.tasks, task)
    last = agents.last(fits_of(config, of)[arm].load(folder))
    env, params = envs.make(of.env)
    return Player(env, params, agents.as_policy(env, of.ppo, is_greedy=True), last, config.seeds)


def checks(names: list[str], found: Found, table: Scores) -> list[Precondition]:
    """The effect has room, on each task."""
    del found
    return [all_between("the saboteur leaves room", iqm_by_task(names, table["myopic"]), high=0.5)]
