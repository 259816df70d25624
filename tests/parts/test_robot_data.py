"""Data of frozen populations: splits by agent, tiers, checksums; nothing is trained here."""

import json
import shutil

import jax
import numpy as np
import pytest

from experiments.pasta import reward, robots
from experiments.pasta.config import CollectConfig, DomainConfig
from jaxagent.data import normalize, store
from jaxagent.files import sha256_file
from jaxagent.study import frozen
from jaxagent.study.frozen import PopulationError

DOMAIN = DomainConfig("classic/Pendulum-v1", horizon=20)
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
    steps = robots.steps_of([_episode(3), _episode(4)], size=10)
    assert steps["obs"].shape == (10, 2)
    assert steps["num_real"] == 7
    assert not steps["action"][7:].any()


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
