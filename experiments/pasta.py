"""PASTA: pretrain one transformer on action-state tokens of robots, adapt it (arXiv 2307.10936).

Method. Frozen populations of PPO and SAC agents leave histories; a transformer with one token per
scalar of state and action (C-), or one per vector (M-), is pretrained on those of the training
agents, reward-free. Its contextual vector T(s) then replaces the state as a policy's input, and
every arm clones a few demonstrations of a held-out agent with equal updates on equal steps. Tests:
nominal, changed gravity, failing sensors. Scores are normalised by random actions and the expert.

Claims (gated on `cpu`). A1: pretraining beats each component's frequencies by 20 % and copying.
A3: pretrained + tuned beats from scratch by 0.10. A4: adapters below 10,000 parameters keep 95 %.
Others are reported. Limits: T(s) reads the current state alone.

    python -m experiments.pasta --preset cpu        # under 10 minutes on 2 cores
"""

if __name__ == "__main__":  # the command line is parsed before JAX is imported
    from experiments.cli import run_module

    run_module("pasta")

from functools import partial
from pathlib import Path
from typing import Any

from experiments.configs.pasta import Config, DomainConfig, ModelConfig
from experiments.parts import pasta_report as report
from experiments.parts import pasta_study as study
from experiments.parts.comparison import judged
from jaxagent.evaluate.claims import Claim
from jaxagent.train.run import Stage, Work


def claims(config: Config) -> list[Claim]:
    """What is claimed; margins were fixed before the claim seeds ran."""
    below, aside = partial(Claim, direction="below"), {"gated": False}
    better = partial(Claim, kind="superiority")
    result = [
        below("A1a", "pretraining beats the frequencies of each component", "threshold", "loss",
              margin=0.8, metric="pretraining"),
        below("A1b", "and predicts better than copying", "threshold", "copy", margin=1.0,
              metric="pretraining"),
        better("A3", "pretrained and tuned beats from scratch", arm_a="full", arm_b="scratch",
               margin=config.adapt.margin),
        *(
            Claim(f"A4 {arm}", "an adapter keeps what full tuning gains", "ratio", arm, "full",
                  margin=0.85)
            for arm in ("lora", "ia3")
        ),
        better("A10", "full tuning beats the probe", arm_a="full", arm_b="probe", **aside),
    ]  # fmt: skip
    if "M-GPT" in config.arms:
        result.append(
            Claim("A2", "components are no worse than modalities", "non_inferiority", "full",
                  "M-GPT", margin=0.05, **aside)
        )  # fmt: skip
    for metric, claim in (("sensors", "A8"), ("gravity", "A9")):
        if any(getattr(d, {"sensors": "sensors", "gravity": "gravities"}[metric]) for d in config.domains):
            result.append(
                better(claim, f"changed {metric}: pretrained beats the raw MLP", arm_a="full",
                       arm_b="mlp", metric=metric, **aside)
            )  # fmt: skip
    return result


def stages(config: Config) -> list[Stage]:
    """The run, in order."""
    result = [Stage("collect", partial(collect, config))]
    result += [Stage(f"pretrain/{m.name}", partial(pretrain, config, m)) for m in config.models]
    for domain in config.domains:
        result += [
            Stage(f"imitate/{domain.name}/{group}", partial(imitate, config, domain, group))
            for group in study.groups(config, domain)
        ]
        result.append(Stage(f"evaluate/{domain.name}", partial(evaluate, config, domain)))
    return result


def collect(config: Config, folder: Path) -> Work:
    """Histories of the training agents, demonstrations of the best, random and expert returns."""
    del folder
    return Work(lambda state, place: study.collect(config, place))


def pretrain(config: Config, model: ModelConfig, folder: Path) -> Work:
    """One model, several seeds, all its domains."""
    return study.pretrain(config, model, folder)


def imitate(config: Config, domain: DomainConfig, group: str, folder: Path) -> Work:
    """Arms that share a network and a way to be tuned are lanes of one program."""
    return study.imitate(config, domain, study.groups(config, domain)[group], group, folder)


def evaluate(config: Config, domain: DomainConfig, folder: Path) -> Work:
    """Play all arms of a domain."""
    return Work(lambda state, place: {"returns": study.evaluate(config, domain, folder)})


costs = report.costs  # of every stage, for --dry-run


def summary(config: Config, folder: Path, preset: str) -> dict[str, Any]:
    """Judge the claims; a failed precondition makes them VOID."""
    scores = report.scores(config, folder)
    return judged(
        claims=claims(config), scores=scores, preset=preset,
        preconditions=report.preconditions(config, folder, scores),
        shown={name: scores[name] for name in report.shown(config, scores)},
        about=report.about(config), tasks=[d.name for d in config.domains],
    ) | report.extras(config, folder, scores)  # fmt: skip
