"""In-context learning as Bayesian model averaging (Zhang et al. 2023, arXiv 2305.19420).

Method. A transformer learns next-state prediction on walks through random MDPs of a frozen pool,
drawn anew in every update, so the best possible predictor is computable: the posterior average over
the pool. The trained model is compared with it, and with all else it might compute: the most
probable task, a posterior sample, the prior mean, Polya counts, a kernel smoother, bigram counts,
the true task.

Claims. B1: its KL from exact Bayes is at most 0.2 of that from the next best predictor, where these
differ. B2: its regret per step to the best task in hindsight falls like 1/T. B3: the saboteur,
trained on walks whose task is drawn anew at every step, is farther from Bayes. B4: attention set by
hand is ridge regression. B5, B6, B8: wrong labels, a new pool, depth (with several depths).

    jaxagent run icl_bma --preset cpu        # under 10 minutes on 2 cores
    jaxagent run icl_bma --prompts.task fresh --out runs/fresh    # or linear
"""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from experiments.icl_bma import measure
from experiments.icl_bma.config import Config
from experiments.icl_bma.measure import EXACT, SIZES
from jaxagent.evaluate.claims import Claim, Precondition
from jaxagent.report.figure import curves, line
from jaxagent.study import agents, in_context
from jaxagent.study.budget import Spent
from jaxagent.study.study import Fit, Found, Lanes, Measure, Study
from jaxagent.study.verdicts import Scores, of_seeds

ARMS = {
    EXACT: "posterior average over the tasks: what the theory predicts",
    "most probable task": "the table of the task of largest posterior",
    "posterior sample": "the table of a task drawn from the posterior (Thompson)",
    "prior mean": "nothing is learned in context",
    "Polya counts": "counts with the prior's pseudo-counts: right for tasks never seen",
    "kernel smoother": "softmax attention over contexts",
    "bigram counts": "counts without a prior",
    "kernel regression": "softmax attention over inputs",
    "true task": "knows the task that made the prompt",
    "as many updates": "exact Bayes, from the model when it had the saboteur's updates",
    "saboteur": "exact Bayes, from the saboteur: trained without a shared task",
}
LIMITS = (
    "The task is small and synthetic: what is tested is the identity, not a benchmark's numbers.",
    "Updates, learning rate and alpha were chosen on development seeds (1000 and up).",
)
NEXT, POOLS = "next best", ("trained pool", "new pool")  # arms of claims alone
FLOOR = 1e-12  # of a gap, in a logarithmic figure


def study(config: Config) -> Study:
    """Models of every depth, the saboteurs, then all of them against the references."""
    models = {depth: Fit(f"pretrain/depth-{depth}", partial(lanes, config, depth)) for depth in config.depths}
    saboteur = Fit("pretrain/saboteur", partial(lanes, config, None))
    measured = Measure("evaluate", lambda folder, place: evaluate(config, models, saboteur, folder))
    unit = "KL, nats" if config.prompts.task != "linear" else "squared difference"
    return Study(
        ARMS,
        [config.prompts.task],
        [*models.values(), saboteur, measured],
        partial(scores, config),
        claims(config),
        lambda found, table: checks(config, found),
        partial(figures, config),
        limits=LIMITS,
        label=f"{unit} from the predictor to the model (less: nearer)",
        title="Which predictor the model is nearest to",
        shown=lambda table, arm: table.get(("gap", arm)),
        spent=spent(config),
    )


def spent(config: Config) -> dict[str, Spent]:
    """Predictors are held against the deepest model, and cost nothing to learn beside it."""
    stages = {f"depth {depth}": Spent((f"pretrain/depth-{depth}",)) for depth in config.depths}
    model, share = stages[f"depth {config.depths[-1]}"], config.saboteur_updates / config.fit.num_updates
    result = dict.fromkeys([*ARMS, NEXT], model) | {"saboteur": Spent(("pretrain/saboteur",))}
    result["as many updates"] = model._replace(share=share)
    return result | (stages if len(stages) > 1 else {})  # depths are compared where there are several


def claims(config: Config) -> list[Claim]:
    """What is claimed of this configuration; margins were fixed before the claim seeds ran."""
    aside = partial(Claim, gated=False)
    gap = partial(aside, metric="gap", direction="below")
    made = partial(aside, metric="construction")
    is_ridge = "linear attention set by hand is ridge regression"
    result = [
        gap("B1", "closer to exact Bayes than to anything else", "ratio", EXACT, NEXT, 0.2, gated=True),
        gap("B3", "the saboteur is farther from Bayes", "superiority", "as many updates", "saboteur"),
        made("B4a", is_ridge, "threshold", "linear attention", margin=1e-5, direction="below"),
        made("B4b", "softmax attention tends to the conditional mean", "slope", high=0.0, **_lengths(SIZES)),
    ]
    if config.prompts.task == "pool":
        falls = {"low": -1.2, "high": -0.8} | _lengths([t for t in SIZES if t <= config.prompts.num_steps])
        wrong = partial(aside, metric="wrong labels")
        pools = partial(aside, metric="new pool", direction="below")
        result += [
            Claim("B2", "regret per step falls like 1/T", "slope", metric="regret", **falls),
            aside("B2x", "so does that of exact Bayes", "slope", metric="exact regret", **falls),
            wrong("B5", "wrong labels cost what Bayes' formula says", "threshold", "model", margin=0.95),
            pools("B6", "on a new pool it averages over the old one", "ratio", *POOLS, margin=0.5),
        ]
    depths = [f"depth {d}" for d in reversed(config.depths)]
    if len(depths) > 1:
        deeper = partial(aside, metric="distance", direction="below", between=tuple(depths[1:-1]))
        result.append(deeper("B8", "deeper models are nearer", "ordering", depths[0], depths[-1]))
    return result


def _lengths(lengths: Sequence[int]) -> dict[str, Any]:
    """Prompt lengths as the arms of a slope."""
    first, *between, last = (f"T={t}" for t in lengths)
    return {"arm_a": first, "arm_b": last, "between": tuple(between), "sizes": tuple(lengths)}


def lanes(config: Config, depth: int | None, folder: Path | None) -> Lanes:
    """One lane a seed; the saboteurs (no depth) share first parameters and keys with the models."""
    del folder
    task, is_broken = measure.task_of(config, depth or config.depths[-1]), depth is None
    pools = agents.stack([measure.pool_of(task, seed) for seed in config.seeds])
    fit = config.saboteur_fit if is_broken else config.fit
    draw, in_turn = partial(task.draw, is_broken=is_broken), config.runtime.lanes_in_turn
    return in_context.pretrain(task.setting, pools, draw, tuple(config.seeds), fit, in_turn=in_turn)


def evaluate(config: Config, models: dict[int, Fit], saboteur: Fit, folder: Path) -> dict[str, Any]:
    """Every seed's model against the references, on prompts that it never saw."""
    tasks = {depth: measure.task_of(config, depth) for depth in models}
    kept = {depth: fit.load(folder, tasks[depth].setting.init) for depth, fit in models.items()}
    task, model = tasks[config.depths[-1]], kept[config.depths[-1]]
    broken = saboteur.load(folder, task.setting.init)
    # The model as it was when it had as many updates as the saboteur.
    then = config.saboteur_updates // config.fit.updates_per_chunk
    rows = []
    for i, seed in enumerate(config.seeds):
        params = agents.take(model, -1, i), agents.take(model, then, i), agents.take(broken, -1, i)
        rows.append(measure.measure_seed(config, task, seed, params))
    distances = {f"depth {d}": measure.distances(config, tasks[d], x) for d, x in kept.items()}
    return {"rows": rows, "distances": distances}


def scores(config: Config, found: Found) -> Scores:
    """(metric, arm) -> `[1, seeds]`."""
    rows = found["evaluate"]["rows"]
    column = partial(of_seeds, rows)
    table: dict[Any, np.ndarray] = {("gap", name): column("gaps", name) for name in rows[0]["gaps"]}
    others = [gap for (_, name), gap in table.items() if name != EXACT]
    table |= {
        ("gap", NEXT): np.min(others, axis=0),
        ("gap", "as many updates"): column("as_many_updates"),
        ("gap", "saboteur"): column("saboteur"),
        ("construction", "linear attention"): column("construction", "linear"),
    }
    for i, size in enumerate(SIZES):
        table["construction", f"T={size}"] = column("construction", "softmax", i)
        if size <= config.prompts.num_steps and "model_excess" in rows[0]:
            table["regret", f"T={size}"] = column("model_excess", size - 1) / size
            table["exact regret", f"T={size}"] = column("exact_excess", size - 1) / size
    if "new_pool" in rows[0]:
        table["wrong labels", "model"] = column("wrong_labels")
        table |= {("new pool", name): column("new_pool", name) for name in POOLS}
    for depth, by_seed in found["evaluate"]["distances"].items():
        table["distance", depth] = of_seeds(by_seed, -1)
    return table


def checks(config: Config, found: Found) -> list[Precondition]:
    """Exact Bayes keeps its bound, and positions that tell predictors apart exist."""
    rows = found["evaluate"]["rows"]
    share = [row["informative_share"] for row in rows]
    detail = f"share of positions {min(share):.3f} to {max(share):.3f}; expected above 0.01"
    result = [Precondition("some positions tell the predictors apart", min(share) > 0.01, detail)]
    if config.prompts.task == "pool":
        worst = max(row["violation"] for row in rows)
        detail = f"most beyond the bound {worst:.2g} nats; expected at most 1e-9"
        name = "exact Bayes keeps its regret bound on every prefix"
        result.append(Precondition(name, worst <= 1e-9, detail))
    return result


def figures(config: Config, found: Found) -> list[dict[str, Any]]:
    """The paper's curves, redrawn for this run."""
    rows, steps = found["evaluate"]["rows"], range(1, config.prompts.num_steps + 1)
    log_log = partial(curves, log_x=True, log_y=True)
    gaps = [("model", "by_position"), ("saboteur", "saboteur_by_position")]
    lines = [_line(name, steps, [row[key] for row in rows]) for name, key in gaps]
    title = "Distance from exact Bayes along the prompt"
    caption = "At each position, mean over prompts; a line a seed."
    result = [curves(title, caption, "steps seen", "gap to exact Bayes", lines, log_y=True)]
    if config.prompts.task == "pool":
        excess = [("model", "model_excess"), ("exact Bayes", "exact_excess")]
        lines = [_line(name, steps, [np.array(row[key]) / steps for row in rows]) for name, key in excess]
        lines.append(_line("bound", steps, [np.log(config.prompts.num_tasks) / np.array(steps)], dashed=True))
        title = "Regret per step to the best task in hindsight"
        caption = "Model and exact Bayes on the same prompts; dashed: the bound log D / T of a uniform pool."
        result.append(log_log(title, caption, "steps T", "nats per step", lines))
    every = config.fit.updates_per_chunk
    updates = range(every, config.fit.num_updates + 1, every)
    distances = found["evaluate"]["distances"].items()
    lines = [_line(depth, updates, np.array(by_seed)[:, 1:]) for depth, by_seed in distances]
    title = "Distance from exact Bayes while training"
    caption = "Total variation (regression: root mean squared gap), mean over positions."
    result.append(log_log(title, caption, "updates", "distance", lines))
    title = "Softmax attention set by hand"
    caption = "Root mean squared error against the conditional mean to which it tends."
    lines = [_line("error", SIZES, [row["construction"]["softmax"] for row in rows])]
    return [*result, log_log(title, caption, "pairs in the prompt", "error", lines)]


def _line(label: str, x: Iterable[float], by_seed: Any, *, dashed: bool = False) -> dict[str, Any]:
    """One line of a logarithmic figure, `by_seed [seeds][n]`."""
    return line(label, x, np.maximum(np.array(by_seed, np.float64), FLOOR).T, dashed=dashed)
