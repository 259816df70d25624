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

from collections.abc import Callable, Iterable, Sequence
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
from jaxagent.study.study import Fit, Found, Lanes, Measure, Study
from jaxagent.study.verdicts import Scores

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
FLOOR = 1e-12  # of a gap, in a logarithmic figure


def study(config: Config) -> Study:
    """Models of every depth, the saboteurs, then all of them against the references."""
    models = {depth: Fit(f"pretrain/depth-{depth}", partial(lanes, config, depth)) for depth in config.depths}
    saboteur = Fit("pretrain/saboteur", partial(lanes, config, None))
    unit = "KL, nats" if config.prompts.task != "linear" else "squared difference"
    return Study(
        ARMS,
        [config.prompts.task],
        [*models.values(), saboteur, Measure("evaluate", partial(evaluate, config, models, saboteur))],
        partial(scores, config),
        claims(config),
        partial(checks, config),
        partial(figures, config),
        limits=LIMITS,
        label=f"{unit} from the predictor to the model (less: nearer)",
        title="Which predictor the model is nearest to",
        shown=lambda table, arm: table.get(("gap", arm)),
    )


def claims(config: Config) -> list[Claim]:
    """What is claimed of this configuration; margins were fixed before the claim seeds ran."""
    below, aside = partial(Claim, direction="below"), {"gated": False}
    result = [
        below(
            "B1",
            "closer to exact Bayes than to anything else",
            "ratio",
            EXACT,
            "next best",
            margin=0.2,
            metric="gap",
        ),
        below(
            "B3",
            "the saboteur is farther from Bayes",
            "superiority",
            "as many updates",
            "saboteur",
            metric="gap",
            **aside,
        ),
        below(
            "B4a",
            "linear attention set by hand is ridge regression",
            "threshold",
            "linear attention",
            margin=1e-5,
            metric="construction",
            **aside,
        ),
        Claim(
            "B4b",
            "softmax attention tends to the conditional mean",
            "slope",
            metric="construction",
            high=0.0,
            **_lengths(SIZES),
            **aside,
        ),
    ]
    if config.prompts.task == "pool":
        lengths = _lengths([t for t in SIZES if t <= config.prompts.num_steps])
        slope = partial(Claim, kind="slope", low=-1.2, high=-0.8, **lengths)
        result += [
            slope("B2", "regret per step falls like 1/T", metric="regret"),
            slope("B2x", "so does that of exact Bayes", metric="exact regret", **aside),
            Claim(
                "B5",
                "wrong labels cost what Bayes' formula says",
                "threshold",
                "model",
                margin=0.95,
                metric="wrong labels",
                **aside,
            ),
            below(
                "B6",
                "on a new pool it averages over the old one",
                "ratio",
                "trained pool",
                "new pool",
                margin=0.5,
                metric="new pool",
                **aside,
            ),
        ]
    depths = [f"depth {d}" for d in reversed(config.depths)]
    if len(depths) > 1:
        between = tuple(depths[1:-1])
        result.append(
            below(
                "B8",
                "deeper models are nearer",
                "ordering",
                depths[0],
                depths[-1],
                between=between,
                metric="distance",
                **aside,
            )
        )
    return result


def _lengths(lengths: Sequence[int]) -> dict[str, Any]:
    """Prompt lengths as the arms of a slope."""
    names = [f"T={t}" for t in lengths]
    ends = {"arm_a": names[0], "arm_b": names[-1], "between": tuple(names[1:-1])}
    return ends | {"sizes": tuple(lengths)}


def lanes(config: Config, depth: int | None, folder: Path | None) -> Lanes:
    """One lane a seed; the saboteurs (no depth) share first parameters and keys with the models."""
    del folder
    task, seeds = measure.task_of(config, depth or config.depths[-1]), tuple(config.seeds)
    drawn_from = agents.stack([task.lane(seed, depth is None) for seed in seeds])
    in_turn = config.runtime.lanes_in_turn
    return in_context.pretrain(
        task.setting, drawn_from, task.draw, seeds, config.fit_of(depth), in_turn=in_turn
    )


def evaluate(
    config: Config, models: dict[int, Fit], saboteur: Fit, folder: Path, place: Path
) -> dict[str, Any]:
    """Every seed's model against the references, on prompts that it never saw."""
    del place
    init = {depth: measure.task_of(config, depth).setting.init for depth in config.depths}
    kept = {depth: fit.load(folder, init[depth]) for depth, fit in models.items()}
    broken, last = saboteur.load(folder, init[config.depths[-1]]), kept[config.depths[-1]]
    # The model as it was when it had as many updates as the saboteur.
    then = config.saboteur_updates // config.fit.updates_per_chunk
    run = measure.measurements(config, measure.task_of(config, config.depths[-1]))
    rows = [
        run(seed, agents.take(last, -1, i), agents.take(last, then, i), agents.take(broken, -1, i))
        for i, seed in enumerate(config.seeds)
    ]
    return {
        "rows": rows,
        "distances": {f"depth {d}": measure.distances(config, d, x) for d, x in kept.items()},
    }


def scores(config: Config, found: Found) -> Scores:
    """(metric, arm) -> `[1, seeds]`."""
    rows = found["evaluate"]["rows"]

    def column(read: Callable[[dict], float]) -> np.ndarray:
        return np.array([[read(row) for row in rows]])

    gaps = {name: column(lambda r, n=name: r["gaps"][n]) for name in rows[0]["gaps"]}
    others = np.concatenate([v for n, v in gaps.items() if n != EXACT])
    table: dict[Any, np.ndarray] = {("gap", name): value for name, value in gaps.items()}
    table |= {
        ("gap", "next best"): others.min(0, keepdims=True),
        ("gap", "as many updates"): column(lambda r: r["as_many_updates"]),
        ("gap", "saboteur"): column(lambda r: r["saboteur"]),
        ("construction", "linear attention"): column(lambda r: r["construction"]["linear"]),
    }
    for i, size in enumerate(SIZES):
        name = f"T={size}"
        table["construction", name] = column(lambda r, i=i: r["construction"]["softmax"][i])
        if size <= config.prompts.num_steps and "model_excess" in rows[0]:
            for metric, key in (("regret", "model_excess"), ("exact regret", "exact_excess")):
                table[metric, name] = column(lambda r, k=key, s=size: r[k][s - 1] / s)
    if "new_pool" in rows[0]:
        table["wrong labels", "model"] = column(lambda r: r["wrong_labels"])
        for name in rows[0]["new_pool"]:
            table["new pool", name] = column(lambda r, n=name: r["new_pool"][n])
    for name, by_seed in found["evaluate"]["distances"].items():
        table["distance", name] = np.array([[one[-1] for one in by_seed]])
    return table


def checks(config: Config, found: Found, table: Scores) -> list[Precondition]:
    """Exact Bayes keeps its bound, and positions that tell predictors apart exist."""
    del table
    rows = found["evaluate"]["rows"]
    share = [row["informative_share"] for row in rows]
    told = f"share of positions {min(share):.3f} to {max(share):.3f}; expected above 0.01"
    result = [Precondition("some positions tell the predictors apart", min(share) > 0.01, told)]
    if config.prompts.task == "pool":
        worst = max(row["violation"] for row in rows)
        name = "exact Bayes keeps its regret bound on every prefix"
        told = f"most beyond the bound {worst:.2g} nats; expected at most 1e-9"
        result.append(Precondition(name, worst <= 1e-9, told))
    return result


def figures(config: Config, found: Found) -> list[dict[str, Any]]:
    """The paper's curves, redrawn for this run."""
    rows, steps = found["evaluate"]["rows"], range(1, config.prompts.num_steps + 1)
    gaps = [("model", "by_position"), ("saboteur", "saboteur_by_position")]
    result = [
        curves(
            "Distance from exact Bayes along the prompt",
            "At each position, mean over prompts; a line a seed.",
            "steps seen",
            "gap to exact Bayes",
            [_line(name, steps, [row[key] for row in rows]) for name, key in gaps],
            log_y=True,
        )
    ]
    if config.prompts.task == "pool":
        excess = [("model", "model_excess"), ("exact Bayes", "exact_excess")]
        lines = [_line(name, steps, [np.array(row[key]) / steps for row in rows]) for name, key in excess]
        lines.append(_line("bound", steps, [np.log(config.prompts.num_tasks) / np.array(steps)], dashed=True))
        caption = "Model and exact Bayes on the same prompts; dashed: the bound log D / T of a uniform pool."
        title = "Regret per step to the best task in hindsight"
        result.append(curves(title, caption, "steps T", "nats per step", lines, log_x=True, log_y=True))
    every, distances = config.fit.updates_per_chunk, found["evaluate"]["distances"]
    lines = [
        _line(name, [every * i for i in range(1, len(by_seed[0]))], [seed[1:] for seed in by_seed])
        for name, by_seed in distances.items()
    ]
    caption = "Total variation (regression: root mean squared gap), mean over positions."
    title = "Distance from exact Bayes while training"
    result.append(curves(title, caption, "updates", "distance", lines, log_x=True, log_y=True))
    lines = [_line("error", SIZES, [row["construction"]["softmax"] for row in rows])]
    caption = "Root mean squared error against the conditional mean to which it tends."
    title = "Softmax attention set by hand"
    return [*result, curves(title, caption, "pairs in the prompt", "error", lines, log_x=True, log_y=True)]


def _line(label: str, x: Iterable[float], by_seed: Any, *, dashed: bool = False) -> dict[str, Any]:
    """One line of a logarithmic figure, `by_seed [seeds][n]`."""
    return line(label, x, np.maximum(np.array(by_seed, np.float64), FLOOR).T, dashed=dashed)
