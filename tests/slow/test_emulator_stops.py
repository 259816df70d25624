"""A real game through a stop: lost lives, ends of games, lanes that are put back, a full ring."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from extras import need

from experiments.atari100k.config import SMOKE
from jaxagent.train import checkpoint

CONFIG = dataclasses.replace(
    SMOKE,
    games=("kangaroo",),
    rainbow=dataclasses.replace(
        SMOKE.rainbow, num_updates=700, updates_per_chunk=350, warmup_steps=300, capacity=256
    ),
)


@pytest.mark.slow
def test_a_stopped_run_ends_as_one_that_was_not(tmp_path):
    need("ale")
    from experiments.atari100k import training

    def loop():
        return training.loop_of(CONFIG, "kangaroo", "spr")

    whole = loop()
    middle, _ = whole.chunk(whole.init())
    checkpoint.save(tmp_path, int(middle.step), middle, "a1")
    state, report = whole.chunk(middle)

    resumed = loop()  # another emulator
    found = checkpoint.restore(tmp_path, 350, resumed.init(), "a1")
    again, same = resumed.chunk(jax.tree.map(jnp.asarray, found))
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(again), jax.device_get(state))
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(same), jax.device_get(report))

    fit = CONFIG.rainbow
    due = (fit.num_updates - fit.warmup_steps) * fit.num_gradient_steps
    np.testing.assert_array_equal(state.learner.target.num_updates, due)
    games = np.asarray(report.metrics["train/return"].count)
    assert games.sum() > 0  # so that a lane was put back
    assert int(state.shards.count) > fit.num_updates
    assert int(state.shards.count) > fit.capacity
