"""Kernels against their XLA references, by shape: JSON lines.

    python -m benchmarks.kernels                 # all shapes, medians of 7 alternating runs
    python -m benchmarks.kernels --quick         # small shapes
    python -m benchmarks.kernels --only scan --out FILE
    python -m benchmarks.kernels --list          # names of kernels

A row has the reference's microseconds, the kernel's and their ratio, where this machine has one ("not
run" elsewhere: a kernel in the interpreter says nothing of its speed), the share of the memory roofline
that the faster reaches, from the kernel's `cost` and a measured bandwidth (above 1 where arrays stay in
a cache), and how far the kernel's numbers are from the reference's: on a CPU in the interpreter, on at
most `CHECKED` lanes. Compile seconds are apart. Rows of accelerators decide where "auto" takes a kernel
(`Kernel.wins_on`).
"""

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import envs
from benchmarks.mcts import problem
from benchmarks.memory import seconds
from benchmarks.rows import emit
from envs.vector import VectorEnv, num_lanes
from envs.words import below, lane_step, seed_of
from jaxagent import mcts
from jaxagent.mcts.reuse import depths
from kernels import dispatch, linear_recurrence, rollout, scan, search

ROUNDS = 7
CHECKED = 64
SEARCHED = 82  # actions of a search
GAMES = ("classic/CartPole-v1", "minatar/Breakout")


class Cell(NamedTuple):
    """One kernel at one shape: `run(*args, implementation=...)`, and the bytes that it must move."""

    name: str
    shape: tuple[int, int]  # steps and lanes
    run: Callable
    args: tuple[Any, ...]
    num_bytes: int


def advantages(length: int, lanes: int) -> Cell:
    """Generalised advantages, as `objectives.returns.gae` has them."""
    keys = jax.random.split(jax.random.key(0), 2)
    delta = jax.random.normal(keys[0], (length, lanes))
    keeps = jnp.where(jax.random.bernoulli(keys[1], 0.05, (length, lanes)), 0.0, 0.94)

    def run(delta: jax.Array, keeps: jax.Array, *, implementation: str) -> jax.Array:
        return scan.scan(
            lambda following, now: (now[0] + now[1] * following,) * 2,
            jnp.zeros(delta.shape[1:]),
            (delta, keeps),
            reverse=True,
            implementation=implementation,
        )[1]

    _, num_bytes = scan.cost(length, lanes, num_inputs=2, num_outputs=1, operations=2)
    return Cell("scan", (length, lanes), run, (delta, keeps), num_bytes)


def recurrence(length: int, lanes: int) -> Cell:
    """A linear recurrence of complex numbers."""
    draw = partial(jax.random.uniform, shape=(length, lanes), minval=-0.7, maxval=0.7)
    parts = [draw(key) for key in jax.random.split(jax.random.key(0), 4)]
    factor, drive = linear_recurrence.Complex(*parts[:2]), linear_recurrence.Complex(*parts[2:])
    state = linear_recurrence.Complex(jnp.zeros(lanes), jnp.zeros(lanes))
    num_bytes = linear_recurrence.cost(length, lanes)[1]
    args = factor, drive, state
    return Cell("linear_recurrence", (length, lanes), linear_recurrence.recurrence, args, num_bytes)


def game(name: str, length: int, lanes: int) -> Cell:
    """Random play, of which rewards alone are summed."""
    env, task = envs.make(name)
    act = partial(_random, env.action_spec[0].cardinality)
    step = lane_step(env, act, task)
    key, key_steps = jax.random.split(jax.random.key(0))
    state = VectorEnv(env, num_lanes=lanes).reset(key, task).env
    seeds = seed_of(jax.random.split(key_steps, length))

    def summed(carry: tuple[Any, jax.Array], lane: jax.Array, seed: Any) -> tuple[Any, tuple]:
        state, told = step(carry[0], lane, seed)
        return (state, carry[1] + told.reward), ()

    def run(state: Any, seeds: Any, *, implementation: str) -> Any:
        begin = state, jnp.zeros(num_lanes(state))
        return rollout.rollout(summed, begin, seeds, implementation=implementation)[0]

    fields = len(jax.tree.leaves(state)) + 1
    num_bytes = rollout.cost(length, lanes, num_fields=fields, num_outputs=0, operations=0)[1]
    return Cell(f"rollout of {name}", (length, lanes), run, (state, seeds), num_bytes)


def tree_search(length: int, lanes: int) -> Cell:
    """A whole search of so many simulations, with a tiny model; the reference is `jaxagent.mcts`'s own.

    Bytes are the tree part's, so that its share of the roofline is of a time that the model has part in.
    """

    def grown(root: mcts.RootFnOutput, model: Callable, implementation: str) -> mcts.Tree:
        rule = mcts.muzero_action_selection
        return mcts.search(
            (),
            jax.random.key(0),
            root=root,
            recurrent_fn=model,
            root_action_selection_fn=partial(rule, depth=0),
            interior_action_selection_fn=rule,
            num_simulations=length,
            implementation=implementation,
        )

    def run(root: mcts.RootFnOutput, *, implementation: str) -> tuple[jax.Array, jax.Array]:
        tree = grown(root, problem(mcts, lanes, SEARCHED)[1], implementation)
        return tree.children_visits, tree.node_values

    few = jax.jit(lambda: grown(*problem(mcts, CHECKED, SEARCHED), "xla").parents)()
    depth = float(jnp.mean(depths(few)[:, 1:]))  # of the walk that made each node
    num_bytes = length * search.cost(lanes, SEARCHED, depth, num_rows=1, operations=0)[1]
    return Cell("search", (length, lanes), run, (problem(mcts, lanes, SEARCHED)[0],), round(num_bytes))


def _random(num_actions: int, words: tuple[jax.Array, ...], state: Any) -> jax.Array:
    del state
    return below(words[0], num_actions)


def cells(is_quick: bool) -> list[Cell]:
    """All of a run."""
    lanes, many = (256, 256) if is_quick else (4096, 8192)
    length = 32 if is_quick else 128
    found = [advantages(length, lanes), recurrence(length, lanes), *(game(g, length, many) for g in GAMES)]
    return [*found, tree_search(16, 64) if is_quick else tree_search(256, 1024)]


def bandwidth() -> float:
    """Bytes a second of reading and writing an array of 256 MiB."""
    x = jnp.ones(2**26)
    run = jax.jit(lambda x: x + 1.0)
    run(x).block_until_ready()
    return 2 * x.nbytes / statistics.median(seconds(lambda: run(x)) for _ in range(5))


def furthest(cell: Cell, how: str) -> float:
    """The largest difference of a number from the reference's."""
    pairs = [jax.tree.leaves(cell.run(*cell.args, implementation=one)) for one in (how, "xla")]
    return max(
        float(jnp.max(jnp.abs(x.astype(jnp.float32) - y.astype(jnp.float32))))
        for x, y in zip(*pairs, strict=True)
    )


def measured(cell: Cell, small: Cell, rate: float) -> dict[str, Any]:
    """The row of a cell; `small` is checked where there is no accelerator."""
    has_kernel = dispatch.platform() in ("cuda", "tpu")
    ways = ("xla", "pallas") if has_kernel else ("xla",)
    runs = {how: jax.jit(partial(cell.run, implementation=how)) for how in ways}
    compiled = {how: seconds(lambda run=run: run(*cell.args)) for how, run in runs.items()}
    times = {how: [] for how in ways}
    for _ in range(ROUNDS):
        for how, run in runs.items():
            times[how].append(seconds(lambda run=run: run(*cell.args)))
    median = {how: statistics.median(of) for how, of in times.items()}
    length, lanes = cell.shape
    row: dict[str, Any] = {"kernel": cell.name, "steps": length, "lanes": lanes}
    row |= {f"{how}_us": round(1e6 * value, 1) for how, value in median.items()}
    row |= {f"{how}_first_s": round(value, 2) for how, value in compiled.items()}
    if has_kernel:
        row["ratio"] = round(
            statistics.median(a / b for a, b in zip(times["xla"], times["pallas"], strict=True)), 2
        )
    else:
        row["pallas_us"] = "not run"
    row["roofline"] = round(cell.num_bytes / rate / min(median.values()), 4)
    row["furthest"] = furthest(cell, "pallas") if has_kernel else furthest(small, "interpret")
    return row


def main() -> None:
    """Print the rows, and append them to a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small shapes")
    parser.add_argument("--only", default="", help="kernels whose name begins so")
    parser.add_argument("--list", action="store_true", help="print names of kernels")
    parser.add_argument("--out", type=Path, help="also append the rows to this file")
    args = parser.parse_args()
    if args.list:
        print("\n".join(cell.name for cell in cells(is_quick=True)))
        return
    rate = bandwidth()
    small = [advantages(16, CHECKED), recurrence(16, CHECKED), *(game(g, 16, CHECKED) for g in GAMES)]
    small.append(tree_search(16, CHECKED))
    for cell, checked in zip(cells(args.quick), small, strict=True):
        if cell.name.startswith(args.only):
            emit(measured(cell, checked, rate) | {"bytes_per_s": round(rate)}, args.out)


if __name__ == "__main__":
    main()
