"""What PPO with each memory takes, acting, estimating and learning counted apart; JSON lines.

    python -m benchmarks.memory                       # the memories of `memory`'s cpu preset
    python -m benchmarks.memory --width 64 --context 64
    python -m benchmarks.memory --out FILE            # also append the lines to FILE

Microseconds an env step of all seeds, alternating in one process, medians of five rounds: acting (the
rollout, worlds included), estimating (values before and after each step), and learning (one epoch's
forward and backward pass, times the epochs). `env_steps_per_second` is of all three, and
`without_acting` of the last two, which is where a memory may be compared with none. `of_reflex` are
the two as shares of the memoryless towers'. Compile seconds are apart.
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

import envs
from benchmarks.rows import emit
from envs.vector import VectorEnv, broadcast_params
from jaxagent.agents.memory_policy import learner_and_player
from jaxagent.config import NUM_SHARDS, MemoryConfig, PPOConfig, TransformerConfig
from jaxagent.data.rollout import rollout
from jaxagent.train import loops, optimizer

ROUNDS = 5
PARTS = ("act", "estimate", "learn")
PPO = PPOConfig(num_envs=64, num_steps=16, num_epochs=2)


def memories(width: int, layers: int, context: int) -> dict[str, MemoryConfig | TransformerConfig]:
    """What is compared, the memoryless first."""
    transformer = TransformerConfig(width=width, num_layers=layers, num_heads=4, context=context)
    return {
        "reflex": MemoryConfig("none", width, last_action=False),
        "gru": MemoryConfig("gru", width),
        "linear": MemoryConfig("lru", width, num_layers=2),
        "transformer": transformer,
        "gated": dataclasses.replace(transformer, gate="gru"),
    }


def programs(env: Any, task: Any, config: PPOConfig, memory: Any, num_seeds: int) -> dict[str, Any]:
    """Compiled calls of the three parts for lanes of seeds, and the seconds they took to compile."""
    agent, _ = learner_and_player(env, config, memory)
    vector, tasks = VectorEnv(env), broadcast_params(task, config.num_envs)
    loop = loops.on_policy(agent, vector, optimizer.adam(1e-3, 0.5), config)
    seeds = jax.random.split(jax.random.key(0), num_seeds)
    learner, shards = jax.jit(jax.vmap(loop.init, (0, None)))(seeds, tasks)
    average = partial(jax.tree.map, partial(jnp.mean, axis=0))

    def act(params: Any, actor: Any, key: jax.Array) -> Any:
        run = partial(rollout, vector, partial(agent.act, params), num_steps=config.num_steps)
        return jax.vmap(run)(jax.random.split(key, NUM_SHARDS), actor)

    def estimate(params: Any, carry: Any, trajectory: Any) -> Any:
        return agent.targets(params, carry, trajectory, average)

    def learn(params: Any, items: Any) -> Any:
        """An epoch at once; minibatches would be as many products, each of a part of the rows."""
        return jax.grad(lambda p: jnp.mean(jax.vmap(lambda x: agent.loss(p, x)[0])(items)))(params)

    began, params, actor = time.perf_counter(), learner.params, shards.actor
    keys = jax.random.split(jax.random.key(1), num_seeds)
    run_act = compiled(act, params, actor, keys)
    _, trajectory = run_act(params, actor, keys)
    run_estimate = compiled(estimate, params, actor.carry, trajectory)
    items = run_estimate(params, actor.carry, trajectory)
    run_learn = compiled(learn, params, items)
    return {
        "act": partial(run_act, params, actor, keys),
        "estimate": partial(run_estimate, params, actor.carry, trajectory),
        "learn": partial(run_learn, params, items),
        "compile_seconds": time.perf_counter() - began,
    }


def compiled(fn: Callable, *args: Any) -> Callable:
    """`fn` over lanes, compiled."""
    return jax.jit(jax.vmap(fn)).lower(*args).compile()


def seconds(run: Callable[[], Any]) -> float:
    """Of one call."""
    began = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - began


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row a memory."""
    env, task = envs.make(args.env)
    config = dataclasses.replace(PPO, num_envs=args.num_envs, num_steps=args.num_steps)
    compared = memories(args.width, args.layers, args.context)
    runs = {name: programs(env, task, config, memory, args.seeds) for name, memory in compared.items()}
    times: dict[tuple[str, str], list[float]] = {(n, p): [] for n in runs for p in PARTS}
    for _ in range(1 + ROUNDS):
        for name, part in times:
            times[name, part].append(seconds(runs[name][part]))
    rows, num_steps = [], args.seeds * config.env_steps_per_update
    for name, run in runs.items():
        # The first round warms up.
        spent = {part: statistics.median(times[name, part][1:]) / num_steps for part in PARTS}
        spent["learn"] *= config.num_epochs
        row = {f"{part}_microseconds": round(1e6 * s, 2) for part, s in spent.items()}
        row["env_steps_per_second"] = round(1.0 / sum(spent.values()))
        row["without_acting"] = round(1.0 / (spent["estimate"] + spent["learn"]))
        first = rows[0] if rows else row
        row["of_reflex"] = [
            round(row[rate] / first[rate], 3) for rate in ("env_steps_per_second", "without_acting")
        ]
        rows.append({"memory": name, **row, "compile_seconds": round(run["compile_seconds"], 1)})
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--env", default="memory/RepeatFirst")
    parser.add_argument("--out", type=Path, default=None)
    sizes = {"width": 32, "layers": 2, "context": 8, "seeds": 5, "num-envs": 64, "num-steps": 16}
    for name, size in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=size)
    args = parser.parse_args()
    about = {k: v for k, v in vars(args).items() if k != "out"}
    for row in measure(args):
        emit({"benchmark": "memory", **about, **row}, args.out)


if __name__ == "__main__":
    main()
