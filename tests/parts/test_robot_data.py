"""Data of frozen populations: splits by agent, tiers, checksums; nothing is trained here."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

import envs
from envs.wrappers.wrapper import innermost
from experiments.pasta import conditions, reward, robots
from experiments.pasta.config import CollectConfig, DomainConfig
from jaxagent.data import normalize, store
from jaxagent.files import sha256_file
from jaxagent.study import frozen
from jaxagent.study.frozen import PopulationError

DOMAIN = DomainConfig("classic/Pendulum-v1", horizon=20)
HOPPER = DomainConfig("brax/hopper", horizon=20, kept=(0, 1, 2, 3, 4))
CONFIG = CollectConfig(lanes=2, steps=20, demonstration_episodes=4)


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    shards, card = robots.collect(DOMAIN, CONFIG, seed=3)
    place = store.write(tmp_path_factory.mktemp("data") / "store", shards)
    return shards, card, place


def test_agents_are_split_and_the_best_demonstrates():
    returns = np.array([[0.0, 0.0, 0.0, 0.0], [1.0, 4.0, 2.0, 3.0]])
    parts = robots.split(returns)
    assert parts == {"demonstration": [1], "validation": [3], "train": [0, 2]}


@pytest.mark.parametrize(("tier", "expected"), [("expert", [5]), ("mixed", [3, 5])])
def test_tiers_select_snapshots(tier, expected):
    assert robots.snapshots_of(tier, 6) == expected
    assert robots.snapshots_of("replay", 3) == [0, 1, 2]


def test_stored_observations_are_standardised_by_the_moments_of_the_data():
    """The same as to standardise the data before; moments of `()` leave them as they are."""
    robot = robots.stand_in(DOMAIN)
    rng = np.random.default_rng(0)
    obs = [5.0 + 3.0 * rng.normal(size=t.obs.shape).astype(np.float32) for t in robot.offline]
    raw = robot._replace(
        offline=[t._replace(obs=x, final_obs=x + 1) for t, x in zip(robot.offline, obs, strict=True)]
    )
    flat = np.concatenate([x.reshape(-1, x.shape[-1]) for x in obs])
    mean, deviation = flat.mean(0)[None], flat.std(0)[None]
    steps = reward.as_replay(raw, normalize.moments_of(flat)).data
    np.testing.assert_allclose(steps.obs, (flat - mean) / deviation, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(steps.final_obs, (flat + 1 - mean) / deviation, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(reward.as_replay(raw, ()).data.obs, flat)


@pytest.mark.slow
def test_every_snapshot_of_every_training_agent_leaves_a_shard(collected):
    shards, card, _ = collected
    train = [(s.meta["agent"], s.meta["snapshot"]) for s in shards if s.meta["split"] == "train"]
    assert sorted(train) == [(a, i) for a in card["agents"]["train"] for i in range(6)]
    assert card["transitions"]["train"] == 2 * 20 * len(train)
    agents = [a for part in card["agents"].values() for a in part]
    assert len(agents) == len(set(agents)), "no agent serves two parts"


@pytest.mark.slow
def test_references_and_histogram_come_from_whole_episodes(collected):
    shards, card, _ = collected
    episodes = [s.trajectory.reward.sum(0) for s in shards if s.meta["split"] == "demonstration"]
    assert card["reference"]["expert"] == pytest.approx(np.concatenate(episodes).mean(), rel=1e-5)
    assert sum(card["returns"]["demonstration"]["counts"]) == 4


@pytest.mark.slow
def test_random_lanes_act_uniformly_and_the_others_do_not(collected):
    shards, _, _ = collected
    action = {
        part: np.concatenate([s.trajectory.action for s in shards if s.meta["split"] == part])
        for part in ("random", "demonstration")
    }
    assert np.abs(action["random"]).max() <= 2.0
    assert np.abs(action["random"]).mean() == pytest.approx(1.0, abs=0.25)
    assert not np.array_equal(action["random"][:20], action["demonstration"][:20])


def test_reading_back_selects_the_tier(collected):
    _, card, place = collected
    data = robots.load(place, DOMAIN, "expert", card["reference"])
    assert len(data.train) == len(card["agents"]["train"])
    assert len(data.demonstrations) == 4
    assert data.demonstrations[0].obs.shape == (20, 1, 3)
    replay = robots.load(place, DOMAIN, "replay", card["reference"])
    assert len(replay.train) == 6 * len(data.train)


@pytest.mark.slow
def test_data_are_a_function_of_the_seed(collected):
    shards, card, _ = collected
    again, same = robots.collect(DOMAIN, CONFIG, seed=3)
    assert card == same
    for a, b in zip(shards, again, strict=True):
        jax.tree.map(np.testing.assert_array_equal, a.trajectory, b.trajectory)


def test_steps_are_padded_to_one_size():
    domain = dataclasses.replace(DOMAIN, horizon=5, demonstrations=2.0, history=1)
    steps = robots.steps_of([_episode(3), _episode(4)], domain, begin=0.0)
    assert steps["window"].obs.shape == (10, 2, 2)
    assert steps["num_real"] == 7
    np.testing.assert_array_equal(steps["window"].is_known[:7, 0], [0, 1, 1, 0, 1, 1, 1])
    assert not steps["action"][7:].any()


@pytest.mark.parametrize(("begin", "first"), [(0.0, 0), (0.5, 3), (0.99, 6)])
def test_of_a_share_of_an_episode_a_stretch_is_kept_with_what_came_before_it(begin, first):
    episode = _episode(8)._replace(obs=np.arange(16, dtype=np.float32).reshape(8, 1, 2))
    domain = dataclasses.replace(DOMAIN, horizon=8, demonstrations=0.25, history=1)
    steps = robots.steps_of([episode], domain, begin)
    assert steps["num_real"] == 2
    shown = steps["window"].obs[:, -1, 0]
    np.testing.assert_array_equal(shown, [2 * first, 2 * first + 2])
    assert bool(steps["window"].is_known[0, 0]) == (first > 0)


@pytest.mark.parametrize("demonstrations", [0.3, 1.0, 1.1, 1.3, 2.1])
def test_whole_episodes_fill_the_demonstrations(demonstrations):
    domain = dataclasses.replace(DOMAIN, horizon=10, demonstrations=demonstrations)
    steps = robots.steps_of([_episode(10)] * domain.num_episodes, domain, begin=0.5)
    assert steps["num_real"] == len(steps["action"]) == round(10 * demonstrations)


def test_a_domain_that_is_seen_in_part_has_data_and_an_environment_of_those_sensors():
    domain = dataclasses.replace(DOMAIN, kept=(0, 2))
    env, task = robots.make(domain)
    assert domain.name == "Pendulum-v1-partial"
    assert [c.name for c in env.obs_spec] == [envs.make(domain.env)[0].obs_spec[i].name for i in (0, 2)]
    whole = np.arange(9.0).reshape(3, 1, 3)
    stored = robots.seen(domain, _episode(3)._replace(obs=whole, final_obs=whole))
    np.testing.assert_array_equal(stored.obs[:, 0], [[0, 2], [3, 5], [6, 8]])
    obs, _ = env.reset(jax.random.key(0), task)
    assert obs.shape == (2,)
    heavy = dataclasses.replace(HOPPER, gravities=(2.0,))
    robot = robots.stand_in(heavy)
    names, tests = conditions.conditions(heavy, robot)
    assert names == ["nominal", "gravity 2"]
    gravity = innermost(robot.task).gravity
    np.testing.assert_allclose(innermost(tests.task).gravity, [gravity, 2.0 * gravity])


def _episode(length):
    from jaxagent.types import Trajectory

    ones = np.ones((length, 1), np.float32)
    vectors = np.ones((length, 1, 2), np.float32)
    flags = np.zeros((length, 1), bool)
    return Trajectory(vectors, vectors, ones, flags, flags, vectors)


# --- the committed populations --------------------------------------------------------------------

COMMITTED = sorted(p.stem for p in robots.POLICIES.glob("*.json"))


def test_all_domains_of_the_study_are_committed():
    assert set(COMMITTED) >= {
        "Pendulum-v1",
        "inverted_pendulum",
        "reacher",
        "hopper",
        "halfcheetah",
        "walker2d",
        "ant",
    }


@pytest.mark.parametrize("name", COMMITTED)
def test_a_committed_population_has_agents_for_every_part_and_its_card_agrees(name):
    card = json.loads((robots.POLICIES / f"{name}.json").read_text())
    returns = np.array(card["returns"]["sampled"])
    assert returns.shape == (len(card["env_steps"]), returns.shape[1])
    assert returns.shape[1] >= 4
    assert returns[-1].max() > returns[0].max(), "the best agent learned"
    assert (robots.POLICIES / f"{name}.npz").stat().st_size < 500_000
    assert sha256_file(robots.POLICIES / f"{name}.npz") == card["sha256"]


def test_a_changed_population_is_refused(tmp_path):
    for suffix in ("npz", "json"):
        shutil.copy(robots.POLICIES / f"Pendulum-v1.{suffix}", tmp_path)
    data = bytearray((tmp_path / "Pendulum-v1.npz").read_bytes())
    data[-40] ^= 1
    (tmp_path / "Pendulum-v1.npz").write_bytes(bytes(data))
    with pytest.raises(PopulationError, match="SHA-256"):
        frozen.load("classic/Pendulum-v1", tmp_path)
    with pytest.raises(PopulationError, match=r"--only hopper"):
        frozen.load("brax/hopper", tmp_path)


def test_a_population_acts_as_its_card_says():
    """The last snapshot balances the pendulum; the first does not."""
    population = frozen.load("classic/Pendulum-v1", robots.POLICIES)
    assert population.returns[-1].min() > -300.0 > population.returns[0].max()
    shapes = {x.shape[:2] for x in jax.tree.leaves(population.params)}
    assert shapes == {population.returns.shape}
