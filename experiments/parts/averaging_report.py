"""What icl_bma says: scores of its claims, preconditions, figures."""

from pathlib import Path
from typing import Any

import numpy as np

from experiments.parts.averaging_study import EXACT, SIZES
from jaxagent.evaluate.claims import Precondition
from jaxagent.train.run import read_done

ABOUT = {
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
LIMITS = [
    "The task is small and synthetic: what is tested is the identity, not a benchmark's numbers.",
    "Updates, learning rate and alpha were chosen on development seeds (1000 and up).",
]
FLOOR = 1e-12  # of a gap, in a logarithmic figure


def scores(config: Any, done: dict[str, Any]) -> dict[tuple[str, str], np.ndarray]:
    """(metric, arm) -> `[1, seeds]`."""
    rows = done["rows"]

    def column(read: Any) -> np.ndarray:
        return np.array([[read(row) for row in rows]])

    gaps = {name: column(lambda r, n=name: r["gaps"][n]) for name in rows[0]["gaps"]}
    others = np.concatenate([v for n, v in gaps.items() if n != EXACT])
    table = {("gap", name): value for name, value in gaps.items()}
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
    for name, by_seed in done["distances"].items():
        table["distance", name] = np.array([[one[-1] for one in by_seed]])
    return table


def preconditions(config: Any, done: dict[str, Any]) -> list[Precondition]:
    """Exact Bayes keeps its bound, and positions that tell predictors apart exist."""
    rows = done["rows"]
    share = [r["informative_share"] for r in rows]
    result = [
        Precondition(
            "some positions tell the predictors apart",
            min(share) > 0.01,
            f"share of positions {min(share):.3f} to {max(share):.3f}; expected above 0.01",
        )
    ]
    if config.prompts.task == "pool":
        worst = max(r["violation"] for r in rows)
        result.append(
            Precondition(
                "exact Bayes keeps its regret bound on every prefix",
                worst <= 1e-9,
                f"most beyond the bound {worst:.2g} nats; expected at most 1e-9",
            )
        )
    return result


def extras(config: Any, folder: Path, done: dict[str, Any]) -> dict[str, Any]:
    """Labels, figures and budgets of the report."""
    unit = "KL, nats" if config.prompts.task != "linear" else "squared difference"
    training = [read_done(folder, f"pretrain/depth-{d}") for d in config.depths]
    p, fit = config.prompts, config.fit
    tokens = fit.num_updates * fit.batch_size * p.num_steps * (2 if p.task == "linear" else 3)
    return {
        "score_label": f"{unit} from the predictor to the model (less: nearer)",
        "score_title": "Which predictor the model is nearest to",
        "figures": figures(config, done),
        "limits": LIMITS,
        "budgets": {
            "model": {
                "parameters": training[-1]["summary"]["parameters"],
                "updates": fit.num_updates,
                "tokens": tokens,
            }
        },
    }


def figures(config: Any, done: dict[str, Any]) -> list[dict[str, Any]]:
    """The paper's curves, redrawn for this run."""
    rows = done["rows"]
    steps = list(range(1, config.prompts.num_steps + 1))
    result = [
        _curves(
            "Distance from exact Bayes along the prompt",
            "At each position, mean over prompts; a line a seed.",
            "steps seen",
            "gap to exact Bayes",
            [
                _series("model", steps, [r["by_position"] for r in rows]),
                _series("saboteur", steps, [r["saboteur_by_position"] for r in rows]),
            ],
            log_y=True,
        )
    ]
    if config.prompts.task == "pool":
        bound = np.log(config.prompts.num_tasks) / np.array(steps)
        result.append(
            _curves(
                "Regret per step to the best task in hindsight",
                "Model and exact Bayes on the same prompts; dashed: the bound log D / T of a uniform pool.",
                "steps T",
                "nats per step",
                [
                    _series("model", steps, _per_step([r["model_excess"] for r in rows])),
                    _series("exact Bayes", steps, _per_step([r["exact_excess"] for r in rows])),
                    _series("bound", steps, [bound]) | {"style": "dashed"},
                ],
                log_x=True,
                log_y=True,
            )
        )
    per_update = config.fit.updates_per_chunk
    by_tokens = [
        _series(name, [per_update * i for i in range(1, len(by_seed[0]))], [s[1:] for s in by_seed])
        for name, by_seed in done["distances"].items()
    ]
    result.append(
        _curves(
            "Distance from exact Bayes while training",
            "Total variation (regression: root mean squared gap), mean over positions.",
            "updates",
            "distance",
            by_tokens,
            log_x=True,
            log_y=True,
        )
    )
    softmax = [r["construction"]["softmax"] for r in rows]
    result.append(
        _curves(
            "Softmax attention set by hand",
            "Root mean squared error against the conditional mean to which it tends.",
            "pairs in the prompt",
            "error",
            [_series("error", list(SIZES), softmax)],
            log_x=True,
            log_y=True,
        )
    )
    return result


def _per_step(excess: list[list[float]]) -> list[list[float]]:
    return [(np.array(one) / np.arange(1, len(one) + 1)).tolist() for one in excess]


def _series(label: str, x: list, by_seed: Any) -> dict[str, Any]:
    """One line of a figure, `by_seed [seeds][n]`."""
    values = np.maximum(np.array(by_seed, np.float64), FLOOR)
    return {"label": label, "x": list(map(float, x)), "y": values.T.tolist()}


def _curves(title: str, caption: str, x: str, y: str, series: list, **scales: bool) -> dict:
    names = {"kind": "curves", "title": title, "caption": caption, "x_label": x, "y_label": y}
    return names | {"series": series} | scales
