"""Search against mctx, the 16 shapes of our notes: JSON lines and a geometric mean.

    python -m benchmarks.mcts                    # all cells, medians of 5 alternating runs
    python -m benchmarks.mcts --policy muzero --batch 256
    python -m benchmarks.mcts --quick            # the first of the cells that are asked for, tiny
    python -m benchmarks.mcts --growth           # time a simulation at max_depth 8, N 64 to 256
    python -m benchmarks.mcts --leaves           # wall clock of 1, 4, 8, 16 leaves a step
    python -m benchmarks.mcts --out FILE         # also append the lines to FILE

Both libraries search with the same tiny random model (embedding 16, hidden 32) in one process,
compiled apart, one run of each in turn; a cell tells the median of the paired ratios and how many
rows of visit counts are equal. The random model makes trees of PUCT deep, which is the hard case.

`--leaves` searches with a wider model (hidden 2048, two layers; 35 MB of weights, which a call of
few rows spends its time reading) and flatter priors, and tells how many nodes the trees got: walks
of a step that end alike make one.
"""

import argparse
import functools
import json
import math
import statistics
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.rows import emit
from jaxagent import mcts

EMBEDDING, HIDDEN = 16, 32
WIDE = {"embedding": 256, "hidden": 2048, "layers": 2, "sharpness": 0.3}
LEAVES = (1, 4, 8, 16)
ROUNDS = 5
CELLS = (
    ("gumbel", 1, 64, 18),
    ("muzero", 1, 64, 18),
    ("gumbel", 32, 64, 18),
    ("muzero", 32, 64, 18),
    ("gumbel", 256, 64, 18),
    ("muzero", 256, 64, 18),
    ("gumbel", 1024, 64, 4),
    ("muzero", 1024, 64, 4),
    ("gumbel", 1024, 16, 82),
    ("gumbel", 32, 256, 18),
    ("muzero", 32, 256, 18),
    ("gumbel", 32, 256, 82),
    ("muzero", 32, 256, 82),
    ("gumbel", 256, 256, 4),
    ("muzero", 256, 256, 4),
    ("gumbel", 256, 256, 18),
)


def problem(
    library: Any,
    batch_size: int,
    num_actions: int,
    seed: int = 0,
    *,
    embedding: int = EMBEDDING,
    hidden: int = HIDDEN,
    layers: int = 0,
    sharpness: float = 2.0,
) -> tuple[Any, Any]:
    """A root and a model of random weights, `layers` of them square."""
    keys = jax.random.split(jax.random.key(seed), 7)
    shapes = {
        "state": (embedding, hidden),
        "action": (num_actions, hidden),
        "out": (hidden, embedding),
        "prior": (embedding, num_actions),
        "value": (embedding,),
        "reward": (embedding,),
    }
    w = {
        name: jax.random.normal(key, shape) / math.sqrt(shape[0] if name != "action" else 1)
        for (name, shape), key in zip(shapes.items(), keys, strict=False)
    }
    more = jax.random.normal(jax.random.fold_in(keys[0], 1), (layers, hidden, hidden))
    more = more / math.sqrt(hidden)

    def judge(z: jax.Array) -> tuple[jax.Array, jax.Array]:
        return sharpness * (z @ w["prior"]), jnp.tanh(z @ w["value"])

    def model(params: Any, key: jax.Array, action: jax.Array, z: jax.Array) -> tuple[Any, Any]:
        del params, key
        h = jnp.tanh(z @ w["state"] + w["action"][action])
        for weights in more:
            h = jnp.tanh(h @ weights)
        z = jnp.tanh(2.0 * h @ w["out"])
        prior, value = judge(z)
        step = library.RecurrentFnOutput(
            reward=jnp.tanh(z @ w["reward"]),
            discount=jnp.full(value.shape, 0.97),
            prior_logits=prior,
            value=value,
        )
        return step, z

    first = jax.random.normal(keys[6], (batch_size, embedding))
    prior, value = judge(first)
    return library.RootFnOutput(prior_logits=prior, value=value, embedding=first), model


def searcher(
    library: Any,
    policy: str,
    batch_size: int,
    num_simulations: int,
    num_actions: int,
    model_size: dict[str, Any] | None = None,
    **options: Any,
) -> Any:
    """A compiled search: `key -> PolicyOutput`."""
    root, model = problem(library, batch_size, num_actions, **(model_size or {}))
    run = {"muzero": library.muzero_policy, "gumbel": library.gumbel_muzero_policy}[policy]
    if policy == "muzero":
        options["dirichlet_fraction"] = 0.0
    return jax.jit(
        functools.partial(lambda root, key: run((), key, root, model, num_simulations, **options), root)
    )


def seconds_of(run: Any, key: jax.Array) -> float:
    """Seconds of one search."""
    started = time.perf_counter()
    jax.block_until_ready(run(key))
    return time.perf_counter() - started


def compare(policy: str, batch_size: int, num_simulations: int, num_actions: int) -> dict[str, Any]:
    """One cell."""
    import mctx

    shape = (policy, batch_size, num_simulations, num_actions)
    runs = {name: searcher(lib, *shape) for name, lib in (("ours", mcts), ("mctx", mctx))}
    key = jax.random.key(1)
    visits = [np.asarray(run(key).search_tree.children_visits) for run in runs.values()]
    times: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(ROUNDS):
        for name, run in runs.items():
            times[name].append(seconds_of(run, jax.random.key(i)))
    ratios = [b / a for a, b in zip(times["ours"], times["mctx"], strict=True)]
    ours = statistics.median(times["ours"])
    return {
        "row": "mcts",
        "policy": policy,
        "B": batch_size,
        "N": num_simulations,
        "A": num_actions,
        "ours_ms": 1e3 * ours,
        "mctx_ms": 1e3 * statistics.median(times["mctx"]),
        "ratio": statistics.median(ratios),
        "simulations_per_second": batch_size * num_simulations / ours,
        "equal_rows": float(np.mean(np.all(visits[0] == visits[1], axis=(1, 2)))),
    }


def growth(policy: str, batch_size: int, num_actions: int) -> dict[str, Any]:
    """How the time of a simulation grows with the tree, at a depth of at most 8."""
    import mctx

    row: dict[str, Any] = {"row": "growth", "policy": policy, "B": batch_size, "A": num_actions}
    for name, library in (("ours", mcts), ("mctx", mctx)):
        runs = {n: searcher(library, policy, batch_size, n, num_actions, max_depth=8) for n in (64, 256)}
        for run in runs.values():
            jax.block_until_ready(run(jax.random.key(0)))
        ratios = []
        for i in range(ROUNDS):
            each = {n: seconds_of(run, jax.random.key(i)) / n for n, run in runs.items()}
            ratios.append(each[256] / each[64])
        row[name] = statistics.median(ratios)
    return row


def leaves(policy: str, batch_size: int, num_simulations: int, num_actions: int) -> dict[str, Any]:
    """Wall clock of 1 to 16 leaves a step with a model whose calls cost by the call."""
    shape = (policy, batch_size, num_simulations, num_actions)
    runs = {n: searcher(mcts, *shape, WIDE, num_leaves=n) for n in LEAVES}
    nodes = {
        n: float(np.mean(np.asarray(run(jax.random.key(1)).search_tree.parents)[:, 1:] >= 0))
        for n, run in runs.items()
    }
    times: dict[int, list[float]] = {n: [] for n in LEAVES}
    for i in range(ROUNDS):
        for n, run in runs.items():
            times[n].append(seconds_of(run, jax.random.key(i)))
    ratios = {n: statistics.median(a / b for a, b in zip(times[1], times[n], strict=True)) for n in LEAVES}
    return {
        "row": "leaves",
        "policy": policy,
        "B": batch_size,
        "N": num_simulations,
        "A": num_actions,
        "model": WIDE,
        "ms": {n: 1e3 * statistics.median(times[n]) for n in LEAVES},
        "faster_than_one": ratios,
        "nodes_per_simulation": nodes,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--policy", choices=("gumbel", "muzero"))
    parser.add_argument("--batch", type=int)
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--leaves", action="store_true")
    parser.add_argument("--quick", action="store_true", help="the first of the cells, tiny")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    wanted = [cell for cell in CELLS if given.policy in (None, cell[0]) and given.batch in (None, cell[1])]
    if given.quick:
        wanted = [(policy, min(batch, 4), 4, 4) for policy, batch, *_ in wanted[:1]]
    rows = [functools.partial(compare, *cell) for cell in wanted]
    if given.growth:
        rows = [functools.partial(growth, p, 256, 18) for p in ("gumbel", "muzero")]
    if given.leaves:
        rows = [
            functools.partial(leaves, p, b, 64, 18)
            for b in (1, 32)
            for p in ("gumbel", "muzero")
            if given.policy in (None, p) and given.batch in (None, b)
        ]
    found = []
    for measure in rows:
        found.append(measure())
        emit(found[-1], given.out)
    ratios = [row["ratio"] for row in found if "ratio" in row]
    if ratios:
        print(
            json.dumps(
                {
                    "row": "mcts mean",
                    "cells": len(ratios),
                    "least": min(ratios),
                    "geometric_mean": statistics.geometric_mean(ratios),
                }
            )
        )


if __name__ == "__main__":
    main()
