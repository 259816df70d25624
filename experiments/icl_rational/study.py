"""In-context strategies emerge rationally (Wurgaft et al. 2025).

Method. One-layer transformers learn to predict urns (or random MDPs) whose tasks come from pools of
D tasks, for several D and seeds in one program. At every checkpoint a model lies somewhere between
memorising (the posterior over its pool, M) and generalising (the posterior under the true prior,
G). The rational model says where: posterior odds from each strategy's loss, its complexity in bits
and the training steps, by three scalars, fitted on the first 80 % of checkpoints and of sizes and
judged on all other cells.

Claims. R1: predicted and observed place between M and G correlate at least 0.90 on held-out cells,
lower bound above 0.80. R2: its held-out KL is below that of loss alone (a), of complexity alone
(b) and of a logistic curve in log N and log D (c). R3: the saboteur, given losses and bits of other
sizes, is worse. R4 to R6 (superlinear transition, transience, MLP width) need the gpu grid.

    jaxagent run icl_rational --preset cpu        # under 10 minutes on 2 cores
"""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.icl_rational import theory
from experiments.icl_rational.config import Config
from experiments.icl_rational.theory import NEW, SEEN
from jaxagent import keys
from jaxagent.bayes import rational
from jaxagent.evaluate import statistics
from jaxagent.evaluate.claims import Claim, Precondition
from jaxagent.report.figure import curves, line, maps, scatter
from jaxagent.study import agents, in_context
from jaxagent.study.budget import Spent
from jaxagent.study.study import Fit, Found, Lanes, Measure, Study
from jaxagent.study.verdicts import Scores, of_seeds

ARMS = {
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
LIMITS = (
    "One architecture and task family; the classification setting of the paper is not here.",
    "Sizes, updates and learning rate were chosen on development seeds (1000 and up).",
)
RISES_ABOVE, FALLS_BELOW, FALLS_BY = 0.7, 0.5, 0.2  # weight on G that is transient


def study(config: Config) -> Study:
    """Models of every MLP width, then the theory of all of them."""
    fits = {f: Fit(f"pretrain/mlp-{f}", partial(lanes, config, f)) for f in config.mlp_factors}
    return Study(
        ARMS,
        ["held-out cells"],
        [*fits.values(), Measure("theory", lambda folder, place: measure(config, fits, folder))],
        partial(scores, config),
        claims(config),
        lambda found, table: checks(config, found),
        partial(figures, config),
        limits=LIMITS,
        label="KL of the trained model from the prediction, held-out cells, nats",
        title="How well each theory predicts the trained models",
        shown=lambda table, arm: table["kl", arm],
        extras=lambda found, table: extras(config, found),
        spent=spent(config),
    )


def spent(config: Config) -> dict[str, Spent]:
    """Theories are fitted to the same models, of the width that the claims are about."""
    widths = {f"MLP x{f}": Spent((f"pretrain/mlp-{f}",)) for f in config.mlp_factors}
    judged = widths[f"MLP x{config.mlp_factors[-1]}"]
    return dict.fromkeys(ARMS, judged) | (widths if len(widths) > 1 else {})


def claims(config: Config) -> list[Claim]:
    """What is claimed of this configuration; margins were fixed before the claim seeds ran."""
    less = partial(Claim, kind="superiority", direction="below", metric="kl", arm_a="model")
    above = partial(Claim, kind="threshold", margin=0.8)
    near, aside = {"reach": 0.9, "metric": "correlation"}, {"gated": False}
    result = [
        above("R1", "held-out places between M and G are predicted", arm_a=SEEN, **near),
        less("R2a", "it beats loss without complexity", arm_b="loss only"),
        less("R2b", "it beats complexity without loss", arm_b="complexity only"),
        less("R2c", "it beats a logistic curve in log N and log D", arm_b="logistic"),
        less("R3", "the theory given losses and bits of other sizes is worse", arm_b="permuted", **aside),
        above("R1x", "on new tasks too", arm_a=NEW, **near, **aside),
    ]
    if len(config.prompts.sizes) >= 6:
        late, transient = {"metric": "transition", "margin": 1.0}, {"metric": "transience"}
        result += [
            above("R4", "transitions come superlinearly late with D", arm_a="slope", **late, **aside),
            above("R5", "generalisation is transient", arm_a="share of seeds", **transient, **aside),
        ]
    if len(config.mlp_factors) > 1:
        widest, *between, narrowest = (f"MLP x{f}" for f in sorted(config.mlp_factors, reverse=True))
        earlier = partial(Claim, between=tuple(between), metric="memorising", gated=False)
        result.append(earlier("R6", "wider MLPs memorise earlier", "ordering", widest, narrowest))
    return result


def lanes(config: Config, mlp_factor: int, folder: Path | None) -> Lanes:
    """All sizes and seeds as lanes of one program; sizes of a seed share first parameters."""
    del folder
    setting = theory.setting_of(config, mlp_factor)
    pools = [jax.device_get(theory.pools(config, setting, seed)) for seed in config.seeds]
    pools = jax.tree.map(lambda *x: np.concatenate(x), *pools)  # seed-major
    seeds = tuple(seed for seed in config.seeds for _ in config.prompts.sizes)
    draw, in_turn = partial(in_context.draw_from_pool, setting), config.runtime.lanes_in_turn
    return in_context.pretrain(setting, pools, draw, seeds, config.fit, in_turn=in_turn)


def measure(config: Config, fits: dict[int, Fit], folder: Path) -> dict[str, Any]:
    """Measure every seed at every checkpoint, fit the rational model and its rivals."""
    by_width, num_sizes = {}, len(config.prompts.sizes)
    for factor, fit in fits.items():
        setting, rows = theory.setting_of(config, factor), []
        kept = fit.load(folder, setting.init)
        for i, seed in enumerate(config.seeds):
            # Without the checkpoint before training: theory speaks of N >= 1.
            snapshots = agents.take(kept, slice(1, None), slice(i * num_sizes, (i + 1) * num_sizes))
            found = theory.cells(config, setting, seed, snapshots)
            rows.append(theory.judge_seed(config, found, keys.derive(seed, "rational/fit")))
        by_width[f"MLP x{factor}"] = rows
    return {"by_width": by_width}


def rows_of(config: Config, found: Found) -> list[dict[str, Any]]:
    """Every seed of the MLP width that the claims are about."""
    return found["theory"]["by_width"][f"MLP x{config.mlp_factors[-1]}"]


def scores(config: Config, found: Found) -> Scores:
    """(metric, arm) -> `[1, seeds]`."""
    rows = rows_of(config, found)
    column = partial(of_seeds, rows)
    slopes = [slope(config, row["transition"]["observed"]) for row in rows]
    transient = [float(is_transient(row["relative"][NEW])) for row in rows]
    table: dict[Any, np.ndarray] = {
        **{("kl", variant): column("kl", variant) for variant in theory.VARIANTS},
        **{("kl", floor): column("floors", floor) for floor in rows[0]["floors"]},
        **{("correlation", kind): column("correlation", kind) for kind in (SEEN, NEW)},
        ("transition", "slope"): of_seeds(slopes),
        ("transience", "share of seeds"): of_seeds(transient),
    }
    for width, of_width in found["theory"]["by_width"].items():
        table["memorising", width] = of_seeds([np.mean(row["relative"][SEEN]) for row in of_width])
    return table


def slope(config: Config, steps: list[float | None]) -> float:
    """Log-log slope of the transition over D, where it was seen; 0 where fewer than three were."""
    seen = [(d, n) for d, n in zip(config.prompts.sizes, steps, strict=True) if n is not None]
    return float(statistics.fit_log_log_slope(*zip(*seen, strict=True))) if len(seen) >= 3 else 0.0


def is_transient(relative: list) -> bool:
    """Whether the weight on G of some size `[M][S]` rises, then falls again, on new tasks."""
    weight = 0.5 * (1.0 - np.array(relative))
    peak = np.maximum.accumulate(weight, axis=0)
    falls = (weight < FALLS_BELOW) | (peak - weight >= FALLS_BY)
    return bool(((peak > RISES_ABOVE) & falls).any())


def checks(config: Config, found: Found) -> list[Precondition]:
    """M and G are each best at home, they can be told apart, and no cell is fitted and judged."""
    rows, least = rows_of(config, found), config.theory.least_gap
    seen, new = (np.array([r["losses"][k] for r in rows]) for k in (SEEN, NEW))
    m_worse, g_worse = (seen[..., 0] - seen[..., 1]).max(), (new[..., 1] - new[..., 0]).max()
    home = f"worst differences {m_worse:.3g} and {g_worse:.3g} nats; expected at most 0"
    gap = float(np.median([r["gap"][SEEN] for r in rows]))
    fitted, held_out = rows[0]["cells"]["fit"], rows[0]["cells"]["held out"]
    total = len(theory.steps_of(config)) * len(config.prompts.sizes)
    apart = f"median gap {gap:.3g} nats; expected {least:g}"
    split = f"{fitted} fitted, {held_out} held out of {total}"
    best_at_home = "memorising is better on the pool, generalising on new tasks"
    return [
        Precondition(best_at_home, max(m_worse, g_worse) <= 0.0, home),
        Precondition("they differ on most sizes", gap >= least, apart),
        Precondition("no cell is both fitted and held out", fitted + held_out == total, split),
    ]


def extras(config: Config, found: Found) -> dict[str, Any]:
    """The fitted scalars of every seed."""
    rows = rows_of(config, found)
    return {
        "fits": [r["scalars"]["model"] for r in rows],
        "correlations": [r["correlation"] for r in rows],
        "transitions": [r["transition"] for r in rows],
    }


def figures(config: Config, found: Found) -> list[dict[str, Any]]:
    """Relative distance maps, predicted against observed, transitions and transience."""
    rows, steps, sizes = rows_of(config, found), theory.steps_of(config), config.prompts.sizes
    _, held_out = rational.corner_split(len(steps), len(sizes), config.theory.share)
    kinds = {SEEN: "the pool", NEW: "new tasks"}

    def read(key: str, kind: str) -> np.ndarray:  # [seeds, M, S]
        return np.array([row[key][kind] for row in rows])

    panels = {
        f"{who}, prompts of {what}": read(key, kind).mean(0).T
        for who, key in (("model", "relative"), ("theory", "predicted"))
        for kind, what in kinds.items()
    }
    title = "Between generalising (-1) and memorising (+1)"
    caption = (
        "Relative distance, mean over seeds. The theory was fitted on the first "
        f"{config.theory.share:.0%} of updates and all but the largest sizes of the first map."
    )
    axes = {"x_label": "updates", "y_label": "tasks in the pool, D", "low": -1.0, "high": 1.0}
    between = maps(title, caption, panels, x_ticks=[f"{s:g}" for s in steps], y_ticks=sizes, **axes)
    clouds = []
    for kind, what in kinds.items():
        observed, predicted = (read(key, kind)[:, held_out].ravel() for key in ("relative", "predicted"))
        clouds.append(line(f"prompts of {what}", observed, predicted))
    title = "Predicted against observed, held-out cells"
    caption = "Relative distance of every held-out cell and seed; the line is y = x."
    against = scatter(title, caption, "observed", "predicted", clouds)
    weight = 0.5 * (1.0 - read("relative", NEW))
    lines = [line(f"D = {d}", steps, weight[..., i].T) for i, d in enumerate(sizes)]
    title = "Weight on generalising, new tasks"
    caption = "A rise and a fall again is the transience of in-context generalisation."
    return [between, against, curves(title, caption, "updates", "weight on G", lines, log_x=True)]
