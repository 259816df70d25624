"""The study of PASTA: seeds nested in pretrainings, arms fitted each in its own way; nothing is trained."""

import dataclasses

import numpy as np
import pytest

from experiments.pasta import config as pasta
from experiments.pasta import imitation, pretraining
from experiments.pasta import study as experiment
from jaxagent.config import check
from jaxagent.study.config import SeedConfig

SMOKE = pasta.SMOKE


def adapted(**changes):
    return dataclasses.replace(SMOKE, adapt=dataclasses.replace(SMOKE.adapt, **changes))


def test_seeds_are_nested_in_the_pretrainings_that_they_take_in_turn():
    config = adapted(seeds=SeedConfig(101, 6))
    rows = np.array([[0, 1, 0, 1, 0, 1], [10, 11, 10, 11, 10, 11]])  # the pretraining of every seed
    nested = experiment.nested(config, rows)
    np.testing.assert_array_equal(nested, [[[0] * 3, [1] * 3], [[10] * 3, [11] * 3]])
    with pytest.raises(ValueError, match="multiple of num_pretrainings = 2"):
        check(adapted(seeds=SeedConfig(0, 5)))


def test_claim_seeds_meet_no_pretraining_that_development_seeds_met():
    claim, development = (set(pretraining.pretrainings(adapted(seeds=SeedConfig(n, 2)))) for n in (0, 1000))
    assert len(claim) == SMOKE.num_pretrainings
    assert not claim & development


def test_an_arm_is_fitted_by_its_own_rate_and_length():
    config = adapted(rates=(("full", 0.5), ("mlp", 2.0)), lengths=(("mlp", 3.0),))
    domain, fit = config.domains[0], config.adapt.fit
    full, mlp, probe = (config.imitation_of(domain, config.arms[name]) for name in ("full", "mlp", "probe"))
    assert (full.learning_rate, full.num_updates) == (0.5 * fit.learning_rate, fit.num_updates)
    assert (mlp.learning_rate, mlp.num_updates) == (2.0 * fit.learning_rate, 3 * fit.num_updates)
    assert probe == fit
    groups = {name: group for group in imitation.groups(config, domain) for name in group.arms}
    assert groups["full"].name == "C-GPT-subset-rate-0.5"
    assert groups["probe"].name == "C-GPT-subset"
    assert groups["full"].fit == full
    with pytest.raises(ValueError, match="fulll"):
        check(adapted(rates=(("fulll", 0.5),)))


def test_spendings_name_the_stages_that_an_arm_learned_in():
    study = experiment.study(SMOKE)  # unknown stages would be refused
    assert study.spent["full"].stages == ("pretrain/C-GPT", "imitate/*/C-GPT-subset")
    assert study.spent["scratch"].stages == ("imitate/*/C-GPT-subset",)
    assert study.spent[pasta.LONGER].stages == ("imitate/*/C-GPT-subset-length-2",)
    assert study.spent["mlp"].stages == ("imitate/*/raw",)


def test_a_learned_pool_has_no_place_in_learning_from_rewards():
    with pytest.raises(ValueError, match="one without parameters"):
        check(dataclasses.replace(adapted(pool="attention"), reward=pasta.RewardConfig(online=True)))
