"""PASTA: pretrain one transformer on action-state tokens of robots, adapt it (arXiv 2307.10936).

Method. Frozen populations of PPO and SAC agents leave histories; a transformer with one token per
scalar of state and action (C-), or one per vector (M-), is pretrained on those of the training
agents, reward-free. Its contextual vector T(s) then replaces the state as a policy's input, and
every arm clones a few demonstrations of a held-out agent on equal steps. Tests: nominal,
changed gravity, failing sensors. Scores are normalised by random actions and the expert.

Claims. A3m: pretrained and tuned beats from scratch where scratch takes as many operations, of all robots
together, as pretraining and tuning take. Aside: where it takes as many updates of imitation (A3); it beats
the saboteur, pretrained on states and actions that follow from nothing (A3s), and raw observations (A13);
of larger presets all others, such as another saboteur, pretrained on values that were permuted (A3r).

    jaxagent run pasta --preset cpu        # one robot, ten minutes on 2 cores
    jaxagent run pasta --preset cpu-full   # the paper's tables on two robots, at most 150 minutes
"""

from collections.abc import Mapping
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import jax
import numpy as np

from envs.returns import Reference
from experiments.pasta import conditions, imitation, pretraining, reward, robots
from experiments.pasta.config import ADAPTER_LIMIT, LONGER, MODEL_LIMIT, ArmConfig, Config
from jaxagent.adapt import subset
from jaxagent.evaluate import statistics
from jaxagent.evaluate.claims import Claim, Precondition
from jaxagent.nn import transformer
from jaxagent.report import figure
from jaxagent.report.figure import Curve
from jaxagent.study import agents, budget
from jaxagent.study.budget import Spent
from jaxagent.study.study import Found, Measure, Player, Step, Study
from jaxagent.study.verdicts import Scores, all_between, iqm_by_task, normalised

LIMITS = (
    "Learning from rewards reads T(s) of the current state alone, without history.",
    "The experts are PPO and SAC agents of minutes; scores are relative to the best of them.",
    "Demonstrations, updates and rates were chosen on development seeds (1000 and up); of cpu its robot too: "
    "on halfcheetah and on the hopper with a third of its sensors pretraining added nothing there.",
    "Changed conditions meet policies that were tuned on nominal data.",
)
ROOM = {  # where an effect can show
    "scratch": ("scratch is neither at floor nor at ceiling", 0.2, 0.8),
    conditions.ZERO_SHOT: ("zero-shot leaves room", -np.inf, 0.7),
}
LEARNED = {  # what pretraining must have done, on states that it never saw
    "loss": ("pretraining learned (loss over that of each component's frequencies)", 0.0, 0.85),
    "copy": ("it predicts next states (error over that of copying)", 0.0, 1.0),
}
ALONE = "a model of each domain alone"
SINGLE = {  # an arm made of every domain's own model: that model's name, and what it is
    "single, equal epochs": ("{} epochs", f"{ALONE}, which saw as much of it"),
    "single, equal tokens": ("{} tokens", f"{ALONE}, of as many tokens as the common one"),
    "held out": ("without {}", "a model of all other domains"),
}
TRIALS = 4  # rates and lengths of imitation, on development seeds, of an arm
LIKE_OTHERS = (LONGER, "saboteur", "renamed")  # they have the settings of "scratch" and "full"
TOKENS = "tokens (all pretrainings of a model)"
CURVE = Curve("train/loss", ("pretrain/*",), "Pretraining loss", "tokens", "loss of the objective", TOKENS)


def study(config: Config) -> Study:
    """Data, models, then every domain: imitation, tests, and learning from rewards."""
    config = imitation.matched(config, {d.name: robots.make(d)[0] for d in config.domains})
    steps: list[Step] = [Measure("collect", partial(pretraining.collect, config))]
    steps += [pretraining.fit_of(config, model) for model in config.models]
    for domain in config.domains:
        steps += [imitation.fit_of(group) for group in imitation.groups(config, domain)]
        steps.append(Measure(f"evaluate/{domain.name}", partial(conditions.evaluate, config, domain)))
        steps += reward.fits_of(config, domain)
    arms = {conditions.ZERO_SHOT: "the pretrained model as it is, decoding actions"}
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
        shared_seeds=True,  # a pretraining serves all domains
        spent=spent(config),
        player=partial(player, config),
    )


def player(config: Config, folder: Path, arm: str, task: str) -> Player:
    """An arm as it ended on a domain; its seeds stand as scores do, by pretraining."""
    domain = agents.task_of(config.domains, task)
    made_of, _ = SINGLE.get(arm, (arm, ""))
    ended = conditions.player(config, domain, made_of.format(domain.name), folder)
    seeds = nested(config, np.array([*ended.seeds])[None]).ravel()
    order = seeds - config.adapt.seeds.first
    return ended._replace(params=agents.take(ended.params, order), seeds=seeds.tolist())


def spent(config: Config) -> dict[str, Spent]:
    """Pretraining and imitation of each arm, over all domains."""
    result = {conditions.ZERO_SHOT: Spent((f"pretrain/{config.main.name}",))}
    result |= {
        name: Spent(stages_of(arm), trials=1 if name in LIKE_OTHERS else TRIALS)
        for name, arm in config.arms.items()
    }
    for arm, (pattern, _) in SINGLE.items():
        parts = [config.arms.get(pattern.format(domain.name)) for domain in config.domains]
        if all(parts):
            result[arm] = Spent(tuple(stage for part in parts for stage in stages_of(part)), trials=TRIALS)
    return result


def stages_of(arm: ArmConfig) -> tuple[str, ...]:
    """Where an arm learned what it acts with."""
    before = (f"pretrain/{arm.model}",) if arm.model and arm.is_pretrained else ()
    return (*before, f"imitate/*/{imitation.group_of(arm)}")


def claims(config: Config) -> list[Claim]:
    """What is claimed where a preset has the arms; margins were fixed before the claim seeds ran."""
    aside = partial(Claim, gated=False)
    below = partial(aside, kind="threshold", metric="pretraining", direction="below")
    better, no_worse = "superiority", "non_inferiority"
    unseen = "pretraining on other robots helps a robot never seen"
    common = "one model of all domains is no worse than one of each"
    simple, reads = "the simple objective is no worse", "T(s) beats raw observations"
    sensors = "failing sensors: pretrained beats the raw MLP"
    gravity = "changed gravity: pretrained is no worse than the raw MLP"
    margin, tolerance = config.adapt.margin, config.adapt.tolerance
    offline = 0.4 if config.reward.offline else margin  # development: five pretrainings show 0.38, no less
    result = [
        below("A1a", "pretraining beats each component's frequencies", arm_a="loss", margin=0.8),
        below("A1b", "and predicts next states better than copying", arm_a="copy", margin=1.0),
        Claim(
            "A3m", "pretrained and tuned beats scratch of as many operations", better, "full", LONGER, margin
        ),
        aside("A3", "it beats scratch of as many updates", better, "full", "scratch", margin),
        aside("A3s", "it beats pretraining on shuffled steps", better, "full", "saboteur", margin),
        aside("A3r", "it beats pretraining on permuted values", better, "full", "renamed", margin),
        aside("A13", "T(s) beats raw observations", better, "full", "mlp", margin),
        aside("A4", "(IA)^3 keeps what full tuning has", "ratio", "ia3", "full", 0.85),
        aside("A4x", "so does LoRA", "ratio", "lora", "full", 0.85),
        aside("A5x", unseen, better, "held out", "scratch", margin),
        aside("A8", sensors, better, "full", "mlp", margin, metric="sensors"),
        aside("A11 td3_bc", f"td3_bc: {reads}", better, "full", "mlp", offline, metric="td3_bc"),
        aside("A11 iql", f"iql: {reads}", better, "full", "mlp", offline, metric="iql"),
        aside("A11 online", f"online: {reads}", better, "probe", "mlp", margin, metric="online"),
        aside("A10", "full tuning beats the probe", better, "full", "probe", margin),
    ]
    others = {  # what full tuning of the main model is no worse than
        "A2": ("components are no worse than modalities", "M-GPT"),
        "A2b": ("nor at equal operations", "M-GPT flops"),
        "A5 tokens": (common, "single, equal tokens"),
        "A5 epochs": (common, "single, equal epochs"),
        "A6 C-MTM": (simple, "C-MTM"),
        "A6 C-SMART": (simple, "C-SMART"),
    }
    if tolerance:
        result += [aside(i, told, no_worse, "full", arm, tolerance) for i, (told, arm) in others.items()]
        result.append(aside("A9", gravity, no_worse, "full", "mlp", 0.6 * tolerance, metric="gravity"))
    return result


def references(config: Config, found: Found) -> dict[str, Reference]:
    """Random and expert returns by domain, at the study's horizons."""
    return {d.name: Reference(**found["collect"]["cards"][d.name]["reference"]) for d in config.domains}


def scores(config: Config, found: Found) -> Scores:
    """Normalised scores: `[domains, seeds]` by arm, and `[tests, seeds]` by (metric, arm)."""
    refs = references(config, found)
    table = {
        (name, arm, test): statistics.normalise(returns, reference.random, reference.expert)
        for name, reference in refs.items()
        for arm, tests in found[f"evaluate/{name}"]["returns"].items()
        for test, returns in tests.items()
    }
    result: dict[Any, np.ndarray] = {}
    nest = partial(nested, config)
    for arm in (*config.arms, conditions.ZERO_SHOT):
        parts = {arm: "nominal", ("gravity", arm): "gravity", ("sensors", arm): "sensor"}
        for key, prefix in parts.items():
            rows = [row for (_, a, test), row in table.items() if a == arm and test.startswith(prefix)]
            if len(rows) >= (len(refs) if key == arm else 1):
                result[key] = nest(np.stack(rows))
    for arm, (pattern, _) in SINGLE.items():
        rows = [table.get((name, pattern.format(name), "nominal")) for name in refs]
        if all(row is not None for row in rows):
            result[arm] = nest(np.stack(rows))
    rewarded = [
        (a, arm, f"offline/{{}}/{a}/{arm}") for a, arm in product(config.reward.offline, config.reward.arms)
    ]
    rewarded += [("online", arm, f"online/{{}}/{arm}") for arm in config.reward.online_arms]
    for metric, arm, stage in rewarded:  # online: [snapshots, seeds], of which the last
        last = {name: np.atleast_2d(found[stage.format(name)]["returns"])[-1] for name in refs}
        rows = normalised(last, refs)
        result[metric, arm] = rows[:, None] if metric == "online" else nest(rows)  # of one pretraining
    validation = found[f"pretrain/{config.main.name}"]["validation"]
    for arm, top, bottom in (("loss", "loss", "unigram"), ("copy", "forward", "copied_forward")):
        if all({top, bottom} <= set(row) for one in validation for row in one.values()):
            names = [d.name for d in config.domains_of(config.main)]
            ratios = [[one[name][top] / one[name][bottom] for one in validation] for name in names]
            result["pretraining", arm] = np.array(ratios)
    return result


def nested(config: Config, rows: np.ndarray) -> np.ndarray:
    """Scores `[S, seeds]` as `[S, P, N]`: by pretraining, which seeds take in turn."""
    return rows.reshape(len(rows), -1, config.num_pretrainings).swapaxes(1, 2)


def checks(config: Config, found: Found, table: Scores) -> list[Precondition]:
    """What must hold for the comparison to mean anything."""
    refs, adapters, late = references(config, found), adapter_sizes(config), _told(found.recompiled())
    rooms = _told({name: f"{r.random:.0f} to {r.expert:.0f}" for name, r in refs.items()})
    few = f"adapters have fewer than {ADAPTER_LIMIT} parameters"
    small = f"models have fewer than {MODEL_LIMIT} parameters"
    largest = max(found[f"pretrain/{m.name}"]["parameters"] for m in config.models)
    result = [
        Precondition("experts beat random actions", all(r.expert > r.random for r in refs.values()), rooms),
        Precondition(few, max(adapters.values()) < ADAPTER_LIMIT, _told(adapters)),
        Precondition(small, largest < MODEL_LIMIT, f"at most {largest}"),
        Precondition(
            "no program was compiled after a stage's first chunk (A12)", not late, late or "none was"
        ),
    ]
    for metric, (name, low, high) in LEARNED.items():
        if ("pretraining", metric) in table:
            ratios = table["pretraining", metric].mean(axis=1)
            seen = [domain.name for domain in config.domains_of(config.main)]
            result.append(all_between(name, dict(zip(seen, ratios, strict=True)), low, high))
    for arm, (name, low, high) in ROOM.items():
        if arm in table:
            result.append(all_between(name, iqm_by_task(refs, table[arm]), low, high))
    return result


def _told(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def adapter_sizes(config: Config) -> dict[str, int]:
    """Parameters of an adapter of the main model, by kind."""
    base = network_shapes(config, config.main)
    shapes = jax.eval_shape(partial(imitation.adapters_of, config), jax.random.key(0), base)
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
    told, sizes = budget.budgets(spent(config), found), parameters(config, trained)
    rows = {arm: row | sizes.get(arm, {}) for arm, row in told.items()}
    return {"limits": [*LIMITS, *clipped], "cards": found["collect"], "pretraining": trained, "spent": rows}


def parameters(config: Config, trained: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """How large each arm's network is, and how much of it imitation moves below the head."""
    adapters, models, rows = adapter_sizes(config), {m.name: m for m in config.models}, {}
    for name, arm in config.arms.items():
        size = trained[arm.model or config.main.name]["parameters"]
        moving = adapters.get(arm.method, size)
        if arm.method in subset.SUBSETS:
            shapes = network_shapes(config, models[arm.model])
            moving = subset.count(shapes, subset.SUBSETS[arm.method](shapes))
        rows[name] = {"parameters": size, "trained_below_the_head": moving}
    return rows


def figures(found: Found) -> list[dict[str, Any]]:
    """Return histograms of the data."""
    caption = "Share of finished episodes by bin, all snapshots of each split."
    drawn = partial(figure.shares, caption=caption, x_label="episode return", y_label="share of episodes")
    cards = found["collect"]["cards"].items()
    return [drawn(f"Returns of the data: {name}", counted=card["returns"]) for name, card in cards]
