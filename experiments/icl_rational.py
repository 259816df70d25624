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

    python -m experiments.icl_rational --preset cpu        # under 10 minutes on 2 cores
"""

if __name__ == "__main__":  # the command line is parsed before JAX is imported
    from experiments.cli import run_module

    run_module("icl_rational")

from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.configs.icl_rational import Config
from experiments.parts import in_context
from experiments.parts import rational_report as report
from experiments.parts import rational_study as study
from experiments.parts.comparison import judged
from experiments.parts.cost import Cost
from experiments.parts.experts import seeds_of
from jaxagent import keys
from jaxagent.evaluate.claims import Claim
from jaxagent.train.run import Stage, Work, read_done, stage_folder


def claims(config: Config) -> list[Claim]:
    """What is claimed of this configuration; margins were fixed before the claim seeds ran."""
    less = partial(Claim, kind="superiority", direction="below", metric="kl", arm_a="model")
    above = partial(Claim, kind="threshold", gated=False)
    result = [
        above(
            "R1",
            "held-out places between M and G are predicted",
            arm_a=study.SEEN,
            margin=0.8,
            reach=0.9,
            metric="correlation",
            gated=True,
        ),
        less("R2a", "it beats loss without complexity", arm_b="loss only"),
        less("R2b", "it beats complexity without loss", arm_b="complexity only"),
        less("R2c", "it beats a logistic curve in log N and log D", arm_b="logistic"),
        less("R3", "the theory given losses and bits of other sizes is worse", arm_b="permuted", gated=False),
        above("R1x", "on new tasks too", arm_a=study.NEW, margin=0.8, reach=0.9, metric="correlation"),
    ]
    if len(config.prompts.sizes) >= 6:
        result += [
            above(
                "R4",
                "transitions come superlinearly late with D",
                arm_a="slope",
                margin=1.0,
                metric="transition",
            ),
            above(
                "R5", "generalisation is transient", arm_a="share of seeds", margin=0.8, metric="transience"
            ),
        ]
    if len(config.mlp_factors) > 1:
        names = [f"MLP x{f}" for f in sorted(config.mlp_factors, reverse=True)]
        between = tuple(names[1:-1])
        result.append(
            Claim(
                "R6",
                "wider MLPs memorise earlier",
                "ordering",
                names[0],
                names[-1],
                between=between,
                metric="memorising",
                gated=False,
            )
        )
    return result


def stages(config: Config) -> list[Stage]:
    """The run, in order."""
    training = [Stage(f"pretrain/mlp-{f}", partial(pretrain, config, f)) for f in config.mlp_factors]
    return [*training, Stage("theory", partial(theory, config))]


def pretrain(config: Config, mlp_factor: int, folder: Path) -> Work:
    """All sizes and seeds as lanes of one program; sizes of a seed share first parameters."""
    del folder
    setting, seeds = study.setting_of(config, mlp_factor), seeds_of(config)
    lanes = [jax.device_get(study.pools(config, setting, s)) for s in seeds]
    lanes = jax.tree.map(lambda *x: np.concatenate(x), *lanes)  # seed-major
    lane_seeds = tuple(s for s in seeds for _ in config.prompts.sizes)
    draw = partial(in_context.draw_from_pool, setting)
    return in_context.pretrain(setting, lanes, draw, lane_seeds, config.fit, config.runtime)


def theory(config: Config, folder: Path) -> Work:
    """Measure every seed at every checkpoint, fit the rational model and its rivals."""

    def finish(state: Any, place: Path) -> dict[str, Any]:
        del state, place
        by_width = {}
        for factor in config.mlp_factors:
            setting, num_sizes = study.setting_of(config, factor), len(config.prompts.sizes)
            kept = in_context.snapshots(
                setting,
                num_sizes * config.num_seeds,
                config.fit,
                stage_folder(folder, f"pretrain/mlp-{factor}"),
            )
            rows = []
            for i, seed in enumerate(seeds_of(config)):
                of_seed = slice(i * num_sizes, (i + 1) * num_sizes)
                # Without the checkpoint before training: theory speaks of N >= 1.
                own = jax.tree.map(lambda x, s=of_seed: x[1:, s], kept)
                found = study.cells(config, setting, seed, own)
                rows.append(study.judge_seed(config, found, keys.derive(seed, "rational/fit")))
            by_width[f"MLP x{factor}"] = rows
        return {"by_width": by_width}

    return Work(finish)


def costs(config: Config) -> list[Cost]:
    """Of every stage, for --dry-run."""
    lanes = len(config.prompts.sizes) * config.num_seeds
    rows = [
        in_context.cost(f"pretrain/mlp-{f}", study.setting_of(config, f), lanes, config.fit)
        for f in config.mlp_factors
    ]
    return [*rows, Cost("theory", 0, 0.0, 0.0, 0.1, 60.0)]


def summary(config: Config, folder: Path, preset: str) -> dict[str, Any]:
    """Judge the claims; a failed precondition makes them VOID."""
    done = read_done(folder, "theory")["summary"]
    scores = report.scores(config, done)
    return judged(
        claims=claims(config),
        scores=scores,
        preset=preset,
        preconditions=report.preconditions(config, done),
        shown={v: scores["kl", v] for v in (*study.VARIANTS, *report.FLOORS)},
        about=report.ABOUT,
        tasks=["held-out cells"],
    ) | report.extras(config, folder, done)
