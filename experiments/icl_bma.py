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

    python -m experiments.icl_bma --preset cpu        # under 10 minutes on 2 cores
    python -m experiments.icl_bma --prompts.task fresh --out runs/fresh    # or linear
"""

if __name__ == "__main__":  # the command line is parsed before JAX is imported
    from experiments.cli import run_module

    run_module("icl_bma")

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.configs.icl_bma import Config
from experiments.parts import averaging_report as report
from experiments.parts import averaging_study as study
from experiments.parts import in_context
from experiments.parts.comparison import judged
from experiments.parts.cost import Cost
from experiments.parts.experts import seeds_of
from jaxagent.evaluate.claims import Claim
from jaxagent.train.run import Stage, Work, read_done, stage_folder

SIZES = study.SIZES


def claims(config: Config) -> list[Claim]:
    """What is claimed of this configuration; margins were fixed before the claim seeds ran."""
    below, aside = partial(Claim, direction="below"), {"gated": False}
    result = [
        below(
            "B1",
            "closer to exact Bayes than to anything else",
            "ratio",
            study.EXACT,
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
        result.append(
            below(
                "B8",
                "deeper models are nearer",
                "ordering",
                depths[0],
                depths[-1],
                between=tuple(depths[1:-1]),
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


def stages(config: Config) -> list[Stage]:
    """The run, in order."""
    training = [Stage(f"pretrain/depth-{d}", partial(pretrain, config, d)) for d in config.depths]
    saboteur = Stage("pretrain/saboteur", partial(pretrain, config, None))
    return [*training, saboteur, Stage("evaluate", partial(evaluate, config))]


def pretrain(config: Config, depth: int | None, folder: Path) -> Work:
    """One lane a seed; the saboteurs (no depth) share first parameters and keys with the models."""
    del folder
    task, fit = study.task_of(config, depth or config.depths[-1]), config.fit_of(depth)
    lanes = [task.lane(s, depth is None) for s in seeds_of(config)]
    lanes = jax.tree.map(lambda *x: np.stack(x), *jax.device_get(lanes))
    return in_context.pretrain(task.setting, lanes, task.draw, seeds_of(config), fit, config.runtime)


def evaluate(config: Config, folder: Path) -> Work:
    """Every seed's model against the references, on prompts that it never saw."""

    def finish(state: Any, place: Path) -> dict[str, Any]:
        del state, place
        depths, seeds = config.depths, seeds_of(config)
        kept = {d: _snapshots(config, folder, d) for d in (*depths, None)}
        measure = study.measurements(config, study.task_of(config, depths[-1]))
        # The model as it was when it had as many updates as the saboteur.
        then = config.saboteur_updates // config.fit.updates_per_chunk
        wanted = ((depths[-1], -1), (depths[-1], then), (None, -1))
        rows = []
        for i, seed in enumerate(seeds):
            of_seed = (jax.tree.map(lambda x, n=n, i=i: x[n, i], kept[d]) for d, n in wanted)
            rows.append(measure(seed, *of_seed))
        distances = {f"depth {d}": study.distances(config, d, seeds, kept[d]) for d in depths}
        return {"rows": rows, "distances": distances}

    return Work(finish)


def _snapshots(config: Config, folder: Path, depth: int | None) -> Any:
    setting = study.task_of(config, depth or config.depths[-1]).setting
    place = stage_folder(folder, f"pretrain/depth-{depth}" if depth else "pretrain/saboteur")
    return in_context.snapshots(setting, config.num_seeds, config.fit_of(depth), place)


def costs(config: Config) -> list[Cost]:
    """Of every stage, for --dry-run."""
    rows = [
        in_context.cost(
            stage.name,
            study.task_of(config, depth or config.depths[-1]).setting,
            config.num_seeds,
            config.fit_of(depth),
        )
        for stage, depth in zip(stages(config), (*config.depths, None), strict=False)
    ]
    return [*rows, Cost("evaluate", 0, 0.0, 0.0, 0.1, 40.0)]


def summary(config: Config, folder: Path, preset: str) -> dict[str, Any]:
    """Judge the claims; a failed precondition makes them VOID."""
    done = read_done(folder, "evaluate")["summary"]
    scores = report.scores(config, done)
    return judged(
        claims=claims(config),
        scores=scores,
        preset=preset,
        preconditions=report.preconditions(config, done),
        shown={n: scores["gap", n] for n in report.ABOUT if ("gap", n) in scores},
        about=report.ABOUT,
        tasks=[config.prompts.task],
    ) | report.extras(config, folder, done)
