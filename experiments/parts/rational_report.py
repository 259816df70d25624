"""What icl_rational says: scores of its claims, preconditions, figures."""

from pathlib import Path
from typing import Any

import numpy as np

from experiments.parts import rational_study as study
from jaxagent.bayes import rational
from jaxagent.evaluate import statistics
from jaxagent.evaluate.claims import Precondition
from jaxagent.train.run import read_done

FLOORS = ("best single predictor", "best weight of each cell", "half and half")
ABOUT = {
    "model": "the rational model: loss, complexity and steps, three scalars",
    "loss only": "without the complexity term",
    "complexity only": "without the loss term: the same at every step",
    "logistic": "a logistic curve in log N and log D, three scalars",
    "alpha 0": "ablation: every step counts in full",
    "beta 1": "ablation: every bit counts in full",
    "gamma 1": "ablation: no free scale of the loss",
    "permuted": "saboteur: losses and bits of other pool sizes",
    "best single predictor": "floor: M or G, whichever is nearer in each cell",
    "best weight of each cell": "floor: the best mixture in each cell, fitted to it",
    "half and half": "M and G with equal weight everywhere",
}
LIMITS = [
    "One architecture and task family; the classification setting of the paper is not here.",
    "Sizes, updates and learning rate were chosen on development seeds (1000 and up).",
]
RISES_ABOVE, FALLS_BELOW, FALLS_BY = 0.7, 0.5, 0.2  # weight on G that is transient


def _rows(config: Any, done: dict[str, Any]) -> list[dict[str, Any]]:
    """Every seed of the MLP width that the claims are about."""
    return done["by_width"][f"MLP x{config.mlp_factors[-1]}"]


def scores(config: Any, done: dict[str, Any]) -> dict[tuple[str, str], np.ndarray]:
    """(metric, arm) -> `[1, seeds]`."""
    rows = _rows(config, done)

    def column(read: Any, of: Any = rows) -> np.ndarray:
        return np.array([[float(read(row)) for row in of]])

    table = {("kl", v): column(lambda r, v=v: r["kl"][v]) for v in study.VARIANTS}
    table |= {("kl", f): column(lambda r, f=f: r["floors"][f]) for f in FLOORS}
    for kind in (study.SEEN, study.NEW):
        table["correlation", kind] = column(lambda r, k=kind: r["correlation"][k])
    table["transition", "slope"] = column(lambda r: _slope(config, r["transition"]["observed"]))
    table["transience", "share of seeds"] = column(lambda r: is_transient(r["relative"][study.NEW]))
    for width, of in done["by_width"].items():
        table["memorising", width] = column(lambda r: np.mean(r["relative"][study.SEEN]), of)
    return table


def _slope(config: Any, steps: list) -> float:
    """Log-log slope of the transition over D, where it was seen; 0 where fewer than three were."""
    seen = [(d, n) for d, n in zip(config.prompts.sizes, steps, strict=True) if n is not None]
    if len(seen) < 3:
        return 0.0
    sizes, found = (np.array(x, np.float64) for x in zip(*seen, strict=True))
    return float(statistics.fit_log_log_slope(sizes, found))


def is_transient(relative: list) -> bool:
    """Whether the weight on G of some size `[M][S]` rises, then falls again, on new tasks."""
    weight = 0.5 * (1.0 - np.array(relative))
    peak = np.maximum.accumulate(weight, axis=0)
    falls = (weight < FALLS_BELOW) | (peak - weight >= FALLS_BY)
    return bool(((peak > RISES_ABOVE) & falls).any())


def preconditions(config: Any, done: dict[str, Any]) -> list[Precondition]:
    """M and G are each best at home, they can be told apart, and no cell is fitted and judged."""
    rows = _rows(config, done)
    seen, new = (np.array([r["losses"][k] for r in rows]) for k in (study.SEEN, study.NEW))
    m_worse, g_worse = (seen[..., 0] - seen[..., 1]).max(), (new[..., 1] - new[..., 0]).max()
    gaps = np.array([r["gap"][study.SEEN] for r in rows])
    cells = rows[0]["cells"]
    total = len(study.steps_of(config)) * len(config.prompts.sizes)
    return [
        Precondition(
            "memorising is better on the pool, generalising on new tasks",
            m_worse <= 0.0 and g_worse <= 0.0,
            f"worst differences {m_worse:.3g} and {g_worse:.3g} nats; expected at most 0",
        ),
        Precondition(
            "they differ on most sizes",
            float(np.median(gaps)) >= config.theory.least_gap,
            f"median gap {np.median(gaps):.3g} nats; expected {config.theory.least_gap:g}",
        ),
        Precondition(
            "no cell is both fitted and held out",
            cells["fit"] + cells["held out"] == total,
            f"{cells['fit']} fitted, {cells['held out']} held out of {total}",
        ),
    ]


def extras(config: Any, folder: Path, done: dict[str, Any]) -> dict[str, Any]:
    """Labels, figures and budgets of the report."""
    fit, lanes = config.fit, len(config.prompts.sizes)
    period = 1 if config.prompts.task == "urn" else 3
    tokens = fit.num_updates * fit.batch_size * config.prompts.num_steps * period
    stage = read_done(folder, f"pretrain/mlp-{config.mlp_factors[-1]}")["summary"]
    rows = _rows(config, done)
    return {
        "score_label": "KL of the trained model from the prediction, held-out cells, nats",
        "score_title": "How well each theory predicts the trained models",
        "figures": figures(config, rows),
        "limits": LIMITS,
        "budgets": {
            f"each of {lanes} sizes": {
                "parameters": stage["parameters"],
                "updates": fit.num_updates,
                "tokens": tokens,
            }
        },
        "fits": [r["scalars"]["model"] for r in rows],
        "correlations": [r["correlation"] for r in rows],
        "transitions": [r["transition"] for r in rows],
    }


def figures(config: Any, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Relative distance maps, predicted against observed, transitions and transience."""
    steps, sizes = study.steps_of(config), config.prompts.sizes
    names = {"x_label": "updates", "y_label": "tasks in the pool, D"}
    marks = {"x_ticks": [f"{s:g}" for s in steps], "y_ticks": [str(d) for d in sizes]}
    observed, predicted = (
        [_mean(rows, key, kind).T.tolist() for kind in (study.SEEN, study.NEW)]
        for key in ("relative", "predicted")
    )
    maps = {
        "kind": "maps",
        "title": "Between generalising (-1) and memorising (+1)",
        "caption": "Relative distance, mean over seeds. The theory was fitted on the first "
        f"{config.theory.share:.0%} of updates and all but the largest sizes of the first map.",
        "panels": [
            {"title": f"{who}, prompts of {what}", "values": values}
            for who, of in (("model", observed), ("theory", predicted))
            for what, values in zip(("the pool", "new tasks"), of, strict=True)
        ],
        "low": -1.0,
        "high": 1.0,
    }
    _, held_out = rational.corner_split(len(steps), len(sizes), config.theory.share)
    scatter = {
        "kind": "scatter",
        "title": "Predicted against observed, held-out cells",
        "caption": "Relative distance of every held-out cell and seed; the line is y = x.",
        "x_label": "observed",
        "y_label": "predicted",
        "diagonal": True,
        "series": [
            {
                "label": f"prompts of {what}",
                "x": np.concatenate([np.array(r["relative"][k])[held_out] for r in rows]).tolist(),
                "y": np.concatenate([np.array(r["predicted"][k])[held_out] for r in rows]).tolist(),
            }
            for k, what in ((study.SEEN, "the pool"), (study.NEW, "new tasks"))
        ],
    }
    weight = [0.5 * (1.0 - np.array(r["relative"][study.NEW])) for r in rows]
    transience = {
        "kind": "curves",
        "title": "Weight on generalising, new tasks",
        "caption": "A rise and a fall again is the transience of in-context generalisation.",
        "x_label": "updates",
        "y_label": "weight on G",
        "log_x": True,
        "series": [
            {
                "label": f"D = {d}",
                "x": steps.tolist(),
                "y": np.stack([w[:, i] for w in weight], axis=1).tolist(),
            }
            for i, d in enumerate(sizes)
        ],
    }
    return [maps | names | marks, scatter, transience]


def _mean(rows: list[dict[str, Any]], key: str, kind: str) -> np.ndarray:
    return np.mean([np.array(r[key][kind]) for r in rows], axis=0)
