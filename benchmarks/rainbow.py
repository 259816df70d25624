"""What an update of SPR-Rainbow takes beside its network: updates/s and overhead; JSON lines.

    python -m benchmarks.rainbow                   # the network of the MinAtar preset, on Breakout
    python -m benchmarks.rainbow --out FILE        # also append the lines to FILE

Compared, alternating in one process: the whole program (environment steps, prioritised replay,
targets, loss and gradient, optimiser, slow copies), the same on a fixed minibatch without replay
and environments, and the forward and backward pass of the loss alone. Overhead is the whole over
that last one, per gradient step, less 1; a call is shorter than a run's, so that copying the replay
in and out of it weighs more. Compile seconds are apart.
"""

import argparse
import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

import envs
from benchmarks.calibrate import alternating
from benchmarks.rows import emit
from envs.vector import broadcast_params
from jaxagent.agents import rainbow
from jaxagent.config import NUM_SHARDS, QNetworkConfig, RainbowConfig, SPRConfig
from jaxagent.data.prioritized import prioritized_windows
from jaxagent.study import value_agents
from jaxagent.train import parallel

GAME = "minatar/Breakout"
AGENT = RainbowConfig(  # of the MinAtar preset
    model=QNetworkConfig(encoder="board", width=2, hidden_size=128, dropout=0.5), spr=SPRConfig(tau=0.01)
)
UPDATES = 16  # of a timed call, each with its gradient steps


def programs(config: RainbowConfig) -> dict[str, Any]:
    """Three jitted calls of equally many gradient steps, by name."""
    env, task = envs.make(GAME)
    agent = rainbow.rainbow(env.obs_shape, env.obs_dtype, env.action_spec, config)
    loop, tasks = value_agents.loop(env, config), broadcast_params(task, config.num_envs)
    state = parallel.first_state(*jax.jit(loop.init)(jax.random.key(0), tasks))
    chunk = parallel.chunked(loop, UPDATES, 1)
    memory = prioritized_windows(config.window, config.priority_exponent)
    ring = jax.tree.map(lambda x: x[0], state.shards.replay)
    drawn = jax.jit(partial(memory.sample, batch_size=config.batch_size))(ring, jax.random.key(1))
    params, copies = state.learner.params, state.learner.target
    batch = jax.jit(agent.targets)(params, copies, drawn, *jax.random.split(jax.random.key(2)))
    steps = jnp.arange(UPDATES * config.num_gradient_steps)

    def passes(with_targets: bool) -> Any:
        """Gradients of the loss, one after another, each of slightly other parameters."""

        def step(params: Any, i: jax.Array) -> tuple[Any, None]:
            key = jax.random.fold_in(jax.random.key(3), i)
            key_targets, key_noise, key_loss = jax.random.split(key, 3)
            own = batch
            if with_targets:
                own = agent.targets(params, copies, drawn, key_targets, key_noise)
            gradient = jax.grad(agent.loss, has_aux=True)(params, own, key_loss)[0]
            return jax.tree.map(lambda x, g: x - 1e-6 * g, params, gradient), None

        return jax.jit(lambda params: jax.lax.scan(step, params, steps)[0])

    alone, targets = passes(False), passes(True)
    return {
        "whole": lambda: chunk(state, jax.random.key(4)),
        "with targets": lambda: targets(params),
        "forward and backward": lambda: alone(params),
    }


def measure(name: str, config: RainbowConfig) -> dict[str, Any]:
    """One row."""
    runs, compiling = programs(config), {}
    for run, call in runs.items():
        start = time.perf_counter()
        jax.block_until_ready(call())
        compiling[run] = time.perf_counter() - start
    times = alternating(runs, seconds=1.0)
    count = UPDATES * config.num_gradient_steps
    per_step = {run: 1e3 * statistics.median(x) / count for run, x in times.items()}
    alone = times["forward and backward"]
    ratios = {
        run: statistics.median(a / b for a, b in zip(times[run], alone, strict=True))
        for run in ("whole", "with targets")
    }
    return {
        "row": "rainbow",
        "name": name,
        "batch": config.batch_size,
        "shards": NUM_SHARDS,
        "capacity": config.capacity,
        "gradient_steps_of_a_call": count,
        "env_steps_per_gradient_step": config.num_envs * config.num_steps / config.num_gradient_steps,
        "ms_per_gradient_step": per_step,
        "gradient_steps_per_second": 1e3 / per_step["whole"],
        "over_forward_and_backward": ratios,
        "compile_seconds": compiling,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    for name, config in (("rainbow + spr", AGENT), ("rainbow", value_agents.without_prediction(AGENT))):
        emit(measure(name, config), given.out)


if __name__ == "__main__":
    main()
