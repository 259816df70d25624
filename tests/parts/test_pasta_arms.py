"""The study of PASTA: seeds nested in pretrainings, arms fitted each in its own way; nothing is trained."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.pasta import config as pasta
from experiments.pasta import imitation, pretraining, robots
from experiments.pasta import study as experiment
from jaxagent.agents import window
from jaxagent.config import check
from jaxagent.study.config import SeedConfig
from jaxagent.study.study import costs

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
    config = adapted(rates=(("full", 0.5), ("mlp", 2.0)), lengths=(("mlp", 2.5),))
    domain, fit = config.domains[0], config.adapt.fit
    full, mlp, probe = (config.imitation_of(domain, config.arms[name]) for name in ("full", "mlp", "probe"))
    assert (full.learning_rate, full.num_updates) == (0.5 * fit.learning_rate, fit.num_updates)
    assert (mlp.learning_rate, mlp.num_updates) == (2.0 * fit.learning_rate, 2.5 * fit.num_updates)
    assert probe == fit
    groups = {name: group for group in imitation.groups(config, domain) for name in group.arms}
    assert groups["full"].name == "C-GPT-subset-rate-0.5"
    assert groups["probe"].name == "C-GPT-subset"
    assert groups["full"].fit == full
    chunks = dataclasses.replace(fit, num_updates=100, updates_per_chunk=100)
    third = adapted(fit=chunks, lengths=(("mlp", 0.3),))
    shorter = third.imitation_of(domain, third.arms["mlp"])
    assert (shorter.num_updates, shorter.updates_per_chunk) == (30, 30), "chunks follow, not the length"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rates": (("fulll", 0.5),)}, "fulll"),
        ({"rates": (("full", 0.5), ("full", 2.0))}, "each name once"),
        ({"rates": (("full", -0.5),)}, "learning_rate"),
        ({"lengths": (("full", -1.0),)}, "num_updates"),
        ({"lengths": ((pasta.LONGER, 2.0),)}, "whose length is derived"),
        ({"arms": ("full", "full")}, "each name once"),
    ],
)
def test_rates_and_lengths_of_arms_that_are_not_there_or_mean_nothing_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        check(adapted(**changes))


def test_scratch_at_equal_operations_is_as_long_as_pretraining_and_tuning():
    """By formula, within a tenth of what is counted in the traced updates, at sizes that are not tiny."""
    config = dataclasses.replace(
        adapted(arms=("full", pasta.LONGER), seeds=SeedConfig(0, 1)),
        domains=SMOKE.domains[1:],
        models=SMOKE.models[:1],
        num_pretrainings=1,
        network=dataclasses.replace(SMOKE.network, width=64),
    )
    envs = {d.name: robots.make(d)[0] for d in config.domains}
    assert imitation.matched(config, envs).arms[pasta.LONGER].length > 2
    # A lane each: pretraining, tuning, and the longer arm.
    flops = {cost.stage: cost.flops for cost in costs(experiment.study(config), with_memory=False)}
    longer = [spent for stage, spent in flops.items() if "length" in stage]
    assert (len(flops), len(longer)) == (3, 1)
    assert longer[0] / (sum(flops.values()) - longer[0]) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kept": (2, 0)}, r"kept of hopper-partial: got \(2, 0\), expected rising numbers from 0 to 10"),
        ({"kept": (0, 11)}, "rising numbers from 0 to 10"),
        ({"kept": (0, 1), "sensors": (2,)}, "sensors of hopper-partial"),
    ],
)
def test_sensors_that_a_robot_does_not_have_are_refused_before_anything_runs(changes, message):
    domain = pasta.DomainConfig("brax/hopper", horizon=20, **changes)
    with pytest.raises(ValueError, match=message):
        experiment.study(dataclasses.replace(SMOKE, domains=(domain,)))


def test_two_views_of_one_robot_have_names_of_their_own():
    twice = (
        pasta.DomainConfig("brax/hopper", 20, kept=(0,)),
        pasta.DomainConfig("brax/hopper", 20, kept=(1,)),
    )
    with pytest.raises(ValueError, match="names of domains"):
        check(dataclasses.replace(SMOKE, domains=twice))


def test_the_raw_policy_reads_what_the_tokens_tell_of_the_past():
    domain = dataclasses.replace(SMOKE.domains[1], history=1)
    data = {d.name: robots.stand_in(d) for d in SMOKE.domains}
    (group,) = (g for g in imitation.groups(SMOKE, domain) if g.model is None)
    act, robot = imitation.actor(group, data, None), data[domain.name]
    params = imitation.raw_network(SMOKE, domain, robot, None).init(
        jax.random.key(0), jnp.zeros((1, imitation.raw_size(domain, robot)))
    )
    shown = window.Window(jnp.ones((1, 2, 3)), jnp.zeros((1, 2, 1)), jnp.ones((1, 2), bool))
    here = act(params, shown)
    moved = shown._replace(action=shown.action.at[:, 0].set(1.0))
    assert not np.allclose(here, act(params, moved), atol=0.0)
    begun = shown._replace(is_known=jnp.array([[False, True]]))
    other = begun._replace(obs=begun.obs.at[:, 0].set(5.0), action=moved.action)
    np.testing.assert_array_equal(act(params, begun), act(params, other))
    present = shown._replace(action=shown.action.at[:, 1].set(1.0))
    np.testing.assert_array_equal(here, act(params, present))


def test_spendings_name_the_stages_that_an_arm_learned_in():
    spent = experiment.study(SMOKE).spent  # unknown stages would be refused
    assert spent["full"].stages == ("pretrain/C-GPT", "imitate/*/C-GPT-subset")
    assert spent["scratch"].stages == ("imitate/*/C-GPT-subset",)
    (longer,) = spent[pasta.LONGER].stages
    assert longer.startswith("imitate/*/C-GPT-subset-length-")
    assert spent["mlp"].stages == ("imitate/*/raw-rate-3",)


def test_a_learned_pool_has_no_place_in_learning_from_rewards():
    with pytest.raises(ValueError, match="one without parameters"):
        check(dataclasses.replace(adapted(pool="attention"), reward=pasta.RewardConfig(online=True)))
