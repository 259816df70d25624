"""What a step of SPR on Atari takes, all seeds at once, and the emulator's part of it; JSON lines.

    python -m benchmarks.atari                        # the published agent, five seeds, boxing
    python -m benchmarks.atari --seeds 1 --out FILE   # also append the line to FILE
    python -m benchmarks.atari --quick                # the smoke preset's agent

Timed: chunks of the training itself (emulator, replay of frames, two minibatches a step, acting),
and the emulator alone under random actions, alternating in one process. Compile seconds are apart.
On an accelerator the emulator steps while the learner learns, so that the whole is not the sum.
"""

import argparse
import dataclasses
import statistics
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.rows import emit
from experiments.atari100k import training  # the program measured is this study's own
from experiments.atari100k.config import GPU, SMOKE, Config
from jaxagent.evaluate import emulator
from jaxagent.study.config import SeedConfig

WARMUP = 24
REPEATS = 5


def config_of(preset: Config, game: str, num_seeds: int, steps: int) -> Config:
    """A preset's agent, after a warm-up as short as can be."""
    fit = dataclasses.replace(
        preset.rainbow,
        warmup_steps=WARMUP,
        updates_per_chunk=steps,
        num_updates=(REPEATS + 2) * steps,
        capacity=8192,
    )
    return dataclasses.replace(preset, games=(game,), rainbow=fit, seeds=SeedConfig(0, num_seeds))


def measure(preset: Config, game: str, num_seeds: int, steps: int) -> dict[str, Any]:
    """One row."""
    config = config_of(preset, game, num_seeds, steps)
    loop = training.loop_of(config, game, "spr")
    start = time.perf_counter()
    state, _ = loop.chunk(loop.init())
    first = time.perf_counter() - start
    played, num_actions = random_play(config, game)
    whole, alone = [], []
    for _ in range(REPEATS):
        start = time.perf_counter()
        state, _ = loop.chunk(state)
        jax.block_until_ready(state.learner)
        whole.append(time.perf_counter() - start)
        start = time.perf_counter()
        for _ in range(steps):
            next(played)
        alone.append(time.perf_counter() - start)
    ms = {"whole": 1e3 * statistics.median(whole) / steps, "emulator": 1e3 * statistics.median(alone) / steps}
    return {
        "row": "atari step",
        "game": game,
        "actions": num_actions,
        "seeds": num_seeds,
        "steps_of_a_chunk": steps,
        "gradient_steps_per_step": config.rainbow.num_gradient_steps,
        "batch": config.rainbow.batch_size,
        "ms_per_step": ms,
        "emulator_share": statistics.median(a / b for a, b in zip(alone, whole, strict=True)),
        "minutes_of_100k_steps": ms["whole"] * 1e5 / 6e4,
        "first_chunk_seconds": first,  # compiling, for the most part
    }


def random_play(config: Config, game: str) -> tuple[Any, int]:
    """Steps of an emulator of as many lanes, without end."""
    env = training.player_of(config, game, "spr").env
    num_actions, num_seeds = env.action_spec[0].cardinality, len(config.seeds)
    rng = np.random.default_rng(0)

    def act(obs: jax.Array, count: Any) -> np.ndarray:
        del count
        return rng.integers(0, num_actions, len(obs)).astype(np.int32)

    seeds = np.arange(1, num_seeds + 1, dtype=np.int32)
    return emulator.play(env.vector(num_seeds), act, seeds), num_actions


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--game", default="boxing")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40, help="of a timed chunk")
    parser.add_argument("--quick", action="store_true", help="the smoke preset's agent, not the gpu preset's")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    emit(measure(SMOKE if given.quick else GPU, given.game, given.seeds, given.steps), given.out)


if __name__ == "__main__":
    main()
