"""PASTA: pretrain one transformer on action-state tokens of robots, adapt it (arXiv 2307.10936).

Method. Frozen populations of PPO and SAC agents leave histories; a transformer with one token per
scalar of state and action (C-), or one per vector (M-), is pretrained on those of the training
agents, reward-free. Its contextual vector T(s) then replaces the state as a policy's input, and
every arm clones a few demonstrations of a held-out agent with equal updates on equal steps. Tests:
nominal, changed gravity, failing sensors. Scores are normalised by random actions and the expert.

Claims (gated on `cpu`). A1: pretraining beats each component's frequencies by 20 % and copying.
A3: pretrained + tuned beats from scratch by 0.10. A4: adapters below 10,000 parameters keep 95 %.
Others are reported. Limits: T(s) reads the current state alone.

    jaxagent run pasta --preset cpu        # under 10 minutes on 2 cores
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import numpy as np

from envs.returns import Reference
from experiments.pasta import conditions, imitation, pretraining, reward
from experiments.pasta.config import ADAPTER_LIMIT, MODEL_LIMIT, Config
from jaxagent.adapt import subset
from jaxagent.evaluate import statistics
from jaxagent.evaluate.claims import Claim, Precondition
from jaxagent.nn import transformer
from jaxagent.report.figure import Curve, curves, line
from jaxagent.study.study import Found, Measure, Step, Study
from jaxagent.study.verdicts import Scores, normalised

LIMITS = (
    "T(s) reads the current state alone, no history.",
    "The experts are PPO and SAC agents of minutes; scores are relative to the best of them.",
    "Demonstrations and updates were chosen on development seeds (1000 and up).",
    "Changed conditions meet policies that were tuned on nominal data.",
)
SCRATCH_RANGE = (0.2, 0.8)  # where an effect can show
ZERO_SHOT_BELOW = 0.7
SINGLE = {  # an arm made of every domain's own model: that model's name, and what it is
    "single, equal epochs": ("{} epochs", "a model of each domain alone, which saw as much of it"),
    "single, equal tokens": (
        "{} tokens",
        "a model of each domain alone, of as many tokens as the common one",
    ),
    "held out": ("without {}", "a model of all other domains"),
}
CURVE = Curve(
    "train/loss",
    ("pretrain/*",),
    "Pretraining loss",
    "tokens",
    "loss of the objective",
    "tokens (all pretrainings of a model)",
)


def study(config: Config) -> Study:
    """Data, models, then every domain: imitation, tests, and learning from rewards."""
    steps: list[Step] = [Measure("collect", partial(pretraining.collect, config))]
    steps += [pretraining.fit_of(config, model) for model in config.models]
    for domain in config.domains:
        steps += [imitation.fit_of(config, domain, group) for group in imitation.groups(config, domain)]
        steps.append(Measure(f"evaluate/{domain.name}", partial(conditions.evaluate, config, domain)))
        steps += reward.fits_of(config, domain)
    arms = {"zero-shot": "the pretrained model as it is, decoding actions"}
    arms |= {name: arm.description for name, arm in config.arms.items()}
    arms |= {name: about for name, (_, about) in SINGLE.items()}
    return Study(
        arms,
        [d.name for d in config.domains],
        steps,
        partial(scores, config),
        claims(config),
        partial(checks, config),
        figures,
        [CURVE],
        LIMITS,
        label="score (0: random actions, 1: the expert)",
        extras=partial(extras, config),
        is_partial=True,
    )


def claims(config: Config) -> list[Claim]:
    """What is claimed where a preset has the arms; margins were fixed before the claim seeds ran."""
    below, aside = partial(Claim, direction="below"), {"gated": False}
    better = partial(Claim, kind="superiority")
    return [
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
        *_asides(),
    ]


def _asides() -> list[Claim]:
    """What is reported, and gates nothing."""
    aside = {"gated": False}
    better, not_worse = (partial(Claim, kind=k) for k in ("superiority", "non_inferiority"))
    return [
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


def _rewarded(config: Config) -> dict[str, tuple[str, ...]]:
    """Arms that learn from rewards, by algorithm."""
    offline = dict.fromkeys(config.reward.offline, config.reward.arms)
    return offline | ({"online": config.reward.online_arms} if config.reward.online_arms else {})


def references(config: Config, found: Found) -> dict[str, Reference]:
    """Random and expert returns by domain, at the study's horizons."""
    return {d.name: Reference(**found["collect"]["cards"][d.name]["reference"]) for d in config.domains}


def scores(config: Config, found: Found) -> Scores:
    """Normalised scores: `[domains, seeds]` by arm, and `[tests, seeds]` by (metric, arm)."""
    refs = references(config, found)
    played = {d.name: found[f"evaluate/{d.name}"]["returns"] for d in config.domains}
    result: dict[Any, np.ndarray] = {}
    for arm in (*config.arms, "zero-shot"):
        nominal = _rows(played, refs, arm, "nominal")
        if len(nominal) == len(config.domains):
            result[arm] = np.stack(nominal)
        for metric, prefix in (("gravity", "gravity"), ("sensors", "sensor")):
            if rows := _rows(played, refs, arm, prefix):
                result[metric, arm] = np.stack(rows)
    for arm, (pattern, _) in SINGLE.items():
        of = [_rows({name: x}, refs, pattern.format(name), "nominal") for name, x in played.items()]
        if all(of):
            result[arm] = np.stack([rows[0] for rows in of])
    for algorithm, arms in _rewarded(config).items():
        for arm in arms:
            stage = f"online/{{}}/{arm}" if algorithm == "online" else f"offline/{{}}/{algorithm}/{arm}"
            returns = {name: np.asarray(found[stage.format(name)]["returns"]) for name in refs}
            last = {n: x[-1] if x.ndim == 2 else x for n, x in returns.items()}  # online: [snapshots, seeds]
            result[algorithm, arm] = normalised(last, refs)
    validation = found[f"pretrain/{config.main.name}"]["validation"]
    for name, top, bottom in (("loss", "loss", "unigram"), ("copy", "forward", "copied_forward")):
        if all({top, bottom} <= set(row) for one in validation for row in one.values()):
            names = [d.name for d in config.domains_of(config.main)]
            result["pretraining", name] = np.array(
                [[one[n][top] / one[n][bottom] for one in validation] for n in names]
            )
    return result


def _rows(played: Mapping, refs: Mapping[str, Reference], arm: str, prefix: str) -> list[np.ndarray]:
    return [
        statistics.normalise(np.asarray(values), refs[name].random, refs[name].expert)
        for name, by_arm in played.items()
        for test, values in by_arm.get(arm, {}).items()
        if test.startswith(prefix)
    ]


def checks(config: Config, found: Found, table: Scores) -> list[Precondition]:
    """What must hold for the comparison to mean anything."""
    names = [d.name for d in config.domains]

    def room(name: str, values: np.ndarray, low: float, high: float) -> Precondition:
        by_task = [float(statistics.iqm(row[None])) for row in values]
        told = ", ".join(f"{n} {v:.2f}" for n, v in zip(names, by_task, strict=True))
        whole = float(statistics.iqm(values))  # of all domains, as the claims have it
        limits = f"at most {high:g}" if low == -np.inf else f"{low:g} to {high:g}"
        return Precondition(name, low <= whole <= high, f"IQM {whole:.2f} ({told}); {limits}")

    refs, adapters = references(config, found), adapter_sizes(config)
    rooms = ", ".join(f"{n} {r.random:.0f} to {r.expert:.0f}" for n, r in refs.items())
    largest = max(found[f"pretrain/{m.name}"]["parameters"] for m in config.models)
    late = found.recompiled()
    result = [
        Precondition("experts beat random actions", all(r.expert > r.random for r in refs.values()), rooms),
        Precondition(
            f"adapters have fewer than {ADAPTER_LIMIT} parameters",
            max(adapters.values()) < ADAPTER_LIMIT,
            ", ".join(f"{k} {v}" for k, v in adapters.items()),
        ),
        Precondition(
            f"models have fewer than {MODEL_LIMIT} parameters", largest < MODEL_LIMIT, f"at most {largest}"
        ),
        Precondition(
            "no program was compiled after a stage's first chunk (A12)",
            not late,
            ", ".join(f"{stage} {n}" for stage, n in late.items()) or "none was",
        ),
    ]
    if "scratch" in table:
        result.append(room("scratch is neither at floor nor at ceiling", table["scratch"], *SCRATCH_RANGE))
    if "zero-shot" in table:
        result.append(room("zero-shot leaves room", table["zero-shot"], -np.inf, ZERO_SHOT_BELOW))
    return result


def adapter_sizes(config: Config) -> dict[str, int]:
    """Parameters of an adapter of the main model, by kind."""
    base = network_shapes(config, config.main)
    shapes = jax.eval_shape(lambda key: imitation.init_adapters(config, base, key), jax.random.key(0))
    return {kind: transformer.num_parameters(tree) for kind, tree in shapes.items()}


def network_shapes(config: Config, model: Any) -> Any:
    """Shapes of a model's parameters, from the configuration alone."""
    reader = pretraining.reader_of(config, model, pretraining.load(config, None))
    return jax.eval_shape(reader.model.init, jax.random.key(0))


def extras(config: Config, found: Found, table: Scores) -> dict[str, Any]:
    """Cards, cost and limits of the report."""
    del table
    trained = {m.name: found[f"pretrain/{m.name}"] for m in config.models}
    clipped = [
        f"Warning: {sum(report['outside'])} of {report['num_values']} held-out values of {name} "
        "lie outside of the fitted bins and were clipped to their ends."
        for name, report in trained[config.main.name]["tokenizers"].items()
        if sum(report["outside"])
    ]
    return {
        "limits": [*LIMITS, *clipped],
        "cards": found["collect"],
        "pretraining": trained,
        "budgets": budgets(config, trained),
    }


def budgets(config: Config, trained: Mapping[str, Any]) -> dict[str, Any]:
    """What each arm may spend."""
    main, adapters, rows = trained[config.main.name], adapter_sizes(config), {}
    for name, arm in config.arms.items():
        of, is_pretrained = trained.get(arm.model, main), bool(arm.model) and arm.is_pretrained
        moving = adapters.get(arm.method, of["parameters"])
        if arm.method in subset.SUBSETS:
            shapes = network_shapes(config, next(m for m in config.models if m.name == arm.model))
            moving = subset.count(shapes, subset.SUBSETS[arm.method](shapes))
        rows[name] = {
            "parameters": of["parameters"],
            "trained_below_the_head": moving,
            "updates": sum(config.imitation_of(d).num_updates for d in config.domains),
            "pretraining_tokens": of["tokens"] if is_pretrained else 0,
            "pretraining_flops": of["flops"] if is_pretrained else 0,
        }
    return rows


def figures(found: Found) -> list[dict[str, Any]]:
    """Return histograms of the data."""
    result = []
    for name, card in found["collect"]["cards"].items():
        lines = []
        for part, histogram in card["returns"].items():
            if histogram["counts"]:
                edges, counts = np.array(histogram["edges"]), np.array(histogram["counts"])
                lines.append(line(part, (edges[1:] + edges[:-1]) / 2, counts / counts.sum()))
        caption = "Share of finished episodes by bin, all snapshots of each split."
        title = f"Returns of the data: {name}"
        result.append(curves(title, caption, "episode return", "share of episodes", lines))
    return result
