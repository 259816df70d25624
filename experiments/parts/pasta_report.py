"""The PASTA study's numbers: scores, preconditions, figures and costs."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

import envs
from envs.returns import Reference
from experiments.configs.pasta import ADAPTER_LIMIT, MODEL_LIMIT, ArmConfig, Config
from experiments.parts import imitation
from experiments.parts import pasta_study as study
from experiments.parts.cost import Cost
from jaxagent.adapt import subset
from jaxagent.evaluate import statistics
from jaxagent.evaluate.claim import DEFAULT_METRIC
from jaxagent.evaluate.claims import Precondition
from jaxagent.nn import sequence_model, transformer
from jaxagent.tokens import component
from jaxagent.train import metrics_log
from jaxagent.train.run import read_done

LIMITS = [
    "T(s) reads the current state alone, no history.",
    "The experts are PPO and SAC agents of minutes; scores are relative to the best of them.",
    "Demonstrations and updates were chosen on development seeds (1000 and up).",
    "Changed conditions meet policies that were tuned on nominal data.",
]
UNIGRAM_SHARE = 0.8  # of the unigram entropy, which pretraining has to beat
SCRATCH_RANGE = (0.2, 0.8)  # where an effect can show
ZERO_SHOT_BELOW = 0.7
OF_DOMAINS = {
    "single, equal epochs": "{} epochs",
    "single, equal tokens": "{} tokens",
    "held out": "without {}",
}
SINGLE = {
    "single, equal epochs": "a model of each domain alone, which saw as much of it",
    "single, equal tokens": "a model of each domain alone, of as many tokens as the common one",
    "held out": "a model of all other domains",
}
CURVES = [
    {
        "metric": "train/loss",
        "stages": ["pretrain/*"],
        "title": "Pretraining loss",
        "x": "tokens",
        "x_label": "tokens (all pretrainings of a model)",
        "y_label": "loss of the objective",
    }
]


def references(config: Config, folder: Path) -> dict[str, Reference]:
    """Random and expert returns by domain, at the study's horizons."""
    cards = read_done(folder, "collect")["summary"]["cards"]
    return {d.name: Reference(**cards[d.name]["reference"]) for d in config.domains}


def scores(config: Config, folder: Path) -> dict[Any, np.ndarray]:
    """Normalised scores: `[domains, seeds]` by arm, and `[tests, seeds]` by (metric, arm)."""
    found = {d.name: read_done(folder, f"evaluate/{d.name}")["summary"]["returns"] for d in config.domains}
    refs = references(config, folder)
    result: dict[Any, np.ndarray] = {}
    for arm in (*config.arms, "zero-shot"):
        nominal = _rows(found, refs, arm, "nominal")
        if len(nominal) == len(config.domains):
            result[arm] = np.stack(nominal)
        for metric, prefix in (("gravity", "gravity"), ("sensors", "sensor")):
            if rows := _rows(found, refs, arm, prefix):
                result[metric, arm] = np.stack(rows)
    for arm, pattern in OF_DOMAINS.items():  # every domain's own model, as one arm
        own = [
            _rows({d.name: found[d.name]}, refs, pattern.format(d.name), "nominal") for d in config.domains
        ]
        if all(own):
            result[arm] = np.stack([rows[0] for rows in own])
    result |= _rewards(config, folder, refs)
    validation = read_done(folder, f"pretrain/{config.main.name}")["summary"]["validation"]
    for name, top, bottom in (("loss", "loss", "unigram"), ("copy", "forward", "copied_forward")):
        if all({top, bottom} <= set(row) for one in validation for row in one.values()):
            result["pretraining", name] = np.array(
                [
                    [one[d.name][top] / one[d.name][bottom] for one in validation]
                    for d in config.domains_of(config.main)
                ]
            )
    return result


def _rewards(config: Config, folder: Path, refs: Mapping[str, Reference]) -> dict[Any, np.ndarray]:
    """Scores `[domains, seeds]` of what learned from rewards, by (algorithm, arm)."""
    wanted = {
        (a, arm): f"offline/{{}}/{a}/{arm}" for a in config.reward.offline for arm in config.reward.arms
    }
    wanted |= {("online", arm): f"online/{{}}/{arm}" for arm in config.reward.online_arms}
    result = {}
    for key, pattern in wanted.items():
        rows = []
        for name, ref in refs.items():
            found = np.asarray(read_done(folder, pattern.format(name))["summary"]["returns"])
            last = found[-1] if found.ndim == 2 else found  # online: [snapshots, seeds]
            rows.append(statistics.normalise(last, ref.random, ref.expert))
        result[key] = np.stack(rows)
    return result


def has(found: Mapping[Any, np.ndarray], metric: str, arm: str) -> bool:
    """Whether an arm was measured by a metric: not every preset runs every arm."""
    return (metric, arm) in found or (metric == DEFAULT_METRIC and arm in found)


def _rows(found: Mapping, refs: Mapping, arm: str, prefix: str) -> list[np.ndarray]:
    return [
        statistics.normalise(np.asarray(values), refs[name].random, refs[name].expert)
        for name, by_arm in found.items()
        for test, values in by_arm.get(arm, {}).items()
        if test.startswith(prefix)
    ]


def shown(config: Config, found: Mapping[Any, np.ndarray]) -> list[str]:
    """Arms of the table."""
    names = ("zero-shot", *config.arms, *SINGLE)
    return [arm for arm in names if arm in found]


def about(config: Config) -> dict[str, str]:
    """What each arm is."""
    return (
        SINGLE
        | {"zero-shot": "the pretrained model as it is, decoding actions"}
        | {name: arm.description for name, arm in config.arms.items()}
    )


def preconditions(config: Config, folder: Path, found: Mapping[Any, np.ndarray]) -> list[Precondition]:
    """What must hold for the comparison to mean anything."""
    names = [d.name for d in config.domains]

    def check(name: str, values: np.ndarray, low: float, high: float) -> Precondition:
        by_task = [float(statistics.iqm(row[None])) for row in values]
        told = ", ".join(f"{n} {v:.2f}" for n, v in zip(names, by_task, strict=True))
        whole = float(statistics.iqm(values))  # of all domains, as the claims have it
        limits = f"at most {high:g}" if math.isinf(low) else f"{low:g} to {high:g}"
        return Precondition(name, low <= whole <= high, f"IQM {whole:.2f} ({told}); {limits}")

    refs = references(config, folder)
    rooms = ", ".join(f"{n} {r.random:.0f} to {r.expert:.0f}" for n, r in refs.items())
    adapters = _adapters(config, folder)
    sizes = [read_done(folder, f"pretrain/{m.name}")["summary"]["parameters"] for m in config.models]
    result = [
        Precondition("experts beat random actions", all(r.expert > r.random for r in refs.values()), rooms),
        Precondition(
            f"adapters have fewer than {ADAPTER_LIMIT} parameters",
            max(adapters.values()) < ADAPTER_LIMIT,
            ", ".join(f"{k} {v}" for k, v in adapters.items()),
        ),
        Precondition(
            f"models have fewer than {MODEL_LIMIT} parameters",
            max(sizes) < MODEL_LIMIT,
            f"at most {max(sizes)}",
        ),
    ]
    recompiled = {s: n for s, n in _recompiled(folder).items() if n}
    result.append(
        Precondition(
            "no program was compiled after a stage's first chunk (A12)",
            not recompiled,
            ", ".join(f"{stage} {n}" for stage, n in recompiled.items()) or "none was",
        )
    )
    if "scratch" in found:
        name = "scratch is neither at floor nor at ceiling"
        result.append(check(name, found["scratch"], *SCRATCH_RANGE))
    if "zero-shot" in found:
        result.append(check("zero-shot leaves room", found["zero-shot"], -math.inf, ZERO_SHOT_BELOW))
    return result


def _adapters(config: Config, folder: Path) -> dict[str, int]:
    model = sequence_model_of(config)
    base = jax.eval_shape(model.init, jax.random.key(0))
    shapes = jax.eval_shape(lambda k: imitation.init_adapters(config, base, k), jax.random.key(0))
    return {kind: transformer.num_parameters(tree) for kind, tree in shapes.items()}


def sequence_model_of(config: Config) -> sequence_model.SequenceModel:
    """The main model, from the configuration alone."""
    return _build(config, config.main)


def _build(config: Config, model: Any) -> sequence_model.SequenceModel:
    made = [envs.make(d.env)[0] for d in config.domains_of(model)]
    domains = component.domains([(e.obs_spec, e.action_spec) for e in made])
    tokens = config.tokens_of(model)
    return sequence_model.model(config.network_of(model), tokens, tuple(domains))


def extras(config: Config, folder: Path, found: Mapping[Any, np.ndarray]) -> dict[str, Any]:
    """Figures, cards, cost and limits of the report."""
    trained = {m.name: read_done(folder, f"pretrain/{m.name}")["summary"] for m in config.models}
    return {
        "limits": [*LIMITS, *_clipped(trained[config.main.name])],
        "curves": CURVES,
        "figures": _figures(config, folder, found),
        "cards": read_done(folder, "collect")["summary"],
        "pretraining": trained,
        "throughput": {m.name: _throughput(folder, m.name) for m in config.models},
        "budgets": _budgets(config, folder, trained),
    }


def _recompiled(folder: Path) -> dict[str, int]:
    """Programs compiled after the first chunk of each stage that is done."""
    stages = folder / "stages"
    names = [str(p.parent.relative_to(stages)) for p in sorted(stages.rglob("done.json"))]
    return {n: read_done(folder, n).get("recompiled_programs", 0) for n in names}


def _clipped(summary: Mapping[str, Any]) -> list[str]:
    """A warning for every domain with held-out values beyond the fitted bins."""
    return [
        f"Warning: {sum(report['outside'])} of {report['num_values']} held-out values of {name} "
        "lie outside of the fitted bins and were clipped to their ends."
        for name, report in summary["tokenizers"].items()
        if sum(report["outside"])
    ]


def _throughput(folder: Path, name: str) -> dict[str, float]:
    """Median tokens and operations a second of a pretraining, compilation apart."""
    lines = [
        line for line in metrics_log.read(folder / "metrics.jsonl") if line["stage"] == f"pretrain/{name}"
    ][1:]
    if not lines:
        return {}
    return {
        name: float(np.median([line[name] for line in lines]))
        for name in ("tokens_per_second", "flops_per_second", "mfu")
    }


def _budgets(config: Config, folder: Path, trained: Mapping[str, Any]) -> dict[str, Any]:
    """What each arm may spend."""
    main = trained[config.main.name]
    rows = {}
    for name, arm in config.arms.items():
        own = trained.get(arm.model, main)
        is_pretrained = bool(arm.model) and arm.is_pretrained
        rows[name] = {
            "parameters": own["parameters"],
            "trained_below_the_head": _moving(config, folder, arm, own["parameters"]),
            "updates": sum(config.imitation_of(d).num_updates for d in config.domains),
            "pretraining_tokens": own["tokens"] if is_pretrained else 0,
            "pretraining_flops": own["flops"] if is_pretrained else 0,
        }
    return rows


def _moving(config: Config, folder: Path, arm: ArmConfig, parameters: int) -> int:
    """Parameters that an arm moves, its head left out."""
    adapters = _adapters(config, folder)
    if arm.method in adapters:
        return adapters[arm.method]
    if arm.method == "raw":
        return parameters
    model = next(m for m in config.models if m.name == arm.model)
    shapes = jax.eval_shape(_build(config, model).init, jax.random.key(0))
    return subset.count(shapes, subset.SUBSETS[arm.method](shapes))


def _figures(config: Config, folder: Path, found: Mapping[Any, np.ndarray]) -> list[dict[str, Any]]:
    """Return histograms of the data, and scores under changed conditions."""
    cards = read_done(folder, "collect")["summary"]["cards"]
    result = []
    for name, card in cards.items():
        series = []
        for part, histogram in card["returns"].items():
            if histogram["counts"]:
                edges = np.array(histogram["edges"])
                share = np.array(histogram["counts"]) / sum(histogram["counts"])
                series.append(
                    {"label": part, "x": ((edges[1:] + edges[:-1]) / 2).tolist(), "y": share.tolist()}
                )
        result.append(
            {
                "kind": "curves",
                "title": f"Returns of the data: {name}",
                "caption": "Share of finished episodes by bin, all snapshots of each split.",
                "x_label": "episode return",
                "y_label": "share of episodes",
                "series": series,
            }
        )
    return result


def costs(config: Config) -> list[Cost]:
    """Of every stage, for --dry-run."""
    rows = [Cost("collect", 0, 0.0, 0.0, 0.1, 60.0)]
    for model in config.models:
        built = _build(config, model)
        parameters = transformer.num_parameters(jax.eval_shape(built.init, jax.random.key(0)))
        own = study.Study(built, study.OBJECTIVES[model.objective], (), ())
        pairs = zip(config.domains_of(model), built.layouts, strict=True)
        layouts = [layout for d, layout in pairs if d.name != model.held_out]
        flops = study.flops_per_update(config, own, layouts) * config.fit_of(model).num_updates
        flops *= config.num_pretrainings
        tokens = study.tokens_per_update(config, layouts)
        memory = 4.0 * tokens * config.network.width * config.network.num_layers * 16
        rows.append(Cost(f"pretrain/{model.name}", parameters, flops, memory, 0.3, 15.0))
    main = _build(config, config.main)
    size = transformer.num_parameters(jax.eval_shape(main.init, jax.random.key(0)))
    lanes = config.adapt.num_seeds * len(config.arms)
    for domain, layout in zip(config.domains, main.layouts, strict=True):
        fit = config.imitation_of(domain)
        flops = 6.0 * size * fit.batch_size * fit.num_updates * layout.num_obs_tokens * lanes
        rows.append(Cost(f"imitate/{domain.name}", size * lanes, flops, 16.0 * size * lanes, 0.2, 40.0))
        played = 2.0 * size * layout.num_obs_tokens * domain.horizon * config.adapt.episodes * lanes
        rows.append(Cost(f"evaluate/{domain.name}", 0, played, 4.0 * size * lanes, 0.1, 40.0))
    return rows
