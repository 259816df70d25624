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
from experiments.parts import conditions, imitation, reward_study
from experiments.parts import pasta_report as report
from experiments.parts import pasta_study as study
from experiments.parts.comparison import judged
from jaxagent.evaluate.claims import Claim
from jaxagent.train.run import Stage, Work


def claims(config: Config) -> list[Claim]:
    """What is claimed; margins were fixed before the claim seeds ran."""
    below, aside = partial(Claim, direction="below"), {"gated": False}
    better, not_worse = (partial(Claim, kind=k) for k in ("superiority", "non_inferiority"))
    result = [
        below(
            "A1a",
            "pretraining beats each component's frequencies",
            "threshold",
            "loss",
            margin=0.8,
            metric="pretraining",
            **aside,
        ),
        below(
            "A1b",
            "and predicts next states better than copying",
            "threshold",
            "copy",
            margin=1.0,
            metric="pretraining",
            **aside,
        ),
        better(
            "A3",
            "pretrained and tuned beats from scratch",
            arm_a="full",
            arm_b="scratch",
            margin=config.adapt.margin,
        ),
        Claim("A4", "(IA)^3 keeps what full tuning has", "ratio", "ia3", "full", margin=0.85),
        Claim("A4x", "so does LoRA", "ratio", "lora", "full", margin=0.85, **aside),
        not_worse(
            "A2", "components are no worse than modalities", arm_a="full", arm_b="M-GPT", margin=0.05, **aside
        ),
        not_worse("A2b", "nor at equal operations", arm_a="full", arm_b="M-GPT flops", margin=0.05, **aside),
        *(
            not_worse(
                f"A5 {kind}",
                "one model of all domains is no worse than one of each",
                arm_a="full",
                arm_b=f"single, equal {kind}",
                margin=0.05,
                **aside,
            )
            for kind in ("tokens", "epochs")
        ),
        better(
            "A5x",
            "pretraining on other robots helps a robot never seen",
            arm_a="held out",
            arm_b="scratch",
            **aside,
        ),
        *(
            not_worse(
                f"A6 {arm}", "the simple objective is no worse", arm_a="full", arm_b=arm, margin=0.05, **aside
            )
            for arm in ("C-MTM", "C-SMART")
        ),
        better(
            "A8",
            "failing sensors: pretrained beats the raw MLP",
            arm_a="full",
            arm_b="mlp",
            metric="sensors",
            margin=0.10,
            **aside,
        ),
        not_worse(
            "A9",
            "changed gravity: pretrained is no worse than the raw MLP",
            arm_a="full",
            arm_b="mlp",
            metric="gravity",
            margin=0.03,
            **aside,
        ),
        *(
            better(
                f"A11 {metric}",
                f"{metric}: T(s) beats raw observations",
                arm_a=arm,
                arm_b="mlp",
                metric=metric,
                **aside,
            )
            for metric, arm in (("td3_bc", "full"), ("iql", "full"), ("online", "probe"))
        ),
        better("A10", "full tuning beats the probe", arm_a="full", arm_b="probe", **aside),
    ]
    return result


def stages(config: Config) -> list[Stage]:
    """The run, in order."""
    result = [Stage("collect", partial(collect, config))]
    result += [Stage(f"pretrain/{m.name}", partial(pretrain, config, m)) for m in config.models]
    for domain in config.domains:
        result += [
            Stage(f"imitate/{domain.name}/{group}", partial(imitate, config, domain, group))
            for group in imitation.groups(config, domain)
        ]
        result.append(Stage(f"evaluate/{domain.name}", partial(evaluate, config, domain)))
        result += rewards(config, domain)
    return result


def rewards(config: Config, domain: DomainConfig) -> list[Stage]:
    """Learning from rewards on top of T(s), where it is asked for."""
    offline = [
        Stage(
            f"offline/{domain.name}/{algorithm}/{arm}",
            partial(reward_study.learn_offline, config, domain, algorithm, arm),
        )
        for algorithm in config.reward.offline
        for arm in config.reward.arms
    ]
    return offline + [
        Stage(f"online/{domain.name}/{arm}", partial(reward_study.learn_online, config, domain, arm))
        for arm in config.reward.online_arms
    ]


def collect(config: Config, folder: Path) -> Work:
    """Histories of the training agents, demonstrations of the best, random and expert returns."""
    del folder
    return Work(lambda state, place: study.collect(config, place))


def pretrain(config: Config, model: ModelConfig, folder: Path) -> Work:
    """One model, several seeds, all its domains."""
    return study.pretrain(config, model, folder)


def imitate(config: Config, domain: DomainConfig, group: str, folder: Path) -> Work:
    """Arms that share a network and a way to be tuned are lanes of one program."""
    return imitation.imitate(config, domain, imitation.groups(config, domain)[group], group, folder)


def evaluate(config: Config, domain: DomainConfig, folder: Path) -> Work:
    """Play all arms of a domain."""
    return Work(lambda state, place: {"returns": conditions.evaluate(config, domain, folder)})


costs = report.costs  # of every stage, for --dry-run


def summary(config: Config, folder: Path, preset: str) -> dict[str, Any]:
    """Judge the claims; a failed precondition makes them VOID."""
    scores = report.scores(config, folder)
    asked = [c for c in claims(config) if all(report.has(scores, c.metric, a) for a in c.arms)]
    return judged(
        claims=asked,
        scores=scores,
        preset=preset,
        preconditions=report.preconditions(config, folder, scores),
        shown={name: scores[name] for name in report.shown(config, scores)},
        about=report.about(config),
        tasks=[d.name for d in config.domains],
    ) | report.extras(config, folder, scores)
