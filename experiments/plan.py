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

    python -m experiments.plan --preset cpu        # under 10 minutes on 2 cores
"""

if __name__ == "__main__":  # the command line is parsed before JAX is imported
    from experiments.cli import run_module

    run_module("plan")

from functools import partial
from pathlib import Path
from typing import Any

from experiments.configs.plan import Config
from experiments.parts import cloning_study, experts, sequences
from experiments.parts import plan_report as report
from experiments.parts import plan_study as study
from experiments.parts.comparison import judged
from jaxagent.evaluate.claims import Claim
from jaxagent.train.run import Stage, Work, read_done


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


def stages(config: Config) -> list[Stage]:
    """The run, in order."""
    named = list(enumerate(config.tasks))
    return [
        *(Stage(f"agents/{t.name}", partial(train_agents, config, i)) for i, t in named),
        Stage("collect", partial(collect, config)),
        Stage("pretrain", partial(pretrain, config)),
        *(Stage(f"world/{t.name}", partial(study.fit_world, config, i)) for i, t in named),
        *(Stage(f"evaluate/{t.name}", partial(evaluate, config, i)) for i, t in named),
    ]


def train_agents(config: Config, index: int, folder: Path) -> Work:
    """PPO agents, whose early checkpoints leave trajectories."""
    del folder
    task, c = config.tasks[index], config.collect
    env, nominal, _ = experts.make_tasks(task.env, task.overrides)
    tasks = [nominal] * (c.train_agents + c.validation_agents + c.demonstrators)
    return experts.train(env, tasks, task.ppo, config.seed, config.runtime.devices)


def collect(config: Config, folder: Path) -> Work:
    """Early checkpoints roll out."""
    return Work(lambda state, place: cloning_study.collect(config, folder, place))


def pretrain(config: Config, folder: Path) -> Work:
    """A transformer a seed, on the trajectories of all tasks."""
    corpus, data = cloning_study.load(config, folder)
    return sequences.pretrain_seeds(
        corpus, data["train"], study.seeds(config), config.pretrain, config.runtime.devices
    )


def evaluate(config: Config, index: int, folder: Path) -> Work:
    """Every arm and seed in the same episodes."""

    def finish(state: Any, place: Path) -> dict[str, Any]:
        del state, place
        return study.evaluate(config, index, folder)

    return Work(finish)


costs = study.costs  # of every stage, for --dry-run


def summary(config: Config, folder: Path, preset: str) -> dict[str, Any]:
    """Judge the claims; a failed precondition makes them VOID."""
    done = {t.name: read_done(folder, f"evaluate/{t.name}")["summary"] for t in config.tasks}
    scores = report.scores(config, done)
    return judged(
        claims=claims(config),
        scores=scores,
        preset=preset,
        preconditions=report.preconditions(config, folder, scores),
        shown=scores,
        about=report.about(config),
        tasks=list(done),
        shared_seeds=True,
    ) | report.extras(config, folder, done)
