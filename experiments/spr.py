"""SPR: a representation learned by predicting itself, and what keeps it from collapse.

Method. From the latent of a state a transition rolls forward under K actions; at every step a
predictor names the projection that a slow copy of the encoder gives the observation that came
(Schwarzer et al. 2021; K = 1: Ni et al. 2024). The probe learns from random play of MinAtar's
Breakout and nothing else; linear probes then say what latents know of the true state. On the
larger preset Rainbow learns MinAtar with the loss and without.

Claims. S1: self-prediction adds to what linear probes read. S2-S4: its predictions beat "nothing
changes", depend on actions, and latents keep many dimensions. S5: where the target learns, latents
collapse. Aside: S6, S7, so they do without predictor, and without both it and the transition; S8,
no alarm at all goes off in the sound arm. T1-T4: as S1-S3 and S8, in a transformer over patches of
the board. On MinAtar, R1: Rainbow is better with self-prediction.

    python -m experiments.spr --preset cpu        # minutes on 2 cores
"""

if __name__ == "__main__":  # the command line is parsed before JAX is imported
    from experiments.cli import run_module

    run_module("spr")

from functools import partial
from pathlib import Path
from typing import Any

from experiments.configs.spr import Config, TaskConfig
from experiments.parts import rainbow_study as agents
from experiments.parts import spr_report as report
from experiments.parts import spr_study as study
from experiments.parts.comparison import judged
from experiments.parts.cost import Cost
from jaxagent.evaluate.claims import Claim
from jaxagent.train.run import Stage, Work, read_done


def claims(config: Config) -> list[Claim]:
    """What is claimed; margins were fixed before the claim seeds ran."""
    sound, aside = partial(Claim, kind="threshold", arm_a="spr"), {"gated": False}
    tokens = partial(Claim, kind="threshold", arm_a="tokens")
    falls = partial(Claim, kind="threshold", metric="collapse", margin=0.5)
    probe = [
        Claim("S1", "self-prediction adds to linear probes", "superiority", "spr", "untrained", margin=0.1),
        sound("S2", "predictions beat 'nothing changes'", metric="copy_ratio", margin=0.8, direction="below"),
        sound("S3", "predictions depend on actions", metric="action_sensitivity", margin=1.05),
        sound("S4", "latents keep a fifth of their dimensions", metric="effective_rank", margin=0.2),
        falls("S5", "where the target learns, latents collapse", arm_a="target learns"),
        falls("S6", "without a predictor they collapse", arm_a="no predictor", **aside),
        falls("S7", "without transition and predictor too", arm_a="no transition", **aside),
        sound("S8", "the sound arm trips no alarm", metric="alarm", margin=0.5, direction="below", **aside),
    ]
    probe += [
        Claim(
            "T1",
            "in the transformer it adds to linear probes too",
            "superiority",
            "tokens",
            "untrained tokens",
            margin=0.1,
        ),
        tokens(
            "T2", "its predictions beat 'nothing changes'", metric="copy_ratio", margin=0.8, direction="below"
        ),
        tokens("T3", "they depend on actions", metric="action_sensitivity", margin=1.05),
        tokens("T4", "it trips no alarm", metric="alarm", margin=0.5, direction="below", **aside),
    ]
    rainbow = [
        Claim("R1", "Rainbow is better with self-prediction", "superiority", *agents.AGENTS, metric="returns")
    ]
    return (probe if config.has_probe else []) + (rainbow if config.tasks else [])


def stages(config: Config) -> list[Stage]:
    """The run, in order."""
    probe = [Stage(f"probe/{arm}", partial(train_probe, config, arm)) for arm in study.TRAINED]
    probe += [Stage(f"measure/{arm}", partial(measure, config, arm)) for arm in study.TRAINED]
    result = probe if config.has_probe else []
    for task in config.tasks:
        result += [
            Stage(f"train/{task.name}/{name}", partial(train_agent, config, task, name))
            for name in agents.AGENTS
        ]
        result.append(Stage(f"evaluate/{task.name}", partial(evaluate, config, task)))
    return result


def train_probe(config: Config, arm: str, folder: Path) -> Work:
    """A lane a seed, on the same random play."""
    del folder
    return study.train(config, arm)


def measure(config: Config, arm: str, folder: Path) -> Work:
    """Diagnoses and probes of every snapshot, on held-out states."""
    return Work(lambda state, place: study.evaluate(config, arm, folder))


def train_agent(config: Config, task: TaskConfig, name: str, folder: Path) -> Work:
    """A lane a seed."""
    del folder
    return agents.train(config, task, name)


def evaluate(config: Config, task: TaskConfig, folder: Path) -> Work:
    """Both agents in the same episodes."""
    return Work(lambda state, place: agents.evaluate(config, task, folder))


def costs(config: Config) -> list[Cost]:
    """Of every stage, for --dry-run."""
    rows = [study.cost(config, arm) for arm in study.TRAINED] if config.has_probe else []
    for task in config.tasks:
        rows += [agents.cost(config, task, name) for name in agents.AGENTS]
    return rows


def summary(config: Config, folder: Path, preset: str) -> dict[str, Any]:
    """Judge the claims; a failed precondition makes them VOID."""
    found = study.measured(config, folder) if config.has_probe else None
    done = {t.name: read_done(folder, f"evaluate/{t.name}")["summary"] for t in config.tasks}
    table = report.scores(found) if found else {}
    returns = report.agent_scores(config, done) if done else {}
    return judged(
        claims=claims(config),
        preset=preset,
        scores=table | {("returns", name): x for name, x in returns.items()},
        preconditions=report.preconditions(table) if found else [],
        **report.shown(config, table, returns),
    ) | report.extras(config, folder, found, done)
