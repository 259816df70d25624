"""The room whole: each arm lacks one part, presets are small, and unequal agents are refused."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments.whole import study as whole
from experiments.whole.config import ALL_ARMS, PRESETS, SMOKE

TASK = SMOKE.tasks[0]
LARGEST = 10_000_000  # parameters of an agent


@pytest.mark.parametrize("preset", PRESETS)
def test_every_agent_of_every_preset_is_small(preset):
    config = PRESETS[preset]
    made = whole.study(config)
    assert set(made.arms) == set(config.arms)
    for task in config.tasks:
        for name in {"fresh", "modality"} & set(config.arms):  # others have the network of the first
            net = whole.planner_of(config, task, name, None).predictive
            shapes = jax.eval_shape(net.init, jax.random.key(0))
            assert sum(np.prod(x.shape) for x in jax.tree.leaves(shapes)) < LARGEST


def test_each_arm_lacks_one_part():
    def parts(name):
        arm = whole.PLANNERS[name]
        config = whole.config_of(TASK, arm)
        plays = "search" if arm.searches else "policy"
        return {
            "pretraining": arm.pretrained,
            "spr": config.spr.weight > 0.0,
            "training": config.targets,
            "model": config.model_weight > 0.0,
            "play": plays,
            "tokens": arm.has_modalities,
            "lanes": arm.mixes,
        }

    every = parts(whole.WHOLE)
    lacking = {
        n: {k for k, v in parts(n).items() if v != every[k]} for n in whole.PLANNERS if n != whole.WHOLE
    }
    assert lacking == {
        "raw": {"play"},
        "fresh": {"pretraining"},
        # Neither when it is pretrained nor later.
        "without spr": {"pretraining", "spr"},
        "by ppo": {"training"},
        "transformer": {"pretraining", "spr", "training", "model", "play"},
        "modality": {"pretraining", "tokens"},  # to be compared with the fresh one
        "mixed lanes": {"lanes"},
        "shuffled": {"pretraining"},
    }
    assert set(ALL_ARMS) == {*whole.PLANNERS, *whole.OTHERS}


def test_a_saboteur_mixes_lanes_under_search_alone():
    planner = whole.planner_of(SMOKE, TASK, "mixed lanes", None)
    state = np.arange(6.0, dtype=np.float32).reshape(3, 2)
    np.testing.assert_array_equal(planner.walked(state), np.roll(state, 1, axis=0))
    assert whole.planner_of(SMOKE, TASK, "whole", None).walked(state) is state


@pytest.mark.parametrize(
    ("part", "changes", "said"),
    [
        ("mlp", {"num_updates": 4}, "env steps of mlp: got 128"),
        ("mlp", {"num_updates": 4, "num_steps": 2}, "chunks of mlp: got 4"),
        ("muzero", {"num_updates": 4}, "env steps of muzero: got"),
    ],
)
def test_agents_take_as_many_steps(part, changes, said):
    changed = dataclasses.replace(getattr(TASK, part), **changes)
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(TASK, **{part: changed}).check()
